"""
targets.py
	The destinations: how a relay gets there, what goes wrong with them, and what
	they have in the end.
"""

import collections
import fcntl
import json
import os
import shutil
import signal
import subprocess
import time

import psycopg2

from facts import of_payload
from servers import Server, options
from wire import Wire, free_port

HERE = os.path.dirname(os.path.realpath(__file__))

# Of the receiver of HTTP.
MOODS = {"faults": "wild", "attempts": "deadly", "gentle": "calm"}

# Of the disk of files, in MB, if one can be mounted.
DISK = 1024

# What goes wrong: the odds, what it excludes while it lasts, and begin(), which returns
# (seconds, undo) or None if it is over at once. The gentle cut nothing that is under way.
Fault = collections.namedtuple("Fault", "weight group name begin gentle")


def fault(weight, group, name, begin, gentle=False):
    return Fault(weight, group, name, begin, gentle)


def alive(process):
    return process is not None and process.poll() is None


def children(parent):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name, encoding="utf-8") as line:
                    if int(line.read().rsplit(")", 1)[1].split()[1]) == parent:
                        found.append(int(name))
            except OSError:
                pass
    return found


def processes(server):
    """The postmaster, and its children."""
    try:
        with open(os.path.join(server.data, "postmaster.pid"), encoding="utf-8") as lines:
            parent = int(lines.readline())
    except (OSError, ValueError):
        return []
    return [parent] + children(parent)


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Target:
    """What all have."""

    library = None                  # the sink
    once = False                    # it recognizes duplicates
    user_options = ""
    wire = None                     # what is between

    def __init__(self, folder, site, name, rng, variant):
        self.folder = folder
        self.site = site
        self.name = name            # of the foreign server
        self.rng = rng
        self.variant = variant

    def start(self):
        pass

    def settings(self):
        """Of the foreign server."""
        raise NotImplementedError

    def create(self):
        self.site.source.ask("CREATE EXTENSION IF NOT EXISTS %s" % self.library)
        self.site.source.ask("CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (%s)" % (
            self.name, self.library, ", ".join("%s '%s'" % item for item in self.settings().items())))
        self.site.source.ask("CREATE USER MAPPING FOR CURRENT_USER SERVER %s %s" % (self.name, self.user_options))

    def alter(self, option, value):
        verb = "SET" if option in self.settings() else "ADD"
        try:
            self.site.strike("ALTER SERVER %s OPTIONS (%s %s '%s')" % (self.name, verb, option, value))
        except psycopg2.errors.DuplicateObject:
            self.site.strike("ALTER SERVER %s OPTIONS (SET %s '%s')" % (self.name, option, value))

    def faults(self):
        return []

    def heal(self):
        """Everything works again, whatever was wrong."""

    def arrivals(self):
        raise NotImplementedError

    def torn(self):
        return []

    def checks(self):
        return []

    def logs(self):
        return []

    def clean(self):
        pass


class File(Target):
    library = "queue_file"

    def start(self):
        self.out = os.path.join(self.folder, "out")
        self.path = os.path.join(self.out, "events.jsonl")
        self.away = os.path.join(self.folder, "away")
        self.filler = os.path.join(self.out, "filler")
        os.mkdir(self.out)
        self.mounted = os.geteuid() == 0 and subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=%dm" % DISK, "relay", self.out],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0
        if os.geteuid() == 0:
            shutil.chown(self.out, os.environ.get("QUEUE_USER", "postgres"))

    def settings(self):
        return {"path": self.path, "rotate_size": "20000"}

    def faults(self):
        found = [
            fault(2, "folder", "folder closed", self.close_folder),
            fault(3, "folder", "torn line and lock", self.tear),
            fault(1, "server", "server altered", lambda: self.alter("rotate_size", self.rng.choice(["5000", "20000", "0"])),
                  gentle=True),
        ]
        if self.mounted:
            found.append(fault(2, "folder", "disk full", self.fill))
        else:
            found.append(fault(2, "folder", "folder away", self.take_away))
        return found

    def close_folder(self):
        os.chmod(self.out, 0)
        return self.rng.uniform(0.3, 1.5), self.open_folder

    def open_folder(self):
        os.chmod(self.out, 0o755)

    def take_away(self):
        os.rename(self.out, self.away)
        return self.rng.uniform(0.3, 1.5), self.bring_back

    def bring_back(self):
        if os.path.exists(self.away):
            os.rename(self.away, self.out)

    def tear(self):
        """As if somebody had died in the middle of a line: only while no relay has the file open."""
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                file = os.open(self.path, os.O_RDWR | os.O_APPEND)
            except OSError:
                continue
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # It may have been rotated between.
                if os.fstat(file).st_ino == os.stat(self.path).st_ino:
                    os.write(file, b'{"id": "torn", "data": {"lane": "k')
                    return self.rng.uniform(0.05, 1), lambda: os.close(file)
            except OSError:
                pass
            os.close(file)
            time.sleep(0.002)
        return None

    def fill(self):
        file = os.open(self.filler, os.O_WRONLY | os.O_CREAT, 0o600)
        leave = self.rng.choice([0, 4096, 16384])
        try:
            room = os.statvfs(self.out)
            os.posix_fallocate(file, 0, max(1, room.f_bavail * room.f_frsize - leave))
        except OSError:
            pass
        os.close(file)
        return self.rng.uniform(0.3, 2), self.free

    def free(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)

    def heal(self):
        self.bring_back()
        self.open_folder()
        self.free()

    def lines(self):
        """In the order of the files, which have their times in their names; the one at hand is the last."""
        names = sorted(name for name in os.listdir(self.out) if name.startswith("events.jsonl."))
        for name in names + ["events.jsonl"]:
            path = os.path.join(self.out, name)
            if os.path.exists(path):
                with open(path, encoding="utf-8") as lines:
                    for line in lines:
                        yield name, line

    def arrivals(self):
        found = []
        self.broken = []
        for name, line in self.lines():
            try:
                event = json.loads(line) if line.endswith("\n") else None
            except ValueError:
                event = None
            if event is None:
                self.broken.append("%s: %s" % (name, line[:200]))
                continue
            facts = of_payload(event["data"], event["id"])
            if event.get("key") not in (None, facts["lane"]):
                facts["sum"] = "other key"
            found.append(facts)
        return found

    def torn(self):
        return self.broken

    def clean(self):
        if not os.path.exists(self.out):
            return
        self.open_folder()
        for patience in range(100) if self.mounted else ():
            # Its relay may have a file open yet.
            time.sleep(0.05)
            if subprocess.run(["umount"] + ["-l"] * (patience == 99) + [self.out], stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, check=False).returncode == 0:
                break


