"""A relay beside the least program of the same client library (relay/minimal_*.c), which delivers
messages of the same size to the same destination, with as many in flight and the same confirmations,
but neither reads a queue nor acks. The queue has 1,000 keys; ordered, the relay keeps the order of
each. Lines with *program* are of queue-relay, the others of the worker in the server.

*rate*: the queue is filled with 100,000 messages (http: 50,000; --quick: a tenth), then the relay
begins; counted is from the first sight of an ack to the last ack. max_in_flight is 100, its default.
*minimal*: the least program, just before or after. *file*: lines are written and fdatasync'ed, by
the least program 100 at a time. *http*: up to 100 connections of HTTP/1.1 without TLS to a
destination on the same cores that answers at once, or after 5 ms (receiver.c). *postgres*: a queue
of a second server on the same machine; the least program has one transaction of 100 messages, each
with a dedup_key, under way.

*p50*, *p99*: a client commits a message about every 20 ms, 500 times (100 with --quick); from its
having the answer to COMMIT to the message's arrival: the receiver has read the request, the line is
in the file (before its fdatasync). *own*: from the least program's beginning to send to the arrival.

*growth*: of the private memory (RssAnon) of the process that runs the relay, from the first
twentieth of 1,000,000 messages (50,000) to the last, once in a run, with sync = false; *private*:
all of it then. *descriptors*, *threads*: of that process under load."""

import glob
import os
import shutil
import signal
import subprocess
import time

from results import Goal, percentile
from scenarios import brief
from server import private_server, stop_server

ID = "B26"
TITLE = "relays: commit to confirmed"
CONTENDERS = ["queue"]
# Line -> its contender, destination, its delay in ms, whether the queue is ordered, who runs the relay.
DESTINATIONS = {"file": ("file", 0), "http": ("http", 0), "http 5 ms": ("http", 5), "postgres": ("postgres", 0)}
LINES = {
    f"{name}, {'ordered' if ordered else 'unordered'}{', program' if runner == 'program' else ''}":
        ("queue", kind, delay, ordered, runner)
    for runner in ("server", "program")
    for name, (kind, delay) in DESTINATIONS.items()
    for ordered in (True, False)
}
# These have latencies and memory too.
WATCHED = [line for line, (_, kind, delay, ordered, _) in LINES.items() if kind != "postgres" and not delay and ordered]
RATES = ["rate", "minimal"]
LATENCIES = ["p50", "p99", "own p50", "own p99"]
MEMORY = {"growth": "MB", "private": "MB", "descriptors": "", "threads": ""}
PLOTTED = ["p50", "p99"]
COLUMNS = RATES + LATENCIES + list(MEMORY)
TABLE = (list(LINES), COLUMNS)
UNITS = "messages a second; us; MB"
METRICS = {f"{line} {column}": f"{line}, {column}" for line in LINES for column in COLUMNS}
GOALS = [
    Goal(f"{line}, beside the least program", ("queue", f"{line} rate"), ">=", 0.7, ("queue", f"{line} minimal"))
    for line in LINES
] + [
    Goal(f"{line}: p99 on an idle queue, beside the destination's own + 10 ms", ("queue", f"{line} p99"), "<=", 1,
         ("queue", f"{line} own p99"), more=10_000)
    for line in WATCHED
] + [
    Goal(f"{line}: growth in MB", ("queue", f"{line} growth"), "<=", 10, shown=True) for line in WATCHED
]
NAME = "bench_relay"
KEYS = 1000
FILL = 1000
IN_FLIGHT = 100
MESSAGES = {"file": 100_000, "http": 50_000, "postgres": 100_000}
EVERY_MS = 20
STATS = "SELECT total_acked FROM queue._stats() WHERE queue = %s"


def run(turn):
    for contender in turn.contenders.values():
        turn.attempt(contender, measure, turn)


