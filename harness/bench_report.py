"""What `make bench` says about its records: summary, checks, verdict, tables, one page.

finish(data) adds "summary", "checks" and "verdict" to the results; text(),
markdown() and html() show the same.  The unit of modelled memory time is an
access to local memory; a remote one takes the ratio of the distances.
"""

import math
import statistics
from html import escape

from harness import bench_plots, compare, cost_report, report
from harness.common import write_file
from harness.report import number, size_name

# The most that modelled time with balancing may be of that without, pages of 64K: what was
# published for the same workloads on a machine with two nodes.
RATIOS = {"numa01": 0.53, "numa01_THREAD_ALLOC": 0.41, "numa02": 0.70, "numa02_SMT": 0.50}
RATIO_KIB = 64
# Where no placement gets there: the least share of the way from the worst to the best.
LEAST_WAY = 0.9
LEAST_RUNS = 7      # of each row and column
ALPHA = 0.05        # shared out among the rows of a check

TITLES = {"base": "base kernel, NUMA balancing on", "patched": "patched kernel, NUMA balancing on",
          "off": "patched kernel, NUMA balancing off",
          "hard": "patched kernel, best placement there is, bound",
          "inverse": "patched kernel, worst placement, bound",
          "peer": "another kernel, NUMA balancing on"}


def _vm(name):
    return lambda r: r["vmstat"].get(name)


def _tail(name, times=1):
    """Of the last part of the traffic; None where there was none."""
    return lambda r: r["traffic"]["tail"] and times * r["traffic"]["tail"][name]


def _share(name):
    """In percent; None where there were no accesses."""
    return lambda r: None if r["traffic"][name] is None else 100 * r["traffic"][name]


# key, title, digits after the point, value of a record
FIGURES = (
    ("modelled", "modelled memory time, million local accesses", 2,
     lambda r: r["traffic"]["modelled"] / 1e6),
    ("local", "local share of the memory traffic, %", 1, _share("local")),
    ("tail_local", "the same of the last quarter of the traffic, %", 1, _tail("local", 100)),
    ("tail_per_miss", "modelled time of an access in the last quarter of the traffic", 3,
     _tail("per_miss")),
    ("local_all", "local share of all accesses, %", 1, _share("local_all")),
    ("misses", "memory traffic, million accesses", 2, lambda r: r["traffic"]["misses"] / 1e6),
    ("kernel_misses", "of it by the kernel, million", 3,
     lambda r: r["traffic"]["kernel_misses"] / 1e6),
    ("share_final", "pages local at the end, %", 1, lambda r: 100 * r["share_final"]),
    ("hint_faults", "hint faults", 0, _vm("numa_hint_faults")),
    ("hint_local", "hint faults of local pages", 0, _vm("numa_hint_faults_local")),
    ("pages_migrated", "pages migrated", 0, _vm("numa_pages_migrated")),
    ("thp_migrated", "THP migrated whole", 0, _vm("thp_migration_success")),
    ("seconds", "seconds (of an emulated guest: not judged)", 1, lambda r: r["seconds"]),
)
DIGITS = {key: digits for key, _, digits, _ in FIGURES}


def _release(known):
    """The release that a kernel says it has, else that of its image; '' if neither is known."""
    return known.get("release") or known.get("named") or ""


def peer_name(data):
    """Release and image of the peer, as far as they are known; '' without one."""
    known = data["kernels"].get("peer", {})
    release, image = _release(known), known.get("image", "")
    return f"{release} ({image})" if release and image else release or image


def column_titles(data):
    """What the columns are called; the peer by its name, where that is known."""
    name = peer_name(data)
    return TITLES | ({"peer": f"peer, {name}, NUMA balancing on"} if name else {})


def _head(data, name):
    """A column's name in the head of a table."""
    more = _release(data["kernels"].get(name, {})) if name == "peer" else ""
    return f"{name} {more}".rstrip()


def columns(data):
    """Names of the columns, in the order of the tables."""
    seen = {r["column"] for r in data["runs"]}
    return [c for c in TITLES if c in seen]


