"""Two servers of their own with the same queue. On one, somebody holds back, from
before the first message to after the last, what vacuum may remove: *reader*, an
idle REPEATABLE READ transaction; *writer*, an idle transaction that has written;
*prepared*, a prepared transaction; *slot*, a replication slot that a standby with
hot_standby_feedback left behind. That it was held back is proven by a row that
was deleted before the load and that VACUUM cannot remove after it. On the other
nobody does. The two take turns, a second each, now one first and now the other,
so that whatever else the machine does hits both alike, each for three times the
time of a measurement. 8 clients; each stores a message, leases one and settles
it, in three transactions, with 50,000 messages behind (5,000 with --quick).
*kept* is the rate as a share of that of the clean server; *end* is the last
quarter of the time: a queue that gets slower and slower has a better mean than
that. *CPU* is the processor time of the clients' server processes (and of vacuum)
a message. At most three repetitions.

The tables are vacuumed as often as it goes (autovacuum_naptime 1 s). Segments
have 2 MB and are emptied after 2 s (queue.reclaim_delay), so that many of them go
round while vacuum is held back.

*dead rows*: by how much the row versions that vacuum will have to remove
(pgstattuple, whether it could by now or not) became more during the load on the
held server in all tables of the database, catalogs and toast included, but not in
segments and not in pg_statistic, where autovacuum's ANALYZE leaves some, a
thousand messages: one row an operation would be a thousand. *disk*: the most that
the segments' files had, sampled ten times a second, as a share of what they may
have: the live messages, twice what the fastest turn stored, since two turns may
follow one another, and three segments. Both are the worst of the lines of a
repetition."""

import threading
import time
from contextlib import contextmanager

import psycopg2

from contenders import NAME
from results import Goal
from server import private_server, standby_of, stop_server

ID = "B7"
TITLE = "what holds back vacuum"
CONTENDERS = ["queue", "skiplocked", "pgmq"]
PINS = ["reader", "writer", "prepared", "slot"]
METRICS = {
    "clean": "clean, messages/s",
    "reader": "reader",
    "clean end": "clean, end",
    "reader end": "reader, end",
    **{f"{pin} kept": f"{pin}, kept" for pin in PINS},
    "clean cpu": "clean, us of CPU",
    "reader cpu": "reader, us of CPU",
    "dead": "dead rows a 1000",
    "disk": "disk, of allowed",
}
PLOTTED = ["clean end", "reader end"]
GOALS = [
    *(Goal(f"{pin}, beside clean", ("queue", f"{pin} kept"), ">=", 0.98) for pin in PINS),
    Goal("dead rows outside of segments, a 1000 messages", ("queue", "dead"), "<=", 10),
    Goal("disk, beside live + reclaim_delay x rate + 3 segments", ("queue", "disk"), "<=", 1),
    Goal("reader, end, beside clean", ("queue", "reader end"), ">=", 0.98, ("queue", "clean end"), shown=True),
    *(Goal(f"{pin}, CPU, beside clean", ("queue", f"{pin} cpu kept"), "<=", 1.02, shown=True) for pin in PINS),
    Goal("SKIP LOCKED: reader, end, beside clean", ("skiplocked", "reader end"), ">=", 0.98,
         ("skiplocked", "clean end"), shown=True),
    Goal("SKIP LOCKED: reader, CPU, beside clean", ("skiplocked", "reader cpu"), "<=", 1.02,
         ("skiplocked", "clean cpu"), shown=True),
    Goal("pgmq: reader, end, beside clean", ("pgmq", "reader end"), ">=", 0.98, ("pgmq", "clean end"), shown=True),
    Goal("pgmq: reader, CPU, beside clean", ("pgmq", "reader cpu"), "<=", 1.02, ("pgmq", "clean cpu"), shown=True),
    Goal("reader, end, beside pgmq's", ("queue", "reader end"), ">=", 1, ("pgmq", "reader end"), shown=True),
]
CLIENTS = 8
SEGMENT = 2 * 1024 * 1024
TURN = 1
SETTINGS = {"autovacuum_naptime": "1s", "queue.reclaim_delay": f"{2 * TURN}s"}

DEAD = """
SELECT c.oid::regclass::text, (pgstattuple(c.oid)).dead_tuple_count
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
LEFT JOIN pg_class t ON t.reltoastrelid = c.oid
WHERE c.relkind IN ('r', 'm', 't') AND c.relpersistence <> 't'
AND 'pg_statistic'::regclass NOT IN (c.oid, coalesce(t.oid, 0))
AND nspname <> 'queues' AND coalesce(t.relnamespace, 0) <> coalesce(to_regnamespace('queues'), 0)
"""
# Without a lock on the segments, which the worker would have to wait for.
DISK = """
SELECT coalesce(sum((pg_stat_file(pg_relation_filepath(c.oid), true)).size), 0)::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'queues' AND relkind = 'r'
"""


