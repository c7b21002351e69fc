"""8 producers as in B1, on a server of its own with room for 1000 connections (fewer
if the memory is less; then a note says so).

*asleep*: 1000 sessions in `CALL queue.wait` of another queue, which nothing wakes.
*8 consumers* and *1000 consumers*: sessions that `CALL queue.wait` on the
producers' queue and, woken, dequeue and ack one message in one statement. Here
the producers share the machine with the consumers, and those fall behind, so that
nobody sleeps any more: it shows what a thousand busy sessions cost.
*LISTEN*: 100 sessions listen to the queue and take nothing; the worker tells them
once a tick (queue.notify_interval, 10 ms).

The table has its like: the same producers beside 1000 sessions in pg_sleep, and
beside 100 that listen while one session sends a NOTIFY every 10 ms: what
PostgreSQL itself takes for that."""

from contenders import NAME
from results import Goal
from server import private_server, stop_server

ID = "B10"
TITLE = "producers with 1000 sleepers, and with 100 LISTENers"
CONTENDERS = ["queue", "plain"]
METRICS = {
    "alone": "nobody waits",
    "asleep": "1000 asleep",
    "few": "8 consumers",
    "many": "1000 consumers",
    "LISTEN": "100 LISTEN",
    "told": "told a second",
}
PLOTTED = ["alone", "asleep", "few", "many", "LISTEN"]
GOALS = [
    Goal("1000 asleep, beside nobody", ("queue", "asleep"), ">=", 0.97, ("queue", "alone")),
    Goal("100 LISTENers, beside nobody", ("queue", "LISTEN"), ">=", 0.97, ("queue", "alone")),
    Goal("1000 that consume in turn, beside 8", ("queue", "many"), ">=", 0.97, ("queue", "few"), shown=True),
    Goal("the limit: 1000 in pg_sleep, beside nobody", ("plain", "asleep"), ">=", 0.97, ("plain", "alone"), shown=True),
    Goal("the limit: 100 LISTENers, beside nobody", ("plain", "LISTEN"), ">=", 0.97, ("plain", "alone"), shown=True),
]
PRODUCERS = 8
SLEEPERS = 1000
LISTENERS = 100
SESSION_MB = 8

ASLEEP = "state = 'active' AND wait_event_type IN ('Extension', 'Timeout')"
LISTENING = "state = 'idle' AND query LIKE 'LISTEN%%'"

CONSUME = [
    f"CALL queue.wait('{NAME}', '1 h')",
    f"SELECT count(queue.ack(receipt)) FROM queue.dequeue('{NAME}')",
]

# What stands beside the producers: metric -> (how many, what they run, how they look when they wait).
BESIDE = {
    "queue": {
        "alone": None,
        "asleep": (SLEEPERS, ["CALL queue.wait('elsewhere', '1 h')"], ASLEEP),
        "few": (8, CONSUME, ASLEEP),
        "many": (SLEEPERS, CONSUME, ASLEEP),
        "LISTEN": (LISTENERS, [f"LISTEN queue_{NAME}"], LISTENING),
    },
    "plain": {
        "alone": None,
        "asleep": (SLEEPERS, ["SELECT pg_sleep(3600)"], ASLEEP),
        "LISTEN": (LISTENERS, ["LISTEN bench_notify"], LISTENING),
    },
}


def run(turn):
    sleepers = affordable(turn)
    server = private_server("many", max_connections=SLEEPERS + 200, min_wal_size="2GB")
    try:
        server.execute("CREATE EXTENSION IF NOT EXISTS queue", "SELECT queue.create('elsewhere')")
        contenders = {name: type(c)(server, turn.options) for name, c in turn.contenders.items()}
        for contender in contenders.values():
            warm_up(contender, turn)
        for repetition, chosen in turn.each():
            # Each repetition begins with another line.
            lines = list(BESIDE[chosen.name])
            first = repetition % len(lines)
            for line in lines[first:] + lines[:first]:
                if chosen.name not in turn.failed:
                    turn.attempt(contenders[chosen.name], measure, turn, repetition, line, sleepers)
    finally:
        stop_server(server, "many")


def affordable(turn):
    """As many sessions as there is memory for."""
    with open("/proc/meminfo") as lines:
        free_mb = [int(line.split()[1]) // 1024 for line in lines if line.startswith("MemAvailable")][0]
    sleepers = max(10, min(SLEEPERS, (free_mb - 2048) // SESSION_MB))
    if sleepers < SLEEPERS:
        turn.results.notes.append(f"{ID} with {sleepers} sleepers: {free_mb} MB of memory were free")
    return sleepers


def measure(contender, turn, repetition, line, sleepers):
    server = contender.server
    contender.reset()
    server.execute("CHECKPOINT")
    beside = []
    try:
        if BESIDE[contender.name][line]:
            clients, statements, waiting = BESIDE[contender.name][line]
            beside.append(server.sleepers(min(clients, sleepers), *statements))
            beside[0].await_sessions(waiting)
        if line == "LISTEN" and contender.name == "plain":
            beside.append(server.background("NOTIFY bench_notify;\n", 1, 100))
        ear = listen(server, contender) if line == "LISTEN" else None
        load = server.pgbench(contender.enqueue, PRODUCERS, turn.options.seconds, payload=contender.payload)
        if ear:
            ear.poll()
            turn.add(repetition, contender, "told", len(ear.notifies) / load.seconds, "a second", LISTENERS)
            ear.close()
    finally:
        for one in beside:
            one.stop()
    turn.add(repetition, contender, line, load.transactions / load.seconds, "messages/s", PRODUCERS)


def listen(server, contender):
    """One more that listens, and counts."""
    ear = server.connect("ear")
    ear.cursor().execute("LISTEN " + ("bench_notify" if contender.name == "plain" else f"queue_{NAME}"))
    return ear


def warm_up(contender, turn):
    """Files of the WAL are made before and used again."""
    contender.reset()
    contender.server.pgbench(contender.enqueue, PRODUCERS, turn.options.seconds, payload=contender.payload)
