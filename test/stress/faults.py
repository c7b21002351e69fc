"""
faults.py
	What goes wrong during a run: backends, clients and workers die, the server
	crashes, the disk fills, the standby takes over, the clock moves.
"""

import collections
import os
import signal
import threading
import time

import psycopg2

from client import DEEP, DEQUEUED, URGENT, Failed, Lost, payload, resolve, seconds
from clients import Consumer, Producer
from history import now
from servers import Trouble

# How a crash is made, and how often of all.
CRASHES = {"backend": 4, "worker": 1, "launcher": 1, "postmaster": 2, "immediate": 1, "restart": 1}

# Messages that the saboteur leases before it strikes.
HELD = 5


class Saboteur(Producer, Consumer):
    """One process beside the clients; what it does to messages obeys the same laws."""

    def __init__(self, arguments, crew, site, writer, rng):
        super().__init__("saboteur", rng, writer, site.dsn(), crew.deadline)
        self.arguments = arguments
        self.crew = crew
        self.site = site
        self.done = collections.Counter()
        self.firsts = []            # seconds from the end of a recovery to the first delivery
        self.trouble = []           # what could not be done while the disk was full
        self.held = []
        self.following = None       # the thread that makes the next standby
        self.connect()
        self.commits = self.call("SHOW synchronous_commit")[0][0]
        self.plan(5)

    def plan(self, earliest):
        """When the next great fault comes."""
        self.next = now() + self.rng.uniform(earliest, earliest + 7)

    # ----- what happens all the time

    def step(self):
        try:
            self.resolve_left()
            if not self.arguments.no_faults:
                self.small_fault()
                if now() > self.next and now() < self.crew.deadline - 3:
                    self.great_fault()
        except Failed:
            pass
        except Lost:
            self.connect()

    def small_fault(self):
        dice = self.rng.random()
        if dice < 0.10:
            self.signal_backend("pg_terminate_backend", "client backend")
        elif dice < 0.16:
            # A wait for the standby that is cancelled commits, and is in the standby or is not.
            if not self.arguments.failover:
                self.signal_backend("pg_cancel_backend", "client backend")
        elif dice < 0.19:
            self.signal_backend("pg_terminate_backend", "queue%")
        elif dice < 0.22:
            self.crew.kill_one(self.rng, Consumer)
            self.done["clients killed"] += 1
        elif dice < 0.23 and not self.arguments.no_clock:
            self.move_clock()

    def great_fault(self):
        if self.arguments.failover:
            self.fail_over()
        elif self.arguments.disk:
            self.fill_disk()
        elif self.arguments.kill9:
            self.crash(self.rng.choices(list(CRASHES), list(CRASHES.values()))[0])
        self.plan(3)

    def pick_process(self, kind):
        rows = self.call("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE %s AND pid <> pg_backend_pid()", kind)
        return self.rng.choice(rows)[0] if rows else None

    def signal_backend(self, function, kind):
        pid = self.pick_process(kind)
        if pid:
            self.call("SELECT %s(%%s)" % function, pid)
            self.done["%s, %s" % (function, kind)] += 1

    def move_clock(self):
        """All clocks ahead, or the wall clock alone, as if somebody had set it."""
        wall = self.rng.random() < 0.4
        by = round(self.rng.uniform(-4, 4) if wall else self.rng.uniform(0.1, 2), 3)

        def work():
            self.call("SELECT queue.clock_advance(%s::interval, %s)", "%.3f s" % by, wall)
            return {}
        self.operate("clock", work, by=by, wall=wall)
        self.done["clock moved"] += 1

    def let_go(self):
        """What waits for a prepared transaction that its client left behind goes on."""
        try:
            self.resolve_left()
        except Failed:
            pass
        except Lost:
            self.connect()

    def resolve_left(self):
        for (gid,) in self.call("SELECT gid FROM pg_prepared_xacts WHERE prepared < now() - interval '3 s'"):
            how = self.rng.choice(["commit", "abort"])
            resolve(self.writer, self, gid, how)
            self.done["prepared left behind"] += 1

    # ----- crashes

    def crash(self, how):
        """The server dies in this way and comes back."""
        pid = None
        if how in ("backend", "worker", "launcher"):
            pid = self.pick_process({"backend": "client backend"}.get(how, "queue " + how))
            if pid is None:
                return
        self.hold()
        began = now()
        cut = None
        if pid:
            os.kill(pid, signal.SIGKILL)
            self.await_end(began)
        elif how == "postmaster":
            self.site.primary.kill()
        else:
            self.site.primary.stop("fast" if how == "restart" else "immediate")
        # pg_ctl looks ten times a second: who wants to be first looks for himself.
        starting = None
        if not pid:
            cut = now()
            starting = threading.Thread(target=self.site.primary.start)
            starting.start()
        self.done["%s killed" % how if pid or how == "postmaster" else how] += 1
        self.come_back(began, self.commits == "off" and how != "restart", how, cut)
        if starting:
            starting.join()

    def await_end(self, began):
        """Until nobody of before the crash can answer."""
        while True:
            try:
                self.call("SELECT 1")
                time.sleep(0.01)
                if now() > began + 20:
                    raise SystemExit("stress: the server outlived a SIGKILL")
            except (Lost, Failed):
                return

    def come_back(self, began, lossy, how, cut=None):
        """Cut: when nobody of before could answer any more, and nobody of after it yet."""
        self.connection.close()
        self.connect(0.01)
        ended = now()
        self.writer.put("crash", t0=began, t1=ended, lossy=lossy, how=how,
                        cut=cut or min(ended, self.site.primary.accepting_since() or ended))
        if self.arguments.backlog:
            self.first_delivery()
        self.await_survey()

    def await_survey(self):
        """Until the worker knows the priorities of what it found."""
        while not self.call("SELECT bool_and(priorities IS NOT NULL) FROM queue.segments WHERE queue = %s", URGENT)[0][0]:
            if now() > self.crew.deadline + 20:
                raise SystemExit("stress: priorities are not known after a crash")
            time.sleep(0.01)
        self.writer.put("known", t1=now())

    def hold(self):
        """Leases that are there for sure when the server dies."""
        if self.arguments.backlog:
            self.held = self.take(HELD, 600.0)

    def take(self, most, lease):
        return [row[3] for row in self.operate("dequeue", lambda: {"rows": self.call(
            "SELECT " + DEQUEUED + " FROM queue.dequeue(%s, %s, %s::interval)", DEEP, most, seconds(lease))},
            q=DEEP, lease=lease, most=most)["rows"]]

    def first_delivery(self):
        """How long after the recovery the first message came; nothing of before is a receipt any more."""
        while not self.take(1, 600.0):
            if now() > self.crew.deadline + 20:
                raise SystemExit("stress: nothing is delivered after a crash")
        since = self.site.primary.accepting_since()
        if since is not None:
            self.firsts.append(now() - since)
        if self.held:
            self.try_ack(self.held)
        self.ack_batch(self.take(HELD, 600.0))

    # ----- a backlog that stays

    def deepen(self, size):
        """Fills the deep queue up, once it is known again how much is in it."""
        ready, exact = self.call("SELECT ready, exact FROM queue.stats WHERE queue = %s", DEEP)[0]
        missing = size - ready if exact else 0
        while missing > size / 4:
            messages = [self.message() for _ in range(min(2000, missing))]
            self.record({"q": DEEP}, messages, lambda: {"ids": self.call(
                "SELECT queue.enqueue_batch(%s, %s::jsonb[], %s::text[])", DEEP,
                [payload(message) for message in messages], [message["key"] for message in messages])[0][0]})
            missing -= len(messages)

    # ----- failover

    def fail_over(self):
        """The primary dies, the standby takes its place, the clients go there, and a new standby follows."""
        if self.following and self.following.is_alive():
            return
        self.hold()
        receiver = None
        if not self.site.synchronous and self.rng.random() < 0.7:
            receiver = self.stop_receiver()
        began = now()
        if self.rng.random() < 0.5:
            self.site.primary.kill()
        else:
            self.site.primary.stop("immediate")
        if receiver:
            os.kill(receiver, signal.SIGCONT)
        cut = now()
        self.site.promote()
        self.done["failovers"] += 1
        self.come_back(began, not self.site.synchronous or self.commits in ("off", "local"), "failover", cut)
        self.following = threading.Thread(target=self.site.follow)
        self.following.start()

    def finish(self):
        if self.following:
            self.following.join()

    def stop_receiver(self):
        """The standby falls behind, so that there is something to lose."""
        rows = self.site.standby.ask("SELECT pid FROM pg_stat_wal_receiver")
        if not rows:
            return None
        os.kill(rows[0][0], signal.SIGSTOP)
        time.sleep(self.rng.uniform(0.1, 0.6))
        return rows[0][0]

    # ----- out of disk

    def fill_disk(self):
        began = now()
        lost = False
        self.hold_room()
        self.site.fill(self.rng.choice([0, 0, 16, 100]) * 1024)
        self.done["disk full"] += 1
        until = now() + self.rng.uniform(1.5, 4)
        try:
            while now() < until:
                self.drain_some()
                time.sleep(0.2)
        except Lost:
            lost = True
        finally:
            self.site.free()
        # A server that found no room for its log may have died on the way back as well.
        while True:
            try:
                connection = self.site.primary.connect()
                connection.close()
                break
            except psycopg2.Error:
                lost = True
                if now() > until + 20:
                    raise
                try:
                    self.site.primary.start()
                except Trouble:
                    time.sleep(0.2)
        if lost:
            self.done["crashed by it"] += 1
            self.come_back(began, self.commits == "off", "disk")

    def hold_room(self):
        if self.arguments.backlog and self.call("SELECT ready FROM queue.stats WHERE queue = %s", DEEP)[0][0] < 100:
            self.deepen(self.arguments.backlog)

    def drain_some(self):
        """A full disk takes no messages, but gives."""
        if self.site.whole:
            # The log needs its next file soon.
            self.call("SELECT pg_logical_emit_message(false, 'stress', repeat('x', 500000)) FROM generate_series(1, 5)")
            return
        try:
            receipts = self.take(HELD, 600.0)
            self.ack_batch(receipts)
            self.done["drained while full"] += len(receipts)
        except Failed as error:
            if error.code == "53100":
                self.trouble.append("%s %s" % (error.code, error.text))