def keys(data):
    """(workload, KiB) of each row."""
    found = dict.fromkeys((r["test"], r["page_kib"]) for r in data["runs"])
    order = list(RATIOS)
    return sorted(found, key=lambda k: (order.index(k[0]) if k[0] in order else 9, k[1]))


def runs(data, workload, kib, column):
    """Records of a row and column."""
    return [r for r in data["runs"]
            if (r["test"], r["page_kib"], r["column"]) == (workload, kib, column)]


def values(data, row, column, figure):
    """One figure of the records of a row and column, where they have it."""
    value = next(v for key, _, _, v in FIGURES if key == figure)
    found = [value(r) for r in runs(data, *row, column)]
    return [v for v in found if v is not None]


def way(x, worst, best):
    """Share of the way from the worst to the best that x has gone: mean and 95 % interval.

    Arguments are summaries of times; the errors of all three are carried
    through, as of independent means.  None where there is no way to go.
    """
    if None in (x["mean"], worst["mean"], best["mean"]) or worst["mean"] <= best["mean"]:
        return None
    span = worst["mean"] - best["mean"]
    gone = (worst["mean"] - x["mean"]) / span
    if None in (x["ci"], worst["ci"], best["ci"]):
        return {"mean": gone, "ci": None}
    parts = x["ci"], (1 - gone) * worst["ci"], gone * best["ci"]
    return {"mean": gone, "ci": math.hypot(*parts) / span}


def reached(found, worst, best):
    """(how many of some times are at least LEAST_WAY of the way from the worst to the best, of how
    many); None where there is no way to go."""
    if not found or None in (worst["mean"], best["mean"]) or worst["mean"] <= best["mean"]:
        return None
    most = worst["mean"] - LEAST_WAY * (worst["mean"] - best["mean"])
    return sum(v <= most for v in found), len(found)


def _row(data, row):
    """All figures of a row."""
    found = {}
    for name in columns(data):
        if runs(data, *row, name):
            found[name] = {key: vars(compare.summary(values(data, row, name, key)))
                           for key, *_ in FIGURES}
            found[name]["n"] = len(runs(data, *row, name))
    for name, c in found.items():
        if {"hard", "inverse"} <= found.keys():
            c["tail_reached"] = reached(values(data, row, name, "tail_per_miss"),
                                        *(found[b]["tail_per_miss"] for b in ("inverse", "hard")))
            c["way"] = way(*(x["modelled"] for x in (c, found["inverse"], found["hard"])))
            c["tail_way"] = way(*(x["tail_per_miss"] for x in (c, found["inverse"],
                                                               found["hard"])))

    def modelled(name):
        return values(data, row, name, "modelled")
    return {"workload": row[0], "kib": row[1], "columns": found,
            "ratio_base": compare.ratio(modelled("base"), modelled("patched")),
            "interval_base": compare.ratio_interval(modelled("base"), modelled("patched")),
            "p_worse": compare.greater(modelled("base"), modelled("patched")),
            "p_base": compare.differs(modelled("base"), modelled("patched")),
            "ratio_off": compare.ratio(modelled("off"), modelled("patched")),
            "best_off": compare.ratio(modelled("off"), modelled("hard")),
            "p_off": compare.differs(modelled("off"), modelled("patched")),
            "ratio_peer": compare.ratio(modelled("peer"), modelled("patched")),
            "p_peer": compare.differs(modelled("peer"), modelled("patched"))}


def finish(data):
    """Add to the results all that follows from the records."""
    data["summary"] = [_row(data, row) for row in keys(data)]
    data["checks"] = checks(data)
    data["verdict"] = verdict(data)


def verdict(data):
    """That of report.verdict(), without the peer's guests and those that are excused."""
    return report.verdict(data | {"guests": [g for g in data["guests"] if not excused(data, g)]})


def _judged(data):
    """The rows that others than the peer have."""
    return [r for r in data["summary"] if r["columns"].keys() - {"peer"}]


def excused(data, guest):
    """Whether a guest is the peer's, or just went away and there are enough runs without it.

    That is as likely the host's doing as the kernel's.  A crash, a hang and a
    program that found something wrong are not.
    """
    if guest["kernel"] == "peer":
        return True
    if guest["verdict"] not in ("lost", "infra") or "column" not in guest:
        return False
    # Of a quick run nobody asks how many runs there are.
    return guest.get("repeated") == "pass" or not data["quick"] and _complete(data)["ok"]


