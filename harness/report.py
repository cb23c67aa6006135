"""What `make run` says about its records: summary, checks, verdict, table, plot.

`finish(data)` adds "summary", "over_time", "cost_summary", "device_summary",
"device_time_summary", "size_summary", "contended_summary", "checks" and "verdict" to the results;
text() and markdown() print the same rows.
"""

import statistics
from collections import Counter

from harness import compare

# Share of pages on the node of their user, at these seconds after the start.
TIMES = (0.4, 0.8, 1.2, 1.6, 2, 3, 4, 5, 6, 8)
# All workloads together may call a kernel worse by chance this often.
ALPHA = 0.05


def _vm(name):
    return lambda r: r["vmstat"].get(name) or 0


def time_to_converge(record):
    """Seconds; the length of the run where the share did not get to 90 % and stay."""
    return record["converged"] if has_converged(record) else record["seconds"]


def has_converged(record):
    """Whether the share got to 90 % and stayed there."""
    return record["converged"] is not None


# key, title, digits after the point, value of a record
FIGURES = (
    ("seconds", "seconds", 2, lambda r: r["seconds"]),
    ("share_end", "on the node of their user at the end, %", 1,
     lambda r: 100 * r["share_end"]),
    ("share_mean", "on the node of their user, whole run, %", 1,
     lambda r: 100 * r["share_mean"]),
    ("converged", "time to converge, s", 2, time_to_converge),
    ("hint_faults", "hint faults", 0, _vm("numa_hint_faults")),
    ("pages_migrated", "pages migrated", 0, _vm("numa_pages_migrated")),
    ("thp_whole", "THP migrated whole", 1, _vm("thp_migration_success")),
    ("thp_split", "THP split", 1, _vm("thp_split_page")),
)


def thp_pages(data):
    """Base pages of a THP: 512 unless a guest has said how large both are."""
    for r in data["cost"].values():
        if "page_bytes" in r:
            return r["thp_bytes"] // r["page_bytes"]
    return 512


def workloads(data):
    """Names of the workloads in the order of their first record."""
    return list(dict.fromkeys(r["test"] for r in data["runs"]))


def records(data, workload, kernel):
    """Records of a workload on a kernel."""
    return [r for r in data["runs"] if (r["test"], r["kernel"]) == (workload, kernel)]


def summarise(data):
    """One row per workload and figure."""
    rows = []
    for workload in workloads(data):
        runs = {k: records(data, workload, k) for k in ("base", "patched")}
        for key, title, digits, value in FIGURES:
            base, patched = ([value(r) for r in runs[k]] for k in ("base", "patched"))
            rows.append({"workload": workload, "figure": key, "title": title,
                         "digits": digits, "base": vars(compare.summary(base)),
                         "patched": vars(compare.summary(patched)),
                         "ratio": compare.ratio(base, patched),
                         "p": compare.differs(base, patched)})
        there = {k: [has_converged(r) for r in runs[k]] for k in runs}
        rows.append({"workload": workload, "figure": "runs_converged",
                     "title": "runs that converged", "digits": 0,
                     **{k: f"{sum(t)} of {len(t)}" for k, t in there.items()},
                     "ratio": None, "p": compare.fewer(there["base"], there["patched"])})
    return rows


def share_at(record, seconds):
    """Share of the last sample up to a time; None before the first."""
    found = [s["share"] for s in record["samples"] if s["t"] <= seconds]
    return found[-1] if found else None


def over_time(data):
    """Mean share of pages on the node of their user, by workload, kernel and time."""
    rows = []
    for workload in workloads(data):
        for kernel in ("base", "patched"):
            runs = records(data, workload, kernel)
            shares = []
            for t in TIMES:
                at = [s for s in (share_at(r, t) for r in runs) if s is not None]
                shares.append(sum(at) / len(at) if at else None)
            rows.append({"workload": workload, "kernel": kernel, "share": shares})
    return rows


