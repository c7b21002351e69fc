"""8 clients; each stores a message, leases one and settles it, in three
transactions, with 50,000 messages behind (5,000 with --quick), for three times
the time of a measurement. *clean*: nobody looks at an old state. Then the same on a
fresh queue while somebody holds back, from before the first message to after
the last, what vacuum may remove: *reader*, an idle REPEATABLE READ
transaction; *writer*, an idle transaction that has written; *prepared*, a
prepared transaction; *slot*, a replication slot that a standby with
hot_standby_feedback left behind. That it was held back is proven by a row that
was deleted before the load and that VACUUM cannot remove after it. Each is
compared with a clean measurement of the same repetition. At most three
repetitions. *end* is the last quarter of the time with the reader: a queue that gets
slower and slower has a better mean than that. *CPU* is the processor time of the
clients' server processes (and of vacuum) a message: what else the machine does
changes it less than the rate.

The tables are vacuumed as often as it goes (autovacuum_naptime 1 s). Segments
have 2 MB and are emptied after 2 s (queue.reclaim_delay), so that many of them
go round while they are pinned.

*dead rows*: by how much the row versions that vacuum will have to remove
(pgstattuple, whether it could by now or not) became more during the load in
all tables of the database, catalogs and toast included, but not in
segments, a thousand messages; autovacuum's ANALYZE leaves some in pg_statistic,
one row an operation would be a thousand. *disk*: the most that the segments' files had, sampled
ten times a second, as a share of what they may have: the live messages, what the
fastest second stores in 2 s, and three segments. Both are the worst of
the lines of a repetition."""

import threading
import time
from contextlib import ExitStack, contextmanager

import psycopg2

from contenders import NAME
from results import Goal
from server import standby_of, stop_server

ID = "B7"
TITLE = "what holds back vacuum"
CONTENDERS = ["queue", "skiplocked", "pgmq"]
PINS = ["reader", "writer", "prepared", "slot"]
METRICS = {
    "clean": "clean, messages/s",
    **{pin: pin for pin in PINS},
    "end": "reader, end",
    "clean cpu": "clean, us of CPU",
    "reader cpu": "reader, us of CPU",
    "dead": "dead rows a 1000",
    "disk": "disk, of allowed",
}
PLOTTED = ["clean", "reader", "end"]
GOALS = [
    *(Goal(f"{pin}, beside clean", ("queue", pin), ">=", 0.98, ("queue", "clean")) for pin in PINS),
    Goal("dead rows outside of segments, a 1000 messages", ("queue", "dead"), "<=", 10),
    Goal("disk, beside live + reclaim_delay x rate + 3 segments", ("queue", "disk"), "<=", 1),
    Goal("reader, last quarter, beside clean", ("queue", "end"), ">=", 0.98, ("queue", "clean"), shown=True),
    Goal("reader, CPU, beside clean", ("queue", "reader cpu"), "<=", 1.02, ("queue", "clean cpu"), shown=True),
    Goal("pgmq: reader, CPU, beside clean", ("pgmq", "reader cpu"), "<=", 1.02, ("pgmq", "clean cpu"), shown=True),
    Goal("reader, last quarter, beside pgmq's", ("queue", "end"), ">=", 1, ("pgmq", "end"), shown=True),
    Goal("pgmq: reader, beside clean", ("pgmq", "reader"), ">=", 0.98, ("pgmq", "clean"), shown=True),
    Goal("pgmq: reader, last quarter, beside clean", ("pgmq", "end"), ">=", 0.98, ("pgmq", "clean"), shown=True),
    Goal("SKIP LOCKED: reader, last quarter, beside clean", ("skiplocked", "end"), ">=", 0.98,
         ("skiplocked", "clean"), shown=True),
]
CLIENTS = 8
SEGMENT = 2 * 1024 * 1024
RECLAIM_DELAY = 2
SETTINGS = {"autovacuum_naptime": "1s", "queue.reclaim_delay": f"{RECLAIM_DELAY}s"}

DEAD = """
SELECT c.oid::regclass::text, (pgstattuple(c.oid)).dead_tuple_count
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
LEFT JOIN pg_class t ON t.reltoastrelid = c.oid
WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
AND nspname <> 'queues' AND coalesce(t.relnamespace, 0) <> coalesce(to_regnamespace('queues'), 0)
"""
# Without a lock on the segments, which the worker would have to wait for.
DISK = """
SELECT coalesce(sum((pg_stat_file(pg_relation_filepath(c.oid), true)).size), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'queues' AND relkind = 'r'
"""


def run(turn):
    server = turn.server
    server.execute(
        "CREATE EXTENSION IF NOT EXISTS pgstattuple",
        "CREATE TABLE bench_other (n int)",
        "CREATE TABLE bench_pinned (n int)",
    )
    with ExitStack() as settings:
        for name, value in SETTINGS.items():
            if "queue" in turn.contenders or not name.startswith("queue."):
                server.configure(name, value)
                settings.callback(server.configure, name)
        for repetition, contender in turn.each():
            if repetition < 3:
                turn.attempt(contender, measure, turn, repetition)
    server.execute("DROP TABLE bench_other, bench_pinned")


