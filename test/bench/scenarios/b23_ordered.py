"""Queues side by side, each filled with 300,000 messages (1,000,000 where there are as
many keys; a twentieth with --quick), with keys in turn: *unordered* (10,000 keys that
nobody looks at); ordered with 10,000 keys, 100, 1, and 1,000,000; and *blocked*: a
message of one key is leased for an hour, a million more of that key are behind it,
and then come 300,000 of 10,000 keys. 8 clients; each leases one message and acks it
in a second statement; the queues take turns, one after the other in each repetition.
*batches*: 4 clients, a hundred messages a statement, 100 statements each.

Counted is what was acked. With one key one client at a time has a message, and the
others find none: that rate is what one consumer does beside seven that ask in vain.
pgmq's FIFO reads are not here: the newest version that could be had has none."""

from results import Goal

ID = "B23"
TITLE = "ordered queues: dequeue, then ack"
CONTENDERS = ["queue"]
# Line -> whether it is ordered, keys, thousands of messages.
LINES = {
    "unordered": (False, 10_000, 300),
    "10,000 keys": (True, 10_000, 300),
    "100 keys": (True, 100, 300),
    "1 key": (True, 1, 300),
    "1,000,000 keys": (True, 1_000_000, 1000),
    "blocked": (True, 10_000, 300),
}
COLUMNS = ["rate", "batches"]
TABLE = (list(LINES), COLUMNS)
UNITS = "messages a second"
METRICS = {f"{line} {column}": f"{line}, {column}, messages/s" for line in LINES for column in COLUMNS}
GOALS = [
    Goal("10,000 keys, beside unordered", ("queue", "10,000 keys rate"), ">=", 0.7, ("queue", "unordered rate")),
    Goal("10,000 keys, batches, beside unordered", ("queue", "10,000 keys batches"), ">=", 0.7,
         ("queue", "unordered batches"), shown=True),
    Goal("1,000,000 keys, beside 10,000", ("queue", "1,000,000 keys rate"), ">=", 0.9, ("queue", "10,000 keys rate")),
    Goal("a blocked key with a million behind it, beside none", ("queue", "blocked rate"), ">=", 0.9,
         ("queue", "10,000 keys rate")),
    Goal("100 keys, beside 10,000", ("queue", "100 keys rate"), ">=", 0.9, ("queue", "10,000 keys rate"), shown=True),
]
CLIENTS = 8
BATCH_CLIENTS = 4
# Statements a client; a time would drain the queue.
BATCHES = 100
FILL = 1000


def names():
    return {line: f"bench_{number}" for number, line in enumerate(LINES)}


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, measure, turn)


def measure(contender, turn):
    server = turn.server
    share = 20 if turn.options.quick else 1
    for line, name in names().items():
        ordered, keys, thousands = LINES[line]
        server.execute(f"""SELECT queue.create('{name}', '{{"ordered": {str(ordered).lower()}}}')""")
        if line == "blocked":
            fill(server, contender, name, "'hot'", 1000 // share)
            server.execute(f"SELECT count(*) FROM queue.dequeue('{name}', 1, '1 h')")
        fill(server, contender, name, f"(batch * {FILL} + n) %% {keys}", thousands // share)
    try:
        for repetition in range(turn.options.reps):
            for line, name in names().items():
                turn.settle()
                turn.add(repetition, contender, f"{line} rate", acked(turn, name, one(name), CLIENTS), "messages/s", CLIENTS)
            for line, name in names().items():
                turn.settle()
                turn.add(repetition, contender, f"{line} batches",
                         acked(turn, name, many(name), BATCH_CLIENTS, BATCHES), "messages/s", BATCH_CLIENTS, 100)
    finally:
        for name in names().values():
            server.execute(f"SELECT queue.drop('{name}', true)")


def fill(server, contender, name, key, thousands, more=""):
    """Thousands of messages; "more": further arguments."""
    server.rows(
        f"SELECT count(queue.enqueue_batch('{name}', array_fill(%s::jsonb, ARRAY[{FILL}]),"
        f" ARRAY(SELECT 'key ' || {key} FROM generate_series(1, {FILL}) n){', ' + more if more else ''}))"
        " FROM generate_series(1, %s) batch", contender.payload, thousands)


def one(name):
    return rf"""\set id 0
SELECT * FROM queue.dequeue('{name}') \aset
\if :id > 0
SELECT queue.ack(:receipt);
\endif
"""


def many(name):
    return rf"""SELECT count(*) AS n, array_agg(receipt) AS receipts FROM queue.dequeue('{name}', 100) \gset
\if :n > 0
SELECT queue.ack_batch(:receipts);
\endif
"""


def acked(turn, name, script, clients, batches=None):
    """Messages acked a second, in the time of a measurement or so many batches a client."""
    def total():
        return turn.server.value("SELECT total_acked FROM queue.stats WHERE queue = %s", name)

    before = total()
    load = turn.server.pgbench(script, clients, None if batches else turn.options.seconds, batches)
    if turn.server.value("SELECT ready FROM queue.stats WHERE queue = %s", name) == 0:
        raise RuntimeError(f"{name} was drained to the ground")
    return (total() - before) / load.seconds