def cost_summary(data):
    """Instructions of one migration: median, and what of it is above the copy.

    The copy is one instruction for each `copied` bytes (bench/cost/README.md).
    Where that is not known, the copy stays in: it is the same for both kernels.
    """
    rows, each = {}, data.get("copied", 8)
    for kernel, r in data["cost"].items():
        copy = r["thp_bytes"] // each if each else 0
        rows[kernel] = {"n": len(r["values"]), "min": r["min"], "median": r["median"],
                        "copy": copy, "above_copy": r["median"] - copy}
    if {"base", "patched"} <= rows.keys():
        for key in ("median", "above_copy"):
            rows[f"ratio_{key}"] = rows["patched"][key] / rows["base"][key]
    return rows


# How many times fewer instructions a THP takes than its base pages, at least.
DEVICE_RATIOS = {"to_device": 2.5, "to_system": 5}
# Instructions that Linux 7.2.13 takes for one, at its own benchmark in a guest of one CPU,
# copies included; a THP takes fewer.
DEVICE_LATER = {"to_device": 1_913_000, "to_system": 718_000}


def device_summary(record):
    """{way: {"base"|"thp": mean, deviation and n of instructions or nanoseconds, "ratio"}}."""
    rows = {}
    for way in DEVICE_RATIOS if record else ():
        row = {}
        for what in ("base", "thp"):
            values = record[f"{what}_{way}"]
            row[what] = {"mean": statistics.mean(values), "n": len(values),
                         "deviation": statistics.stdev(values) if len(values) > 1 else 0}
        rows[way] = row | {"ratio": row["base"]["mean"] / row["thp"]["mean"]}
    return rows


# key, title, digits after the point, value of a record of the size axis
SIZE_FIGURES = (
    ("hint_faults", "hint faults", 0, _vm("numa_hint_faults")),
    ("remote_faults", "of remote pages", 0,
     lambda r: _vm("numa_hint_faults")(r) - _vm("numa_hint_faults_local")(r)),
    ("pages_migrated", "pages migrated", 0, _vm("numa_pages_migrated")),
    ("share_final", "local at end, %", 1, lambda r: 100 * r["share_final"]),
    ("seconds", "seconds", 2, lambda r: r["seconds"]),
)
# With pages of N base pages there are at most this many times 1/N of the hint faults.
SIZE_FACTOR = 1.2


def size_records(data, workload, kib):
    """Records of the size axis of a workload with pages of `kib` KiB."""
    return [r for r in data["size_runs"] if (r["test"], r["page_kib"]) == (workload, kib)]


def size_workloads(data):
    """Names of the workloads of the size axis, without the one that contends for pages."""
    return [w for w in dict.fromkeys(r["test"] for r in data["size_runs"]) if w != "contended"]


def base_pages(record):
    """N: base pages of a page of the size of a record."""
    return record["page_kib"] // record["base_kib"]


def faults_per_migrated(record):
    """Hint faults of remote pages x N per page migrated; None where none was."""
    vm = record["vmstat"]
    remote = vm["numa_hint_faults"] - vm["numa_hint_faults_local"]
    pages = vm["numa_pages_migrated"]
    return base_pages(record) * remote / pages if pages else None


def _per(runs, part, whole, vmstat=lambda r: r["vmstat"]):
    """Sum of the counter `part` x N over that of `whole`, of all records; None of none."""
    total = sum(vmstat(r)[whole] for r in runs)
    return sum(base_pages(r) * vmstat(r)[part] for r in runs) / total if total else None


def size_summary(data):
    """One row per workload and size.

    per_migrated: hint faults of remote pages x N per page migrated, median of the
    runs that migrated any.  all_per_migrated: all hint faults x N per page migrated,
    of the sums.  per_marked: hint faults x N per PTE marked.  p_less: that the share
    at the end is less than with base pages only by chance.
    """
    rows = []
    for workload in size_workloads(data):
        for kib in data["page_kib"]:
            runs, base = (size_records(data, workload, k) for k in (kib, data["page_kib"][0]))
            values, least = ({k: [value(r) for r in of] for k, _, _, value in SIZE_FIGURES}
                             for of in (runs, base))
            ratios = [f for f in map(faults_per_migrated, runs) if f is not None]
            rows.append({"workload": workload, "kib": kib,
                         **{k: vars(compare.summary(v)) for k, v in values.items()},
                         "per_migrated": statistics.median(ratios) if ratios else None,
                         "all_per_migrated": _per(runs, "numa_hint_faults",
                                                  "numa_pages_migrated"),
                         "per_marked": _per(runs, "numa_hint_faults", "numa_pte_updates"),
                         "p_less": compare.greater(values["share_final"],
                                                   least["share_final"])})
    return rows


