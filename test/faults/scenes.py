"""
scenes.py
	What is done while something fails: a scene for each operation.

	A scene says what it prepares, the statements that are tried, and the tags
	of the messages that its queues have before and after them. Statements run
	in one transaction with a row of their own, which tells what became of it
	when the connection was lost at its end.
"""

import psycopg2.extras

from harness import Failure

Json = psycopg2.extras.Json

ENQUEUE = "SELECT queue.enqueue(%s, %s)"


class Scene:
    name = ""
    queues = {"plain": {}}          # name: options
    forgives = False                # errors are caught inside

    def begin(self, stage):
        for queue, options in self.queues.items():
            if not stage.exists(queue):
                stage.helper("SELECT queue.create(%s, %s)", queue, Json(dict(
                    {"backoff": "none", "max_attempts": 0, "segment_size": "256kB", "dead_letter": ""}, **options)))

    def prepare(self, stage):
        """By the helper, or by the session under test before it is armed."""

    def statements(self, stage):
        """Pairs of text and arguments."""
        raise NotImplementedError

    def play(self, stage):
        subject = stage.subject
        subject("BEGIN")
        subject("INSERT INTO faults.mark VALUES (%s)", stage.run)
        for text, arguments in self.statements(stage):
            subject(text, *arguments)
        subject("COMMIT")

    def before(self):
        return {queue: [] for queue in self.queues}

    def after(self):
        return {queue: [] for queue in self.queues}

    def cleanup(self, stage, strict=True):
        """Nothing may be left; what nobody holds can be dequeued."""
        for queue in self.queues:
            if not stage.exists(queue):
                continue
            held = stage.helper.one("SELECT count(*) FROM queue.leases WHERE queue = %s AND state IN ('leased', 'settling')",
                                    queue)
            rows = stage.rows(queue)
            drained = stage.drain(queue)
            if strict and (len(drained) + held != len(rows) or not set(drained) <= set(rows)):
                raise Failure("of %s in %s, of which %d are held, %s can be dequeued" % (rows, queue, held, drained))
            stage.purge(queue)
            if strict and stage.rows(queue):
                raise Failure("after a purge there are %s in %s" % (stage.rows(queue), queue))


class Enqueue(Scene):
    name = "enqueue"

    def statements(self, stage):
        return [(ENQUEUE, ("plain", Json({"t": stage.tag("a")})))]

    def after(self):
        return {"plain": ["a"]}


class Dequeue(Scene):
    name = "dequeue"

    def prepare(self, stage):
        stage.enqueue("plain", "a", "b")

    def statements(self, stage):
        return [("SELECT * FROM queue.dequeue('plain', 10)", ())]

    def before(self):
        return {"plain": ["a", "b"]}

    after = before


class Ack(Scene):
    name = "ack"

    def prepare(self, stage):
        stage.enqueue("plain", "a", "b")
        self.leased = stage.lease("plain", 2)

    def statements(self, stage):
        return [("SELECT queue.ack(%s)", (self.leased[0][1],))]

    def before(self):
        return {"plain": ["a", "b"]}

    def after(self):
        return {"plain": ["b"]}


ALL = [kind() for kind in (Enqueue, Dequeue, Ack)]
