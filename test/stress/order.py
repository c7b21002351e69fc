"""
order.py
	The laws of ordered queues: one call at a time holds messages of a key, and
	they come in the order of their transactions.

Judged is only what is certain: a message was in line before another one if its
transaction was confirmed before the other's statement was sent, or if it was
stored before it by the same transaction. Messages with a delay or a time to live
have no certain place.

What has died is out of the way before anybody has written that. A crash forgets
what nobody has written, so the message is back after it, and what was delivered
meanwhile was not out of line.
"""

import bisect
import collections

from facts import ABORT, COMMIT, INFINITY, MARGIN

# Deliveries of a key, in order of time, that one is compared with.
NEAR = 8


class OrderedLaws:
    def check_order(self):
        lines = collections.defaultdict(list)
        for message in self.messages.values():
            if self.options(message).get("ordered") and message.op.fate == COMMIT:
                lines[message.op.record["q"], message.spec["key"]].append(message)
        for line in lines.values():
            self.follow_failures(line)
        for line in lines.values():
            self.check_line(line)
            self.check_holders(line)

    def follow_failures(self, line):
        """The lease of a message ends with that of one before it that the same call took."""
        calls = collections.defaultdict(list)
        for message in line:
            for delivery in message.deliveries:
                calls[delivery.op.record["op"]].append(delivery)
        for taken in calls.values():
            place = {row[1]: number for number, row in enumerate(taken[0].op.reply["rows"])}
            taken.sort(key=lambda delivery: place[delivery.tag])
            ends = []
            for delivery in taken:
                own = list(delivery.ends)
                delivery.ends += ends
                # A deadline as well, if only one that an extension set.
                ends += own + [delivery.until] + [until for _, _, until in delivery.extends]

    # ----- order

    def leaves(self, message):
        """The earliest moment at which it may have been out of the way."""
        ways = [op.t0 for op in message.acks if op.fate != ABORT or op.undone_by]
        ways += [op.t0 for op in message.cancels + message.touches]
        for delivery in message.deliveries:
            ways += [op.t0 for op, _ in delivery.settles if op.record.get("how") in ("reject", "nack")]
        if message.dead or message.letter:
            ways += [delivery.t0 for delivery in message.deliveries]
        if not message.acks:
            ways += [op.t0 for op in self.lost_dequeues[message.op.record["q"]]]
        if not ways and not message.present:
            return 0.0
        return min(ways, default=INFINITY)

    def forgotten_deaths(self, message):
        """When it may have been dead in memory alone, until a crash: from when, and to when."""
        least = min((limit for limit in self.limits(message) if limit), default=INFINITY)
        deaths = []
        for delivery in message.deliveries:
            if delivery.attempt >= least:
                deaths.append((delivery.t1, min(delivery.ends + [delivery.until] +
                                                [until for _, _, until in delivery.extends])))
        if least < INFINITY:
            # What one without an answer took is not known, nor when.
            deaths += [(INFINITY, op.t0) for op in self.lost_dequeues[message.op.record["q"]]]
        for taken, died in deaths:
            crash = next((crash for crash in self.crashes if crash["t1"] > died), None)
            if crash and not any(taken < again.t0 < crash["t0"] for again in message.deliveries):
                yield died, crash["t1"]

    def in_the_way(self, other, delivery, message):
        """Whether one that is before it in line was in its way when it was delivered."""
        return (self.leaves(other) > delivery.t1 + MARGIN and not self.same_call(other, delivery, message) and
                not any(died < delivery.t1 + MARGIN and back > delivery.t0 - MARGIN
                        for died, back in self.forgotten_deaths(other)))

    def has_place(self, message):
        op = message.op
        return not (op.prepared or op.undone_by or op.record.get("delay") or op.record.get("at") or
                    self.time_to_live(message))

    def check_line(self, line):
        line = [message for message in line if self.has_place(message)]
        before = sorted(((message.op.ended, message) for message in line if message.op.ended < INFINITY),
                        key=lambda entry: entry[0])
        ended = [entry[0] for entry in before]
        last = []                   # the latest to leave of the first so many
        for _, message in before:
            leaves = self.leaves(message)
            last.append((leaves, message) if not last or leaves > last[-1][0] else last[-1])
        for message in line:
            known = bisect.bisect_left(ended, message.op.t0 - MARGIN)
            for delivery in message.deliveries:
                self.counts["places in line judged"] += 1
                if known and last[known - 1][0] > delivery.t1 + MARGIN:
                    self.check_place(message, delivery, [entry[1] for entry in before[:known]])
        for message in line:
            self.check_neighbours(message)

    def check_place(self, message, delivery, before):
        for other in before:
            if self.in_the_way(other, delivery, message):
                self.violate("order", "delivered by %s while %s was before it" % (
                    delivery.op.record["op"], other.tag), message.tag)
                return

    def same_call(self, other, delivery, message):
        """Whether the call took the other one as well, ahead of this one."""
        tags = [row[1] for row in delivery.op.reply["rows"]]
        return other.tag in tags and tags.index(other.tag) < tags.index(message.tag)

    def check_neighbours(self, message):
        """Within one statement the order is that of the array."""
        specs = [spec["tag"] for spec in message.op.record["m"] if spec["key"] == message.spec["key"]]
        place = specs.index(message.tag)
        if place == 0:
            return
        other = self.messages[specs[place - 1]]
        for delivery in message.deliveries:
            if self.in_the_way(other, delivery, message):
                self.violate("order", "delivered by %s while %s of the same statement was before it" % (
                    delivery.op.record["op"], other.tag), message.tag)

    # ----- one holder

    def check_holders(self, line):
        deliveries = sorted((delivery for message in line for delivery in message.deliveries),
                            key=lambda delivery: delivery.granted)
        for place, first in enumerate(deliveries):
            for second in deliveries[place + 1:place + NEAR]:
                if first.op is not second.op and first.message is not second.message:
                    self.check_holder(first, second)

    def check_holder(self, first, second):
        if first.unclear or second.unclear or first.op.record.get("pop") or second.op.record.get("pop"):
            return
        self.counts["pairs of holders judged"] += 1
        deadline = min([self.deadline(first, second.granted)] +
                       [end for end in first.ends if end < INFINITY])
        if (deadline > second.granted + MARGIN and min(first.ends, default=INFINITY) > second.t1 and
                min(second.ends + [second.until]) > first.t1):
            self.violate("exclusive", "%s is held by %s until %.6f, this by %s, granted %.6f" % (
                first.tag, first.op.record["op"], deadline, second.op.record["op"], second.granted), second.tag)