def contended_summary(data):
    """One row per size: sums over the boots, pages as counted by the size.

    per_placed: hint faults x N per page migrated to its first user.
    """
    rows = []
    for kib in data["page_kib"]:
        runs = size_records(data, "contended", kib)
        rows.append({"kib": kib, "n": len(runs), "pages": sum(r["pages"] for r in runs),
                     "turns": sum(r["pages"] * r["turns"] for r in runs),
                     "faults": sum(r["contended"]["vmstat"]["numa_hint_faults"] for r in runs),
                     "placed": sum(_moved(r, "first") for r in runs),
                     "per_placed": _per(runs, "numa_hint_faults", "numa_pages_migrated",
                                        lambda r: r["first"]["vmstat"]),
                     "moved": sum(_moved(r, "contended") for r in runs)})
    return rows


def _moved(record, phase):
    """How many pages of its size NUMA balancing migrated in a phase."""
    return record[phase]["vmstat"]["numa_pages_migrated"] / base_pages(record)


def finish(data):
    """Add to the results all that follows from the records."""
    data["size_summary"] = size_summary(data)
    data["contended_summary"] = contended_summary(data)
    for name in ("device", "device_time"):
        data[f"{name}_summary"] = device_summary(data.get(name) or {})
    data["summary"] = summarise(data)
    data["over_time"] = over_time(data)
    data["cost_summary"] = cost_summary(data)
    data["checks"] = checks(data)
    data["verdict"] = verdict(data)


def verdict(data):
    """The gravest of the guests, else fail where a check does not hold, else pass.

    A check that says of itself that it is not judged does not count.
    """
    seen = {g["verdict"] for g in data["guests"]}
    for grave in ("crash", "timeout", "lost", "infra", "fail"):
        if grave in seen:
            return grave
    return "pass" if all(c["ok"] for c in data["checks"] if c.get("judged", True)) else "fail"


def checks(data):
    """What must hold of the two kernels: list of what, ok, why."""
    found = [_base_is_ad_hoc(data), _counters_agree(data), _no_split(data),
             _stays_whole(data)]
    found += [_no_later(data, w) for w in workloads(data)]
    return found + [_cost_no_higher(data)] + _device_cheaper(data) + _sizes(data)


def _check(what, wrong):
    return {"what": what, "ok": not wrong, "why": wrong}


def _of(data, kernel):
    return [r for r in data["runs"] if r["kernel"] == kernel]


def _wrong(runs, complain):
    """The first complaint about a record, with the record's name; '' if none."""
    if not runs:
        return "no records"
    for r in runs:
        why = complain(r["vmstat"], r)
        if why:
            return f"{r['test']}, boot {r['boot']}: {why}"
    return ""


def _idle_boot(runs, counter):
    """A boot whose workloads together did not count anything; '' if there is none.

    A single run may: where the threads of numa02_SMT stay on the start node,
    there is nothing to migrate.
    """
    total = {}
    for r in runs:
        total[r["boot"]] = total.get(r["boot"], 0) + r["vmstat"][counter]
    return next((f"boot {b}: {counter} is 0 in every run" for b, n in total.items()
                 if not n), "")


def _base_is_ad_hoc(data):
    def complain(vm, _):
        n = vm["thp_migration_success"]
        return f"thp_migration_success is {n}" if n else ""
    runs = _of(data, "base")
    return _check("base: pages are migrated, none counted as THP",
                  _wrong(runs, complain) or _idle_boot(runs, "numa_pages_migrated"))


def _counters_agree(data):
    """A stack or heap page may be migrated by itself: less than one THP's worth of them."""
    nr = thp_pages(data)

    def complain(vm, _):
        pages, whole = vm["numa_pages_migrated"], vm["thp_migration_success"]
        if not 0 <= pages - whole * nr < nr:
            return f"numa_pages_migrated is {pages}, THP account for {whole * nr}"
        return ""
    runs = _of(data, "patched")
    return _check("patched: numa_pages_migrated agrees with thp_migration_success",
                  _wrong(runs, complain) or _idle_boot(runs, "thp_migration_success"))