# Checks ---------------------------------------------------------------------

def checks(data):
    """What must hold: list of what, ok, why, and whether it is judged.

    A quick run has too few runs for what is judged by means.
    """
    few = not data["quick"]
    found = [_ended(data), _complete(data) | {"judged": few}, _bounds(data)]
    found += [_ratio(data, w) | {"judged": few} for w in RATIOS]
    found += [c | {"judged": few} for c in _no_worse(data)]
    return found + _costs(data)


def _check(what, ok, why):
    return {"what": what, "ok": ok, "why": why, "judged": True}


def _find(data, workload, kib):
    return next((r for r in data["summary"] if (r["workload"], r["kib"]) == (workload, kib)), None)


def _ended(data):
    ended = "seconds" in data
    return _check("the bench came to its end", ended, "" if ended else "broken off")


def _complete(data):
    """There are enough runs of all rows, but for the peer's."""
    lacking = []
    for column, rows in data["plan"]["rows"].items():
        for workload, kib in rows if column != "peer" else ():
            n = len(runs(data, workload, kib, column))
            if n < LEAST_RUNS:
                lacking.append(f"{n} of {workload}, {size_name(kib)}, {column}")
    return _check(f"each row has at least {LEAST_RUNS} runs of each column", not lacking,
                  lacking[0] + (f", and {len(lacking) - 1} more" if lacking[1:] else "")
                  if lacking else "")


def _bounds(data):
    """Else shares of the way mean nothing."""
    wrong, rows = [], _judged(data)
    for row in rows:
        best, worst = (row["columns"].get(c) for c in ("hard", "inverse"))
        if not best or not worst or None in (best["local"]["mean"], worst["local"]["mean"]):
            wrong.append("not measured")
        elif not best["local"]["mean"] > 90 or not worst["local"]["mean"] < 10:
            wrong.append(f"local {best['local']['mean']:.1f} % and {worst['local']['mean']:.1f} %")
        if wrong:
            wrong[-1] = f"{row['workload']}, {size_name(row['kib'])}: {wrong[-1]}"
            break
    return _check("bounds: more than 90 % of the traffic is local with the best placement, less "
                  "than 10 % with the worst", not wrong and bool(rows),
                  wrong[0] if wrong else "" if rows else "no records")


def _ratio(data, workload):
    """The published ratio; where the best placement does not get there, the way to the best."""
    most = RATIOS[workload]
    what = f"{workload}, {size_name(RATIO_KIB)}: modelled time with balancing is at most " \
           f"{most:.2f} of that without"
    row = _find(data, workload, RATIO_KIB)
    gone = row and row["columns"].get("patched", {}).get("tail_way")
    if not row or row["ratio_off"] is None or row["best_off"] is None or not gone:
        return _check(what, False, "not measured")
    said = f"{row['ratio_off']:.3f}; the best placement: {row['best_off']:.3f}; " \
           f"{_cell(gone, 1, 100)} % of the way in the last quarter, " \
           f"{_reached(row['columns']['patched'])} runs got to {100 * LEAST_WAY:.0f} %"
    if row["best_off"] <= most:
        return _check(what, row["ratio_off"] <= most, said)
    what += f", or, as no placement gets there, at least {100 * LEAST_WAY:.0f} % of the way " \
            "in the last quarter of the traffic"
    return _check(what, row["ratio_off"] <= most or gone["mean"] >= LEAST_WAY, said)


def _reached(column):
    """'k of n' runs of a column that got to LEAST_WAY; '-' where there is no way."""
    found = column.get("tail_reached")
    return f"{found[0]} of {found[1]}" if found else "-"


def interval(found):
    """'a to b' of the ends of an interval; '-' without one."""
    return f"{found[0]:.3f} to {found[1]:.3f}" if found else "-"


