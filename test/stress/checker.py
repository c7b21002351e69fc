"""
checker.py
	The laws, and one pass over a history that looks for what breaks them.

Every judgement errs on the side of the engine: where a reply was lost or two
operations overlapped, each order that may have been is allowed. What remains
is a violation, with the message it is about.
"""

import collections

# One machine, one clock; the server rounds to microseconds.
MARGIN = 0.002

# A client that was killed leaves its last statement running for so long at most.
LONGEST_STATEMENT = 10.0

LAWS = {
    "lost": "a committed enqueue ends as acked, dead, expired, cancelled, purged or still there",
    "two fates": "a message has one fate",
    "stored twice": "a message is in a queue once",
    "phantom": "what was never enqueued or was rolled back is never seen",
    "dirty": "nothing is delivered before its transaction begins to commit",
    "identity": "an id belongs to one message, a message keeps its id",
    "content": "a message is delivered as it was enqueued",
    "wrong queue": "a message is delivered by the queue it was put into",
    "overlap": "a message has one valid receipt at a time",
    "fencing": "a receipt is void once the message was delivered again",
    "crash": "a receipt is void after a crash of the server",
    "acked again": "what was acked and committed is never delivered again",
    "settled twice": "a message is acked once",
    "limit": "no delivery beyond max_attempts",
    "uncounted": "a delivery after a failure counts it, one after a release counts none",
    "early": "nothing is delivered before its delay is over",
    "expired": "nothing is delivered after it expired",
    "death": "the header queue.death tells why, and the limit was reached",
    "purge": "purge returns how many messages it removed",
    "empty": "a dequeue does not come back empty-handed while a message waits",
    "stuck": "what is in the queue can be dequeued once nobody holds it",
    "hidden": "what can be dequeued is shown by the view",
    "counter": "counters equal a recount",
    "total": "totals equal what the clients saw",
    "check": "queue.check() returns no rows",
    "leak": "no lease is left when all have ended",
    "error": "no client sees an error that it did not provoke",
    "slow": "no statement hangs",
    "log": "the server's log has no crash and the worker no error",
}

# Lost leases, cancels, terminations, conflicts of snapshots, aborted transactions.
PROVOKED = {"QU001", "57014", "57P01", "57P02", "57P03", "40001", "25P02", "08006", "08003"}

COMMIT, ABORT, UNKNOWN = "commit", "abort", "unknown"
INFINITY = float("inf")

Violation = collections.namedtuple("Violation", "law text tag")


class Op:
    """An operation with its reply and its fate."""

    def __init__(self, record):
        self.record = record
        self.x = record.get("x")
        self.t0 = record["t0"]
        self.reply = None
        self.error = None
        self.undone = None
        self.t1 = None
        # Set by settle_fates: outcome, and when it began and ended to take effect.
        self.fate = UNKNOWN
        self.begun = self.t0
        self.ended = INFINITY
        self.prepared = False


class Transaction:
    def __init__(self):
        self.how = None             # what the client was about to do
        self.t0 = None
        self.done = None            # what the server said it did
        self.t1 = None
        self.gid = None
        self.began = 0.0
        self.last = 0.0             # last sign of life
        self.faults = []            # when statements failed
        self.undos = []             # when savepoints were rolled back

    def aborted(self):
        """The earliest moment at which its abort may have begun."""
        undone = max(self.undos, default=0.0)
        return min([self.last] + [fault for fault in self.faults if fault >= undone])


class Message:
    def __init__(self, tag, op, spec):
        self.tag = tag
        self.op = op
        self.spec = spec
        self.deliveries = []
        self.acks = []              # ops that acked, popped
        self.cancels = []
        self.touches = []           # tries to cancel it
        self.rejects = []
        self.present = []           # rows of the queue at the end
        self.dead = []              # rows of the dead-letter queue
        self.ids = set()


class Delivery:
    def __init__(self, op, row, message):
        self.op = op
        self.message = message
        (self.id, self.tag, self.sum, self.receipt, self.attempt, self.until,
         self.expires, self.key) = row
        self.t0 = op.t0
        self.t1 = op.t1
        self.granted = self.until - op.record["lease"]
        self.kept = op.fate == COMMIT
        self.extends = []           # (t0, t1, until or None)
        self.ends = []              # the earliest moments at which it may have ended
        self.settles = []           # (op, status)


