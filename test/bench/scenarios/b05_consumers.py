"""The work of B3 with 1 to 256 consumers. What counts is the rate that is left
with 256 consumers, as a share of the contender's own peak, beside the same
share of DELETE by ctid on a table without an index, where every client has
pages of its own and nobody meets. Each point is measured for half the time.

What waits (256 consumers, sampled): 99 % of the waits are for the WAL's lock
and flush in the commit of the ack, as in the limit; hardly any are in the
dequeue. perf adds 18 % for switching between processes on 2 cores, which two
statements a message do twice as often as the limit's one. One statement (pop)
or batches would close it."""

from results import Goal

ID = "B5"
TITLE = "1 to 256 consumers"
CONTENDERS = ["queue", "plain", "skiplocked", "pgmq"]
SWEEP = [1, 4, 16, 64, 256]
METRICS = {**{f"c{clients}": f"{clients}" for clients in SWEEP}, "kept": "rate at 256 / peak"}
GOALS = [
    Goal("kept at 256, beside DELETE by ctid", ("queue", "kept"), ">=", 0.9, ("plain", "kept")),
    Goal("kept at 256, beside SKIP LOCKED", ("queue", "kept"), ">=", 1, ("skiplocked", "kept"), shown=True),
]


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, lambda c: c.reset())
    # The two that are compared take turns at each number of clients.
    seen = {}
    seconds = max(1, turn.options.seconds // 2)
    for repetition in range(turn.options.reps):
        for clients in SWEEP:
            for name in [n for n in turn.contenders if n not in turn.failed]:
                contender = turn.contenders[name]
                rate = turn.attempt(contender, lambda c: turn.consume(c, 1, clients, seconds))
                if rate:
                    seen.setdefault((repetition, name), []).append(rate)
                    turn.add(repetition, name, f"c{clients}", rate, "messages/s", clients)
    for (repetition, name), rates in seen.items():
        if len(rates) == len(SWEEP):
            turn.add(repetition, name, "kept", rates[-1] / max(rates), "of peak", SWEEP[-1])
    for contender in turn.contenders.values():
        contender.drop()
