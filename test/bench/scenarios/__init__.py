"""One file a scenario, named like its id: b01_enqueue.py is B1.

A scenario file has:

    ID, TITLE	"B1", and what is measured, in a line
    GOALS	a list of Goal
    CONTENDERS	names from contenders.py, in the order of the tables
    METRICS	metric -> what the columns of its table say
    TABLE	lines and columns of its table, if the lines are not contenders;
		metrics are then called "LINE COLUMN"; UNITS, if not microseconds;
		of several contenders LINES[line][0] is the line's
    PLOTTED	the metrics or columns in the plot, if not the first or all
    run(turn)	measures everything, through the Turn it is given

The file's docstring is printed beside its numbers: say what was done, so that
a reader can judge it.
"""

import importlib
import os
import pkgutil
import time

from results import Row


def load_all():
    """All scenario modules, by number."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if module.name.startswith("b")]
    return [importlib.import_module(f"scenarios.{name}") for name in sorted(names)]


# A backlog that can be filled in reasonable time and fits into memory.
MOST_FILLED = 3_000_000


def brief(error):
    """The first lines of what went wrong, as one."""
    return "; ".join(str(error).strip().splitlines()[:3])


class Turn:
    """What a scenario works with: the server, who takes part, the order of turns."""

    def __init__(self, scenario, server, contenders, options, results):
        self.scenario = scenario
        self.server = server
        self.options = options
        self.results = results
        self.contenders = {name: contenders[name] for name in scenario.CONTENDERS if name in contenders}
        self.rates = {}
        self.failed = set()

    def each(self, names=None):
        """(repetition, contender), interleaved; each repetition begins with another one."""
        chosen = [name for name in names or self.scenario.CONTENDERS if name in self.contenders]
        for repetition in range(self.options.reps):
            first = repetition % len(chosen) if chosen else 0
            for name in chosen[first:] + chosen[:first]:
                if name not in self.failed:
                    yield repetition, self.contenders[name]

    def add(self, repetition, contender, metric, value, unit, clients=1, batch=1):
        name = contender if isinstance(contender, str) else contender.name
        load = os.getloadavg()[0]
        self.results.add(
            Row(self.scenario.ID, name, metric, repetition, value, unit, clients, batch, load)
        )
        print(f"  {self.scenario.ID} {repetition + 1} {name:18s} {metric:14s} {value:12,.1f} {unit}", flush=True)

    def attempt(self, contender, measure, *arguments):
        """Runs a measurement; a contender that fails once sits out the rest of the scenario."""
        try:
            return measure(contender, *arguments)
        except Exception as error:  # whatever it is: the others go on
            self.failed.add(contender.name)
            trouble = f"{self.scenario.ID} {contender.name}: {brief(error)}"
            self.results.troubles.append(trouble)
            print(f"  failed: {trouble}", flush=True)
            return None

    def settle(self):
        """Between two measurements: nobody pays for the one before."""
        self.server.execute("CHECKPOINT")
        time.sleep(0.2)

    def produce(self, contender, script, clients, batch=1, seconds=None, **variables):
        """Messages a second of a producer's script on a fresh queue."""
        contender.reset()
        self.settle()
        load = self.server.pgbench(
            script, clients, seconds or self.options.seconds, payload=contender.payload, **variables
        )
        return load.transactions * batch / load.seconds

    def consume(self, contender, batch, clients, seconds=None):
        """Messages a second of consumers that find work at any time.

        The queue is filled for the time at the rate last seen, and half as
        much again; the time is cut to what MOST_FILLED messages last. What was
        drained to the ground is measured again.
        """
        script = contender.consume(batch)
        key = (contender.name, batch, clients)
        if key not in self.rates:
            self.rates[key] = self.pilot(contender, script, batch, clients)
        for _ in range(4):
            wanted = seconds or self.options.seconds
            wanted = max(1, int(min(wanted, MOST_FILLED / self.rates[key] / 1.5)))
            contender.ready(int(self.rates[key] * wanted * 1.5) + clients * max(200, batch * 10))
            before = contender.left()
            self.settle()
            load = self.server.pgbench(script, clients, wanted, **contender.variables(clients))
            after = contender.left()
            self.rates[key] = (before - after) / load.seconds
            if after > before * 0.02:
                return self.rates[key]
            self.rates[key] *= 2
        raise RuntimeError("the backlog runs dry however much is filled in")

    def pilot(self, contender, script, batch, clients):
        """A rough rate, from a second."""
        contender.ready(50000 * min(batch, 10))
        before = contender.left()
        load = self.server.pgbench(script, clients, 1, **contender.variables(clients))
        return max(1000, (before - contender.left()) / load.seconds)
