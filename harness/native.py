"""`make native`: the autonuma workloads on this machine, without QEMU.

bench/native/run measures; what it has written (FROM=, also of another machine)
becomes a table, results.json and report.md.  Nothing is installed for it.

Data goes: folder of bench/native/run -> read() -> finish() -> text(), markdown().
"""

import json
import os
import subprocess
from pathlib import Path

from harness.common import EXIT_CODES, ROOT, Failure, new_results, write_file

try:
    from harness import compare, report
except ImportError as missing:
    raise Failure("python3-scipy is missing, for the statistics: install it, or run "
                  "bench/native/run here and `make native FROM=its folder` elsewhere") from missing

COLUMNS = ("on", "off", "hard", "inverse")


def step_native():
    """make native [FROM=folder of bench/native/run]"""
    folder, code = Path(os.environ.get("FROM") or new_results("native")), 0
    if not os.environ.get("FROM"):
        code = _measure(folder)
    if code not in (0, 1):
        if not any(folder.iterdir()):
            folder.rmdir()
        return code         # the script has said why
    data = finish(read(folder))
    write_file(folder / "results.json", json.dumps(data, indent=1) + "\n")
    write_file(folder / "report.md", markdown(data))
    print("\n" + text(data))
    print(f"\nresults: {folder}")
    return EXIT_CODES[data["verdict"]]


def _measure(folder):
    """Exit code of bench/native/run, which is let put back what it has set when it is ended."""
    with subprocess.Popen([ROOT / "bench" / "native" / "run", "-o", folder]) as script:
        try:
            return script.wait()
        except BaseException:
            script.terminate()
            script.wait()
            raise


