"""4 clients; each leases 100 messages, receives their payloads, and acks them
in a second statement. A PgQ consumer works alone on its queue, so PgQ has 4
queues, a consumer each; its next_batch + get_batch_events + finish_batch run
in one transaction, which is its best. The bench calls the ticker after every
100 events (and after every 1000 for the line that says so). All send the
payloads as one string, since pgbench keeps one row; the receipts, or ids, go to
the client and come back. Shown besides: take and delete in one statement,
without that way.

Where the time goes (perf, 4 clients): 14 % dequeue, 14 % ack_batch (6 % of it
heap_delete), 20 % commit; the rest is the executor, the text of payloads and
receipts on their way to the client and back, and waiting. With a dequeue and
an ack that cost nothing the rate would be 1.4 times this."""

from results import Goal

ID = "B4"
TITLE = "dequeue 100, then ack_batch 100"
CONTENDERS = ["queue", "skiplocked", "pgq", "pgq.1000", "pgmq", "queue.pop", "skiplocked.delete"]
METRICS = {"rate": "messages/s"}
GOALS = [
    Goal("pgmq", ("queue", "rate"), ">=", 10, ("pgmq", "rate")),
    Goal("PgQ", ("queue", "rate"), ">=", 1, ("pgq", "rate")),
    Goal("PgQ, ticks of 1000", ("queue", "rate"), ">=", 1, ("pgq.1000", "rate"), shown=True),
    Goal("SKIP LOCKED", ("queue", "rate"), ">=", 1, ("skiplocked", "rate"), shown=True),
    Goal("pop beside DELETE RETURNING", ("queue.pop", "rate"), ">=", 1,
         ("skiplocked.delete", "rate"), shown=True),
]
CLIENTS = 4
BATCH = 100


def run(turn):
    # Some share a queue's name: each measurement cleans up behind itself.
    for repetition, contender in turn.each():
        rate = turn.attempt(contender, measure, turn)
        if rate:
            turn.add(repetition, contender, "rate", rate, "messages/s", CLIENTS, BATCH)


def measure(contender, turn):
    contender.reset()
    try:
        return turn.consume(contender, BATCH, CLIENTS)
    finally:
        contender.drop()
