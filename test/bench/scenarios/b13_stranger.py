"""Somebody else's load on the same server: pgbench's TPC-B, scale 10, four clients, 200
transactions a second. Beside it four clients move 500 messages a second: each is
enqueued, dequeued and acked, three transactions; or a row is inserted into a table
without an index and deleted by its ctid, two transactions. Segments have 1 MB and
are emptied a second after their last message, so that the worker's part is in it;
autovacuum is at the table as it comes. Latencies are the stranger's, counted from
when a transaction was due. Each measurement takes five seconds or twice the usual
time."""

import subprocess
import time

from contenders import NAME
from results import Goal, percentile

ID = "B13"
TITLE = "an unrelated load beside the queue"
CONTENDERS = ["queue", "plain"]
# Line -> its contender; alone is nobody's.
LINES = {"alone": ("plain",), "queue": ("queue",), "INSERT + DELETE": ("plain",)}
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
TABLE = (list(LINES), list(SHARES))
METRICS = {f"{line} {p}": f"{line}, {p}, us" for line in LINES for p in SHARES}
GOALS = [
    Goal("the stranger's p95 beside INSERT + DELETE", ("queue", "queue p95"), "<=", 1,
         ("plain", "INSERT + DELETE p95")),
    Goal("the stranger's p95 alone", ("queue", "queue p95"), "<=", 1, ("plain", "alone p95"), shown=True),
]
CLIENTS = 4
STRANGER_RATE = 200
RATE = 500

TURN_OVER = """INSERT INTO bench_plain (payload) VALUES (:payload) RETURNING ctid AS place \\gset
DELETE FROM bench_plain WHERE ctid = :place::tid RETURNING payload;
"""


def run(turn):
    command = [f"{turn.server.bin}/pgbench", "-i", "-q", "-s", "10"]
    subprocess.run(command, env=turn.server.environment, check=True, capture_output=True)
    turn.server.configure("queue.reclaim_delay", "1s")
    try:
        for repetition in range(turn.options.reps):
            names = list(LINES)
            first = repetition % len(names)
            for line in names[first:] + names[:first]:
                contender = turn.contenders.get(LINES[line][0])
                if contender and contender.name not in turn.failed:
                    turn.attempt(contender, measure, turn, repetition, line)
    finally:
        turn.server.configure("queue.reclaim_delay")
        turn.server.execute("DROP TABLE pgbench_accounts, pgbench_branches, pgbench_history, pgbench_tellers")
    for contender in turn.contenders.values():
        contender.drop()


def measure(contender, turn, repetition, line):
    contender.reset()
    if contender.name == "queue":
        contender.server.execute(f"""SELECT queue.alter('{NAME}', '{{"segment_size": "1MB"}}')""")
    turn.settle()
    loads = []
    try:
        if line != "alone":
            script = contender.enqueue + contender.consume(1) if contender.name == "queue" else TURN_OVER
            loads.append(turn.server.background(script, CLIENTS, RATE, payload=contender.payload))
        loads.append(turn.server.background("builtin:tpcb-like", CLIENTS, STRANGER_RATE))
        seconds = max(5, turn.options.seconds * 2)
        time.sleep(seconds)
        took = loads.pop().end()
        if line != "alone":
            moved = len(loads.pop().end()) / seconds
            turn.add(repetition, contender, f"{line} moved", moved, "messages/s", CLIENTS)
    finally:
        for load in loads:
            load.stop()
    for label, share in SHARES.items():
        value = percentile([one.us for one in took], share)
        turn.add(repetition, contender, f"{line} {label}", value, "us", CLIENTS)
