"""Four clients work on the queue, 400 times a second: they enqueue one message, or
dequeue one and ack it. Meanwhile one transaction enqueues a million messages
(100,000 with --quick) into the same queue, by INSERT ... SELECT into the queue's
view or in batches of 1000; or it inserts as many rows into a plain table without
an index, which is what the same disk and cores give away to anybody. Latencies are
those of the four, counted from when each was due, from the start of the large
transaction until 0.2 s after its commit, when the messages have become known to
all: longer, and the calm that follows would count for more where the transaction
is shorter. *took* is the large transaction's own time.

Where the time went (perf, sampled waits, before batches told the map of their pages):
the live dequeues looked at each page of the large transaction once, about 10 us a
page. Batches have their pages to themselves and tell the map; a row at a time, as the
view inserts, does not. What is left with batches has not been profiled yet."""

import time

from contenders import FILL_BATCH, NAME
from results import Goal, percentile

ID = "B15"
TITLE = "live traffic beside a transaction of 1M messages"
CONTENDERS = ["queue"]
LINES = {"plain INSERT": ("queue",), "INSERT into the view": ("queue",), "enqueue_batch": ("queue",)}
SHARES = {"p50": 0.50, "p99": 0.99}
TABLE = (list(LINES), [*SHARES, "took"])
PLOTTED = list(SHARES)
METRICS = {f"{line} {p}": f"{line}, {p}, us" for line in LINES for p in SHARES}
GOALS = [
    Goal("live p99 beside a plain INSERT: INSERT into the view", ("queue", "INSERT into the view p99"), "<=", 1.2,
         ("queue", "plain INSERT p99")),
    Goal("live p99 beside a plain INSERT: enqueue_batch", ("queue", "enqueue_batch p99"), "<=", 1.2,
         ("queue", "plain INSERT p99")),
    Goal("time of the transaction beside the plain INSERT", ("queue", "INSERT into the view took"), "<=", 1,
         ("queue", "plain INSERT took"), shown=True),
]
CLIENTS = 4
RATE = 400
AFTER = 0.2

STATEMENTS = {
    "plain INSERT": "INSERT INTO bench_bulk (payload) SELECT %s::jsonb FROM generate_series(1, %s)",
    "INSERT into the view": f"INSERT INTO queues.{NAME} (payload) SELECT %s::jsonb FROM generate_series(1, %s)",
    "enqueue_batch": f"SELECT count(queue.enqueue_batch('{NAME}', array_fill(%s::jsonb, ARRAY[{FILL_BATCH}])))"
    f" FROM generate_series(1, %s / {FILL_BATCH})",
}


def run(turn):
    warm_up(turn)
    for repetition, contender in turn.each():
        names = list(LINES)
        first = repetition % len(names)
        for line in names[first:] + names[:first]:
            if contender.name not in turn.failed:
                turn.attempt(contender, measure, turn, repetition, line)
    turn.server.execute("DROP TABLE IF EXISTS bench_bulk")
    for contender in turn.contenders.values():
        contender.drop()


def warm_up(turn):
    """Whoever comes first would pay for new files of the WAL."""
    make_bulk(turn.server)
    for contender in turn.contenders.values():
        turn.server.rows(STATEMENTS["plain INSERT"], contender.payload, messages(turn))
    turn.settle()


def messages(turn):
    return 100_000 if turn.options.quick else 1_000_000


def make_bulk(server):
    server.execute(
        "DROP TABLE IF EXISTS bench_bulk",
        "CREATE TABLE bench_bulk (id bigint GENERATED ALWAYS AS IDENTITY, payload jsonb)",
    )


def measure(contender, turn, repetition, line):
    contender.reset()
    make_bulk(turn.server)
    turn.settle()
    live = turn.server.background(
        [contender.enqueue, contender.consume(1)], CLIENTS, RATE, payload=contender.payload)
    connection = turn.server.connect("large")
    try:
        time.sleep(1)
        began = time.time()
        with connection.cursor() as cursor:
            cursor.execute(STATEMENTS[line], (contender.payload, messages(turn)))
        ended = time.time()
        time.sleep(AFTER)
        took = [one.us for one in live.end() if began <= one.ended <= ended + AFTER]
    finally:
        connection.close()
        live.stop()
    turn.add(repetition, contender, f"{line} took", (ended - began) * 1e6, "us")
    for label, share in SHARES.items():
        turn.add(repetition, contender, f"{line} {label}", percentile(took, share), "us", CLIENTS)
