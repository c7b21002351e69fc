"""
clients.py
	The random clients: producers, consumers, removers.

Each works until the deadline in a loop of small scenes, drawn from its own
random generator, and writes down each operation before and after (history.py).
An error ends the scene; a lost connection is opened again.
"""

import hashlib
import io
import os
import signal
import time

import psycopg2
import psycopg2.extensions

from history import now

# Past this backlog producers wait.
BACKLOG = 400

# Odds that a transaction is prepared; run --no-prepared makes it 0.
PREPARED = {"odds": 0.04}

# A statement that takes longer is reported.
SLOW = 15.0

# name: options of the queue, share of the load, odds of a time to live
QUEUES = {
    "open": {"options": {"max_attempts": 0, "backoff": "none"}, "share": 4, "ttl": 0.005},
    "three": {"options": {"max_attempts": 3, "backoff": "fixed", "backoff_base": "50 ms"}, "share": 4, "ttl": 0.005},
    "brief": {"options": {"max_attempts": 3, "on_expiry": "drop", "backoff_base": "20 ms",
                          "message_ttl": "5 s"}, "share": 1, "ttl": 0.3, "max_ttl": 5.0},
    "swept": {"options": {"max_attempts": 0, "backoff": "none"}, "share": 1, "ttl": 0},
    "Odd \"name\"": {"options": {"max_attempts": 2, "backoff_base": "20 ms"}, "share": 1, "ttl": 0},
}
PURGED = {"swept"}

TAG = "coalesce(payload->>'tag', split_part(convert_from(body, 'UTF8'), '|', 1))"
SUM = "left(md5(coalesce(payload->>'pad', split_part(convert_from(body, 'UTF8'), '|', 2))), 8)"
DEQUEUED = ("id, " + TAG + ", " + SUM + ", receipt::text, attempt, extract(epoch FROM lease_until)::float8, "
            "extract(epoch FROM expires_at)::float8, key")


def quote(name):
    return '"' + name.replace('"', '""') + '"'


class Lost(Exception):
    """The connection is gone."""


class Failed(Exception):
    """The server said no."""