def _no_worse(data):
    """THP of a PMD, which the base balances too; the level is shared out among the rows."""
    kib = max((r["kib"] for r in _judged(data)), default=0)
    rows = [r for r in _judged(data) if r["kib"] == kib]
    level = ALPHA / max(1, len(rows))
    for row in rows:
        what = f"{row['workload']}, {size_name(kib)}: modelled time is no more than the base's"
        p = row["p_worse"]
        why = "too few runs" if p is None else \
            f"{number(row['ratio_base'], 3)} of it, 95 % interval " \
            f"{interval(row['interval_base'])}, p of more {p:.3f}, level {level:.4f}"
        yield _check(what, p is not None and p >= level, why)


def _costs(data):
    """What cost_report finds of the costs."""
    return [_check(c["what"], c["ok"], c["why"]) for c in cost_report.checks(data["cost"])]


def check_lines(data):
    """One line per check."""
    def mark(c):
        return ("ok  " if c["ok"] else "FAIL") if c["judged"] else \
            ("(ok)" if c["ok"] else "(no)")
    return [f"{mark(c)} {c['what']}" + (f": {c['why']}" if c["why"] else "")
            for c in data["checks"]]


# Tables ---------------------------------------------------------------------

def _cell(s, digits, scale=1):
    """'mean ± half of the interval (deviation)', or what of it there is."""
    if not s or s["mean"] is None:
        return "-"
    cell = number(scale * s["mean"], digits)
    if s["ci"] is not None:
        cell += f" ± {number(scale * s['ci'], digits)}"
    if s.get("deviation") is not None:
        cell += f" ({number(scale * s['deviation'], digits)})"
    return cell


def probability(p):
    """A p as text."""
    return "-" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def _heads(data, names):
    return [_head(data, n) for n in names]


def _names(data, sizes=None):
    """Cells that name each row, and the row; sizes: KiB of the pages of rows that are wanted."""
    last = None
    for row in (r for r in data["summary"] if sizes is None or r["kib"] in sizes):
        yield row, (row["workload"] if row["workload"] != last else "", size_name(row["kib"]))
        last = row["workload"]


def _figures(data, key, names, scale=1, digits=None):
    """Rows of cells of one figure of some columns."""
    digits = DIGITS[key] if digits is None else digits
    return [(*cells, *(_cell(row["columns"].get(c, {}).get(key), digits, scale) for c in names))
            for row, cells in _names(data)]


def modelled_table(data):
    """Modelled memory time of all columns."""
    names = columns(data)
    others = ("base", "off") + (("peer",) if "peer" in names else ())
    rows = [(*cells, *(text for n in others for text in (number(row[f"ratio_{n}"], 3),
                                                         probability(row[f"p_{n}"]))),
             number(row["best_off"], 3))
            for cells, (row, _) in zip(_figures(data, "modelled", names), _names(data))]
    return ("Modelled memory time, million local accesses",
            ("workload", "pages", *_heads(data, names),
             *(word for n in others for word in (f"patched/{n}", "p")), "hard/off"), rows, 2)


def _free(data):
    """The columns that are not bound."""
    return [c for c in columns(data) if c not in ("hard", "inverse")]


def way_table(data):
    """Shares of the way."""
    names = _free(data)
    whole, end = (_figures(data, key, names, 100, 1) for key in ("way", "tail_way"))
    return ("The way from the worst placement (0 %) to the best (100 %), by modelled time, %",
            ("workload", "pages", *_heads(data, names),
             *(f"{c}, last quarter" for c in _heads(data, names))),
            [(*w, *e[2:]) for w, e in zip(whole, end)], 2)


def local_table(data):
    """Local shares of the traffic."""
    names, free = columns(data), _free(data)
    whole = _figures(data, "local", names)
    end = _figures(data, "tail_local", free)
    return ("Local share of the memory traffic, %",
            ("workload", "pages", *_heads(data, names),
             *(f"{c}, last quarter" for c in _heads(data, free))),
            [(*w, *e[2:]) for w, e in zip(whole, end)], 2)


