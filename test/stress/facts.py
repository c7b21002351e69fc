"""
facts.py
	What a history says, before anybody judges: operations with their fates,
	messages with their deliveries and ends, crashes.

Each reading errs on the side of the engine: where a reply was lost or two
operations overlapped, each order that may have been is allowed.
"""

import collections

import moves

# One machine, one clock; the server rounds to microseconds.
MARGIN = 0.002

# A client that was killed leaves its last statement running for so long at most.
LONGEST_STATEMENT = 10.0

# Lost leases, paused queues, cancels, terminations, conflicts of snapshots, aborted transactions.
PROVOKED = {"QU001", "57014", "57P01", "57P02", "57P03", "40001", "25P02", "08006", "08003"}

# Kinds of records that are operations of clients.
OPS = ("enqueue", "dequeue", "settle", "cancel", "purge", "peek", "wait", "pause", "clock")

ACKS = ("ack", "ack_batch", "try_ack")
REFUSED = ("lost", "invalid", "denied", "already_acked")

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
        # The crash that took back what had been confirmed, where that is allowed.
        self.undone_by = None

    def cut_off(self):
        return self.error is not None and self.error["code"].startswith(("57", "08"))


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
        self.undone_by = None

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
        self.letter = None          # itself in the dead-letter queue, if it was delivered there
        self.is_letter = False
        self.ids = set()


class Delivery:
    def __init__(self, op, row, message):
        self.op = op
        self.message = message
        (self.id, self.tag, self.sum, self.receipt, self.attempt, self.until,
         self.expires, self.key) = row[:8]
        self.t0 = op.t0
        self.t1 = op.t1
        self.granted = self.until - op.record["lease"]
        # Taken while the clock was moved, or for a time that was altered: when exactly is not known.
        self.unclear = len(row) > 8 or op.record.get("vague", False)
        if self.unclear:
            self.until = self.granted = self.t0
        self.kept = op.fate == COMMIT or op.undone_by is not None
        self.extends = []           # (t0, t1, until or None)
        self.ends = []              # the earliest moments at which it may have ended
        self.settles = []           # (op, status)