def measure(contender, turn):
    bench = Bench(turn, contender)
    try:
        for repetition in range(turn.options.reps):
            for line in bench.lines():
                bench.attempt(line, bench.throughput, repetition)
            for line in bench.lines(WATCHED):
                bench.attempt(line, bench.latency, repetition)
        for line in bench.lines(WATCHED):
            bench.attempt(line, bench.memory, 0)
    finally:
        bench.end()


# ----- destinations


class File:
    sink = "queue_file"

    def __init__(self, bench, delay=0, log=None, sync=True):
        self.bench = bench
        self.path = f"{bench.folder}/lines"
        self.log = log
        self.sync = sync
        self.follower = None

    def options(self):
        return {"path": self.path, "sync": str(self.sync).lower()}

    def follow(self, count):
        """Notes when lines arrive."""
        with open(self.path, "a"):
            pass
        self.bench.give(self.path)
        self.follower = self.bench.start("follow", self.path, count, self.log)
        self.follower.stdout.readline()

    def followed(self):
        return self.follower.wait(timeout=60)

    def arrived(self):
        with open(self.path, "rb") as file:
            lines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
        self.bench.line_size = os.path.getsize(self.path) // max(1, lines)
        return lines

    def minimal(self, count):
        return self.bench.rate("minimal_file", self.path, count, IN_FLIGHT, self.bench.line_size)

    def minimal_latency(self, count, log):
        self.bench.tool("minimal_file", self.path, count, "every", EVERY_MS, self.bench.line_size, log)

    def end(self):
        if self.follower and self.follower.poll() is None:
            self.follower.kill()
        if os.path.exists(self.path):
            os.unlink(self.path)


class Http:
    sink = "queue_http"

    def __init__(self, bench, delay=0, log=None, sync=True):
        self.bench = bench
        self.receiver = bench.start("receiver", delay, *([log] if log else []))
        self.url = f"http://127.0.0.1:{int(self.receiver.stdout.readline())}/"

    def options(self):
        return {"url": self.url, "allow_networks": "127.0.0.1", "max_connections": str(IN_FLIGHT)}

    def follow(self, count):
        pass

    def followed(self):
        self.arrived()

    def arrived(self):
        self.receiver.send_signal(signal.SIGUSR1)
        return int(self.receiver.stdout.readline())

    def minimal(self, count):
        return self.bench.rate("minimal_http", self.url, count, IN_FLIGHT, self.bench.turn.options.payload)

    def minimal_latency(self, count, log):
        self.bench.tool("minimal_http", self.url, count, "every", EVERY_MS, self.bench.turn.options.payload, log)

    def end(self):
        self.receiver.terminate()
        self.receiver.wait()


class Postgres:
    sink = "queue_postgres"
    queue = "bench_inbox"

    def __init__(self, bench, delay=0, log=None, sync=True):
        self.bench = bench
        self.server = bench.remote()
        self.server.execute(f"SELECT queue.create('{self.queue}')")

    def where(self):
        environment = self.server.environment
        return {"host": environment["PGHOST"], "port": environment["PGPORT"], "dbname": environment["PGDATABASE"]}

    def options(self):
        return {**self.where(), "queue": self.queue}

    def arrived(self):
        return self.server.value("SELECT total_enqueued FROM queue.stats WHERE queue = %s", self.queue)

    def minimal(self, count):
        conninfo = " ".join(f"{name}={value}" for name, value in self.where().items())
        conninfo += f" user={self.server.environment['PGUSER']}"
        return self.bench.rate("minimal_pq", conninfo, self.queue, count, IN_FLIGHT, self.bench.turn.options.payload)

    def end(self):
        self.server.execute(f"SELECT queue.drop('{self.queue}', true)")


KINDS = {"file": File, "http": Http, "postgres": Postgres}


# ----- the bench


