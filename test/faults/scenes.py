"""
scenes.py
	What is done while something fails: a scene for each operation.

	A scene says what it prepares, the statements that are tried, and the tags
	of the messages that its queues have before and after them (None: there is
	no such queue). Statements run in one transaction with a row of their own,
	which tells what became of it when the connection was lost at its end.

	A scene of the worker prepares, triggers, and knows when the worker has
	done its part; a fault may delay that and change nothing else.
"""

import time

import psycopg2
import psycopg2.extras

from harness import TAG, Aside, Control, Failure, noise

Json = psycopg2.extras.Json

# Retried at once and for ever; a scene that wants otherwise says so.
PLAIN = {"backoff": "none", "max_attempts": 0, "segment_size": "256kB", "dead_letter": ""}
MORTAL = {"mortal": {"max_attempts": 1, "dead_letter": None}, "mortal_dead": {}}

# What can be dequeued now, whoever writes its failure meanwhile; x has expired.
AT_REST = ("SELECT " + TAG + " FROM queues.\"%s\" WHERE state NOT IN ('leased', 'delayed') "
           "AND right(payload->>'t', 2) IS DISTINCT FROM '.x'")


class Scene:
    name = ""
    queues = {"plain": {}}          # name: options that differ from PLAIN
    forgives = False                # errors are caught inside
    slow = False                    # not for --quick
    fresh = False                   # each try in a session that knows nothing yet
    messages = ()                   # tags that the first queue begins with
    leased = False                  # the session has leases of them

    def begin(self, stage):
        for queue, options in self.queues.items():
            if not stage.exists(queue):
                stage.helper("SELECT queue.create(%s, %s)", queue, Json(dict(PLAIN, **options)))
            elif queue.endswith("_dead"):
                stage.helper("SELECT queue.alter(%s, '{\"backoff\": \"none\"}')", queue)

    @property
    def queue(self):
        return next(iter(self.queues))

    def prepare(self, stage):
        """By the helper, or by the session under test before it is armed."""
        if self.fresh:
            stage.renew_subject()
        stage.enqueue(self.queue, *self.messages)
        self.receipts = [row[1] for row in stage.lease(self.queue, len(self.messages))] if self.leased else []

    def statements(self, stage):
        """Tuples of text and arguments."""
        raise NotImplementedError

    def play(self, stage):
        subject = stage.subject
        subject("BEGIN")
        subject("INSERT INTO faults.mark VALUES (%s)", stage.run)
        for text, *arguments in self.statements(stage):
            subject(text, *arguments)
        subject("COMMIT")

    def before(self):
        return {queue: list(self.messages) if queue == self.queue else [] for queue in self.queues}

    def after(self):
        return self.before()

    def facts(self, stage, done):
        """Whatever else must hold."""

    def cleanup(self, stage, strict=True):
        """Nothing may be left; what nobody holds can be dequeued."""
        stage.let_worker_go()
        for queue in self.queues:
            if not stage.exists(queue):
                continue
            free = sorted(stage.helper.column(AT_REST % queue))
            # A crash puts the clock back, and what has expired has not.
            drained = [tag for tag in stage.drain(queue, free) if not tag.endswith(".x")]
            if strict and drained != free:
                raise Failure("of %s in %s can be dequeued %s" % (free, queue, drained))
            # What the worker is writing just now is not seen by a purge.
            if stage.eventually(lambda name=queue: stage.purge(name) or stage.rows(name)) and strict:
                raise Failure("after a purge there are %s in %s" % (stage.rows(queue), queue))


# ----- producing

class Enqueue(Scene):
    name = "enqueue"

    def statements(self, stage):
        yield "SELECT queue.enqueue('plain', %s)", Json({"t": stage.tag("a")})

    def after(self):
        return {"plain": ["a"]}


class EnqueueFresh(Enqueue):
    name = "enqueue, new session"
    fresh = True


class EnqueueForgotten(Enqueue):
    name = "enqueue, queue unknown"
    fresh = True

    def prepare(self, stage):
        super().prepare(stage)
        stage.forget("plain")


class EnqueueOptions(Enqueue):
    name = "enqueue with all options"

    def statements(self, stage):
        yield ("SELECT queue.enqueue('plain', %s, key => 'k', headers => '{\"h\": 1}', delay => '1 hour', "
               "ttl => '2 hours', options => '{\"max_attempts\": 3}')", Json({"t": stage.tag("a")}))
        yield ("SELECT * FROM queue.enqueue_unique('plain', %s, deliver_at => now() + interval '1 hour')",
               Json({"t": stage.tag("b")}))

    def after(self):
        return {"plain": ["a", "b"]}


class EnqueueBatch(Enqueue):
    name = "enqueue_batch"

    def statements(self, stage):
        payloads = [Json({"t": stage.tag(tag)}) for tag in "abc"]
        yield ("SELECT queue.enqueue_batch('plain', %s::jsonb[], keys => ARRAY['x', 'y', NULL], "
               "headers => ARRAY['{\"h\": 1}', NULL, NULL]::jsonb[], delay => '0')", payloads)

    def after(self):
        return {"plain": ["a", "b", "c"]}


class EnqueueOnce(Enqueue):
    name = "enqueue once"

    def statements(self, stage):
        key = stage.tag("d")
        for tag in "ax":
            yield "SELECT * FROM queue.enqueue_unique('plain', %s, dedup_key => %s)", Json({"t": stage.tag(tag)}), key
        for tag in "bc":
            yield ("SELECT queue.enqueue('plain', %s, options => jsonb_build_object('unique_key', %s::text, "
                   "'on_conflict', 'replace'))", Json({"t": stage.tag(tag)}), key)
        payloads = [Json({"t": stage.tag(tag)}) for tag in "ef"]
        yield ("SELECT queue.enqueue_batch('plain', %s::jsonb[], dedup_keys => %s)", payloads,
               [stage.tag("e"), stage.tag("e")])
        yield "SELECT queue.once('faults', %s)", key

    def after(self):
        return {"plain": ["a", "c", "e"]}


class EnqueueBytes(Enqueue):
    name = "enqueue_bytes"

    def statements(self, stage):
        yield "SELECT queue.enqueue_bytes('plain', 'x')",
        yield "SELECT queue.enqueue_bytes_batch('plain', ARRAY['y', 'z']::bytea[])",

    def after(self):
        return {"plain": [None, None, None]}


class EnqueueToast(Enqueue):
    name = "enqueue out of line"

    def statements(self, stage):
        yield "SELECT queue.enqueue('plain', %s)", Json({"t": stage.tag("a"), "pad": noise(60000)})


