"""Calls every kind of function of the extension through psycopg 3 and psycopg 2.

Run by test/drivers/run with PORT, DATABASE, ROUTE (direct or pgbouncer) and NAMED (1 where
named prepared statements work). Prints a line for each case.
"""

import json
import os
import sys
import threading
import traceback
from datetime import datetime, timedelta

import psycopg
import psycopg2
import psycopg2.extras
from psycopg import sql

import casts

ROUTE = os.environ["ROUTE"]
URL = "postgresql://app@127.0.0.1:%s/%s" % (os.environ["PORT"], os.environ["DATABASE"])
UNKNOWN = "00000000-0000-8000-8000-000000000000"


def connect3(**options):
    options.setdefault("prepare_threshold", None)
    return lambda: psycopg.connect(URL, autocommit=True, **options)


def connect2():
    conn = psycopg2.connect(URL)
    conn.autocommit = True
    return conn


class BinaryCursor(psycopg.Cursor):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.format = psycopg.pq.Format.BINARY


MODES = {
    "psycopg 3 server-side": connect3(),
    "psycopg 3 client-side": connect3(cursor_factory=psycopg.ClientCursor),
    "psycopg 3 binary": connect3(cursor_factory=BinaryCursor),
    "psycopg 2": connect2,
}
if os.environ["NAMED"] == "1":
    MODES["psycopg 3 prepared"] = connect3(prepare_threshold=0)


class Case:
    """A connection and a queue of its own, and what every case needs with them."""

    def __init__(self, connect, queue):
        self.connect, self.queue = connect, queue
        self.conn = connect()
        self.three = isinstance(self.conn, psycopg.Connection)

    def rows(self, query, *parameters, conn=None):
        cursor = (conn or self.conn).cursor()
        cursor.execute(query, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query, *parameters, conn=None):
        return self.rows(query, *parameters, conn=conn)[0][0]

    def enqueue(self, payload, conn=None):
        return self.value("SELECT queue.enqueue(%s, %s)", self.queue, json.dumps(payload), conn=conn)

    def dequeue(self, count=1, queue=None, wait="0"):
        return self.rows(
            "SELECT id, receipt, attempt, payload, last_error, headers, lease_until"
            " FROM queue.dequeue(%s, %s, wait => %s)", queue or self.queue, count, wait)

    def transaction(self):
        """A transaction block: BEGIN, and COMMIT or ROLLBACK at its end."""
        return Transaction(self)

    def fails(self, state, query, *parameters):
        try:
            self.rows(query, *parameters)
        except (psycopg.Error, psycopg2.Error) as error:
            got = error.sqlstate if self.three else error.pgcode
            check(got == state, "SQLSTATE %s instead of %s: %s" % (got, state, error))
            return error
        raise AssertionError("no error, expected %s: %s" % (state, query))


class Transaction:
    def __init__(self, case):
        self.case = case

    def __enter__(self):
        self.case.rows("BEGIN")

    def __exit__(self, kind, *exc):
        self.case.rows("ROLLBACK" if kind else "COMMIT")


class Undo(Exception):
    pass


def check(truth, message):
    if not truth:
        raise AssertionError(message)


def equal(got, wanted):
    check(got == wanted, "got %r, wanted %r" % (got, wanted))


def the_casts_of_the_documentation(c):
    if not c.three:
        return the_casts_of_psycopg_2(c)
    casts.produce(c.conn, c.queue)
    equal(c.value('SELECT count(*) FROM queues."%s" WHERE state = \'delayed\'' % c.queue), 2)
    messages = casts.consume(c.conn, c.queue)
    equal(sum(1 for m in messages if m[2] == {"order_id": 1}), 5)
    equal(sorted(bytes(m[3]) for m in messages if m[3] is not None), [b"\x00\xff", b"\x00\xff", b"\x01"])
    equal(c.value('SELECT count(*) FROM queues."%s"' % c.queue), 2)


