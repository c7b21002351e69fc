"""What a run leaves: rows.csv, a page in Markdown and a plot."""

import csv
import os
import platform
import shutil
import textwrap
import time
from dataclasses import asdict, fields
from statistics import median

from results import Row, quantity, spread

INTRO = """\
# {title}

This page is written by `test/bench/run{options} --publish`; do not edit it. One program measured
everything in one run, in turns: each repetition measures every contender once, beginning
with another one each time. Judge by the ratios: they compare pairs of one repetition. Numbers are
medians, with the lowest and highest repetition in brackets. What each line does is in
`test/bench/contenders.py`, what each scenario does in `test/bench/scenarios/`.
"""


def intro(options):
    title = options.page.replace("-", ": ", 1).capitalize()
    only = f" --only {','.join(options.only)} --page {options.page}" if options.only else ""
    return INTRO.format(title=title, options=only)


def write(server, options, contenders, scenarios, results, seconds):
    """Writes everything; called after each scenario, so that a broken run leaves what it has."""
    os.makedirs(options.out, exist_ok=True)
    write_rows(os.path.join(options.out, "rows.csv"), results)
    page = "\n".join(
        [
            intro(options),
            settings_table(server, options, seconds),
            "## Goals\n",
            goals_table(scenarios, results),
            f"![The same as a plot]({options.page}.svg)\n",
            *[section(scenario, contenders, results) for scenario in scenarios],
            *notes(results),
        ]
    )
    with open(os.path.join(options.out, f"{options.page}.md"), "w") as file:
        file.write(page)
    plot(os.path.join(options.out, f"{options.page}.svg"), scenarios, contenders, results)
    if options.publish:
        for name in (f"{options.page}.md", f"{options.page}.svg"):
            shutil.copy(
                os.path.join(options.out, name), os.path.join(os.environ["BENCH_TREE"], "doc", name)
            )


def write_rows(path, results):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)])
        writer.writeheader()
        for row in results.rows:
            writer.writerow(asdict(row))


def table(head, lines):
    text = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    text += ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join(text) + "\n"


def settings_table(server, options, seconds):
    names = [
        "fsync", "synchronous_commit", "wal_sync_method", "full_page_writes", "data_checksums",
        "shared_buffers", "max_wal_size", "checkpoint_timeout", "wal_level", "autovacuum", "max_connections",
    ]
    lines = [
        ["when, how long", f"{time.strftime('%Y-%m-%d')}, {seconds / 60:.0f} minutes"],
        ["server", server.value("SELECT version()").split(",")[0]],
        ["machine", f"{os.cpu_count()} cores, {processor()}, {memory()}, Linux {platform.release()}"],
        ["one 8 kB write + fdatasync in the data folder's file system", f"{flush_us(server.work):.0f} us"],
        ["payload", f"{options.payload} bytes of JSON"],
        ["a measurement", f"{options.seconds} s; {options.reps} repetition" + ("s" if options.reps > 1 else "")],
        ["clients, batch", "stated in each scenario; pgbench -M prepared on the same machine, a Unix socket"],
        ["settings", ", ".join(f"{name} = {server.setting(name)}" for name in names)],
    ]
    return table(["", ""], lines)


def processor():
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def memory():
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB"


def flush_us(folder):
    """What a durable write costs here: the median of 200."""
    path = os.path.join(folder, "flush")
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    times = []
    try:
        os.write(file, b"\0" * 8192 * 16)
        os.fsync(file)
        for _ in range(200):
            os.lseek(file, 0, os.SEEK_SET)
            start = time.monotonic()
            os.write(file, b"\0" * 8192)
            os.fdatasync(file)
            times.append((time.monotonic() - start) * 1e6)
    finally:
        os.close(file)
        os.unlink(path)
    return median(times)


def verdicts(scenarios, results):
    for scenario in scenarios:
        for goal in scenario.GOALS:
            yield scenario, goal, results.judge(scenario.ID, goal)


def goal_text(goal):
    factor = f"{goal.factor:g}"
    if goal.theirs:
        factor += " x"
    if goal.more:
        factor += f" + {goal.more / 1000:g} ms"
    return f"{goal.relation} {factor}"


def goal_lines(scenarios, results):
    for scenario, goal, verdict in verdicts(scenarios, results):
        ratio = spread(verdict.ratios) if verdict.measured else "-"
        yield [scenario.ID, scenario.TITLE, goal.text, goal_text(goal), ratio, verdict.word]


def goals_table(scenarios, results):
    return table(["", "scenario", "beside", "goal", "measured", ""], goal_lines(scenarios, results))


def section(scenario, contenders, results):
    text = [f"## {scenario.ID}: {scenario.TITLE}\n", textwrap.dedent(scenario.__doc__).strip() + "\n"]
    if hasattr(scenario, "TABLE"):
        text.append(line_table(scenario, results))
    else:
        text.append(contender_table(scenario, contenders, results))
    return "\n".join(text)


def cell(results, scenario, contender, metric):
    values = results.values(scenario, contender, metric).values()
    return spread(list(values)) if values else "-"


def contender_table(scenario, contenders, results):
    lines = [
        [contenders[name].title] + [cell(results, scenario.ID, name, metric) for metric in scenario.METRICS]
        for name in scenario.CONTENDERS
        if name in contenders
    ]
    return table(["", *scenario.METRICS.values()], lines)


