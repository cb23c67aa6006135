"""`make bench`: where every memory access of the autonuma workloads goes, and what migrations cost.

Data goes: programs of bench/ -> metered guests -> records -> bench_report.  A
column is a kernel and what is done about placement; a row is a workload on
pages of a size; a guest runs all rows of a column, and a run of a row is one
phase of the meter (harness/meter.py).
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from harness import (arches, bench_compare, bench_report, cost, kernel as kernels, machine,
                     measure, meter, peer, records, rootfs, series)
from harness.common import (EXIT_CODES, NOT_RUN, Failure, build_dir, new_results, say,
                            write_file)

# Workload -> (MiB of a process, passes over it).  With less memory than in `make run`, base
# pages take less of the run to migrate; all of it is still many times what the filter of a
# vCPU holds.  Two host CPUs run 23 million accesses a second.  In numa01, where all threads of
# a process use all of its memory, the scheduler takes longest to decide: it runs longest.
# numa02 is to get within a twentieth of its best placement, over all of the run.
WORKLOADS = {"numa01": (32, 200), "numa01_THREAD_ALLOC": (32, 120), "numa02": (64, 200),
             "numa02_SMT": (64, 120)}
# How many times a pass of all threads writes a process' memory, with two nodes of two CPUs.
WRITES = {"numa01": 4, "numa01_THREAD_ALLOC": 2, "numa02": 1, "numa02_SMT": 1}
SIZES = measure.SIZES           # KiB, besides base pages and those of a PMD
QUICK_SIZES = (64,)             # ... besides those of a PMD only
BOOTS = 8           # of each column; four kinds: two directions (ABBA) with two start nodes
QUICK_BOOTS = 2
QUICK_PART = 2      # a quick run makes one of so many passes

# The scanner's rates.  Slower ones take numa01 longer to decide, up to half of the run with a
# fifth of them; faster ones would not be kept: the scanner itself takes at most a thirtieth of
# a task's time, and in a metered guest a scan takes long.
RATES = records.SYSCTLS
SAMPLE_MS = 100     # between looks at the placement
SLICE_MS = 250      # of the meter
TAIL = 0.25         # the last part of the traffic, taken for "after convergence"
# Seconds to boot, to place all memory, and to end: only until a guest has been seen.
BOOT_SECONDS = 20
# What a trial runs: the first tells the pace.  As later on each size of pages is asked for by
# name, so that a kernel on which that fails shows it before hours have passed.
TRIALS = tuple(machine.Task(name, f"./autonuma.run numa02 -s 0 -m 32 -p {passes} -l -k {kib}", 120)
               for name, passes, kib in (
                   ("trial", 100, "$(cat /results/pmd_kib)"),
                   ("trial-small", 20, f"$(grep -x {QUICK_SIZES[0]} /results/page_kib || "
                                       "head -n 1 /results/page_kib)")))
# KiB of a page with which hint faults double the time of a pass: a guess until a run was seen.
TWICE_KIB = 12
# Seconds of all of cost.measure(), quick and not: the same.
COST_SECONDS = {True: 120, False: 240}


@dataclass(frozen=True)
class Column:
    """What is compared: a kernel, and whether it, a bound or nothing places memory."""

    name: str
    kernel: str
    balancing: int = 0
    bound: str = ""         # autonuma's -b

    def sysctls(self):
        """Settings of its guests."""
        return RATES | {"kernel.numa_balancing": self.balancing}


BASE = Column("base", "base", 1)
PATCHED = Column("patched", "patched", 1)
OFF = Column("off", "patched")
HARD = Column("hard", "patched", bound="hard")
INVERSE = Column("inverse", "patched", bound="inverse")
PEER = Column("peer", "peer", 1)
COLUMNS = (BASE, PATCHED, OFF, HARD, INVERSE)


@dataclass(frozen=True)
class Plan:
    """What a bench runs."""

    columns: tuple
    rows: dict          # {column's name: ((workload, KiB of a page), ...)}
    quick: bool

    @property
    def boots(self):
        """Number of guests of each column."""
        return QUICK_BOOTS if self.quick else BOOTS

    def in_order(self, column, boot):
        """The rows of a column as a boot runs them, another one first than in the boot before.

        First those that base and patched kernel share, in the same order and after the same
        neighbours in all columns, as the two are compared; then those of the series only.
        """
        both = set(self.rows[BASE.name]) & set(self.rows[PATCHED.name])
        rows = self.rows[column.name]
        shared, others = [r for r in rows if r in both], [r for r in rows if r not in both]
        return [*turned(shared, boot, self.boots), *turned(others, boot, self.boots)]

    def passes(self, workload):
        """Passes of a run."""
        return WORKLOADS[workload][1] // (QUICK_PART if self.quick else 1)

    def guests(self):
        """(column, boot number) of each guest, ABBA."""
        return tuple(measure.order(self.boots, self.columns))


def step_bench():
    """Measure all columns, write results/<time>-bench/, print the tables.

    With FROM=, a folder of results, only the report of these is made anew.
    """
    if os.environ.get("FROM"):
        return again()
    arch, quick = arches.wished(), is_quick()
    if not arch.numa:
        raise Failure(f"ARCH={arch.name}: its machine has one node: nothing to balance")
    image = peer.wished()
    trees = series.trees()
    built = {name: kernels.build(arch, trees[name], what=f"{name} kernel")
             for name in measure.KERNELS}
    if image:
        built["peer"] = peer.kernel(arch, image)
    share = rootfs.folder(records.programs(arch), "bench")
    plugin, folder = meter.plugin(), new_results("bench")
    data = start(arch, built, quick, image)
    measure.save(folder, data)
    for name, kernel in built.items():
        if kernel.config.exists():
            write_file(folder / f"config-{name}", kernel.config.read_bytes())

    bench = Bench(arch, built, share, plugin, folder, data)
    try:
        bench.all(quick)
    except BaseException:
        # Whatever breaks it off, ^C too: hours may have passed
        if data["runs"] or data["cost"]["costs"] or data["cost"]["latency"]:
            conclude(data, folder)
            say(f"broken off; the report of what there is: {folder / 'report.html'}")
        raise
    return show(conclude(data, folder), folder)


def again():
    """`make bench FROM=folder`: the report of what its results.json has, anew."""
    data, path = bench_compare.load("FROM"), Path(os.environ["FROM"])
    if "bench" not in data:
        raise Failure(f"FROM={path}: of make native: make native FROM={path}")
    folder = path.parent if path.is_file() else path
    return show(conclude(data, folder), folder)


def conclude(data, folder):
    """The results with all that follows from the records, written with the report.

    First the records alone: a report that fails can be made again.
    """
    measure.save(folder, data)
    bench_report.finish(data)
    measure.save(folder, data)
    bench_report.write(data, folder)
    return data


def show(data, folder):
    """Print the report and where it is: the exit code."""
    print("\n" + bench_report.text(data))
    print(f"\nresults: {folder}\npage: {folder / 'report.html'}")
    return EXIT_CODES[data["verdict"]]


def is_quick():
    """Whether QUICK=1 was given."""
    wish = os.environ.get("QUICK") or "0"
    if wish not in ("0", "1"):
        raise Failure(f"QUICK={wish}: there is QUICK=1, or nothing for the full run")
    return wish == "1"


def start(arch, built, quick, image):
    """The results before anything was measured.  image: of the peer, or None."""
    nodes = machine.TOPOLOGIES["default"]
    data = {"bench": 1, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "arch": arch.name, "quick": quick, "host_cpus": kernels.jobs(), "sysctls": RATES,
            "sample_ms": SAMPLE_MS,
            "nodes": [vars(n) for n in nodes], "distances": machine.distances(nodes),
            "meter": {"cache_kib": meter.CACHE_KIB, "ways": meter.WAYS, "slice_ms": SLICE_MS},
            "kernels": {n: {"tree": k.tree, "key": k.key} for n, k in built.items()},
            "peer_lacks": "", "page_kib": {}, "guests": [], "runs": [],
            "cost": {"copied": arch.copied, "costs": [], "latency": []},
            "verdict": NOT_RUN}
    if image:
        data["kernels"]["peer"].update(image=image.name, named=peer.release(image))
    return data


def settings(sysctls):
    """Shell commands that set the sysctls and record what they are then, the page sizes, the
    distances between nodes and the kernel's release.

    Later kernels have the scanner's rates in debugfs.
    """
    lines = ["""where() { echo "/sys/kernel/debug/sched/numa_balancing/""" +
             """${1#kernel.numa_balancing_}"; }""",
             "put() { sysctl -w \"$1=$2\" >/dev/null 2>&1 || echo \"$2\" > \"$(where $1)\"; }",
             "get() { sysctl $1 2>/dev/null || echo \"$1 = $(cat \"$(where $1)\")\"; }",
             *(f"put {k} {v}" for k, v in sysctls.items()),
             f"for k in {' '.join(sysctls)}; do get $k; done > /results/sysctls",
             records.PAGE_KIB,
             "echo $(($(cat /sys/kernel/mm/transparent_hugepage/hpage_pmd_size) / 1024)) "
             "> /results/pmd_kib",
             "cat /sys/devices/system/node/node[0-9]*/distance > /results/distances",
             "uname -r > /results/release"]
    return "\n".join(lines)


