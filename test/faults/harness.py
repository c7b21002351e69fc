"""
harness.py
	A server built with faults.h, the file that arms it, and what must hold
	after each fault.
"""

import collections
import functools
import io
import mmap
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time

import psycopg2
import psycopg2.extras

HERE = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", ".."))

# A small server, whose worker is often there.
SETTINGS = ["fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=20", "autovacuum=off",
            "autovacuum_freeze_max_age=100000", "restart_after_crash=on", "log_checkpoints=off", "max_prepared_transactions=5", "queue.sink_libraries=queue_file",
            "queue.max_leases=256", "queue.max_queues=64", "queue.max_segments=512", "queue.map_memory=1MB",
            "queue.worker_interval=50ms", "queue.recheck_interval=100ms", "queue.reclaim_delay=100ms"]

# Functions that faults.c sees being called and returning.
WRAPPED = ["queue_slot_lock", "queue_slot_lock_sequence", "queue_slot_unlock", "queue_slot_retire",
           "queue_slot_free", "queue_map_take", "queue_map_put", "queue_map_abort"]

# Longest that anything may take, in seconds: nothing here waits for so long.
PATIENCE = 10.0

# Which message it is; one of bytes has no name.
TAG = "coalesce(payload->>'t', '?')"

PLACES = {1: "in the callback of an end of a transaction", 2: "while a slot is locked",
          3: "while a spinlock is held", 4: "could wait for a heavyweight lock under busy"}

Site = collections.namedtuple("Site", "index file line name kind")


class Failure(Exception):
    """Something does not hold that must."""


def call(environment, *command):
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, encoding="utf-8", check=False)
    if done.returncode != 0:
        sys.exit("faults: failed: %s\n%s" % (" ".join(command), done.stdout))
    return done.stdout


# ----- the file that all have mapped

class Control:
    """FaultsControl of faults.c."""

    TRACE, MEMORY, CANCEL, TERMINATE, KILL, HOLD = range(6)
    ACTIONS = {"memory": MEMORY, "cancel": CANCEL, "terminate": TERMINATE, "kill": KILL}
    WORKER = -1
    LAUNCHER = -2
    FIELDS = ["armed", "target", "action", "at", "site", "count", "fired", "fired_pid", "sites", "violations"]
    VIOLATIONS = 4 * len(FIELDS)
    PASSED = VIOLATIONS + 64 * 8
    TRACES = PASSED + 4096
    SIZE = TRACES + 65536 * 2

    def __init__(self, path):
        self.path = path
        for name, size in ((path, self.SIZE), (path + ".sites", 0)):
            with open(name, "wb") as file:
                file.truncate(size)
            os.chmod(name, 0o666)
        self.file = open(path, "r+b")
        self.map = mmap.mmap(self.file.fileno(), self.SIZE)

    def get(self, name):
        return struct.unpack_from("i", self.map, 4 * self.FIELDS.index(name))[0]

    def put(self, name, value):
        struct.pack_into("i", self.map, 4 * self.FIELDS.index(name), value)

    def arm(self, target, action, at=0, site=-1):
        self.put("armed", 0)
        for name, value in (("target", target), ("action", action), ("at", at), ("site", site),
                            ("count", 0), ("fired", 0), ("fired_pid", 0)):
            self.put(name, value)
        self.put("armed", 1)

    def disarm(self):
        """Returns the index of the point where it happened, or None."""
        self.put("armed", 0)
        return self.get("fired") - 1 if self.get("fired") else None

    def trace(self):
        """The points passed since armed, in order."""
        n = min(self.get("count"), 65536)
        return struct.unpack_from("%dH" % n, self.map, self.TRACES)

    def passed(self):
        return {i for i in range(self.get("sites")) if self.map[self.PASSED + i]}

    def violations(self):
        """Pairs of point and place, and forgets them."""
        n = self.get("violations")
        found = [struct.unpack_from("ii", self.map, self.VIOLATIONS + 8 * i) for i in range(n)]
        self.put("violations", 0)
        return found

    def sites(self):
        with open(self.path + ".sites", encoding="utf-8") as file:
            rows = [line.rstrip("\n").split("\t") for line in file]
        return [Site(int(row[0]), row[1], int(row[2]), row[3], int(row[4])) for row in rows]


