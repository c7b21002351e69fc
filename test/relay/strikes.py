"""
strikes.py
	What goes wrong with the source and its relay, and when.
"""

import collections
import datetime
import json
import os
import pwd
import signal
import subprocess
import time

import psycopg2

from targets import alive, children, fault, processes, signal_all
from wire import Wire

# Between two faults, s.
PAUSE = (0.3, 2.2)

# What a relay is altered to, now and then.
ALTERATIONS = [{"max_in_flight": 1}, {"max_in_flight": 7}, {"max_in_flight": None}, {"log": True}, {"log": None},
               {"breaker_failures": 1}, {"breaker_failures": None}, {"max_bytes": 50000}, {"max_bytes": None}]


class Striker:
    """Faults of the source, its relay and its destination, one after the other; some last a while."""

    def __init__(self, site, target, relay, queue, runner, rng, gentle):
        self.site = site
        self.target = target
        self.relay = relay
        self.queue = queue
        self.runner = runner
        self.rng = rng
        self.crew = None
        self.done = collections.Counter()
        self.lasting = {}           # group: (until, undo)
        self.next = time.monotonic() + rng.uniform(*PAUSE)
        self.log = open(os.path.join(site.folder, "faults.log"), "a", encoding="utf-8")
        self.faults = [one for one in self.all() if one.gentle or not gentle]

    def all(self):
        found = [
            fault(2, "source", "source killed", self.kill_source),
            fault(1, "source", "source stopped at once", lambda: self.restart("immediate")),
            fault(1, "source", "source restarted", lambda: self.restart("fast"),
                  gentle=self.runner.outlives_stop),
            fault(1, "source", "backend killed", lambda: self.kill_backend("client backend")),
            fault(1, "source", "queue worker killed", lambda: self.kill_backend("queue worker")),
            fault(3, "pause", "relay paused", self.pause_relay, gentle=True),
            fault(1, "pause", "queue paused", self.pause_queue, gentle=True),
            fault(3, "alter", "relay altered", self.alter_relay, gentle=True),
        ]
        if self.target.wire:
            found.append(fault(3, "wire", "source killed before answers", self.kill_unanswered))
        return found + self.runner.faults() + self.target.faults()

    # ----- the course of things

    def note(self, text):
        self.log.write("%s %s\n" % (datetime.datetime.now(datetime.timezone.utc).strftime("%H:%M:%S.%f")[:-3], text))
        self.log.flush()

    def step(self):
        for group, (until, undo) in list(self.lasting.items()):
            if time.monotonic() >= until:
                del self.lasting[group]
                self.note("over: %s" % group)
                undo()
        if time.monotonic() >= self.next:
            self.strike()
            self.next = time.monotonic() + self.rng.uniform(*PAUSE)

    def strike(self):
        free = [one for one in self.faults if one.group not in self.lasting]
        if not free:
            return
        chosen = self.rng.choices(free, [one.weight for one in free])[0]
        self.note(chosen.name)
        try:
            lasts = chosen.begin()
        except psycopg2.Error as error:
            self.note("not done: %s" % str(error).strip())
            return
        self.done[chosen.name] += 1
        if lasts:
            self.lasting[chosen.group] = (time.monotonic() + lasts[0], lasts[1])
            self.note("for %.2f s" % lasts[0])

    def heal(self):
        for _, undo in self.lasting.values():
            undo()
        self.lasting = {}
        self.note("heal")
        self.target.heal()
        self.runner.heal()
        self.site.insist("SELECT queue.resume('%s')" % self.queue)
        self.site.insist("SELECT queue.resume_relay('%s')" % self.relay)
        self.site.insist("SELECT queue.alter_relay('%s', '%s')" % (self.relay, json.dumps(
            {name: None for change in ALTERATIONS for name in change})))

    # ----- the source

    def kill_source(self):
        self.site.source.kill()
        self.site.source.start()

    def kill_unanswered(self):
        """Right after the first messages of commits that nobody had written out but to send them."""
        self.crew.haste.value = 1
        until = time.monotonic() + 2
        while time.monotonic() < until and self.site.strike("SELECT count(*) FROM queues.%s" % self.queue)[0][0] > 20:
            time.sleep(0.02)
        self.target.wire.order("hole", "answers")
        time.sleep(self.rng.uniform(0, 0.08))
        # All at once: a postmaster that cannot look starts nobody anew.
        pids = processes(self.site.source)
        signal_all(pids[:1], signal.SIGSTOP)
        signal_all(pids[1:], signal.SIGKILL)
        self.kill_source()
        self.target.wire.order("open")
        self.crew.haste.value = 0

    def restart(self, mode):
        self.site.source.stop(mode)
        self.site.source.start()

    def kill_backend(self, kind):
        rows = self.site.strike("SELECT pid FROM pg_stat_activity WHERE backend_type = '%s' AND pid <> pg_backend_pid() "
                                "AND application_name <> 'server'" % kind)
        if rows:
            os.kill(self.rng.choice(rows)[0], signal.SIGKILL)

    # ----- the relay

    def pause_relay(self):
        self.site.strike("SELECT queue.pause_relay('%s')" % self.relay)
        return self.rng.uniform(0.1, 1.5), lambda: self.site.insist("SELECT queue.resume_relay('%s')" % self.relay)

    def pause_queue(self):
        self.site.strike("SELECT queue.pause('%s')" % self.queue)
        return self.rng.uniform(0.1, 1), lambda: self.site.insist("SELECT queue.resume('%s')" % self.queue)

    def alter_relay(self):
        self.site.strike("SELECT queue.alter_relay('%s', '%s')" % (self.relay, json.dumps(self.rng.choice(ALTERATIONS))))


