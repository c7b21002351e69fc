"""
servers.py
	The servers under test: one, one on a small disk, or a primary with a
	standby. All are run by test/server, below the folder of the run.
"""

import datetime
import os
import re
import subprocess
import time

import psycopg2

HERE = os.path.realpath(os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", ".."))
CONTROL = os.path.join(HERE, "test", "server")

# Small segments and short delays, so that roll-over and reclaim happen all the time.
SETTINGS = ["max_connections=120", "max_prepared_transactions=100", "queue.reclaim_delay=300ms",
            "queue.worker_interval=100ms", "queue.recheck_interval=200ms", "restart_after_crash=on",
            "log_checkpoints=off", "log_timezone=UTC"]

# Of the small disk, in MB: the data of a run and some to spare.
DISK = 300


class Trouble(Exception):
    """A program that starts or stops servers failed."""


def environment():
    result = {name: value for name, value in os.environ.items()
              if not name.startswith("PG") or name == "PG_CONFIG"}
    result["LANG"] = "C.UTF-8"
    return result


def call(*command):
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, encoding="utf-8", check=False)
    if done.returncode != 0:
        raise Trouble("failed: %s\n%s" % (" ".join(command), done.stdout))
    return done.stdout


def as_user(*command):
    """As the user who runs the servers."""
    return call("bash", "-euc", '. "$1/test/lib.sh"; cd /; shift; as_user "$@"', "bash", HERE, *command)


def installed(folder):
    """Where the extension is: given, or built for this run."""
    if os.environ.get("QUEUE_DESTDIR"):
        return os.environ["QUEUE_DESTDIR"]
    destdir = os.path.join(folder, "installed")
    os.mkdir(destdir)
    call("bash", "-euc",
         '. "$1/test/lib.sh"; clean_environment; find_postgres; install_packages python3-psycopg2; '
         'copy_tree "$1" "$2"; build_tree "$2" "$3"',
         "bash", HERE, os.path.join(folder, "tree"), destdir)
    return destdir


