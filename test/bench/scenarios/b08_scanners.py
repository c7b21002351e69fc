"""8 clients; each stores a message, leases one and settles it, in three
transactions, with 200,000 messages behind (20,000 with --quick). 4 more clients
each have a REPEATABLE READ transaction open from before the first message to
after the last. They take turns, a second each, for twice the time of a
measurement each: *resting*, the 4 do nothing (what it costs that they are there
is in B7); *scanned*, the 4 read all of the queue again and again; *elsewhere*,
they read a copy of the messages in an ordinary table instead; *paced*, they read
the queue, but rest nine times as long as they read.

Whoever reads elsewhere takes as much of the processors as who reads the queue, so
what differs between the two is what reading the queue does to it; with more
clients than cores no rate can stay what it was while nobody read: four processes
that only run in a loop left the same load 0.17 of its rate on 2 cores. The queue is
read through its view, the tables as they are. *CPU* is the processor time of the
8 clients' server processes a message."""

import threading
import time

from results import Goal
from scenarios.b07_pinned import connect

ID = "B8"
TITLE = "4 REPEATABLE READ scanners of the queue"
CONTENDERS = ["queue", "skiplocked", "pgmq"]
# Line -> what is read, and the share of the time.
LINES = {"resting": (None, 0), "scanned": ("queue", 1), "elsewhere": ("copy", 1), "paced": ("queue", 0.1)}
METRICS = {
    "resting": "resting, messages/s",
    "scanned": "scanned",
    "elsewhere": "elsewhere",
    "paced": "paced",
    "scans": "scans/s of the queue",
    **{f"{line} cpu": f"{line}, us of CPU" for line in LINES},
}
PLOTTED = list(LINES)
GOALS = [
    Goal("scanned, beside resting", ("queue", "scanned"), ">=", 0.9, ("queue", "resting")),
    Goal("scanned, beside elsewhere", ("queue", "scanned"), ">=", 0.9, ("queue", "elsewhere"), shown=True),
    Goal("paced, beside resting", ("queue", "paced"), ">=", 0.9, ("queue", "resting"), shown=True),
    Goal("scanned, CPU, beside elsewhere", ("queue", "scanned cpu"), "<=", 1.1, ("queue", "elsewhere cpu"), shown=True),
    Goal("SKIP LOCKED: scanned, beside elsewhere", ("skiplocked", "scanned"), ">=", 0.9,
         ("skiplocked", "elsewhere"), shown=True),
    Goal("pgmq: scanned, beside elsewhere", ("pgmq", "scanned"), ">=", 0.9, ("pgmq", "elsewhere"), shown=True),
]
CLIENTS = 8
SCANNERS = 4


def run(turn):
    for repetition, contender in turn.each():
        turn.attempt(contender, measure, turn, repetition)
    turn.server.execute("DROP TABLE IF EXISTS bench_copy")


def measure(contender, turn, repetition):
    server = turn.server
    contender.reset()
    contender.ready(20_000 if turn.options.quick else 200_000)
    server.execute(
        "DROP TABLE IF EXISTS bench_copy",
        f"CREATE TABLE bench_copy AS SELECT * FROM {contender.table}",
        "VACUUM (ANALYZE) bench_copy",
    )
    turn.settle()
    tables = {"queue": contender.table, "copy": "bench_copy"}
    seen = {line: [] for line in LINES}
    scanners = [Scanner(server) for _ in range(SCANNERS)]
    try:
        for number in range(turn.options.seconds * 2):
            # Each round begins with another one.
            shift = number % len(LINES)
            for line in [*LINES][shift:] + [*LINES][:shift]:
                table, share = LINES[line]
                seen[line].append(take_turn(contender, scanners, tables.get(table), share))
    finally:
        for scanner in scanners:
            scanner.connection.close()
    for line, turns in seen.items():
        messages, seconds, used, scans = map(sum, zip(*turns))
        turn.add(repetition, contender, line, messages / seconds, "messages/s", CLIENTS)
        turn.add(repetition, contender, f"{line} cpu", 1e6 * used / messages, "us", CLIENTS)
        if line == "scanned":
            turn.add(repetition, contender, "scans", scans / seconds, "a second", SCANNERS)
    contender.drop()


def take_turn(contender, scanners, table, share):
    """A second: messages, seconds, processor time, scans."""
    server = contender.server
    used = server.cpu()
    for scanner in scanners:
        scanner.start(table, share)
    try:
        load = server.pgbench(contender.enqueue + contender.consume(1), CLIENTS, 1, payload=contender.payload)
    finally:
        scans = sum(scanner.end() for scanner in scanners)
    return load.transactions, load.seconds, server.cpu() - used, scans


class Scanner:
    """A client that reads a table from end to end, for a share of the time, in one transaction."""

    def __init__(self, server):
        self.connection = connect(server)
        self.cursor = self.connection.cursor()
        self.cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        self.cursor.execute("SELECT 1")

    def start(self, table, share):
        self.stop = threading.Event()
        self.scans = 0
        self.trouble = None
        self.thread = threading.Thread(target=self.scan, args=(table, share), daemon=True)
        self.thread.start()

    def scan(self, table, share):
        try:
            while table and not self.stop.is_set():
                began = time.monotonic()
                self.cursor.execute(f"SELECT max(length(m::text)) FROM {table} m")
                self.scans += 1
                self.stop.wait((time.monotonic() - began) * (1 / share - 1))
        except Exception as error:  # told by end()
            self.trouble = error

    def end(self):
        """How many scans it had finished, the last one a little late."""
        self.stop.set()
        self.thread.join()
        if self.trouble:
            raise RuntimeError(f"a scanner failed: {self.trouble}")
        return self.scans