def run(turn):
    names = ("clean", "held")
    servers = []
    try:
        for name in names:
            servers.append(private_server(name))
            prepare(servers[-1], turn)
        for repetition, contender in turn.each():
            if repetition < 3:
                turn.attempt(contender, measure, turn, repetition, servers)
    finally:
        for server, name in zip(servers, names):
            stop_server(server, name)


def prepare(server, turn):
    server.execute("CREATE EXTENSION pgstattuple", "CREATE TABLE bench_other (n int)", "CREATE TABLE bench_pinned (n int)")
    for name, value in SETTINGS.items():
        if "queue" in turn.contenders or not name.startswith("queue."):
            server.configure(name, value)
    for contender in turn.contenders.values():
        type(contender)(server, turn.options).install()


def measure(contender, turn, repetition, servers):
    def note(metric, value, unit):
        turn.add(repetition, contender, metric, value, unit, CLIENTS)

    pins = PINS if contender.name == "queue" else ["reader"]
    seen = {pin: measure_pin(contender, turn, pin, servers) for pin in pins}
    for pin, (clean, held) in seen.items():
        note(f"{pin} kept", held["rate"] / clean["rate"], "of clean")
        note(f"{pin} cpu kept", held["cpu"] / clean["cpu"], "of clean")
    for name, side in zip(("clean", "reader"), seen["reader"]):
        note(name, side["rate"], "messages/s")
        note(f"{name} end", side["end"], "messages/s")
        note(f"{name} cpu", side["cpu"], "us")
    note("dead", max(held["dead"] for _, held in seen.values()), "a 1000")
    if contender.name == "queue":
        note("disk", max(held["disk"] for _, held in seen.values()), "of allowed")


def measure_pin(contender, turn, pin, servers):
    """What was seen on the clean server, and on the one where the pin held vacuum back."""
    count = 5000 if turn.options.quick else 50000
    sides = [type(contender)(server, turn.options) for server in servers]
    for side in sides:
        side.reset()
        if side.name == "queue":
            side.server.rows(
                "SELECT queue.alter(%s, jsonb_build_object('segment_size', %s))", NAME, f"{SEGMENT // 1024}kB")
        side.ready(count)
        side.server.execute("CHECKPOINT")
    size = servers[1].value(DISK) / count
    with holding(servers[1], pin):
        before = dict(servers[1].rows(DEAD))
        with Sampler(servers[1]) as sampler:
            clean, held = take_turns(sides, turn.options.seconds * 3)
        after = dict(servers[1].rows(DEAD))
    grown = {table: dead - before.get(table, 0) for table, dead in after.items() if dead > before.get(table, 0)}
    say(contender, pin, grown, held["messages"])
    held["dead"] = 1000 * sum(grown.values()) / held["messages"]
    held["disk"] = sampler.most / ((count + 2 * held["most"]) * size + 3 * SEGMENT)
    for side in sides:
        side.drop()
    return clean, held


def take_turns(sides, seconds):
    loads = [[] for _ in sides]
    used = [side.server.cpu() for side in sides]
    for number in range(seconds):
        # Each is the first in turn.
        for side, mine in list(zip(sides, loads))[::1 if number % 2 else -1]:
            mine.append(side.server.pgbench(
                side.enqueue + side.consume(1), CLIENTS, TURN, payload=side.payload))
    found = []
    for side, mine, before in zip(sides, loads, used):
        messages = sum(load.transactions for load in mine)
        found.append({
            "messages": messages,
            "most": max(load.transactions for load in mine),
            "rate": rate(mine),
            "end": rate(mine[-max(1, len(mine) // 4):]),
            "cpu": 1e6 * (side.server.cpu() - before) / messages,
        })
    return found


def rate(loads):
    return sum(load.transactions for load in loads) / sum(load.seconds for load in loads)


def say(contender, pin, grown, messages):
    """The three tables with most dead rows."""
    worst = sorted(grown.items(), key=lambda item: -item[1])[:3]
    text = ", ".join(f"{table} {dead:,}" for table, dead in worst) or "none"
    print(f"  {ID} {contender.name}, {pin}: dead rows after {messages:,} messages: {text}", flush=True)


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
    with {"reader": reader, "writer": writer, "prepared": prepared, "slot": slot}[pin](server):
        server.execute("TRUNCATE bench_pinned", "INSERT INTO bench_pinned VALUES (1)", "DELETE FROM bench_pinned")
        yield
        server.execute("VACUUM bench_pinned")
        if server.value("SELECT dead_tuple_count FROM pgstattuple('bench_pinned')") != 1:
            raise RuntimeError(f"the {pin} held nothing back")


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