def _no_split(data):
    """thp_split_pmd is left out: unmapping a thread's stack, itself a THP, counts there."""
    def complain(vm, _):
        bad = [f"{k} is {vm[k]}" for k in ("thp_split_page", "thp_migration_split")
               if vm.get(k)]
        return ", ".join(bad)
    return _check("patched: no THP is split", _wrong(_of(data, "patched"), complain))


def _stays_whole(data):
    def complain(_, r):
        mib = r["mib"] * r["processes"]
        return "" if r["anon_huge_mib"] >= mib else \
            f"{r['anon_huge_mib']:.0f} of {mib} MiB are THP at the end"
    return _check("patched: all memory is whole THP at the end",
                  _wrong(_of(data, "patched"), complain))


def _no_later(data, workload):
    """Neither later, nor in fewer runs; each level is shared out among the workloads."""
    runs = [records(data, workload, k) for k in ("base", "patched")]
    later = compare.greater(*[[time_to_converge(r) for r in of] for of in runs])
    fewer = compare.fewer(*[[has_converged(r) for r in of] for of in runs])
    level = ALPHA / len(workloads(data))
    what = f"{workload}: placement converges no later"
    if later is None or fewer is None:
        return _check(what, "too few records")
    found = f"p of later {_p(later)}, of fewer runs {_p(fewer)}, level {level:.4f}"
    return _check(f"{what} ({found})", "" if min(later, fewer) >= level else
                  "later, or in fewer runs, than on the base")


def _cost_no_higher(data):
    cost = data["cost_summary"]
    wrong = "no measurement of both kernels"
    if "ratio_above_copy" in cost:
        base, patched = (cost[k]["above_copy"] for k in ("base", "patched"))
        wrong = "" if patched <= base else f"{patched:,} against {base:,} instructions"
    return _check("cost above the copy is no higher than the base's", wrong)


def _device_cheaper(data):
    found = []
    for way, row in data["device_summary"].items():
        most, later, mean = DEVICE_RATIOS[way], DEVICE_LATER[way], row["thp"]["mean"]
        found += [_check(f"{DEVICE_TITLES[way]}: a THP takes at most 1/{most:g} of what its base "
                         "pages take", "" if row["ratio"] >= most else f"1/{row['ratio']:.2f}"),
                  _check(f"{DEVICE_TITLES[way]}: a THP takes fewer instructions than the "
                         f"{number(later)} of Linux 7.2.13", "" if mean < later else number(mean))]
    return found


def size_name(kib):
    """'64K' or '2M'."""
    return f"{kib // 1024}M" if kib % 1024 == 0 else f"{kib}K"


def _sizes(data):
    """What must hold with each size of pages; nothing where there is one size."""
    if not data["page_kib"]:
        return []
    found = [_whole_sizes(data)]
    for workload in size_workloads(data):
        rows = [r for r in data["size_summary"] if r["workload"] == workload]
        found += [_fewer_faults(workload, rows), _one_fault_serves(workload, rows),
                  _no_less_local(workload, rows, data)]
    return found + [_first_placed(data), _faults_to_place(data), _left_alone(data)]


def _each(rows, complain):
    """What is wrong with some sizes, by their names; '' if nothing is."""
    wrong = [(size_name(r["kib"]), complain(r)) for r in rows]
    return ", ".join(f"{name}: {why}" for name, why in wrong if why)


def _whole_sizes(data):
    def complain(row):
        runs = [r for r in data["size_runs"] if r["page_kib"] == row["kib"]]
        for r in runs:
            mib = r["mib"] * r.get("processes", 1)
            if r["whole_mib"] < mib:
                return f"{r['whole_mib']:g} of {mib} MiB in {r['test']}, boot {r['boot']}"
        return "" if runs else "no records"
    return _check("sizes: all memory is whole pages of its size at the end",
                  _each([{"kib": k} for k in data["page_kib"]], complain))


def _no_more(rows, key, named):
    """What is wrong where `key` of a size is more than it may be next to base pages, the first."""
    base = rows[0][key]

    def complain(row):
        if row[key] is None or base is None:
            return "no page was migrated"
        return "" if row[key] <= SIZE_FACTOR * base else f"{row[key]:.2f}/N against {base:.2f}"
    return _check(f"{named} at most {SIZE_FACTOR}/N of {size_name(rows[0]['kib'])}'s",
                  _each(rows, complain))