class Insert(Enqueue):
    name = "INSERT into the view"

    def statements(self, stage):
        yield ("INSERT INTO queues.plain (payload, key, headers, delay, ttl, options) VALUES "
               "(%s, 'k', '{\"h\": 1}', '1 hour', '2 hours', '{\"max_attempts\": 2}') RETURNING id, state",
               Json({"t": stage.tag("a")}))


class Copy(Enqueue):
    name = "COPY into the view"

    def play(self, stage):
        stage.subject("BEGIN")
        stage.subject("INSERT INTO faults.mark VALUES (%s)", stage.run)
        stage.subject.copy("COPY queues.plain (payload) FROM STDIN",
                           "".join('{"t": "%s"}\n' % stage.tag(tag) for tag in "ab"))
        stage.subject("COMMIT")

    def after(self):
        return {"plain": ["a", "b"]}


class Restore(Enqueue):
    name = "rows of a restore"

    def prepare(self, stage):
        self.segment = stage.helper.one("SELECT segment::text FROM queue.segments WHERE queue = 'plain' AND "
                                        "state = 'active'")

    def statements(self, stage):
        yield ("INSERT INTO %s (id, enqueued_at, payload) VALUES (nextval('queue.message_id'), now(), %%s)" % self.segment,
               Json({"t": stage.tag("a")}))

    def facts(self, stage, done):
        if done:
            stage.until("the row to be found", lambda: stage.helper(
                "SELECT 1 FROM queue.stats WHERE queue = 'plain' AND exact AND ready = 1"))


class RollOver(Enqueue):
    name = "enqueue, segment full"
    queues = {"small": {"segment_size": "64kB"}}
    statements_of = "SELECT queue.enqueue('small', %s)"

    def prepare(self, stage):
        def ready():
            active, reserve = stage.helper("SELECT max(size) FILTER (WHERE state = 'active'), "
                                           "count(*) FILTER (WHERE state = 'reserve') "
                                           "FROM queue.segments WHERE queue = 'small'")[0]
            if active < 65536 or reserve == 0:
                stage.enqueue("small", "filling", size=7000)
            return active >= 65536 and reserve > 0
        stage.until("a full segment and a reserve", ready)
        stage.drain("small", [])

    def statements(self, stage):
        yield "SELECT queue.enqueue('small', %s)", Json({"t": stage.tag("a")})

    def after(self):
        return {"small": ["a"]}


# ----- consuming

class Dequeue(Scene):
    name = "dequeue"
    messages = ("a", "b")

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('plain', 10, options => '{\"consumer\": \"c\"}')",


class DequeueFresh(Dequeue):
    name = "dequeue, new session"
    fresh = True


class DequeueForgotten(Dequeue):
    name = "dequeue, queue unknown"
    fresh = True

    def prepare(self, stage):
        super().prepare(stage)
        stage.forget("plain")


class DequeueInTurns(Scene):
    """Keys take turns, and the page is not due for what waits for its own."""
    name = "dequeue, fair share"
    queues = {"fair": {"fair_share": True}}
    messages = ("a", "b", "c")

    def prepare(self, stage):
        for key, tag in zip("yxyx", ("p",) + self.messages):
            stage.enqueue("fair", tag, key=key)
        stage.helper("SELECT queue.ack(receipt) FROM queue.dequeue('fair')")

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('fair', 2)",


class DequeueAlone(Dequeue):
    """Its lease outlives the statement, so a fault after the claim is the one that gives it back."""
    name = "dequeue without a transaction"

    def play(self, stage):
        stage.subject("SELECT * FROM queue.dequeue('plain', 10)")


class DequeueToast(Dequeue):
    name = "dequeue out of line"

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages, size=60000)


class DequeueSegments(Dequeue):
    name = "dequeue from several segments"
    queues = {"small": {"segment_size": "64kB"}}
    messages = tuple("m%02d" % i for i in range(20))

    def prepare(self, stage):
        stage.enqueue("small", *self.messages, size=7000)

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('small', 100)",


class DequeueEmpty(Scene):
    name = "dequeue that waits in vain"

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('plain', wait => '15 ms')",


class DequeueExpiredLease(Dequeue):
    name = "dequeue after a lease ran out"

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages)
        stage.hold_worker("plain")
        stage.lease("plain", 2, lease="10 s")
        stage.advance("20 s")

    def play(self, stage):
        super().play(stage)
        stage.let_worker_go()


class DequeueCooling(Dequeue):
    name = "dequeue what cools"

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages)
        stage.hold_worker("plain")
        stage.subject("BEGIN")
        stage.lease("plain", 2)
        stage.subject("SELECT 1")
        stage.subject("ROLLBACK")

    def play(self, stage):
        super().play(stage)
        stage.let_worker_go()


class DequeueExpired(Scene):
    name = "dequeue meets an expired message"
    queues = {"brief": {"on_expiry": "drop"}}
    messages = ("a", "b")

    def prepare(self, stage):
        stage.enqueue("brief", "x", ttl="1 s")
        stage.enqueue("brief", *self.messages)
        stage.hold_worker("brief")
        stage.advance("2 s")

    def play(self, stage):
        super().play(stage)
        stage.let_worker_go()

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('brief', 10)",

    def compared(self, stage, rows):
        """The expired one goes some time or other."""
        return [row for row in rows if not row.endswith(".x")]


class DequeueLast(Scene):
    """An error after the claim is the message's only attempt; a cancel or an end is none."""
    name = "dequeue, last attempt"
    queues = MORTAL
    messages = ("a",)

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('mortal')",

    def expected(self, stage, done):
        return [[], ["a"]]

    def facts(self, stage, done):
        stage.until("what cools to be written", lambda: not stage.helper(
            "SELECT 1 FROM queue.leases WHERE state IN ('cooling', 'dead')"))
        found = stage.rows("mortal") + stage.rows("mortal_dead")
        if found != [stage.tag("a")]:
            raise Failure("the two queues have %s" % found)


class Pop(Scene):
    name = "pop"
    messages = ("a", "b")

    def statements(self, stage):
        yield "SELECT * FROM queue.pop('plain', 10)",

    def after(self):
        return {"plain": []}


class RolledBack(Scene):
    name = "rollback"
    messages = ("a", "b", "c")

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages)
        self.receipts = [row[1] for row in stage.lease("plain", 2)]

    def play(self, stage):
        subject = stage.subject
        subject("BEGIN")
        subject("SELECT queue.ack(%s)", self.receipts[0])
        subject("SELECT queue.nack(%s)", self.receipts[1])
        subject("SELECT * FROM queue.dequeue('plain')")
        subject("SELECT queue.enqueue('plain', '{}')")
        subject("ROLLBACK")


