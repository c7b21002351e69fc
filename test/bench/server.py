"""The server under test, as the scenarios see it: SQL, pgbench, pingpong, WAL."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import namedtuple

import psycopg2

Load = namedtuple("Load", "transactions seconds")

# As many threads for pgbench: more would only take turns.
CORES = os.cpu_count() or 1


class Server:
    """One running server. The environment (PGHOST, PGPORT, ...) names it."""

    def __init__(self, environment=None):
        self.environment = dict(os.environ, **(environment or {}))
        self.bin = self.environment["PGBIN"]
        self.work = self.environment["BENCH_WORK"]
        self.connection = psycopg2.connect(
            host=self.environment["PGHOST"],
            port=self.environment["PGPORT"],
            user=self.environment["PGUSER"],
            dbname=self.environment["PGDATABASE"],
            application_name="bench",
        )
        self.connection.autocommit = True

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

    def pingpong(self, count, pause_ms, **steps):
        """Latencies of a hand-over in microseconds, and how many were missed."""
        command = [f"{self.work}/pingpong", str(count), *map(str, pause_ms)]
        command += [f"{name}={sql}" for name, sql in steps.items()]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip()[:1500])
        lines = done.stdout.split()
        return [float(line) for line in lines if line != "miss"], lines.count("miss")


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


def private_server(name, checksums=False):
    """Starts a further server beside the main one; stop_server ends it."""
    work = os.environ["BENCH_WORK"]
    folder = folder_of(name)
    start = ["start", folder, "-c", "shared_buffers=512MB", "-c", "max_wal_size=8GB"]
    start += ["-c", "checkpoint_timeout=1h"]
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