class Client:
    def __init__(self, name, rng, writer, dsn, deadline):
        self.name = name
        self.rng = rng
        self.writer = writer
        self.dsn = dsn
        self.deadline = deadline
        self.connection = None
        self.x = None
        self.ops = []               # of the open transaction

    # ----- connection and transactions

    def connect(self):
        while True:
            try:
                self.connection = psycopg2.connect(self.dsn, application_name="stress " + self.name,
                                                   connect_timeout=10)
                self.connection.autocommit = True
                return
            except psycopg2.OperationalError:
                if now() > self.deadline + 20:
                    raise Lost()
                time.sleep(0.1)

    def call(self, text, *arguments):
        """Runs a statement; returns its rows."""
        began = now()
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(text, arguments or None)
                return cursor.fetchall() if cursor.description else []
        except psycopg2.Error as error:
            # The server rolls back to the savepoint now, not when it is told to.
            if self.x:
                self.writer.put("fault", x=self.x, t0=began)
            raise self.explain(error)
        finally:
            if now() - began > SLOW:
                self.writer.put("slow", text=text, seconds=now() - began)

    def explain(self, error):
        code = error.pgcode or "08006"
        message = str(error).strip()
        lost = self.connection.closed or code.startswith(("08", "57P"))
        result = (Lost if lost else Failed)(code, message)
        result.code = code
        result.text = message
        return result

    def begin(self):
        level = self.rng.choice(["", "", "", "", " ISOLATION LEVEL REPEATABLE READ"])
        self.call("BEGIN" + level)
        self.x = self.writer.next_name()
        self.ops = []
        self.writer.put("begin", x=self.x, t=now())

    def mark(self):
        """The business row: there if and only if the transaction committed."""
        self.call("INSERT INTO stress.mark VALUES (%s)", self.x)

    def end(self, how):
        """Commits, aborts, or goes through a prepared transaction."""
        x = self.x
        if how == "commit":
            self.mark()
        elif how == "prepare":
            return self.end_prepared()
        self.writer.put("end", x=x, how=how, t0=now())
        self.x = None
        answer = self.command("COMMIT" if how == "commit" else "ROLLBACK")
        self.writer.put("ended", x=x, how="commit" if answer == "COMMIT" else "abort", t1=now())

    def end_prepared(self):
        x = self.x
        self.mark()
        self.writer.put("end", x=x, how="prepare", t0=now(), gid=x)
        self.x = None
        self.call("PREPARE TRANSACTION %s", x)
        if self.rng.random() < 0.2:
            return                  # whoever comes last resolves it
        if self.rng.random() < 0.3:
            time.sleep(self.rng.random() * 0.5)
        resolve(self.writer, self, x, "commit" if self.rng.random() < 0.7 else "abort")

    def command(self, text):
        """Runs a command and returns what the server says it was."""
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.statusmessage
        except psycopg2.Error as error:
            raise self.explain(error)

    def ending(self, abort=0.3):
        dice = self.rng.random()
        return "abort" if dice < abort else "prepare" if dice < abort + PREPARED["odds"] else "commit"

    def undo(self, savepoint, since):
        self.writer.put("undo", x=self.x, ops=self.ops[since:], t0=now())
        self.call("ROLLBACK TO " + savepoint)

    # ----- an operation

    def operate(self, kind, work, **facts):
        """Writes down the intent, works, writes down the answer."""
        name = self.writer.next_name()
        if self.x:
            self.ops.append(name)
        self.writer.put(kind, op=name, x=self.x, t0=now(), **facts)
        try:
            answer = work()
        except (Lost, Failed) as error:
            self.writer.put("error", op=name, t1=now(), code=error.code, text=error.text)
            raise
        self.writer.put("reply", op=name, t1=now(), **answer)
        return answer

    # ----- the loop

    def run(self):
        self.connect()
        while now() < self.deadline:
            try:
                self.scene()
            except Lost:
                self.x = None
                try:
                    self.connection.close()
                except psycopg2.Error:
                    pass
                try:
                    self.connect()
                except Lost:
                    return
            except Failed:
                try:
                    if self.x:
                        self.end("abort")
                    else:
                        self.call("ROLLBACK")
                except (Lost, Failed):
                    self.x = None

    def pick_queue(self):
        names = list(QUEUES)
        return self.rng.choices(names, [QUEUES[name]["share"] for name in names])[0]

    def pick(self, *choices):
        """One of (weight, function) pairs."""
        return self.rng.choices([function for _, function in choices], [weight for weight, _ in choices])[0]


def resolve(writer, client, gid, how):
    writer.put("resolve", gid=gid, how=how, t0=now())
    client.call(("COMMIT" if how == "commit" else "ROLLBACK") + " PREPARED %s", gid)
    writer.put("resolved", gid=gid, how=how, t1=now())


