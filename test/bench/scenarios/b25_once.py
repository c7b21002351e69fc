"""16 clients, one message a transaction, each commit durable; every measurement begins with
an empty queue. *0 %*, *10 %* and *100 %* of the messages have a dedup_key that is new, *again*
one of ten that were used before; *remembered*: as 100 %, with 10,000,000 keys in the window
before (100,000 with --quick); *remembered, 0 %*: beside these, without a key. *unique_key*: as 100 %
with a key of that kind. *batches*: 1,000 messages a call, each with a new dedup_key, 4 clients.

*unique index*: INSERT ... ON CONFLICT DO NOTHING of a row with a new key into a table with an
identity column and a unique index on the key (text), which is what queues on tables do.

By hand, not by this program: one Node client with 16 connections (pg 8.23.1), a new key each time, 5 s, three turns, medians:
queue dedup_key 9,155 a second, unique_key 9,052; pg-boss 10.4.2, `send()` with singletonKey into a queue of policy
short, 2,328; Graphile Worker 0.16.6, `add_job()` with job_key, 1,492. And with 100,000,000 keys remembered, all in memory: 19,400 without
a key (20,900 before), 13,000 with one (14,700)."""

from results import Goal

ID = "B25"
TITLE = "enqueue once"
CONTENDERS = ["queue"]
KEY = "gen_random_uuid()::text"
PLAIN = "SELECT queue.enqueue('bench_once', :payload);\n"
KEYED = f"SELECT queue.enqueue('bench_once', :payload, dedup_key => {KEY});\n"
# Line -> script, keys remembered before.
LINES = {
    "0 %": (PLAIN, False),
    "10 %": ("\\set n random(1, 10)\n\\if :n = 1\n" + KEYED + "\\else\n" + PLAIN + "\\endif\n", False),
    "100 %": (KEYED, False),
    "again": ("\\set n random(1, 10)\nSELECT queue.enqueue('bench_once', :payload, dedup_key => (:n)::text);\n", False),
    "unique_key": (f"SELECT queue.enqueue('bench_once', :payload, options => jsonb_build_object('unique_key', {KEY}));\n", False),
    "unique index": (f"INSERT INTO bench_unique (key, payload) VALUES ({KEY}, :payload) ON CONFLICT DO NOTHING;\n", False),
    "remembered, 0 %": (PLAIN, True),
    "remembered": (KEYED, True),
}
COLUMNS = ["rate"]
TABLE = (list(LINES), COLUMNS)
UNITS = "messages a second"
METRICS = {f"{line} rate": f"{line}, messages/s" for line in LINES}
METRICS["batches"] = "batches of 1,000 with keys, messages/s"
METRICS["plain batches"] = "batches of 1,000 without, messages/s"
GOALS = [
    Goal("all with a key, beside none", ("queue", "100 % rate"), ">=", 0.5, ("queue", "0 % rate")),
    Goal("a unique index on a table, beside all with a key", ("queue", "100 % rate"), ">=", 0.9, ("queue", "unique index rate"), shown=True),
    Goal("10,000,000 remembered, without a key, beside none", ("queue", "remembered, 0 % rate"), ">=", 0.95, ("queue", "0 % rate")),
    Goal("10,000,000 remembered, with a key, beside few", ("queue", "remembered rate"), ">=", 0.7, ("queue", "100 % rate"), shown=True),
    Goal("batches with keys, beside without", ("queue", "batches"), ">=", 0.2, ("queue", "plain batches"), shown=True),
]
CLIENTS = 16
BATCH_CLIENTS = 4
BATCHES = 25


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, measure, turn)


def create(server):
    server.execute("SELECT queue.create('bench_once')")
    server.execute("CREATE TABLE bench_unique (id bigint GENERATED ALWAYS AS IDENTITY, key text, payload jsonb)")
    server.execute("CREATE UNIQUE INDEX ON bench_unique (key)")


def drop(server):
    server.execute("SELECT queue.drop('bench_once', true)")
    server.execute("DROP TABLE bench_unique")


def forget(server):
    server.execute("TRUNCATE queue._seen_5min_1, queue._seen_5min_2, queue._seen_5min_3, queue._unique_key")


def remember(server, keys):
    server.rows("INSERT INTO queue._seen_5min_1 SELECT gen_random_uuid(), n, now() FROM generate_series(1, %s) n", keys)
    server.execute("VACUUM (ANALYZE) queue._seen_5min_1")
    server.execute("CHECKPOINT")


def batches(server, contender, keys):
    """Messages a second in batches, with a new key each or none."""
    more = ", dedup_keys => ARRAY(SELECT gen_random_uuid()::text FROM generate_series(1, 1000))" if keys else ""
    load = server.pgbench(f"SELECT cardinality(queue.enqueue_batch('bench_once', array_fill(:payload::jsonb, ARRAY[1000]){more}));\n",
                          BATCH_CLIENTS, None, BATCHES, payload=contender.payload)
    return load.transactions * 1000 / load.seconds


def measure(contender, turn):
    server = turn.server
    keys = 100_000 if turn.options.quick else 10_000_000
    try:
        for repetition in range(turn.options.reps):
            for line, (script, remembered) in LINES.items():
                forget(server)
                create(server)
                if remembered:
                    remember(server, keys)
                turn.settle()
                load = server.pgbench(script, CLIENTS, turn.options.seconds, payload=contender.payload)
                turn.add(repetition, contender, f"{line} rate", load.transactions / load.seconds, "messages/s", CLIENTS)
                drop(server)
            forget(server)
            create(server)
            for metric, with_keys in (("plain batches", False), ("batches", True)):
                turn.add(repetition, contender, metric, batches(server, contender, with_keys), "messages/s", BATCH_CLIENTS)
            drop(server)
    finally:
        if server.value("SELECT to_regclass('queues.bench_once') IS NOT NULL"):
            drop(server)
        forget(server)