def read_distances(text, nodes):
    """Matrix of the distances that a guest has read, or None if these are not those of as many
    nodes."""
    try:
        found = tuple(tuple(int(n) for n in line.split()) for line in (text or "").splitlines())
    except ValueError:
        return None
    whole = len(found) == nodes and all(len(row) == nodes and min(row) > 0 for row in found)
    return found if whole else None


def sizes_of(page_kib, pmd_kib):
    """KiB of all pages that a kernel has: with THP of one size it has no files for it."""
    return page_kib if page_kib[1:] else page_kib[:1] + [pmd_kib]


def plan_of(data, quick):
    """What to run, by the sizes of pages that the kernels were seen to have."""
    columns = COLUMNS + ((PEER,) if "peer" in data["page_kib"] else ())
    rows = {}
    for column in columns:
        base, *thp = data["page_kib"][column.kernel]
        wanted = {*QUICK_SIZES, thp[-1]} if quick else {base, *SIZES, thp[-1]}
        rows[column.name] = tuple((w, k) for w in WORKLOADS for k in (base, *thp) if k in wanted)
    return Plan(columns, rows, quick)


def phase_name(workload, kib):
    """What a run is called in its guest, and by autonuma to the meter."""
    return f"{workload}-{kib}"


def start_node(boot):
    """The node where memory starts: another one after two boots, which go through the columns
    forward and back, so that neither is mistaken for the other."""
    return boot // 2 % 2