class Producer(Client):
    tags = 0
    scenes = 0

    def scene(self):
        self.scenes += 1
        if self.scenes % 20 == 0:
            self.hold_back()
        self.pick((6, self.single), (3, self.several), (2, self.nested))()

    def hold_back(self):
        while now() < self.deadline:
            rows = self.call("SELECT coalesce(max(ready), 0) FROM queue.stats WHERE queue NOT LIKE '%%\\_dead'"
                             .replace("%%", "%"))
            if rows[0][0] < BACKLOG:
                return
            time.sleep(0.2)

    def single(self):
        self.enqueue()

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
        key = "k%d" % rng.randint(0, 50) if rng.random() < 0.3 else None
        return {"tag": tag, "pad": pad, "key": key,
                "sum": hashlib.md5(pad.encode()).hexdigest()[:8]}

    def enqueue(self):
        rng = self.rng
        queue = self.pick_queue()
        traits = QUEUES[queue]
        facts = {"q": queue}
        if rng.random() < 0.06:
            facts["delay"] = round(rng.uniform(0.02, 2), 3) if rng.random() < 0.9 else rng.randint(70, 300)
        if rng.random() < traits["ttl"]:
            facts["ttl"] = round(rng.uniform(0.3, traits.get("max_ttl", 600)), 3)
        if rng.random() < 0.06:
            facts["max"] = rng.randint(1, 4)
        self.pick((8, self.put_json), (2, self.put_bytes), (3, self.put_batch), (1, self.put_bytes_batch),
                  (2, self.put_insert), (2, self.put_copy))(facts)

    def record(self, facts, messages, work):
        self.operate("enqueue", work, m=[{"tag": message["tag"], "sum": message["sum"], "key": message["key"]}
                                         for message in messages], **facts)

    def common(self, facts):
        """delay, ttl, options as the functions take them."""
        return (seconds(facts.get("delay")), seconds(facts.get("ttl")), options(facts))

    def headers(self):
        return '{"trace": "%d"}' % self.rng.randint(0, 99) if self.rng.random() < 0.2 else None

    def put_json(self, facts):
        message = self.message()
        delay, ttl, extra = self.common(facts)
        self.record(facts, [message], lambda: {"ids": [self.call(
            "SELECT queue.enqueue(%s, %s, %s, %s, delay => %s::interval, ttl => %s::interval, options => %s)",
            facts["q"], payload(message), message["key"], self.headers(), delay, ttl, extra)[0][0]]})

    def put_bytes(self, facts):
        message = self.message()
        delay, ttl, extra = self.common(facts)
        self.record(facts, [message], lambda: {"ids": [self.call(
            "SELECT queue.enqueue_bytes(%s, %s, %s, %s, delay => %s::interval, ttl => %s::interval, options => %s)",
            facts["q"], body(message), message["key"], self.headers(), delay, ttl, extra)[0][0]]})

    def put_many(self, facts, function, kind, values):
        messages = [self.message() for _ in range(self.batch_size())]
        delay, ttl, extra = self.common(facts)
        self.record(facts, messages, lambda: {"ids": self.call(
            "SELECT queue.%s(%%s, %%s::%s[], %%s::text[], delay => %%s::interval, ttl => %%s::interval, options => %%s)"
            % (function, kind), facts["q"], [values(message) for message in messages],
            [message["key"] for message in messages], delay, ttl, extra)[0][0]})

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
            values += [payload(message), message["key"], self.headers(), *common]
        row = "(%s::jsonb, %s::text, %s::jsonb, %s::interval, %s::interval, %s::jsonb)"
        self.record(facts, messages, lambda: {"ids": [row[0] for row in self.call(
            "INSERT INTO queues." + quote(facts["q"]).replace("%", "%%") +
            " (payload, key, headers, delay, ttl, options) VALUES " + ", ".join([row] * len(messages)) +
            " RETURNING id", *values)]})

    def put_copy(self, facts):
        messages = [self.message() for _ in range(self.batch_size())]
        delay, ttl, extra = self.common(facts)
        lines = "".join("\t".join("\\N" if value is None else value for value in (
            payload(message), message["key"], delay, ttl, extra)) + "\n" for message in messages)
        self.record(facts, messages, lambda: self.copy(facts["q"], lines))

    def copy(self, queue, lines):
        began = now()
        try:
            with self.connection.cursor() as cursor:
                cursor.copy_expert("COPY queues." + quote(queue) + " (payload, key, delay, ttl, options) FROM STDIN",
                                   io.StringIO(lines))
        except psycopg2.Error as error:
            if self.x:
                self.writer.put("fault", x=self.x, t0=began)
            raise self.explain(error)
        return {}


def seconds(value):
    return None if value is None else "%g s" % value


def options(facts):
    return '{"max_attempts": %d}' % facts["max"] if "max" in facts else None


def payload(message):
    return '{"tag": "%s", "pad": "%s"}' % (message["tag"], message["pad"])


def body(message):
    return ("%s|%s" % (message["tag"], message["pad"])).encode()


