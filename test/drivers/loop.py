"""Puts a consumer of doc/consuming.md through what happens to consumers.

    loop.py LABEL COMMAND...

with PORT and DATABASE of the server, and DATABASE_URL and perhaps LISTEN_URL as the consumer wants
them. Orders are enqueued; the consumer ships them into the table shipments, whose trigger makes
some fail, some slow, and holds some at a gate. Prints a line for each case.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager

import psycopg
from psycopg import sql

LABEL, COMMAND = sys.argv[1], sys.argv[2:]
QUEUE = "Orders für " + LABEL.split(",")[0]
DEAD = QUEUE + "_dead"
LISTENS = "LISTEN_URL" in os.environ
GATE = 4711
PATIENCE = 60       # seconds until a condition that does not come true is a failure

db = psycopg.connect("postgresql://postgres@127.0.0.1:%s/%s" % (os.environ["PORT"], os.environ["DATABASE"]),
                     autocommit=True)


def one(query, *parameters):
    return db.execute(query, parameters or None).fetchone()[0]


def view(queue):
    return sql.SQL("queues.{}").format(sql.Identifier(queue)).as_string(db)


def check(truth, message):
    if not truth:
        raise AssertionError(message)


def equal(got, wanted, what):
    check(got == wanted, "%s: got %r, wanted %r" % (what, got, wanted))


def until(condition, what):
    end = time.monotonic() + PATIENCE
    while not condition():
        check(time.monotonic() < end, "waited %d s in vain: %s" % (PATIENCE, what))
        time.sleep(0.02)


def enqueue(order, fault=None):
    if fault:
        db.execute("INSERT INTO faults VALUES (%s, %s)", (order, fault))
    db.execute("SELECT queue.enqueue(%s, %s)", (QUEUE, json.dumps({"order_id": order})))


def shipped():
    return one("SELECT count(*) FROM shipments")


def left(queue=QUEUE, where="true"):
    return one("SELECT count(*) FROM %s WHERE %s" % (view(queue), where))


class Consumer:
    running = []

    def __init__(self, lease, poll="1"):
        self.log = tempfile.NamedTemporaryFile(dir=os.environ["LOGS"], prefix="consumer.", delete=False)
        self.process = subprocess.Popen(
            COMMAND, env=dict(os.environ, QUEUE=QUEUE, LEASE=lease, POLL=poll),
            stdout=self.log, stderr=subprocess.STDOUT)
        Consumer.running.append(self)

    def end(self, how):
        self.process.send_signal(how)

    def said(self, words):
        with open(self.log.name) as log:
            return words in log.read()

    def ended(self):
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.kill()
        # a JVM that ends by SIGTERM says so, however orderly its shutdown hook was
        check(status == 0 or (status == 143 and "jdbc" in LABEL), "exit status %s" % status)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
        Consumer.running.remove(self)


@contextmanager
def gate_shut():
    """Whoever ships an order with the fault "gate" waits until this block is left."""
    db.execute("SELECT pg_advisory_lock(%s)", (GATE,))
    try:
        yield
    finally:
        db.execute("SELECT pg_advisory_unlock(%s)", (GATE,))


def at_the_gate():
    return one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted", GATE)


def each_order_once(orders):
    rows = db.execute("SELECT order_id, count(*) FROM shipments GROUP BY 1").fetchall()
    equal(sorted(o for o, _ in rows), sorted(orders), "orders shipped")
    equal([o for o, n in rows if n > 1], [], "orders shipped twice")


def stops_cleanly_and_releases_what_is_not_begun():
    for order in range(40):
        enqueue(order, "gate" if order == 4 else None)
    with gate_shut():
        consumer = Consumer(lease="600")
        until(at_the_gate, "the consumer works on order 4")
        equal(shipped(), 4, "orders shipped before")
        equal(left(where="state = 'leased'"), 6, "leased, order 4 and five that are not begun")
        consumer.end(signal.SIGTERM)
        until(lambda: consumer.said("stopping"), "the consumer has heard the signal")
    consumer.ended()
    each_order_once(range(5))
    equal(left(where="state = 'leased'"), 0, "still leased")
    equal(left(where="failures > 0"), 0, "failures counted")
    equal(left(), 35, "left in the queue")


def loses_nothing_and_does_nothing_twice():
    faults = {**{n: "first" for n in range(0, 200, 20)}, 33: "always", 133: "always", 71: "slow"}
    first, second = Consumer(lease="2"), Consumer(lease="2")
    for start in range(0, 200, 20):
        with db.transaction():
            for order in range(start, start + 20):
                enqueue(order, faults.get(order))
        try:
            with db.transaction():
                enqueue(1000 + start)
                raise psycopg.Rollback
        except psycopg.Rollback:
            pass
    until(lambda: shipped() >= 198 and left(DEAD) >= 2 and left() == 0, "all orders are shipped or dead")
    first.end(signal.SIGTERM)
    second.end(signal.SIGTERM)
    first.ended()
    second.ended()
    each_order_once(set(range(200)) - {33, 133})
    attempts = dict(db.execute("SELECT order_id, attempt FROM shipments").fetchall())
    equal([o for o, n in attempts.items() if n != (2 if faults.get(o) == "first" else 1)], [],
          "orders with another attempt than expected (a lease that ran out, or a failure not counted)")
    dead = db.execute("SELECT (payload->>'order_id')::int, last_error FROM %s ORDER BY 1" % view(DEAD)).fetchall()
    equal([o for o, _ in dead], [33, 133], "dead orders")
    check(all("no way" in (error or "") for _, error in dead), "their last error: %s" % dead)


def loses_nothing_when_it_is_killed():
    for order in range(20):
        enqueue(order, "gate" if order == 4 else None)
    with gate_shut():
        consumer = Consumer(lease="2")
        until(at_the_gate, "the consumer works on order 4")
        consumer.kill()
        another = Consumer(lease="2")
        until(lambda: shipped() >= 14, "the other one ships what the first has not leased")
    until(lambda: left() == 0, "all orders are shipped")
    another.end(signal.SIGTERM)
    another.ended()
    each_order_once(range(20))


def does_not_do_what_it_has_lost():
    db.execute("SELECT queue.alter(%s, %s)", (QUEUE, json.dumps(
        {"lease_timeout": "2 s", "lease_max": "2 s", "max_attempts": 0})))
    for order in range(5):
        enqueue(order, "gate" if order == 2 else None)
    with gate_shut():
        first = Consumer(lease="2")
        until(lambda: at_the_gate() == 1, "the first consumer works on order 2")
        second = Consumer(lease="2")
        until(lambda: at_the_gate() == 2, "order 2 is lost at lease_max, heartbeat or not, and the second has it")
    until(lambda: left() == 0, "all orders are shipped")
    until(lambda: first.said("the lease was lost"), "the first consumer sees that it lost order 2")
    first.end(signal.SIGTERM)
    second.end(signal.SIGTERM)
    first.ended()
    second.ended()
    each_order_once(range(5))


def comes_back_after_its_connections_were_cut():
    consumer = Consumer(lease="2")
    enqueue(1)
    until(lambda: shipped() == 1, "order 1")
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
    enqueue(2)
    until(lambda: shipped() == 2, "order 2")
    consumer.end(signal.SIGTERM)
    consumer.ended()
    each_order_once([1, 2])


def is_woken_by_the_notification():
    consumer = Consumer(lease="600", poll="3600")
    for order in range(5):
        enqueue(order)
        until(lambda: shipped() == order + 1, "order %d" % order)
    consumer.end(signal.SIGTERM)
    enqueue(5)          # whoever waits an hour for a notification needs one to see that it is to stop
    consumer.ended()


CASES = [stops_cleanly_and_releases_what_is_not_begun, loses_nothing_and_does_nothing_twice,
         loses_nothing_when_it_is_killed, does_not_do_what_it_has_lost,
         comes_back_after_its_connections_were_cut]
if LISTENS:
    CASES.append(is_woken_by_the_notification)


def main():
    failed = 0
    for case in CASES:
        label = "%s: the consumer %s" % (LABEL, case.__name__.replace("_", " "))
        db.execute("TRUNCATE shipments, faults")
        db.execute("SELECT queue.create(%s, %s)", (QUEUE, json.dumps(
            {"max_attempts": 3, "backoff": "fixed", "backoff_base": "100 ms"})))
        db.execute("GRANT UPDATE ON %s TO app" % view(QUEUE))
        try:
            case()
            problems = db.execute("SELECT * FROM queue.check()").fetchall()
            equal(problems, [], "queue.check()")
            print("ok     " + label, flush=True)
        except Exception:
            failed += 1
            print("FAILED " + label, flush=True)
            traceback.print_exc(file=sys.stdout)
        finally:
            for consumer in list(Consumer.running):
                consumer.kill()
            db.execute("SELECT queue.drop(%s, true)", (QUEUE,))
    sys.exit(failed > 0)


main()
