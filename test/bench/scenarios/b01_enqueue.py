"""8 clients, one message a transaction, each commit durable. Every measurement
begins with an empty queue or table. The limit is a prepared INSERT into a
table without an index and with one identity column; it returns nothing, while
the queues return the message's id."""

from results import Goal

ID = "B1"
TITLE = "enqueue, one a transaction"
CONTENDERS = ["queue", "plain", "skiplocked", "pgq", "pgmq"]
METRICS = {"rate": "messages/s"}
GOALS = [
    Goal("plain prepared INSERT", ("queue", "rate"), ">=", 0.90, ("plain", "rate")),
    Goal("pgmq", ("queue", "rate"), ">=", 1.5, ("pgmq", "rate")),
]
CLIENTS = 8


def run(turn):
    for repetition, contender in turn.each():
        rate = turn.attempt(contender, lambda c: turn.produce(c, c.enqueue, CLIENTS))
        if rate:
            turn.add(repetition, contender, "rate", rate, "messages/s", CLIENTS)
    for contender in turn.contenders.values():
        contender.drop()