class Wait(Scene):
    name = "CALL wait, nothing comes"

    def play(self, stage):
        stage.subject("CALL queue.wait('plain', '15 ms')")


class WaitReady(Wait):
    name = "CALL wait, something is there"
    messages = ("a",)


class WaitPaused(Wait):
    name = "CALL wait, paused"

    def prepare(self, stage):
        stage.helper("SELECT queue.pause('plain')")

    def cleanup(self, stage, strict=True):
        stage.helper("SELECT queue.resume('plain')")
        super().cleanup(stage, strict)


# ----- settling

class Settle(Scene):
    messages = ("a", "b")
    leased = True

    def after(self):
        return {"plain": []}


class Ack(Settle):
    name = "ack"

    def statements(self, stage):
        yield "SELECT queue.ack(%s)", self.receipts[0]

    def after(self):
        return {"plain": ["b"]}


class AckFresh(Ack):
    name = "ack, new session"

    def prepare(self, stage):
        super().prepare(stage)
        stage.renew_subject()


class AckUnique(Ack):
    name = "ack of a message with a unique key"

    def prepare(self, stage):
        for tag in self.messages:
            stage.helper("SELECT queue.enqueue('plain', %s, options => jsonb_build_object('unique_key', %s::text))",
                         Json({"t": stage.tag(tag)}), tag)
        self.receipts = [row[1] for row in stage.lease("plain", len(self.messages))]

    def facts(self, stage, done):
        held = stage.helper.one("SELECT count(*) FROM queue._unique_key")
        if held != (1 if done else 2):
            raise Failure("%d unique keys are held" % held)


class AckBatch(Settle):
    name = "ack_batch"

    def statements(self, stage):
        yield "SELECT queue.ack_batch(%s::uuid[])", self.receipts


class TryAck(Settle):
    name = "try_ack"

    def statements(self, stage):
        yield "SELECT * FROM queue.try_ack(%s::uuid[])", self.receipts


class AckToast(Ack):
    name = "ack out of line"

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages, size=60000)
        self.receipts = [row[1] for row in stage.lease("plain", 2)]


class Nack(Settle):
    name = "nack"
    messages = ("a",)

    def statements(self, stage):
        yield "SELECT queue.nack(%s, 'because')", self.receipts[0]

    def after(self):
        return self.before()

    def facts(self, stage, done):
        failures = stage.helper.one("SELECT failures FROM queues.plain")
        if failures != (1 if done else 0):
            raise Failure("the message has %d failures" % failures)


class NackToast(Nack):
    name = "nack out of line"

    def prepare(self, stage):
        stage.enqueue("plain", "a", size=60000)
        self.receipts = [row[1] for row in stage.lease("plain")]


class NackBatch(Nack):
    name = "nack_batch"

    def statements(self, stage):
        yield "SELECT * FROM queue.nack_batch(%s::uuid[], 'because', '0')", self.receipts


class NackDead(Settle):
    name = "nack at the limit"
    queues = MORTAL

    def statements(self, stage):
        yield "SELECT queue.nack(%s, 'because')", self.receipts[0]

    def after(self):
        return {"mortal": ["b"], "mortal_dead": ["a"]}


class Reject(NackDead):
    name = "reject"

    def statements(self, stage):
        yield "SELECT queue.reject(%s, 'because')", self.receipts[0]


class RejectAgain(Scene):
    name = "reject a dead message"
    queues = MORTAL

    def prepare(self, stage):
        stage.enqueue("mortal_dead", "a")
        self.receipts = [row[1] for row in stage.lease("mortal_dead")]

    def statements(self, stage):
        yield "SELECT queue.reject(%s)", self.receipts[0]

    def before(self):
        return {"mortal": [], "mortal_dead": ["a"]}


class Relay(Scene):
    """A runner outside of the server begins, takes, settles and ends; nothing is sent."""
    name = "relay"
    messages = ("a", "b", "c")

    def begin(self, stage):
        super().begin(stage)
        stage.helper("CREATE EXTENSION IF NOT EXISTS queue_file")
        stage.helper("CREATE SERVER IF NOT EXISTS faults FOREIGN DATA WRAPPER queue_file OPTIONS (path '/nowhere/at/all')")
        if not stage.helper("SELECT 1 FROM queue.relays"):
            stage.helper("SELECT queue.create_relay('faults', 'plain', 'faults', "
                         "'{\"runner\": \"program\", \"log\": true, \"filter\": \"$.payload.t\"}')")

    def prepare(self, stage):
        super().prepare(stage)
        stage.helper("SELECT queue._relay_end('faults', epoch) FROM queue.relays WHERE epoch IS NOT NULL")

    def play(self, stage):
        # A take leaves out what the worker is just writing.
        while stage.helper("SELECT 1 FROM queue.leases"):
            time.sleep(0.01)
        super().play(stage)

    def statements(self, stage):
        yield ("WITH runner AS MATERIALIZED (SELECT epoch, version FROM queue._relay_begin('faults', 'x')), "
               "taken AS MATERIALIZED (SELECT t.* FROM runner, LATERAL queue._relay_take('faults', epoch, 10) t), "
               "settled AS MATERIALIZED (SELECT queue._relay_settle('faults', epoch, array_agg(receipt), array_agg(0), "
               "array_agg(0::bigint), array_agg('fine'::text), array_agg(message), array_agg(attempt), array_agg(event), "
               "array_agg(target)) FROM runner, taken GROUP BY epoch), "
               "renewed AS MATERIALIZED (SELECT r.* FROM runner, settled, LATERAL queue._relay_renew('faults', epoch, "
               "ARRAY[]::uuid[], version, ARRAY[3, 0, 0, 0, 0, 0, 0, 0, 0], 'none') r) "
               "SELECT queue._relay_end('faults', epoch) FROM runner, renewed"),
        yield "SELECT queue.pause_relay('faults')",
        yield "SELECT queue.resume_relay('faults')",
        yield "SELECT queue.alter_relay('faults', '{\"format\": \"plain\"}')",
        yield "SELECT count(*) FROM queue.relays",
        yield "SELECT status FROM queue.health() WHERE \"check\" = 'relays'",

    def after(self):
        return {"plain": []}


class Held(Settle):
    """Acts at once, whatever becomes of the transaction: done twice is an error, which is no fault."""

    def after(self):
        return self.before()

    def play(self, stage):
        fresh = stage.helper.one("SELECT count(*) FROM queue.leases WHERE state = 'leased' AND queue = 'plain'")
        if fresh == len(self.messages):
            super().play(stage)


class Release(Held):
    name = "release"

    def statements(self, stage):
        yield "SELECT queue.release(%s)", self.receipts[0]
        yield "SELECT * FROM queue.release_batch(%s::uuid[], '1 hour')", self.receipts[1:]


