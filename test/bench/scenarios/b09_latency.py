"""From sending COMMIT to the other session's client having the answer, on an
idle queue, 1000 rounds with random pauses, one thread driving both
connections (pingpong.c).

PostgreSQL has no bare latch in SQL. The stand-in is an advisory lock: its
waiter sleeps on its latch, and the holder's end sets it. *commit*: the holder
inserts a row into a table without an index and lets go by committing, so that
both sides of the comparison pay for the same durable commit. *bare*: the
holder calls pg_advisory_unlock and writes nothing; beside it a queue whose
producer commits with synchronous_commit = off, so that no flush is measured.
NOTIFY: insert a row, notify, commit; the clock stops at the notification. For
LISTEN it stops when a dequeue has returned the message, and the worker's tick
is added to what is allowed. pgmq's read_with_poll polls ten times a second."""

from results import Goal, percentile
from scenarios import brief

ID = "B9"
TITLE = "commit to delivery on an idle queue"
CONTENDERS = ["queue", "plain", "pgmq"]

# Line -> its contender, how to pause (ms), how many rounds of a thousand, the statements.
LINES = {
    "wait": ("queue", (3, 9), 1, dict(
        a_before="BEGIN;SELECT queue.enqueue('bench', '{}')",
        b_wait="SELECT receipt FROM queue.dequeue('bench', 1, NULL, '5 s')",
        a_fire="COMMIT", b_after="SELECT queue.ack($1)")),
    "lock": ("plain", (3, 9), 1, dict(
        a_before="BEGIN;INSERT INTO bench_plain (payload) VALUES ('{}');SELECT pg_advisory_xact_lock(1)",
        b_wait="SELECT pg_advisory_lock(1)", a_fire="COMMIT",
        b_after="SELECT pg_advisory_unlock(1)")),
    "wait, bare": ("queue", (3, 9), 1, dict(
        a_before="BEGIN;SET LOCAL synchronous_commit = off;SELECT queue.enqueue('bench', '{}')",
        b_wait="SELECT receipt FROM queue.dequeue('bench', 1, NULL, '5 s')",
        a_fire="COMMIT", b_after="SELECT queue.ack($1)")),
    "lock, bare": ("plain", (3, 9), 1, dict(
        a_before="SELECT pg_advisory_lock(1)", b_wait="SELECT pg_advisory_lock(1)",
        a_fire="SELECT pg_advisory_unlock(1)", b_after="SELECT pg_advisory_unlock(1)")),
    "LISTEN": ("queue", (15, 30), 1, dict(
        b_setup="LISTEN queue_bench", a_before="BEGIN;SELECT queue.enqueue('bench', '{}')",
        a_fire="COMMIT", b_take="SELECT receipt FROM queue.dequeue('bench')",
        b_after="SELECT queue.ack($1)")),
    "NOTIFY": ("plain", (3, 9), 1, dict(
        b_setup="LISTEN bench_notify",
        a_before="BEGIN;INSERT INTO bench_plain (payload) VALUES ('{}');SELECT pg_notify('bench_notify', '')",
        a_fire="COMMIT")),
    "poll": ("pgmq", (3, 9), 0.1, dict(
        a_before="BEGIN;SELECT pgmq.send('bench', '{}'::jsonb)",
        b_wait="SELECT msg_id FROM pgmq.read_with_poll('bench', 30, 1, 5, 100)", a_fire="COMMIT",
        b_after="SELECT pgmq.delete('bench', $1::bigint)")),
}

METRICS = {f"{line} {p}": f"{line}, {p}, us" for line in LINES for p in ("p50", "p99")}
# Lines in the table of this scenario, instead of contenders.
TABLE = (list(LINES), ["p50", "p99"])

TICK_US = 10_000  # queue.notify_interval

GOALS = [
    Goal("waiting dequeue p99, beside a commit that hands a lock over", ("queue", "wait p99"), "<=", 2,
         ("plain", "lock p99")),
    Goal("waiting dequeue p99 without flush, beside a bare hand-over", ("queue", "wait, bare p99"), "<=", 2,
         ("plain", "lock, bare p99")),
    Goal("waiting dequeue p50 without flush, beside a bare hand-over", ("queue", "wait, bare p50"), "<=", 2,
         ("plain", "lock, bare p50"), shown=True),
    Goal("LISTEN p99, beside NOTIFY + 10 ms tick", ("queue", "LISTEN p99"), "<=", 2,
         ("plain", "NOTIFY p99"), more=TICK_US),
]
ROUNDS = 1000


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, lambda c: c.reset())
    turn.settle()
    for repetition in range(turn.options.reps):
        for line, (name, pause, share, steps) in LINES.items():
            if name in turn.contenders and line not in turn.failed:
                measure(turn, repetition, line, name, pause, share, steps)
    for contender in turn.contenders.values():
        contender.drop()


def measure(turn, repetition, line, name, pause, share, steps):
    rounds = int((100 if turn.options.quick else ROUNDS) * share)
    try:
        latencies, missed = turn.server.pingpong(rounds, pause, **steps)
    except RuntimeError as error:
        turn.failed.add(line)
        turn.results.troubles.append(f"{ID} {line}: {brief(error)}")
        return
    if missed:
        turn.results.troubles.append(f"{ID} {line}: {missed} of {rounds} rounds had no answer in 10 s")
    for label, where in (("p50", 0.50), ("p99", 0.99)):
        if latencies:
            turn.add(repetition, name, f"{line} {label}", percentile(latencies, where), "us")
