"""Messages with a time of delivery, in random order, spread over ten times the usual
time of a measurement: `--only B16 --seconds 60 --reps 1` is a million over ten
minutes, and shorter runs have as many a second (1667). All are enqueued in one
transaction and due more than two minutes later; then the queue's clock is moved on
by these two minutes, so that nothing stays but real time. Four clients sleep in
`CALL queue.wait` and, woken, dequeue and ack up to a hundred.

Lag is the time from a message's time of delivery until a dequeue has returned it.
*first fifth* and *last fifth* are the p99 of those due then. *pinned*: an idle
repeatable read transaction has a snapshot from before the enqueue to the end. A
server of its own, because of the clock."""

import time

from contenders import NAME
from results import Goal, percentile
from server import private_server, stop_server

ID = "B16"
TITLE = "timers: from the time of delivery to the dequeue"
CONTENDERS = ["queue"]
# Line -> its contender, whether the horizon is pinned.
LINES = {"timers": ("queue", False), "pinned": ("queue", True)}
COLUMNS = ["p50", "p99", "first fifth", "last fifth", "max"]
TABLE = (list(LINES), COLUMNS)
METRICS = {f"{line} {column}": f"{line}, {column}, us" for line in LINES for column in COLUMNS}
GOALS = [
    Goal("lag p99, us", ("queue", "timers p99"), "<=", 50_000),
    Goal("the same, horizon pinned", ("queue", "pinned p99"), "<=", 50_000),
    Goal("p99 of the last fifth beside the first", ("queue", "timers last fifth"), "<=", 1.2,
         ("queue", "timers first fifth"), more=5000),
    Goal("the same, horizon pinned", ("queue", "pinned last fifth"), "<=", 1.2,
         ("queue", "pinned first fifth"), more=5000),
    Goal("share of the timers that came", ("queue", "timers came"), ">=", 1),
    Goal("the same, horizon pinned", ("queue", "pinned came"), ">=", 1),
]
RATE = 1_000_000 / 600
CLIENTS = 4
AHEAD = 120

ENQUEUE = f"""INSERT INTO queues.{NAME} (payload, deliver_at)
SELECT jsonb_build_object('due', due), to_timestamp(due + {AHEAD})
FROM (SELECT %s + random() * %s AS due FROM generate_series(1, %s)) AS timers"""

CONSUME = f"""CALL queue.wait('{NAME}', '2 s');
WITH m AS MATERIALIZED (SELECT receipt, payload FROM queue.dequeue('{NAME}', 100)),
l AS (INSERT INTO bench_lag SELECT (payload->>'due')::float8, extract(epoch FROM clock_timestamp()) FROM m)
SELECT count(queue.ack(receipt)) FROM m;
"""


def run(turn):
    for repetition in range(min(3, turn.options.reps)):
        names = list(LINES)
        for line in names[repetition % 2:] + names[:repetition % 2]:
            for contender in turn.contenders.values():
                if contender.name not in turn.failed:
                    turn.attempt(contender, measure, turn, repetition, line)


def measure(contender, turn, repetition, line):
    server = private_server("timers")
    try:
        count, rows = fire(server, turn, line)
    finally:
        stop_server(server, "timers")
    turn.add(repetition, contender, f"{line} came", len(rows) / count, "share")
    rows.sort()
    fifth = len(rows) // 5
    parts = {
        "p50": (rows, 0.50), "p99": (rows, 0.99), "first fifth": (rows[:fifth], 0.99),
        "last fifth": (rows[-fifth:], 0.99), "max": (rows, 1),
    }
    for column, (part, share) in parts.items():
        value = percentile([lag for _, lag in part], share)
        turn.add(repetition, contender, f"{line} {column}", value, "us", CLIENTS, 100)


def fire(server, turn, line):
    """How many there were; (due, lag in us) of those that came until ten seconds after the last was due."""
    server.execute(
        "CREATE EXTENSION queue",
        f"SELECT queue.create('{NAME}')",
        "CREATE TABLE bench_lag (due float8, came float8)",
    )
    spread = turn.options.seconds * 10
    count = int(RATE * spread)
    holder = server.connect("holder")
    if LINES[line][1]:
        cursor = holder.cursor()
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("SELECT count(*) FROM bench_lag")
    # Time to enqueue them, and for the consumers to come.
    first = time.time() + 5 + count / 50_000
    server.rows(ENQUEUE, first, spread, count)
    consumers = server.background(CONSUME, CLIENTS)
    try:
        server.execute(f"SELECT queue.clock_advance('{AHEAD} s')")
        if time.time() > first:
            raise RuntimeError("it took too long to enqueue them")
        time.sleep(max(0, first + spread - time.time()))
        until = time.time() + 10
        while time.time() < until and server.value("SELECT count(*) FROM bench_lag") < count:
            time.sleep(0.2)
    finally:
        consumers.stop()
        holder.close()
    return count, server.rows("SELECT due, (came - due) * 1e6 FROM bench_lag")