def contender_of(scenario, line):
    """The scenario's only one, or the first of what is said of the line."""
    return scenario.CONTENDERS[0] if len(scenario.CONTENDERS) == 1 else scenario.LINES[line][0]


def line_table(scenario, results):
    """A table whose lines are the scenario's own."""
    names, columns = scenario.TABLE
    lines = []
    for line in names:
        contender = contender_of(scenario, line)
        cells = [cell(results, scenario.ID, contender, f"{line} {column}") for column in columns]
        lines.append([line if len(scenario.CONTENDERS) == 1 else f"{line} ({contender})", *cells])
    return table([getattr(scenario, "UNITS", "microseconds"), *columns], lines)


def notes(results):
    lines = [f"- {line.splitlines()[0]}" for line in results.notes + results.troubles]
    return ["## Notes\n", *lines, ""] if lines else []


def show(scenarios, results):
    """The goals, for the terminal."""
    head = ["", "scenario", "beside", "goal", "measured", ""]
    lines = [head, *goal_lines(scenarios, results)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    print()
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip())


# ----- the plot

COLOURS = {
    "queue": "#1b6ca8", "queue.pop": "#7fb2d9", "plain": "#555555", "skiplocked": "#c98b2b",
    "skiplocked.delete": "#e5c78f", "pgq": "#5b8c5a", "pgq.1000": "#a9c9a4", "pgmq": "#a23b3b",
}


def plot(path, scenarios, contenders, results):
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "queue"
    from matplotlib import pyplot

    shown = [s for s in scenarios if any(row.scenario == s.ID for row in results.rows)]
    if not shown:
        return
    columns = min(2, len(shown))
    lines = -(-len(shown) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(6 * columns, 3.2 * lines), squeeze=False)
    for axis in axes.flat[len(shown):]:
        axis.set_visible(False)
    for axis, scenario in zip(axes.flat, shown):
        axis.set_title(f"{scenario.ID}: {scenario.TITLE}", fontsize=10)
        if hasattr(scenario, "SWEEP"):
            draw_sweep(axis, scenario, contenders, results)
        elif hasattr(scenario, "TABLE"):
            draw_lines(axis, scenario, results)
        else:
            draw_bars(axis, scenario, contenders, results)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def draw_bars(axis, scenario, contenders, results):
    """A bar for each contender and plotted metric, with the range."""
    metrics = getattr(scenario, "PLOTTED", list(scenario.METRICS)[:1])
    bars = []
    for name in scenario.CONTENDERS:
        for metric in metrics:
            values = list(results.values(scenario.ID, name, metric).values())
            if values:
                label = name if len(metrics) == 1 else f"{name}, {metric}"
                bars.append((label, values, COLOURS.get(name, "#888888")))
    places = range(len(bars))
    middle = [median(values) for _, values, _ in bars]
    low = [m - min(values) for m, (_, values, _) in zip(middle, bars)]
    high = [max(values) - m for m, (_, values, _) in zip(middle, bars)]
    axis.barh(places, middle, xerr=[low, high], color=[c for _, _, c in bars], ecolor="#222222", capsize=2)
    for place, value, up in zip(places, middle, high):
        axis.text(value + up, place, " " + quantity(value), va="center", fontsize=8)
    axis.set_yticks(list(places), [label for label, _, _ in bars])
    axis.invert_yaxis()
    axis.margins(x=0.15)
    axis.set_xlabel(scenario.METRICS[metrics[0]] if len(metrics) == 1 else scenario.TITLE, fontsize=8)


def draw_sweep(axis, scenario, contenders, results):
    for name in scenario.CONTENDERS:
        points = []
        for clients in scenario.SWEEP:
            values = list(results.values(scenario.ID, name, f"c{clients}").values())
            if values:
                points.append((clients, median(values), min(values), max(values)))
        if points:
            x, y, low, high = zip(*points)
            colour = COLOURS.get(name)
            axis.plot(x, y, marker="o", markersize=3, color=colour, label=name)
            axis.fill_between(x, low, high, color=colour, alpha=0.15)
    axis.set_xscale("log", base=2)
    axis.set_xticks(scenario.SWEEP, [str(clients) for clients in scenario.SWEEP])
    axis.set_ylim(bottom=0)
    axis.set_xlabel("consumers", fontsize=8)
    axis.set_ylabel("messages/s", fontsize=8)
    axis.legend(fontsize=8, frameon=False)


def draw_lines(axis, scenario, results):
    """Each line's columns, such as p50 and p99, on a logarithmic scale."""
    names, columns = scenario.TABLE
    columns = getattr(scenario, "PLOTTED", columns)
    names = [n for n in names if results.values(scenario.ID, contender_of(scenario, n), f"{n} {columns[0]}")]
    for place, line in enumerate(names):
        contender = contender_of(scenario, line)
        measured = [results.values(scenario.ID, contender, f"{line} {column}") for column in columns]
        ends = [median(values.values()) for values in measured if values]
        axis.plot(ends, [place] * len(ends), marker="|", markersize=10, linewidth=4, color=COLOURS.get(contender))
    axis.set_xscale("log")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    unit = getattr(scenario, "UNITS", "us")
    axis.set_xlabel(f"{unit}: {columns[0]}" + (f" to {columns[-1]}" if len(columns) > 1 else ""), fontsize=8)
