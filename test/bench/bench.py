"""The benchmarks' main program. test/bench/run builds, starts a server and calls it."""

import argparse
import os
import sys
import time

import contenders as parts
import report
import scenarios
from results import Results
from server import Server


def parse():
    parser = argparse.ArgumentParser(prog="run")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", type=lambda text: text.upper().split(","))
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--reps", type=int)
    parser.add_argument("--payload", type=int, default=100)
    parser.add_argument("--backlog", type=int)
    parser.add_argument("--contenders", type=lambda text: text.split(","))
    parser.add_argument("--pgmq")
    parser.add_argument("--out", default=os.path.join(os.environ["BENCH_TREE"], "build", "bench"))
    parser.add_argument("--page", default="benchmarks")
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    if options.publish and options.only and options.page == "benchmarks":
        parser.error("a page of its own (--page) for these scenarios, please: doc/benchmarks.md has others")
    options.seconds = max(1, round(options.seconds or (1 if options.quick else 4)))
    options.reps = options.reps or (1 if options.quick else 7)
    options.backlog = options.backlog or (100_000 if options.quick else 10_000_000)
    return options


def taking_part(server, options, results):
    """The contenders that can be measured here, installed."""
    chosen = {}
    for kind in parts.ALL:
        contender = kind(server, options)
        family = kind.name.split(".")[0]
        if options.contenders and family not in options.contenders:
            continue
        missing = contender.missing()
        if missing:
            if "." not in kind.name:
                results.notes.append(f"{kind.name} is left out: {missing}")
            continue
        contender.install()
        chosen[kind.name] = contender
    return chosen


def main():
    options = parse()
    results = Results()
    server = Server()
    contenders = taking_part(server, options, results)
    chosen = [s for s in scenarios.load_all() if not options.only or s.ID in options.only]
    if not chosen:
        sys.exit(f"no such scenario: {','.join(options.only)}")
    print(f"measuring {', '.join(contenders)}: {options.reps} x {options.seconds} s", flush=True)
    started = time.time()
    for scenario in chosen:
        print(f"{scenario.ID}: {scenario.TITLE}", flush=True)
        turn = scenarios.Turn(scenario, server, contenders, options, results)
        if turn.contenders:
            scenario.run(turn)
        report.write(server, options, contenders, chosen, results, time.time() - started)
    report.show(chosen, results)
    for line in results.notes + results.troubles:
        print(f"note: {line}")
    server.close()
    return 1 if results.troubles else 0


if __name__ == "__main__":
    sys.exit(main())