class Server:
    """A server in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.data = os.path.join(folder, "data")
        self.log = os.path.join(folder, "log")
        self.words = {}

    def start(self, *arguments):
        self.words = dict(re.findall(r"(PG\w+)=(\S+)", call(CONTROL, "start", self.folder, *arguments)))

    def stop(self, mode):
        call(CONTROL, "stop", self.folder, mode)

    def kill(self):
        call(CONTROL, "kill", self.folder)

    def clean(self):
        call(CONTROL, "clean", self.folder)

    def address(self):
        return self.words["PGHOST"], self.words["PGPORT"]

    def connect(self):
        connection = psycopg2.connect("host=%s port=%s user=postgres dbname=postgres" % self.address(),
                                      application_name="server", connect_timeout=10)
        connection.autocommit = True
        return connection

    def ask(self, text):
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(text)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def accepting_since(self):
        """When the server last said that it accepts connections."""
        said = None
        with open(self.log, encoding="utf-8", errors="replace") as lines:
            lines.seek(max(0, os.path.getsize(self.log) - 200000))
            for line in lines:
                if "database system is ready to accept connections" in line:
                    said = line[:23]
        if said is None:
            return None
        told = datetime.datetime.strptime(said, "%Y-%m-%d %H:%M:%S.%f")
        return told.replace(tzinfo=datetime.timezone.utc).timestamp()


def options(settings):
    return [word for setting in settings for word in ("-c", setting)]


class Site:
    """Where the clients connect to: one server."""

    def __init__(self, folder, settings):
        self.folder = folder
        self.settings = SETTINGS + settings
        self.primary = Server(os.path.join(folder, "server"))

    def start(self, checksums=False):
        arguments = ["--destdir", installed(self.folder)]
        self.primary.start(*arguments, *options(self.settings))
        if checksums:
            self.primary.stop("fast")
            as_user(self.tool("pg_checksums"), "-e", "-D", self.primary.data)
            self.primary.start()

    def tool(self, name):
        return os.path.join(self.primary.words["PGBIN"], name)

    def dsn(self):
        return "host=%s port=%s user=postgres dbname=postgres" % self.primary.address()

    def logs(self):
        return [self.primary.log]

    def clean(self):
        self.primary.clean()


class Disk(Site):
    """A server on a file system of its own, which can be filled. The log of
    transactions is elsewhere, unless whole."""

    def __init__(self, folder, settings, whole):
        super().__init__(folder, settings)
        self.whole = whole
        self.filler = os.path.join(self.primary.folder, "filler")
        self.mounted = False

    def start(self, checksums=False):
        os.mkdir(self.primary.folder)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=%dm" % DISK, "stress", self.primary.folder],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", check=False)
        if done.returncode != 0:
            raise Trouble("a small disk needs the right to mount one: %s" % done.stdout.strip())
        self.mounted = True
        super().start(checksums)
        self.primary.stop("fast")
        if self.whole:
            # Small files, of which few are kept: the next one is soon needed, and finds no room.
            as_user(self.tool("pg_resetwal"), "--wal-segsize=1", "-D", self.primary.data)
            self.primary.start(*options(["min_wal_size=2MB", "max_wal_size=8MB"]))
        else:
            wal = os.path.join(self.folder, "wal")
            call("cp", "-a", os.path.join(self.primary.data, "pg_wal"), wal)
            call("rm", "-r", os.path.join(self.primary.data, "pg_wal"))
            as_user("ln", "-s", wal, os.path.join(self.primary.data, "pg_wal"))
            self.primary.start()

    def fill(self, leave):
        """Leaves so many bytes, unless those that write meanwhile take them."""
        file = os.open(self.filler, os.O_WRONLY | os.O_CREAT)
        size = 0
        step = 1 << 24
        while step >= 4096:
            room = os.statvfs(self.primary.folder)
            if room.f_bavail * room.f_frsize - leave < step:
                step //= 4
                continue
            try:
                os.posix_fallocate(file, size, step)
                size += step
            except OSError:
                step //= 4
        os.close(file)

    def free(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)

    def clean(self):
        if not self.mounted:
            return
        self.free()
        try:
            super().clean()
        finally:
            call("umount", "-l", self.primary.folder)


class Pair(Site):
    """A primary and a streaming standby, which change places."""

    def __init__(self, folder, settings, synchronous):
        super().__init__(folder, settings + ["wal_keep_size=256MB", "hot_standby=on"])
        self.synchronous = synchronous
        self.standby = Server(os.path.join(folder, "other"))
        self.places = {}

    def start(self, checksums=False):
        super().start(checksums)
        self.places[self.primary.folder] = self.primary.address()
        self.places[self.standby.folder] = (self.standby.folder, free_port(self.primary.address()[1]))
        os.mkdir(self.standby.folder)
        call("chown", "--reference", self.primary.folder, self.standby.folder)
        self.follow()

    def dsn(self):
        hosts, ports = zip(*self.places.values())
        return "host=%s port=%s user=postgres dbname=postgres target_session_attrs=read-write" % (
            ",".join(hosts), ",".join(ports))

    def logs(self):
        return [self.primary.log, self.standby.log]

    def follow(self):
        """Makes the standby anew, and waits until it follows; with synchronous
        commits from then on."""
        host, port = self.places[self.standby.folder]
        as_user("rm", "-rf", self.standby.data)
        as_user(self.tool("pg_basebackup"), "-D", self.standby.data, "-R", "-X", "stream", "-c", "fast", "--no-sync",
                "-d", "host=%s port=%s user=postgres" % self.primary.address())
        self.standby.start("-c", "port=" + port, "-c", "unix_socket_directories=" + host)
        self.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'")
        if self.synchronous:
            self.primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'")
            self.primary.ask("SELECT pg_reload_conf()")
            self.until("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')")
            # From here on each commit of the primary is in the standby when it is told.
            self.primary.ask("SELECT pg_logical_emit_message(true, 'stress', 'followed')")

    def until(self, query):
        end = time.time() + 60
        while not self.primary.ask(query)[0][0]:
            if time.time() > end:
                raise Trouble("waited in vain for: " + query)
            time.sleep(0.05)

    def promote(self):
        """The primary is gone; the standby takes its place."""
        self.standby.ask("SELECT pg_promote(true, 60)")
        self.primary, self.standby = self.standby, self.primary

    def clean(self):
        try:
            super().clean()
        finally:
            self.standby.clean()


def free_port(other):
    """Beside the other one's, which test/server has chosen."""
    for port in range(int(other) + 1, int(other) + 50):
        done = subprocess.run(["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/%d" % port],
                              stderr=subprocess.DEVNULL, check=False)
        if done.returncode != 0:
            return str(port)
    raise Trouble("found no free port")
