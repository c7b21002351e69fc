"""8 clients; each leases one message and acks it in a second statement, two
transactions. The queue is filled before, so that nobody waits; the tables are
vacuumed and analyzed before each measurement. The SKIP LOCKED table leases by
UPDATE ... RETURNING and acks by DELETE, which is the same promise. Shown
besides: both in one statement, where the message is gone when the statement
ends (queue.pop beside DELETE ... RETURNING); and the limit, a DELETE by ctid
that leases and reads nothing: one durable commit a message is what any of them
must pay.

Where the time goes (perf, 8 clients): of the server's processes 30 % is the
commit's flush, 28 % waiting and switching, 8 % dequeue and 4 % ack; the rest
is the executor and the protocol, which all contenders have. An ack cannot
cost less than the limit's DELETE, and two statements not less than two round
trips, so little is left to gain in the extension."""

from results import Goal

ID = "B3"
TITLE = "dequeue 1, then ack 1"
CONTENDERS = ["queue", "skiplocked", "pgmq", "queue.pop", "skiplocked.delete", "plain"]
METRICS = {"rate": "messages/s"}
GOALS = [
    Goal("pgmq", ("queue", "rate"), ">=", 4, ("pgmq", "rate")),
    Goal("SKIP LOCKED", ("queue", "rate"), ">=", 3, ("skiplocked", "rate")),
    Goal("pop beside DELETE RETURNING", ("queue.pop", "rate"), ">=", 3,
         ("skiplocked.delete", "rate"), shown=True),
    Goal("dequeue + ack beside DELETE RETURNING", ("queue", "rate"), ">=", 1,
         ("skiplocked.delete", "rate"), shown=True),
    Goal("the limit, DELETE by ctid", ("queue", "rate"), ">=", 1, ("plain", "rate"), shown=True),
]
CLIENTS = 8


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, lambda c: c.reset())
    for repetition, contender in turn.each():
        rate = turn.attempt(contender, lambda c: turn.consume(c, 1, CLIENTS))
        if rate:
            turn.add(repetition, contender, "rate", rate, "messages/s", CLIENTS)
    for contender in turn.contenders.values():
        contender.drop()