def _fewer_faults(workload, rows):
    return _no_more(rows, "per_migrated", f"{workload}: hint faults of remote pages per page "
                    "migrated are")


def _one_fault_serves(workload, rows):
    def complain(row):
        mine = row["per_marked"]
        if mine is None:
            return "no PTE was marked"
        return "" if mine <= SIZE_FACTOR else f"{mine:.2f}/N"
    return _check(f"{workload}: hint faults per PTE marked are at most {SIZE_FACTOR}/N",
                  _each(rows, complain))


def _no_less_local(workload, rows, data):
    """The level is shared out among the workloads and the sizes that are compared."""
    level = ALPHA / (len(rows[1:]) * len(size_workloads(data)))

    def complain(row):
        if row["p_less"] is None:
            return "too few records"
        return "" if row["p_less"] >= level else f"{row['share_final']['mean']:.1f} %"
    found = ", ".join(f"{size_name(r['kib'])} {_p(r['p_less'])}" for r in rows[1:])
    return _check(f"{workload}: no less is local at the end than with "
                  f"{size_name(rows[0]['kib'])} (p of less {found}, level {level:.4f})",
                  _each(rows[1:], complain))


def _first_placed(data):
    """Else it would say nothing that contended pages stay: none may be able to move."""
    return _check("contended: 90 % of the pages move to their first user, none twice",
                  _each(data["contended_summary"], lambda row: "" if
                        0.9 * row["pages"] <= row["placed"] <= row["pages"] > 0 else
                        f"{row['placed']:g} of {row['pages']}"))


def _faults_to_place(data):
    """Exact, as the writer is bound to its CPU and writes all of a page."""
    return _no_more(data["contended_summary"], "per_placed",
                    "contended: hint faults per page migrated to its first user are")


def _left_alone(data):
    """The bound is 0, and one page for each fault that was none of a turn.

    A page may migrate only if its last two faults were of the node that it is
    not on.  Those that end turns come from the two nodes alternately.  One that
    ends none, where the scanner marked the page again before its writer was
    done, repeats a node.  Of these there may be one for ten turns.
    """
    def complain(row):
        extra = row["faults"] - row["turns"]
        if not 0 <= extra <= row["turns"] / 10:
            return f"{row['faults']} hint faults in {row['turns']} turns"
        return "" if row["moved"] <= extra else \
            f"{row['moved']:g} pages, {extra} faults out of turn"
    return _check("contended: no page migrates for which two nodes contend by turns",
                  _each(data["contended_summary"], complain))


# Output ---------------------------------------------------------------------

def number(value, digits=0):
    """'1,234.5', or '-' for None."""
    return "-" if value is None else f"{value:,.{digits}f}"


def _cell(s, digits):
    """Mean and half of its confidence interval."""
    if isinstance(s, str):
        return s
    if s["ci"] is None:
        return number(s["mean"], digits)
    return f"{number(s['mean'], digits)} ± {number(s['ci'], digits)}"


def _p(p):
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def result_rows(data):
    """Cells of the main table; the workload's name in its first row only."""
    last = None
    for r in data["summary"]:
        name = r["workload"] if r["workload"] != last else ""
        last = r["workload"]
        yield (name, r["title"], _cell(r["base"], r["digits"]),
               _cell(r["patched"], r["digits"]),
               "" if r["ratio"] is None else f"{r['ratio']:.2f}", _p(r["p"]))


def time_rows(data):
    """Cells of the table of shares over time, in percent."""
    for r in data["over_time"]:
        name = r["workload"] if r["kernel"] == "base" else ""
        yield (name, r["kernel"], *(number(None if s is None else 100 * s)
                                    for s in r["share"]))


def cost_rows(data):
    """Cells of the table of instructions."""
    cost = data["cost_summary"]
    base, patched = cost.get("base", {}), cost.get("patched", {})
    for key, title in (("median", "instructions, median of 32"),
                       ("min", "instructions, least"),
                       ("above_copy", "above the copy, median")):
        ratio = cost.get(f"ratio_{key}")
        yield (title, number(base.get(key)), number(patched.get(key)),
               "" if ratio is None else f"{ratio:.3f}")


DEVICE_TITLES = {"to_device": "to the device", "to_system": "back"}