def the_casts_of_psycopg_2(c):
    payload = json.dumps({"order_id": 1})
    c.rows("SELECT queue.enqueue(%s, %s)", c.queue, payload)
    c.rows("SELECT queue.enqueue(%s, %s, headers => %s)", c.queue, psycopg2.extras.Json({}), "{}")
    c.rows("SELECT queue.enqueue(%s, %s, delay => %s)", c.queue, payload, timedelta(hours=1))
    c.rows("SELECT queue.enqueue_batch(%s, %s::jsonb[], %s)", c.queue, [payload, payload], ["a", "b"])
    c.rows("SELECT queue.enqueue_bytes(%s, %s)", c.queue, b"\x00\xff")
    c.rows("SELECT queue.enqueue_bytes_batch(%s, %s)", c.queue, [b"\x00\xff", b"\x01"])
    rows = c.rows("SELECT receipt, body FROM queue.dequeue(%s, %s, %s)", c.queue, 100, "30 s")
    equal(sorted(bytes(body) for _, body in rows if body is not None), [b"\x00\xff", b"\x00\xff", b"\x01"])
    receipts = [receipt for receipt, _ in rows]
    check(all(isinstance(receipt, str) for receipt in receipts), "receipts are str in psycopg 2")
    c.fails("42883", "SELECT queue.ack_batch(%s)", receipts)
    equal(c.value("SELECT queue.ack_batch(%s::uuid[])", receipts), 7)


def types_that_fit_no_function(c):
    c.fails("42883", "SELECT queue.enqueue(%s, %s)", c.queue, 1)
    c.fails("42883", "SELECT queue.enqueue(%s, %s, priority => %s)", c.queue, "{}", 5000000000)
    if not c.three:
        c.fails("42883", "SELECT queue.enqueue_batch(%s, %s)", c.queue, ["{}"])
    equal(c.dequeue(), [])


def an_enqueue_rolled_back_leaves_nothing(c):
    try:
        with c.transaction():
            c.enqueue({"n": 1})
            raise Undo
    except Undo:
        pass
    with c.transaction():
        c.enqueue({"n": 2})
        equal(c.dequeue(), [])      # never to the transaction that enqueued it
    equal([m[3] for m in c.dequeue(10)], [{"n": 2}])


def the_same_statement_twenty_times(c):
    ids = [c.enqueue({"n": n}) for n in range(20)]
    equal(len(set(ids)), 20)
    seen = []
    for n in range(20):
        (message,) = c.dequeue()
        seen.append(message[3]["n"])
        c.rows("SELECT queue.ack(%s)", message[1])
    equal(seen, list(range(20)))
    equal(c.dequeue(), [])


def the_ack_commits_with_the_work(c):
    sent = c.enqueue({"n": 1})
    ((got, receipt, attempt, *_),) = c.dequeue()
    equal((got, attempt), (sent, 1))
    try:
        with c.transaction():
            c.rows("INSERT INTO work VALUES (%s, %s)", c.queue, got)
            c.rows("SELECT queue.ack(%s)", receipt)
            raise Undo
    except Undo:
        pass
    equal(c.value("SELECT count(*) FROM work WHERE queue = %s", c.queue), 0)
    equal(c.dequeue(), [])          # the lease outlived the rollback
    with c.transaction():
        c.rows("INSERT INTO work VALUES (%s, %s)", c.queue, got)
        c.rows("SELECT queue.ack(%s)", receipt)
    equal(c.value("SELECT count(*) FROM work WHERE queue = %s", c.queue), 1)
    equal(c.value('SELECT count(*) FROM queues."%s"' % c.queue), 0)


def nack_retries_until_the_message_is_dead(c):
    c.rows("SELECT queue.alter(%s, %s)", c.queue, json.dumps({"max_attempts": 2}))
    c.enqueue({"n": 1})
    (message,) = c.dequeue()
    equal(c.value("SELECT queue.nack(%s, %s, %s)", message[1], "first", "0"), "retry")
    (message,) = c.dequeue(wait="5 s")
    equal(message[2], 2)
    equal(message[4], "first")
    equal(c.value("SELECT queue.nack(%s, %s)", message[1], "second"), "dead")
    equal(c.dequeue(), [])
    (dead,) = c.dequeue(queue=c.queue + "_dead", wait="5 s")
    equal(dead[3], {"n": 1})
    death = dead[5]["queue.death"]
    equal((death["queue"], death["error"], death["attempts"]), (c.queue, "second", 2))
    check(datetime.fromisoformat(death["first_failure"]) <= datetime.fromisoformat(death["last_failure"]),
          "times of the failures: %s" % death)


def release_extend_and_reject(c):
    c.enqueue({"n": 1})
    (message,) = c.dequeue()
    deadline = c.value("SELECT queue.extend(%s, %s)", message[1], "10 min")
    check(isinstance(deadline, datetime) and deadline > message[6], "extend returns the new deadline")
    c.rows("SELECT queue.release(%s)", message[1])
    (message,) = c.dequeue(wait="5 s")
    equal(message[2], 1)
    c.rows("SELECT queue.reject(%s, %s)", message[1], "no use")
    equal(c.dequeue(), [])
    equal(len(c.dequeue(queue=c.queue + "_dead", wait="5 s")), 1)


