"""
limits.py
	The law of limits: no more messages of a queue, or of a key of it, are leased at
	a time than it allows.

A message counts from the answer that brought it to the earliest moment at which its
lease may have ended: the deadline, that of an extension, a settlement, a rollback, a
crash. What was taken by pop, or while the clock was moved, is left out.
"""

import collections

from facts import INFINITY, MARGIN


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