class Extend(Held):
    name = "extend"

    def statements(self, stage):
        yield "SELECT queue.extend(%s)", self.receipts[0]
        yield "SELECT * FROM queue.extend_batch(%s::uuid[], '1 minute')", self.receipts


class ExtendLate(Held):
    name = "extend after the deadline"

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages)
        stage.hold_worker("plain")
        self.receipts = [row[1] for row in stage.lease("plain", 2, lease="10 s")]
        stage.advance("20 s")

    def play(self, stage):
        Scene.play(self, stage)

    def statements(self, stage):
        yield "SELECT queue.extend(%s)", self.receipts[0]


# ----- by somebody who holds nothing

class Cancel(Scene):
    name = "cancel"
    messages = ("a", "b")

    def prepare(self, stage):
        super().prepare(stage)
        self.id = stage.helper.one("SELECT id FROM queues.plain WHERE payload->>'t' = %s", stage.tag("a"))

    def statements(self, stage):
        yield "SELECT queue.cancel('plain', %s)", self.id

    def after(self):
        return {"plain": ["b"]}


class Delete(Cancel):
    name = "DELETE from the view"

    def statements(self, stage):
        yield "DELETE FROM queues.plain WHERE payload->>'t' = %s", stage.tag("a")


class Purge(Scene):
    name = "purge"
    messages = ("a", "b")

    def statements(self, stage):
        yield "SELECT queue.purge('plain')",

    def after(self):
        return {"plain": []}


class PurgeLeased(Purge):
    name = "purge of leased ones"
    leased = True

    def statements(self, stage):
        yield "SELECT queue.purge('plain', '{\"states\": [\"leased\"], \"older_than\": \"0\"}')",


class PurgeToast(Purge):
    name = "purge out of line"

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages, size=60000)


class Peek(Scene):
    name = "SELECT from the view"
    messages = ("a", "b", "c")

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages, size=9000)
        stage.lease("plain")

    def statements(self, stage):
        yield "SELECT * FROM queues.plain",
        yield "SELECT id FROM queues.plain LIMIT 1",


class Watch(Scene):
    name = "what is shown"
    messages = ("a", "b")

    def prepare(self, stage):
        super().prepare(stage)
        stage.lease("plain")

    def statements(self, stage):
        for view in ("queues", "stats", "leases", "segments", "health()", "check()", "options"):
            yield "SELECT * FROM queue." + view,


# ----- transactions

class Savepoints(Settle):
    name = "savepoints"

    def statements(self, stage):
        yield "SAVEPOINT s",
        yield "SELECT queue.ack(%s)", self.receipts[0]
        yield "SELECT queue.enqueue('plain', '{}')",
        yield "SELECT * FROM queue.dequeue('plain')",
        yield "ROLLBACK TO s",
        yield "SAVEPOINT t",
        yield "SELECT queue.ack(%s)", self.receipts[1]
        yield "SELECT queue.enqueue('plain', %s)", Json({"t": stage.tag("c")})
        yield "RELEASE t",

    def after(self):
        return {"plain": ["a", "c"]}


class Caught(Settle):
    name = "errors that are caught"
    forgives = True
    messages = ("a", "b", "c")

    def begin(self, stage):
        super().begin(stage)
        stage.helper("""
            CREATE OR REPLACE FUNCTION faults.forgiving(receipt uuid, t text) RETURNS void LANGUAGE plpgsql AS $$
            BEGIN
                PERFORM queue.dequeue('plain');
                PERFORM queue.ack(receipt);
                PERFORM queue.enqueue('plain', jsonb_build_object('t', t));
                PERFORM queue.pop('plain');
            EXCEPTION WHEN out_of_memory THEN
                NULL;
            END $$""")

    def prepare(self, stage):
        super().prepare(stage)
        stage.enqueue("plain", "d", "e")

    def before(self):
        return {"plain": ["a", "b", "c", "d", "e"]}

    def statements(self, stage):
        yield "SELECT faults.forgiving(%s, %s)", self.receipts[0], stage.tag("f")

    def expected(self, stage, done):
        """It dequeues one of two, and may find the other held by the try before."""
        return [["b", "c", "d", "f"], ["b", "c", "e", "f"], ["b", "c", "d", "e", "f"]] if done else [self.before()["plain"]]


class Prepared(Settle):
    name = "PREPARE, COMMIT PREPARED"
    end = "COMMIT PREPARED 'faults'"

    def play(self, stage):
        subject = stage.subject
        subject("BEGIN")
        subject("INSERT INTO faults.mark VALUES (%s)", stage.run)
        subject("SELECT queue.ack(%s)", self.receipts[0])
        subject("SELECT queue.nack(%s)", self.receipts[1])
        subject("SELECT queue.enqueue('plain', %s)", Json({"t": stage.tag("c")}))
        subject("PREPARE TRANSACTION 'faults'")
        subject(self.end)

    def after(self):
        return {"plain": ["b", "c"]}


class PreparedBack(Prepared):
    name = "PREPARE, ROLLBACK PREPARED"
    end = "ROLLBACK PREPARED 'faults'"

    def after(self):
        return self.before()


class Sundry(Scene):
    name = "as a user with few rights"
    messages = ("a", "b")

    def begin(self, stage):
        super().begin(stage)
        if not stage.helper("SELECT 1 FROM pg_roles WHERE rolname = 'faults_user'"):
            stage.helper("CREATE ROLE faults_user")
            stage.helper("GRANT SELECT, INSERT, UPDATE, DELETE ON queues.plain TO faults_user")

    def statements(self, stage):
        yield "SET LOCAL ROLE faults_user",
        yield "SELECT queue.ack(receipt) FROM queue.dequeue('plain', 10)",
        yield "SELECT queue.enqueue('plain', %s)", Json({"t": stage.tag("c")})
        yield "SELECT count(*) FROM queues.plain",
        yield "SELECT * FROM queue.stats",
        yield "SELECT * FROM queue.segments",

    def after(self):
        return {"plain": ["c"]}


# ----- queues

class Create(Scene):
    name = "create"
    queues = {"made": {}, "made_dead": {}}

    def begin(self, stage):
        pass

    def prepare(self, stage):
        pass

    def statements(self, stage):
        yield "SELECT queue.create('made')",

    def before(self):
        return {"made": None, "made_dead": None}

    def after(self):
        return {"made": [], "made_dead": []}

    def cleanup(self, stage, strict=True):
        if stage.exists("made"):
            stage.enqueue("made", "z")
            if stage.drain("made", [stage.tag("z")]) != [stage.tag("z")]:
                raise Failure("the new queue does not work")
            stage.helper("SELECT queue.drop('made', true)")