def arithmetic_table(data):
    """What the required ratio comes to on this topology."""
    rows = []
    for workload, most in RATIOS.items():
        row = _find(data, workload, RATIO_KIB)
        if not row or not {"off", "hard", "patched"} <= row["columns"].keys() \
                or row["best_off"] is None:
            continue
        c = row["columns"]
        needed = most * c["off"]["modelled"]["mean"]
        rows.append((workload, *(number(c[n]["modelled"]["mean"], 2) for n in
                                 ("off", "hard", "patched")),
                     f"{most:.2f}", number(needed, 2), number(row["best_off"], 3),
                     "yes" if row["best_off"] <= most else "no", number(row["ratio_off"], 3),
                     _cell(c["patched"].get("tail_way"), 1, 100), _reached(c["patched"])))
    return (f"Pages of {size_name(RATIO_KIB)}: the required ratio, and what this topology allows",
            ("workload", "off", "hard", "patched", "ratio wanted", "that is", "hard/off",
             "possible", "patched/off", "way, last quarter, %",
             f"runs to {100 * LEAST_WAY:.0f} %"), rows, 1)


PARTS = (0.1, 0.25, 0.5, 0.75, 1)   # of a run: the times of course_table()


def share_at(record, seconds):
    """% of the pages on the node of their user at the last sample until then; None before the
    first."""
    found = [s["share"] for s in record["samples"] if s["t"] <= seconds]
    return 100 * found[-1] if found else None


def course_table(data):
    """Placement over time of the columns with NUMA balancing, at the same times of all."""
    rows = []
    for row, cells in _names(data, bench_plots.SIZES):
        found = {name: runs(data, row["workload"], row["kib"], name) for name in _free(data)
                 if name != "off"}
        if not any(found.values()):
            continue
        length = statistics.median(r["seconds"] for records in found.values() for r in records)
        for name, records in found.items():
            shares = [[v for r in records if (v := share_at(r, part * length)) is not None]
                      for part in PARTS]
            if records:
                rows.append((*cells, _head(data, name), number(length, 1), *(
                    _cell(vars(compare.summary(s)) | {"deviation": None}, 1) for s in shares)))
                cells = ("", "")
    return ("Placement over time: share of the pages on the node of their user, %, at parts of the "
            "median length of a run", ("workload", "pages", "", "seconds",
                                       *(f"{100 * p:.0f} %" for p in PARTS)), rows, 3)


COUNTED = ("misses", "kernel_misses", "hint_faults", "hint_local", "pages_migrated",
           "thp_migrated", "share_final", "seconds")


def counter_table(data):
    """Counters of the columns with NUMA balancing."""
    rows = []
    for row, cells in _names(data):
        for name in columns(data):
            if name in row["columns"]:
                s = row["columns"][name]
                rows.append((*cells, _head(data, name), str(s["n"]), *(_cell(s[k], DIGITS[k])
                                                          for k in COUNTED)))
                cells = ("", "")
    titles = {key: title for key, title, *_ in FIGURES}
    return ("Counters of a run", ("workload", "pages", "", "n", *(titles[k] for k in COUNTED)),
            rows, 3)


def tables(data):
    """(title, head, rows, number of columns that are text) of each table."""
    if not data["summary"]:
        return []
    found = [modelled_table(data), way_table(data), arithmetic_table(data), local_table(data),
             course_table(data), counter_table(data)]
    return [t for t in found if t[2]]


def cost_tables(data):
    """The tables of the costs, in the same form."""
    return [(title, head, [tuple(map(str, row)) for row in rows], 1)
            for title, head, rows in cost_report.tables(data["cost"])]


def setup_table(data):
    """Kernels, settings and workloads."""
    rows = [(f"{n} kernel", ", ".join(filter(None, (
        k.get("release"), k.get("image"), f"tree {k['tree'] or '-'}", k["key"]))))
            for n, k in data["kernels"].items()]
    rows += [(k, str(v)) for k, v in data["sysctls"].items()]
    for workload, passes in data.get("plan", {}).get("passes", {}).items():
        rows.append((workload, f"{data['plan']['mib'][workload]} MiB of a process, "
                               f"{passes} passes"))
    return ("Setup", ("", ""), rows, 2)