def turned(rows, boot, boots):
    """The rows in the same order, but another one first in each of so many boots."""
    first = boot * len(rows) // boots
    return rows[first:] + rows[:first]


def tasks(plan, column, boot):
    """All rows of a column.  A bound has no node where memory starts."""
    place = f"-b {column.bound}" if column.bound else f"-s {start_node(boot)}"
    return tuple(machine.Task(phase_name(workload, kib), f"./autonuma.run {workload} {place} "
                              f"-m {WORKLOADS[workload][0]} -p {plan.passes(workload)} -k {kib} "
                              f"-l -i {SAMPLE_MS}", 600)
                 for workload, kib in plan.in_order(column, boot))


def written(record):
    """MiB written by a run: a measure of its work."""
    return record["written_mib"]


def traffic(phase, distances):
    """What the results say of a phase of the meter.

    modelled: memory time in local accesses, and that of the `tail`, the last
    part of the traffic, per access.  slices: [seconds, local misses, [misses of
    each node]].
    """
    slices = [[t, local, [sum(n) for n in zip(*matrix)]]
              for (t, local, _), matrix in zip(phase.over_time(), phase.slices)]
    return {"seconds": phase.seconds, "modelled": meter.modelled(phase, distances),
            "misses": phase.total(), "kernel_misses": phase.total(modes=("kernel",)),
            "accesses": phase.total("accesses"), "local": phase.local_share(),
            "local_all": phase.local_share("accesses"),
            "other": sum(phase.other), "tail": tail(phase, distances), "slices": slices}