class Checker:
    def __init__(self, records):
        self.violations = []
        self.ops = {}
        self.transactions = collections.defaultdict(Transaction)
        self.resolutions = {}
        self.crashes = []
        self.odd = []
        self.final = {}
        self.messages = {}
        self.receipts = {}
        self.ids = {}
        self.lost_dequeues = collections.defaultdict(list)
        self.counts = collections.Counter()
        self.read(records)

    def violate(self, law, text, tag=None):
        assert law in LAWS, law
        self.violations.append(Violation(law, text, tag))

    # ----- reading

    def read(self, records):
        replies = []
        for record in records:
            kind = record["k"]
            if kind in ("enqueue", "dequeue", "settle", "cancel", "purge"):
                self.ops[record["op"]] = Op(record)
            elif kind in ("reply", "error", "undo"):
                replies.append(record)
            elif kind == "begin":
                self.transactions[record["x"]].last = record["t"]
                self.transactions[record["x"]].began = record["t"]
            elif kind == "end":
                transaction = self.transactions[record["x"]]
                transaction.how, transaction.t0 = record["how"], record["t0"]
                transaction.gid = record.get("gid")
            elif kind == "ended":
                transaction = self.transactions[record["x"]]
                transaction.done, transaction.t1 = record["how"], record["t1"]
            elif kind == "fault":
                self.transactions[record["x"]].faults.append(record["t0"])
            elif kind in ("resolve", "resolved"):
                self.resolutions.setdefault(record["gid"], ([], []))[kind == "resolved"].append(record)
            elif kind == "crash":
                self.crashes.append(record)
            elif kind == "slow":
                self.violate("slow", "%s took %.1f s" % (record["text"], record["seconds"]))
            elif kind == "odd":
                self.odd.append(record)
            elif kind == "final":
                self.final = record
        for record in replies:
            if record["k"] == "undo":
                transaction = self.transactions[record["x"]]
                transaction.undos.append(record["t0"])
                for name in record["ops"]:
                    op = self.ops[name]
                    op.undone = min([record["t0"]] + [fault for fault in transaction.faults
                                                      if op.t0 <= fault <= record["t0"]])
                continue
            op = self.ops[record["op"]]
            op.t1 = record["t1"]
            if record["k"] == "reply":
                op.reply = record
            else:
                op.error = record
            # Who finds the connection gone does not know since when.
            if op.x and not (op.error and op.error["code"].startswith(("57P", "08"))):
                transaction = self.transactions[op.x]
                transaction.last = max(transaction.last, op.t1)
        self.crashes.sort(key=lambda crash: crash["t0"])

    def transaction_fate(self, transaction, name):
        """Outcome, when it began to take effect, when it surely had, prepared."""
        marked = name in self.marks
        if transaction.how is None:
            return ABORT, transaction.aborted(), INFINITY, False
        if transaction.how == "abort":
            return ABORT, transaction.aborted(), transaction.t1 or INFINITY, False
        if transaction.how == "commit":
            if transaction.done:
                fate = COMMIT if transaction.done == "commit" else ABORT
                return fate, transaction.t0, transaction.t1, False
            return (COMMIT if marked else ABORT), transaction.t0, INFINITY, False
        # Prepared. Two may have tried to resolve it; only one was told that it did.
        tried, resolved = self.resolutions.get(transaction.gid, ([], []))
        ended = resolved[0]["t1"] if resolved else INFINITY
        if not marked:
            return ABORT, transaction.t0, ended, True
        begun = min([record["t0"] for record in tried if record["how"] == "commit"], default=transaction.t0)
        return COMMIT, begun, ended, True

    def settle_fates(self):
        for op in self.ops.values():
            if op.x is None:
                if op.reply:
                    op.fate, op.ended = COMMIT, op.t1
                elif op.error and not op.error["code"].startswith(("57", "08")):
                    op.fate = ABORT
            elif op.error or not op.reply:
                op.fate = ABORT
                op.begun = op.t0
            elif op.undone:
                op.fate = ABORT
                op.begun = op.undone
            else:
                op.fate, op.begun, op.ended, op.prepared = \
                    self.transaction_fate(self.transactions[op.x], op.x)
            if op.error and op.error["code"] not in PROVOKED and \
                    op.error["code"] not in self.final.get("allowed", ()):
                self.violate("error", "%s: %s %s" % (
                    op.record["k"] + " " + op.record.get("how", ""), op.error["code"], op.error["text"]))

    # ----- gathering by message

    def gather(self):
        for op in self.ops.values():
            if op.record["k"] == "enqueue":
                for position, spec in enumerate(op.record["m"]):
                    message = Message(spec["tag"], op, spec)
                    self.messages[spec["tag"]] = message
                    if op.reply and op.reply.get("ids"):
                        self.meet(message, op.reply["ids"][position])
                self.counts["enqueued, " + op.fate] += len(op.record["m"])
        for op in self.ops.values():
            if op.record["k"] == "dequeue":
                self.gather_deliveries(op)
        for op in self.ops.values():
            if op.record["k"] == "settle":
                self.gather_settles(op)
            elif op.record["k"] == "cancel":
                for tag in op.record["tags"]:
                    if tag in self.messages:
                        self.messages[tag].touches.append(op)
                if op.fate != ABORT:
                    self.gather_cancels(op)
        for queue, found in self.final.get("queues", {}).items():
            self.gather_present(queue, found)

    def meet(self, message, number):
        # What was rolled back by a crash may have left its number to another.
        if message.op.fate == ABORT:
            return
        message.ids.add(number)
        other = self.ids.setdefault(number, message)
        if other is not message:
            self.violate("identity", "id %d is also that of %s" % (number, other.tag), message.tag)
        if len(message.ids) > 1:
            self.violate("identity", "has the ids %s" % sorted(message.ids), message.tag)

    def known(self, tag, where):
        message = self.messages.get(tag)
        if message is None:
            self.violate("phantom", "%s: nobody enqueued it" % where, tag)
        return message

    def gather_deliveries(self, op):
        if not op.reply:
            self.lost_dequeues[op.record["q"]].append(op)
            return
        for row in op.reply["rows"]:
            message = self.known(row[1], "delivered")
            if message is None:
                continue
            delivery = Delivery(op, row, message)
            message.deliveries.append(delivery)
            self.meet(message, delivery.id)
            self.counts["delivered"] += 1
            if op.undone and not op.record.get("pop"):
                # A savepoint's rollback leaves the lease with the transaction.
                fate, begun = self.transaction_fate(self.transactions[op.x], op.x)[:2]
                delivery.kept = fate == COMMIT
                if fate != COMMIT:
                    delivery.ends.append(begun)
            elif op.fate != COMMIT:
                delivery.ends.append(op.begun)
            for crash in self.crashes:
                if crash["t1"] > delivery.t0:
                    delivery.ends.append(crash["t0"])
            if op.record.get("pop"):
                delivery.settles.append((op, "acked"))
                delivery.ends.append(op.begun)
                if op.fate != ABORT:
                    message.acks.append(op)
            else:
                self.receipts[delivery.receipt] = delivery
        if op.record.get("pop"):
            self.counts["popped, " + op.fate] += len(op.reply["rows"])

    def gather_settles(self, op):
        how = op.record["how"]
        statuses = op.reply["status"] if op.reply else [None] * len(op.record["receipts"])
        for receipt, status in zip(op.record["receipts"], statuses):
            delivery = self.receipts.get(receipt)
            if delivery is None:
                continue
            self.counts["%s, %s" % (how, status if status else "error" if op.error else "unknown")] += 1
            if status in ("lost", "invalid", "denied", "already_acked"):
                continue
            # Cut off or cancelled, what acts at once may have acted.
            if op.error and not op.error["code"].startswith(("57", "08")):
                continue
            delivery.settles.append((op, status))
            if how == "extend":
                until = op.reply["until"] if op.reply else None
                delivery.extends.append((op.t0, op.t1 or INFINITY, until))
            elif how == "release":
                delivery.ends.append(op.t0)
            elif op.fate != ABORT:
                delivery.ends.append(op.begun)
                if how in ("ack", "ack_batch", "try_ack"):
                    delivery.message.acks.append(op)
                elif how == "reject":
                    delivery.message.rejects.append(op)

    def gather_cancels(self, op):
        tags = dict(zip(op.record["ids"], op.record["tags"]))
        for number in op.reply["ids"] if op.reply else op.record["ids"]:
            message = self.known(tags[number], "in the view")
            if message is not None:
                self.meet(message, number)
                message.cancels.append(op)
        if op.reply:
            self.counts["cancelled, " + op.fate] += len(op.reply["ids"])

    def gather_present(self, queue, found):
        for where, rows in (("present", found["rows"]), ("dead", found["dead"])):
            for row in rows:
                message = self.known(row["tag"], "in the queue at the end")
                if message is None:
                    continue
                self.meet(message, row["id"])
                getattr(message, where).append(row)
                if message.op.record["q"] != queue:
                    self.violate("wrong queue", "is in %s" % queue, message.tag)
                self.check_content(message, row["sum"], row["key"])

    # ----- judging

    def check(self):
        self.marks = set(self.final.get("marks", ()))
        self.settle_fates()
        self.gather()
        absent = collections.Counter()
        self.gone = []              # without any fate that the clients know of
        for message in self.messages.values():
            message.deliveries.sort(key=lambda delivery: (delivery.granted, delivery.t1))
            self.check_fate(message, absent)
            for delivery in message.deliveries:
                self.check_delivery(message, delivery)
            self.check_pairs(message)
            self.check_acks(message)
        self.check_gone()
        self.check_empty()
        self.check_purges(absent)
        self.check_final()
        return self.violations

    def options(self, message):
        return self.final["options"][message.op.record["q"]]

    def limit(self, message):
        own = message.op.record.get("max")
        return own if own is not None else self.options(message)["max_attempts"]

    def time_to_live(self, message):
        own = message.op.record.get("ttl")
        return own if own is not None else self.options(message).get("ttl")

    def check_fate(self, message, absent):
        certain = []
        possible = []
        for op in message.acks:
            (certain if op.fate == COMMIT else possible).append("acked")
        for op in message.cancels:
            (certain if op.fate == COMMIT and op.reply else possible).append("cancelled")
        certain += ["dead"] * len(message.dead) + ["still there"] * len(message.present)
        if message.op.fate == ABORT:
            if certain or message.deliveries:
                self.violate("phantom", "its transaction was rolled back, and it was seen (%s)"
                             % (", ".join(certain) or "delivered"), message.tag)
            return
        if len(certain) > 1:
            if len(message.present) + len(message.dead) > 1:
                self.violate("stored twice", ", ".join(certain), message.tag)
            elif certain.count("acked") > 1:
                self.violate("settled twice", "%d acks were committed" % certain.count("acked"), message.tag)
            else:
                self.violate("two fates", ", ".join(certain), message.tag)
        if certain:
            self.counts["fate: " + certain[0]] += 1
            return
        if message.op.fate == UNKNOWN and not message.deliveries:
            self.counts["fate: never was, or not known"] += 1
            return
        if self.time_to_live(message) and self.options(message)["on_expiry"] == "drop":
            possible.append("expired")
        if self.options(message)["purged"]:
            possible.append("purged")
            if possible == ["purged"]:
                absent[message.op.record["q"]] += 1
        if not possible:
            self.gone.append(message)
        else:
            self.counts["fate: " + possible[0]] += 1

    def check_content(self, message, checksum, key):
        if checksum != message.spec["sum"] or key != message.spec["key"]:
            self.violate("content", "sum %s key %s, not sum %s key %s" % (
                checksum, key, message.spec["sum"], message.spec["key"]), message.tag)

    def check_delivery(self, message, delivery):
        self.check_content(message, delivery.sum, delivery.key)
        enqueue = message.op
        if delivery.op.record["q"] != enqueue.record["q"]:
            self.violate("wrong queue", "delivered by %s" % delivery.op.record["q"], message.tag)
        if delivery.t1 < enqueue.begun - MARGIN:
            self.violate("dirty", "delivered %.3f s before the commit" % (enqueue.begun - delivery.t1), message.tag)
        delay = enqueue.record.get("delay")
        if delay and delivery.t1 < enqueue.t0 + delay - MARGIN:
            self.violate("early", "delay %.3f s, delivered after %.3f s" % (delay, delivery.t1 - enqueue.t0), message.tag)
        if delivery.expires is not None and delivery.granted > delivery.expires + MARGIN:
            self.violate("expired", "%.3f s after it expired" % (delivery.granted - delivery.expires), message.tag)
        limit = self.limit(message)
        if limit and delivery.attempt > limit:
            self.violate("limit", "attempt %d of %d" % (delivery.attempt, limit), message.tag)
        for op, status in delivery.settles:
            if op.reply and status is not None:
                for crash in self.crashes:
                    if delivery.t1 < crash["t0"] and op.t0 > crash["t1"]:
                        self.violate("crash", "%s succeeded after a crash" % op.record.get("how"), message.tag)
                        break

    def deadline(self, delivery, moment):
        """The earliest deadline that the lease may have had at this moment."""
        sure = delivery.until
        maybe = []
        for t0, t1, until in sorted(delivery.extends, key=lambda extend: extend[0]):
            if t1 < moment and until is not None:
                sure = until
                maybe = []
            elif t0 <= moment:
                maybe.append(until if until is not None else sure)
        return min([sure] + maybe)

    def between_crash(self, first, second):
        return any(crash["t1"] > first.t0 and crash["t0"] < second.t1 for crash in self.crashes)

    def check_pairs(self, message):
        deliveries = message.deliveries
        for i, first in enumerate(deliveries):
            for second in deliveries[i + 1:i + 4]:
                self.check_overlap(message, first, second)
            if i + 1 < len(deliveries):
                second = deliveries[i + 1]
                # Only if it is sure which came first, and that no other came between:
                # a lease is granted at the statement's start, and taken any time in it.
                sure = first.t1 < second.granted and all(
                    earlier.t1 < first.granted for earlier in deliveries[:i])
                if sure and not self.between_crash(first, second):
                    self.check_attempts(message, first, second)
                    self.check_retry(message, first, second)

    def check_overlap(self, message, first, second):
        ended = min(first.ends, default=INFINITY)
        second_ended = min(second.ends + [second.until])
        if (self.deadline(first, second.granted) > second.granted + MARGIN and
                ended > second.t1 and second_ended > first.t1):
            self.violate("overlap", "%s (op %s, until %.6f) and %s (op %s, granted %.6f)" % (
                first.receipt, first.op.record["op"], self.deadline(first, second.granted),
                second.receipt, second.op.record["op"], second.granted), message.tag)
        if first.t1 < second.granted:
            for op, status in first.settles:
                if status is not None and not op.record.get("pop") and op.t0 > second.t1:
                    self.violate("fencing", "%s by %s succeeded after the delivery by %s" % (
                        op.record["how"], op.record["op"], second.op.record["op"]), message.tag)

    def check_attempts(self, message, first, second):
        lost = sum(1 for op in self.lost_dequeues[message.op.record["q"]]
                   if op.t0 < second.t1 and (op.t1 or op.t0 + LONGEST_STATEMENT) > first.t0)
        released = [op for op, status in first.settles if op.record.get("how") == "release"]
        least = first.attempt if released else first.attempt + 1
        most = first.attempt + 1 + lost
        if released and not lost and any(op.reply and op.t1 < self.deadline(first, op.t1) - MARGIN
                                         for op in released) and first.kept:
            most = first.attempt
        if not least <= second.attempt <= most:
            self.violate("uncounted", "attempt %d after attempt %d, %d to %d was expected (ops %s and %s)" % (
                second.attempt, first.attempt, least, most,
                first.op.record["op"], second.op.record["op"]), message.tag)

    def check_retry(self, message, first, second):
        for op, status in first.settles:
            delay = op.record.get("delay")
            if not delay or status is None or op.fate != COMMIT and op.record["how"] != "release":
                continue
            # The release of a lease that had run out or was aborted changes nothing.
            if op.record["how"] == "release" and (
                    op.t1 > self.deadline(first, op.t1) - MARGIN or not first.kept):
                continue
            if second.t1 < op.t0 + delay - MARGIN:
                self.violate("early", "%s with a delay of %.3f s, delivered after %.3f s" % (
                    op.record["how"], delay, second.t1 - op.t0), message.tag)

    def check_acks(self, message):
        for ack in message.acks:
            if ack.fate != COMMIT:
                continue
            for delivery in message.deliveries:
                if delivery.op is not ack and delivery.granted > ack.t1 + MARGIN:
                    self.violate("acked again", "acked by %s, delivered by %s %.3f s later" % (
                        ack.record["op"], delivery.op.record["op"], delivery.granted - ack.t1), message.tag)
                    break

    def check_gone(self):
        """A pop without an answer took some that nobody can name, and not more than it asked for."""
        room = {op.record["op"]: op.record.get("most", 40)
                for ops in self.lost_dequeues.values() for op in ops
                if op.record.get("pop") and op.fate == UNKNOWN}
        for message in sorted(self.gone, key=self.last_seen):
            for op in self.lost_dequeues[message.op.record["q"]]:
                ended = op.t1 or op.t0 + LONGEST_STATEMENT
                if room.get(op.record["op"]) and ended > self.last_seen(message):
                    room[op.record["op"]] -= 1
                    self.counts["fate: popped without an answer"] += 1
                    break
            else:
                self.violate("lost", "was enqueued by %s and is gone" % message.op.record["op"], message.tag)

    def last_seen(self, message):
        return max([message.op.begun] + [delivery.granted for delivery in message.deliveries])

    def check_empty(self):
        """Only what nobody touched yet counts as waiting, and only by those who could see it."""
        waiting = collections.defaultdict(list)
        for message in self.messages.values():
            op = message.op
            if op.fate != COMMIT or op.ended == INFINITY or op.prepared or op.record.get("delay") or \
                    self.time_to_live(message) or self.options(message)["purged"]:
                continue
            touched = [delivery.t0 for delivery in message.deliveries] + [cancel.t0 for cancel in message.touches]
            waiting[op.record["q"]].append((op.ended, min(touched, default=INFINITY), message))
        for queue, messages in waiting.items():
            messages.sort(key=lambda entry: entry[0])
            lost = [(op.t0, (op.t1 or op.t0 + LONGEST_STATEMENT) + LONGEST_STATEMENT)
                    for op in self.lost_dequeues[queue]]
            for op in self.ops.values():
                if op.record["k"] == "dequeue" and op.record["q"] == queue and op.reply and not op.reply["rows"]:
                    self.check_empty_answer(op, messages, lost)

    def check_empty_answer(self, op, messages, lost):
        # What a dequeue without an answer took, nobody knows.
        if any(t0 < op.t1 and t1 > op.t0 for t0, t1 in lost):
            return
        self.counts["empty answers judged"] += 1
        seen = self.transactions[op.x].began if op.x else op.t0
        for ended, touched, message in messages:
            if ended > seen - MARGIN:
                break
            if touched > op.t1 + MARGIN:
                self.violate("empty", "%s was told that nothing is there, %.3f s after the commit" % (
                    op.record["op"], op.t0 - ended), message.tag)
                return

    def check_purges(self, absent):
        for queue, options in self.final["options"].items():
            if not options["purged"]:
                continue
            sure = unsure = 0
            for op in self.ops.values():
                if op.record["k"] == "purge" and op.record["q"] == queue:
                    if op.fate == COMMIT and op.reply:
                        sure += op.reply["n"]
                    elif op.fate != ABORT:
                        unsure += 1
            self.counts["purged"] += sure
            # Only messages whose enqueue and ack are certain are in "absent".
            unclear = sum(1 for message in self.messages.values()
                          if message.op.record["q"] == queue and not message.present and not message.dead and
                          (message.op.fate == UNKNOWN or message.acks or message.cancels or
                           self.time_to_live(message)) and
                          not any(op.fate == COMMIT for op in message.acks + message.cancels))
            if sure > absent[queue] + unclear or not unsure and absent[queue] > sure + unclear:
                self.violate("purge", "%s: purge returned %d, %d messages are gone, %d more may be" % (
                    queue, sure, absent[queue], unclear))

    def check_final(self):
        for record in self.odd:
            if record["code"] not in PROVOKED and record["code"] not in self.final.get("allowed", ()):
                self.violate("error", "%s %s" % (record["code"], record["text"]))
        for queue, found in self.final["queues"].items():
            self.check_queue(queue, found)
        for row in self.final["check"]:
            self.violate("check", " | ".join(str(value) for value in row))
        for row in self.final["leases"]:
            self.violate("leak", " | ".join(str(value) for value in row))
        for line in self.final["log"]:
            self.violate("log", line)
        for line in self.final.get("hung", ()):
            self.violate("slow", line)

    def check_queue(self, queue, found):
        for rows, drained in (("rows", "drained"), ("dead", "drained_dead")):
            present = {row["tag"] for row in found[rows]}
            for tag in sorted(present - set(found[drained])):
                self.violate("stuck", "is in %s (%s) and cannot be dequeued" % (queue, rows), tag)
            for tag in sorted(set(found[drained]) - present):
                self.violate("hidden", "was dequeued from %s (%s) and was not in its view" % (queue, rows), tag)
        for stats, recount in (("stats", "recount"), ("stats_dead", "recount_dead")):
            for state, count in found[recount].items():
                if found[stats][state] != count:
                    self.violate("counter", "%s: %s says %s %s, there are %s" % (
                        queue, stats, state, found[stats][state], count))
        if not self.crashes:
            self.check_totals(queue, found)
        for row in found["dead"]:
            message = self.messages.get(row["tag"])
            if message is not None:
                self.check_death(message, row["death"])

    def check_totals(self, queue, found):
        least = collections.Counter()
        most = collections.Counter()

        def add(name, op, count):
            if op.fate != ABORT:
                most[name] += count
                if op.fate == COMMIT and not op.prepared:
                    least[name] += count

        for op in self.ops.values():
            if op.record["k"] == "enqueue" and op.record["q"] == queue:
                add("total_enqueued", op, len(op.record["m"]))
        for message in self.messages.values():
            if message.op.record["q"] == queue:
                for op in message.acks:
                    add("total_acked", op, 1)
        # A pop or an ack whose reply was lost has told nobody what it took.
        most["total_acked"] += sum(10 for op in self.lost_dequeues[queue] if op.fate != ABORT)
        for name in ("total_enqueued", "total_acked"):
            if not least[name] <= found["stats"][name] <= most[name]:
                self.violate("total", "%s: %s is %d, the clients saw %d to %d" % (
                    queue, name, found["stats"][name], least[name], most[name]))

    def check_death(self, message, death):
        reason = death and death.get("reason")
        limit = self.limit(message)
        if death is None or death["id"] not in message.ids:
            self.violate("death", "header %s" % death, message.tag)
        elif reason == "max_attempts":
            if death["attempts"] != limit:
                self.violate("death", "%d attempts of %s" % (death["attempts"], limit), message.tag)
        elif reason == "rejected":
            if not message.rejects:
                self.violate("death", "nobody rejected it", message.tag)
        elif reason == "expired":
            if not self.time_to_live(message):
                self.violate("death", "it has no time to live", message.tag)
        else:
            self.violate("death", "reason %s" % reason, message.tag)

    # ----- telling

    def story(self, tag):
        """What happened to a message, in order."""
        message = self.messages.get(tag)
        if message is None:
            return []
        lines = []

        def tell(op, text):
            span = "%.6f..%s" % (op.t0, "%.6f" % op.t1 if op.t1 else "?")
            fate = op.fate if op.x is None else "%s, in %s" % (op.fate, op.x)
            if op.fate != UNKNOWN and op.x is not None:
                fate += ", from %.6f" % op.begun
            lines.append((op.t0, "%s %-10s %s (%s%s)" % (
                span, op.record["op"], text, fate, ", prepared" if op.prepared else "")))

        tell(message.op, "enqueue into %s, delay %s, ttl %s, max_attempts %s, ids %s" % (
            message.op.record["q"], message.op.record.get("delay"), message.op.record.get("ttl"),
            self.limit(message), sorted(message.ids)))
        for delivery in message.deliveries:
            tell(delivery.op, "%s: attempt %d, receipt %s, granted %.6f, until %.6f" % (
                "pop" if delivery.op.record.get("pop") else "dequeue", delivery.attempt,
                delivery.receipt, delivery.granted, delivery.until))
        receipts = {delivery.receipt for delivery in message.deliveries}
        for op in self.ops.values():
            if op.record["k"] == "settle":
                statuses = op.reply["status"] if op.reply else None
                for position, receipt in enumerate(op.record["receipts"]):
                    if receipt in receipts:
                        status = statuses[position] if statuses else op.error and op.error["code"] or "no reply"
                        tell(op, "%s %s, delay %s: %s" % (op.record["how"], receipt, op.record.get("delay"), status))
        for op in message.cancels:
            tell(op, "cancel")
        for row in message.present + message.dead:
            lines.append((INFINITY, "at the end: %s" % row))
        for crash in self.crashes:
            lines.append((crash["t0"], "%.6f..%.6f            crash" % (crash["t0"], crash["t1"])))
        return [line for _, line in sorted(lines, key=lambda line: line[0])]
