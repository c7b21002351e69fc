#!/usr/bin/python3
"""The quickstart's job: producers, consumers, one of them killed, and the account.

    job.py FILE [--name NAME] [--producers N] [--consumers N] [--logs FOLDER]

Compares what the producers saw committed with the results in the database, event by
event, and exits with 1 unless every committed event has exactly one result, made from
exactly what was stored, and nothing else has any.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import psycopg2

HERE = os.path.dirname(os.path.abspath(__file__))
ABANDON = 10   # each tenth transaction of a producer is rolled back
PATIENCE = 45  # seconds without a new result before we give up


class Worker:
    """A producer or consumer as a process of its own, with its output in a file."""

    def __init__(self, name, logs, *command):
        self.name = name
        self.path = os.path.join(logs, name + ".log")
        with open(self.path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen([sys.executable, *command], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, cwd=HERE)

    def lines(self, word):
        with open(self.path, encoding="utf-8") as log:
            return [line.split() for line in log if line.startswith(word + " ")]

    def complain(self):
        with open(self.path, encoding="utf-8") as log:
            sys.exit("%s ended with status %s:\n%s" % (self.name, self.process.returncode, "".join(log.readlines()[-15:])))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("file")
    parser.add_argument("--name", help="what to call the file")
    parser.add_argument("--producers", type=int, default=3)
    parser.add_argument("--consumers", type=int, default=4)
    parser.add_argument("--logs", default=".")
    args = parser.parse_args()

    with open(args.file, encoding="utf-8") as lines:
        total = sum(1 for line in lines if line.strip())
    print("events     %d from %s" % (total, args.name or args.file))
    connection = psycopg2.connect("")
    connection.autocommit = True
    cursor = connection.cursor()

    producers = [Worker("producer%d" % i, args.logs, "producer.py", args.file, "--share", "%d/%d" % (i, args.producers),
                        "--abandon", str(ABANDON))
                 for i in range(args.producers)]
    print("producers  %d, each stores an event and enqueues it in one transaction; some roll back" % len(producers),
          flush=True)
    consumers = []
    try:
        # A quarter of the events waits already, so that batches are full and the one that is lost hurts.
        while stored(cursor) < total // 4 and any(worker.process.poll() is None for worker in producers):
            time.sleep(0.05)
        for i in range(1, args.consumers + 1):
            stall = ["--stall-after", str(min(200, total // 20))] if i == 2 else []
            consumers.append(Worker("consumer%d" % i, args.logs, "consumer.py", "--name", str(i), *stall))
        print("consumers  %d, each leases a batch, then writes a result and acks it in one transaction each" % len(consumers),
              flush=True)
        run(cursor, producers, consumers)
    finally:
        for worker in producers + consumers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()
    return account(cursor, producers, consumers)


def stored(cursor):
    cursor.execute("SELECT count(*) FROM events")
    return cursor.fetchone()[0]


def run(cursor, producers, consumers):
    """Returns when each committed event has a result, or when nothing moves any more."""
    victim = consumers[1] if len(consumers) > 1 else None
    results = -1
    moved = time.monotonic()
    while time.monotonic() - moved < PATIENCE:
        time.sleep(0.05)
        if victim and victim.lines("stalled"):
            kill(victim)
            victim = None
        for worker in producers + consumers:
            if worker.process.poll() not in (None, 0, -signal.SIGKILL):
                worker.complain()
        produced = all(worker.process.poll() == 0 for worker in producers)
        cursor.execute("SELECT count(DISTINCT number) FROM results")
        (now,) = cursor.fetchone()
        if now != results:
            results, moved = now, time.monotonic()
        if produced and now >= stored(cursor):
            break
    else:
        print("gave up: no new result for %d s" % PATIENCE)
    if victim:
        kill(victim)
    for worker in consumers:
        worker.process.terminate()
    for worker in consumers:
        if worker.process.wait(timeout=30) not in (0, -signal.SIGKILL):
            worker.complain()


def kill(victim):
    victim.process.kill()
    victim.process.wait()
    middle = "in the middle of a transaction" if victim.lines("stalled") else "while it waited"
    print("killed     %s (SIGKILL), %s: what it held comes back when its lease ends" % (victim.name, middle), flush=True)


def account(cursor, producers, consumers):
    """What the clients saw, against what the database has."""
    def said(word):
        return {int(line[-1]) for worker in producers for line in worker.lines(word)}

    committed, abandoned, refused = said("committed"), said("abandoned"), said("refused")
    deliveries = Counter(line[1] for worker in consumers for line in worker.lines("delivered"))

    cursor.execute("SELECT number FROM events")
    rows = {number for (number,) in cursor}
    cursor.execute("SELECT number, count(*) FROM results GROUP BY number")
    results = dict(cursor.fetchall())
    cursor.execute("SELECT count(*) FROM results r JOIN events e USING (number, message) WHERE r.digest = md5(e.body::text)")
    (same,) = cursor.fetchone()
    cursor.execute("SELECT (SELECT count(*) FROM queues.events) + (SELECT count(*) FROM queues.events_dead)")
    (left,) = cursor.fetchone()
    cursor.execute("SELECT count(*) / extract(epoch FROM max(done_at) - (SELECT min(stored_at) FROM events))"
                   " FROM results WHERE attempt = 1")
    (rate,) = cursor.fetchone()

    lost = committed - results.keys()
    phantoms = results.keys() - committed
    twice = sum(results.values()) - len(results)
    changed = sum(results.values()) - same
    table = [
        ("committed", len(committed), "events stored and enqueued, says each producer after its COMMIT"),
        ("rolled back", len(abandoned), "%d of them seen by a consumer" % len(phantoms)),
        ("delivered", sum(deliveries.values()), ""),
        ("redelivered", sum(deliveries.values()) - len(deliveries), "what the killed consumer held"),
        ("lost", len(lost), "committed events without a result, compared one by one"),
        ("twice", twice, "second results"),
        ("changed", changed, "results not made from exactly the stored body"),
        ("left", left, "messages in the queue and its dead-letter queue"),
        ("msg/s", round(rate or 0), "stored, enqueued, delivered, worked on and acked"),
    ]
    if refused:
        table.insert(2, ("refused", len(refused), "lines that are not JSON, or that jsonb cannot hold"))
    print()
    for name, value, remark in table:
        print("  %-12s %8d   %s" % (name, value, remark))

    good = not (lost or phantoms or twice or changed or left) and rows == committed and committed
    if rows != committed:
        print("\nthe producers saw %d commits, the table has %d rows" % (len(committed), len(rows)))
    if not good:
        print("\nFAILED; the workers' output is in %s" % os.path.dirname(os.path.abspath(producers[0].path)))
    return 0 if good else 1


sys.exit(main())
