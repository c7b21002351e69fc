"""A server of its own; 500 messages a second are enqueued one by one, and 100 times a
second ten are dequeued and acked, four clients each. Each call is timed inside of
the server, by a function that calls it, so that neither the commit's flush nor the
client is in the numbers: what is left is the call's work and its waits.

Messages have a kilobyte. *no rotation*: segments of 1 GB. *rotation*: of 1 MB, emptied
as soon as they are dead after queue.reclaim_delay (one second here). *pg_dump*: the
same while a pg_dump of the database runs from the beginning to the end, held up by
whoever reads its output; it has a lock on each segment that was there when it began,
and a snapshot. Segments are not smaller because PostgreSQL extends a table by up to
4 MB at once where its sessions wait for one another.
A wait is what a call takes beyond the same percentile without rotation. *waited*:
share of the calls that waited 5 ms or more for a heavyweight lock, which the
server's log tells (log_lock_waits).

Disk: all segments of the queue with their TOAST, ten times a second, beside what is
allowed: the messages that are there, plus what comes in reclaim_delay, plus three
segments, plus the segments that the dump has a lock on. A message's bytes are those
of the run without rotation. *beyond* is the most by which it went over that,
in segments (0: never)."""

import os
import re
import subprocess
import time

from contenders import NAME, payload_of
from results import Goal, percentile
from server import folder_of, private_server, stop_server

ID = "B17"
TITLE = "rotation under load, and during a pg_dump: our waits"
CONTENDERS = ["queue"]
# Line -> its contender, size of segments, whether a dump runs.
LINES = {
    "no rotation": ("queue", "1GB", False),
    "rotation": ("queue", "1MB", False),
    "pg_dump": ("queue", "1MB", True),
}
COLUMNS = ["p50", "p99", "p99.9", "max", "emptied", "waited", "beyond"]
TABLE = (list(LINES), COLUMNS)
UNITS = "us, emptied a second, share, segments"
PLOTTED = ["p50", "p99", "p99.9"]
METRICS = {f"{line} {column}": f"{line}, {column}" for line in LINES for column in COLUMNS}
GOALS = [
    Goal("p99.9 of our calls with rotation, beside none + 5 ms", ("queue", "rotation p99.9"), "<=", 1,
         ("queue", "no rotation p99.9"), more=5000),
    Goal("the same during a pg_dump", ("queue", "pg_dump p99.9"), "<=", 1,
         ("queue", "no rotation p99.9"), more=5000),
    Goal("share of calls that waited 5 ms for a lock, with rotation", ("queue", "rotation waited"), "<=", 0.001),
    Goal("the same during a pg_dump", ("queue", "pg_dump waited"), "<=", 0.001),
    Goal("segments emptied a second, with rotation", ("queue", "rotation emptied"), ">=", 0.3),
    Goal("disk beyond what is allowed, segments", ("queue", "rotation beyond"), "<=", 0),
    Goal("the same during a pg_dump", ("queue", "pg_dump beyond"), "<=", 0),
]
CLIENTS = 4
SEGMENT = 1 << 20
PAYLOAD = 1000
RECLAIM = 1

PREPARE = [
    "CREATE EXTENSION queue",
    "CREATE UNLOGGED TABLE bench_took (us float8, at timestamptz DEFAULT clock_timestamp())",
    f"""CREATE FUNCTION bench_enqueue(payload jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE began timestamptz := clock_timestamp();
BEGIN
  PERFORM queue.enqueue('{NAME}', payload);
  INSERT INTO bench_took VALUES (extract(epoch FROM clock_timestamp() - began) * 1e6);
END $$""",
    f"""CREATE FUNCTION bench_consume() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  began timestamptz := clock_timestamp();
  receipts uuid[];
  middle timestamptz;
BEGIN
  SELECT array_agg(receipt) INTO receipts FROM queue.dequeue('{NAME}', 10);
  middle := clock_timestamp();
  IF receipts IS NOT NULL THEN PERFORM queue.ack_batch(receipts); END IF;
  INSERT INTO bench_took VALUES (extract(epoch FROM middle - began) * 1e6),
    (extract(epoch FROM clock_timestamp() - middle) * 1e6);
END $$""",
]
PRODUCE = "SELECT bench_enqueue(:payload);\n"
CONSUME = "SELECT bench_consume();\n"

SIZES = f"""SELECT count(*), coalesce(sum(pg_total_relation_size(segment)), 0)::bigint,
 (SELECT ready + leased + delayed + failed FROM queue.stats WHERE queue = '{NAME}'),
 (SELECT total_enqueued FROM queue.stats WHERE queue = '{NAME}')
 FROM queue.segments WHERE queue = '{NAME}'"""


def run(turn):
    for repetition in range(turn.options.reps):
        for contender in turn.contenders.values():
            if contender.name not in turn.failed:
                turn.attempt(contender, measure, turn, repetition)


