"""200 consumers wait, while four other sessions insert rows into a table of their own,
500 transactions a second, so that any snapshot that is kept grows old. Sampled
fifty times a second: the oldest backend_xmin among the consumers in
pg_stat_activity, as an age in transactions; 0 if none of them has any.

*wait*: `CALL queue.wait`, nothing comes. *LISTEN*: sessions that listen, nothing
comes. *wait, at work*: 50 messages a second come, and whoever is woken dequeues
and acks: what it holds is the snapshot of a short statement. *LISTEN, told*: the
same messages for sessions that listen. *dequeue*: waits inside of
dequeue, which is a SELECT and holds its snapshot as long as it sleeps
(queue.max_wait): for comparison, and to show that an age can be seen."""

import time

from contenders import NAME
from results import Goal

ID = "B11"
TITLE = "age of the horizon that 200 waiting consumers add"
CONTENDERS = ["queue"]

TAKE = f"SELECT count(queue.ack(receipt)) FROM queue.dequeue('{NAME}', 10)"
WAIT = f"CALL queue.wait('{NAME}', '1 h')"
LISTEN = f"LISTEN queue_{NAME}"
DEQUEUE = f"SELECT count(*) FROM queue.dequeue('{NAME}', 10, NULL, '5 s')"

ASLEEP = "state = 'active' AND wait_event_type = 'Extension'"
LISTENING = "state = 'idle' AND query LIKE 'LISTEN%%'"

# Line -> what a consumer runs, how to tell that it waits, whether messages come.
LINES = {
    "wait": ([WAIT], ASLEEP, False),
    "LISTEN": ([LISTEN], LISTENING, False),
    "wait, at work": ([WAIT, TAKE], ASLEEP, True),
    "LISTEN, told": ([LISTEN], LISTENING, True),
    "dequeue": ([DEQUEUE], ASLEEP, False),
}
METRICS = {line: f"{line}, transactions" for line in LINES}
PLOTTED = list(LINES)
GOALS = [
    Goal("CALL queue.wait, transactions", ("queue", "wait"), "<=", 0),
    Goal("LISTEN, transactions", ("queue", "LISTEN"), "<=", 0),
]
CONSUMERS = 200


def run(turn):
    turn.server.execute(
        "DROP TABLE IF EXISTS bench_beside",
        "CREATE TABLE bench_beside (n bigint GENERATED ALWAYS AS IDENTITY)",
    )
    for repetition, contender in turn.each():
        for line in LINES:
            if contender.name not in turn.failed:
                turn.attempt(contender, measure, turn, repetition, line)
    for contender in turn.contenders.values():
        contender.drop()
    turn.server.execute("DROP TABLE bench_beside")


def measure(contender, turn, repetition, line):
    statements, waiting, messages = LINES[line]
    contender.reset()
    turn.settle()
    beside = [turn.server.sleepers(CONSUMERS, *statements)]
    try:
        beside[0].await_sessions(waiting)
        beside.append(turn.server.background("INSERT INTO bench_beside DEFAULT VALUES;\n", 4, 500))
        if messages:
            beside.append(turn.server.background(contender.enqueue, 1, 50, payload=contender.payload))
        oldest, spent = sample(turn, beside[0])
    finally:
        for load in beside:
            load.stop()
    if spent < 100:
        raise RuntimeError(f"only {spent} transactions went by: no age could be seen")
    turn.add(repetition, contender, line, oldest, "transactions", CONSUMERS)


def sample(turn, consumers):
    """The age of the oldest snapshot seen, and how many transactions went by."""
    now = "SELECT txid_snapshot_xmax(txid_current_snapshot())"
    first = turn.server.value(now)
    until = time.monotonic() + max(2, turn.options.seconds)
    oldest = 0
    while time.monotonic() < until:
        age = turn.server.value(
            "SELECT max(age(backend_xmin)) FROM pg_stat_activity WHERE application_name = %s", consumers.name)
        oldest = max(oldest, age or 0)
        time.sleep(0.02)
    return oldest, turn.server.value(now) - first