class Facts:
    def __init__(self, records):
        self.violations = []
        self.ops = {}
        self.transactions = collections.defaultdict(Transaction)
        self.resolutions = {}
        self.crashes = []
        self.surveyed = []          # when the priorities of what a crash left were known again
        self.odd = []
        self.final = {}
        self.messages = {}
        self.receipts = {}
        self.ids = {}
        self.lost_dequeues = collections.defaultdict(list)
        self.counts = collections.Counter()
        self.clock = moves.Clock(records)
        self.clock.translate(records)
        self.read(records)
        self.marks = set(self.final.get("marks", ()))

    def violate(self, law, text, tag=None):
        self.violations.append(Violation(law, text, tag))

    # ----- reading

    def read(self, records):
        replies = []
        for record in records:
            kind = record["k"]
            if kind in OPS:
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
                # Between the last answer of before and the first of after it.
                record.setdefault("cut", record["t1"])
                self.crashes.append(record)
            elif kind == "known":
                self.surveyed.append(record["t1"])
            elif kind == "slow":
                self.violate("slow", "%s took %.1f s" % (record["text"], record["seconds"]))
            elif kind == "odd":
                self.odd.append(record)
            elif kind == "final":
                self.final = record
        for record in replies:
            if record["k"] == "undo":
                self.read_undo(record)
            else:
                self.read_reply(record)
        self.crashes.sort(key=lambda crash: crash["t0"])

    def read_undo(self, record):
        transaction = self.transactions[record["x"]]
        transaction.undos.append(record["t0"])
        for name in record["ops"]:
            op = self.ops[name]
            op.undone = min([record["t0"]] + [fault for fault in transaction.faults
                                              if op.t0 <= fault <= record["t0"]])

    def read_reply(self, record):
        op = self.ops[record["op"]]
        op.t1 = record["t1"]
        if record["k"] == "reply":
            op.reply = record
        else:
            op.error = record
        # Who finds the connection gone does not know since when, nor who called a procedure that rolls back.
        if op.x and not op.record.get("blind") and not (op.error and op.error["code"].startswith(("57P", "08"))):
            transaction = self.transactions[op.x]
            transaction.last = max(transaction.last, op.t1)

    # ----- fates

    def transaction_fate(self, transaction, name):
        """Outcome, when it began to take effect, when it surely had, prepared."""
        marked = name in self.marks
        if transaction.how is None:
            return ABORT, transaction.aborted(), INFINITY, False
        if transaction.how == "abort":
            return ABORT, transaction.aborted(), transaction.t1 or INFINITY, False
        if transaction.how == "commit":
            if transaction.done:
                fate = COMMIT if transaction.done == "commit" and not transaction.undone_by else ABORT
                return fate, transaction.t0, transaction.t1, False
            return (COMMIT if marked else ABORT), transaction.t0, INFINITY, False
        # Prepared. Two may have tried to resolve it; only one was told that it did.
        tried, resolved = self.resolutions.get(transaction.gid, ([], []))
        ended = resolved[0]["t1"] if resolved else INFINITY
        if not marked:
            return ABORT, transaction.t0, ended, True
        begun = min([record["t0"] for record in tried if record["how"] == "commit"], default=transaction.t0)
        return COMMIT, begun, ended, True

    def confirmed(self, transaction):
        """When a commit began and was confirmed, or None."""
        if transaction.how == "commit" and transaction.done == "commit":
            return transaction.t0, transaction.t1
        for record in self.resolutions.get(transaction.gid, ([], []))[1] if transaction.gid else ():
            if record["how"] == "commit":
                return transaction.t0, record["t1"]
        return None

    def find_undone(self):
        """What a crash undid though it was confirmed: the last commits before a lossy one, as
        wholes. Returns for each crash since when a commit without a mark may have been undone."""
        lossy = [crash for crash in self.crashes if crash.get("lossy")]
        since = [0.0] * len(lossy)
        lost = []
        for name, transaction in self.transactions.items():
            span = self.confirmed(transaction)
            if span is None:
                continue
            for place, crash in enumerate(lossy):
                if span[0] < crash["cut"]:
                    if name in self.marks:
                        since[place] = max(since[place], span[0])
                    else:
                        lost.append((name, transaction, span, place))
                    break
            else:
                if name not in self.marks:
                    self.violate("durable", "transaction %s was confirmed %.6f..%.6f and is not there" % (
                        name, span[0], span[1]))
        for name, transaction, span, place in lost:
            transaction.undone_by = lossy[place]
            self.counts["transactions undone by a crash"] += 1
            if span[1] < since[place] - MARGIN:
                self.violate("suffix", "transaction %s was confirmed %.3f s before another began to commit, "
                             "which is there" % (name, since[place] - span[1]))
        return list(zip(lossy, since))

    def settle_fates(self):
        lossy = self.find_undone()
        for op in self.ops.values():
            if op.x is None:
                if op.reply:
                    op.fate, op.ended = COMMIT, op.t1
                    for crash, since in lossy:
                        if op.t0 < crash["cut"]:
                            # No mark tells whether it survived.
                            if op.t1 > since:
                                op.fate, op.undone_by = UNKNOWN, crash
                            break
                elif op.error and not op.cut_off():
                    op.fate = ABORT
            elif (op.error or not op.reply) and not op.record.get("blind"):
                op.fate = ABORT
                op.begun = op.t0
            elif op.undone:
                op.fate = ABORT
                op.begun = op.undone
            else:
                transaction = self.transactions[op.x]
                op.fate, op.begun, op.ended, op.prepared = self.transaction_fate(transaction, op.x)
                op.undone_by = transaction.undone_by

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
        # What was undone by a crash may have left its number to another.
        if message.op.fate == ABORT or message.op.undone_by:
            return
        message.ids.add(number)
        other = self.ids.setdefault(number, message)
        # A message and its dead letter are one.
        if other.tag != message.tag:
            self.violate("identity", "id %d is also that of %s" % (number, other.tag), message.tag)
        if len(message.ids) > 1:
            self.violate("identity", "has the ids %s" % sorted(message.ids), message.tag)

    def known(self, tag, where):
        message = self.messages.get(tag)
        if message is None:
            self.violate("phantom", "%s: nobody enqueued it" % where, tag)
        return message

    def letter(self, message, queue):
        """The message as the dead-letter queue has it: with attempts and an end of its own."""
        if message.letter is None:
            op = Op(dict(message.op.record, q=queue, delay=None, ttl=None, max=0))
            op.fate, op.ended = message.op.fate, message.op.ended
            op.begun, op.undone_by = message.op.begun, message.op.undone_by
            message.letter = Message(message.tag, op, message.spec)
            message.letter.is_letter = True
        return message.letter

    def gather_deliveries(self, op):
        if not op.reply:
            self.lost_dequeues[op.record["q"]].append(op)
            return
        for row in op.reply["rows"]:
            message = self.known(row[1], "delivered")
            if message is None:
                continue
            if op.record["q"] == message.op.record["q"] + "_dead":
                message = self.letter(message, op.record["q"])
            delivery = Delivery(op, row, message)
            message.deliveries.append(delivery)
            self.meet(message, delivery.id)
            self.counts["delivered"] += 1
            if op.undone and not op.record.get("pop"):
                # A savepoint's rollback leaves the lease with the transaction.
                fate, begun = self.transaction_fate(self.transactions[op.x], op.x)[:2]
                delivery.kept = fate == COMMIT or op.undone_by is not None
                if fate != COMMIT:
                    delivery.ends.append(begun)
            elif op.fate != COMMIT:
                delivery.ends.append(op.begun)
            for crash in self.crashes:
                if crash["t1"] > delivery.t0:
                    delivery.ends.append(crash["t0"])
                    break
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
                if status is not None and status not in REFUSED:
                    self.violate("forged", "%s of %s, which nobody was given: %s" % (how, receipt, status))
                self.counts["forged receipts refused"] += status in REFUSED
                continue
            self.counts["%s, %s" % (how, status if status else "error" if op.error else "unknown")] += 1
            if status in REFUSED or op.error and op.error["code"] == "QU001":
                self.counts["receipts of before a crash refused"] += any(
                    delivery.t1 < crash["t0"] and op.t0 > crash["t1"] for crash in self.crashes)
            # Cut off or cancelled, what acts at once may have acted.
            if status in REFUSED or op.error and not op.cut_off():
                continue
            delivery.settles.append((op, status))
            if how == "extend":
                self.gather_extend(op, delivery)
            elif how == "release":
                delivery.ends.append(op.t0)
            elif op.fate != ABORT or op.undone_by:
                delivery.ends.append(op.begun)
                if op.fate == ABORT:
                    continue
                if how in ACKS:
                    delivery.message.acks.append(op)
                elif how == "reject":
                    delivery.message.rejects.append(op)

    @staticmethod
    def gather_extend(op, delivery):
        until = op.reply.get("until") if op.reply else None
        if until is None:
            # No earlier than this, by the clock that only goes ahead.
            until = op.t0 + op.record.get("extension", 0.0)
        delivery.extends.append((op.t0, op.t1 if op.reply else INFINITY, until))

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
                if where == "dead" and message.letter:
                    message.letter.present.append(row)
                if message.op.record["q"] != queue:
                    self.violate("wrong queue", "is in %s" % queue, message.tag)
                self.check_content(message, row["sum"], row["key"])

    def check_content(self, message, checksum, key):
        if checksum != message.spec["sum"] or key != message.spec["key"]:
            self.violate("content", "sum %s key %s, not sum %s key %s" % (
                checksum, key, message.spec["sum"], message.spec["key"]), message.tag)

    # ----- leases and options

    def deadline(self, delivery, moment):
        """The earliest deadline that the lease may have had at this moment."""
        sure = delivery.until
        maybe = []
        for t0, t1, until in sorted(delivery.extends, key=lambda extend: extend[0]):
            if t1 < moment:
                sure = until
                maybe = []
            elif t0 <= moment:
                maybe.append(until)
        return min([sure] + maybe)

    def between_crash(self, first, second):
        return any(crash["t1"] > first.t0 and crash["t0"] < second.t1 for crash in self.crashes)

    def options(self, message):
        return self.final["options"].get(message.op.record["q"], {"max_attempts": 0, "on_expiry": "dead_letter",
                                                                   "ttl": None, "purged": False})

    def limits(self, message):
        """The limits of attempts that may have held, the highest last."""
        own = message.op.record.get("max")
        if own is not None:
            return [own]
        limits = self.options(message)["max_attempts"]
        return sorted(limits) if isinstance(limits, list) else [limits]

    def limit(self, message):
        limits = self.limits(message)
        return 0 if 0 in limits else limits[-1]

    def time_to_live(self, message):
        if message.is_letter:
            return None
        own = message.op.record.get("ttl")
        return own if own is not None else self.options(message).get("ttl")