class Consumer(Client):
    # Receipts of a while ago, to come back with when they should be void.
    old = ()

    def scene(self):
        self.pick((8, self.settle_apart), (5, self.work_in_transaction), (3, self.pop),
                  (3, self.nested), (2, self.ack_all), (1, self.late), (1, self.stale), (0.03, self.die))()

    def dequeue(self, most=8, pop=False, queue=None):
        rng = self.rng
        queue = queue or self.pick_queue()
        count = rng.randint(1, most) if rng.random() < 0.9 else 40
        lease = round(rng.uniform(0.1, 0.6), 3) if rng.random() < 0.5 else round(rng.uniform(1, 4), 3)
        wait = "%d ms" % rng.randint(10, 400) if rng.random() < 0.3 else None
        if not self.x and rng.random() < 0.05:
            self.call("CALL queue.wait(%s, %s::interval)", queue, "%d ms" % rng.randint(10, 500))
        if pop:
            answer = self.operate("dequeue", lambda: {"rows": self.call(
                "SELECT " + DEQUEUED + " FROM queue.pop(%s, %s)", queue, count)},
                q=queue, lease=30.0, pop=True, most=count)
        else:
            answer = self.operate("dequeue", lambda: {"rows": self.call(
                "SELECT " + DEQUEUED + " FROM queue.dequeue(%s, %s, %s::interval, %s::interval)",
                queue, count, seconds(lease), wait)}, q=queue, lease=lease)
        receipts = [row[3] for row in answer["rows"]]
        if not receipts:
            time.sleep(rng.random() * 0.02)
        if receipts and not pop:
            self.old = (list(self.old) + rng.sample(receipts, 1))[-20:]
        return receipts

    # ----- ways to settle

    def ask(self, how, receipts, text, *arguments, delay=None):
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
        return self.operate("settle", work, how=how.replace("nack_batch", "nack").replace("release_batch", "release"),
                            receipts=receipts, delay=delay)

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
        self.ask("nack_batch", receipts,
                 "SELECT receipt::text, status FROM queue.nack_batch(%s::uuid[], 'all failed')", receipts)

    def reject(self, receipt):
        self.ask("reject", [receipt], "SELECT queue.reject(%s, 'no good')", receipt)

    def release(self, receipt):
        delay = self.pick_delay()
        self.ask("release", [receipt], "SELECT queue.release(%s, %s::interval)", receipt, seconds(delay), delay=delay)

    def release_batch(self, receipts):
        self.ask("release_batch", receipts,
                 "SELECT receipt::text, status FROM queue.release_batch(%s::uuid[])", receipts)

    def extend(self, receipt):
        lease = seconds(round(self.rng.uniform(0.1, 2), 3))
        self.ask("extend", [receipt], "SELECT extract(epoch FROM queue.extend(%s, %s::interval))::float8",
                 receipt, lease)

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
        if self.rng.random() < 0.5:
            self.ack_batch(receipts)
        else:
            for receipt in receipts:
                self.settle_one(receipt)
        if self.rng.random() < 0.1:
            time.sleep(self.rng.random() * 0.7)
        self.end(self.ending(abort=0.2))

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

    def die(self):
        """With leases held, in the middle of a transaction or not."""
        if self.rng.random() < 0.5:
            self.begin()
        self.dequeue()
        os.kill(os.getpid(), signal.SIGKILL)


class Remover(Client):
    """Cancels messages, deletes them from the view, purges; looks at everything."""

    def scene(self):
        time.sleep(self.rng.random() * 0.15)
        self.pick((4, self.cancel), (3, self.delete), (1, self.purge), (1, self.watch), (0.3, self.hold))()

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
                                '{"older_than": "300 ms"}', '{"states": ["ready", "failed"]}'])
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
            "SELECT * FROM queue.health()", "CHECKPOINT", "VACUUM", "SELECT count(*) FROM queues.open", "SELECT * FROM queue.check()"]))


class Churner(Client):
    """Creates, alters, pauses, uses and drops queues that others use too; only errors are judged."""

    ALLOWED = {
        "42704",                    # it was dropped
        "42710",                    # it exists, or its dead-letter queue does
        "QU002",                    # paused
        "55006", "2BP01", "55000",  # not empty
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
            if error.code not in self.ALLOWED:
                self.writer.put("odd", op=name, code=error.code, text="%s %s: %s" % (text, queue, error.text))
            raise
