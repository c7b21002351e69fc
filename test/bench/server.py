"""The server under test, as the scenarios see it: SQL, pgbench, pingpong, WAL."""

import glob
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import namedtuple

import psycopg2

Load = namedtuple("Load", "transactions seconds")

# A transaction of a background load: when it ended (epoch), what it took from when it was due, of which script.
Took = namedtuple("Took", "ended us script")

# As many threads for pgbench: more would only take turns.
CORES = os.cpu_count() or 1


class Server:
    """One running server. The environment (PGHOST, PGPORT, ...) names it."""

    def __init__(self, environment=None):
        self.environment = dict(os.environ, **(environment or {}))
        self.bin = self.environment["PGBIN"]
        self.work = self.environment["BENCH_WORK"]
        self.connection = self.connect("bench")

    def close(self):
        self.connection.close()

    def rows(self, query, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(query, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query, *arguments):
        return self.rows(query, *arguments)[0][0]

    def execute(self, *statements):
        for statement in statements:
            self.rows(statement)

    def setting(self, name):
        return self.value("SELECT current_setting(%s)", name)

    def configure(self, name, value=None):
        """Sets a setting for the whole server, or resets it."""
        if value is None:
            self.execute(f"ALTER SYSTEM RESET {name}")
        else:
            self.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.execute("SELECT pg_reload_conf()")
        for _ in range(100):
            if value is None or self.setting(name) == value:
                return
            time.sleep(0.02)
        raise RuntimeError(f"{name} did not become {value}")

    def wal(self):
        """WAL bytes written so far."""
        return int(self.value("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    def cpu(self):
        """Seconds of processor time of all backends that have ended. The machine's load changes it little."""
        for _ in range(100):
            if not self.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"):
                break
            time.sleep(0.05)
        # Gone from there, a process still has to end and to be collected.
        time.sleep(0.2)
        postmaster = self.value("SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)")
        with open(f"/proc/{postmaster}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")

    def pgbench(self, script, clients=1, seconds=None, transactions=None, **variables):
        """Runs a script for a time, or a number of times a client."""
        with tempfile.NamedTemporaryFile("w", suffix=".sql", dir=self.work) as file:
            file.write(script)
            file.flush()
            command = [f"{self.bin}/pgbench", "-n", "-M", "prepared", "-f", file.name]
            command += ["-c", str(clients), "-j", str(min(clients, CORES))]
            command += ["-T", str(seconds)] if seconds else ["-t", str(transactions)]
            for name, value in variables.items():
                command += ["-D", f"{name}={value}"]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"pgbench failed:\n{done.stderr.strip()[:1500]}\n{script}")
        count = int(re.search(r"actually processed: (\d+)", done.stdout).group(1))
        rate = float(re.search(r"tps = ([\d.]+)", done.stdout).group(1))
        return Load(count, count / rate)

    def background(self, scripts, clients, rate=None, log=True, **variables):
        """Starts pgbench beside what is measured; see Background."""
        return Background(self, [scripts] if isinstance(scripts, str) else scripts, clients, rate, log, variables)

    def sleepers(self, count, *statements):
        """Starts many sessions that run statements in turn and sleep in one of them (sleepers.c)."""
        return Sleepers(self, count, statements)

    def connect(self, name):
        """One more session, for what must last."""
        connection = psycopg2.connect(
            host=self.environment["PGHOST"],
            port=self.environment["PGPORT"],
            user=self.environment["PGUSER"],
            dbname=self.environment["PGDATABASE"],
            application_name=name,
        )
        connection.autocommit = True
        return connection

    def await_true(self, query, *arguments, seconds=60):
        """Waits for a condition of the server's."""
        until = time.monotonic() + seconds
        while not self.value(query, *arguments):
            if time.monotonic() > until:
                raise RuntimeError(f"never became true: {query}")
            time.sleep(0.02)

    def pingpong(self, count, pause_ms, **steps):
        """Latencies of a hand-over in microseconds, and how many were missed."""
        command = [f"{self.work}/pingpong", str(count), *map(str, pause_ms)]
        command += [f"{name}={sql}" for name, sql in steps.items()]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[:1500])
        lines = done.stdout.split()
        return [float(line) for line in lines if line != "miss"], lines.count("miss")


class Beside:
    """Sessions of another program beside what is measured; they can be told by their name."""

    count = 0

    def __init__(self, server, clients):
        Beside.count += 1
        self.server = server
        self.clients = clients
        self.name = f"beside{Beside.count}"
        self.folder = tempfile.mkdtemp(dir=server.work)

    def start(self, command):
        self.errors = open(f"{self.folder}/errors", "w+")
        environment = dict(self.server.environment, PGAPPNAME=self.name)
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=self.errors
        )

    def await_sessions(self, condition):
        """Waits until all sessions are in a state."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND {condition}"
        until = time.monotonic() + 180
        while self.server.value(query, self.name) < self.clients:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.clients} sessions never came: {self.trouble()}")
            time.sleep(0.05)

    def trouble(self):
        self.errors.seek(0)
        return self.errors.read().strip()[:1500]

    def stop(self):
        """Ends it at once, also sessions that sleep; nothing if it has ended."""
        if not os.path.isdir(self.folder):
            return
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()
        mine = "FROM pg_stat_activity WHERE application_name = %s"
        self.server.rows(f"SELECT pg_terminate_backend(pid) {mine}", self.name)
        self.server.await_true(f"SELECT NOT EXISTS (SELECT {mine})", self.name)
        self.remove()

    def remove(self):
        self.errors.close()
        shutil.rmtree(self.folder)


class Background(Beside):
    """pgbench, until it is ended.

    With a rate, a transaction counts from when it was due, so that who is held
    up is not asked less often.
    """

    def __init__(self, server, scripts, clients, rate, log, variables):
        super().__init__(server, clients)
        command = [f"{server.bin}/pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, CORES))]
        # The time is what SIGALRM ends, in good order.
        command += ["-T", "36000"]
        command += ["-l", "--log-prefix", f"{self.folder}/log"] if log else []
        command += ["-R", str(rate)] if rate else []
        for number, script in enumerate(scripts):
            if script.startswith("builtin:"):
                command += ["-b", script.removeprefix("builtin:")]
                continue
            with open(f"{self.folder}/{number}.sql", "w") as file:
                file.write(script)
            command += ["-f", file.name]
        for name, value in variables.items():
            command += ["-D", f"{name}={value}"]
        self.start(command)
        self.await_sessions("true")

    def end(self):
        """Ends it when each has finished what it is at; what its transactions took."""
        self.process.send_signal(signal.SIGALRM)
        if self.process.wait() != 0:
            raise RuntimeError(f"pgbench failed: {self.trouble()}")
        rows = []
        for path in glob.glob(f"{self.folder}/log.*"):
            with open(path) as lines:
                rows += [line.split() for line in lines]
        self.remove()
        return sorted(Took(int(row[4]) + int(row[5]) / 1e6, float(row[2]), int(row[3])) for row in rows)


class Sleepers(Beside):
    def __init__(self, server, count, statements):
        super().__init__(server, count)
        self.start([f"{server.work}/sleepers", str(count), *statements])


def folder_of(name):
    return os.path.join(os.environ["BENCH_WORK"], name)


def control(*arguments):
    """test/server; what it prints."""
    program = os.path.join(os.environ["BENCH_TREE"], "test", "server")
    return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout


def as_user(*command):
    """Runs a server's program as its user: as root we are somebody else."""
    user = os.environ.get("QUEUE_USER", "postgres")
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", *command]
    subprocess.run(command, check=True, capture_output=True, cwd="/")


