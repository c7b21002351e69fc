"""
audit.py
	The end of a run: brings the queues to rest, and writes down what is there.
"""

import collections
import random
import re
import time

import psycopg2

from client import ALTERED, PURGED, QUEUES, SUM, TAG, quote, resolve
from clients import Producer
from history import now

# How long the end may take until all is written and quiet.
QUIET = 60.0


class Auditor:
    """Brings the queues to rest and writes down what is there."""

    def __init__(self, dsn, writer):
        self.dsn = dsn
        self.writer = writer
        self.connection = psycopg2.connect(dsn, application_name="auditor")
        self.connection.autocommit = True

    def ask(self, text, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(text, arguments or None)
            return cursor.fetchall() if cursor.description else []

    def names(self, text, *arguments):
        with self.connection.cursor() as cursor:
            cursor.execute(text, arguments or None)
            columns = [column.name for column in cursor.description]
            return [dict(zip(columns, row)) for row in cursor.fetchall()]

    def rest(self):
        self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'stress %'")
        self.until(lambda: not self.ask("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'stress %'"))
        self.ask("SELECT queue.resume(%s, 'both')", ALTERED)
        client = Producer("auditor", random.Random(0), self.writer, self.dsn, now())
        client.connect()
        for (gid,) in self.ask("SELECT gid FROM pg_prepared_xacts ORDER BY gid"):
            resolve(self.writer, client, gid, "commit" if sum(gid.encode()) % 2 else "abort")
        client.connection.close()
        for (name,) in self.ask("SELECT queue FROM queue.queues WHERE queue ~ '^churn.$'"):
            self.ask("SELECT queue.drop(%s, true)", name)
        self.ask("SELECT queue.clock_advance('1 day')")
        return self.until(self.quiet)

    def until(self, condition, patience=QUIET):
        end = now() + patience
        while not condition():
            if now() > end:
                return False
            time.sleep(0.2)
        return True

    def quiet(self):
        """No lease, nothing that should have expired."""
        if self.ask("SELECT 1 FROM queue.leases LIMIT 1"):
            return False
        return not any(self.ask("SELECT 1 FROM queues.%s WHERE expires_at IS NOT NULL LIMIT 1" % quote(name))
                       for name in QUEUES)

    def recount(self, name):
        rows = dict(self.ask("SELECT state, count(*) FROM queues.%s GROUP BY state" % quote(name)))
        return {state: rows.get(state, 0) for state in ("ready", "leased", "delayed", "failed")}

    def stats(self, name):
        row = self.names("SELECT ready, leased, delayed, failed, total_enqueued, total_acked, exact "
                         "FROM queue.stats WHERE queue = %s", name)[0]
        return row

    def counters_agree(self):
        for name in list(QUEUES) + [name + "_dead" for name in QUEUES]:
            stats = self.stats(name)
            if any(stats[state] != count for state, count in self.recount(name).items()):
                return False
        return True

    def rows(self, name):
        return self.names("SELECT id, %s AS tag, %s AS sum, key, state, failures, last_error, "
                          "headers->'queue.death' AS death FROM queues.%s" % (TAG, SUM, quote(name)))

    def drain(self, name, allowed):
        tags = []
        end = now() + 1.2
        while now() < end:
            try:
                rows = self.ask("SELECT " + TAG + ", receipt::text FROM queue.dequeue(%s, 200, '1 min')", name)
            except psycopg2.errors.ConfigurationLimitExceeded:
                # The worker has what little there is, for a moment.
                if "53400" not in allowed:
                    raise
                rows = []
            if rows:
                tags += [row[0] for row in rows]
                self.ask("SELECT queue.ack_batch(%s::uuid[])", [row[1] for row in rows])
                end = now() + 1.2
            else:
                time.sleep(0.1)
        return tags

    def audit(self, logs, saboteur, allowed, forgiven):
        quiet = self.rest()
        found = {"leases": [], "check": [], "queues": {}, "hung": [], "drain": saboteur.trouble}
        if not quiet:
            found["leases"] = [list(map(str, row)) for row in self.ask("SELECT * FROM queue.leases LIMIT 50")]
            found["hung"] += ["the worker has not written all after %d s: %s" % (QUIET, name)
                              for name in QUEUES if self.ask(
                                  "SELECT 1 FROM queues.%s WHERE expires_at IS NOT NULL LIMIT 1" % quote(name))]
        self.until(lambda: not self.ask("SELECT * FROM queue.check()"), 10)
        found["check"] = [list(map(str, row)) for row in self.ask("SELECT * FROM queue.check()")]
        self.until(self.counters_agree, 10)
        for name in QUEUES:
            found["queues"][name] = {
                "stats": self.stats(name), "recount": self.recount(name),
                "stats_dead": self.stats(name + "_dead"), "recount_dead": self.recount(name + "_dead"),
                "rows": self.rows(name), "dead": self.rows(name + "_dead")}
        for name, traits in QUEUES.items():
            for scope in traits.get("most", ()):
                self.ask("SELECT queue.limit(%s, %s)", name, scope)
        for name in QUEUES:
            found["queues"][name]["drained"] = self.drain(name, allowed)
            found["queues"][name]["drained_dead"] = self.drain(name + "_dead", allowed)
        found["check"] += [list(map(str, row)) + ["after the drain"] for row in self.ask("SELECT * FROM queue.check()")]
        found["states"] = [list(map(str, row)) for row in self.ask(
            "SELECT s.key, s.state, c.n FROM queue._key_state s FULL JOIN"
            " (SELECT state, count(*) AS n FROM stress.counted GROUP BY 1) c ON c.state = (s.state->>'name')::uuid"
            " WHERE (s.state->>'n')::int IS DISTINCT FROM c.n")]
        found["counted"] = self.ask("SELECT count(*) FROM stress.counted")[0][0]
        found["marks"] = [row[0] for row in self.ask("SELECT x FROM stress.mark")]
        found["options"] = {name: {
            "max_attempts": traits.get("limits", traits["options"]["max_attempts"]),
            "paused": name == ALTERED, "ordered": traits["options"].get("ordered", False),
            "most": traits.get("most"), "fair": traits["options"].get("fair_share", False),
            "aging": traits.get("priorities"),
            "on_expiry": traits["options"].get("on_expiry", "dead_letter"),
            "ttl": 5.0 if "message_ttl" in traits["options"] else None,
            "purged": name in PURGED} for name, traits in QUEUES.items()}
        found["allowed"] = allowed
        found["log"] = [line for log in logs for line in suspicious(log, forgiven)]
        self.writer.put("final", **found)


# What a server says while it stops, starts and is moved about.
USUAL = (r"due to administrator command|because of crash of another|the clock of queue was moved|"
         r"the clock of all queues was moved|database system is (starting up|in recovery mode|not yet accepting|shutting down)|"
         r"the clock|unexpected postmaster exit|terminating walreceiver|could not receive data from WAL stream|"
         r"the standby|streaming replication|replication terminated|could not connect to the primary|"
         r"is being broken on purpose|canceling autovacuum task")


def suspicious(log, forgiven):
    """Lines of the server's log that no client provoked. Forgiven: what faults of the run explain."""
    lines = collections.Counter()
    with open(log, encoding="utf-8", errors="replace") as text:
        for line in text:
            bad = re.search(r"PANIC:|TRAP:|stuck spinlock", line) or \
                re.search(r"\d \w+ \[\d+\] (ERROR|WARNING|FATAL): ", line) or \
                (re.search(r"was terminated by signal|exited with exit code", line) and
                 not re.search(r'worker.*exit(ed)? (with exit )?code 1\b', line))
            if bad and not re.search(USUAL, line) and not (forgiven and re.search(forgiven, line)):
                lines[re.sub(r"^.*?\[\d+\] ", "", line.rstrip())] += 1
    return ["%s (%d times)" % (line, count) for line, count in lines.most_common(20)]