class InServer:
    """The runner is a process of the source."""

    outlives_stop = True            # what is in flight is waited for

    def __init__(self, site, relay, rng):
        self.site = site
        self.relay = relay
        self.rng = rng

    def options(self):
        return {}

    def start(self):
        pass

    def pid(self):
        rows = self.site.strike("SELECT pid FROM pg_stat_activity WHERE backend_type = 'queue relay'")
        return rows[0][0] if rows else None

    def send(self, number):
        pid = self.pid()
        if pid:
            signal_all([pid], number)

    def faults(self):
        return [
            fault(4, "source", "relay worker killed", lambda: self.send(signal.SIGKILL)),
            fault(2, "runner", "relay worker ended", lambda: self.send(signal.SIGTERM), gentle=True),
        ]

    def heal(self):
        pass

    def clean(self):
        pass


class Program(InServer):
    """The runner is the program queue-relay: two of it, of which one waits, and one way to the source that can be cut."""

    outlives_stop = False           # clients are cut off

    def __init__(self, site, relay, rng, folder):
        super().__init__(site, relay, rng)
        self.folder = folder
        self.wire = None
        self.programs = {"a": None, "b": None}
        self.children = set()       # that were left alone

    def options(self):
        return {"runner": "program"}

    def start(self):
        self.wire = Wire(int(self.site.source.words["PGPORT"]))
        for name in self.programs:
            self.launch(name)

    def launch(self, name):
        if alive(self.programs[name]):
            return
        # The first goes through the wire, the other one does not.
        port = self.wire.port if name == "a" else self.site.source.words["PGPORT"]
        user = {}
        if os.geteuid() == 0:
            owner = pwd.getpwnam(os.environ.get("QUEUE_USER", "postgres"))
            user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        with open(os.path.join(self.folder, "program.log"), "ab") as log:
            self.programs[name] = subprocess.Popen(
                [self.site.program(), "-d", "host=127.0.0.1 port=%s user=postgres dbname=postgres" % port,
                 "--sink-path", self.site.sinks(), self.relay],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", **user)

    def child(self, name):
        """The process that does the work of one."""
        found = children(self.programs[name].pid) if alive(self.programs[name]) else []
        return found[0] if found else None

    def signal_child(self, name, number):
        pid = self.child(name)
        if pid:
            signal_all([pid], number)

    def one(self):
        """More often the one that works."""
        rows = self.site.strike("SELECT client_port FROM pg_stat_activity WHERE application_name LIKE 'queue-relay%'")
        return "b" if len(rows) == 1 and self.rng.random() < 0.5 else self.rng.choice("ab")

    def faults(self):
        return [
            fault(3, "runner", "program killed", self.kill),
            fault(4, "runner", "program's child killed", lambda: self.signal_child(self.one(), signal.SIGKILL)),
            fault(2, "runner", "program ended", self.end, gentle=True),
            fault(4, "runner", "program stopped", self.stop),
            fault(3, "alter", "relay moved", self.move, gentle=True),
            fault(2, "source wire", "source connections reset", lambda: self.wire.order("reset")),
            fault(2, "source wire", "source away", lambda: self.cut("hole", "both", 0.5, 6)),
            fault(2, "source wire", "source away, then reset", lambda: self.cut("drop", "both", 0.5, 6)),
            fault(2, "source wire", "source's answers away", lambda: self.cut("hole", "answers", 0.5, 5)),
            fault(2, "source wire", "source's answers lost", lambda: self.cut("drop", "answers", 0.05, 3)),
            fault(1, "source wire", "source refused", lambda: self.cut("refuse", "", 0.3, 2)),
            fault(1, "source wire", "source snipped", lambda: self.wire.order("snip", self.rng.choice([0, 1, 50, 1000]))),
        ]

    def kill(self):
        """What it leaves behind ends by itself."""
        name = self.one()
        pid = self.child(name)
        if pid:
            self.children.add(pid)
        if alive(self.programs[name]):
            self.programs[name].kill()
            self.programs[name].wait()
        return self.rng.uniform(0, 1.5), lambda: self.launch(name)

    def end(self):
        name = self.one()
        if alive(self.programs[name]):
            self.programs[name].terminate()
        return self.rng.uniform(0.5, 2), lambda: self.launch_again(name)

    def launch_again(self, name):
        """One that ends does so in its own time."""
        if self.programs[name]:
            self.programs[name].wait(60)
        self.launch(name)

    def stop(self):
        """As a machine that stands still: also for longer than the runner's time."""
        name = self.one()
        seconds = self.rng.uniform(0.3, 6)
        self.excuse(seconds)
        self.signal_child(name, signal.SIGSTOP)
        return seconds, lambda: self.signal_child(name, signal.SIGCONT)

    def excuse(self, seconds):
        """The server waits for a client that does not read or write: that transaction is not the sink's."""
        self.site.watch.excuse = max(self.site.watch.excuse, time.monotonic() + seconds + 5)

    def cut(self, mode, direction, least, most):
        seconds = self.rng.uniform(least, most)
        self.excuse(seconds)
        self.wire.order(mode, direction)
        return seconds, lambda: self.wire.order("open")

    def move(self):
        self.site.strike("SELECT queue.alter_relay('%s', '{\"runner\": \"server\"}')" % self.relay)
        return self.rng.uniform(0.3, 3), lambda: self.site.insist(
            "SELECT queue.alter_relay('%s', '{\"runner\": \"program\"}')" % self.relay)

    def heal(self):
        self.wire.order("open")
        for name in self.programs:
            self.signal_child(name, signal.SIGCONT)
            self.launch(name)

    def clean(self):
        for name, process in self.programs.items():
            if alive(process):
                self.signal_child(name, signal.SIGCONT)
                process.terminate()
        for name, process in self.programs.items():
            if process:
                try:
                    process.wait(15)
                except subprocess.TimeoutExpired:
                    self.signal_child(name, signal.SIGKILL)
                    process.kill()
                    process.wait()
        for pid in self.children:
            try:
                with open("/proc/%d/cmdline" % pid, "rb") as words:
                    if self.relay.encode() in words.read():
                        os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if self.wire:
            self.wire.close()
