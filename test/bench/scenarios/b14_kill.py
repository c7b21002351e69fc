"""A server of its own with a backlog (a million messages; 50,000 with --quick), 4
producers and 4 consumers at work, each enqueue and each ack in a transaction with
a row of its own; then SIGKILL to the postmaster, and a start. fsync is on. A
message is lost if the row of its enqueue is there, that of its ack is not, and the
queue does not have it. It is delivered again if a consumer had it before the kill
and somebody gets it after it; only those that were leased may be. The leases are
counted from what the consumers wrote down: what a consumer had got and whose ack
was not confirmed. Recovery ends when the server's log says that it accepts
connections; the first delivery is the first message that a session gets which
tries to connect all the time. All that is left is taken in the end.

No other contender is measured: leases that are rows outlive the server, so that
what was in hand comes back when they run out and not when the server does."""

import datetime
import json
import os
import subprocess
import threading
import time

import psycopg2
from psycopg2.extras import execute_values

from results import Goal
from server import private_server, stop_server

ID = "B14"
TITLE = "SIGKILL under load with 1M messages behind"
CONTENDERS = ["queue"]
METRICS = {
    "committed": "committed before the kill",
    "acked": "acked before the kill",
    "lost": "lost",
    "acked and back": "acked, and back",
    "leased": "leased at the kill",
    "again": "delivered again",
    "beyond": "delivered again, not leased",
    "recovery": "kill to end of recovery, ms",
    "first": "end of recovery to first delivery, ms",
}
PLOTTED = ["first"]
GOALS = [
    Goal("messages lost", ("queue", "lost"), "<=", 0),
    Goal("messages acked, and back", ("queue", "acked and back"), "<=", 0),
    Goal("delivered again that were not leased", ("queue", "beyond"), "<=", 0),
    Goal("end of recovery to first delivery, ms", ("queue", "first"), "<=", 1000),
]
WORKERS = 4
BATCH = 10
PREFETCH = 50


def run(turn):
    for repetition in range(1 if turn.options.quick else min(3, turn.options.reps)):
        for contender in turn.contenders.values():
            turn.attempt(contender, measure, turn, repetition)


class Worker(threading.Thread):
    """A client that works until its server is gone."""

    def __init__(self, server, number):
        super().__init__(daemon=True)
        self.connection = connect(server)
        self.number = number
        self.confirmed = 0
        self.leased = set()         # had, and not known to be acked
        self.seen = set()

    def run(self):
        try:
            while True:
                self.work(self.connection.cursor())
        except psycopg2.Error:
            pass


class Producer(Worker):
    def work(self, cursor):
        numbers = [self.number * 10**9 + self.confirmed + n for n in range(BATCH)]
        execute_values(cursor, "INSERT INTO sent VALUES %s", [(n,) for n in numbers])
        cursor.execute("SELECT queue.enqueue_batch('bench', %s::jsonb[])", ([str(n) for n in numbers],))
        self.connection.commit()
        self.confirmed += BATCH


class Consumer(Worker):
    def work(self, cursor):
        cursor.execute("SELECT receipt::text, payload::bigint FROM queue.dequeue('bench', %s, '10 min')", (PREFETCH,))
        rows = cursor.fetchall()
        self.connection.commit()
        numbers = [row[1] for row in rows]
        self.seen.update(numbers)
        self.leased.update(numbers)
        for start in range(0, len(rows), BATCH):
            part = rows[start:start + BATCH]
            execute_values(cursor, "INSERT INTO worked VALUES %s", [(row[1],) for row in part])
            cursor.execute("SELECT queue.ack_batch(%s::uuid[])", ([row[0] for row in part],))
            self.connection.commit()
            self.confirmed += len(part)
            self.leased.difference_update(row[1] for row in part)


def connect(server):
    return psycopg2.connect(
        host=server.environment["PGHOST"], port=server.environment["PGPORT"], user="postgres", dbname="postgres")


def control(*arguments):
    folder = os.path.join(os.environ["BENCH_WORK"], "kill")
    command = os.path.join(os.environ["BENCH_TREE"], "test", "server")
    subprocess.run([command, arguments[0], folder, *arguments[1:]], check=True, capture_output=True)