def statuses_of_the_batch_calls(c):
    c.rows("SELECT queue.enqueue_batch(%s, %s::jsonb[])", c.queue, ["1", "2", "3"])
    one, two, three = [m[1] for m in c.dequeue(3)]
    mixed = lambda receipt: [str(receipt), UNKNOWN]
    status = lambda call, receipt: [
        s for _, s in c.rows("SELECT * FROM queue.%s(%%s::uuid[])" % call, mixed(receipt))]
    for call, receipt in (("extend_batch", one), ("release_batch", one), ("nack_batch", two),
                          ("try_ack", three)):
        good, bad = status(call, receipt)
        check(good not in ("lost", "invalid"), "%s: %s" % (call, good))
        check(bad in ("lost", "invalid"), "%s of an unknown receipt: %s" % (call, bad))
    c.fails("QU001", "SELECT queue.ack_batch(%s::uuid[])", [UNKNOWN])


def a_lost_lease_is_QU001(c):
    c.enqueue({"n": 1})
    (message,) = c.dequeue()
    c.rows("SELECT queue.release(%s)", message[1])
    try:
        with c.transaction():
            c.rows("INSERT INTO work VALUES (%s, %s)", c.queue, message[0])
            error = c.fails("QU001", "SELECT queue.ack(%s)", message[1])
            raise Undo
    except Undo:
        pass
    equal(c.value("SELECT count(*) FROM work WHERE queue = %s", c.queue), 0)
    check(isinstance(error, (psycopg.DatabaseError, psycopg2.DatabaseError)), type(error))
    c.fails("QU001", "SELECT queue.nack(%s, %s)", message[1], "late")
    c.fails("QU001", "SELECT queue.extend(%s, %s)", message[1], "1 s")


def other_errors_have_their_sqlstate(c):
    c.fails("42704", "SELECT queue.enqueue(%s, %s)", "no such queue", "{}")
    c.fails("42710", "SELECT queue.create(%s)", c.queue)
    c.fails("22023", "SELECT queue.enqueue(%s, %s, delay => %s)", c.queue, "{}", "-1 s")
    c.fails("22023", "SELECT * FROM queue.dequeue(%s, %s)", c.queue, 0)
    c.fails("22004", "SELECT queue.enqueue(%s, %s)", c.queue, None)


def a_savepoint_rolled_back_keeps_the_lease(c):
    c.enqueue({"n": 1})
    with c.transaction():
        c.rows("SAVEPOINT s")
        (message,) = c.dequeue()
        c.fails("22P02", "SELECT %s::int", "x")
        c.rows("ROLLBACK TO s")
        c.rows("SELECT queue.ack(%s)", message[1])
    equal(c.value('SELECT count(*) FROM queues."%s"' % c.queue), 0)


def two_phase_commit(c):
    if not int(c.value("SHOW max_prepared_transactions")):
        return
    for n in (1, 2):
        c.enqueue({"n": n})
    undone, done = c.dequeue(2)
    for message, end in ((undone, "ROLLBACK"), (done, "COMMIT")):
        c.rows("BEGIN")
        c.enqueue({"n": end})
        c.rows("SELECT queue.ack(%s)", message[1])
        c.rows("PREPARE TRANSACTION '%s'" % c.queue)
        equal(c.dequeue(), [])
        c.rows("%s PREPARED '%s'" % (end, c.queue))
    c.fails("QU001", "SELECT queue.nack(%s)", done[1])
    c.rows("SELECT queue.nack(%s, %s, %s)", undone[1], "undone", "0")      # its lease is there again
    got = [c.dequeue(wait="5 s")[0] for _ in range(2)]
    equal(sorted(str(m[3]["n"]) for m in got), ["1", "COMMIT"])


def cursors(c):
    for n in range(4):
        c.enqueue({"n": n})
    for hold in ("", "WITH HOLD"):
        c.rows("BEGIN")
        c.rows("DECLARE c CURSOR %s FOR SELECT receipt FROM queue.dequeue('%s', 2)" % (hold, c.queue))
        receipts = [r for r, in c.rows("FETCH 1 FROM c") + c.rows("FETCH ALL FROM c")]
        equal(len(receipts), 2)
        equal(c.value("SELECT queue.ack_batch(%s::uuid[])", receipts), 2)
        c.rows("CLOSE c")
        c.rows("COMMIT")
    equal(c.value('SELECT count(*) FROM queues."%s"' % c.queue), 0)


def dequeue_waits(c):
    got = []
    other = Case(c.connect, c.queue)
    waiter = threading.Thread(target=lambda: got.extend(other.dequeue(wait="5 s")))
    waiter.start()
    c.enqueue({"n": 1})
    waiter.join()
    other.conn.close()
    equal([m[3] for m in got], [{"n": 1}])