def device_rows(data):
    """Cells of the table of what a THP costs to a device and back."""
    for name, unit, scale, digits in (("device", "instructions", 1, 0),
                                      ("device_time", "milliseconds", 1e-6, 3)):
        for way, row in data[f"{name}_summary"].items():
            yield (f"{DEVICE_TITLES[way]}, {unit}",
                   *(" ± ".join(number(row[w][key] * scale, digits)
                                for key in ("mean", "deviation")) for w in ("base", "thp")),
                   f"{row['ratio']:.2f}")


def size_rows(data):
    """Cells of the table of sizes; the workload's name in its first row only."""
    last = None
    for r in data["size_summary"]:
        name = r["workload"] if r["workload"] != last else ""
        last = r["workload"]
        hint, remote, pages, share, seconds = (
            (r[key], digits) for key, _, digits, _ in SIZE_FIGURES)
        yield (name, size_name(r["kib"]), *(number(s["mean"], d) for s, d in (hint, remote, pages)),
               *(number(r[k], 2) for k in ("per_migrated", "all_per_migrated", "per_marked")),
               *(_cell(s, d) for s, d in (share, seconds)))


def contended_rows(data):
    """Cells of the table of pages that are contended for."""
    for r in data["contended_summary"]:
        yield (size_name(r["kib"]), *(number(r[k]) for k in ("pages", "placed")),
               number(r["per_placed"], 3), *(number(r[k]) for k in ("turns", "faults")),
               number(r["moved"], 0 if r["moved"] % 1 == 0 else 2))


HEADS = (
    ("", "", "base", "patched", "ratio", "p"),
    ("share on the node of its user, %", "at s", *(f"{t:g}" for t in TIMES)),
    ("one THP migrated by a hint fault", "base", "patched", "ratio"),
    ("2 MiB to a device and back", "as base pages", "as a THP", "ratio"),
    ("pages of", "", "hint faults", "of remote", "migrated", "xN/migrated", "of all", "xN/marked",
     "local at end, %", "seconds"),
    ("contended for by two nodes", "pages", "moved to first user", "xN/migrated", "turns",
     "hint faults", "moved after"),
)


def tables(data):
    """(head, rows, number of columns that are text) of each table."""
    return ((HEADS[0], list(result_rows(data)), 2),
            (HEADS[1], list(time_rows(data)), 2),
            (HEADS[2], list(cost_rows(data)), 1),
            *([(HEADS[3], list(device_rows(data)), 1)] if data["device_summary"] else []),
            *([(HEADS[4], list(size_rows(data)), 2), (HEADS[5], list(contended_rows(data)), 1)]
              if data["page_kib"] else []))


def notes(data):
    """What a reader must know of the numbers, in lines."""
    n = max((r["boot"] for r in data["runs"]), default=0)
    cpus = max((r["threads"] * r["processes"] for r in data["runs"]), default=0)
    return [f"{data['arch']}, {data['accel']}, {cpus} vCPUs on {data['host_cpus']} host "
            f"CPUs, {n} boots of each kernel by turns.",
            "± is half of the 95 % confidence interval of the mean; p is Welch's t-test, "
            "two-sided,",
            "for runs that converged Fisher's exact test of fewer.",
            "A run that did not converge counts with its length. Under emulation there is "
            "no remote memory:",
            "seconds show the cost of migration, not the gain of locality.",
            *(device_notes(data) if data["device_summary"] else []),
            *(size_notes(data) if data["page_kib"] else [])]


def device_notes(data):
    """What a reader must know of the way to a device, in lines."""
    n = data["device_summary"]["to_device"]["thp"]["n"]
    return [f"To a device: the patched kernel, {n} rounds, ± is their deviation. Instructions and "
            "milliseconds are of",
            "two guests of one CPU; the driver's copies of the data are included."]


def size_notes(data):
    """What a reader must know of the numbers by size, in lines."""
    n = max((r["boot"] for r in data["size_runs"]), default=0)
    return [f"By size: the patched kernel, {n} boots, each with all sizes; N is the base pages "
            "of one; PTEs and pages",
            "migrated are counted as base pages. xN/migrated: hint faults of pages on another "
            "node than their user,",
            "times N, per page migrated, median of the boots; of all: with those of local pages, "
            "which move nothing",
            "and are a matter of how often the scanner comes. xN/marked: all hint faults, times N, "
            "per PTE that the",
            "scanner marked: 1 where one serves a page. Local at end: after the last thread.",
            "Contended for: sums over the boots, in pages of the size; all hint faults until each "
            "page had its first,",
            "times N, per page migrated; then, in so many turns of two threads on different "
            "nodes."]


