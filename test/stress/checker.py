"""
checker.py
	The laws, and one pass over the facts of a history that looks for what
	breaks them.

Every judgement errs on the side of the engine: where a reply was lost or two
operations overlapped, each order that may have been is allowed. What remains
is a violation, with the message it is about.
"""

import bisect
import collections

from facts import ABORT, COMMIT, INFINITY, LONGEST_STATEMENT, MARGIN, PROVOKED, UNKNOWN, Facts
from limits import LimitLaws
from order import OrderedLaws

LAWS = {
    "lost": "a committed enqueue ends as acked, dead, expired, cancelled, purged or still there",
    "two fates": "a message has one fate",
    "stored twice": "a message is in a queue once",
    "phantom": "what was never enqueued or was rolled back is never seen",
    "dirty": "nothing is delivered before its transaction begins to commit",
    "identity": "an id belongs to one message, a message keeps its id",
    "content": "a message is delivered as it was enqueued",
    "wrong queue": "a message is delivered by the queue it was put into",
    "wrong key": "who asks for a key gets no message of another",
    "overlap": "a message has one valid receipt at a time",
    "fencing": "a receipt is void once the message was delivered again",
    "forged": "a receipt that nobody was given settles nothing",
    "crash": "a receipt is void after a crash of the server",
    "again": "after a crash no more is delivered again than was leased",
    "charged": "a crash counts no failure, and forgets none that had committed",
    "durable": "a commit that was confirmed is there, also after a crash and a failover",
    "suffix": "what a crash may undo are the last transactions, each as a whole",
    "acked again": "what was acked and committed is never delivered again",
    "settled twice": "a message is acked once",
    "revived": "what the dead-letter queue has delivered is not delivered by its queue any more",
    "limit": "no delivery beyond max_attempts",
    "uncounted": "a delivery after a failure counts it, one after a release counts none",
    "early": "nothing is delivered before its delay is over",
    "expired": "nothing is delivered after it expired",
    "death": "the header queue.death tells why, and the limit was reached",
    "order": "messages of a key come in the order of their transactions, in an ordered queue",
    "starved": "nothing waits while many are delivered that come after it, by priority or by turns",
    "over": "no more messages are leased at a time than the limits of their queue and key allow",
    "exclusive": "one call at a time holds messages of a key, in an ordered queue",
    "purge": "purge returns how many messages it removed",
    "empty": "a dequeue does not come back empty-handed while a message waits",
    "asleep": "a wait does not end in vain while a message waits",
    "paused": "a paused queue delivers nothing and takes nothing",
    "peek": "the view shows what is there, once: nothing rolled back, nothing acked, and all that stays",
    "drain": "what is there can be dequeued and acked while the disk is full",
    "stuck": "what is in the queue can be dequeued once nobody holds it",
    "hidden": "what can be dequeued is shown by the view",
    "counter": "counters equal a recount",
    "total": "totals equal what the clients saw",
    "check": "queue.check() returns no rows",
    "state": "what a key's holders count in its state is what they have committed",
    "leak": "no lease is left when all have ended",
    "error": "no client sees an error that it did not provoke",
    "slow": "no statement hangs",
    "log": "the server's log has no crash and the worker no error",
}


