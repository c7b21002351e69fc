"""A mixed load for a long time. test/soak builds, starts a server and calls it:

    soak.py SECONDS held|renewed|none

Is the last twelfth as fast as the first, and does the disk stay within what is
allowed, with small segments, checkpoints and a pinned horizon?
"""

import glob
import os
import sys
import time

from server import Server

SEGMENT = 1 << 20
CLIENTS = 8
SLICES = 12
CHECKPOINTS = 5     # a slice

ENQUEUE = "SELECT queue.enqueue('soak', jsonb_build_object('n', :client_id::int, 'note', repeat('x', 70)));\n"
PRODUCE = {
    ENQUEUE: 8,
    "SELECT queue.enqueue_batch('soak', array_fill(jsonb_build_object('note', repeat('x', 80)), ARRAY[20]));\n": 2,
    "SELECT queue.enqueue('soak', '{\"later\": true}', delay => make_interval(secs => 1 + 2 * random()));\n": 1,
    "SELECT queue.enqueue('soak', to_jsonb(string_agg(md5(random()::text), ''))) FROM generate_series(1, 250);\n": 1,
    f"BEGIN;\n{ENQUEUE}ROLLBACK;\n": 1,
}
TAKE = "\\set id 0\nSELECT * FROM queue.dequeue('soak') \\aset\n\\if :id > 0\n"
CONSUME = {
    f"{TAKE}SELECT queue.ack(:receipt);\n\\endif\n": 12,
    f"BEGIN;\n{TAKE}SELECT queue.ack(:receipt);\n\\endif\nCOMMIT;\n": 2,
    "SELECT count(queue.ack(receipt)) FROM queue.dequeue('soak', 20);\n": 4,
    "SELECT count(*) FROM queue.pop('soak', 5);\n": 1,
    f"{TAKE}SELECT queue.nack(:receipt, 'again', '500 ms');\n\\endif\n": 1,
    f"{TAKE}SELECT queue.extend(:receipt);\nSELECT queue.release(:receipt);\n\\endif\n": 1,
}

SIZES = """SELECT coalesce(sum(pg_total_relation_size(segment)), 0)::float8,
 count(*) FILTER (WHERE state = 'sealed' AND live > 0) FROM queue.segments WHERE queue = 'soak'"""
COUNTS = """SELECT total_enqueued, total_acked, total_dead, ready + leased + delayed + failed
 FROM queue.stats WHERE queue = 'soak'"""


class Pinned:
    """An idle transaction with a snapshot."""

    def __init__(self, server, how):
        self.server = server
        self.how = how
        self.connection = None
        self.pin()

    def pin(self):
        if self.how == "none":
            return
        self.connection = self.server.connect("pinned")
        with self.connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM queue._queue")

    def renew(self):
        if self.how == "renewed":
            self.connection.close()
            self.pin()


def weighted(scripts):
    """pgbench draws among equals; weight is said by repeating."""
    return [script for script, weight in scripts.items() for _ in range(weight)]


