"""
load.py
	Producers: each enqueues with keys of its own, so that the order of its
	commits is the order of each key.

A message has a lane (its key; or the producer's own for messages without one)
and a number in it. Numbers are never used twice: what is rolled back leaves a
gap.

	try		x hasty m=[[lane, n, sum, kept, loose]]		about to be enqueued, before BEGIN
	told	x how										the server has answered
	odd		code text									an error that nothing explains
"""

import collections
import json
import time

from client import Client, Failed
from facts import summary

KEYS = 20
PRODUCERS = 4

class Producer(Client):
    def __init__(self, name, rng, writer, dsn, deadline, queue, keys, hold, haste):
        super().__init__(name, rng, writer, dsn, deadline)
        self.queue = queue
        self.keys = keys
        self.hold = hold            # shared: there is enough in the queue
        self.haste = haste          # shared: all commit asynchronously, so that nobody but the relay writes out the log
        self.numbers = collections.Counter()

    def message(self, kept):
        loose = self.rng.random() < 0.05
        lane = "none of " + self.name if loose else self.rng.choice(self.keys)
        self.numbers[lane] += 1
        size = self.rng.choice([0, 10, 100, 1000]) if self.rng.random() < 0.98 else 40000
        pad = "".join(self.rng.choices("abcdefgh äß\"\\", k=min(size, 50))) * (1 if size <= 50 else size // 50)
        return {"lane": lane, "n": self.numbers[lane], "pad": pad, "kept": kept, "loose": loose}

    # ----- ways to enqueue

    def payload(self, message):
        return json.dumps({"lane": message["lane"], "n": message["n"], "pad": message["pad"]})

    def key(self, message):
        return None if message["loose"] else message["lane"]

    def by_function(self, messages):
        for message in messages:
            self.call("SELECT queue.enqueue(%s, %s, key => %s)", self.queue, self.payload(message), self.key(message))

    def by_batch(self, messages):
        self.call("SELECT queue.enqueue_batch(%s, %s::jsonb[], %s::text[])", self.queue,
                  [self.payload(message) for message in messages], [self.key(message) for message in messages])

    def by_insert(self, messages):
        for message in messages:
            self.call("INSERT INTO queues.%s (key, payload) VALUES (%%s, %%s)" % self.queue,
                      self.key(message), self.payload(message))

    def enqueue(self, messages):
        self.rng.choice([self.by_function, self.by_batch, self.by_insert])(messages)

    # ----- a transaction

    def scene(self):
        if self.hold.value:
            time.sleep(0.02)
            return
        x = self.writer.next_name()
        undone = self.rng.random() < 0.1
        commits = self.rng.random() >= 0.3
        hasty = self.haste.value or self.rng.random() < 0.1
        parts = [[self.message(True) for _ in range(self.rng.randint(1, 5))]]
        if undone:
            parts.append([self.message(False) for _ in range(self.rng.randint(1, 2))])
            parts.append([self.message(True)])
        self.writer.put("try", x=x, hasty=bool(hasty), m=[
            [message["lane"], message["n"], summary(message["pad"]), message["kept"], message["loose"]]
            for part in parts for message in part])
        try:
            self.work(x, parts, hasty, commits)
        except Failed as error:
            self.writer.put("odd", code=error.code, text=error.text)
            self.call("ROLLBACK")
            return
        time.sleep(self.rng.choice([0, 0, 0, 0.02, 0.05, 0.1]))

    def work(self, x, parts, hasty, commits):
        self.call("BEGIN")
        if hasty:
            self.call("SET LOCAL synchronous_commit = off")
        self.enqueue(parts[0])
        if len(parts) > 1:
            self.call("SAVEPOINT s")
            self.enqueue(parts[1])
            self.call("ROLLBACK TO s")
            self.enqueue(parts[2])
        self.call("INSERT INTO relaytest.mark VALUES (%s)", x)
        self.call("COMMIT" if commits else "ROLLBACK")
        self.writer.put("told", x=x, how="commit" if commits else "rollback")
