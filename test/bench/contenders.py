"""Who is measured. Each contender does the same jobs in its own best way.

A contender has: create and drop; fill (append messages in bulk); left (how
many messages wait); tidy (what a good administrator has done before: vacuum,
fresh statistics); and pgbench scripts. The payload reaches the client in each
of them. A script that may find nothing says so instead of failing.

All tables carry the payload as jsonb, PgQ as text, which is its own type.
"""

import json
import os

NAME = "bench"
FILL_BATCH = 1000


def payload_of(size):
    """A JSON document of exactly this many bytes."""
    document = {"order_id": 4711, "customer": "c-1000", "note": ""}
    spare = size - len(json.dumps(document))
    if spare < 0:
        raise SystemExit(f"a payload has at least {size - spare} bytes")
    document["note"] = "x" * spare
    return json.dumps(document)


# A client's first transaction fetches the batch, which is sent as a parameter from then on.
LOAD_BATCH = r"""\if :loaded = 0
SELECT payloads FROM bench_batch WHERE kind = '{kind}' \gset
\set loaded 1
\endif
"""


class Contender:
    name = ""
    title = ""
    batch_kind = "jsonb"
    table = None

    def __init__(self, server, options):
        self.server = server
        self.payload = payload_of(options.payload)

    def missing(self):
        """Why this contender cannot take part, or None."""
        return None

    def install(self):
        pass

    def create(self):
        raise NotImplementedError

    def drop(self):
        raise NotImplementedError

    def reset(self):
        self.drop()
        self.create()

    def fill(self, count):
        raise NotImplementedError

    def left(self):
        return self.server.value(f"SELECT count(*) FROM {self.table}")

    def tidy(self):
        self.server.execute(f"VACUUM (ANALYZE) {self.table}")

    def ready(self, count):
        """Sees to it that at least this many messages wait."""
        missing = count - self.left()
        if missing > 0:
            self.fill(missing)
        self.tidy()

    def variables(self, clients):
        return {}

    def batch_script(self, statement):
        return LOAD_BATCH.format(kind=self.batch_kind) + statement

    def made_script(self, statement):
        """The same statement with an array that the server makes: no parsing of a parameter."""
        made = f"array_fill(:payload::{self.batch_kind}, ARRAY[{FILL_BATCH}])"
        return statement.replace(":payloads", made)