class Wired(Target):
    """One that is reached through a proxy."""

    def behind(self):
        """The port of the destination itself."""
        raise NotImplementedError

    def connect(self):
        self.wire = Wire(self.behind())

    def faults(self):
        return [
            fault(3, "wire", "connections reset", lambda: self.wire.order("reset")),
            fault(4, "wire", "hole", lambda: self.hole("hole", "both", 1, 5)),
            fault(3, "wire", "hole, then reset", lambda: self.hole("drop", "both", 1, 4)),
            fault(3, "wire", "hole for answers", lambda: self.hole("hole", "answers", 0.5, 4)),
            fault(4, "wire", "answers lost", lambda: self.hole("drop", "answers", 0.05, 2.5)),
            fault(2, "wire", "refused", lambda: self.hole("refuse", "", 0.3, 2)),
            fault(3, "wire", "snipped", lambda: self.wire.order("snip", self.rng.choice([0, 1, 20, 200, 2000]))),
            fault(1, "wire", "slow", lambda: self.hole("slow", "", 0.3, 2)),
        ]

    def hole(self, mode, direction, least, most):
        self.wire.order(mode, direction)
        self.site.watch.hole = mode in ("hole", "drop")
        return self.rng.uniform(least, most), self.fill_hole

    def fill_hole(self):
        self.site.watch.hole = False
        self.wire.order("open")

    def heal(self):
        self.fill_hole()

    def clean(self):
        if self.wire:
            self.wire.close()


class Http(Wired):
    library = "queue_http"

    def start(self):
        self.port = free_port()
        self.file = os.path.join(self.folder, "events")
        self.process = None
        self.count = 0
        self.receive()
        self.connect()

    def behind(self):
        return self.port

    def settings(self):
        return {"url": "http://127.0.0.1:%d/events" % self.wire.port, "allow_private": "true", "connect_timeout": "1000"}

    def receive(self):
        if alive(self.process):
            return
        self.count += 1
        self.process = subprocess.Popen(
            ["/usr/bin/python3", "-B", os.path.join(HERE, "receiver.py"), str(self.port), self.file,
             "%d" % self.rng.randrange(1 << 31), MOODS[self.variant]], stdin=subprocess.DEVNULL,
            stderr=open(os.path.join(self.folder, "receiver.log"), "ab"))

    def faults(self):
        return super().faults() + [
            fault(4, "destination", "receiver killed", self.kill),
            fault(3, "destination", "receiver stopped", self.stop),
            fault(1, "server", "server altered", lambda: self.alter("max_connections", self.rng.choice(["1", "3", "10"])),
                  gentle=True),
        ]

    def kill(self):
        self.process.kill()
        self.process.wait()
        return self.rng.uniform(0, 1.5), self.receive

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)
        return self.rng.uniform(0.2, 4), self.go_on

    def go_on(self):
        if alive(self.process):
            self.process.send_signal(signal.SIGCONT)

    def heal(self):
        super().heal()
        self.go_on()
        self.receive()

    def arrivals(self):
        with open(self.file, encoding="utf-8") as lines:
            text = lines.read()
        # The last line of a receiver that was killed may be cut: it was not confirmed.
        return [json.loads(line) for line in text.split("\n")[:-1]]

    def clean(self):
        super().clean()
        if alive(self.process):
            self.process.kill()
            self.process.wait()