class CreateUsed(Create):
    name = "create and use"
    queues = {"made": {}}

    def statements(self, stage):
        yield "SELECT queue.create('made', '{\"dead_letter\": \"plain\", \"if_not_exists\": true}')",
        yield "SELECT queue.enqueue('made', %s)", Json({"t": stage.tag("a")})

    def begin(self, stage):
        Enqueue().begin(stage)

    def before(self):
        return {"made": None}

    def after(self):
        return {"made": ["a"]}

    def cleanup(self, stage, strict=True):
        if stage.exists("made"):
            stage.helper("SELECT queue.drop('made', true)")


class CreateCaught(Create):
    name = "create, rolled back to a savepoint"

    def statements(self, stage):
        yield "SAVEPOINT s",
        yield "SELECT queue.create('made')",
        yield "ROLLBACK TO s",

    def after(self):
        return self.before()


class Drop(Scene):
    name = "drop"
    queues = {"made": {}}

    def begin(self, stage):
        pass

    def prepare(self, stage):
        if not stage.exists("made"):
            stage.helper("SELECT queue.create('made')")
        stage.enqueue("made", "a")
        stage.lease("made")

    def statements(self, stage):
        yield "SELECT queue.drop('made', true)",

    def before(self):
        return {"made": ["a"], "made_dead": []}

    def after(self):
        return {"made": None, "made_dead": None}

    def cleanup(self, stage, strict=True):
        if stage.exists("made"):
            stage.helper("SELECT queue.drop('made', true)")


class DropEmpty(Drop):
    name = "drop without force"

    def prepare(self, stage):
        if not stage.exists("made"):
            stage.helper("SELECT queue.create('made')")

    def statements(self, stage):
        yield "SELECT queue.drop('made')",

    def before(self):
        return {"made": [], "made_dead": []}


class Alter(Scene):
    name = "alter"
    queues = {"plain": {}, "changing": {"dead_letter": None}, "changing_dead": {}}

    def statements(self, stage):
        yield "SELECT queue.alter('changing', '{\"lease_timeout\": \"41 s\", \"dead_letter\": \"plain\"}')",
        yield "SELECT queue.pause('changing', 'both', 'because')",

    def facts(self, stage, done):
        found = stage.helper("SELECT options->>'lease_timeout', dead_letter, paused_dequeue, paused_enqueue "
                             "FROM queue.queues WHERE queue = 'changing'")[0]
        if found != (("41 s", "plain", True, True) if done else (None, "changing_dead", False, False)):
            raise Failure("its definition is %s" % (found,))

    def cleanup(self, stage, strict=True):
        stage.helper("SELECT queue.alter('changing', '{\"lease_timeout\": null, \"dead_letter\": null}')")
        stage.helper("SELECT queue.resume('changing', 'both')")


class Resume(Scene):
    name = "resume"
    queues = {"changing": {"dead_letter": None}, "changing_dead": {}}

    def prepare(self, stage):
        stage.helper("SELECT queue.pause('changing')")

    def statements(self, stage):
        yield "SELECT queue.resume('changing')",
        yield "SELECT queue.alter('changing', '{\"max_attempts\": 3}')",

    def facts(self, stage, done):
        if stage.helper.one("SELECT paused_dequeue FROM queue.queues WHERE queue = 'changing'") == done:
            raise Failure("the pause is not what it should be")


class Commands(Scene):
    name = "commands of others"

    def statements(self, stage):
        yield "CREATE TABLE faults.other (a int)",
        yield "ALTER TABLE faults.other OWNER TO CURRENT_USER",
        yield "CREATE INDEX other_a ON faults.other (a)",
        yield "INSERT INTO faults.other VALUES (1)",
        yield "TRUNCATE faults.other",
        yield "COMMENT ON VIEW queues.plain IS 'mine'",
        yield "GRANT SELECT ON queues.plain TO PUBLIC",
        yield "DROP TABLE faults.other",


class Database(Scene):
    """Statements that run alone; what is there afterwards is made anew or dropped."""
    name = "CREATE and DROP DATABASE"
    slow = True

    def prepare(self, stage):
        stage.helper("DROP DATABASE IF EXISTS another WITH (FORCE)")

    def play(self, stage):
        if stage.helper("SELECT 1 FROM pg_database WHERE datname = 'another'"):
            stage.helper("DROP DATABASE another WITH (FORCE)")
        stage.subject("CREATE DATABASE another STRATEGY file_copy")
        stage.subject("DROP DATABASE another WITH (FORCE)")

    def cleanup(self, stage, strict=True):
        stage.helper("DROP DATABASE IF EXISTS another WITH (FORCE)")


class DropDatabase(Scene):
    """One with a worker in it, which has to leave, and to come back if the command fails."""
    name = "DROP DATABASE under a worker"
    slow = True

    def prepare(self, stage):
        if not self.databases(stage):
            stage.helper("DROP DATABASE IF EXISTS another")
            stage.helper("CREATE DATABASE another STRATEGY file_copy")
            with_extension = stage.server.connect("another")
            with_extension("CREATE EXTENSION queue")
            with_extension.close()
        self.await_worker(stage)

    def databases(self, stage):
        """Not what a DROP DATABASE leaves that fails after it has removed the files."""
        return stage.helper("SELECT 1 FROM pg_database WHERE datname = 'another' AND datconnlimit <> -2")

    def await_worker(self, stage):
        stage.until("the worker of the other database", lambda: stage.helper(
            "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'queue worker' AND datname = 'another' "
            "AND state = 'idle'"), meanwhile=stage.call_launcher)

    def play(self, stage):
        if self.databases(stage):
            stage.subject("DROP DATABASE another")

    def facts(self, stage, done):
        if self.databases(stage):
            self.await_worker(stage)

    def cleanup(self, stage, strict=True):
        pass


class DropExtension(Scene):
    name = "DROP EXTENSION, rolled back"
    messages = ("a", "b")
    leased = True

    def play(self, stage):
        stage.subject("BEGIN")
        stage.subject("DROP EXTENSION queue CASCADE")
        stage.subject("ROLLBACK")


