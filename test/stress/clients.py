"""
clients.py
	Producers and consumers.
"""

import hashlib
import io
import os
import signal
import time
import uuid

import psycopg2

from client import (ALTERED, BACKLOG, DEQUEUED, QUEUES, Client, Failed, body, options, payload, quote, seconds)
from history import now


class Producer(Client):
    tags = 0
    keys = None                     # of the queue at hand, if it has few
    scenes = 0

    def scene(self):
        self.scenes += 1
        if self.scenes % 20 == 0:
            self.hold_back()
        self.pick((6, self.single), (3, self.several), (2, self.nested), (0.5, self.procedure))()

    def hold_back(self):
        while now() < self.deadline:
            rows = self.call("SELECT coalesce(max(ready), 0) FROM queue.stats WHERE queue NOT LIKE '%\\_dead' AND queue <> 'deep'")
            if rows[0][0] < BACKLOG:
                return
            time.sleep(0.2)

    def single(self):
        self.enqueue()

    def procedure(self):
        """Transactions of a procedure, each with a message."""
        keep = [self.rng.random() < 0.7 for _ in range(self.rng.randint(1, 4))]
        queue = self.pick_steady()
        self.keys = QUEUES[queue].get("keys")
        messages = [self.message() for _ in keep]
        self.call_procedure([("enqueue", {"q": queue, "m": [spec(message)]}) for message in messages], keep,
                            "CALL stress.put(%s, %s::jsonb[], %s::text[], %s::text[], %s::boolean[])", queue,
                            [payload(message) for message in messages], [message["key"] for message in messages])

    def several(self):
        self.begin()
        for _ in range(self.rng.randint(1, 4)):
            self.enqueue()
        if self.rng.random() < 0.2:
            time.sleep(self.rng.random() * 0.1)
        self.end(self.ending())

    def nested(self):
        """Savepoints, kept or rolled back, two deep."""
        self.begin()
        for depth in range(self.rng.randint(1, 3)):
            since = len(self.ops)
            self.call("SAVEPOINT a")
            self.enqueue()
            inner = len(self.ops)
            if self.rng.random() < 0.4:
                self.call("SAVEPOINT b")
                self.enqueue()
                if self.rng.random() < 0.5:
                    self.undo("b", inner)
            if self.rng.random() < 0.4:
                self.undo("a", since)
                if self.rng.random() < 0.5:
                    self.enqueue()
            elif self.rng.random() < 0.5:
                self.call("RELEASE a")
        self.end(self.ending())

    # ----- messages

    def message(self):
        self.tags += 1
        rng = self.rng
        tag = "%s-%d" % (self.name, self.tags)
        length = rng.choice([0, 10, 100, 100, 100, 300])
        if rng.random() < 0.02:
            length = rng.choice([3000, 20000, 60000])
        pad = "%0*x" % (length, rng.getrandbits(4 * length)) if length else ""
        key = None
        if rng.random() < (0.95 if self.keys else 0.3):
            key = "k%d" % rng.randint(0, (self.keys or 50) - 1)
        return {"tag": tag, "pad": pad, "key": key,
                "sum": hashlib.md5(pad.encode()).hexdigest()[:8]}

    def enqueue(self):
        rng = self.rng
        queue = self.pick_queue()
        traits = QUEUES[queue]
        self.keys = traits.get("keys")
        facts = {"q": queue}
        if rng.random() < 0.06:
            facts["delay"] = round(rng.uniform(0.02, 2), 3) if rng.random() < 0.9 else rng.randint(70, 300)
        if rng.random() < traits["ttl"]:
            facts["ttl"] = round(rng.uniform(0.3, traits.get("max_ttl", 600)), 3)
        if rng.random() < 0.06:
            facts["max"] = rng.randint(1, 4)
        if traits.get("priorities") and rng.random() < 0.9:
            facts["priority"] = rng.randint(0, 9)
        self.pick((7, self.put_json), (1, self.put_unique), (2, self.put_bytes), (3, self.put_batch),
                  (1, self.put_bytes_batch), (2, self.put_insert), (2, self.put_copy), (0.5, self.put_at),
                  (1, self.put_trigger))(facts)

    def record(self, facts, messages, work):
        self.operate("enqueue", work, m=[spec(message) for message in messages], **facts)

    def common(self, facts):
        """delay, ttl, options as the functions take them."""
        return (seconds(facts.get("delay")), seconds(facts.get("ttl")), options(facts))

    def headers(self):
        return '{"trace": "%d"}' % self.rng.randint(0, 99) if self.rng.random() < 0.2 else None

    def put_json(self, facts):
        message = self.message()
        delay, ttl, extra = self.common(facts)
        self.record(facts, [message], lambda: {"ids": [self.call(
            "SELECT queue.enqueue(%s, %s, %s, %s, delay => %s::interval, ttl => %s::interval, options => %s, priority => %s)",
            facts["q"], payload(message), message["key"], self.headers(), delay, ttl, extra, facts.get("priority"))[0][0]]})

    def put_unique(self, facts):
        message = self.message()
        delay, ttl, extra = self.common(facts)
        self.record(facts, [message], lambda: {"ids": [self.call(
            "SELECT id FROM queue.enqueue_unique(%s, %s, %s, %s, delay => %s::interval, ttl => %s::interval, options => %s, priority => %s)",
            facts["q"], payload(message), message["key"], self.headers(), delay, ttl, extra, facts.get("priority"))[0][0]]})

    def put_at(self, facts):
        """For a time, by function or INSERT; one in the past now and then."""
        message = self.message()
        at = now() + self.rng.uniform(-5, 2)
        text = self.rng.choice([
            "SELECT queue.enqueue(%s, %s, %s, deliver_at => to_timestamp(%s))",
            "INSERT INTO queues." + quote(facts["q"]).replace("%", "%%") +
            " (payload, key, deliver_at) SELECT payload, key, at FROM (VALUES (%s, %s::jsonb, %s::text, to_timestamp(%s)))"
            " AS v (queue, payload, key, at) RETURNING id"])
        self.record({"q": facts["q"], "at": at}, [message], lambda: {"ids": [self.call(
            text, facts["q"], payload(message), message["key"], at)[0][0]]})

    def put_trigger(self, facts):
        """By the trigger of a table, which runs at once or at the end of the transaction."""
        messages = [self.message() for _ in range(self.rng.choice([1, 1, 3]))]
        late = self.rng.random() < 0.5
        values = []
        for message in messages:
            values += [facts["q"], payload(message), message["key"]]
        text = "INSERT INTO stress.told%s VALUES %s" % (
            "_late" if late else "", ", ".join(["(%s, %s::jsonb, %s::text)"] * len(messages)))

        def work():
            self.call(text, *values)
            return {}
        self.record(dict({"q": facts["q"]}, **({"deferred": True} if late else {})), messages, work)

    def put_bytes(self, facts):
        message = self.message()
        delay, ttl, extra = self.common(facts)
        self.record(facts, [message], lambda: {"ids": [self.call(
            "SELECT queue.enqueue_bytes(%s, %s, %s, %s, delay => %s::interval, ttl => %s::interval, options => %s, priority => %s)",
            facts["q"], body(message), message["key"], self.headers(), delay, ttl, extra, facts.get("priority"))[0][0]]})

    def put_many(self, facts, function, kind, values):
        messages = [self.message() for _ in range(self.batch_size())]
        delay, ttl, extra = self.common(facts)
        self.record(facts, messages, lambda: {"ids": self.call(
            "SELECT queue.%s(%%s, %%s::%s[], %%s::text[], %%s::jsonb[], delay => %%s::interval, ttl => %%s::interval, "
            "options => %%s, priority => %%s)" % (function, kind), facts["q"], [values(message) for message in messages],
            [message["key"] for message in messages], [self.headers() for _ in messages], delay, ttl, extra,
            facts.get("priority"))[0][0]})

    def batch_size(self):
        return self.rng.randint(100, 300) if self.rng.random() < 0.03 else self.rng.randint(1, 20)

    def put_batch(self, facts):
        self.put_many(facts, "enqueue_batch", "jsonb", payload)

    def put_bytes_batch(self, facts):
        self.put_many(facts, "enqueue_bytes_batch", "bytea", body)

    def put_insert(self, facts):
        messages = [self.message() for _ in range(self.rng.choice([1, 1, 5]))]
        common = self.common(facts)
        values = []
        for message in messages:
            content = [payload(message), None] if self.rng.random() < 0.7 else [None, body(message)]
            values += [*content, message["key"], self.headers(), *common, facts.get("priority")]
        row = "(%s::jsonb, %s::bytea, %s::text, %s::jsonb, %s::interval, %s::interval, %s::jsonb, %s::smallint)"
        self.record(facts, messages, lambda: {"ids": [row[0] for row in self.call(
            "INSERT INTO queues." + quote(facts["q"]).replace("%", "%%") +
            " (payload, body, key, headers, delay, ttl, options, priority) VALUES " + ", ".join([row] * len(messages)) +
            " RETURNING id", *values)]})

    def put_copy(self, facts):
        messages = [self.message() for _ in range(self.batch_size())]
        delay, ttl, extra = self.common(facts)
        lines = "".join("\t".join("\\N" if value is None else value for value in (
            payload(message), message["key"], self.headers(), delay, ttl, extra,
            None if facts.get("priority") is None else str(facts["priority"]))) + "\n" for message in messages)
        self.record(facts, messages, lambda: self.copy(facts["q"], lines))

    def copy(self, queue, lines):
        before, self.asked = self.asked, now()
        try:
            with self.connection.cursor() as cursor:
                cursor.copy_expert("COPY queues." + quote(queue) + " (payload, key, headers, delay, ttl, options, priority) FROM STDIN",
                                   io.StringIO(lines))
        except (psycopg2.Error, SystemError) as error:
            raise self.fault(self.x, error, before, self.asked)
        return {}


