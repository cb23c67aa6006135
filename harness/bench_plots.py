"""Plots of a bench's runs, as SVG text for its page.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; lines
differ in their dashes too.
"""

import io
import itertools
import re
import statistics

import matplotlib
from matplotlib.figure import Figure

from harness.report import size_name

COLORS = {"base": "#555555", "patched": "#0072B2", "off": "#E69F00", "hard": "#009E73",
          "inverse": "#D55E00", "peer": "#CC79A7"}
DASHES = {"base": (0, (4, 2)), "patched": "-", "off": (0, (1, 1.5)), "hard": (0, (6, 1)),
          "inverse": (0, (6, 1, 1, 1)), "peer": (0, (3, 1, 1, 1, 1, 1))}
SIZES = (64, 2048)      # KiB of pages whose course over time is shown
WIDTH, HEIGHT = 3.0, 2.2    # inches of a panel
BINS = 40               # of time
AROUND = 2              # slices before and after one that are taken together with it
STYLE = {"svg.fonttype": "none", "font.family": "sans-serif", "font.size": 8.5,
         "axes.spines.top": False, "axes.spines.right": False, "text.color": "#1a1a1a",
         "axes.grid": True, "grid.color": "#e4e4e4", "grid.linewidth": 0.6,
         "axes.axisbelow": True}
_figures = itertools.count()


def svg(draw, title, width=WIDTH, height=HEIGHT):
    """SVG text of a figure with one panel, which draw(axis) fills."""
    # So that no two figures of a page have an id in common, and a page is always the same.
    number = next(_figures)
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": f"{number} {title}"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axis = figure.add_subplot()
        axis.set_title(title, fontsize=9, loc="left")
        draw(axis)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Title": title})
    text = out.getvalue()
    return text[text.index("<svg"):]


def without_names(text):
    """SVG text without the names of its groups, which are the same in all plots of a page."""
    return re.sub(r'<g id="[^"]*"', "<g", text)


def legend(names, titles):
    """A line of HTML that says which column a line or bar is of."""
    parts = []
    for name in names:
        dash = DASHES[name]
        words = "" if dash == "-" else \
            f" stroke-dasharray='{' '.join(str(2 * d) for d in dash[1])}'"
        parts.append(f"<span><svg width=34 height=8><line x1=0 y1=4 x2=34 y2=4 stroke='"
                     f"{COLORS[name]}' stroke-width=3{words} /></svg>{name}: {titles[name]}</span>")
    return f"<p class=legend>{' '.join(parts)}</p>"


def _rows(data):
    """(workload, KiB) whose course over time is shown, where they were measured."""
    return [(r["workload"], r["kib"]) for kib in SIZES for r in data["summary"]
            if r["kib"] == kib]


def _runs(data, row, column):
    return [r for r in data["runs"] if (r["test"], r["page_kib"], r["column"]) == (*row, column)]


def mean_course(courses, bins=BINS):
    """[(time, mean)] of several [(time, value)], each value taken until the next one.

    As long as more than half of the courses last.
    """
    courses = [c for c in courses if c]
    if not courses:
        return []
    last = statistics.median_low(c[-1][0] for c in courses)
    found = []
    for i in range(1, bins + 1):
        t = i * last / bins
        here = [_value_at(c, t) for c in courses if t <= c[-1][0]]
        here = [v for v in here if v is not None]
        if here:
            found.append((t, statistics.fmean(here)))
    return found


def _value_at(course, t):
    """The first value at a time or after it; None at the end."""
    return next((v for at, v in course if at >= t), None)


def placement(record):
    """[(time, % of the pages on the node of their user)]."""
    return [(s["t"], 100 * s["share"]) for s in record["samples"]]


def local_traffic(record):
    """[(time, % of the traffic that is local)], of each slice with its neighbours."""
    slices, found = record["traffic"]["slices"], []
    for i, (t, *_) in enumerate(slices):
        near = slices[max(0, i - AROUND):i + AROUND + 1]
        total = sum(sum(nodes) for _, _, nodes in near)
        if total:
            found.append((t, 100 * sum(local for _, local, _ in near) / total))
    return found


def traffic_to(record, start):
    """[(time, million accesses a second)] to the node where memory started, or to all others."""
    found, before = [], 0
    for t, _, nodes in record["traffic"]["slices"]:
        here = nodes[record["start_node"]]
        found.append((t, (here if start else sum(nodes) - here) / 1e6 / (t - before)))
        before = t
    return smooth(found)


def smooth(course):
    """Means with the neighbours."""
    return [(t, statistics.fmean(v for _, v in course[max(0, i - AROUND):i + AROUND + 1]))
            for i, (t, _) in enumerate(course)]


