"""
limits.py
	The laws of limits and turns: no more messages of a queue, or of a key of it, are
	leased at a time than it allows; and nothing waits while many are delivered that
	should come after it.

A message counts from the answer that brought it to the earliest moment at which its
lease may have ended: the deadline, that of an extension, a settlement, a rollback, a
crash. What was taken by pop, or while the clock was moved, is left out.

A message waits from its commit until somebody touches it. What a call without an answer may have taken is not judged
where that may have been so: a lease that ran out shows in the attempt, one that a crash ended does not. With aging those come after
it whose time of enqueue, less the step for each priority, is later; where keys take turns,
so many of another key may be delivered as of its own. What was delivered after a crash before the worker
had looked at all that it left does not count by priority, and turns are judged up to the crash.
Calls side by side pass over what another one has in hand, so a few more are allowed. What was taken
by a call that asked for a key does not count.
"""

import bisect
import collections

from facts import COMMIT, INFINITY, MARGIN

# So many may overtake a message: some calls of forty.
OVERTAKEN = 100

# Times of enqueue are compared of messages no older than that: only if no clock was moved.
OLDEST = 30.0

# The priority of a message that has none.
USUAL = 4


class LimitLaws:
    def check_limits(self):
        groups = collections.defaultdict(list)
        for message in self.messages.values():
            most = self.options(message).get("most")
            if not most:
                continue
            queue = message.op.record["q"]
            held = [entry for delivery in message.deliveries for entry in self.surely_held(delivery)]
            if "queue" in most:
                groups[queue, None, most["queue"]] += held
            if "key" in most and message.spec["key"] is not None:
                groups[queue, message.spec["key"], most["key"]] += held
        for (queue, key, most), held in groups.items():
            self.check_limit(queue, key, most, held)

    def surely_held(self, delivery):
        if delivery.unclear or delivery.t1 is None or delivery.op.record.get("pop"):
            return []
        ends = delivery.ends + [delivery.until] + [until for _, _, until in delivery.extends if until]
        ends += [crash["t0"] for crash in self.crashes if crash["t1"] > delivery.t0]
        end = min(ends, default=INFINITY) - MARGIN
        return [(delivery.t1, end, delivery)] if end > delivery.t1 else []

    def check_limit(self, queue, key, most, held):
        changes = sorted([(begin, 1, delivery) for begin, _, delivery in held] +
                         [(end, -1, delivery) for _, end, delivery in held], key=lambda change: change[:2])
        now = 0
        for _, change, delivery in changes:
            now += change
            self.counts["leases within limits judged"] += change > 0
            if now > most:
                self.violate("over", "%d are leased of %s%s by %s, the limit is %d" % (
                    now, queue, " with key " + key if key else "", delivery.op.record["op"], most), delivery.tag)
                return

    # ----- what waits

    def check_starving(self):
        delivered = collections.defaultdict(list)
        for message in self.messages.values():
            for delivery in message.deliveries:
                if delivery.t1 is not None and not delivery.unclear and "key" not in delivery.op.record:
                    delivered[message.op.record["q"]].append((delivery.op.t0, delivery))
        for deliveries in delivered.values():
            deliveries.sort(key=lambda entry: entry[0])
        begins = {queue: [entry[0] for entry in deliveries] for queue, deliveries in delivered.items()}
        for message in self.messages.values():
            options, op = self.options(message), message.op
            if not (options.get("aging") or options.get("fair")) or op.fate != COMMIT or op.ended == INFINITY or \
                    op.prepared or op.record.get("delay") or op.record.get("at"):
                continue
            touched = min([delivery.t0 for delivery in message.deliveries] +
                          [cancel.t0 for cancel in message.touches], default=INFINITY)
            if not options.get("aging"):
                touched = min([touched] + [crash["t0"] for crash in self.crashes if crash["t1"] > op.ended])
            queue = op.record["q"]
            first = min(message.deliveries, key=lambda delivery: delivery.t0, default=None)
            if first is None:
                touched = min([touched] + [lost.t0 for lost in self.lost_dequeues[queue] if lost.t0 > op.ended])
            elif first.attempt != 1:
                continue
            among = slice(bisect.bisect(begins[queue], op.ended + MARGIN) if queue in begins else 0,
                          bisect.bisect(begins.get(queue, ()), touched - MARGIN))
            others = [delivery for _, delivery in delivered[queue][among] if self.could_see(delivery.op, op)]
            self.counts["messages that waited judged"] += 1
            if options.get("aging") and self.clock_moved(op.t0 - OLDEST, touched):
                continue
            if options.get("aging"):
                self.check_aging(message, others, options["aging"])
            else:
                self.check_turns(message, others)

    def clock_moved(self, begin, end):
        """Whether the server's wall clock may have been moved, or set back by a crash."""
        moves = [(self.clock.early(t0), self.clock.late(t1)) for t0, t1, _, _ in self.clock.moves]
        for crash in self.crashes:
            if any(t0 <= crash["t1"] for t0, _ in moves):
                moves.append((crash["t0"], crash["t1"]))
        return any(t1 >= begin - MARGIN and t0 <= end + MARGIN for t0, t1 in moves)

    def priorities_unknown(self, t0):
        """Whether a call at that moment may not have known which priorities there are."""
        return any(crash["t0"] - MARGIN <= t0 <= MARGIN + min(
            [known for known in self.surveyed if known > crash["t1"]], default=INFINITY) for crash in self.crashes)

    def held_at_a_crash(self, queue, t0):
        """Whether it was then that a call without an answer may have held messages, until a crash."""
        for lost in self.lost_dequeues[queue]:
            crash = next((crash for crash in self.crashes if crash["t1"] > lost.t0), None)
            until = INFINITY if lost.t1 is None else lost.t1 + lost.record["lease"]
            if crash and crash["t0"] <= until and lost.t0 - MARGIN <= t0 <= crash["t1"] + MARGIN:
                return True
        return False

    def could_see(self, op, enqueue):
        """Whether a call's snapshot is surely of after a commit."""
        return not op.x or self.transactions[op.x].began > enqueue.ended + MARGIN

    def check_aging(self, message, others, step):
        def rank(op, moment):
            return moment - op.record.get("priority", USUAL) * step
        own = rank(message.op, message.op.ended) + 2 * step
        after = [delivery for delivery in others if rank(delivery.message.op, delivery.message.op.t0) > own and
                 not self.priorities_unknown(delivery.op.t0) and
                 not self.held_at_a_crash(message.op.record["q"], delivery.op.t0)]
        if len(after) > OVERTAKEN:
            self.violate("starved", "%d messages were delivered before it that come after it" % len(after), message.tag)

    def check_turns(self, message, others):
        keys = collections.Counter(delivery.message.spec["key"] for delivery in others)
        own = keys.pop(message.spec["key"], 0)
        for key, count in keys.items():
            if count - own > OVERTAKEN:
                self.violate("starved", "%d of key %s were delivered before it, %d of its own" % (
                    count, key, own), message.tag)
                return