# ----- the server

def build(environment, folder):
    """A private copy with the header before each file; returns where it was installed."""
    tree = os.path.join(folder, "tree")
    installed = os.path.join(folder, "installed")
    os.mkdir(installed)
    call(environment, "bash", "-euc",
         '. "$1/test/lib.sh"; clean_environment; find_postgres; install_packages binutils; copy_tree "$1" "$2"',
         "bash", HERE, tree)
    pg_config = ["PG_CONFIG=" + environment["PG_CONFIG"], "with_llvm=no"]
    make = ["make", "-s", "-C", tree] + pg_config
    quiet = "-Wno-declaration-after-statement -Wno-shadow"
    call(environment, *make, "PG_CPPFLAGS=-Isrc -Itest/faults", "QUEUE_CFLAGS=" + quiet, "test/faults/faults.o")
    link = " ".join(["test/faults/faults.o"] + ["-Wl,--wrap=" + name for name in WRAPPED])
    faulty = ["QUEUE_CFLAGS=-include %s/test/faults/faults.h %s" % (tree, quiet), "SHLIB_LINK=" + link]
    call(environment, *make, "-j2", *faulty)
    call(environment, *make, "SINKS=file", "sinks")
    call(environment, *make, *faulty, "DESTDIR=" + installed, "install")
    return tree, installed


def uncovered_calls(environment, tree):
    """Functions of the server that the library calls and neither faults.h nor calm names."""
    listed = call(environment, "bash", "-euc", 'nm -u "$1"/src/*.o', "bash", tree)
    symbols = {match.group(1) for match in re.finditer(r"^ +U (\w+)$", listed, re.M)}
    own = call(environment, "bash", "-euc", 'nm --defined-only "$1"/src/*.o "$1"/test/faults/faults.o', "bash", tree)
    symbols -= set(re.findall(r"^[0-9a-f]+ [A-Za-z] (\w+)$", own, re.M))
    here = os.path.dirname(os.path.realpath(__file__))
    with open(os.path.join(here, "faults.h"), encoding="utf-8") as file:
        symbols -= set(re.findall(r"^#define (\w+)\(", file.read(), re.M))
    with open(os.path.join(here, "calm"), encoding="utf-8") as file:
        symbols -= set(re.sub("#.*", "", file.read()).split())
    return sorted(symbols)


class Server:
    def __init__(self, folder, environment):
        self.environment = environment
        self.folder = folder
        self.where = os.path.join(folder, "server")
        self.control = Control(os.path.join(folder, "control"))
        self.tree, installed = build(environment, folder)
        environment = dict(environment, QUEUE_FAULTS=self.control.path)
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        printed = call(environment, os.path.join(HERE, "test", "server"), "start", self.where,
                       "--destdir", installed, *settings)
        words = dict(re.findall(r"(PG\w+)=(\S+)", printed))
        self.dsn = "host=%s port=%s user=postgres connect_timeout=10" % (
            words["PGHOST"], words["PGPORT"])
        self.sites = self.control.sites()

    def stop(self):
        call(self.environment, os.path.join(HERE, "test", "server"), "clean", self.where)

    def restart(self):
        environment = dict(self.environment, QUEUE_FAULTS=self.control.path)
        call(environment, os.path.join(HERE, "test", "server"), "stop", self.where, "immediate")
        call(environment, os.path.join(HERE, "test", "server"), "start", self.where)

    def connect(self, database="postgres", patience=PATIENCE):
        until = time.monotonic() + patience
        while True:
            try:
                connection = psycopg2.connect(self.dsn, dbname=database)
                connection.autocommit = True
                return Session(connection)
            except psycopg2.OperationalError as error:
                if time.monotonic() > until:
                    raise Failure("the server does not come back: %s" % error)
                time.sleep(0.02)

    def log(self):
        with open(os.path.join(self.where, "log"), encoding="utf-8", errors="replace") as file:
            return file.readlines()