def local_faults(record):
    """[(time, % of the hint faults since the last sample that were local)]."""
    found, faults, local = [], 0, 0
    for s in record["samples"]:
        if "numa_hint_faults" not in s:
            return []
        more = s["numa_hint_faults"] - faults
        if more:
            found.append((s["t"], 100 * (s["numa_hint_faults_local"] - local) / more))
        faults, local = s["numa_hint_faults"], s["numa_hint_faults_local"]
    return found


def _courses(data, row, names, value, ylabel):
    """A panel: mean course of each column in percent, and each run thin behind it."""
    def draw(axis):
        for name in names:
            courses = [value(r) for r in _runs(data, row, name)]
            for course in filter(None, courses):
                axis.plot(*zip(*course), color=COLORS[name], linewidth=0.5, alpha=0.25)
            mean = mean_course(courses)
            if mean:
                axis.plot(*zip(*mean), color=COLORS[name], linestyle=DASHES[name], linewidth=1.8)
        axis.set_xlabel("seconds")
        axis.set_ylabel(ylabel)
        axis.set_xlim(left=0)
        axis.set_ylim(0, 103)
    return svg(draw, f"{row[0]}, {size_name(row[1])}")


def memory_on(record, start):
    """[(time, MiB of all processes)] on the node where memory started, or on all others."""
    at, found = record["start_node"], []
    for s in record["samples"]:
        nodes = [sum(n) for n in zip(*s["mib"])]
        found.append((s["t"], nodes[at] if start else sum(nodes) - nodes[at]))
    return found


def _by_node(data, row, value=traffic_to, ylabel="million accesses / s", name="patched"):
    """A panel: traffic of one column, or its memory, on the node where memory started, and on the
    other."""
    def draw(axis):
        for start, dash, color, label in ((True, "-", "#0072B2", "node of the start"),
                                          (False, (0, (4, 2)), "#D55E00", "the other")):
            courses = [value(r, start) for r in _runs(data, row, name)]
            mean = mean_course(courses)
            if mean:
                axis.plot(*zip(*mean), color=color, linestyle=dash, linewidth=1.8, label=label)
        axis.legend(fontsize=7, frameon=False)
        axis.set_xlabel("seconds")
        axis.set_ylabel(ylabel)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    return svg(draw, f"{row[0]}, {size_name(row[1])}, {name}")


def _bars(data, workload, names):
    """A panel: modelled time of all sizes and columns of a workload."""
    rows = [r for r in data["summary"] if r["workload"] == workload]

    def draw(axis):
        width = 0.84 / len(names)
        for i, name in enumerate(names):
            there = [(j + (i - (len(names) - 1) / 2) * width, r["columns"][name]["modelled"])
                     for j, r in enumerate(rows) if name in r["columns"]]
            axis.bar([x for x, _ in there], [s["mean"] for _, s in there], width * 0.92,
                     color=COLORS[name], yerr=[s["ci"] or 0 for _, s in there],
                     error_kw={"elinewidth": 0.8, "ecolor": "#1a1a1a"})
        axis.set_xticks(range(len(rows)), [size_name(r["kib"]) for r in rows])
        axis.set_xlabel("pages")
        axis.set_ylabel("million local accesses")
        axis.set_ylim(bottom=0)
        axis.grid(axis="x", visible=False)
    return svg(draw, workload)


def _every(data):
    """How often a run was looked at; results of before do not say it."""
    return f"every {data.get('sample_ms', 1000)} ms"


def of_runs(data):
    """[(title, note, [SVG text])] of the runs."""
    names = [n for n in COLORS if any(r["column"] == n for r in data["runs"])]
    free = [n for n in names if n not in ("hard", "inverse")]
    balanced = [n for n in free if n != "off"]
    rows, each = _rows(data), list(dict.fromkeys(r["workload"] for r in data["summary"]))
    return [
        ("Modelled memory time", "Whole run; whiskers are 95 % confidence intervals. Less is "
         "better.", [_bars(data, w, names) for w in each]),
        ("Traffic over time: local share", "Thick: mean of the runs; thin: each run.",
         [_courses(data, r, names, local_traffic, "% of the traffic") for r in rows]),
        ("Placement over time", "Share of the pages that a thread writes that are on its node, "
         f"looked up {_every(data)}.",
         [_courses(data, r, free, placement, "% of the pages") for r in rows]),
        ("Memory over time by node, patched", "Mean of the runs, MiB of all processes, looked up "
         f"{_every(data)}. Balanced, both nodes have the same.",
         [_by_node(data, r, memory_on, "MiB") for r in rows if _runs(data, r, "patched")]),
        ("Traffic over time by node, patched", "Mean of the runs. Balanced, both nodes get the "
         "same.", [_by_node(data, r) for r in rows if _runs(data, r, "patched")]),
        ("Hint faults over time: local share", f"Of those since the last look: {_every(data)}.",
         [_courses(data, r, balanced, local_faults, "% of the faults") for r in rows])]
