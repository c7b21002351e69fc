"""
client.py
	What all random clients share: connections, transactions, the record of what
	they do.

Each works until the deadline in a loop of small scenes, drawn from its own
random generator, and writes down each operation before and after (history.py).
An error ends the scene; a lost connection is opened again.
"""

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
    # Few keys, so that they are held, fail and wait.
    "in line": {"options": {"max_attempts": 0, "backoff": "fixed", "backoff_base": "20 ms", "ordered": True}, "share": 2,
                "ttl": 0.005, "keys": 6},
    "strict": {"options": {"max_attempts": 3, "backoff": "none", "ordered": True}, "share": 1, "ttl": 0, "keys": 40},
    # No more than so many leases at a time, and a rate that is reached now and then.
    "few": {"options": {"max_attempts": 0, "backoff": "none"}, "share": 2, "ttl": 0.005, "keys": 6,
            "most": {"queue": 8, "key": 2}, "rate": 200},
    # Keys take turns.
    "turns": {"options": {"max_attempts": 3, "backoff": "none", "fair_share": True}, "share": 1, "ttl": 0.005, "keys": 20},
    "urgent": {"options": {"max_attempts": 0, "backoff": "none", "aging_step": "1 s"}, "share": 1, "ttl": 0.005,
               "priorities": 1.0},
    # Its options change, and it is paused now and then.
    "altered": {"options": {"max_attempts": 3, "backoff": "none"}, "share": 1, "ttl": 0, "limits": [2, 3, 4]},
}
PURGED = {"swept"}
ALTERED = "altered"

URGENT = "urgent"

# For a backlog that stays: see run --backlog.
DEEP = "deep"

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
        self.asked = 0.0            # when the last statement was sent

    def stop(self):
        self.deadline = 0.0

    # ----- connection and transactions

    def connect(self, pause=0.1):
        while True:
            try:
                self.connection = psycopg2.connect(self.dsn, application_name="stress " + self.name,
                                                   connect_timeout=10)
                self.connection.autocommit = True
                return
            except psycopg2.OperationalError:
                if now() > self.deadline + 20:
                    raise Lost()
                time.sleep(pause)

    def call(self, text, *arguments):
        """Runs a statement; returns its rows."""
        before, began = self.asked, now()
        self.asked = began
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(text, arguments or None)
                return cursor.fetchall() if cursor.description else []
        except (psycopg2.Error, SystemError) as error:
            raise self.fault(self.x, error, before, began)
        finally:
            if now() - began > SLOW:
                self.writer.put("slow", text=text, seconds=now() - began)

    def fault(self, x, error, before, began):
        """Writes down since when the transaction may be rolled back: the server does that now, not when
        it is told to; and a connection is found lost long after, perhaps while the last answer came."""
        failure = self.explain(error)
        if x:
            self.writer.put("fault", x=x, t0=before if isinstance(failure, Lost) else began)
        return failure

    def explain(self, error):
        # psycopg2 has its own way to say that a COPY lost its connection.
        code = getattr(error, "pgcode", None) or "08006"
        message = str(error).strip()
        lost = self.connection.closed or code.startswith(("08", "57P"))
        result = (Lost if lost else Failed)(code, message)
        result.code = code
        result.text = message
        return result

    def begin(self):
        level = self.rng.choice(["", "", "", "", "", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE"])
        self.call("BEGIN" + level)
        self.x = self.writer.next_name()
        self.ops = []
        self.writer.put("begin", x=self.x, t=now())

    def call_procedure(self, facts, keep, text, *arguments):
        """A call that is a transaction for each of facts, which it commits or rolls back. An answer
        that is lost says nothing about them: their marks do."""
        began = now()
        names = []
        xs = []
        for fact, kept in zip(facts, keep):
            kind, fact = fact
            xs.append(self.writer.next_name())
            names.append(self.writer.next_name())
            self.writer.put("begin", x=xs[-1], t=began)
            self.writer.put(kind, op=names[-1], x=xs[-1], t0=began, blind=True, **fact)
            self.writer.put("end", x=xs[-1], how="commit" if kept else "abort", t0=began)
        try:
            rows = self.call(text, *arguments, xs, keep)
        except (Lost, Failed) as error:
            self.writer.put("odd", op=names[0], code=error.code, text="%s: %s" % (text, error.text))
            raise
        ended = now()
        for place, name in enumerate(names):
            answer = {"rows": rows[0][0][place]} if rows else {}
            self.writer.put("reply", op=name, t1=ended, **answer)
            self.writer.put("ended", x=xs[place], how="commit" if keep[place] else "abort", t1=ended)

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
        answer = self.command("COMMIT" if how == "commit" else "ROLLBACK", x)
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

    def command(self, text, x):
        """Ends a transaction and returns what the server says it did."""
        before, self.asked = self.asked, now()
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.statusmessage
        except (psycopg2.Error, SystemError) as error:
            raise self.fault(x, error, before, self.asked)

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

    def pick_steady(self):
        """One that is not paused."""
        queue = self.pick_queue()
        return "open" if queue == ALTERED else queue

    def pick(self, *choices):
        """One of (weight, function) pairs."""
        return self.rng.choices([function for _, function in choices], [weight for weight, _ in choices])[0]


def resolve(writer, client, gid, how):
    writer.put("resolve", gid=gid, how=how, t0=now())
    client.call(("COMMIT" if how == "commit" else "ROLLBACK") + " PREPARED %s", gid)
    writer.put("resolved", gid=gid, how=how, t1=now())


def seconds(value):
    return None if value is None else "%g s" % value


def options(facts):
    return '{"max_attempts": %d}' % facts["max"] if "max" in facts else None


def payload(message):
    return '{"tag": "%s", "pad": "%s"}' % (message["tag"], message["pad"])


def body(message):
    return ("%s|%s" % (message["tag"], message["pad"])).encode()