class Session:
    def __init__(self, connection):
        self.connection = connection
        self.pid = connection.info.backend_pid
        self("SET client_min_messages = error; SET statement_timeout = '10s'")

    def __call__(self, text, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def one(self, text, *arguments):
        return self(text, *arguments)[0][0]

    def column(self, text, *arguments):
        return [row[0] for row in self(text, *arguments)]

    def copy(self, text, data):
        with self.connection.cursor() as cursor:
            cursor.copy_expert(text, io.StringIO(data))

    def close(self):
        try:
            self.connection.close()
        except psycopg2.Error:
            pass


# ----- what scenes work with

class Stage:
    """The sessions of a scene, and questions to the server."""

    def __init__(self, server):
        self.server = server
        self.control = server.control
        self.run = 0                # number of the current try: marks its messages
        self.subject = self.helper = self.keeper = None
        self.open()
        self.helper("CREATE EXTENSION IF NOT EXISTS queue")
        self.helper("CREATE SCHEMA faults")
        self.helper("CREATE TABLE faults.mark (run int)")
        self.helper("CREATE FUNCTION faults.left() RETURNS text LANGUAGE C AS 'queue', 'queue_faults_left'")
        self.helper("CREATE FUNCTION faults.forget(int) RETURNS void LANGUAGE C STRICT AS 'queue', 'queue_faults_forget'")

    def open(self):
        for session in (self.subject, self.helper, self.keeper):
            if session:
                session.close()
        self.keeper = None
        self.helper = self.server.connect()
        self.subject = self.server.connect()

    def reopen_after_crash(self):
        """A server that has not noticed yet would let us in, and throw us out."""
        try:
            end = time.monotonic() + PATIENCE
            while time.monotonic() < end:
                self.helper("SELECT 1")
                time.sleep(0.005)
            raise Failure("the server does not notice that a process has died")
        except psycopg2.Error:
            self.open()

    def renew_subject(self):
        self.subject.close()
        self.subject = self.server.connect()

    # ----- messages

    def tag(self, name):
        return "?" if name is None else "%d.%s" % (self.run, name)

    def enqueue(self, queue, *names, size=0, **options):
        for name in names:
            self.helper("SELECT queue.enqueue(%s, %s" + "".join(", %s => %%s" % key for key in options) + ")", queue,
                        psycopg2.extras.Json({"t": self.tag(name), "pad": noise(size)}), *options.values())

    def lease(self, queue, n=1, lease="1 hour"):
        """Leases to the session under test; pairs of tag and receipt."""
        rows = self.subject("SELECT payload->>'t', receipt::text FROM queue.dequeue(%s, %s, lease => %s)", queue, n, lease)
        if len(rows) != n:
            raise Failure("%d of %d messages of %s could be leased" % (len(rows), n, queue))
        return sorted(rows)

    def rows(self, queue):
        return sorted(self.helper.column("SELECT %s FROM queues.\"%s\"" % (TAG, queue)))

    def exists(self, queue):
        return self.helper.one("SELECT to_regclass('queues.\"%s\"') IS NOT NULL" % queue)

    def drain(self, queue, expected):
        """Everything that can be dequeued is acked; waits for what is expected."""
        found = []
        end = time.monotonic() + 5
        while True:
            rows = self.helper("SELECT " + TAG + ", queue.ack(receipt) FROM queue.dequeue(%s, 100)", queue)
            found += [row[0] for row in rows]
            if not rows and (len(found) >= len(expected) or time.monotonic() > end):
                return sorted(found)
            if not rows:
                time.sleep(0.005)

    def purge(self, queue):
        self.helper("SELECT queue.purge(%s, '{\"states\": [\"ready\", \"delayed\", \"leased\", \"failed\"]}')", queue)

    def committed(self):
        return self.helper.one("SELECT EXISTS (SELECT FROM faults.mark WHERE run = %s)", self.run)

    # ----- the server's state

    def advance(self, by):
        self.helper("SELECT queue.clock_advance(%s)", by)

    def forget(self, queue):
        """What a restart forgets of it. Nobody may hold anything of it."""
        self.helper("SELECT faults.forget((SELECT id FROM queue._queue WHERE view = %s::regclass))",
                    'queues."%s"' % queue)

    def hold_worker(self, queue):
        """Keeps the worker from writing anything of a queue, and lets dequeues through."""
        if self.keeper is None:
            self.keeper = self.server.connect()
        self.keeper("ROLLBACK")
        self.keeper("BEGIN")
        for segment in self.helper.column("SELECT segment::text FROM queue.segments WHERE queue = %s", queue):
            self.keeper("LOCK TABLE ONLY %s IN SHARE MODE" % segment)

    def subject_is_stopped(self):
        with open("/proc/%d/stat" % self.subject.pid, encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"

    def let_worker_go(self):
        if self.keeper and not self.keeper.connection.closed:
            self.keeper("ROLLBACK")

    def worker(self):
        return self.helper.one("SELECT CASE WHEN status = 'ok' THEN value::int ELSE 0 END FROM queue.health() "
                               "WHERE \"check\" = 'worker'")

    def call_launcher(self):
        """It need not wait before it starts a worker once more."""
        self.advance("61 s")
        self.helper("ALTER DATABASE postgres CONNECTION LIMIT -1")

    # ----- waiting

    def until(self, what, question, patience=PATIENCE, meanwhile=None):
        """Waits until the answer is true; returns it."""
        end = time.monotonic() + patience
        while True:
            answer = question()
            if answer:
                return answer
            if time.monotonic() > end:
                raise Failure("in vain waited for: " + what)
            if meanwhile:
                meanwhile()
            time.sleep(0.005)

    # ----- what must hold at any time

    def check(self):
        """Nothing is left behind by anybody."""
        self.nothing_held()
        broken = self.eventually(lambda: self.helper("SELECT * FROM queue.check()"))
        if broken:
            raise Failure("queue.check(): %s" % broken)
        left = self.eventually(self.leavings)
        if left:
            raise Failure("left in shared memory: %s" % left)

    def nothing_held(self):
        held = self.eventually(lambda: self.helper(
            "SELECT mode, relation::regclass::text, locktype FROM pg_locks WHERE pid = %s", self.subject.pid))
        if held:
            raise Failure("locks are held: %s" % held)

    def eventually(self, question):
        """What may be in motion for a moment must be gone soon."""
        end = time.monotonic() + 5
        while True:
            answer = question()
            if not answer or time.monotonic() > end:
                return answer
            time.sleep(0.01)

    def leavings(self):
        text, known, slots = self.helper(
            "SELECT faults.left(), ARRAY(SELECT id FROM queue._queue ORDER BY id), "
            "ARRAY(SELECT q.id FROM queue.leases l JOIN queue.queues v USING (queue) JOIN queue._queue q ON q.view = v.view)")[0]
        found = []
        if "committing 0" not in text:
            found.append(text.split(";")[0])
        for queue, sleepers, used, keeper in re.findall(r"queue (\d+) sleepers (\d+) slots (\d+) keeper (\w+)", text):
            if int(queue) not in known:
                found.append("queue %s, which does not exist" % queue)
            if sleepers != "0" or keeper != "none":
                found.append("%s sleepers of queue %s, keeper %s" % (sleepers, queue, keeper))
            if int(used) != slots.count(int(queue)):
                found.append("%s slots of queue %s, which has %d" % (used, queue, slots.count(int(queue))))
        return found


@functools.lru_cache
def noise(size):
    """Does not compress; the same each time."""
    text, state = [], 12345
    while len(text) * 8 < size:
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        text.append("%08x" % (state >> 32))
    return "".join(text)


class Aside(threading.Thread):
    """Something that is done beside the driver."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work = work
        self.error = None
        self.start()

    def run(self):
        try:
            self.work()
        except (Failure, psycopg2.Error) as error:
            self.error = error

    def done(self):
        """Waits for its end; what went wrong is raised here."""
        self.join(PATIENCE)
        if self.is_alive():
            raise Failure("it hangs beside the driver")
        if self.error:
            raise self.error


class Watchdog:
    """Ends a try that hangs where no timeout of the server ends it."""

    def __enter__(self):
        signal.signal(signal.SIGALRM, self.bark)
        signal.alarm(int(PATIENCE * 3))

    def __exit__(self, *_):
        signal.alarm(0)

    @staticmethod
    def bark(*_):
        raise Failure("it hangs")
