"""`make compare A=results/... B=results/...`: two benches, or two native runs, side by side."""

import json
import os
from pathlib import Path

from harness import bench_report, compare, native, report
from harness.common import Failure
from harness.report import number, size_name

FIGURES = (("modelled", 2), ("local", 1), ("tail_local", 1))


def step_compare():
    """Print the rows that both have, and what differs between them."""
    a, b = (load(name) for name in ("A", "B"))
    if _native(a) != _native(b):
        raise Failure("one of A and B is of make native, the other of make bench")
    print("\n".join((native.side_by_side if _native(a) else lines)(a, b)))
    return 0


def _native(data):
    return data.get("step") == "native"


def load(name):
    """Results of the folder, or of its results.json, that a variable names."""
    text = os.environ.get(name)
    if not text:
        raise Failure(f"{name}= is missing: give two folders of `make bench`, "
                      "make compare A=results/... B=results/...")
    path = Path(text)
    path = path if path.is_file() else path / "results.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Failure(f"{name}={text}: no results.json there: give a folder of `make bench`") \
            from None
    except (ValueError, OSError) as e:
        raise Failure(f"{name}={text}: cannot read {path.name}: {e}") from e
    if not isinstance(data, dict) or not ("bench" in data or _native(data)) \
            or not data.get("runs"):
        raise Failure(f"{name}={text}: no result of `make bench`, or one without a run")
    return data


def lines(a, b):
    """The tables and what differs, as lines."""
    rows = list(_rows(a, b))
    if not rows:
        raise Failure("A and B have no row in common")
    head = ("workload", "pages", "column", "", "A", "B", "B/A", "p")
    out = report.layout(head, rows, 4) + [""]
    cost = list(_costs(a["cost"], b["cost"]))
    if cost:
        out += report.layout(("instructions, median", "A", "B", "B/A"), cost, 1) + [""]
    titles = {k: title for k, title, *_ in bench_report.FIGURES}
    out += [f"{k}: {titles[k]}" for k, _ in FIGURES]
    out += ["p: Welch's t-test, two-sided; of that many comparisons one in twenty is below 0.05 "
            "by chance.", ""]
    return out + (differences(a, b) or ["A and B were run alike."])


def _rows(a, b):
    """Cells of each row, column and figure that both have."""
    for row in bench_report.keys(a):
        for column in bench_report.columns(a):
            name = (row[0], size_name(row[1]), column)
            if not all(bench_report.runs(d, *row, column) for d in (a, b)):
                continue
            for key, digits in FIGURES:
                x, y = (bench_report.values(d, row, column, key) for d in (a, b))
                ratio, p = compare.ratio(x, y), compare.differs(x, y)
                yield (*name, key, *(_cell(v, digits) for v in (x, y)), number(ratio, 3),
                       bench_report.probability(p))
                name = ("", "", "")


def _cell(found, digits):
    s = compare.summary(found)
    return f"{number(s.mean, digits)} (n {s.n})"


def _costs(a, b):
    """Medians of costs that both have."""
    x, y = (dict(medians(c)) for c in (a, b))
    for name in (n for n in x if n in y):
        yield name, number(x[name]), number(y[name]), \
            number(y[name] / x[name], 3) if x[name] else "-"


def medians(cost):
    """(name, median) of each operation of harness.cost's data."""
    for r in cost["costs"]:
        yield f"{r['what']}, {r['kernel']}, {size_name(r['kib'])}", r["median"]


def differences(a, b):
    """What was not the same for both, a line each."""
    out = []
    for key in ("time", "arch", "quick", "host_cpus", "nodes", "distances", "sysctls", "meter",
                "kernels", "plan"):
        out += _differ(key, a.get(key), b.get(key))
    return out


def _differ(name, x, y):
    """Lines for what differs in one value of the results, its parts by themselves."""
    if x == y or name == "plan estimate":
        return []
    if isinstance(x, dict) and isinstance(y, dict):
        return [line for k in dict.fromkeys([*x, *y])
                for line in _differ(f"{name} {k}", x.get(k), y.get(k))]
    return [f"{name}: A {_short(x)}, B {_short(y)}"]


def _short(value):
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