def server_cpu(folder):
    """Seconds that the server's processes have used, those that have ended included."""
    with open(f"{folder}/data/postmaster.pid") as file:
        postmaster = int(file.readline())
    ticks = 0
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                words = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if path == f"/proc/{postmaster}/stat":
            ticks += sum(map(int, words[11:15]))
        elif int(words[1]) == postmaster:
            ticks += sum(map(int, words[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Disk:
    """What the queue has on disk beside what it may have."""

    def __init__(self, server, delay):
        size, _ = server.rows(SIZES)[0]
        self.bytes_a_message = size / server.rows(COUNTS)[0][0]
        self.delay = delay
        self.samples = []
        self.worst = (0.0, 0.0, 0.0)    # share of what is allowed, size, allowed
        self.over = 0

    def look(self, server):
        now = time.monotonic()
        size, kept = server.rows(SIZES)[0]
        self.size = size
        enqueued, _, _, live = server.rows(COUNTS)[0]
        self.samples = [sample for sample in self.samples if sample[0] > now - 2 * self.delay - 5]
        self.samples.append((now, enqueued))
        before = [count for at, count in self.samples if at <= now - self.delay]
        if not before:
            return
        came = enqueued - before[-1]
        allowed = (live + came) * self.bytes_a_message + (3 + kept) * SEGMENT
        self.over += size > allowed
        self.worst = max(self.worst, (size / allowed, size, allowed))


def run(server, seconds, pinned):
    delay = max(2, min(60, seconds // 60))
    options = '{"segment_size": "1MB", "max_attempts": 20}'
    server.execute("CREATE EXTENSION queue", f"SELECT queue.create('soak', '{options}')")
    server.configure("queue.reclaim_delay", "1min" if delay == 60 else f"{delay}s")
    holder = Pinned(server, pinned)
    # What a message takes, before any is gone.
    load = server.background(weighted(PRODUCE), CLIENTS, log=False)
    time.sleep(2)
    load.end()
    disk = Disk(server, delay)
    slices = []
    load = server.background(weighted(PRODUCE) + weighted(CONSUME), CLIENTS, log=False)
    try:
        # Caches fill, files of the WAL are made.
        time.sleep(min(30, seconds / SLICES))
        for number in range(SLICES):
            slices.append(measure(server, seconds / SLICES, disk))
            rate, cpu, checkpoints = slices[-1]
            at = (number + 1) * seconds / SLICES
            print(f"{at:6.0f} s  {rate:9.1f} acked/s  {rate / cpu:9.1f} acked a CPU second  {checkpoints} checkpoints"
                  f"  disk {disk.size / SEGMENT:.1f} MB  load {os.getloadavg()[0]:.1f}", flush=True)
            holder.renew()
    finally:
        load.end()
    return slices, disk


def measure(server, seconds, disk):
    """Messages acked a second, CPUs that the server had, checkpoints."""
    folder = os.path.join(server.work, "server")
    began = time.monotonic()
    acked, cpu = server.rows(COUNTS)[0][1], server_cpu(folder)
    checkpoints = 0
    while True:
        gone = time.monotonic() - began
        if gone >= seconds:
            break
        if gone * CHECKPOINTS / seconds > checkpoints:
            server.execute("CHECKPOINT")
            checkpoints += 1
        disk.look(server)
        time.sleep(min(1, seconds / 20))
    return ((server.rows(COUNTS)[0][1] - acked) / gone, (server_cpu(folder) - cpu) / gone, checkpoints)


def judge(server, slices, disk):
    """(what, whether it is as it must be)"""
    first, last = slices[0], slices[-1]
    # What other programs on the machine leave to the server is not in this one.
    print(f"acked a CPU second, last twelfth / first: {last[0] / last[1] / (first[0] / first[1]):.3f}")
    server.await_true("SELECT exact FROM queue.stats WHERE queue = 'soak'")
    faults = server.rows("SELECT * FROM queue.check()")
    enqueued, acked, dead, left = server.rows(COUNTS)[0]
    there = server.value("SELECT count(*) FROM queues.soak")
    yield f"rate of the last twelfth / the first {last[0] / first[0]:.3f} (goal >= 0.95)", last[0] >= 0.95 * first[0]
    share, size, allowed = disk.worst
    yield (f"disk at its worst {size / SEGMENT:.1f} MB of {allowed / SEGMENT:.1f} MB allowed ({share:.2f}), over it"
           f" {disk.over} times; a message takes {disk.bytes_a_message:.0f} bytes", disk.over == 0)
    yield (f"enqueued {enqueued} = acked {acked} + dead {dead} + left {there}",
           enqueued == acked + dead + there and left == there)
    yield f"queue.check() finds {len(faults)} faults {faults[:3] if faults else ''}", not faults


def main():
    seconds, pinned = int(sys.argv[1]), sys.argv[2]
    server = Server()
    slices, disk = run(server, seconds, pinned)
    verdicts = list(judge(server, slices, disk))
    server.close()
    for text, good in verdicts:
        print(f"{'ok    ' if good else 'FAILED'} {text}")
    failed = sum(not good for _, good in verdicts)
    print(f"{len(verdicts) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