class Refused(Scene):
    """What raises an error by itself; another error may come before it."""
    name = "refusals"
    messages = ("a",)
    texts = [
        "TRUNCATE {segment}", "DELETE FROM {segment}", "DROP TABLE {segment}", "ALTER TABLE {segment} ADD x int",
        "CREATE INDEX ON {segment} (id)", "CREATE TABLE faults.child () INHERITS ({segment})",
        "DROP VIEW queues.plain", "ALTER VIEW queues.plain RENAME TO other", "UPDATE queues.plain SET key = 'k'",
        "DROP TRIGGER queue_insert ON queues.plain", "ALTER TRIGGER queue_insert ON queues.plain RENAME TO other",
        "CREATE RULE r AS ON INSERT TO queues.plain DO NOTHING",
        "SELECT queue.create('plain')", "SELECT queue.create('x', '{{\"nonsense\": 1}}')",
        "SELECT queue.create('x', '{{\"backoff\": \"list\", \"backoff_list\": [\"1 s\", \"x\"]}}')",
        "SELECT queue.create('x', '{{\"backoff\": \"odd\"}}')", "SELECT queue.create('x', '{{\"max_attempts\": -1}}')",
        "SELECT queue.create('x', '{{\"retention\": \"1 d\"}}')", "SELECT queue.drop('plain')",
        "SELECT queue.drop('mortal_dead', true)", "SELECT queue.enqueue('none', '{{}}')",
        "SELECT queue.enqueue('plain', '{{}}', headers => '{{\"queue.x\": 1}}')",
        "SELECT queue.enqueue_batch('plain', ARRAY[NULL]::jsonb[])", "SELECT queue.ack('00000000-0000-8000-8000-000000000000')",
        "INSERT INTO queues.plain (id, payload) VALUES (1, '{{}}')", "SELECT queue.purge('plain', '{{\"states\": [1]}}')",
        "SELECT queue._peek(1000000)"]

    def begin(self, stage):
        super().begin(stage)
        NackDead().begin(stage)

    def play(self, stage):
        subject = stage.subject
        segment = stage.helper.one("SELECT segment::text FROM queue.segments WHERE queue = 'plain' AND state = 'active'")
        subject("BEGIN")
        subject("INSERT INTO faults.mark VALUES (%s)", stage.run)
        for text in self.texts:
            subject("SAVEPOINT s")
            try:
                subject(text.format(segment=segment))
            except psycopg2.Error as error:
                if stage.control.get("fired") and error.pgcode in ("53200", "57014", "57P01", None):
                    raise
            else:
                raise Failure("it is not refused: " + text)
            subject("ROLLBACK TO s")
        subject("COMMIT")


class Many(Scene):
    name = "many at once"
    fresh = True
    messages = tuple("m%03d" % i for i in range(100))

    def prepare(self, stage):
        stage.renew_subject()
        stage.helper("SELECT queue.enqueue_batch('plain', %s::jsonb[])",
                     [Json({"t": stage.tag(name)}) for name in self.messages])

    def statements(self, stage):
        yield "SELECT queue.ack(receipt) FROM queue.dequeue('plain', 30)",
        yield "SELECT queue.ack(receipt) FROM queue.dequeue('plain', 100)",
        yield "DELETE FROM queues.plain",

    def after(self):
        return {"plain": []}


# ----- in order

class EnqueueInLine(Enqueue):
    name = "enqueue, ordered"
    queues = {"line": {"ordered": True}}

    def statements(self, stage):
        yield "SELECT queue.enqueue('line', %s)", Json({"t": stage.tag("a")})
        payloads = [Json({"t": stage.tag("b")}), Json({"t": stage.tag("c"), "pad": noise(60000)})]
        yield "SELECT queue.enqueue_batch('line', %s::jsonb[], keys => ARRAY['x', 'y'])", payloads

    def after(self):
        return {"line": ["a", "b", "c"]}


class InLine(Scene):
    """What is leased keeps the rest of its key: all leases run out first, then all must come."""
    queues = {"line": {"ordered": True}}
    messages = ("a", "b", "c")

    def cleanup(self, stage, strict=True):
        stage.let_worker_go()
        stage.advance("1 min")
        stage.until("the leases to run out", lambda: not stage.helper("SELECT 1 FROM queue.leases WHERE queue = 'line'"))
        super().cleanup(stage, strict)


class DequeueInLine(InLine):
    name = "dequeue, ordered"

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('line', 2)",


class DequeueInLineAlone(DequeueInLine):
    name = "dequeue, ordered, without a transaction"

    def play(self, stage):
        stage.subject("SELECT * FROM queue.dequeue('line', 10, options => '{\"attempt_id\": \"one\"}')")


class DequeueComesBack(DequeueInLine):
    """The first of the key is a copy, the others were passed over."""
    name = "dequeue, ordered, what came back"

    def prepare(self, stage):
        stage.enqueue("line", *self.messages)
        stage.helper("SELECT queue.nack(receipt) FROM queue.dequeue('line')")
        stage.helper("SELECT queue.nack(receipt) FROM queue.dequeue('line')")


class DequeueKeysTogether(DequeueInLine):
    """Several keys are ready, and go on in the same page."""
    name = "dequeue, ordered, several keys"

    def prepare(self, stage):
        done = ("p", "q", "r")
        for tags in (done, self.messages):
            for key, tag in zip("xyz", tags):
                stage.enqueue("line", tag, key=key)
        receipts = stage.helper("SELECT receipt::text FROM queue.dequeue('line', 3)")
        stage.helper("SELECT 1 FROM queue.dequeue('line', 3)")
        for receipt, in receipts:
            stage.helper("SELECT queue.ack(%s)", receipt)

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('line', 3)",


class DequeueForgottenLine(DequeueComesBack):
    name = "dequeue, ordered, queue unknown"
    fresh = True

    def prepare(self, stage):
        stage.renew_subject()
        super().prepare(stage)
        stage.forget("line")


class DequeueKey(InLine):
    name = "dequeue, ordered, a key"

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('line', 2, options => '{\"key\": \"\"}')",
        yield "SELECT * FROM queue.dequeue('line', 2, options => '{\"key\": \"none\"}')",


class DequeueKeyComesBack(DequeueComesBack):
    name = "dequeue, ordered, a key, what came back"

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('line', 2, options => '{\"key\": \"\"}')",


class DequeueSingle(InLine):
    """As another consumer than the one before, who has let its time pass."""
    name = "dequeue, one consumer at a time"
    queues = {"line": {"single_active_consumer": True}}

    def prepare(self, stage):
        super().prepare(stage)
        stage.helper("SELECT queue.release(receipt) FROM queue.dequeue('line')")
        stage.advance("1 h")

    def statements(self, stage):
        yield "SELECT * FROM queue.dequeue('line', 2, wait => '10 ms')",