def check_lines(data):
    """One line per check."""
    return [f"{'ok  ' if c['ok'] else 'FAIL'} {c['what']}"
            + (f": {c['why']}" if c["why"] else "") for c in data["checks"]]


def layout(head, rows, left):
    """Aligned lines; the first `left` columns are text, the rest numbers."""
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]

    def line(row):
        cells = [c.ljust(w) if i < left else c.rjust(w)
                 for i, (c, w) in enumerate(zip(row, widths))]
        return "  ".join(cells).rstrip()
    top = line(head)
    return [top, "-" * (sum(widths) + 2 * len(widths) - 2)] + [line(r) for r in rows]


def text(data):
    """The report for the terminal."""
    out = []
    for head, rows, left in tables(data):
        out += layout(head, rows, left) + [""]
    failed = [g for g in data["guests"] if g["verdict"] != "pass"]
    out += notes(data) + [""] + check_lines(data)
    out += [f"{g['verdict']} {g['kernel']} {g['what']}: {g['why']}" for g in failed]
    return "\n".join(out + [f"verdict: {data['verdict']}"])


def markdown(data):
    """The same as Markdown."""
    out = []
    for head, rows, left in tables(data):
        out += ["| " + " | ".join(head) + " |",
                "|" + "|".join([" --- "] * left + [" ---: "] * (len(head) - left)) + "|"]
        out += ["| " + " | ".join(r) + " |" for r in rows] + [""]
    out += notes(data) + [""] + ["    " + s for s in check_lines(data)]
    return "\n".join(out + ["", f"Verdict: {data['verdict']}", ""])


def plot(data, path):
    """Share on the node of its user over time, a panel for each workload, as SVG."""
    names = workloads(data)
    if not names:
        return
    import matplotlib               # pylint: disable=import-outside-toplevel
    matplotlib.use("svg")
    from matplotlib import pyplot   # pylint: disable=import-outside-toplevel
    figure, axes = pyplot.subplots(1, len(names), figsize=(3.5 * len(names), 3),
                                   sharey=True, squeeze=False)
    for axis, name in zip(axes[0], names):
        for kernel, color in (("base", "tab:gray"), ("patched", "tab:blue")):
            for i, r in enumerate(records(data, name, kernel)):
                axis.plot([s["t"] for s in r["samples"]],
                          [100 * s["share"] for s in r["samples"]], color=color,
                          linewidth=0.8, label=kernel if i == 0 else None)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("seconds")
        axis.set_ylim(0, 102)
    axes[0][0].set_ylabel("% on the node of its user")
    axes[0][0].legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)


def platforms(kinds, programs):
    """Lines of a Markdown table of what `make test` saw on each kernel.

    kinds: {architecture-flavor: its cases}; a kernel that does not build has one
    case, `kernel`.  programs: names of the kselftest programs; the rest is KUnit.
    """
    lines = ["| kernel | builds | boots | KUnit | kselftests passed | failed | skipped |",
             "|---|---|---|---|---|---|---|"]
    for name, cases in kinds.items():
        built = [c for c in cases if c.name != "kernel"]
        mine = [c for c in built if c.name.split(".")[0] in programs]
        kunit = [c for c in built if c not in mine and c.name != "guest"]
        booted = any(c.verdict in ("pass", "skip") for c in built)
        cells = [name, "yes" if built else "no", "yes" if booted else "no",
                 f"{_passed(kunit)} of {len(kunit)}", str(_passed(mine)),
                 str(sum(c.verdict not in ("pass", "skip") for c in cases)), _skips(mine)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _passed(cases):
    return sum(c.verdict == "pass" for c in cases)


def _skips(cases):
    """How many were skipped, and for what reasons."""
    why = Counter(c.why for c in cases if c.verdict == "skip")
    return "".join([str(why.total()), *(f"; {n} × {reason}" for reason, n in why.most_common())])