def spec(message):
    """What the history says of it."""
    return {"tag": message["tag"], "sum": message["sum"], "key": message["key"]}


class Consumer(Client):
    # Receipts of a while ago, to come back with when they should be void.
    old = ()
    dequeued_from = None

    def scene(self):
        self.pick((8, self.settle_apart), (5, self.work_in_transaction), (3, self.pop),
                  (3, self.nested), (2, self.ack_all), (1, self.late), (1, self.stale), (0.3, self.forge),
                  (0.5, self.procedure), (0.5, self.wait), (0.03, self.die))()

    def dequeue(self, most=8, pop=False, queue=None):
        rng = self.rng
        queue = self.dequeued_from = queue or self.pick_queue()
        count = rng.randint(1, most) if rng.random() < 0.9 else 40
        lease = round(rng.uniform(0.1, 0.6), 3) if rng.random() < 0.5 else round(rng.uniform(1, 4), 3)
        wait = "%d ms" % rng.randint(10, 400) if rng.random() < 0.3 else None
        if not self.x and rng.random() < 0.05:
            self.wait(queue)
        if pop:
            answer = self.operate("dequeue", lambda: {"rows": self.call(
                "SELECT " + DEQUEUED + " FROM queue.pop(%s, %s)", queue, count)},
                q=queue, lease=30.0, pop=True, most=count, vague=queue == ALTERED)
        else:
            how = None
            if rng.random() < 0.1:
                how = rng.choice(['{"consumer": "%s"}' % self.name, '{"max_bytes": %d}' % rng.randint(1, 2000),
                                  '{"consumer": "", "max_bytes": 1000}'])
            key = None
            if how is None and rng.random() < 0.15:
                key = "k%d" % rng.randint(0, (QUEUES[queue].get("keys") or 50) - 1) if rng.random() < 0.9 else ""
                how = '{"key": "%s"}' % key
            # Without a length it is the queue's.
            given = seconds(lease)
            if queue != ALTERED and rng.random() < 0.02:
                lease, given = 30.0, None
            answer = self.operate("dequeue", lambda: {"rows": self.call(
                "SELECT " + DEQUEUED + " FROM queue.dequeue(%s, %s, %s::interval, %s::interval, %s::jsonb)",
                queue, count, given, wait, how)}, q=queue, lease=lease, most=count,
                **({} if key is None else {"key": key}))
        receipts = [row[3] for row in answer["rows"]]
        if not receipts:
            time.sleep(rng.random() * 0.02)
        if receipts and not pop:
            self.old = (list(self.old) + rng.sample(receipts, 1))[-20:]
        return receipts

    # ----- ways to settle

    def ask(self, how, receipts, text, *arguments, delay=None, **facts):
        """A settlement of one receipt that raises, or of many with statuses."""
        def work():
            rows = self.call(text, *arguments)
            if how in ("ack", "release", "reject", "ack_batch"):
                return {"status": ["ok"] * len(receipts)}
            if how == "extend":
                return {"status": ["ok"], "until": rows[0][0]}
            if how == "nack":
                return {"status": [rows[0][0]]}
            return {"status": [row[1] for row in rows]}
        if how in ("nack_batch", "release_batch", "extend_batch"):
            kind = how[:-len("_batch")]
        else:
            kind = how
        return self.operate("settle", work, how=kind, receipts=receipts, delay=delay, **facts)

    def ack(self, receipt):
        self.ask("ack", [receipt], "SELECT queue.ack(%s)", receipt)

    def ack_batch(self, receipts):
        self.ask("ack_batch", receipts, "SELECT queue.ack_batch(%s::uuid[])", receipts)

    def try_ack(self, receipts):
        self.ask("try_ack", receipts, "SELECT receipt::text, status FROM queue.try_ack(%s::uuid[])", receipts)

    def pick_delay(self):
        return self.rng.choice([None, None, 0, 0.05, 0.5])

    def nack(self, receipt):
        delay = self.pick_delay()
        self.ask("nack", [receipt], "SELECT queue.nack(%s, %s, %s::interval)", receipt,
                 "it failed" if self.rng.random() < 0.5 else None, seconds(delay), delay=delay)

    def nack_batch(self, receipts):
        delay = self.pick_delay()
        self.ask("nack_batch", receipts, "SELECT receipt::text, status FROM queue.nack_batch(%s::uuid[], %s, %s::interval)",
                 receipts, "all failed" if self.rng.random() < 0.5 else None, seconds(delay), delay=delay)

    def reject(self, receipt):
        self.ask("reject", [receipt], "SELECT queue.reject(%s, 'no good')", receipt)

    def release(self, receipt):
        delay = self.pick_delay()
        self.ask("release", [receipt], "SELECT queue.release(%s, %s::interval)", receipt, seconds(delay), delay=delay)

    def release_batch(self, receipts):
        delay = self.pick_delay()
        self.ask("release_batch", receipts,
                 "SELECT receipt::text, status FROM queue.release_batch(%s::uuid[], %s::interval)", receipts,
                 seconds(delay), delay=delay)

    def extend(self, receipt):
        lease = round(self.rng.uniform(0.1, 2), 3)
        self.ask("extend", [receipt], "SELECT extract(epoch FROM queue.extend(%s, %s::interval))::float8",
                 receipt, seconds(lease), extension=lease)

    def extend_batch(self, receipts):
        lease = round(self.rng.uniform(0.1, 2), 3)
        self.ask("extend_batch", receipts, "SELECT receipt::text, status FROM queue.extend_batch(%s::uuid[], %s::interval)",
                 receipts, seconds(lease), extension=lease)

    def settle_one(self, receipt):
        """One of all ways, sometimes none."""
        rng = self.rng
        if rng.random() < 0.15:
            self.extend(receipt)
        self.pick((10, self.ack), (3, self.nack), (0.3, self.reject), (2, self.release),
                  (1, lambda receipt: None))(receipt)

    def tolerate(self, function, *arguments):
        """A lost lease is nothing to stop for outside of a transaction."""
        try:
            function(*arguments)
        except Failed as error:
            if error.code != "QU001" or self.x:
                raise

    # ----- scenes

    def settle_apart(self):
        """Dequeue, work, settle: transactions of their own."""
        receipts = self.dequeue()
        for receipt in receipts:
            if self.rng.random() < 0.05:
                time.sleep(self.rng.random() * 0.3)
            self.tolerate(self.settle_one, receipt)

    def ack_all(self):
        receipts = self.dequeue()
        if receipts:
            if self.rng.random() < 0.2:
                self.extend_batch(receipts)
            self.tolerate(self.pick((3, self.ack_batch), (3, self.try_ack), (1, self.nack_batch),
                                    (1, self.release_batch)), receipts)

    def work_in_transaction(self):
        """The ack in the transaction of the work; the dequeue in it or before it."""
        receipts = self.dequeue() if self.rng.random() < 0.5 else None
        self.begin()
        if receipts is None:
            receipts = self.dequeue()
        if not receipts:
            self.end("abort" if self.rng.random() < 0.5 else "commit")
            return
        if self.rng.random() < 0.1:
            time.sleep(self.rng.random() * 0.4)
        if QUEUES[self.dequeued_from]["options"].get("ordered") and self.rng.random() < 0.5:
            self.count(receipts)
        elif self.rng.random() < 0.5:
            self.ack_batch(receipts)
        else:
            for receipt in receipts:
                self.settle_one(receipt)
        if self.rng.random() < 0.1:
            time.sleep(self.rng.random() * 0.7)
        self.end(self.ending(abort=0.2))

    def count(self, receipts):
        """Count in the state of a key, before the ack or after it, and once more in a savepoint."""
        early = self.rng.random() < 0.6
        if not early:
            self.ack_batch(receipts)
        self.call("SELECT stress.count(%s)", self.rng.choice(receipts))
        if self.rng.random() < 0.3:
            self.call("SAVEPOINT counted")
            self.call("SELECT stress.count(%s)", self.rng.choice(receipts))
            self.call(self.rng.choice(("ROLLBACK TO counted", "RELEASE counted")))
        if self.rng.random() < 0.2:
            time.sleep(self.rng.random() * 0.4)
        if early:
            self.ack_batch(receipts)

    def pop(self):
        if self.rng.random() < 0.5:
            self.dequeue(pop=True)
            return
        self.begin()
        self.dequeue(pop=True)
        self.end(self.ending(abort=0.25))

    def nested(self):
        """Dequeue or settle below a savepoint that is rolled back, and go on."""
        self.begin()
        receipts = []
        if self.rng.random() < 0.5:
            receipts = self.dequeue()
        self.call("SAVEPOINT a")
        since = len(self.ops)
        if not receipts:
            receipts = self.dequeue(pop=self.rng.random() < 0.1)
        if receipts:
            try:
                for receipt in receipts:
                    if self.rng.random() < 0.7:
                        self.pick((4, self.ack), (1, self.nack), (0.2, self.reject), (0.5, self.release))(receipt)
                if self.rng.random() < 0.2:
                    self.call("SELECT 1/0 FROM pg_class")
            except Failed as error:
                if error.code.startswith("57"):
                    raise
                self.undo("a", since)
            else:
                if self.rng.random() < 0.5:
                    self.undo("a", since)
                elif self.rng.random() < 0.5:
                    self.call("RELEASE a")
            # After the rollback the leases are ours again; some were settled above.
            for receipt in receipts:
                self.call("SAVEPOINT b")
                inner = len(self.ops)
                try:
                    self.settle_one(receipt)
                except Failed as error:
                    if error.code != "QU001":
                        raise
                    self.undo("b", inner)
        self.end(self.ending(abort=0.2))

    def late(self):
        """Outstay the lease, then come back."""
        receipts = self.dequeue(most=3)
        if receipts:
            time.sleep(self.rng.uniform(0.1, 1.0))
            for receipt in receipts:
                self.tolerate(self.pick((2, self.ack), (1, self.extend), (1, self.release), (1, self.nack)), receipt)

    def stale(self):
        """Receipts of long ago."""
        if self.old:
            receipts = self.rng.sample(list(self.old), min(3, len(self.old)))
            if self.rng.random() < 0.5:
                self.try_ack(receipts)
            else:
                self.tolerate(self.pick((1, self.ack), (1, self.nack), (1, self.release), (1, self.extend),
                                        (0.3, self.reject)), receipts[0])

    def forge(self):
        """What was never a receipt, or is one with bits changed, or stands twice."""
        rng = self.rng
        receipts = [str(uuid.UUID(int=rng.getrandbits(128))), "00000000-0000-0000-0000-000000000000"]
        for old in list(self.old)[-3:]:
            number = uuid.UUID(old).int
            receipts.append(str(uuid.UUID(int=number ^ (1 << rng.randrange(128)))))
            receipts.append(str(uuid.UUID(int=number ^ (1 << rng.randrange(128)))))
        rng.shuffle(receipts)
        if rng.random() < 0.3:
            self.tolerate(self.pick((1, self.ack), (1, self.nack), (1, self.release), (1, self.extend), (1, self.reject)),
                          receipts[0])
        elif rng.random() < 0.3:
            receipts = self.dequeue(most=3)
            self.try_ack(receipts * 2)
        else:
            self.pick((3, self.try_ack), (1, self.nack_batch), (1, self.release_batch), (1, self.extend_batch))(receipts)

    def procedure(self):
        """Transactions of a procedure that dequeue and ack; some are rolled back."""
        keep = [self.rng.random() < 0.7 for _ in range(self.rng.randint(1, 4))]
        queue = self.pick_steady()
        self.call_procedure([("dequeue", {"q": queue, "lease": 30.0, "pop": True, "most": 3}) for _ in keep], keep,
                            "CALL stress.work(%s, %s, %s::text[], %s::boolean[], NULL)", queue, 3)

    def wait(self, queue=None):
        queue = queue or self.pick_queue()
        self.operate("wait", lambda: {"ready": self.call(
            "CALL queue.wait(%s, %s::interval)", queue, "%d ms" % self.rng.randint(10, 500))[0][0]}, q=queue)

    def die(self):
        """With leases held, in the middle of a transaction or not."""
        if self.rng.random() < 0.5:
            self.begin()
        self.dequeue()
        os.kill(os.getpid(), signal.SIGKILL)
