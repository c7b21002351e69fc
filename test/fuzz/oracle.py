"""
oracle.py
	What is right: errors as documented, a log without complaints, and nothing
	left behind once all sessions are idle.
"""

import collections
import os
import re

SECRET = "CANARYSECRET"

# XX000 that PostgreSQL itself raises for what users do: two changes of one
# catalog row at a time, values that are too large, and the like.
INTERNAL = [
    r"tuple concurrently (updated|deleted)",
    r"could not generate random values for receipts",
]

# Warnings that a statement may provoke.
WARNINGS = [
    r"there is (no|already a) transaction in progress", r"the clock of queue was moved by", r"SET LOCAL can only be used",
    r"queue \".*\" is being broken on purpose", r"skipping .* --- only", r"permission denied to (vacuum|analyze)",
    r"no privileges (were granted|could be revoked)", r"not all privileges (were granted|could be revoked)",
    r"hostile function ran as", r"skipping \"", r"nonstandard use of", r"terminating connection", r"SET CONSTRAINTS can only",
    r"cannot flush relation", r"PID \d+ is not a PostgreSQL backend", r"wal_level is insufficient", r"could not open statistics file",
]


class Errors:
    """Judges single errors by doc/errors.md."""

    def __init__(self, here):
        self.patterns = collections.defaultdict(list)      # code: patterns of messages
        code = None
        with open(os.path.join(here, "doc", "errors.md"), encoding="utf-8") as page:
            for line in page:
                heading = re.match(r"## `(\w{5})`", line)
                if heading:
                    code = heading.group(1)
                elif line.startswith("## "):
                    code = None
                row = re.match(r"\| `([^`]+)` \|", line)
                if row and code:
                    pattern = ".*".join(re.escape(part) for part in row.group(1).split("..."))
                    self.patterns[code].append(re.compile(pattern, re.S))
        self.functions = set()      # (file, function) of the extension's C
        source = os.path.join(here, "src")
        for name in os.listdir(source):
            if name.endswith(".c"):
                with open(os.path.join(source, name), encoding="utf-8") as text:
                    self.functions.update((name, function) for function in re.findall(r"^(\w+)\(", text.read(), re.M))

    def is_ours(self, file, function):
        return (os.path.basename(file or ""), function) in self.functions

    def judge(self, code, message, file=None, function=None):
        """What is wrong with an error, or None."""
        if code.startswith("XX") and not any(re.search(pattern, message) for pattern in INTERNAL):
            return "internal error"
        if code.startswith("58") or code in ("53100", "53200"):
            return "system error"
        if self.is_ours(file, function) and not any(pattern.fullmatch(message) for pattern in self.patterns[code]):
            return "error is not in doc/errors.md under %s" % code
        return None


class Log:
    """What is new in the server's log."""

    def __init__(self, path):
        self.path = path
        self.offset = 0
        self.seen = collections.Counter()

    def complaints(self):
        with open(self.path, "rb") as log:
            log.seek(self.offset)
            text = log.read()
            self.offset += len(text)
        found = []
        for line in text.decode("utf-8", "replace").split("\n"):
            plain = re.sub(r"^.*?\[\d+\] ", "", line)
            if re.search(r"PANIC: |TRAP: |was terminated by signal|stuck spinlock|exited with exit code", line):
                if not re.search(r'background worker "(queue|parallel).*exited with exit code 1', line):
                    found.append(line)
            elif re.search(r"\[\d+\] queue \w+: (ERROR|FATAL): ", line):
                # The other two are limits, which -c may have set low.
                if not re.search(r"due to administrator command|too many queues are in use|too many queue segments are in use", line):
                    found.append("of a background process: " + plain)
            elif "WARNING: " in line:
                hostile = re.search(r"hostile function ran as (\w+) for (\w+)", line)
                if hostile and hostile.group(2) != "postgres" and hostile.group(1) in ("postgres", "fuzz_guardian"):
                    found.append(line)
                elif not any(re.search(pattern, line) for pattern in WARNINGS):
                    found.append(line)
                self.seen[re.sub(r"\d+|\".*\"", "N", plain.split("WARNING: ")[1])[:100]] += 1
        return found