def call_wait(c):
    equal(c.value("CALL queue.wait(%s, %s)", c.queue, "0 s"), False)
    c.enqueue({"n": 1})
    equal(c.value("CALL queue.wait(%s, %s)", c.queue, "5 s"), True)
    c.rows("BEGIN")
    c.fails("25001", "CALL queue.wait(%s, %s)", c.queue, "1 s")
    c.rows("ROLLBACK")


def insert_and_copy_into_the_view(c):
    view = sql.SQL("queues.{}").format(sql.Identifier(c.queue)).as_string(
        c.conn if c.three else None)
    sent = c.value("INSERT INTO " + view + " (payload, key) VALUES (%s, %s) RETURNING id", "{}", "k")
    if c.three:
        with c.conn.cursor().copy("COPY " + view + " (payload) FROM STDIN") as copy:
            copy.write_row(['{"n": 1}'])
            copy.write_row(['{"n": 2}'])
    else:
        import io
        c.conn.cursor().copy_expert("COPY " + view + " (payload) FROM STDIN",
                                    io.StringIO('{"n": 1}\n{"n": 2}\n'))
    messages = c.dequeue(10)
    check(sent in [m[0] for m in messages], "RETURNING id")
    equal(len(messages), 3)


def pop(c):
    c.enqueue({"n": 1})
    try:
        with c.transaction():
            equal(len(c.rows("SELECT * FROM queue.pop(%s)", c.queue)), 1)
            raise Undo
    except Undo:
        pass
    (message,) = c.dequeue(wait="5 s")
    equal(message[2], 2)            # the rollback counts as a failure
    c.rows("SELECT queue.ack(%s)", message[1])


def statements_land_on_several_servers(c):
    if ROUTE == "direct":
        return
    pids = {c.value("SELECT pg_backend_pid()") for _ in range(20)}
    check(len(pids) > 1, "PgBouncer gave one server connection all the time: the route proves nothing")


def a_pipeline(c):
    if not c.three or not psycopg.Pipeline.is_supported():
        return
    with c.conn.pipeline():
        for n in range(5):
            c.conn.execute("SELECT queue.enqueue(%s, %s)", (c.queue, json.dumps(n)))
    messages = c.dequeue(10)
    equal(len(messages), 5)
    with c.conn.pipeline():
        for m in messages:
            c.conn.execute("SELECT queue.ack(%s)", (m[1],))
    equal(c.value('SELECT count(*) FROM queues."%s"' % c.queue), 0)


def listen_is_notified(c):
    if ROUTE != "direct":
        return
    c.rows(sql.SQL("LISTEN {}").format(sql.Identifier("queue_" + c.queue)).as_string(
        c.conn if c.three else None))
    other = Case(c.connect, c.queue)
    other.enqueue({"n": 1})
    other.conn.close()
    if c.three:
        notes = [(n.channel, n.payload) for n in c.conn.notifies(timeout=10, stop_after=1)]
    else:
        import select
        select.select([c.conn], [], [], 10)
        c.conn.poll()
        notes = [(n.channel, n.payload) for n in c.conn.notifies]
    equal(notes[:1], [("queue_" + c.queue, c.queue)])


CASES = [
    the_casts_of_the_documentation, types_that_fit_no_function,
    an_enqueue_rolled_back_leaves_nothing, the_same_statement_twenty_times,
    the_ack_commits_with_the_work, nack_retries_until_the_message_is_dead,
    release_extend_and_reject, statuses_of_the_batch_calls, a_lost_lease_is_QU001,
    other_errors_have_their_sqlstate, a_savepoint_rolled_back_keeps_the_lease, two_phase_commit,
    cursors, dequeue_waits, call_wait, insert_and_copy_into_the_view,
    pop, a_pipeline, statements_land_on_several_servers, listen_is_notified,
]


def main():
    failed = 0
    for mode, connect in MODES.items():
        for number, case in enumerate(CASES):
            queue = "%s %s %d" % (mode, ROUTE, number)
            label = "%s, %s: %s" % (mode, ROUTE, case.__name__.replace("_", " "))
            try:
                c = Case(connect, queue)
                c.rows("SELECT queue.create(%s)", queue)
                case(c)
                c.rows("SELECT queue.drop(%s, true)", queue)
                print("ok     " + label, flush=True)
            except Exception:
                failed += 1
                print("FAILED " + label, flush=True)
                traceback.print_exc(file=sys.stdout)
            finally:
                c.conn.close()
    sys.exit(failed > 0)


main()
