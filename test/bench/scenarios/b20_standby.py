"""A primary and a streaming standby on this machine, servers of their own.
Two pgbench clients enqueue and two consume, ten messages a transaction, 300
transactions a second each, so that all lines write about the same WAL; each
transaction also writes rows of a table without an index. Lag is what the
standby says every few milliseconds: the time since the last commit that it has
replayed, so it contains the time to the next commit.

*no rotation*: segments of 1 GB, of which none is emptied. *rotation*: of 64 kB,
emptied as soon as they are dead, which is a truncation under an exclusive lock
in the WAL. *rotation, readers*: two clients on the standby read the first ten
messages of the queue, 100 times a second each; the lock waits for them.

Then the primary is stopped immediately under that load and the standby
promoted: of the messages whose business rows reached it, each must be worked on
or in the queue, once; all that are in the queue can be had at once, since no
lease outlives the primary."""

import os
import subprocess
import time

from contenders import NAME
from results import Goal, percentile
from server import control, folder_of, private_server, standby_of, stop_server

ID = "B20"
TITLE = "replay lag of a streaming standby, and its promotion"
CONTENDERS = ["queue"]

# Line -> its contender, size of segments, readers on the standby.
LINES = {
    "no rotation": ("queue", "1GB", False),
    "rotation": ("queue", "64kB", False),
    "rotation, readers": ("queue", "64kB", True),
}
TABLE = (list(LINES), ["p50", "p99"])
METRICS = {f"{line} {p}": f"{line}, {p}, us" for line in LINES for p in ("p50", "p99")}

GOALS = [
    Goal("lag with rotation, p99, beside none + 100 ms", ("queue", "rotation p99"), "<=", 1,
         ("queue", "no rotation p99"), more=100_000),
    Goal("the same with readers on the standby", ("queue", "rotation, readers p99"), "<=", 1,
         ("queue", "no rotation p99"), more=100_000, shown=True),
    Goal("segments emptied a second, with rotation", ("queue", "rotation emptied"), ">=", 1),
    Goal("after promotion: share of messages that are neither lost nor twice", ("queue", "kept"), ">=", 1),
    Goal("after promotion: share of messages that can be had at once", ("queue", "free"), ">=", 1),
]

PRODUCE = f"""WITH m AS (SELECT nextval('bench_numbers') AS n FROM generate_series(1, 10)),
s AS (INSERT INTO bench_sent SELECT n FROM m)
SELECT count(queue.enqueue('{NAME}', jsonb_build_object('n', n, 'note', :note::text))) FROM m;
"""
CONSUME = f"""WITH m AS MATERIALIZED (SELECT * FROM queue.dequeue('{NAME}', 10)),
w AS (INSERT INTO bench_worked SELECT (payload->>'n')::bigint FROM m)
SELECT count(queue.ack(receipt)) FROM m;
"""
READ = f"SELECT count(payload) FROM (SELECT payload FROM queues.{NAME} LIMIT 10) AS few;\n"


def run(turn):
    for repetition, contender in turn.each():
        turn.attempt(contender, measure, turn, repetition)


def measure(contender, turn, repetition):
    primary = private_server("primary")
    standby = None
    try:
        prepare(primary)
        standby = standby_of(primary, "standby")
        # Each repetition begins with another line.
        names = list(LINES)
        for name in names[repetition % 3:] + names[:repetition % 3]:
            measure_lag(turn, repetition, name, primary, standby)
        measure_promotion(turn, repetition, primary, standby)
    finally:
        stop_server(primary, "primary")
        if standby:
            stop_server(standby, "standby")


def prepare(primary):
    primary.execute(
        "CREATE EXTENSION queue",
        "CREATE EXTENSION pg_walinspect",
        "CREATE TABLE bench_sent (n bigint)",
        "CREATE TABLE bench_worked (n bigint)",
        "CREATE SEQUENCE bench_numbers",
        f"SELECT queue.create('{NAME}')",
    )
    primary.configure("queue.reclaim_delay", "0")


class Load:
    """pgbench at a fixed rate, until it is ended or its server is."""

    def __init__(self, server, script, rate, **variables):
        path = os.path.join(server.work, f"load{id(self)}.sql")
        with open(path, "w") as file:
            file.write(script)
        command = [f"{server.bin}/pgbench", "-n", "-M", "prepared", "-f", path, "-c", "2", "-T", "3600", "-R", str(rate)]
        for name, value in variables.items():
            command += ["-D", f"{name}={value}"]
        self.process = subprocess.Popen(
            command, env=server.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def end(self):
        self.process.terminate()
        self.process.wait()


def start_loads(turn, primary):
    return [
        Load(primary, PRODUCE, 300, note="x" * max(0, turn.options.payload - 30)),
        Load(primary, CONSUME, 300),
    ]


def measure_lag(turn, repetition, name, primary, standby):
    _, size, readers = LINES[name]
    primary.execute(f"""SELECT queue.alter('{NAME}', '{{"segment_size": "{size}"}}')""")
    turn.settle()
    loads = start_loads(turn, primary)
    try:
        if readers:
            loads.append(Load(standby, READ, 200))
        time.sleep(1)
        before = primary.value("SELECT pg_current_wal_flush_lsn()")
        began = time.monotonic()
        lags = sample(standby, turn.options.seconds)
        seconds = time.monotonic() - began
        after = primary.value("SELECT pg_current_wal_flush_lsn()")
    finally:
        for load in loads:
            load.end()
    for label, where in (("p50", 0.50), ("p99", 0.99)):
        turn.add(repetition, "queue", f"{name} {label}", percentile(lags, where), "us", 4, 10)
    turn.add(repetition, "queue", f"{name} max", max(lags), "us", 4, 10)
    emptied = primary.value(
        "SELECT coalesce(sum(count), 0)::float FROM pg_get_wal_stats(%s, %s, true)"
        " WHERE \"resource_manager/record_type\" = 'Storage/TRUNCATE'", before, after)
    turn.add(repetition, "queue", f"{name} emptied", emptied / seconds, "a second", 4, 10)


def sample(standby, seconds):
    """How far the standby is behind, in us, every few milliseconds."""
    until = time.monotonic() + seconds
    lags = []
    while time.monotonic() < until:
        lags.append(float(standby.value(
            "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()) * 1e6")))
        time.sleep(0.005)
    return lags


def measure_promotion(turn, repetition, primary, standby):
    loads = start_loads(turn, primary)
    try:
        # Consumers hold some, and nobody comes to take them.
        primary.rows(f"SELECT count(*) FROM queue.dequeue('{NAME}', 100, '1 h', '5 s')")
        time.sleep(1)
        control("stop", folder_of("primary"), "immediate")
    finally:
        for load in loads:
            load.end()
    standby.execute("SELECT pg_promote()")
    rows, good, left = standby.rows(f"""
        WITH there AS (
            SELECT n, count(*) AS times FROM (
                SELECT n FROM bench_worked UNION ALL SELECT (payload->>'n')::bigint FROM queues.{NAME}) AS t
            GROUP BY n)
        SELECT count(*), count(*) FILTER (WHERE times = 1 AND s.n IS NOT NULL),
            (SELECT count(*) FROM queues.{NAME})
        FROM bench_sent s FULL JOIN there USING (n)""")[0]
    free = standby.value(f"SELECT count(*) FROM queue.dequeue('{NAME}', 10000)")
    turn.add(repetition, "queue", "kept", good / rows, "share")
    # As many as one call gives.
    turn.add(repetition, "queue", "free", free / min(left, 10000) if left else 1, "share")
    turn.add(repetition, "queue", "left", left, "messages")