class StateOfKey(Scene):
    name = "set_key_state"
    queues = {"line": {"ordered": True}}
    messages = ("a", "b")
    leased = True

    def statements(self, stage):
        yield "SELECT queue.set_key_state(%s, '{\"n\": 1}')", self.receipts[0]
        yield "SELECT queue.get_key_state(%s)", self.receipts[0]
        yield "SAVEPOINT s",
        yield "SELECT queue.ack(%s)", self.receipts[0]
        yield "ROLLBACK TO s",
        yield "SELECT queue.set_key_state(%s, to_jsonb(repeat('noise', 10000)))", self.receipts[1]
        yield "SELECT queue.ack(%s)", self.receipts[0]
        yield "SELECT queue.set_key_state(%s, NULL)", self.receipts[0]

    def after(self):
        return {"line": ["b"]}


class NackInLine(Scene):
    name = "nack, ordered"
    queues = {"line": {"ordered": True}}
    messages = ("a", "b", "c")
    leased = True

    def statements(self, stage):
        yield "SELECT queue.nack(%s)", self.receipts[1]
        yield "SELECT * FROM queue.try_ack(%s::uuid[])", [self.receipts[2]]
        yield "SELECT queue.ack(%s)", self.receipts[0]

    def after(self):
        return {"line": ["b"]}


class DeadRest(Scene):
    name = "reject and unblock, with a rest"
    queues = {"rest": {"ordered": True, "on_dead": "dead_rest"}}
    messages = ("a", "b")
    leased = True

    def statements(self, stage):
        yield "SELECT queue.reject(%s)", self.receipts[0]
        yield "SELECT queue.unblock('rest', NULL)",

    def after(self):
        return {"rest": ["b"]}


class Blocks(Scene):
    name = "reject and unblock"
    queues = {"block": {"ordered": True, "on_dead": "block"}}
    messages = ("a", "b")
    leased = True

    def statements(self, stage):
        yield "SELECT queue.reject(%s)", self.receipts[0]
        yield "SELECT * FROM queue.blocked_keys('block')",
        yield "SELECT queue.unblock('block', NULL)",

    def after(self):
        return {"block": ["b"]}


class Race(Scene):
    """The session is stopped at a call, with all that it has, and others do something."""
    held_at = ""                    # the first call of this name

    def meanwhile(self, stage):
        """When it returns, the session goes on."""
        raise NotImplementedError