class Bench:
    def __init__(self, turn, contender):
        self.turn = turn
        self.server = turn.server
        self.contender = contender
        self.folder = f"{self.server.work}/relay"
        self.remote_server = None
        self.runner = None
        # Of a line of the file sink, until one was seen.
        self.line_size = 450
        os.makedirs(self.folder, exist_ok=True)
        self.give(self.folder)
        self.program = next(iter(glob.glob(f"{self.server.work}/install/**/queue-relay", recursive=True)), None)
        if not self.program:
            turn.results.notes.append(f"{ID}: the program queue-relay is left out: it was not built")
        self.there = {kind for kind in KINDS if self.has(KINDS[kind].sink)}
        self.install()

    def has(self, sink):
        """Whether a sink was built, and the least program beside it."""
        built = glob.glob(f"{self.server.work}/install/**/{sink}.so", recursive=True)
        tool = {"queue_http": "minimal_http"}.get(sink, "minimal_pq")
        if built and os.path.exists(f"{self.server.work}/{tool}"):
            return True
        self.turn.results.notes.append(f"{ID}: {sink} is left out: it was not built")
        return False

    def install(self):
        self.server.configure("queue.sink_libraries", ", ".join(KINDS[kind].sink for kind in sorted(self.there)))
        for kind in self.there:
            self.server.execute(f"CREATE EXTENSION IF NOT EXISTS {KINDS[kind].sink}")

    def end(self):
        if self.remote_server:
            stop_server(self.remote_server, "relayed")
        for kind in self.there:
            self.server.execute(f"DROP EXTENSION {KINDS[kind].sink} CASCADE")
        self.server.configure("queue.sink_libraries")
        shutil.rmtree(self.folder)

    def give(self, path):
        """To whom the server runs as."""
        if os.geteuid() == 0:
            shutil.chown(path, os.environ.get("QUEUE_USER", "postgres"))

    def remote(self):
        """The server that relays of postgres deliver to."""
        if not self.remote_server:
            self.remote_server = private_server("relayed")
            self.remote_server.execute("CREATE EXTENSION queue")
        return self.remote_server

    def lines(self, among=LINES):
        return [line for line in among if LINES[line][1] in self.there and line not in self.turn.failed
                and (LINES[line][4] == "server" or self.program)]

    def attempt(self, line, what, repetition):
        """One that fails is left out from then on, the others go on."""
        try:
            what(line, repetition)
        except Exception as error:  # whatever it is
            self.turn.failed.add(line)
            self.turn.results.troubles.append(f"{ID} {line}: {brief(error)}")
            print(f"  failed: {self.turn.results.troubles[-1]}", flush=True)

    # ----- programs

    def start(self, name, *arguments):
        command = [f"{self.server.work}/{name}", *map(str, arguments)]
        return subprocess.Popen(command, env=self.server.environment, stdout=subprocess.PIPE, text=True)

    def tool(self, name, *arguments):
        command = [f"{self.server.work}/{name}", *map(str, arguments)]
        done = subprocess.run(command, env=self.server.environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{name} failed: {done.stderr.strip()[:1500]}")
        return done.stdout

    def rate(self, name, *arguments):
        return float(self.tool(name, *arguments))

    # ----- the relay

    def make_queue(self, ordered):
        self.server.execute(f"""SELECT queue.create('{NAME}', '{{"ordered": {str(ordered).lower()}}}')""")

    def fill(self, count):
        self.server.rows(
            f"SELECT count(queue.enqueue_batch('{NAME}', array_fill(%s::jsonb, ARRAY[{FILL}]),"
            f" ARRAY(SELECT 'key ' || n %% {KEYS} FROM generate_series(1, {FILL}) n))) FROM generate_series(1, %s)",
            self.contender.payload, count // FILL)

    def begin_relay(self, destination, runner):
        options = ", ".join(f"{name} '{value}'" for name, value in destination.options().items())
        self.server.execute(f"CREATE SERVER {NAME} FOREIGN DATA WRAPPER {destination.sink} OPTIONS ({options})")
        if isinstance(destination, Postgres):
            user = destination.server.environment["PGUSER"]
            self.server.execute(f"CREATE USER MAPPING FOR CURRENT_USER SERVER {NAME} OPTIONS (user '{user}')")
        self.server.execute(
            f"""SELECT queue.create_relay('{NAME}', '{NAME}', '{NAME}',
                '{{"runner": "{runner}", "max_in_flight": {IN_FLIGHT}}}')""")
        if runner == "program":
            self.runner = self.start_program()

    def start_program(self):
        sinks = os.path.dirname(glob.glob(f"{self.server.work}/install/**/queue_file.so", recursive=True)[0])
        command = [self.program, "--sink-path", sinks, "--log-level", "warning", NAME]
        return subprocess.Popen(command, env=self.server.environment, stdout=subprocess.DEVNULL)

    def pid(self, runner):
        """Of the process that runs the relay; of the program it is a child."""
        if runner == "program":
            with open(f"/proc/{self.runner.pid}/task/{self.runner.pid}/children") as file:
                return int(file.read().split()[0])
        worker = "FROM pg_stat_activity WHERE backend_type = 'queue relay'"
        self.server.await_true(f"SELECT EXISTS (SELECT {worker})")
        return self.server.value(f"SELECT pid {worker}")

    def drop_relay(self):
        """Also what is there of one in part."""
        if self.runner:
            self.runner.terminate()
            self.runner.wait()
            self.runner = None
        if self.server.value("SELECT EXISTS (SELECT FROM queue._relay WHERE name = %s)", NAME):
            self.server.execute(f"SELECT queue.drop_relay('{NAME}')")
        self.server.await_true("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'queue relay')")
        self.server.execute(f"DROP SERVER IF EXISTS {NAME} CASCADE")
        if self.server.value("SELECT to_regclass(%s) IS NOT NULL", f"queues.{NAME}"):
            self.server.execute(f"SELECT queue.drop('{NAME}', true)")

    def await_acked(self, count, seconds=900):
        """Waits for that many acks; (when, how many) at first sight of any, and at the last."""
        first = None
        until = time.monotonic() + seconds
        while True:
            acked = self.server.value(STATS, NAME)
            now = time.monotonic()
            if acked and not first:
                first = (now, acked)
            if acked >= count:
                return first, (now, acked)
            if now > until:
                raise RuntimeError(f"{acked} of {count} were acked after {seconds} s: {self.state()}")
            time.sleep(0.005)

    def state(self):
        columns = "state, backlog, held, failed, last_error"
        return self.server.rows(f"SELECT {columns} FROM queue.relays WHERE relay = %s", NAME)

    def check(self, destination, count):
        """Each message has arrived, once, and the relay holds none."""
        self.server.await_true("SELECT backlog = 0 AND held = 0 FROM queue.relays WHERE relay = %s", NAME)
        if destination.arrived() != count:
            raise RuntimeError(f"{destination.arrived()} messages arrived instead of {count}: {self.state()}")

    # ----- measurements

    def add(self, repetition, line, column, value, unit):
        self.turn.add(repetition, self.contender, f"{line} {column}", value, unit)

    def few(self, count):
        return count // 10 if self.turn.options.quick else count

    def throughput(self, line, repetition):
        _, kind, delay, ordered, runner = LINES[line]
        count = self.few(MESSAGES[kind])
        measurements = [("rate", lambda: self.relayed(kind, delay, ordered, runner, count)),
                        ("minimal", lambda: self.least(kind, delay, count))]
        # Each repetition begins with the other one.
        for column, measurement in measurements[::-1] if repetition % 2 else measurements:
            self.add(repetition, line, column, measurement(), "messages/s")

    def relayed(self, kind, delay, ordered, runner, count):
        destination = KINDS[kind](self, delay)
        try:
            self.make_queue(ordered)
            self.fill(count)
            self.turn.settle()
            self.begin_relay(destination, runner)
            (began, some), (ended, all_of_them) = self.await_acked(count)
            self.check(destination, count)
            return (all_of_them - some) / (ended - began)
        finally:
            self.drop_relay()
            destination.end()

    def least(self, kind, delay, count):
        destination = KINDS[kind](self, delay)
        try:
            self.turn.settle()
            return destination.minimal(count)
        finally:
            destination.end()

    def latency(self, line, repetition):
        _, kind, _, ordered, runner = LINES[line]
        count = 100 if self.turn.options.quick else 500
        found = {"": self.latencies(kind, ordered, runner, count), "own ": self.own_latencies(kind, count)}
        for prefix, times in found.items():
            if len(times) < count:
                raise RuntimeError(f"{len(times)} messages of {count} have arrived")
            for label, where in (("p50", 0.50), ("p99", 0.99)):
                self.add(repetition, line, prefix + label, percentile(times, where), "us")

    def logs(self, kind):
        """A destination that notes what arrives; and where, and where to note what leaves."""
        arrivals = f"{self.folder}/arrivals"
        return KINDS[kind](self, log=arrivals), arrivals, f"{self.folder}/departures"

    def latencies(self, kind, ordered, runner, count):
        destination, arrivals, departures = self.logs(kind)
        try:
            self.make_queue(ordered)
            self.begin_relay(destination, runner)
            # The first one has the connection, or the file, opened.
            self.server.execute(f"""SELECT queue.enqueue('{NAME}', '{{"n": 0}}', key => 'first')""")
            self.await_acked(1)
            destination.follow(count)
            self.turn.settle()
            self.tool("commits", NAME, count, EVERY_MS, self.turn.options.payload, departures)
            self.await_acked(count + 1)
            destination.followed()
            return between(departures, arrivals)
        finally:
            self.drop_relay()
            destination.end()

    def own_latencies(self, kind, count):
        destination, arrivals, departures = self.logs(kind)
        try:
            destination.follow(count)
            self.turn.settle()
            destination.minimal_latency(count, departures)
            destination.followed()
            return between(departures, arrivals)
        finally:
            destination.end()

    def memory(self, line, repetition):
        _, kind, _, ordered, runner = LINES[line]
        count = 50_000 if self.turn.options.quick else 1_000_000
        destination = KINDS[kind](self, sync=False)
        try:
            self.make_queue(ordered)
            for _ in range(0, count, 50_000):
                self.fill(50_000)
            self.begin_relay(destination, runner)
            self.await_acked(count // 20)
            pid = self.pid(runner)
            before = process(pid)
            self.await_acked(count * 9 // 10)
            busy = process(pid)
            self.await_acked(count)
            self.check(destination, count)
            after = process(pid)
        finally:
            self.drop_relay()
            destination.end()
        found = {"growth": (after["RssAnon"] - before["RssAnon"]) / 1024, "private": after["RssAnon"] / 1024,
                 "descriptors": busy["descriptors"], "threads": busy["Threads"]}
        for column, unit in MEMORY.items():
            self.add(repetition, line, column, found[column], unit)


def process(pid):
    """Numbers of /proc/PID/status, and how many descriptors it has."""
    with open(f"/proc/{pid}/status") as file:
        found = {line.split(":")[0]: line.split()[1] for line in file if len(line.split()) > 1}
    return {"RssAnon": int(found["RssAnon"]), "Threads": int(found["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd"))}


def between(departures, arrivals):
    """us from one log's time to the other's, of each number in both; of arrivals the first counts."""
    arrived = {}
    for number, when in read_log(arrivals):
        arrived.setdefault(number, when)
    return [(arrived[number] - when) / 1000 for number, when in read_log(departures) if number in arrived]


def read_log(path):
    with open(path) as lines:
        return [tuple(map(int, line.split())) for line in lines]