class Postgres(Wired):
    """Into a queue that recognizes duplicates."""

    library = "queue_postgres"
    once = True
    user_options = "OPTIONS (user 'postgres')"

    def start(self):
        self.server = Server(os.path.join(self.folder, "target"))
        self.server.start("--destdir", self.site.destdir, *options(self.site.settings))
        self.server.ask("CREATE EXTENSION queue")
        self.server.ask("SELECT queue.create('inbox', '{\"ordered\": true, \"dedup_window\": \"7 days\"}')")
        self.server.ask("CREATE SCHEMA relaytest")
        self.server.ask("CREATE TABLE relaytest.arrival (seq bigserial, id text, key text, body text)")
        self.server.ask("""
            CREATE FUNCTION relaytest.arrive(id text, key text, headers jsonb, content_type text, body bytea)
            RETURNS void LANGUAGE sql AS $$
                INSERT INTO relaytest.arrival (id, key, body) VALUES (id, key, convert_from(body, 'UTF8'))
            $$""")
        self.connect()

    def behind(self):
        return int(self.server.words["PGPORT"])

    def settings(self):
        return {"host": "127.0.0.1", "port": str(self.wire.port), "dbname": "postgres", "queue": "inbox",
                "connect_timeout": "1000", "sslmode": "disable"}

    def faults(self):
        return super().faults() + [
            fault(4, "destination", "target killed", self.kill),
            fault(1, "destination", "target restarted", self.restart),
            fault(3, "destination", "target stopped", self.stop),
            fault(2, "session", "session terminated", self.terminate),
            fault(1, "server", "server altered", lambda: self.alter(
                "connect_timeout", self.rng.choice(["1000", "1500", "900"])), gentle=True),
            self.disturbance(),
        ]

    def disturbance(self):
        return fault(1, "session", "target queue paused", self.pause)

    def pause(self):
        try:
            self.server.ask("SELECT queue.pause('inbox', 'enqueue')")
        except psycopg2.Error:
            return None
        return self.rng.uniform(0.2, 1), self.resume

    def resume(self):
        try:
            self.server.ask("SELECT queue.resume('inbox', 'enqueue')")
        except psycopg2.Error:
            pass                    # it is down; heal() comes again

    def terminate(self):
        """In the middle of its work, if it is at work."""
        try:
            self.server.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                            "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()")
        except psycopg2.Error:
            pass

    def kill(self):
        self.server.kill()
        return self.rng.uniform(0, 1.5), self.server.start

    def restart(self):
        self.server.stop(self.rng.choice(["fast", "immediate"]))
        return self.rng.uniform(0, 0.5), self.server.start

    def signal(self, number):
        signal_all(processes(self.server), number)

    def stop(self):
        self.signal(signal.SIGSTOP)
        return self.rng.uniform(0.2, 4), lambda: self.signal(signal.SIGCONT)

    def heal(self):
        super().heal()
        self.signal(signal.SIGCONT)
        if not processes(self.server):
            self.server.start()
        self.resume()

    def rows(self):
        return self.server.ask("SELECT payload, headers->>'ce-id', key FROM queues.inbox ORDER BY id")

    def arrivals(self):
        found = []
        for payload, event, key in self.rows():
            facts = of_payload(payload, event)
            if key not in (None, facts["lane"]):
                facts["sum"] = "other key"
            found.append(facts)
        return found

    def checks(self):
        return ["target: %s %s %s" % row for row in self.server.ask("SELECT * FROM queue.check()")]

    def logs(self):
        return [self.server.log]

    def clean(self):
        super().clean()
        self.signal(signal.SIGCONT)
        self.server.clean()


class Function(Postgres):
    """Into a function that does not."""

    once = False

    def settings(self):
        settings = super().settings()
        del settings["queue"]
        return dict(settings, function="relaytest.arrive")

    def disturbance(self):
        return fault(1, "session", "table locked", self.lock)

    def lock(self):
        try:
            connection = self.server.connect()
            connection.autocommit = False
            with connection.cursor() as cursor:
                cursor.execute("SET lock_timeout = '500 ms'")
                cursor.execute("LOCK relaytest.arrival IN EXCLUSIVE MODE")
        except psycopg2.Error:
            return None
        return self.rng.uniform(0.3, 2.5), connection.close

    def rows(self):
        return [(json.loads(body), event, key) for body, event, key in self.server.ask(
            "SELECT body, id, key FROM relaytest.arrival ORDER BY seq")]


TARGETS = {"file": File, "http": Http, "postgres": Postgres, "function": Function}