class RejectBesideEnqueue(Race):
    """
    A death says up to which id the rest of its key dies. Who has drawn a lower one
    and not stored the row yet is waited for: else the worker could pass by the place
    of that row, and move others of the same transaction.
    """
    name = "reject beside an enqueue"
    queues = {"rest": {"ordered": True, "on_dead": "dead_rest"}}
    messages = ("a",)
    leased = True
    held_at = "heap_insert"

    def statements(self, stage):
        yield "SELECT queue.enqueue('rest', %s)", Json({"t": stage.tag("b")})
        self.rival.done()
        stage.until("the end of the rest", lambda: not stage.helper("SELECT 1 FROM queue.blocked_keys('rest')"))

    def meanwhile(self, stage):
        session = stage.server.connect()
        self.rival = Aside(lambda: session("SELECT queue.reject(%s)", self.receipts[0]))
        stage.until("the death to wait, or to be over", lambda: not self.rival.is_alive() or stage.helper(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'LWLock'", session.pid))
        if not self.rival.is_alive():
            raise Failure("the death has not waited for the row of a lower id")

    def after(self):
        return {"rest": ["b"]}


SESSIONS = [
    Enqueue, EnqueueFresh, EnqueueForgotten, EnqueueOptions, EnqueueBatch, EnqueueOnce, EnqueueBytes, EnqueueToast, Insert, Copy, Restore,
    RollOver, Dequeue, DequeueInTurns, DequeueFresh, DequeueForgotten, DequeueAlone, DequeueToast, DequeueSegments, DequeueEmpty,
    DequeueExpiredLease, DequeueCooling, DequeueExpired, DequeueLast, Pop, RolledBack, Wait, WaitReady, WaitPaused,
    Ack, AckFresh, AckUnique, AckBatch, TryAck, AckToast, Nack, NackToast, NackBatch, NackDead, Reject, RejectAgain,
    Release, Extend, ExtendLate, Cancel, Delete, Purge, PurgeLeased, PurgeToast, Peek, Watch,
    Savepoints, Caught, Prepared, PreparedBack, Sundry,
    EnqueueInLine, DequeueInLine, DequeueInLineAlone, DequeueComesBack, DequeueKeysTogether, DequeueForgottenLine, DequeueKey, DequeueKeyComesBack,
    DequeueSingle, StateOfKey, NackInLine, Blocks, DeadRest, RejectBesideEnqueue, Relay,
    Create, CreateUsed, CreateCaught, Drop, DropEmpty, Alter, Resume, Commands, Refused, Many, Database, DropDatabase, DropExtension]


# ----- the worker's part

class WorkerScene(Scene):
    target = Control.WORKER

    def trigger(self, stage):
        """What the worker has to deal with."""

    def finished(self, stage):
        raise NotImplementedError

    def play(self, stage):
        self.trigger(stage)


class WritesFailures(WorkerScene):
    name = "worker: failures"
    messages = ("a", "b")

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages)
        stage.lease("plain", 2, lease="10 s")

    def trigger(self, stage):
        stage.advance("20 s")

    def finished(self, stage):
        return stage.helper.one("SELECT min(failures) = 1 AND max(failures) = 1 AND NOT EXISTS (SELECT 1 FROM queue.leases) "
                                "FROM queues.plain")


class WritesDead(WorkerScene):
    name = "worker: dead letters"
    queues = MORTAL
    messages = ("a", "b")
    size = 0

    def prepare(self, stage):
        stage.enqueue("mortal", *self.messages, size=self.size)
        stage.lease("mortal", 2, lease="10 s")

    def trigger(self, stage):
        stage.advance("20 s")

    def finished(self, stage):
        return len(stage.rows("mortal_dead")) == 2 and not stage.helper("SELECT 1 FROM queue.leases")

    def after(self):
        return {"mortal": [], "mortal_dead": ["a", "b"]}


class WritesDeadToast(WritesDead):
    name = "worker: dead letters out of line"
    size = 60000


class MovesRest(WorkerScene):
    """The first of a key dies, and those behind it with it."""
    name = "worker: rest of a key"
    queues = {"buried": {"ordered": True, "on_dead": "dead_rest", "dead_letter": None}, "buried_dead": {}}
    messages = ("a", "b", "c")
    size = 0

    def prepare(self, stage):
        stage.enqueue("buried", *self.messages, size=self.size)
        self.receipts = [row[1] for row in stage.lease("buried", 3)]

    def trigger(self, stage):
        stage.helper("SELECT queue.reject(%s)", self.receipts[0])

    def finished(self, stage):
        return len(stage.rows("buried_dead")) == 3 and not stage.helper("SELECT 1 FROM queue.blocked_keys('buried')")

    def after(self):
        return {"buried": [], "buried_dead": ["a", "b", "c"]}


class MovesRestToast(MovesRest):
    name = "worker: rest of a key out of line"
    size = 60000


class WritesExpired(WorkerScene):
    name = "worker: expired messages"
    queues = {"mayfly": {"dead_letter": None}, "mayfly_dead": {}, "brief": {"on_expiry": "drop"}}

    def prepare(self, stage):
        stage.enqueue("mayfly", "a", "b", ttl="1 s")
        stage.enqueue("brief", "c", ttl="1 s")

    def trigger(self, stage):
        stage.advance("2 s")

    def finished(self, stage):
        return len(stage.rows("mayfly_dead")) == 2 and not stage.rows("brief") and \
            not stage.helper("SELECT 1 FROM queue.leases")

    def before(self):
        return {"mayfly": ["a", "b"], "mayfly_dead": [], "brief": ["c"]}

    def after(self):
        return {"mayfly": [], "mayfly_dead": ["a", "b"], "brief": []}


class MakesReserve(WorkerScene):
    name = "worker: reserve"
    queues = {"small": {"segment_size": "64kB"}}

    def prepare(self, stage):
        RollOver().prepare(stage)

    def trigger(self, stage):
        stage.helper("SELECT queue.enqueue_batch('small', array_fill(%s::jsonb, ARRAY[8]))",
                     Json({"t": stage.tag("a"), "pad": noise(7000)}))

    def finished(self, stage):
        return stage.helper.one("SELECT count(*) > 0 FROM queue.segments WHERE queue = 'small' AND state = 'reserve'")

    def after(self):
        return {"small": ["a"] * 8}


class Reclaims(WorkerScene):
    name = "worker: empties segments"
    queues = {"small": {"segment_size": "64kB"}}
    size = 7000

    def prepare(self, stage):
        for _ in range(3):
            RollOver().prepare(stage)
            stage.enqueue("small", *("f%d" % i for i in range(8)), size=self.size)

    def trigger(self, stage):
        stage.helper("SELECT queue.purge('small')")
        stage.advance("1 s")

    def finished(self, stage):
        return not stage.helper("SELECT 1 FROM queue.segments WHERE queue = 'small' AND state = 'sealed'")

    def before(self):
        return {"small": ["f%d" % i for i in range(8)]}

    def after(self):
        return {"small": []}


class ReclaimsToast(Reclaims):
    name = "worker: empties segments, toast too"
    size = 30000


class Vacuums(WorkerScene):
    """One table of a queue with rows and one without, and what they have out of line."""
    name = "worker: vacuums what is old"
    messages = ("a", "b")
    tables = ("SELECT c.oid FROM queue.segments s JOIN pg_class t ON t.oid = s.segment "
              "JOIN pg_class c ON c.oid IN (t.oid, t.reltoastrelid)")

    def prepare(self, stage):
        stage.enqueue("plain", *self.messages, size=60000)

    def trigger(self, stage):
        stage.helper("UPDATE pg_class SET relfrozenxid = ((pg_current_xact_id()::text::bigint - 80000) & 4294967295)::text::xid "
                     "WHERE oid IN (" + self.tables + ")")

    def finished(self, stage):
        """Only when ids go on the worker looks at ages."""
        young = stage.helper.one("SELECT max(age(relfrozenxid)) < 50000 FROM pg_class WHERE oid IN (" + self.tables + ")")
        if not young:
            stage.helper("DO $$ BEGIN FOR i IN 1 .. 1000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
        return young

    def after(self):
        return {"plain": ["a", "b"]}


class Recounts(WorkerScene):
    name = "worker: counts"

    def trigger(self, stage):
        segment = stage.helper.one("SELECT segment::text FROM queue.segments WHERE queue = 'plain' AND state = 'active'")
        stage.helper("INSERT INTO %s (id, enqueued_at, payload) VALUES (nextval('queue.message_id'), now(), %%s)" % segment,
                     Json({"t": stage.tag("a")}))

    def finished(self, stage):
        return bool(stage.helper("SELECT 1 FROM queue.stats WHERE queue = 'plain' AND exact AND ready = 1"))

    def after(self):
        return {"plain": ["a"]}


class Notifies(WorkerScene):
    name = "worker: notifies"

    def prepare(self, stage):
        stage.subject("LISTEN queue_plain")
        stage.subject.connection.notifies.clear()

    def trigger(self, stage):
        stage.enqueue("plain", "a")

    def finished(self, stage):
        stage.subject("SELECT 1")
        return bool(stage.subject.connection.notifies)

    def after(self):
        return {"plain": ["a"]}


class Reloads(WorkerScene):
    name = "worker: reads its settings"

    def trigger(self, stage):
        stage.helper("SELECT pg_reload_conf()")

    def finished(self, stage):
        return stage.worker()


class ReloadsLauncher(Reloads):
    name = "launcher: reads its settings"
    slow = True
    target = Control.LAUNCHER


class SettlesPrepared(WorkerScene):
    name = "worker: prepared transactions"
    messages = ("a", "b")
    leased = True

    def prepare(self, stage):
        super().prepare(stage)
        stage.subject("BEGIN")
        stage.subject("SELECT queue.ack(%s)", self.receipts[0])
        stage.subject("SELECT queue.nack(%s)", self.receipts[1])
        stage.subject("PREPARE TRANSACTION 'faults'")

    def trigger(self, stage):
        stage.helper("COMMIT PREPARED 'faults'")

    def finished(self, stage):
        return not stage.helper("SELECT 1 FROM queue.leases") and \
            bool(stage.helper("SELECT 1 FROM queue.stats WHERE queue = 'plain' AND exact AND ready = 1"))

    def after(self):
        return {"plain": ["b"]}


class Starts(WorkerScene):
    name = "worker: starts"
    slow = True

    def trigger(self, stage):
        self.old = stage.worker()
        if self.old:
            stage.helper("SELECT pg_terminate_backend(%s)", self.old)

    def finished(self, stage):
        return stage.worker() not in (0, self.old)


class Launches(Starts):
    name = "launcher"
    slow = True
    target = Control.LAUNCHER

    def finished(self, stage):
        return super().finished(stage) and bool(
            stage.helper("SELECT 1 FROM pg_stat_activity WHERE backend_type = 'queue launcher'"))


WORKER = [WritesFailures, WritesDead, WritesDeadToast, MovesRest, MovesRestToast, WritesExpired, MakesReserve, Reclaims, ReclaimsToast, Vacuums,
          Recounts, Notifies, SettlesPrepared, Reloads, Starts, Launches, ReloadsLauncher]

ALL = [kind() for kind in SESSIONS + WORKER]