def measure(contender, turn, repetition):
    """Clean and pinned in turns; each repetition begins with another one."""
    lines = [None, *PINS] if contender.name == "queue" else [None, "reader"]
    shift = repetition % len(lines)
    seen = {pin: measure_line(contender, turn, pin) for pin in lines[shift:] + lines[:shift]}

    def note(metric, value, unit):
        turn.add(repetition, contender, metric, value, unit, CLIENTS)

    for pin in lines:
        note(pin or "clean", seen[pin]["rate"], "messages/s")
        note(f"{pin or 'clean'} cpu", seen[pin]["cpu"], "us")
    note("end", seen["reader"]["end"], "messages/s")
    note("dead", max(line["dead"] for line in seen.values()), "a 1000")
    if contender.name == "queue":
        note("disk", max(line["disk"] for line in seen.values()), "of allowed")


def measure_line(contender, turn, pin):
    server = turn.server
    count = 5000 if turn.options.quick else 50000
    contender.reset()
    if contender.name == "queue":
        server.rows("SELECT queue.alter(%s, jsonb_build_object('segment_size', %s))", NAME, f"{SEGMENT // 1024}kB")
    contender.ready(count)
    size = server.value(DISK) / count
    turn.settle()
    with holding(server, pin):
        before = dict(server.rows(DEAD))
        used = server.cpu()
        with Sampler(server) as sampler:
            load = server.pgbench(
                contender.enqueue + contender.consume(1), CLIENTS, turn.options.seconds * 3, payload=contender.payload)
        used = server.cpu() - used
        after = dict(server.rows(DEAD))
    grown = {table: dead - before.get(table, 0) for table, dead in after.items() if dead > before.get(table, 0)}
    say(turn, contender, pin, grown, load.transactions)
    quarter = max(1, len(load.course) // 4)
    allowed = (count + max(load.course) * RECLAIM_DELAY) * size + 3 * SEGMENT
    contender.drop()
    return {
        "rate": load.transactions / load.seconds,
        "end": sum(load.course[-quarter:]) / quarter,
        "cpu": 1e6 * used / load.transactions,
        "dead": 1000 * sum(grown.values()) / load.transactions,
        "disk": sampler.most / allowed,
    }


def say(turn, contender, pin, grown, messages):
    """The three tables with most dead rows."""
    worst = sorted(grown.items(), key=lambda item: -item[1])[:3]
    text = ", ".join(f"{table} {dead:,}" for table, dead in worst) or "none"
    print(f"  {ID} {contender.name}, {pin or 'clean'}: dead rows after {messages:,} messages: {text}", flush=True)


class Sampler(threading.Thread):
    """The most that the segments have on disk while it runs."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.connection = connect(server)
        self.stop = threading.Event()
        self.most = 0

    def run(self):
        with self.connection.cursor() as cursor:
            while not self.stop.wait(0.1):
                cursor.execute(DISK)
                self.most = max(self.most, cursor.fetchone()[0])

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.join()
        self.connection.close()


def connect(server):
    connection = psycopg2.connect(
        host=server.environment["PGHOST"], port=server.environment["PGPORT"], user=server.environment["PGUSER"],
        dbname=server.environment["PGDATABASE"])
    connection.autocommit = True
    return connection


@contextmanager
def holding(server, pin):
    """Somebody holds back vacuum; a deleted row tells whether it is true."""
    with {None: nobody, "reader": reader, "writer": writer, "prepared": prepared, "slot": slot}[pin](server):
        server.execute("TRUNCATE bench_pinned", "INSERT INTO bench_pinned VALUES (1)", "DELETE FROM bench_pinned")
        yield
        server.execute("VACUUM bench_pinned")
        if pin and server.value("SELECT dead_tuple_count FROM pgstattuple('bench_pinned')") != 1:
            raise RuntimeError(f"the {pin} held nothing back")


@contextmanager
def nobody(server):
    yield


@contextmanager
def transaction(server, *statements):
    connection = connect(server)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        yield
    finally:
        connection.close()


def reader(server):
    return transaction(server, "BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT count(*) FROM bench_other")


def writer(server):
    return transaction(server, "BEGIN", "INSERT INTO bench_other VALUES (1)")


@contextmanager
def prepared(server):
    with transaction(server, "BEGIN", "INSERT INTO bench_other VALUES (1)", "PREPARE TRANSACTION 'bench'"):
        pass
    try:
        yield
    finally:
        server.execute("ROLLBACK PREPARED 'bench'")


@contextmanager
def slot(server):
    server.execute("SELECT pg_create_physical_replication_slot('bench_stale', true)")
    try:
        standby = standby_of(server, "stale")
        try:
            standby.configure("hot_standby_feedback", "on")
            # Read anew, it makes the receiver connect again and say at once what it needs.
            standby.configure("primary_slot_name", "bench_stale")
            await_true(server, "SELECT xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'bench_stale'")
        finally:
            stop_server(standby, "stale")
        await_true(server, "SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'bench_stale'")
        yield
    finally:
        server.execute("SELECT pg_drop_replication_slot('bench_stale')")


def await_true(server, query):
    for _ in range(600):
        if server.value(query):
            return
        time.sleep(0.1)
    raise RuntimeError(f"never came true: {query}")
