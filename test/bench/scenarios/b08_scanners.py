"""The work of B3 with 8 clients and 200,000 messages behind (20,000 with
--quick) at the start, for twice the time of a measurement, while 4 clients read all of the queue again
and again, each in one REPEATABLE READ transaction from before the first message
to after the last. *clean*: without them. *elsewhere*: the 4 read a copy of the
messages in an ordinary table instead. They take as much of the processors as
those that read the queue, so what differs from that is what reading the queue does to
it; with more clients than cores no rate can stay what it was without them.
The queue is read through its view, the tables as they are. *paced*: the 4
read the queue, but rest nine times as long as they read, so that they take a part of the
processors only. *CPU* is the processor time of the 8 clients' server processes a message."""

import threading
import time

from results import Goal
from scenarios.b07_pinned import connect

ID = "B8"
TITLE = "4 REPEATABLE READ scanners of the queue"
CONTENDERS = ["queue", "skiplocked", "pgmq"]
# Line -> what is read, and the share of the time.
LINES = {"clean": (None, 0), "scanned": ("{table}", 1), "elsewhere": ("bench_copy", 1), "paced": ("{table}", 0.1)}
METRICS = {
    "clean": "clean, messages/s",
    "scanned": "scanned",
    "elsewhere": "elsewhere",
    "paced": "paced",
    "scans": "scans/s of the queue",
    "clean cpu": "clean, us of CPU",
    "scanned cpu": "scanned, us of CPU",
    "elsewhere cpu": "elsewhere, us of CPU",
}
PLOTTED = list(LINES)
GOALS = [
    Goal("scanned, beside clean", ("queue", "scanned"), ">=", 0.9, ("queue", "clean")),
    Goal("scanned, beside elsewhere", ("queue", "scanned"), ">=", 0.9, ("queue", "elsewhere"), shown=True),
    Goal("paced, beside clean", ("queue", "paced"), ">=", 0.9, ("queue", "clean"), shown=True),
    Goal("scanned, CPU, beside elsewhere", ("queue", "scanned cpu"), "<=", 1.1, ("queue", "elsewhere cpu"), shown=True),
    Goal("pgmq: scanned, beside elsewhere", ("pgmq", "scanned"), ">=", 0.9, ("pgmq", "elsewhere"), shown=True),
    Goal("SKIP LOCKED: scanned, beside elsewhere", ("skiplocked", "scanned"), ">=", 0.9,
         ("skiplocked", "elsewhere"), shown=True),
]
CLIENTS = 8
SCANNERS = 4


def run(turn):
    for repetition, contender in turn.each():
        turn.attempt(contender, measure, turn, repetition)
    turn.server.execute("DROP TABLE IF EXISTS bench_copy")


def measure(contender, turn, repetition):
    lines = list(LINES)
    shift = repetition % len(lines)
    for line in lines[shift:] + lines[:shift]:
        measure_line(contender, turn, repetition, line)


def measure_line(contender, turn, repetition, line):
    server = turn.server
    contender.reset()
    contender.ready(20_000 if turn.options.quick else 200_000)
    server.execute(
        "DROP TABLE IF EXISTS bench_copy",
        f"CREATE TABLE bench_copy AS SELECT * FROM {contender.table}",
        "VACUUM (ANALYZE) bench_copy",
    )
    turn.settle()
    table, share = LINES[line]
    scanners = [Scanner(server, table.format(table=contender.table), share) for _ in range(SCANNERS if table else 0)]
    used = server.cpu()
    try:
        for scanner in scanners:
            scanner.start()
        script = contender.enqueue + contender.consume(1)
        load = server.pgbench(script, CLIENTS, turn.options.seconds * 2, payload=contender.payload)
        used = server.cpu() - used
    finally:
        scans = sum(scanner.end() for scanner in scanners)
    turn.add(repetition, contender, line, load.transactions / load.seconds, "messages/s", CLIENTS)
    turn.add(repetition, contender, f"{line} cpu", 1e6 * used / load.transactions, "us", CLIENTS)
    if line == "scanned":
        turn.add(repetition, contender, "scans", scans / load.seconds, "a second", SCANNERS)
    contender.drop()


class Scanner(threading.Thread):
    """A client that reads a table from end to end, for a share of the time, in one transaction."""

    def __init__(self, server, table, share):
        super().__init__(daemon=True)
        self.connection = connect(server)
        with self.connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT 1")
        self.query = f"SELECT max(length(m::text)) FROM {table} m"
        self.share = share
        self.stop = threading.Event()
        self.scans = 0
        self.trouble = None

    def run(self):
        try:
            with self.connection.cursor() as cursor:
                while not self.stop.is_set():
                    began = time.monotonic()
                    cursor.execute(self.query)
                    self.scans += 1
                    self.stop.wait((time.monotonic() - began) * (1 / self.share - 1))
        except Exception as error:  # told by end()
            self.trouble = error

    def end(self):
        """How many scans it had finished."""
        self.stop.set()
        self.join()
        self.connection.close()
        if self.trouble:
            raise RuntimeError(f"a scanner failed: {self.trouble}")
        return self.scans