def about(data):
    """What was measured, in sentences."""
    nodes = data["nodes"]
    most = data.get("plan", {}).get("boots", 0)
    said = [f"{data['arch']}, emulated (TCG), {sum(n['cpus'] for n in nodes)} vCPUs on "
            f"{len(nodes)} nodes, {data['host_cpus']} host CPUs; {most} runs of each row and "
            "column, columns by turns (ABBA), memory starting on "
            f"node 0{' and 1 by turns of two' if most > 2 else ''}."]
    if data["quick"]:
        said.append(f"A quick run: {most} runs are too few to judge means by; checks in brackets "
                    "are shown and not judged.")
    if "seconds" in data:
        said.append(f"It took {data['seconds'] // 60} min {data['seconds'] % 60} s; "
                    f"{data['plan']['estimate'] // 60} min had been foretold.")
    if peer_name(data):
        said.append(f"The peer is {peer_name(data)}.")
    if data.get("peer_lacks"):
        said.append(f"The peer's column is empty: {data['peer_lacks']}.")
    return said


def notes(data):
    """What a reader must know of the numbers, in sentences."""
    local, remote = data["distances"][0][:2]
    m = data["meter"]
    return [
        f"Memory traffic: loads and stores, of user and kernel, that miss a cache of "
        f"{m['cache_kib']} KiB in {m['ways']} ways of the vCPU that makes them, by the node of "
        "the physical address. Modelled memory time: their sum, a remote one counted as "
        f"{remote / local:g} local ones (distances {local} and {remote}).",
        "hard: each thread bound to the CPUs of a node, what it writes to the memory of the same; "
        "inverse: the same CPUs, the memory on the other node. Last quarter: of the traffic of a "
        "run, by modelled time of an access. It stands for what comes after convergence; whether "
        "a run has converged before, the plots over time show.",
        f"What is possible: all accesses local take {local / remote:g} of the time of all remote "
        "ones, and no less. Off balance, half of the traffic of threads on both nodes is local by "
        f"chance: {local / ((local + remote) / 2):.3f} is the least then, if it is all local from "
        "the start.",
        "± is half of the 95 % confidence interval of the mean, in brackets the standard deviation "
        "of the runs; p is Welch's t-test, two-sided; of the checks one-sided. The 95 % interval "
        "of patched/base is Welch's for the difference of the means, over the base's mean: a "
        "regression up to its upper end is not excluded, whether or not the check holds. Seconds "
        "are those of an emulated, metered guest: they say nothing of a real one.",
        *cost_report.notes(data["cost"])]


def text(data):
    """The report for the terminal."""
    out = []
    for title, head, rows, left in tables(data) + cost_tables(data):
        out += [title, *report.layout(head, rows, left), ""]
    out += about(data) + notes(data) + [""] + check_lines(data) + failed_lines(data)
    return "\n".join(out + [f"verdict: {data['verdict']}"])


def failed_lines(data):
    """One line per guest that did not do its part."""
    return [f"{g['verdict']} {g['what']}: {g['why']}" +
            (f" (once more: {g['repeated']})" if "repeated" in g else "") +
            (" (not judged)" if excused(data, g) else "")
            for g in data["guests"] if g["verdict"] != "pass"]


def markdown(data):
    """The same as Markdown, and how it was set up."""
    out = ["# Memory traffic and cost of migration", "", *about(data), ""]
    out += ["    " + s for s in check_lines(data) + failed_lines(data)]
    out += ["", f"Verdict: {data['verdict']}", ""]
    for title, head, rows, left in tables(data) + cost_tables(data) + [setup_table(data)]:
        out += [f"## {title}", "", "| " + " | ".join(head) + " |",
                "|" + "|".join([" --- "] * left + [" ---: "] * (len(head) - left)) + "|",
                *("| " + " | ".join(r) + " |" for r in rows), ""]
    return "\n".join(out + [f"* {s}" for s in notes(data)] + [""])


# Page -----------------------------------------------------------------------