class Checker(OrderedLaws, LimitLaws, Facts):
    def violate(self, law, text, tag=None):
        assert law in LAWS, law
        super().violate(law, text, tag)

    # ----- judging

    def check(self):
        self.settle_fates()
        self.gather()
        self.check_order()
        self.check_limits()
        self.check_starving()
        self.find_pauses()
        absent = collections.Counter()
        self.gone = []              # without any fate that the clients know of
        self.leased = collections.Counter()     # by the place of the crash
        self.again = collections.Counter()
        # Statements of clients that were killed last longer on a clock that is moved.
        self.longest = LONGEST_STATEMENT + (60.0 if self.clock.moves else 0.0)
        for message in self.messages.values():
            for stage in (message, message.letter) if message.letter else (message,):
                stage.deliveries.sort(key=lambda delivery: (delivery.granted, delivery.t1))
                self.check_fate(stage, absent)
                for delivery in stage.deliveries:
                    self.check_delivery(stage, delivery)
                self.check_pairs(stage)
                self.check_acks(stage)
                self.check_crossings(stage)
            self.check_revived(message)
        self.check_errors()
        self.check_crashes()
        self.check_gone()
        self.check_waiting()
        self.check_pauses()
        self.check_peeks()
        self.check_purges(absent)
        self.check_final()
        return self.violations

    def check_fate(self, message, absent):
        certain = []
        possible = []
        for op in message.acks:
            (certain if op.fate == COMMIT else possible).append("acked")
        for op in message.cancels:
            (certain if op.fate == COMMIT and op.reply else possible).append("cancelled")
        dead = len(message.dead)
        if message.letter and not dead:
            if not self.undone(message.letter) or any(op.fate == COMMIT for op in message.letter.acks):
                dead = 1
            else:
                possible.append("dead")
        certain += ["dead"] * dead + ["still there"] * len(message.present)
        if message.op.fate == ABORT:
            if certain or not self.undone(message):
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
        if (message.op.fate == UNKNOWN or message.is_letter) and self.undone(message):
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

    def undone(self, message):
        """Whether it was never seen, or a crash may have undone what stored it since."""
        if message.is_letter:
            crash = max((crash["cut"] for crash in self.crashes if crash.get("lossy")), default=0.0)
        else:
            crash = message.op.undone_by["cut"] if message.op.undone_by else 0.0
        return all(delivery.t0 < crash for delivery in message.deliveries)

    def check_revived(self, message):
        if message.letter is None:
            return
        for letter in message.letter.deliveries:
            for delivery in message.deliveries:
                if delivery.granted > letter.t1 + MARGIN and not any(
                        crash.get("lossy") and letter.t0 < crash["t1"] < delivery.t1 for crash in self.crashes):
                    self.violate("revived", "delivered by %s as a dead letter, by %s %.3f s later" % (
                        letter.op.record["op"], delivery.op.record["op"], delivery.granted - letter.t1), message.tag)
                    return

    def check_delivery(self, message, delivery):
        self.check_content(message, delivery.sum, delivery.key)
        enqueue = message.op
        if delivery.op.record["q"] != enqueue.record["q"]:
            self.violate("wrong queue", "delivered by %s" % delivery.op.record["q"], message.tag)
        if delivery.op.record.get("key", delivery.key or "") != (delivery.key or ""):
            self.violate("wrong key", "%s asked for %s" % (delivery.op.record["op"], delivery.op.record["key"]), message.tag)
        if delivery.t1 < enqueue.begun - MARGIN:
            self.violate("dirty", "delivered %.3f s before the commit" % (enqueue.begun - delivery.t1), message.tag)
        delay = enqueue.record.get("delay")
        if delay and delivery.t1 + self.clock.wall_gain(enqueue.t0, delivery.t1) < enqueue.t0 + delay - MARGIN:
            self.violate("early", "delay %.3f s, delivered after %.3f s" % (delay, delivery.t1 - enqueue.t0), message.tag)
        at = enqueue.record.get("at")
        if at and delivery.t1 + self.clock.wall_gain(0.0, delivery.t1) < at - MARGIN:
            self.violate("early", "delivered %.3f s before deliver_at" % (at - delivery.t1), message.tag)
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

    def check_pairs(self, message):
        deliveries = message.deliveries
        for i, first in enumerate(deliveries):
            for second in deliveries[i + 1:i + 4]:
                self.check_overlap(message, first, second)
            if i + 1 < len(deliveries):
                second = deliveries[i + 1]
                # Only if it is sure which came first, and that no other came between,
                # earlier or later in this list: a lease is granted at the statement's
                # start, and taken any time in it.
                sure = (first.t1 < second.granted
                        and all(earlier.t1 < first.granted for earlier in deliveries[:i])
                        and all(later.granted > second.t1 for later in deliveries[i + 2:i + 3]))
                if sure and not self.between_crash(first, second):
                    self.check_attempts(message, first, second)
                    self.check_retry(message, first, second)

    def check_overlap(self, message, first, second):
        if first.unclear or second.unclear:
            return
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
                   if op.t0 < second.t1 and (op.t1 or op.t0 + self.longest) > first.t0)
        released = [op for op, status in first.settles if op.record.get("how") == "release"]
        # Of an ordered queue it may have gone back because of one before it.
        least = first.attempt if released or self.options(message).get("ordered") else first.attempt + 1
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
            if second.t1 + self.clock.wall_gain(op.t0, second.t1) < op.t0 + delay - MARGIN:
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

    # ----- crashes

    def check_crossings(self, message):
        """What was delivered before a crash, and what of it after."""
        starts = [crash["t0"] for crash in self.crashes] if message.deliveries else []
        # The last delivery before each crash; of two that cannot be told apart either.
        for place, first in {bisect.bisect_right(starts, delivery.t1): delivery
                             for delivery in message.deliveries}.items():
            if place == len(starts):
                continue
            crash = self.crashes[place]
            rest = [delivery for delivery in message.deliveries if delivery.t1 >= crash["t0"]]
            between = [delivery for delivery in rest if delivery.t0 <= crash["t1"]]
            second = rest[0] if rest and not between else None
            maybe, surely = self.lease_at(first, crash)
            self.leased[place] += maybe or bool(between)
            if second is None or any(other["t0"] > crash["t1"] and other["t0"] < second.t1 for other in self.crashes):
                continue
            # What a dequeue without an answer took before the crash is nobody's after it.
            if any(crash["t0"] < op.t0 < second.t1 for op in self.lost_dequeues[message.op.record["q"]]):
                continue
            self.check_crossing(message, place, first, second, surely)

    @staticmethod
    def surely_ended(delivery, crash):
        """What had ended the lease for sure when the crash began."""
        for op, status in delivery.settles:
            how = op.record.get("how", "pop")
            if op.ended < crash["t0"] and op.fate == COMMIT and not op.prepared and status is not None:
                if how == "release" or how != "extend":
                    return how, op
        return None, None

    def lease_at(self, delivery, crash):
        """Whether the lease may have been held when the server crashed, and whether it surely was."""
        how, _ = self.surely_ended(delivery, crash)
        aborted = not delivery.kept and delivery.op.fate == ABORT and delivery.op.ended < crash["t0"]
        latest = max([delivery.until] + [INFINITY for _ in delivery.extends] + [INFINITY] * delivery.unclear)
        maybe = how is None and not aborted and latest > crash["t0"] - MARGIN
        ends = [end for end in delivery.ends if end < crash["t0"]]
        surely = (maybe and delivery.kept and not ends and not delivery.unclear and
                  self.deadline(delivery, crash["t1"]) > crash["t1"] + MARGIN and
                  not any(op.record.get("how") != "extend" for op, _ in delivery.settles))
        return maybe, surely

    def check_crossing(self, message, place, first, second, surely):
        how, op = self.surely_ended(first, self.crashes[place])
        crash = self.crashes[place]
        if surely and second.attempt > first.attempt:
            self.violate("charged", "attempt %d when the server crashed, attempt %d after it (ops %s and %s)" % (
                first.attempt, second.attempt, first.op.record["op"], second.op.record["op"]), message.tag)
        if how == "nack" and not crash.get("lossy") and second.attempt <= first.attempt:
            self.violate("charged", "attempt %d was nacked by %s before the crash, and comes as attempt %d after it" % (
                first.attempt, op.record["op"], second.attempt), message.tag)
        failed = not first.kept or self.deadline(first, crash["t0"]) < crash["t0"] + MARGIN
        if second.attempt <= first.attempt and how not in ("nack", "release", "reject") and (how or not failed):
            self.again[place] += 1

    def check_crashes(self):
        for place, crash in enumerate(self.crashes):
            self.counts["crashes"] += 1
            asked = sum(op.record.get("most", 40) for ops in self.lost_dequeues.values() for op in ops
                        if op.t0 < crash["t1"] and (op.t1 or op.t0 + self.longest) > crash["t0"])
            self.counts["leased at a crash"] += self.leased[place]
            self.counts["delivered again after a crash"] += self.again[place]
            if not crash.get("lossy") and self.again[place] > self.leased[place] + asked:
                self.violate("again", "after the crash at %.3f %d were delivered again, %d were leased, %d more may have been"
                             % (crash["t0"], self.again[place], self.leased[place], asked))

    def check_errors(self):
        allowed = PROVOKED | set(self.final.get("allowed", ()))
        for op in self.ops.values():
            if op.error is None:
                continue
            code = op.error["code"]
            fine = code in allowed or code == "QU002" and op.record["k"] == "enqueue" and self.maybe_paused(op)
            # A dequeue changes no row, so there is nothing to be in conflict about.
            if code == "40001" and op.record["k"] == "dequeue" and not op.record.get("pop"):
                fine = False
            if not fine:
                self.violate("error", "%s: %s %s" % (
                    op.record["k"] + " " + op.record.get("how", ""), code, op.error["text"]))

    def check_gone(self):
        """A pop without an answer took some that nobody can name, and not more than it asked for."""
        room = {op.record["op"]: op.record.get("most", 40)
                for ops in self.lost_dequeues.values() for op in ops
                if op.record.get("pop") and op.fate != ABORT}
        for message in sorted(self.gone, key=self.last_seen):
            for op in self.lost_dequeues[message.op.record["q"]]:
                ended = op.t1 or op.t0 + self.longest
                if room.get(op.record["op"]) and ended > self.last_seen(message):
                    room[op.record["op"]] -= 1
                    self.counts["fate: popped without an answer"] += 1
                    break
            else:
                self.violate("lost", "was enqueued by %s and is gone" % message.op.record["op"], message.tag)

    def may_have_taken(self, message):
        """When dequeues without an answer began that may have taken it."""
        return [op.t0 for op in self.lost_dequeues[message.op.record["q"]]
                if (op.t1 or op.t0 + self.longest) > message.op.begun]

    def last_seen(self, message):
        return max([message.op.begun] + [delivery.granted for delivery in message.deliveries])

    # ----- answers while something waits

    def check_waiting(self):
        """Only what nobody touched yet counts as waiting, and only by those who could see it."""
        waiting = collections.defaultdict(list)
        gone = {id(message) for message in self.gone}
        for message in self.messages.values():
            op = message.op
            if op.fate != COMMIT or op.ended == INFINITY or op.prepared or op.record.get("delay") or \
                    op.record.get("at") or self.time_to_live(message) or self.options(message)["purged"] or \
                    self.options(message).get("paused") or self.options(message).get("ordered") or self.options(message).get("most"):
                continue
            touched = [delivery.t0 for delivery in message.deliveries] + [cancel.t0 for cancel in message.touches]
            if id(message) in gone:
                touched += self.may_have_taken(message)
            waiting[op.record["q"]].append((op.ended, min(touched, default=INFINITY), message))
        for messages in waiting.values():
            messages.sort(key=lambda entry: entry[0])
        lost = {queue: [(op.t0, (op.t1 or op.t0 + self.longest) + self.longest) for op in ops]
                for queue, ops in self.lost_dequeues.items()}
        for op in self.ops.values():
            kind, queue = op.record["k"], op.record.get("q")
            if not op.reply or queue not in waiting:
                continue
            # Who asks for one key is told of that alone.
            if kind == "dequeue" and not op.reply["rows"] and "key" not in op.record:
                self.check_vain(op, "empty", waiting[queue], lost.get(queue, ()))
            elif kind == "wait" and not op.reply["ready"]:
                self.check_vain(op, "asleep", waiting[queue], lost.get(queue, ()))

    def check_vain(self, op, law, messages, lost):
        # What a dequeue without an answer took, nobody knows.
        if any(t0 < op.t1 and t1 > op.t0 for t0, t1 in lost):
            return
        self.counts["empty answers judged"] += law == "empty"
        self.counts["waits in vain judged"] += law == "asleep"
        seen = self.transactions[op.x].began if op.x else op.t0
        for ended, touched, message in messages:
            if ended > seen - MARGIN:
                break
            if touched > op.t1 + MARGIN:
                self.violate(law, "%s was told that nothing is there, %.3f s after the commit" % (
                    op.record["op"], op.t0 - ended), message.tag)
                return

    # ----- pauses

    def find_pauses(self):
        """For each queue and side, when it was surely and when it may have been paused."""
        self.pauses = collections.defaultdict(list)     # (queue, side): (surely since, until, maybe since, until)
        switches = collections.defaultdict(list)
        for op in self.ops.values():
            if op.record["k"] == "pause" and not (op.error and not op.cut_off()):
                sides = ("dequeue", "enqueue") if op.record["side"] == "both" else (op.record["side"],)
                for side in sides:
                    switches[op.record["q"], side].append(op)
        lossy = [crash["t0"] for crash in self.crashes if crash.get("lossy")]
        for key, ops in switches.items():
            ops.sort(key=lambda op: op.t0)
            for place, op in enumerate(ops):
                if not op.record["on"]:
                    continue
                following = ops[place + 1:]
                until = min([following[0].t0 if following else INFINITY] + [t for t in lossy if t > op.t0])
                over = next((later.t1 for later in following if not later.record["on"] and later.reply), INFINITY)
                self.pauses[key].append((op.t1 if op.reply else INFINITY, until, op.t0, over))

    def maybe_paused(self, op):
        return any(op.t0 < over and (op.t1 or INFINITY) > since
                   for _, _, since, over in self.pauses[op.record["q"], "enqueue"])

    def check_pauses(self):
        for op in self.ops.values():
            kind = op.record["k"]
            if kind not in ("dequeue", "enqueue") or not op.reply or op.record.get("deferred"):
                continue
            if kind == "dequeue" and not op.reply["rows"]:
                continue
            for since, until, _, _ in self.pauses.get((op.record["q"], kind), ()):
                if op.t0 > since + MARGIN and op.t1 < until - MARGIN:
                    self.violate("paused", "%s by %s, paused %.3f s ago" % (kind, op.record["op"], op.t0 - since))
                    break

    # ----- what the views show

    def check_peeks(self):
        """Looks that took so long that a deleted row may have been cleared away are left out."""
        by_queue = collections.defaultdict(list)
        for message in self.messages.values():
            if message.op.fate == COMMIT and not message.op.prepared and not self.options(message)["purged"] and \
                    not self.time_to_live(message) and not message.dead and not message.letter:
                removed = [op.begun for op in message.acks + message.cancels] + [
                    delivery.op.t0 for delivery in message.deliveries if delivery.op.record.get("pop")]
                if message.present or any(op.fate == COMMIT for op in message.acks + message.cancels):
                    by_queue[message.op.record["q"]].append((message.op.ended, min(removed, default=INFINITY), message))
        for op in self.ops.values():
            if op.record["k"] == "peek" and op.reply:
                self.counts["peeks judged"] += 1
                self.check_peek(op, by_queue[op.record["q"]])

    def check_peek(self, op, messages):
        tags = op.reply["tags"]
        shown = set(tags)
        if len(shown) < len(tags):
            self.violate("peek", "%s showed it twice" % op.record["op"], next(
                tag for tag in tags if tags.count(tag) > 1))
        for tag in shown:
            message = self.messages.get(tag)
            if message is None:
                self.violate("peek", "%s showed what nobody enqueued" % op.record["op"], tag)
            elif message.op.fate == ABORT and not message.op.undone_by or message.op.begun > op.t1 + MARGIN:
                self.violate("peek", "%s showed it before or without its commit" % op.record["op"], tag)
            elif any(ack.fate == COMMIT and ack.ended < op.t0 - MARGIN for ack in message.acks + message.cancels):
                self.violate("peek", "%s showed it after it was gone" % op.record["op"], tag)
        if op.record.get("most") or op.t1 - op.t0 > 0.25 or self.near_lossy(op):
            return
        for ended, removed, message in messages:
            if ended < op.t0 - MARGIN and removed > op.t1 + MARGIN and message.tag not in shown:
                self.violate("peek", "%s did not show it" % op.record["op"], message.tag)

    def near_lossy(self, op):
        return any(crash.get("lossy") and crash["t0"] < op.t1 and crash["t1"] > op.t0 for crash in self.crashes)

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
            # A pop without an answer took some that nobody can name.
            popped = sum(op.record.get("most", 40) for op in self.lost_dequeues[queue]
                         if op.record.get("pop") and op.fate != ABORT)
            if sure > absent[queue] + unclear or not unsure and absent[queue] > sure + unclear + popped:
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
        self.counts["counted in states"] += self.final.get("counted", 0)
        for row in self.final.get("states", ()):
            self.violate("state", "of key %s is %s, %s were counted" % tuple(row))
        for row in self.final["leases"]:
            self.violate("leak", " | ".join(str(value) for value in row))
        for line in self.final["log"]:
            self.violate("log", line)
        for line in self.final.get("drain", ()):
            self.violate("drain", line)
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
        limits = self.limits(message)
        if death is None or death["id"] not in message.ids:
            self.violate("death", "header %s" % death, message.tag)
        elif reason == "max_attempts":
            if death["attempts"] not in limits:
                self.violate("death", "%d attempts of %s" % (death["attempts"], limits), message.tag)
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
