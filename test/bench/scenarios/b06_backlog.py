"""Three queues of a kind side by side: one with nothing behind, one with a
tenth of the backlog and one with all of it (--backlog; the notes say how many
that was). One client stores a message, leases one and settles it, in three
transactions, in each of the three queues in turn, so that whatever else the
machine does hits them alike; timed is the statement that leases. The tables
are vacuumed and analyzed after they were filled. A p99 is of the 1000 rounds of a
repetition (100 with --quick)."""

from probe import probes
from results import Goal, percentile

ID = "B6"
TITLE = "dequeue with a backlog behind"
CONTENDERS = ["queue", "skiplocked", "pgmq"]
SIZES = {"none": 0, "tenth": 0.1, "all": 1}
METRICS = {f"{size} {p}": f"{size}, {p}, us" for size in SIZES for p in ("p50", "p99")}
PLOTTED = [f"{size} p99" for size in SIZES]
GOALS = [
    Goal("p99 with all behind, beside none behind", ("queue", "all p99"), "<=", 1.3, ("queue", "none p99")),
    Goal("p50 with all behind, beside none behind", ("queue", "all p50"), "<=", 1.3, ("queue", "none p50"), shown=True),
    Goal("p99 with a tenth behind, beside none behind", ("queue", "tenth p99"), "<=", 1.3,
         ("queue", "none p99"), shown=True),
    Goal("p99 with all behind, beside SKIP LOCKED's", ("queue", "all p99"), "<=", 1, ("skiplocked", "all p99"), shown=True),
    Goal("p99 with all behind, beside pgmq's", ("queue", "all p99"), "<=", 1, ("pgmq", "all p99"), shown=True),
]


def run(turn):
    turn.results.notes.append(f"{ID}: all of the backlog is {turn.options.backlog:,} messages.")
    for contender in turn.contenders.values():
        turn.attempt(contender, measure, turn)


def measure(contender, turn):
    with probes(turn.server, contender, *(f"bench_{size}" for size in SIZES)) as queues:
        for queue, share in zip(queues, SIZES.values()):
            queue.fill(int(turn.options.backlog * share))
        for repetition in range(turn.options.reps):
            turn.settle()
            times = {size: [] for size in SIZES}
            for _ in range(100 if turn.options.quick else 1000):
                for size, queue in zip(SIZES, queues):
                    queue.put()
                    times[size].append(queue.take())
            for size in SIZES:
                for label, where in (("p50", 0.50), ("p99", 0.99)):
                    turn.add(repetition, contender, f"{size} {label}", percentile(times[size], where), "us")
