"""
history.py
	What the clients write down, and reading it back.

A history is a folder of files with one JSON object a line, a file a client.
A client writes what it is about to do before it does it and the answer after
it, unbuffered, so that a client that is killed leaves a true record. All
times are seconds of the machine's clock, which clients and server share.

	begin	x t						a transaction begins
	enqueue	op x q t0 m=[{tag,sum,key}] delay ttl max
	dequeue	op x q t0 lease most		a pop also: pop=true; vague if its lease
									may have another length
	settle	op x how receipts t0 delay	an extension also: extension
	cancel	op x q t0 ids tags
	purge	op x q t0
	peek	op x q t0 most				most: of how many, else the whole queue
	wait	op x q t0
	pause	op x q t0 side on			on: paused, else resumed
	clock	op x t0 by wall			the clock of the queues is moved
	reply	op t1 and rows, ids, tags, ready, status, until or n
	error	op t1 code text
	undo	x ops t0				about to roll back to a savepoint
	fault	x t0					a statement of a transaction failed
	end		x how t0 gid			about to commit, abort or prepare
	ended	x how t1
	resolve	gid how t0			about to COMMIT or ROLLBACK PREPARED
	resolved gid how t1
	crash	t0 t1 cut lossy how		the server was killed, and is back; cut: nobody of
									before answers any more, nobody of after it yet;
									lossy: the last commits may be undone
	odd		op code text			a client outside of the history met an error
	slow	text seconds
	final	what the end of the run found, see run

An enqueue may also have at (deliver_at), and deferred=true when it takes place at
the end of its transaction. One that is blind is part of a procedure: its
transaction may have taken place though nobody has its answer.

An operation without x is a transaction of its own. One without reply and
error lost its connection: whether it happened is not known.
"""

import json
import os
import time


class Writer:
    def __init__(self, folder, name):
        self.name = name
        self.count = 0
        self.file = os.open(os.path.join(folder, name + ".jsonl"),
                            os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def next_name(self):
        self.count += 1
        return "%s.%d" % (self.name, self.count)

    def put(self, kind, **values):
        values["k"] = kind
        os.write(self.file, (json.dumps(values, separators=(",", ":")) + "\n").encode())


def now():
    return time.time()


def read(folder):
    """All records of a folder. A line that a kill cut short is left out."""
    records = []
    for name in sorted(os.listdir(folder)):
        if not name.endswith(".jsonl"):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    records.append(json.loads(line))
    return records
