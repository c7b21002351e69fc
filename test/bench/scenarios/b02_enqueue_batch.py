"""4 clients, 1000 messages a transaction, each commit durable, each
measurement on an empty queue or table. The limit is INSERT ... SELECT
unnest($1::jsonb[]) into a table without an index. *sent*: the array is a
parameter, as an application sends it, and the server parses it. *made*: the
server makes the array itself, so that storing is all that is measured; shown
because it is the harder comparison.

Where the time goes (perf, 4 clients, array sent): 46 % is the kernel (page
faults, memory, writing), 46 % the server's own code, foremost the parsing of
the array and its JSON, which all contenders pay, and heap_multi_insert; 1.2 %
is the extension. So what is short of three times pgmq cannot be won here;
sending fewer, larger or unparsed values (enqueue_bytes_batch) would."""

from contenders import FILL_BATCH
from results import Goal

ID = "B2"
TITLE = "enqueue_batch of 1000"
CONTENDERS = ["queue", "plain", "skiplocked", "pgq", "pgmq"]
METRICS = {"sent": "messages/s, array sent", "made": "messages/s, array made by the server"}
GOALS = [
    Goal("INSERT ... SELECT unnest", ("queue", "sent"), ">=", 0.80, ("plain", "sent")),
    Goal("pgmq", ("queue", "sent"), ">=", 3, ("pgmq", "sent")),
    Goal("INSERT ... SELECT unnest, array made by the server", ("queue", "made"), ">=", 0.80,
         ("plain", "made"), shown=True),
    Goal("pgmq, array made by the server", ("queue", "made"), ">=", 3, ("pgmq", "made"), shown=True),
]
CLIENTS = 4


def run(turn):
    make_batches(turn)
    for repetition, contender in turn.each():
        for metric, script in (
            ("sent", contender.batch_script(contender.enqueue_many)),
            ("made", contender.made_script(contender.enqueue_many)),
        ):
            rate = turn.attempt(
                contender, lambda c: turn.produce(c, script, CLIENTS, FILL_BATCH, loaded=0)
            )
            if rate:
                turn.add(repetition, contender, metric, rate, "messages/s", CLIENTS, FILL_BATCH)
    for contender in turn.contenders.values():
        contender.drop()


def make_batches(turn):
    payload = next(iter(turn.contenders.values())).payload
    turn.server.execute(
        "DROP TABLE IF EXISTS bench_batch", "CREATE TABLE bench_batch (kind text, payloads text)"
    )
    for kind in ("jsonb", "text"):
        turn.server.rows(
            f"INSERT INTO bench_batch VALUES ('{kind}', array_fill(%s::{kind}, ARRAY[%s])::text)",
            payload,
            FILL_BATCH,
        )
