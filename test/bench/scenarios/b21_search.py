"""What has to be found among many. *cancel*: by its id, a message somewhere in
the backlog (--backlog; the notes say how many that was), beside the only
message of an empty queue. *ready*: to lease the one message that is ready
while all of the backlog is due in a day, beside an empty queue; it is stored
just before and settled afterwards. One client; the two queues take turns,
rounds for at most five times the time of a measurement, 1000 at most; the
tables are vacuumed and analyzed before. pgmq cancels by delete(), and SKIP LOCKED
by DELETE, both through an index; the SKIP LOCKED table has no delays.

An urgent message behind others that are not is in B24."""

import random
import time

from probe import probes
from results import Goal, percentile

ID = "B21"
TITLE = "to find one among many"
CONTENDERS = ["queue", "skiplocked", "pgmq"]
LABELS = {
    "cancel empty": "cancel, nothing else",
    "cancel all": "cancel, all behind",
    "ready empty": "ready, nothing else",
    "ready all": "ready, all delayed",
}
METRICS = {f"{line} {p}": f"{text}, {p}, us" for line, text in LABELS.items() for p in ("p50", "p99")}
PLOTTED = [f"{line} p99" for line in LABELS]
GOALS = [
    Goal("cancel by id, p50, beside an empty queue", ("queue", "cancel all p50"), "<=", 20, ("queue", "cancel empty p50")),
    Goal("cancel by id, p99, beside an empty queue", ("queue", "cancel all p99"), "<=", 20,
         ("queue", "cancel empty p99"), shown=True),
    Goal("one ready among delayed, p50, beside an empty queue", ("queue", "ready all p50"), "<=", 20,
         ("queue", "ready empty p50")),
    Goal("one ready among delayed, p99, beside an empty queue", ("queue", "ready all p99"), "<=", 20,
         ("queue", "ready empty p99"), shown=True),
    Goal("cancel by id, p50, beside SKIP LOCKED's DELETE", ("queue", "cancel all p50"), "<=", 1,
         ("skiplocked", "cancel all p50"), shown=True),
    Goal("one ready among delayed, p50, beside pgmq's", ("queue", "ready all p50"), "<=", 1,
         ("pgmq", "ready all p50"), shown=True),
]
ROUNDS = 1000


def run(turn):
    turn.results.notes.append(f"{ID}: all of the backlog is {turn.options.backlog:,} messages.")
    for contender in turn.contenders.values():
        turn.attempt(contender, measure_cancel, turn)
        turn.attempt(contender, measure_ready, turn)


def measure_cancel(contender, turn):
    with probes(turn.server, contender, "bench_empty", "bench_all") as (empty, full):
        full.fill(turn.options.backlog)
        random.Random(1).shuffle(full.ids)
        share = len(full.ids) // turn.options.reps

        def cancel():
            return empty.cancel(empty.put()), full.cancel(full.ids.pop())

        play(turn, contender, "cancel", cancel, min(ROUNDS, share))


def measure_ready(contender, turn):
    with probes(turn.server, contender, "bench_empty", "bench_all") as (empty, full):
        if not full.way.fill_delayed:
            return
        full.fill(turn.options.backlog, delayed=True)

        def take():
            empty.put()
            full.put()
            return empty.take(), full.take()

        play(turn, contender, "ready", take, ROUNDS)


def play(turn, contender, job, once, most):
    """Rounds in both queues, as many as there is time for, but one at least."""
    for repetition in range(turn.options.reps):
        turn.settle()
        until = time.monotonic() + turn.options.seconds * 5
        times = [once()]
        while len(times) < most and time.monotonic() < until:
            times.append(once())
        for size, values in zip(("empty", "all"), zip(*times)):
            for label, where in (("p50", 0.50), ("p99", 0.99)):
                turn.add(repetition, contender, f"{job} {size} {label}", percentile(values, where), "us")