STYLE = """
body { font: 15px/1.5 sans-serif; color: #1a1a1a; background: #fff; max-width: 1180px;
       margin: 0 auto; padding: 16px; }
h1 { font-size: 24px; margin: 8px 0; } h2 { font-size: 18px; margin: 32px 0 8px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
th, td { padding: 3px 9px; text-align: right; white-space: nowrap; }
th { border-bottom: 2px solid #444; vertical-align: bottom; white-space: normal; }
td { border-bottom: 1px solid #e4e4e4; }
.wide td:first-child, .wide th:first-child { position: sticky; left: 0; background: #fff; }
.text { text-align: left; }
tr.first td { border-top: 2px solid #aaa; }
tr:first-child td { border-top: none; }
.checks td { white-space: normal; text-align: left; vertical-align: top; }
.checks td.mark { white-space: nowrap; }
.mark { font-weight: bold; } .good { color: #00663f; } .bad { color: #a02c00; }
.open { color: #555; font-weight: normal; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 8px; }
.plots.large { display: block; max-width: 860px; }
.plots svg { width: 100%; height: auto; }
.legend span { display: inline-block; margin-right: 18px; }
.legend svg { vertical-align: middle; margin-right: 5px; }
.note { color: #444; }
"""


def _table_html(table):
    title, head, rows, left = table

    def cell(kind, i, value):
        return f"<{kind}{' class=text' if i < left else ''}>{escape(value)}</{kind}>"
    lines = [f"<h2>{escape(title)}</h2><div class=wide><table><thead><tr>",
             *(cell("th", i, h) for i, h in enumerate(head)), "</tr></thead><tbody>"]
    grouped = any(not row[0] for row in rows)
    for row in rows:
        lines.append(f"<tr{' class=first' if grouped and row[0] else ''}>"
                     + "".join(cell("td", i, v) for i, v in enumerate(row)) + "</tr>")
    return "\n".join(lines + ["</tbody></table></div>"])


def _checks_html(data):
    lines = ["<h2>Checks</h2><table class=checks>"]
    for c in data["checks"]:
        word = ("ok" if c["ok"] else "FAIL") if c["judged"] else \
            ("(ok)" if c["ok"] else "(no)")
        kind = "open" if not c["judged"] else "good" if c["ok"] else "bad"
        lines.append(f"<tr><td class='mark {kind}'>{word}</td><td>{escape(c['what'])}</td>"
                     f"<td>{escape(c['why'])}</td></tr>")
    return "\n".join(lines + ["</table>"])


def _plots_html(title, note, svgs, large=False):
    if not svgs:
        return ""
    return "\n".join([f"<h2>{escape(title)}</h2>", f"<p class=note>{escape(note)}</p>" if note
                      else "", f"<div class='plots{' large' if large else ''}'>",
                      *(f"<div>{bench_plots.without_names(s)}</div>" for s in svgs), "</div>"])


def html(data):
    """One page with nothing outside of it."""
    failed = failed_lines(data)
    kind = "good" if data["verdict"] == "pass" else "bad"
    parts = ["<!DOCTYPE html>", "<html lang=en><head><meta charset=utf-8>",
             "<meta name=viewport content='width=device-width, initial-scale=1'>",
             f"<title>THP migration bench, {escape(data['time'])}</title>",
             f"<style>{STYLE}</style></head><body>",
             "<h1>Memory traffic and cost of migration</h1>",
             f"<p>{escape(data['time'])}: <span class='mark {kind}'>{escape(data['verdict'])}"
             "</span></p>",
             *(f"<p>{escape(s)}</p>" for s in about(data)), _checks_html(data)]
    if failed:
        parts += ["<h2>Guests that did not do their part</h2><ul>",
                  *(f"<li>{escape(s)}</li>" for s in failed), "</ul>"]
    given = tables(data)
    parts += [_table_html(t) for t in given[:3]]
    parts.append(bench_plots.legend(columns(data), column_titles(data)))
    for title, note, svgs in bench_plots.of_runs(data) if data["runs"] else ():
        parts.append(_plots_html(title, note, svgs))
    parts += [_table_html(t) for t in given[3:]] + [_table_html(t) for t in cost_tables(data)]
    for title, svg in cost_report.plots(data["cost"]):
        parts.append(_plots_html(title, "", [svg], large=True))
    parts += ["<h2>How to read this</h2>", *(f"<p>{escape(s)}</p>" for s in notes(data)),
              _table_html(setup_table(data)), "</body></html>"]
    return "\n".join(p for p in parts if p) + "\n"


def write(data, folder):
    """report.md and report.html."""
    write_file(folder / "report.md", markdown(data))
    write_file(folder / "report.html", html(data))
