"""
laws.py
	What must hold of a run, and the look whether it does.

A history is a dict:

	tried			[{x, lane, n, sum, kept, loose}] in the order in which a producer enqueued them
	told			{x: "commit" or "rollback"}, as the server answered
	hasty			xs that committed asynchronously: a crash may undo what was told
	marks			xs whose business row is there: these have committed
	arrivals		[{lane, n, sum, id}] in the order in which the destination has them
	dead			the same, of the dead-letter queue
	left			messages that were in the queue when the time to drain was over
	stood			how long the queue's oldest message was that, at the longest, s
	samples			{"oldest": s, "open": [text]} of transactions of runners
	checks, errors, torn, log	lists of text
	once			each message is at the destination once: it recognizes duplicates
	gentle			nothing was cut or killed: no message comes twice
	may_die			attempts are counted: dead letters are legal

A lane is a key, or what a producer sends without one (loose), which has no order.
"""

import collections

LAWS = {
    "lost": "each committed message is at the destination (or a dead letter, where attempts are counted)",
    "phantom": "nothing arrives that was rolled back, undone by a crash, or never enqueued",
    "order": "messages of a key arrive first in the order of their commits",
    "dead": "an outage kills no message: without a limit of attempts there are no dead letters",
    "once": "a destination that recognizes duplicates has each message once",
    "repeated": "where nothing was cut or killed no message is sent twice",
    "content": "what arrives is what was enqueued, and a message has the same id each time",
    "transaction": "no runner has a transaction open while its sink works",
    "stalled": "where nothing was cut or killed a relay goes on soon",
    "stuck": "once all is healed the queue drains",
    "check": "queue.check() has nothing to say",
    "durable": "what was told committed is there, what was told rolled back is not",
    "whole": "a file has whole lines",
    "error": "clients meet no error but a lost connection",
    "log": "no crash but those that were made",
}

# How long the oldest message may wait, s.
STALL = 8

Violation = collections.namedtuple("Violation", "law text")


def tag(message):
    return message["lane"], message["n"]


def show(message):
    return "%s:%s" % tag(message)


class Judge:
    def __init__(self, history):
        self.history = history
        self.violations = []
        self.counts = collections.Counter()
        self.tried = {tag(message): message for message in history["tried"]}
        self.dead = {tag(message) for message in history["dead"]}
        self.arrived = collections.Counter(tag(message) for message in history["arrivals"])

    def violate(self, law, text):
        self.violations.append(Violation(law, text))

    def committed(self, message):
        return message["kept"] and message["x"] in self.history["marks"]

    def judge(self):
        self.fates()
        self.losses()
        self.arrivals()
        self.deaths()
        self.repeats()
        self.order()
        self.rest()
        return self.violations

    def fates(self):
        for x, how in self.history["told"].items():
            there = x in self.history["marks"]
            if how == "rollback" and there:
                self.violate("durable", "%s was rolled back, and is there" % x)
            elif how == "commit" and not there:
                if x not in self.history["hasty"]:
                    self.violate("durable", "%s was committed, and is not there" % x)
                self.counts["commits undone by a crash"] += 1
        for message in self.history["tried"]:
            self.counts["committed" if self.committed(message) else "not committed"] += 1

    def losses(self):
        for message in self.history["tried"]:
            if self.committed(message) and tag(message) not in self.arrived and \
                    not (self.history["may_die"] and tag(message) in self.dead):
                self.violate("lost", "%s of %s" % (show(message), message["x"]))

    def arrivals(self):
        ids = {}
        owners = {}
        for message in self.history["arrivals"] + self.history["dead"]:
            known = self.tried.get(tag(message))
            if known is None:
                self.violate("phantom", "%s was never enqueued" % show(message))
            elif not self.committed(known):
                self.violate("phantom", "%s of %s, which %s" % (
                    show(message), known["x"],
                    "was undone" if known["kept"] and self.history["told"].get(known["x"]) == "commit" else
                    "did not commit" if known["kept"] else "was rolled back to a savepoint"))
            elif known["sum"] != message["sum"]:
                self.violate("content", "%s is not what was enqueued" % show(message))
            if message.get("id") is None:
                continue
            if ids.setdefault(tag(message), message["id"]) != message["id"]:
                self.violate("content", "%s came as %s and as %s" % (show(message), ids[tag(message)], message["id"]))
            if owners.setdefault(message["id"], tag(message)) != tag(message):
                self.violate("content", "%s has the id of %s:%s" % ((show(message),) + owners[message["id"]]))

    def deaths(self):
        self.counts["dead"] = len(self.history["dead"])
        if not self.history["may_die"]:
            for message in self.history["dead"]:
                self.violate("dead", "%s: %s" % (show(message), message.get("why")))

    def repeats(self):
        self.counts["arrived"] = sum(self.arrived.values())
        self.counts["duplicates"] = sum(self.arrived.values()) - len(self.arrived)
        for law, bound in (("once", self.history["once"]), ("repeated", self.history["gentle"])):
            for name, count in self.arrived.items() if bound else ():
                if count > 1:
                    self.violate(law, "%s:%s is there %d times" % (name + (count,)))

    def order(self):
        """What has died may arrive late, after what was behind it."""
        last = {}
        seen = set()
        for place, message in enumerate(self.history["arrivals"]):
            known = self.tried.get(tag(message))
            if known is None or known["loose"] or not self.committed(known) or \
                    tag(message) in seen or tag(message) in self.dead:
                continue
            seen.add(tag(message))
            before = last.get(message["lane"])
            if before and before[0] > message["n"]:
                self.violate("order", "%s (arrival %d) came after %s:%d (arrival %d)" % (
                    show(message), place, message["lane"], before[0], before[1]))
            else:
                last[message["lane"]] = (message["n"], place)

    def rest(self):
        if self.history["left"]:
            self.violate("stuck", "%d messages are left: %s" % (self.history["left"], self.history.get("relay")))
        if self.history["gentle"] and self.history["stood"] > STALL:
            self.violate("stalled", "for %.1f s the oldest message stayed in the queue" % self.history["stood"])
        for text in self.history["samples"]["open"]:
            self.violate("transaction", text)
        for law, name in (("check", "checks"), ("error", "errors"), ("whole", "torn"), ("log", "log")):
            for text in self.history[name]:
                self.violate(law, text)