class Audit:
    """Looks at a database while its sessions are idle."""

    def __init__(self, connections, tokens):
        self.connections = connections      # database: connection of a superuser
        self.tokens = tokens                # queue: set of (id, token) of the canaries

    def ask(self, database, text, *arguments):
        with self.connections[database].cursor() as cursor:
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def resolve_prepared(self, commit):
        for database in self.connections:
            for number, (gid,) in enumerate(self.ask(database, "SELECT gid FROM pg_prepared_xacts "
                                                     "WHERE database = current_database() ORDER BY gid")):
                self.ask(database, ("COMMIT" if (number + commit) % 2 else "ROLLBACK") + " PREPARED %s", gid)

    def slots(self):
        leases = sum(self.ask(database, "SELECT count(*) FROM queue.leases")[0][0] for database in self.connections)
        used = self.ask(sorted(self.connections)[0], "SELECT value FROM queue.health() WHERE \"check\" = 'lease_slots'")[0][0]
        return leases, int(used.split()[0])

    def once(self, pids):
        """A list of what is wrong now; some of it may be in motion."""
        found = []
        for database in sorted(self.connections):
            for row in self.ask(database, "SELECT * FROM queue.check()"):
                numbers = [int(number) for number in re.findall(r"message (-?\d+)", row[2])]
                leases = self.ask(database, "SELECT queue, id, state, attempt, owner::text, pid, since::text, until::text "
                                  "FROM queue.leases WHERE id = ANY (%s::int8[])", numbers)
                found.append("queue.check() in %s: %s %s" % (database, row, leases or ""))
            found += ["canary: " + text for text in self.canaries(database)]
        first = sorted(self.connections)[0]
        found += ["an idle session holds a lock: %s" % (row,) for row in self.ask(
            first, "SELECT a.usename, l.locktype, l.relation::regclass::text, l.mode FROM pg_locks l "
            "JOIN pg_stat_activity a USING (pid) WHERE pid = ANY (%s)", pids)]
        found += ["an idle session holds a snapshot: %s" % (row,) for row in self.ask(
            first, "SELECT usename, state, backend_xmin, backend_xid, query FROM pg_stat_activity WHERE pid = ANY (%s) "
            "AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)", pids)]
        leases, used = self.slots()
        if leases != used:
            found.append("%d slots are used, queue.leases shows %d" % (used, leases))
        for database in sorted(self.connections):
            if self.ask(database, "SELECT 1 FROM queue.health() WHERE \"check\" = 'worker' AND status <> 'ok'"):
                found.append("no worker in %s" % database)
        return found

    def canaries(self, database):
        """Nobody may have touched them; only canary_in may have got more."""
        for name, expected in self.tokens[database].items():
            there = set(self.ask(database, "SELECT id, payload #>> '{}' FROM queues.%s" % name))
            if expected - there:
                yield "%d of %d messages are gone from %s" % (len(expected - there), len(expected), name)
            if name != "canary_in" and there - expected:
                yield "%d more messages are in %s: %s" % (len(there - expected), name, str(sorted(there - expected)[:3])[:200])
            failed = self.ask(database, "SELECT count(*) FROM queues.%s WHERE failures > 0 OR state NOT IN ('ready', 'leased')" % name)
            if name != "canary_in" and failed[0][0]:
                yield "%d messages of %s have changed" % (failed[0][0], name)
        touched = self.ask(database, "SELECT queue, total_dequeued, total_cancelled, total_dead FROM queue.stats WHERE queue IN "
                           "('canary', 'canary_in', 'canary_peek') AND total_dequeued + total_cancelled + total_dead > 0")
        for row in touched:
            yield "somebody could do this: %s" % (row,)
        for row in self.ask(database, "SELECT queue, owner::text, options, paused_dequeue, paused_enqueue FROM queue.queues "
                            "WHERE queue ~ '^canary' AND (paused_dequeue OR paused_enqueue OR owner::text <> 'fuzz_guardian' OR "
                            "options::text NOT IN ('{}', '{\"segment_size\": \"64kB\"}', '{\"lease_max\": \"365 days\"}'))"):
            yield "somebody has altered it: %s" % (row,)