def private_server(name, checksums=False, **settings):
    """Starts a further server beside the main one; stop_server ends it."""
    work = os.environ["BENCH_WORK"]
    folder = folder_of(name)
    settings = {"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", **settings}
    start = ["start", folder]
    for setting, value in settings.items():
        start += ["-c", f"{setting}={value}"]
    if os.path.isdir(os.path.join(work, "install")):
        start += ["--destdir", os.path.join(work, "install")]
    else:
        start += ["-c", "shared_preload_libraries="]
    server = Server(exports(control(*start)))
    if checksums and server.setting("data_checksums") != "on":
        server.close()
        control("stop", folder)
        as_user(os.path.join(os.environ["PGBIN"], "pg_checksums"), "-e", "-D", f"{folder}/data")
        server = Server(exports(control("start", folder)))
    return server


def standby_of(primary, name):
    """Starts a streaming standby of a private server; stop_server ends it."""
    folder = folder_of(name)
    os.makedirs(folder, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, os.environ.get("QUEUE_USER", "postgres"))
    source = f"host={primary.environment['PGHOST']} port={primary.environment['PGPORT']} user=postgres"
    backup = [os.path.join(primary.bin, "pg_basebackup"), "-D", f"{folder}/data", "-R", "-c", "fast", "-d", source]
    as_user(*backup)
    port = int(primary.environment["PGPORT"]) + 1
    return Server(exports(control("start", folder, "-c", f"port={port}", "-c", f"unix_socket_directories={folder}")))


def stop_server(server, name):
    """Ends a private server, and what it has on disk."""
    server.close()
    control("clean", folder_of(name))


def exports(lines):
    """The variables of test/server's "export A=b C=d"."""
    return dict(word.split("=", 1) for word in lines.split() if "=" in word)
