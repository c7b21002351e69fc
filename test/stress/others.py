"""
others.py
	Whoever else works on queues: removers, redrivers, stewards, churners.
"""

import json
import time

from client import ALTERED, DEEP, DEQUEUED, PURGED, QUEUES, TAG, Client, Failed, Lost, quote
from clients import Consumer, Producer
from history import now


class Remover(Client):
    """Cancels messages, deletes them from the view, purges; looks at everything."""

    def scene(self):
        time.sleep(self.rng.random() * 0.15)
        self.pick((4, self.cancel), (3, self.delete), (1, self.purge), (1, self.watch), (1, self.look),
                  (0.3, self.hold))()

    def peek(self, queue):
        rows = self.call("SELECT id, " + TAG.replace("%", "%%") + " FROM queues." + quote(queue) +
                         " WHERE state IN ('ready', 'delayed') LIMIT 30")
        return self.rng.sample(rows, min(len(rows), self.rng.randint(1, 5)))

    def removal(self, work):
        if self.rng.random() < 0.5:
            work()
            return
        self.begin()
        if self.rng.random() < 0.3:
            self.call("SAVEPOINT a")
            work()
            if self.rng.random() < 0.5:
                self.undo("a", 0)
        else:
            work()
        self.end(self.ending())

    def cancel(self):
        queue = self.pick_queue()
        for number, tag in self.peek(queue)[:2]:
            self.removal(lambda: self.operate("cancel", lambda: {"ids": [number] if self.call(
                "SELECT queue.cancel(%s, %s)", queue, number)[0][0] else []}, q=queue, ids=[number], tags=[tag]))

    def delete(self):
        queue = self.pick_queue()
        rows = self.peek(queue)
        numbers = [row[0] for row in rows]
        if rows:
            self.removal(lambda: self.operate("cancel", lambda: {"ids": [row[0] for row in self.call(
                "DELETE FROM queues." + quote(queue) + " WHERE id = ANY (%s) RETURNING id", numbers)]},
                q=queue, ids=numbers, tags=[row[1] for row in rows]))

    def purge(self):
        queue = self.rng.choice(sorted(PURGED))
        what = self.rng.choice(['{}', '{"states": ["ready"]}', '{"states": ["delayed"]}',
                                '{"older_than": "300 ms"}', '{"states": ["ready", "failed"]}', '{"states": ["leased"]}',
                                '{"states": ["ready", "delayed", "leased", "failed"], "older_than": "100 ms"}'])
        self.removal(lambda: self.operate("purge", lambda: {"n": self.call(
            "SELECT queue.purge(%s, %s)", queue, what)[0][0]}, q=queue))

    def hold(self):
        """An old snapshot: what it can see must not be reclaimed, and claims go on."""
        self.begin()
        self.call("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        name = quote(self.pick_queue())
        self.call("SELECT count(*) FROM queues." + name)
        time.sleep(self.rng.uniform(0.1, 1.5))
        self.call("SELECT count(*) FROM queues." + name)
        self.end("abort")

    def watch(self):
        self.call(self.rng.choice([
            "SELECT * FROM queue.stats", "SELECT * FROM queue.leases", "SELECT * FROM queue.segments",
            "SELECT * FROM queue.queues", "SELECT * FROM queue.options", "SELECT * FROM queues.three",
            "SELECT * FROM queues.three_dead LIMIT 20", "SELECT state, count(*) FROM queues.open GROUP BY state",
            "SELECT * FROM queue.health()", "CHECKPOINT", "VACUUM", "SELECT count(*) FROM queues.open", "SELECT * FROM queue.check()"]))

    def look(self):
        """A whole queue, or the first of it."""
        queue = self.pick_queue()
        most = self.rng.randint(1, 50) if self.rng.random() < 0.3 else None
        text = "SELECT " + TAG.replace("%", "%%") + " FROM queues." + quote(queue).replace("%", "%%")
        self.operate("peek", lambda: {"tags": [row[0] for row in self.call(
            text + (" LIMIT %d" % most if most else ""))]}, q=queue, most=most)


class Redriver(Producer, Consumer):
    """Takes dead letters by hand: puts them into their queue again as new messages, or leaves them."""

    def scene(self):
        rng = self.rng
        queue = rng.choice([name for name in QUEUES if name != DEEP])
        receipts = self.operate("dequeue", lambda: {"rows": self.call(
            "SELECT " + DEQUEUED + " FROM queue.dequeue(%s, %s, '2 s')", queue + "_dead", rng.randint(1, 5))},
            q=queue + "_dead", lease=2.0)["rows"]
        if not receipts:
            time.sleep(rng.random() * 0.3)
        for number, _, checksum, receipt, _, _, _, key in receipts:
            if rng.random() < 0.5:
                self.redrive(queue, number, checksum, receipt, key)
            else:
                self.tolerate(self.pick((2, self.release), (2, self.nack), (1, self.reject), (1, self.extend),
                                        (1, lambda receipt: None)), receipt)

    def redrive(self, queue, number, checksum, receipt, key):
        self.tags += 1
        message = {"tag": "%s-%d" % (self.name, self.tags), "sum": checksum, "key": key}
        self.begin()
        name = quote(queue + "_dead").replace("%", "%%")
        self.record({"q": queue}, [message], lambda: {"ids": [row[0] for row in self.call(
            "SELECT CASE WHEN body IS NULL THEN queue.enqueue(%s, jsonb_set(payload, '{tag}', to_jsonb(%s::text)), key,"
            " headers - 'queue.death') ELSE queue.enqueue_bytes(%s, convert_to(%s || '|' || split_part("
            "convert_from(body, 'UTF8'), '|', 2), 'UTF8'), key, headers - 'queue.death') END"
            " FROM queues." + name + " WHERE id = %s", queue, message["tag"], queue, message["tag"], number)]})
        self.ack(receipt)
        self.end(self.ending(abort=0.1))


class Steward(Client):
    """Alters the options of a queue under load, pauses it and lets it go on."""

    # Whatever of them holds, no law about the queue changes but the limit of attempts.
    CHOICES = {
        "lease_timeout": ["10 s", None, "5 s"], "lease_max": ["1 min", None], "max_attempts": [2, 3, 4],
        "backoff": ["none", "fixed", "linear", "exponential", "list"], "backoff_base": ["10 ms", "50 ms"],
        "backoff_max": ["100 ms", "1 s"], "backoff_jitter": [0, 0.5, 1], "backoff_list": [["1 ms", 0.05], ["20 ms"]],
        "on_expiry": ["drop", None], "notify": [True, False], "segment_size": ["64kB", "128kB", "1MB"],
        "message_ttl": [0, None], "dead_letter": [None]}

    def scene(self):
        time.sleep(self.rng.random() * 0.5)
        self.pick((2, self.alter), (1, self.pause))()

    def alter(self):
        names = self.rng.sample(sorted(self.CHOICES), self.rng.randint(1, 4))
        self.call("SELECT queue.alter(%s, %s)", ALTERED, json.dumps(
            {name: self.rng.choice(self.CHOICES[name]) for name in names}))

    def pause(self):
        side = self.rng.choice(["dequeue", "enqueue", "both"])
        try:
            self.switch(side, True)
            time.sleep(self.rng.uniform(0, 0.8))
        finally:
            self.go_on(side)

    def go_on(self, side):
        while now() < self.deadline:
            try:
                return self.switch(side, False)
            except Lost:
                self.connection.close()
                self.connect()
            except Failed:
                time.sleep(0.05)

    def switch(self, side, on):
        def work():
            self.call("SELECT queue.%s(%%s, %%s)" % ("pause" if on else "resume"), ALTERED, side)
            return {}
        self.operate("pause", work, q=ALTERED, side=side, on=on)


class Churner(Client):
    """Creates, alters, pauses, uses and drops queues that others use too; only errors are judged."""

    ALLOWED = {
        "42704",                    # it was dropped
        "42710",                    # it exists, or its dead-letter queue does
        "QU002",                    # paused
        "55006", "2BP01", "55000",  # not empty
        "42P01",                    # its view was dropped
    }

    def scene(self):
        queue = "churn%d" % self.rng.randint(0, 2)
        if self.rng.random() < 0.3:
            self.begin()
            for _ in range(self.rng.randint(1, 3)):
                self.step(queue)
            self.end(self.ending(abort=0.4))
        else:
            self.step(queue)

    def step(self, queue):
        rng = self.rng
        text, *arguments = rng.choice([
            ("SELECT queue.create(%s, '{\"if_not_exists\": true, \"segment_size\": \"64kB\"}')", queue),
            ("SELECT queue.create(%s)", queue),
            ("SELECT queue.drop(%s, %s)", queue, rng.random() < 0.7),
            ("SELECT queue.alter(%s, '{\"max_attempts\": 2, \"backoff\": \"none\"}')", queue),
            ("SELECT queue.alter(%s, %s)", queue, json.dumps({rng.choice(sorted(Steward.CHOICES)): None})),
            ("SELECT queue.alter(%s, %s)", queue, rng.choice([
                '{"message_ttl": "20 ms", "on_expiry": "drop"}', '{"dead_letter": ""}', '{"dead_letter": "parking"}',
                '{"message_ttl": null, "dead_letter": null}'])),
            ("SELECT queue.extend(receipt, '1 s') FROM queue.dequeue(%s, 3)", queue),
            ("DELETE FROM queues." + queue + " WHERE state <> 'leased' AND %s <> ''", queue),
            ("SELECT queue.pause(%s, %s)", queue, rng.choice(["dequeue", "enqueue", "both"])),
            ("SELECT queue.resume(%s, 'both')", queue),
            ("SELECT queue.purge(%s)", queue),
            ("SELECT queue.enqueue(%s, '{}')", queue),
            ("SELECT queue.enqueue_batch(%s, array_fill('{\"a\": 1}'::jsonb, ARRAY[50]))", queue),
            ("SELECT queue.dequeue(%s, 10, '300 ms', '200 ms')", queue),
            ("SELECT queue.pop(%s, 5)", queue),
            ("SELECT queue.ack(receipt) FROM queue.dequeue(%s, 10)", queue),
            ("SELECT queue.nack(receipt) FROM queue.dequeue(%s, 10)", queue),
            ("SELECT queue.reject(receipt) FROM queue.dequeue(%s, 3)", queue),
            ("SELECT queue.release(receipt) FROM queue.dequeue(%s, 10)", queue),
            ("SELECT count(*) FROM queue.stats",), ("SELECT count(*) FROM queue.segments",),
        ] + ([] if self.x else [("CALL queue.wait(%s, '300 ms')", queue)]))
        name = self.writer.next_name()
        try:
            self.call(text, *arguments)
        except Failed as error:
            # Two that have used a queue and then change it wait for each other.
            if error.code not in self.ALLOWED and not (error.code == "40P01" and self.x):
                self.writer.put("odd", op=name, code=error.code, text="%s %s: %s" % (text, queue, error.text))
            raise