def tail(phase, distances):
    """Of the last TAIL of all misses: local share and modelled time per miss; None without any.

    Of the slice at the boundary, which also has misses before it, the same part of each count.
    """
    left = misses = TAIL * sum(sum(map(sum, matrix)) for matrix in phase.slices)
    local = time_ = 0
    for matrix in reversed(phase.slices):
        here = sum(map(sum, matrix))
        part = min(1, left / here) if here else 1
        for at, row in zip(phase.cpus, matrix):
            local += part * row[at]
            time_ += part * sum(n * distances[at][node] / distances[at][at]
                                for node, n in enumerate(row))
        left -= part * here
        if part < 1:
            break
    return {"local": local / misses, "per_miss": time_ / misses} if misses else None


def with_traffic(folder, found, distances):
    """{task: record} of a guest, each with its traffic; and what is wrong, '' if nothing is."""
    try:
        phases = {p.name: p for p in meter.read(folder / "traffic.jsonl")}
    except Failure as e:
        return {}, str(e)
    metered = {name: {**r, "traffic": traffic(phases[name], distances)}
               for name, r in found.items() if name in phases}
    lost = [name for name in found if name not in phases]
    return metered, f"{lost[0]}: its accesses were not counted" if lost else ""


class Bench:
    """The guests of a bench, and what they deliver."""

    def __init__(self, arch, built, share, plugin, folder, data):
        self.arch, self.built, self.share = arch, built, share
        self.plugin, self.folder, self.data = plugin, folder, data
        self.pace = remembered_pace(data["arch"])

    def all(self, quick):
        """Trials, costs and all guests; "seconds" of the results say that it came to its end."""
        trials = self.trials()
        plan = plan_of(self.data, quick)
        self.announce(plan, trials)
        begin = time.monotonic()
        cost.measure({k: self.built[k] for k in measure.KERNELS}, self.share, self.folder, quick,
                     self.keep_costs)
        self.pace[cost_name(quick)] = time.monotonic() - begin
        self.run(plan, trials)
        self.data["seconds"] = round(time.monotonic() - begin)

    def keep_costs(self, guests, data):
        """What the guests of the costs have found, all of them until now, is in the results."""
        self.data.update(guests=list(guests), cost=data)
        measure.save(self.folder, self.data)

    def guest(self, column, todo, where, listener=None):
        """A metered guest of a column: its outcome."""
        kernel, nodes = self.built[column.kernel], machine.TOPOLOGIES["default"]
        where.mkdir(parents=True, exist_ok=True)
        options = meter.options(self.plugin, where / "traffic.jsonl", slice_ms=SLICE_MS,
                                nodes=nodes)
        job = machine.Job(todo, where="/bench", setup=settings(column.sysctls()))
        return machine.run(
            machine.Machine(self.arch, nodes, accel="tcg", timeout=600 * (1 + len(todo)),
                            silence=180, options=options, slow=kernel.slow),
            kernel, rootfs.basic(kernel) + [self.share], job, where, listener)

    def trials(self):
        """Boot each kernel once: its sizes of pages, its release and the distances go into the
        results.

        Returns {kernel: (host seconds besides the run, seconds for a MiB written)}.
        """
        found = {}
        for name in self.built:
            column = {"base": BASE, "patched": PATCHED, "peer": PEER}[name]
            say(f"trial of the {name} kernel")
            out = self.guest(column, TRIALS, self.folder / f"trial-{name}")
            self.data["kernels"][name]["release"] = (out.file("release") or "").strip()
            why = lacks(out, column)
            if why and name == "peer":
                say(f"PEER: {why}: its column stays empty")
                self.data["peer_lacks"] = why
                continue
            if why:
                raise Failure(f"{name} kernel: {why} (see {out.folder})")
            runs = records.records(out)
            run, seconds = runs["trial"], sum(r["seconds"] for r in runs.values())
            self.data["page_kib"][name] = sizes_of(
                [int(k) for k in out.file("page_kib").split()], int(out.file("pmd_kib")))
            if name == "patched":
                # A machine that is not told any has distances of its own.
                self.data["distances"] = read_distances(
                    out.file("distances"), len(self.data["nodes"])) or self.data["distances"]
            found[name] = out.seconds - seconds, run["seconds"] / written(run)
        return found

    def announce(self, plan, trials):
        """Say what will be done, and how long it will take."""
        seconds = estimate(plan, trials, self.pace)
        n = sum(len(plan.rows[c.name]) for c, _ in plan.guests())
        self.data["plan"] = {"boots": plan.boots, "estimate": round(seconds),
                             "rows": plan.rows, "passes": {w: plan.passes(w) for w in WORKLOADS},
                             "mib": {w: mib for w, (mib, _) in WORKLOADS.items()}}
        say(f"{len(plan.guests())} guests with {n} runs, {plan.boots} of each kind: "
            f"about {duration(seconds)} from here")

    def run(self, plan, trials):
        """All guests of a plan."""
        begin, guests = time.monotonic(), plan.guests()
        weights = [guest_seconds(plan, column, trials, self.pace) for column, _ in guests]
        for number, (column, boot) in enumerate(guests):
            left = ""
            if number:
                seconds = remaining(time.monotonic() - begin, weights, number)
                left = f"; about {duration(seconds)} left"
            where = "" if column.bound else f", memory starts on node {start_node(boot)}"
            say(f"guest {number + 1} of {len(guests)}: {column.name}{where}{left}")
            self.one(plan, column, boot)

    def one(self, plan, column, boot):
        """A guest of a plan, and another one if it failed; the records go into the results.

        What the second one delivers counts; that the first failed stays in the results.
        """
        about, found = self.attempt(plan, column, boot)
        if about["verdict"] != "pass" and not self.hopeless(column):
            say("  once more, as it may have been chance")
            self.keep(column, boot, found)
            again, more = self.attempt(plan, column, boot, "again")
            about["repeated"] = again["verdict"]
            found |= more
        self.keep(column, boot, found)

    def hopeless(self, column):
        """Whether a guest of a column has failed twice, which is hardly chance."""
        return any(g.get("repeated", "pass") != "pass" for g in self.data["guests"]
                   if g.get("column") == column.name)

    def attempt(self, plan, column, boot, again=""):
        """One guest: what the results say of it, and {task: record} of what it has delivered."""
        where = self.folder / "-".join(filter(None, (str(boot + 1), column.name, again)))
        todo = tasks(plan, column, boot)
        out = self.guest(column, todo, where, measure.progress)
        about = records.guest_record(column.kernel, f"{column.name} {boot + 1} {again}".rstrip(),
                                     out) | {"column": column.name}
        found, wrong = with_traffic(where, records.records(out), self.data["distances"])
        # A guest that went away has not said what was set.
        said = about["sysctls"] or out.verdict == "pass"
        if said and (unset := not_taken(about["sysctls"], column)):
            found, wrong = {}, f"{unset} was not as its column wants it"
        if wrong and about["verdict"] == "pass":
            about.update(verdict="fail", why=wrong)
            say(f"  fail: {wrong}")
        self.data["guests"].append(about)
        for name, r in found.items():
            self.pace[f"{column.name}-{name}"] = r["seconds"] / written(r)
        if about["verdict"] == "pass":
            seconds = sum(r["seconds"] for r in found.values())
            self.pace["boot"] = (out.seconds - seconds) / len(todo)
        return about, found

    def keep(self, column, boot, found):
        """The records are those of the boot of a column, in the results from now on."""
        this = column.name, boot + 1
        self.data["runs"] = [r for r in self.data["runs"] if (r["column"], r["boot"]) != this] \
            + [{"column": this[0], "boot": this[1], **r} for r in found.values()]
        measure.save(self.folder, self.data)
        remember_pace(self.data["arch"], self.pace)


