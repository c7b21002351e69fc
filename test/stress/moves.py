"""
moves.py
	The clock of the queues against the clock of the clients, when it is moved.

A history has the clients' times; leases and delays have those of the server,
which moves by queue.clock_advance() have shifted, until a crash that forgets
them. All is judged on one axis that never goes back: the clients' time and all
moves of both clocks so far. What may have begun before a move and ended after it
is stretched over it, so that whatever the order was, it is allowed.

A step of the wall clock alone moves delays and expiries but no lease. What came
sooner by a step forward is not too soon: see wall_gain().
"""

INFINITY = float("inf")

# Fields that are moments, by whether they begin or end something.
BEGINS = ("t", "t0")
ENDS = ("t1", "cut")


class Clock:
    def __init__(self, records):
        told = {record["op"]: record for record in records if record["k"] in ("reply", "error")}
        self.crashes = sorted((record["t0"], record["t1"]) for record in records if record["k"] == "crash")
        self.moves = []             # (t0, t1, by, whether of the wall clock alone)
        for record in records:
            if record["k"] == "clock":
                answer = told.get(record["op"])
                # One that failed may have moved it, until the crash that made it fail.
                ended = answer["t1"] if answer and answer["k"] == "reply" else INFINITY
                self.moves.append((record["t0"], ended, record["by"], record["wall"]))

    def early(self, t):
        """The moment on the axis, or one before it."""
        return t + sum(by for _, t1, by, wall in self.moves if not wall and t1 <= t)

    def late(self, t):
        return t + sum(by for t0, _, by, wall in self.moves if not wall and t0 <= t)

    def shift(self, t0, t1):
        """What to add to the server's wall clock to be on the axis; None if that is not clear."""
        if any(began <= t1 and ended >= t0 for began, ended in self.crashes):
            return None
        reset = max((ended for began, ended in self.crashes if ended < t0), default=0.0)
        shift = 0.0
        for began, ended, by, wall in self.moves:
            if began <= t1 and ended >= t0 and began >= reset:
                return None
            if ended < t0:
                if began >= reset:
                    shift -= by
                if not wall:
                    shift += by
        return shift

    def translate(self, records):
        if not self.moves:
            return
        ops = {record["op"]: record for record in records if "op" in record and record["k"] not in (
            "reply", "error")}
        spans = {}
        for record in records:
            if record["k"] == "reply":
                spans[id(record)] = self.shift(ops[record["op"]]["t0"], record["t1"])
        for record in records:
            for name in BEGINS:
                if name in record:
                    record[name] = self.early(record[name])
            for name in ENDS:
                if name in record:
                    record[name] = self.late(record[name])
        for record in records:
            if record["k"] == "reply":
                self.translate_reply(record, ops[record["op"]], spans[id(record)])

    @staticmethod
    def translate_reply(record, op, shift):
        if op["k"] == "dequeue":
            for row in record["rows"]:
                if shift is None:
                    # A lease that may be over by now: nothing is judged by its deadline.
                    row[5] = op["t0"] + op["lease"]
                    row[6] = None
                    row.append("unclear")
                else:
                    row[5] += shift
                    row[6] = None if row[6] is None else row[6] + shift
        elif record.get("until") is not None:
            record["until"] = None if shift is None else record["until"] + shift

    def wall_gain(self, t0, t1):
        """By how much the wall clock may have gone ahead of the axis, between two moments of it."""
        steps = [by for began, ended, by, wall in self.moves
                 if wall and self.early(began) <= t1 and self.late(min(ended, began + 60)) >= t0]
        gain = sum(by for by in steps if by > 0)
        # A crash takes back steps that went back.
        for began, ended in self.crashes:
            if self.early(began) <= t1 and self.late(ended) >= t0:
                gain += sum(-by for start, _, by, wall in self.moves if wall and by < 0 and start <= ended)
        return gain