def measure(contender, turn, repetition):
    server = private_server("rotation", deadlock_timeout="5ms", log_lock_waits="on", autovacuum_naptime="5s")
    try:
        server.execute(*PREPARE, "CREATE EXTENSION pg_walinspect")
        server.configure("queue.reclaim_delay", f"{RECLAIM}s")
        bytes_a_message = None
        for line, (_, size, dump) in LINES.items():
            server.execute(f"""SELECT queue.create('{NAME}', '{{"segment_size": "{size}"}}')""")
            disk = Disk(bytes_a_message)
            seconds = load(server, turn, payload_of(PAYLOAD), disk, dump)
            if bytes_a_message is None:
                bytes_a_message = disk.size / disk.enqueued
            note(turn, repetition, server, line, disk, seconds)
            server.execute(f"SELECT queue.drop('{NAME}', true)")
    finally:
        stop_server(server, "rotation")


class Disk:
    """What was allowed, and how far it went beyond."""

    def __init__(self, bytes_a_message):
        self.bytes_a_message = bytes_a_message
        self.samples = []
        self.beyond = 0
        self.locked = 0

    def look(self, server):
        now = time.monotonic()
        segments, self.size, live, self.enqueued = server.rows(SIZES)[0]
        self.samples.append((now, self.enqueued))
        if self.bytes_a_message:
            # What came within the delay before now.
            before = [count for at, count in self.samples if at <= now - RECLAIM]
            came = self.enqueued - (before[-1] if before else 0)
            allowed = (live + came) * self.bytes_a_message + (3 + self.locked) * SEGMENT
            self.beyond = max(self.beyond, (self.size - allowed) / SEGMENT)
        return segments


class Dump:
    """A pg_dump that takes as long as it is not let go on."""

    def __init__(self, server):
        self.server = server
        # More than fits into a pipe, in a table that is dumped in the end.
        server.execute("DROP TABLE IF EXISTS zz_bulk",
                       "CREATE TABLE zz_bulk AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
        self.process = subprocess.Popen(
            [f"{server.bin}/pg_dump"], env=dict(server.environment, PGAPPNAME="dump"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        server.await_true(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'dump' AND query LIKE 'COPY%%')")

    def locked(self):
        return self.server.value(
            "SELECT count(*) FROM pg_locks l JOIN queue.segments s ON l.relation = s.segment"
            " JOIN pg_stat_activity a USING (pid) WHERE a.application_name = 'dump' AND s.queue = %s", NAME)

    def end(self):
        out, errors = self.process.communicate()
        if self.process.returncode != 0 or b"zz_bulk" not in out:
            raise RuntimeError(f"pg_dump failed: {errors.decode()[:500]}")


def load(server, turn, payload, disk, dump):
    """Runs the load; how long it was measured."""
    loads = [
        server.background(PRODUCE, CLIENTS, 500, payload=payload),
        server.background(CONSUME, CLIENTS, 100),
    ]
    dumping = None
    try:
        time.sleep(1)
        if dump:
            dumping = Dump(server)
            disk.locked = dumping.locked()
        disk.begin = server.rows("SELECT pg_current_wal_flush_lsn(), clock_timestamp()")[0]
        waits = long_waits()
        began = time.monotonic()
        while time.monotonic() < began + max(10, turn.options.seconds * 2):
            disk.look(server)
            time.sleep(0.1)
        seconds = time.monotonic() - began
        disk.end = server.rows("SELECT pg_current_wal_flush_lsn(), clock_timestamp()")[0]
        disk.waits = long_waits() - waits
        for one in list(loads):
            one.end()
        return seconds
    finally:
        for one in loads:
            one.stop()
        if dumping:
            dumping.end()


def note(turn, repetition, server, line, disk, seconds):
    took = [row[0] for row in server.rows(
        "SELECT us FROM bench_took WHERE at BETWEEN %s AND %s", disk.begin[1], disk.end[1])]
    for label, share in (("p50", 0.50), ("p99", 0.99), ("p99.9", 0.999), ("max", 1)):
        turn.add(repetition, "queue", f"{line} {label}", percentile(took, share), "us", CLIENTS * 2, 10)
    emptied = server.value(
        "SELECT coalesce(sum(count), 0)::float FROM pg_get_wal_stats(%s, %s, true)"
        " WHERE \"resource_manager/record_type\" = 'Storage/TRUNCATE'", disk.begin[0], disk.end[0])
    turn.add(repetition, "queue", f"{line} emptied", emptied / seconds, "a second", CLIENTS * 2, 10)
    turn.add(repetition, "queue", f"{line} waited", disk.waits / len(took), "share", CLIENTS * 2, 10)
    turn.add(repetition, "queue", f"{line} beyond", max(0, disk.beyond), "segments", CLIENTS * 2, 10)
    if disk.locked:
        turn.add(repetition, "queue", f"{line} locked", disk.locked, "segments", CLIENTS * 2, 10)


def long_waits():
    """How often the server's log says that a call of ours waits for a lock."""
    with open(os.path.join(folder_of("rotation"), "log"), encoding="utf-8") as lines:
        return sum(bool(re.search(r"\] beside\d+ LOG: .*still waiting for", line)) for line in lines)
