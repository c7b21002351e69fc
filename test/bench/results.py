"""Rows, medians, ratios and goals."""

from dataclasses import dataclass, field
from statistics import median


@dataclass
class Row:
    """One measurement."""

    scenario: str
    contender: str
    metric: str
    repetition: int
    value: float
    unit: str
    clients: int
    batch: int
    load: float


@dataclass
class Goal:
    """ours compared with factor x theirs + more; without theirs, with factor itself; a factor of 0: never any.

    ours and theirs are (contender, metric). Pairs of one repetition are
    compared, since what else the machine does hits both alike.
    """

    text: str
    ours: tuple
    relation: str
    factor: float
    theirs: tuple = None
    more: float = 0
    # Shown for comparison: not one of the project's goals.
    shown: bool = False


@dataclass
class Verdict:
    goal: Goal
    ratios: list = field(default_factory=list)
    scores: list = field(default_factory=list)

    @property
    def measured(self):
        return bool(self.scores)

    @property
    def met(self):
        if not self.goal.factor:
            return max(self.scores) == 0
        if self.goal.relation == ">=":
            return median(self.scores) >= 1
        return median(self.scores) <= 1

    @property
    def word(self):
        if not self.measured:
            return "not measured"
        if self.goal.shown:
            return "shown"
        return "met" if self.met else "short"


class Results:
    def __init__(self):
        self.rows = []
        # What a reader should know, and what could not be measured.
        self.notes = []
        self.troubles = []

    def add(self, row):
        self.rows.append(row)

    def values(self, scenario, contender, metric):
        """By repetition."""
        return {
            row.repetition: row.value
            for row in self.rows
            if (row.scenario, row.contender, row.metric) == (scenario, contender, metric)
        }

    def judge(self, scenario, goal):
        verdict = Verdict(goal)
        ours = self.values(scenario, *goal.ours)
        theirs = self.values(scenario, *goal.theirs) if goal.theirs else dict.fromkeys(ours, 1.0)
        for repetition in sorted(set(ours) & set(theirs)):
            limit = goal.factor * theirs[repetition] + goal.more
            verdict.ratios.append(ours[repetition] / theirs[repetition])
            verdict.scores.append(ours[repetition] / limit if limit else ours[repetition])
        return verdict


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def quantity(value):
    """A number with as many digits as one reads."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def spread(values):
    """Median, and the range when there is one."""
    middle = quantity(median(values))
    if len(values) < 2:
        return middle
    return f"{middle} ({quantity(min(values))} .. {quantity(max(values))})"
