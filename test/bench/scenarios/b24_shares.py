"""Queues side by side, each filled with 300,000 messages (a twentieth with --quick):
*plain* (one priority, no limit); *priorities* (all ten in turn, aging); *queue
limits* (at most 1,000 in flight and a rate that is not reached, of the queue and of
each consumer); *10,000 keyed limits* (10,000 keys in turn, each with one message in
flight at most); *fair, 100 keys* and *fair, 10,000 keys* (keys take turns). 8 clients;
each leases one message and acks it in a second statement; the queues take turns, one
after the other in each repetition. Counted is what was acked.

*Jain's index* of fair share: one key has 100,000 messages (a twentieth), and behind
them come 99 keys with 100 each; 8 clients pop 2,000 messages, one at a time, and the
index is that of the numbers by key: (sum)^2 / (keys x sum of squares); 1 is even,
0.01 is all of one key. *First of a quiet key*: how many messages of others came
before the first of the key that came last, in rounds of 100; 1 is the best there is.

*Urgent*: one message of priority 9 is enqueued and then dequeued, by one client, 300 times,
behind a million messages without one that are ready (a twentieth), and in an empty queue;
the time of the dequeue."""

import statistics
import time

from results import Goal
from scenarios.b23_ordered import FILL, acked, fill, one

ID = "B24"
TITLE = "priorities, limits and fair share: dequeue, then ack"
CONTENDERS = ["queue"]
# Line -> options, limits, keys, whether priorities.
LINES = {
    "plain": ("{}", [], 10_000, False),
    "priorities": ("{}", [], 10_000, True),
    "queue limits": ("{}", ["'queue', in_flight => 1000, rate => 1e6", "'consumer', in_flight => 1000, rate => 1e6"], 10_000, False),
    "10,000 keyed limits": ("{}", ["'key', in_flight => 1"], 10_000, False),
    "fair, 100 keys": ('{"fair_share": true}', [], 100, False),
    "fair, 10,000 keys": ('{"fair_share": true}', [], 10_000, False),
}
COLUMNS = ["rate"]
TABLE = (list(LINES), COLUMNS)
UNITS = "messages a second"
METRICS = {f"{line} rate": f"{line}, messages/s" for line in LINES}
METRICS |= {f"urgent, {where}": f"dequeue of an urgent message, {where}, p50, us" for where in ("behind others", "alone")}
METRICS |= {"jain": "Jain's index of 100 keys, one of which has far more", "first": "first message of the last key, in rounds"}
GOALS = [
    Goal("priorities, beside plain", ("queue", "priorities rate"), ">=", 0.9, ("queue", "plain rate")),
    Goal("limits of queue and consumer, beside plain", ("queue", "queue limits rate"), ">=", 0.9, ("queue", "plain rate")),
    Goal("10,000 keyed limits, beside plain", ("queue", "10,000 keyed limits rate"), ">=", 0.7, ("queue", "plain rate")),
    Goal("fair share of 100 keys, beside plain", ("queue", "fair, 100 keys rate"), ">=", 0.7, ("queue", "plain rate")),
    Goal("fair share of 10,000 keys, beside plain", ("queue", "fair, 10,000 keys rate"), ">=", 0.5, ("queue", "plain rate"),
         shown=True),
    Goal("Jain's index of fair share", ("queue", "jain"), ">=", 0.99),
    Goal("an urgent message behind a million, beside one alone", ("queue", "urgent, behind others"), "<=", 2,
         ("queue", "urgent, alone")),
    Goal("rounds before a quiet key's first", ("queue", "first"), "<=", 2),
]
CLIENTS = 8
POPS = 250


def names():
    return {line: f"bench_{number}" for number, line in enumerate(LINES)}


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, measure, turn)


def measure(contender, turn):
    server = turn.server
    share = 20 if turn.options.quick else 1
    for line, name in names().items():
        options, limits, keys, priorities = LINES[line]
        server.execute(f"SELECT queue.create('{name}', '{options}')")
        for limit in limits:
            server.execute(f"SELECT queue.limit('{name}', {limit})")
        fill(server, contender, name, f"(batch * {FILL} + n) %% {keys}", 300 // share,
             "priority => batch %% 10" if priorities else "")
    try:
        for repetition in range(turn.options.reps):
            for line, name in names().items():
                turn.settle()
                turn.add(repetition, contender, f"{line} rate", acked(turn, name, one(name), CLIENTS), "messages/s", CLIENTS)
            index, first = shares(turn, contender, share)
            turn.add(repetition, contender, "jain", index, "index", CLIENTS)
            turn.add(repetition, contender, "first", first, "rounds", CLIENTS)
            for where, thousands in (("behind others", 1000 // share), ("alone", 0)):
                turn.add(repetition, contender, f"urgent, {where}", urgent(server, contender, thousands), "us", 1)
    finally:
        for name in names().values():
            server.execute(f"SELECT queue.drop('{name}', true)")


def urgent(server, contender, thousands):
    """The median time in which an urgent message is leased, us."""
    times = []
    server.execute("SELECT queue.create('bench_urgent')")
    try:
        if thousands:
            fill(server, contender, "bench_urgent", "n", thousands)
        for _ in range(300):
            server.rows("SELECT queue.enqueue('bench_urgent', %s::jsonb, priority => 9)", contender.payload)
            began = time.perf_counter()
            priority, receipt = server.rows("SELECT priority, receipt::text FROM queue.dequeue('bench_urgent')")[0]
            times.append((time.perf_counter() - began) * 1e6)
            if priority != 9:
                raise RuntimeError("another message came before the urgent one")
            server.rows("SELECT queue.ack(%s)", receipt)
        return statistics.median(times)
    finally:
        server.execute("SELECT queue.drop('bench_urgent', true)")


def shares(turn, contender, share):
    """Jain's index, and the rounds before the first message of the key that came last."""
    server = turn.server
    server.execute("SELECT queue.create('bench_jain', '{\"fair_share\": true}')")
    server.execute("CREATE TABLE bench_taken (n bigserial, key text)")
    try:
        fill(server, contender, "bench_jain", "'noisy'", 100 // share)
        server.rows("SELECT count(queue.enqueue('bench_jain', %s::jsonb, key => 'quiet ' || n %% 99))"
                    " FROM generate_series(1, 9900) n", contender.payload)
        server.pgbench("INSERT INTO bench_taken (key) SELECT key FROM queue.pop('bench_jain')", CLIENTS, None, POPS)
        index = server.value("SELECT (sum(c)::float8 ^ 2 / (100 * sum(c::float8 ^ 2))) FROM"
                             " (SELECT count(*) c FROM bench_taken GROUP BY key) counts")
        first = server.value("SELECT max(first) / 100.0::float8 FROM"
                             " (SELECT min(n) AS first FROM bench_taken GROUP BY key) firsts")
        return index, first
    finally:
        server.execute("DROP TABLE bench_taken")
        server.execute("SELECT queue.drop('bench_jain', true)")
