"""*Payloads*: JSON of 100 bytes to 100 kB that does not compress; 8 clients, one
message a transaction. *in*: stored, on a fresh queue, for the time of a
measurement. *out*: leased, received and acked, in two transactions, 400 MB of
them or 50,000 if that is less (a tenth with --quick), of which half are taken.
The limit is a prepared INSERT and a DELETE by ctid, which neither reads nor
returns the payload.

*Queues*: on a server of its own, 5,000 queues that share a dead-letter queue (200
with --quick, see the notes), made one after the other; 8 clients, each with a
random one every time: store, lease, ack, in three transactions. *one*: the same
with the first of the queues only. The limit stores in and deletes from one table:
INSERT ... RETURNING ctid, DELETE by ctid. *CPU* is the processor time of the
clients' server processes a message. *first* is the time of a dequeue of a session
that comes to each queue for the first time and knows nothing of it yet, *again*
that of the second time."""

import json
import random
import string
import time
from statistics import median

from contenders import payload_of
from results import Goal
from scenarios.b07_pinned import connect
from server import private_server, stop_server

ID = "B22"
TITLE = "large payloads, many queues"
CONTENDERS = ["queue", "plain"]
SIZES = {"100 B": 100, "1 kB": 1000, "8 kB": 8000, "100 kB": 100_000}
METRICS = {
    **{f"in {size}": f"in, {size}" for size in SIZES},
    **{f"out {size}": f"out, {size}" for size in SIZES},
    "one": "one queue",
    "many": "many queues",
    "one cpu": "one, us of CPU",
    "many cpu": "many, us of CPU",
    "create": "create, ms a queue",
    "first": "first, us",
    "again": "again, us",
}
PLOTTED = [f"in {size}" for size in SIZES]
GOALS = [
    *(Goal(f"{way} {size}, beside the limit", ("queue", f"{way} {size}"), ">=", 1, ("plain", f"{way} {size}"), shown=True)
      for way in ("in", "out") for size in SIZES),
    Goal("many queues, beside one", ("queue", "many"), ">=", 1, ("queue", "one"), shown=True),
    Goal("many queues, beside the limit", ("queue", "many"), ">=", 1, ("plain", "many"), shown=True),
]
CLIENTS = 8
BYTES = 400_000_000
MOST = 50_000

MANY = {
    "queue": r"""\set q random(1, :queues)
SELECT queue.enqueue('many_' || :q, :payload);
\set id 0
SELECT * FROM queue.dequeue('many_' || :q) \aset
\if :id > 0
SELECT queue.ack(:receipt);
\endif
""",
    "plain": r"""INSERT INTO bench_plain (payload) VALUES (:payload) RETURNING ctid \gset
DELETE FROM bench_plain WHERE ctid = :ctid::tid;
""",
}


def run(turn):
    for size, length in SIZES.items():
        for repetition, contender in turn.each():
            turn.attempt(contender, measure_size, turn, repetition, size, length)
    server = private_server("many")
    try:
        own = [type(contender)(server, turn.options) for contender in turn.contenders.values()]
        for contender in own:
            turn.attempt(contender, make_many, turn)
        for repetition in range(turn.options.reps):
            for contender in own:
                if contender.name not in turn.failed:
                    turn.attempt(contender, measure_many, turn, repetition)
    finally:
        stop_server(server, "many")


def dense(size):
    """A payload of this many bytes that does not compress."""
    document = json.loads(payload_of(size))
    letters = random.Random(size)
    document["note"] = "".join(letters.choices(string.ascii_letters + string.digits + "+/", k=len(document["note"])))
    return json.dumps(document)


def measure_size(contender, turn, repetition, size, length):
    usual, contender.payload = contender.payload, dense(length)
    try:
        rate = turn.produce(contender, contender.enqueue, CLIENTS)
        turn.add(repetition, contender, f"in {size}", rate, "messages/s", CLIENTS)
        count = min(MOST, BYTES // length) // (10 if turn.options.quick else 1)
        contender.reset()
        contender.ready(count)
        turn.settle()
        load = turn.server.pgbench(
            contender.consume(1), CLIENTS, transactions=count // 2 // CLIENTS, **contender.variables(CLIENTS))
        turn.add(repetition, contender, f"out {size}", load.transactions / load.seconds, "messages/s", CLIENTS)
        contender.drop()
    finally:
        contender.payload = usual


def queues(turn):
    return 200 if turn.options.quick else 5000


def make_many(contender, turn):
    server = contender.server
    if contender.name == "plain":
        contender.create()
        return
    server.execute("CREATE EXTENSION queue", "SELECT queue.create('many')")
    turn.results.notes.append(f"{ID}: many queues are {queues(turn):,}.")
    began = time.monotonic()
    for number in range(1, queues(turn) + 1):
        server.rows("SELECT queue.create(%s, %s)", f"many_{number}", '{"dead_letter": "many_dead"}')
    turn.add(0, contender, "create", 1000 * (time.monotonic() - began) / queues(turn), "ms")
    # So that each finds a message.
    for number in range(1, queues(turn) + 1):
        server.rows("SELECT queue.enqueue_batch(%s, array_fill(%s::jsonb, ARRAY[10]))", f"many_{number}", contender.payload)


def measure_many(contender, turn, repetition):
    server = contender.server
    for metric, count in (("one", 1), ("many", queues(turn))):
        server.execute("CHECKPOINT")
        used = server.cpu()
        load = server.pgbench(
            MANY[contender.name], CLIENTS, turn.options.seconds, payload=contender.payload, queues=count)
        used = server.cpu() - used
        turn.add(repetition, contender, metric, load.transactions / load.seconds, "messages/s", CLIENTS)
        turn.add(repetition, contender, f"{metric} cpu", 1e6 * used / load.transactions, "us", CLIENTS)
    if contender.name == "queue":
        measure_first(contender, turn, repetition)


def measure_first(contender, turn, repetition):
    connection = connect(contender.server)
    with connection.cursor() as cursor:
        cursor.execute("PREPARE take(text) AS SELECT receipt FROM queue.dequeue($1)")
        for metric in ("first", "again"):
            times = []
            for number in range(1, queues(turn) + 1):
                began = time.perf_counter()
                cursor.execute("EXECUTE take(%s)", (f"many_{number}",))
                times.append((time.perf_counter() - began) * 1e6)
                # Its commit waits for the disk, which says nothing about queues.
                cursor.execute("SELECT queue.ack(%s)", (cursor.fetchone()[0],))
            turn.add(repetition, contender, metric, median(times), "us")
    connection.close()