def lacks(outcome, column):
    """Why the guest of a trial is of no use, in one line; '' if it is."""
    why = records.complaint(outcome)
    if "\x01boot" in outcome.console.read_text(errors="replace"):
        return "no virtio-serial: it is neither built in nor among the modules beside the image"
    if why:
        return why
    wrong = not_taken((outcome.file("sysctls") or "").splitlines(), column)
    return f"it does not take {wrong}" if wrong else ""


def not_taken(lines, column):
    """The first sysctl of a column that a guest, by the lines of its own, does not have so; ''
    if there is none."""
    have = dict(line.replace(" ", "").split("=", 1) for line in lines if "=" in line)
    return next((k for k, v in column.sysctls().items() if have.get(k) != str(v)), "")


def pace_path():
    """Where a bench keeps how long things took, for the estimate of the next one."""
    return build_dir() / "bench-pace.json"


def _paces():
    """{architecture: its pace} of earlier runs; {} if there are none."""
    try:
        paces = json.loads(pace_path().read_text(encoding="utf-8"))
        return {arch: {str(k): float(v) for k, v in pace.items()}
                for arch, pace in paces.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def remembered_pace(arch):
    """{what: seconds} of an architecture: "boot" for a run besides its time, cost_name() for all
    of cost.measure(), and "<column>-<workload>-<KiB>" for a MiB written; {} without an earlier
    run."""
    return _paces().get(arch, {})


def remember_pace(arch, pace):
    """Keep the pace of an architecture beside those of the others."""
    write_file(pace_path(), json.dumps(_paces() | {arch: pace}, indent=1) + "\n")


def cost_name(quick):
    """What the pace calls the time of cost.measure()."""
    return "cost, quick" if quick else "cost"


def estimate(plan, trials, pace):
    """Seconds that a plan takes: by the pace of an earlier run, else by the trials."""
    return pace.get(cost_name(plan.quick), COST_SECONDS[plan.quick]) + sum(
        guest_seconds(plan, column, trials, pace) for column, _ in plan.guests())


def guest_seconds(plan, column, trials, pace):
    """Seconds that a guest of a column takes."""
    boot, by_trial = max(trials.values(), default=(BOOT_SECONDS, 0))
    rows = plan.rows[column.name]
    seconds = pace["boot"] * len(rows) if "boot" in pace else boot
    for workload, kib in rows:
        rate = pace.get(f"{column.name}-{phase_name(workload, kib)}")
        if rate is None:
            # Without balancing there are no hint faults.
            rate = by_trial * (1 + column.balancing * TWICE_KIB / kib)
        seconds += rate * work(plan, workload)
    return seconds


def remaining(spent, weights, number):
    """Seconds that are left after the first `number` guests, which took `spent`: the others take
    as much more or less than their weights."""
    return spent * sum(weights[number:]) / sum(weights[:number])


def work(plan, workload):
    """MiB that a run of a workload writes."""
    return WORKLOADS[workload][0] * WRITES[workload] * plan.passes(workload)


def duration(seconds):
    """'12 min' or '3 h 05 min'."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