def measure(contender, turn, repetition):
    server = private_server("kill")
    try:
        prepare(server, 50_000 if turn.options.quick else 1_000_000)
        workers = [kind(server, 1 + number) for kind in (Producer, Consumer) for number in range(WORKERS)]
        for worker in workers:
            worker.start()
        time.sleep(turn.options.seconds)
        killed = time.time()
        control("kill")
        for worker in workers:
            worker.join()
        found = restart(server, killed)
        found.update(judge(server, workers, found.pop("message")))
        for metric in METRICS:
            unit = "ms" if metric in ("recovery", "first") else "messages"
            turn.add(repetition, contender, metric, found[metric], unit, WORKERS * 2, BATCH)
    finally:
        stop_server(server, "kill")
        control("clean")


def prepare(server, count):
    server.execute(
        "CREATE EXTENSION queue",
        "SELECT queue.create('bench', '{\"max_attempts\": 0}')",
        "CREATE TABLE sent (n bigint)",
        "CREATE TABLE worked (n bigint)",
        f"INSERT INTO sent SELECT n FROM generate_series(1, {count}) AS n",
        "SELECT count(queue.enqueue_batch('bench', part)) FROM (SELECT array_agg(to_jsonb(n)) AS part"
        " FROM sent GROUP BY n / 1000) AS parts",
        "CHECKPOINT",
    )


def restart(server, killed):
    """Starts the server, and is there as soon as it can be."""
    starting = threading.Thread(target=control, args=("start",))
    starting.start()
    while True:
        try:
            connection = connect(server)
            break
        except psycopg2.OperationalError:
            time.sleep(0.005)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT payload::bigint FROM queue.dequeue('bench', 1, '10 min', '5 s')")
        message = cursor.fetchone()[0]
        first = time.time()
        cursor.execute("SHOW log_timezone")
    connection.close()
    starting.join()
    # What comes from now on goes to the server that was started.
    server.connection = connect(server)
    server.connection.autocommit = True
    up = accepting_since(server, killed)
    return {"message": message, "first": (first - up) * 1000, "recovery": (up - killed) * 1000}


def accepting_since(server, killed):
    """When the server said, in its log, that it accepts connections."""
    offset = server.value("SELECT extract(epoch FROM utc_offset) FROM pg_timezone_names WHERE name = current_setting('log_timezone')")
    with open(os.path.join(os.environ["BENCH_WORK"], "kill", "log"), encoding="utf-8") as lines:
        said = [line[:23] for line in lines if "database system is ready to accept connections" in line][-1]
    told = datetime.datetime.strptime(said, "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=datetime.timezone.utc)
    up = told.timestamp() - float(offset)
    if up < killed:
        raise RuntimeError("the server's log does not say when it was back")
    return up


def judge(server, workers, message):
    producers, consumers = workers[:WORKERS], workers[WORKERS:]
    seen = set().union(*(consumer.seen for consumer in consumers))
    leased = set().union(*(consumer.leased for consumer in consumers))
    # What was on its way to a consumer was leased too, and nobody can say what it was.
    unseen = PREFETCH * len(consumers)
    after = [message]
    while True:
        rows = server.rows("SELECT array_agg(payload::bigint), count(queue.ack(receipt)) FROM queue.dequeue('bench', 5000)")
        if not rows[0][0]:
            break
        after += rows[0][0]
    worked = {row[0] for row in server.rows("SELECT n FROM worked")}
    sent = {row[0] for row in server.rows("SELECT n FROM sent")}
    again = seen & set(after)
    if len(after) != len(set(after)) or set(after) - sent:
        raise RuntimeError("messages came twice, or were never committed: " + json.dumps(sorted(set(after) - sent)[:9]))
    confirmed = sum(worker.confirmed for worker in producers)
    if len(sent) < confirmed or len(worked) < sum(worker.confirmed for worker in consumers):
        raise RuntimeError("a commit that was confirmed is gone")
    return {
        "committed": len(sent),
        "acked": len(worked),
        "lost": len(sent - worked - set(after)),
        "acked and back": len(worked & set(after)),
        "leased": len(leased) + unseen,
        "again": len(again),
        "beyond": len(again - leased),
    }