def read(folder):
    """Results from what bench/native/run has written.

    Raises Failure for a folder that is none of its, or where nothing was measured.
    """
    try:
        facts = (folder / "machine").read_text(encoding="utf-8").splitlines()
        lines = (folder / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError as e:
        raise Failure(f"{e.filename}: no results of bench/native/run there") from e
    try:
        runs = [json.loads(line) for line in lines]
    except ValueError as e:
        raise Failure(f"{folder / 'runs.jsonl'}: not records of bench/native/run: {e}") from e
    failed = folder / "failed"
    data = {"step": "native", **_machine(facts), "runs": runs,
            "failed": failed.read_text(encoding="utf-8").splitlines() if failed.exists() else []}
    missing = data["machine"]["runs"] - len(runs) - len(data["failed"])
    if missing:
        data["failed"].append(f"broken off: {missing} of {data['machine']['runs']} not run")
    return data


def _machine(lines):
    """What the file `machine` says, as parts of the results."""
    found = {"machine": {"nodes": []}, "sysctls": {}}
    for line in lines:
        key, _, value = line.partition(" ")
        if key == "set":
            name, _, number = value.partition(" ")
            found["sysctls"][name] = int(number)
        elif key == "node":
            found["machine"]["nodes"].append(value)
        elif key in ("time", "arch"):
            found[key] = value
        else:
            found["machine"][key] = int(value) if value.isdecimal() else value
    return found


# Figures --------------------------------------------------------------------

def rate(record):
    """GiB written a second."""
    return record["written_mib"] / 1024 / record["seconds"]


def _percent(key):
    return lambda r: 100 * r[key]


def _vm(name):
    return lambda r: r["vmstat"].get(name) or 0


def converged(record):
    """Seconds; the length of the run where the share did not get to 90 % and stay."""
    return record["seconds"] if record["converged"] is None else record["converged"]


FIGURES = {"rate": rate, "share_mean": _percent("share_mean"),
           "share_final": _percent("share_final"), "converged": converged,
           "hint_faults": _vm("numa_hint_faults"),
           "pages_migrated": _vm("numa_pages_migrated"),
           "thp_whole": _vm("thp_migration_success")}


def records(data, workload, kib, column):
    """Records of a workload on pages of a size in a column."""
    return [r for r in data["runs"]
            if (r["test"], r["page_kib"], r["column"]) == (workload, kib, column)]


def way(value, worst, best):
    """Percent of the way from the worst to the best, None where that is no way up."""
    if None in (value, worst, best) or best <= worst:
        return None
    return 100 * (value - worst) / (best - worst)


def summarise(data):
    """A row for each workload and size: summaries by column, p of a difference of on and off."""
    rows = []
    for workload, kib in dict.fromkeys((r["test"], r["page_kib"]) for r in data["runs"]):
        runs = {c: records(data, workload, kib, c) for c in COLUMNS}
        row = {"workload": workload, "kib": kib,
               **{c: {k: vars(compare.summary([f(r) for r in runs[c]]))
                      for k, f in FIGURES.items()} for c in COLUMNS}}
        row["p"] = compare.differs(*([rate(r) for r in runs[c]] for c in ("off", "on")))
        worst, best = (row[c]["rate"]["mean"] for c in ("inverse", "hard"))
        row["way"] = {c: way(row[c]["rate"]["mean"], worst, best) for c in ("on", "off")}
        rows.append(row)
    return rows


def finish(data):
    """The results with all that follows from the records."""
    return data | {"summary": summarise(data), "verdict": "fail" if data["failed"] else "pass"}


# Output ---------------------------------------------------------------------

HEADS = (("GiB written a second", "pages of", *COLUMNS, "p on/off", "way: on, %", "off, %"),
         ("NUMA balancing on", "pages of", "local, whole run, %", "off", "at the end, %", "off",
          "converged, s", "hint faults", "pages migrated", "THP whole"))


def _cell(s, digits):
    """Mean and half of its confidence interval."""
    half = "" if s["ci"] is None else f" ± {report.number(s['ci'], digits)}"
    return report.number(s["mean"], digits) + half


def tables(data):
    """(head, rows) of each table; the first two columns are text."""

    first, second = [], []
    for r in data["summary"]:
        size = r["workload"], report.size_name(r["kib"])
        first.append((*size, *(_cell(r[c]["rate"], 2) for c in COLUMNS),
                      "" if r["p"] is None else f"{r['p']:.3f}",
                      *(report.number(r["way"][c]) for c in ("on", "off"))))
        on, off = r["on"], r["off"]
        second.append((*size, _cell(on["share_mean"], 1), _cell(off["share_mean"], 1),
                       _cell(on["share_final"], 1), _cell(off["share_final"], 1),
                       _cell(on["converged"], 1),
                       *(_cell(on[k], 0) for k in ("hint_faults", "pages_migrated",
                                                  "thp_whole"))))
    return list(zip(HEADS, (first, second)))


def side_by_side(a, b):
    """Two results of native runs, of two kernels or machines: a table of what both have, as lines.

    Raises Failure where they have no row in common.
    """
    rows = []
    for workload, kib in dict.fromkeys((r["test"], r["page_kib"]) for r in a["runs"]):
        for column in COLUMNS:
            x, y = ([rate(r) for r in records(d, workload, kib, column)] for d in (a, b))
            if x and y:
                p, ratio = compare.differs(x, y), compare.ratio(x, y)
                rows.append((workload, report.size_name(kib), column,
                             *(_cell(vars(compare.summary(v)), 2) for v in (x, y)),
                             report.number(ratio, 3), "" if p is None else f"{p:.3f}"))
    if not rows:
        raise Failure("A and B have no row in common")
    differ = [f"{key}: A {x}, B {y}" for key in dict.fromkeys([*a["machine"], *b["machine"]])
              if (x := a["machine"].get(key)) != (y := b["machine"].get(key))]
    head = ("GiB written a second", "pages of", "column", "A", "B", "B/A", "p")
    return report.layout(head, rows, 3) + [""] + (differ or ["A and B were run alike."])


def notes(data):
    """What a reader must know of the numbers, in lines."""
    m = data["machine"]
    return [f"Linux {m['release']}, {data['arch']}, {m['cpus']} CPUs ({m['model']}), "
            f"{m['rounds']} rounds, runs of {m['seconds']} s.",
            *(f"node {n}" for n in m["nodes"]),
            "on, off: NUMA balancing; hard, inverse: bound to the best and the worst placement.",
            "way: from inverse (0 %) to hard (100 %); - where hard is not the faster one.",
            "± is half of the 95 % confidence interval of the mean; p is Welch's t-test, "
            "two-sided."]


def text(data):
    """The report for the terminal."""
    out = []
    for head, rows in tables(data):
        out += report.layout(head, rows, 2) + [""]
    return "\n".join(out + notes(data) + [f"failed: {f}" for f in data["failed"]]
                     + [f"verdict: {data['verdict']}"])


def markdown(data):
    """The same as Markdown."""
    out = []
    for head, rows in tables(data):
        out += ["| " + " | ".join(head) + " |",
                "|" + "|".join([" --- "] * 2 + [" ---: "] * (len(head) - 2)) + "|"]
        out += ["| " + " | ".join(r) + " |" for r in rows] + [""]
    out += [f"* {line}" for line in notes(data) + [f"failed: {f}" for f in data["failed"]]]
    return "\n".join(out + ["", f"Verdict: {data['verdict']}", ""])