class Queue(Contender):
    name = "queue"
    title = "queue (this extension)"
    table = f"queues.{NAME}"

    def missing(self):
        # pg_available_extensions does not look into a private installation.
        built = os.path.isdir(os.path.join(self.server.work, "install"))
        return None if built else "it was not built"

    def install(self):
        self.server.execute("CREATE EXTENSION IF NOT EXISTS queue")

    def create(self):
        self.server.execute(f"SELECT queue.create('{NAME}')")

    def drop(self):
        if self.server.value("SELECT to_regclass(%s) IS NOT NULL", self.table):
            self.server.execute(f"SELECT queue.drop('{NAME}', true)")

    def fill(self, count):
        for done in range(0, count, FILL_BATCH * 100):
            self.server.rows(
                f"SELECT count(queue.enqueue_batch('{NAME}', array_fill(%s::jsonb, ARRAY[{FILL_BATCH}])))"
                " FROM generate_series(1, %s)",
                self.payload,
                min(100, -(-(count - done) // FILL_BATCH)),
            )

    def tidy(self):
        pass

    enqueue = f"SELECT queue.enqueue('{NAME}', :payload);\n"
    enqueue_many = f"SELECT queue.enqueue_batch('{NAME}', :payloads);\n"

    def consume(self, batch):
        if batch == 1:
            return rf"""\set id 0
SELECT * FROM queue.dequeue('{NAME}') \aset
\if :id > 0
SELECT queue.ack(:receipt);
\endif
"""
        return rf"""SELECT count(*) AS n, array_agg(receipt) AS receipts, string_agg(payload::text, '') AS payloads
 FROM queue.dequeue('{NAME}', {batch}) \gset
\if :n > 0
SELECT queue.ack_batch(:receipts);
\endif
"""


class QueuePop(Queue):
    name = "queue.pop"
    title = "queue.pop, one statement"

    def consume(self, batch):
        if batch == 1:
            return f"SELECT * FROM queue.pop('{NAME}', 1);\n"
        return (
            "SELECT count(*) AS n, string_agg(payload::text, '') AS payloads"
            f" FROM queue.pop('{NAME}', {batch});\n"
        )


class Plain(Contender):
    """The limit: a table without an index, with one identity column."""

    name = "plain"
    title = "the limit (table without index)"
    table = "bench_plain"

    def create(self):
        self.server.execute(
            f"CREATE TABLE {self.table} (id bigint GENERATED ALWAYS AS IDENTITY, payload jsonb)"
        )

    def drop(self):
        self.server.execute(f"DROP TABLE IF EXISTS {self.table}")

    def fill(self, count):
        self.server.rows(
            f"INSERT INTO {self.table} (payload) SELECT %s::jsonb FROM generate_series(1, %s)",
            self.payload,
            count,
        )

    def ready(self, count):
        # Rows go by address: the table must be fresh and full.
        self.reset()
        self.fill(count)
        self.left()

    enqueue = f"INSERT INTO {table} (payload) VALUES (:payload);\n"
    enqueue_many = f"INSERT INTO {table} (payload) SELECT unnest(:payloads::jsonb[]);\n"

    def variables(self, clients):
        """Each client deletes the rows of its own pages."""
        pages = self.server.value("SELECT pg_relation_size(%s) / 8192", self.table)
        per_page = self.server.value(
            f"SELECT max((ctid::text::point)[1])::int FROM {self.table} WHERE ctid < '(1,0)'"
        )
        return {"n": 0, "pages": max(1, pages // clients), "per_page": per_page}

    def consume(self, batch):
        if batch != 1:
            raise NotImplementedError
        return rf"""\set page :client_id * :pages + (:n / :per_page) % :pages
\set line 1 + :n % :per_page
\set n :n + 1
DELETE FROM {self.table} WHERE ctid = ('(' || :page || ',' || :line || ')')::tid;
"""


class SkipLocked(Contender):
    """A lease by UPDATE, an ack by DELETE; ready rows in a partial index."""

    name = "skiplocked"
    title = "SKIP LOCKED table, lease + delete"
    table = "bench_job"

    def create(self):
        self.server.execute(
            f"""CREATE TABLE {self.table} (
                id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
                enqueued_at timestamptz NOT NULL DEFAULT now(),
                lease_until timestamptz,
                attempts int NOT NULL DEFAULT 0,
                payload jsonb)
                WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
                      autovacuum_vacuum_cost_delay = 0)""",
            f"CREATE INDEX ON {self.table} (id) WHERE lease_until IS NULL",
        )

    def drop(self):
        self.server.execute(f"DROP TABLE IF EXISTS {self.table}")

    fill = Plain.fill

    enqueue = f"INSERT INTO {table} (payload) VALUES (:payload) RETURNING id;\n"
    enqueue_many = f"INSERT INTO {table} (payload) SELECT unnest(:payloads::jsonb[]) RETURNING id;\n"

    def consume(self, batch):
        # The array makes the planner walk the partial index once, then the primary key.
        lease = f"""UPDATE {self.table} SET lease_until = now() + interval '30 s', attempts = attempts + 1
 WHERE id = ANY (ARRAY(SELECT id FROM {self.table} WHERE lease_until IS NULL
 ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED))
 RETURNING id, enqueued_at, lease_until, attempts, payload"""
        if batch == 1:
            return rf"""\set id 0
{lease} \aset
\if :id > 0
DELETE FROM {self.table} WHERE id = :id AND attempts = :attempts;
\endif
"""
        return rf"""WITH m AS ({lease})
SELECT count(*) AS n, array_agg(id) AS ids, string_agg(payload::text, '') AS payloads FROM m \gset
\if :n > 0
DELETE FROM {self.table} WHERE id = ANY (:ids::bigint[]);
\endif
"""


class SkipLockedDelete(SkipLocked):
    """DELETE ... RETURNING in one statement: no lease outlives the transaction."""

    name = "skiplocked.delete"
    title = "SKIP LOCKED table, DELETE RETURNING, one statement"
    table = "bench_job_delete"

    def consume(self, batch):
        take = f"""DELETE FROM {self.table} WHERE id = ANY (ARRAY(SELECT id FROM {self.table}
 WHERE lease_until IS NULL ORDER BY id LIMIT {batch} FOR UPDATE SKIP LOCKED)) RETURNING *"""
        if batch == 1:
            return f"{take};\n"
        return f"""WITH m AS ({take})
SELECT count(*) AS n, string_agg(payload::text, '') AS payloads FROM m;
"""


class Pgq(Contender):
    """PgQ gives a consumer whole batches; one consumer works alone on a queue.

    So n clients get n queues. The bench ticks after each batch of the size it
    wants to read.
    """

    name = "pgq"
    title = "PgQ"
    batch_kind = "text"
    queues = 4

    def missing(self):
        if not self.server.rows("SELECT 1 FROM pg_available_extensions WHERE name = 'pgq'"):
            return "postgresql-NN-pgq3 is not installed"
        return None

    def install(self):
        self.server.execute("CREATE EXTENSION IF NOT EXISTS pgq")

    def create(self):
        self.batch = 100
        for number in range(self.queues):
            queue = f"{NAME}{number}"
            self.server.execute(
                f"SELECT pgq.create_queue('{queue}')",
                f"SELECT pgq.set_queue_config('{queue}', 'ticker_max_count', '1')",
                f"SELECT pgq.set_queue_config('{queue}', 'ticker_max_lag', '0')",
                f"SELECT pgq.register_consumer('{queue}', 'bench')",
            )

    def drop(self):
        self.server.execute("SELECT pgq.drop_queue(queue_name, true) FROM pgq.get_queue_info()")

    def fill(self, count):
        script = f"""SELECT count(pgq.insert_event('{NAME}' || :client_id, 'bench', :payload))
 FROM generate_series(1, {self.batch});
SELECT pgq.ticker('{NAME}' || :client_id);
"""
        times = -(-count // self.queues // self.batch)
        self.server.pgbench(script, self.queues, transactions=times, payload=self.payload)

    def left(self):
        return self.server.value(
            """SELECT coalesce(sum(pgq.seq_getval(q.queue_event_seq) - t.tick_event_seq), 0)::bigint
            FROM pgq.queue q JOIN pgq.subscription s ON s.sub_queue = q.queue_id
            JOIN pgq.tick t ON t.tick_queue = s.sub_queue AND t.tick_id = s.sub_last_tick"""
        )

    def tidy(self):
        self.server.execute("VACUUM (ANALYZE) pgq.tick", "VACUUM (ANALYZE) pgq.subscription")
        for (table,) in self.server.rows("SELECT queue_data_pfx || '_' || queue_cur_table FROM pgq.queue"):
            self.server.execute(f"VACUUM (ANALYZE) {table}")

    enqueue = f"SELECT pgq.insert_event('{NAME}0', 'bench', :payload);\n"
    enqueue_many = (
        f"SELECT count(pgq.insert_event('{NAME}0', 'bench', d)) FROM unnest(:payloads::text[]) d;\n"
    )

    def consume(self, batch):
        return rf"""BEGIN;
SELECT coalesce(pgq.next_batch('{NAME}' || :client_id, 'bench'), 0) AS batch \gset
\if :batch > 0
SELECT count(*) AS n, string_agg(ev_data, '') AS payloads FROM pgq.get_batch_events(:batch) \gset
SELECT pgq.finish_batch(:batch);
\endif
COMMIT;
"""


class PgqLarge(Pgq):
    name = "pgq.1000"
    title = "PgQ, ticks of 1000 events"

    def create(self):
        super().create()
        self.batch = 1000


class Pgmq(Contender):
    name = "pgmq"
    title = "pgmq"
    table = f"pgmq.q_{NAME}"

    def __init__(self, server, options):
        super().__init__(server, options)
        self.script = options.pgmq

    def missing(self):
        return None if self.script else "no --pgmq PATH given"

    def install(self):
        if self.server.value("SELECT to_regprocedure('pgmq.create(text)') IS NULL"):
            with open(self.script) as file:
                lines = [line for line in file if "pg_extension_config_dump" not in line]
            self.server.execute("CREATE SCHEMA IF NOT EXISTS pgmq", "".join(lines))

    def create(self):
        self.server.execute(f"SELECT pgmq.create('{NAME}')")

    def drop(self):
        if self.server.value("SELECT to_regclass(%s) IS NOT NULL", self.table):
            self.server.execute(f"SELECT pgmq.drop_queue('{NAME}')")

    def fill(self, count):
        self.server.rows(
            "SELECT count(*) FROM (SELECT pgmq.send_batch"
            f"('{NAME}', array_fill(%s::jsonb, ARRAY[{FILL_BATCH}])) FROM generate_series(1, %s)) s",
            self.payload,
            -(-count // FILL_BATCH),
        )

    enqueue = f"SELECT pgmq.send('{NAME}', :payload::jsonb);\n"
    enqueue_many = f"SELECT pgmq.send_batch('{NAME}', :payloads::jsonb[]);\n"

    def consume(self, batch):
        if batch == 1:
            return rf"""\set msg_id 0
SELECT * FROM pgmq.read('{NAME}', 30, 1) \aset
\if :msg_id > 0
SELECT pgmq.delete('{NAME}', :msg_id::bigint);
\endif
"""
        return rf"""SELECT count(*) AS n, array_agg(msg_id) AS ids, string_agg(message::text, '') AS payloads
 FROM pgmq.read('{NAME}', 30, {batch}) \gset
\if :n > 0
SELECT pgmq.delete('{NAME}', :ids::bigint[]);
\endif
"""


ALL = [Queue, QueuePop, Plain, SkipLocked, SkipLockedDelete, Pgq, PgqLarge, Pgmq]
