"""Statements that are timed one by one, over one connection.

A probe is a queue of a contender's kind under a name of its own, so that an
empty one and one with a backlog stand side by side and take turns. The client
adds the same little time to each.
"""

import gc
import time
from contextlib import contextmanager
from dataclasses import dataclass

CHUNK = 100_000
SAMPLE = 1000


@dataclass(frozen=True)
class Way:
    """SQL with {q} for the probe's name. fill takes payload and count, and returns one id of a thousand."""

    create: str
    drop: str
    fill: str
    put: str
    take: str
    done: str
    cancel: str
    tidy: str = ""
    fill_delayed: str = ""


WAYS = {
    "queue": Way(
        create="SELECT queue.create('{q}')",
        drop="SELECT queue.drop('{q}', true)",
        fill="""SELECT (queue.enqueue_batch('{q}', array_fill(%s::jsonb, ARRAY[1000])))[500]
            FROM generate_series(1, %s / 1000)""",
        fill_delayed="""SELECT (queue.enqueue_batch('{q}', array_fill(%s::jsonb, ARRAY[1000]), delay => '1 day'))[500]
            FROM generate_series(1, %s / 1000)""",
        put="put(jsonb) AS SELECT queue.enqueue('{q}', $1)",
        take="take AS SELECT receipt, payload FROM queue.dequeue('{q}')",
        done="done(uuid) AS SELECT queue.ack($1)",
        cancel="cancel(bigint) AS SELECT queue.cancel('{q}', $1)",
    ),
    "skiplocked": Way(
        create="""CREATE TABLE {q} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            enqueued_at timestamptz NOT NULL DEFAULT now(), lease_until timestamptz,
            attempts int NOT NULL DEFAULT 0, payload jsonb);
            CREATE INDEX ON {q} (id) WHERE lease_until IS NULL""",
        drop="DROP TABLE {q}",
        fill="""WITH m AS (INSERT INTO {q} (payload) SELECT %s::jsonb FROM generate_series(1, %s) RETURNING id)
            SELECT id FROM m WHERE id %% 1000 = 500""",
        put="put(jsonb) AS INSERT INTO {q} (payload) VALUES ($1) RETURNING id",
        take="""take AS UPDATE {q} SET lease_until = now() + interval '30 s', attempts = attempts + 1
            WHERE id = ANY (ARRAY(SELECT id FROM {q} WHERE lease_until IS NULL
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)) RETURNING id, payload""",
        done="done(bigint) AS DELETE FROM {q} WHERE id = $1",
        cancel="cancel(bigint) AS DELETE FROM {q} WHERE id = $1 AND lease_until IS NULL RETURNING true",
        tidy="VACUUM (ANALYZE) {q}",
    ),
    "pgmq": Way(
        create="SELECT pgmq.create('{q}')",
        drop="SELECT pgmq.drop_queue('{q}')",
        fill="""SELECT min(id) FROM (SELECT n, pgmq.send_batch('{q}', array_fill(%s::jsonb, ARRAY[1000])) AS id
            FROM generate_series(1, %s / 1000) n) s GROUP BY n""",
        fill_delayed="""SELECT min(id) FROM (SELECT n,
            pgmq.send_batch('{q}', array_fill(%s::jsonb, ARRAY[1000]), 86400) AS id
            FROM generate_series(1, %s / 1000) n) s GROUP BY n""",
        put="put(jsonb) AS SELECT pgmq.send('{q}', $1)",
        take="take AS SELECT msg_id, message FROM pgmq.read('{q}', 30, 1)",
        done="done(bigint) AS SELECT pgmq.delete('{q}', $1)",
        cancel="cancel(bigint) AS SELECT pgmq.delete('{q}', $1)",
        tidy="VACUUM (ANALYZE) pgmq.q_{q}",
    ),
}


class Probe:
    def __init__(self, server, contender, name):
        self.server = server
        self.way = WAYS[contender.name]
        self.payload = contender.payload
        self.name = name
        self.ids = []
        server.execute(self.way.create.format(q=name))
        for statement in ("put", "take", "done", "cancel"):
            server.execute("PREPARE " + getattr(self.way, statement).format(q=name).replace(statement, f"{name}_{statement}", 1))

    def drop(self):
        for statement in ("put", "take", "done", "cancel"):
            self.server.execute(f"DEALLOCATE {self.name}_{statement}")
        self.server.execute(self.way.drop.format(q=self.name))

    def fill(self, count, delayed=False):
        """count messages more, due at once or in a day."""
        statement = (self.way.fill_delayed if delayed else self.way.fill).format(q=self.name)
        for done in range(0, count, CHUNK):
            rows = self.server.rows(statement, self.payload, -(-min(CHUNK, count - done) // SAMPLE) * SAMPLE)
            self.ids += [row[0] for row in rows]
        if self.way.tidy:
            self.server.execute(self.way.tidy.format(q=self.name))

    def put(self):
        """Stores one message; its id."""
        return self.server.value(f"EXECUTE {self.name}_put(%s)", self.payload)

    def take(self):
        """Microseconds to lease one message, which is settled afterwards."""
        start = time.perf_counter()
        rows = self.server.rows(f"EXECUTE {self.name}_take")
        spent = (time.perf_counter() - start) * 1e6
        if not rows:
            raise RuntimeError(f"{self.name} had a message, and gave none")
        self.server.rows(f"EXECUTE {self.name}_done(%s)", rows[0][0])
        return spent

    def cancel(self, number):
        """Microseconds to cancel the message of this id."""
        start = time.perf_counter()
        rows = self.server.rows(f"EXECUTE {self.name}_cancel(%s)", number)
        spent = (time.perf_counter() - start) * 1e6
        if rows != [(True,)]:
            raise RuntimeError(f"message {number} of {self.name} was not cancelled")
        return spent


@contextmanager
def probes(server, contender, *names):
    """Probes of these names, gone at the end; the client does not collect garbage meanwhile."""
    made = []
    gc.disable()
    try:
        for name in names:
            made.append(Probe(server, contender, name))
        yield made
    finally:
        gc.enable()
        for probe in made:
            probe.drop()
