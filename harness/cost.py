"""What migrations cost, in instructions: guests of one CPU whose clock counts them.

Data goes: programs of bench/cost -> guests -> records and windows of the plugin
of bench/profile -> rows, one for each operation, size of page and kernel.
"""

import math
import statistics
from dataclasses import dataclass

from harness import machine, profile, rootfs
from harness.common import Failure, say
from harness.records import SYSCTLS, guest_record, records, setup

# With icount the guest's clock is its own; with these so are the date at which it
# starts and its random numbers: two runs of a kernel give the same digits.
REPEATABLE = ("-rtc", "base=2026-01-01,clock=vm", "-seed", "1")

# Fast scans only shorten the wait for the faults.
FAST = SYSCTLS | {"kernel.numa_balancing_scan_delay_ms": 10,
                  "kernel.numa_balancing_scan_period_max_ms": 100}
# Memory in pieces stays so while latencies are measured: nothing compacts it.
PIECES = FAST | {"vm.compaction_proactiveness": 0, "vm.watermark_boost_factor": 0}
NO_DEFRAG = "echo never > /sys/kernel/mm/transparent_hugepage/defrag"

PAGES, BASE_PAGES = 32, 128     # whose migration is measured: THP of each size, base pages
QUICK_SIZES = (64,)             # KiB, of those between base pages and those of a PMD
PRESSURES, QUICK_PRESSURES = ("free", "full", "pieces"), ("free", "full")
FAULTS, QUICK_FAULTS = 8, 4     # of each THP, for the latencies
# Instructions: a microsecond of a CPU that runs one, two or four in a nanosecond.
SERVED = (1000, 2000, 4000)
# What a fault did with its page, as bench/cost/hint_latency.c says it.
KINDS = ("migrated", "local", "stayed")
# Faults that migrate nothing, which have a row of costs each: (pressure, kind) -> its name.
FAULTS_ONLY = {("free", "local"): "local", ("full", "stayed"): "full",
               ("pieces", "stayed"): "pieces"}

# How often an operation copies its data, the driver's copy for its caller among them.
COPIES = {"hint": 1, "move": 1, "to_device": 2, "to_system": 1,
          "local": 0, "full": 0, "pieces": 0}
# The THP of a PMD, which every kernel has.
HINT_THP = machine.Task("thp_cost", f"./thp_cost.run -n {PAGES}", 120)
MOVE = machine.Task("move_cost", f"./move_cost.run -n {PAGES}")
DEVICE = machine.Task("device_cost", "./device_cost.run /dev/hmm_dmirror0")
LOAD = """insmod /modules/test_hmm.ko
mknod /dev/hmm_dmirror0 c $(awk '$2 == "HMM_DMIRROR" {print $1}' /proc/devices) 0"""


def hint(kib):
    """The task that has pages of a size migrated by hinting faults; KiB 0: base pages."""
    n = PAGES if kib else BASE_PAGES
    return machine.Task(f"hint_{kib}", f"./thp_cost.run -k {kib} -n {n}", 120)


def counting(kernel, options=()):
    """A guest with one CPU whose clock counts instructions, the same in each run."""
    return machine.Machine(kernel.arch, machine.TOPOLOGIES["one-cpu"], icount=True,
                           boot="norandmaps", silence=300, options=REPEATABLE + options,
                           slow=kernel.slow)


def free(kernel):
    """A guest with one CPU that takes the time it takes."""
    return machine.Machine(kernel.arch, machine.TOPOLOGIES["one-cpu"], boot="norandmaps",
                           slow=kernel.slow)


def has_device(kernel):
    """Whether there is a module for a device with memory."""
    return any(m.stem == "test_hmm" for m in kernel.modules)


def guest(kernel, tasks, share, folder, before, where=None):
    """A guest, one that counts instructions if not told where: its outcome.

    before: shell commands.
    """
    job = machine.Job(tuple(tasks), where="/bench", setup=before, heartbeat=False)
    return machine.run(where or counting(kernel), kernel, rootfs.basic(kernel) + [share], job,
                       folder)


def one_thp(built, share, folder):
    """Instructions of one migration, for `make run`: guests and {kernel: record}."""
    guests, found = [], {}
    for name, kernel in built.items():
        say(f"cost of one migration: {name}")
        out = guest(kernel, [HINT_THP], share, folder / f"cost-{name}", setup(SYSCTLS))
        guests.append(guest_record(name, "cost", out))
        found.update({name: r for r in records(out).values()})
    return guests, found


def device(kernel, share, folder):
    """What a THP costs to a device and back, for `make run`: guests and records.

    The record of "device" is in instructions, that of "device_time", of a guest
    of one CPU that runs freely, in nanoseconds.  Nothing where the kernel has no
    test_hmm.  The base is not measured: it has no THP on a device, and its driver
    no way back but a fault for each page.
    """
    guests, found = [], {}
    if not has_device(kernel):
        return guests, found
    say("cost of the way to a device and back: patched")
    for name, where in (("device", counting(kernel)), ("device_time", free(kernel))):
        out = guest(kernel, [DEVICE], share, folder / f"cost-{name.replace('_', '-')}",
                    "\n".join((setup(SYSCTLS), LOAD)), where=where)
        guests.append(guest_record("patched", name.replace("_", " "), out))
        found[name] = records(out).get("device_cost", {})
    return guests, found


def measure(kernels, share, folder, quick, keep):
    """Everything that is counted in instructions: guests and data go to keep().

    kernels: {"base": kernel, "patched": kernel}.  share: rootfs.folder() of
    records.programs().  folder: of the results.  quick: fewer sizes,
    pressures and faults.  keep(guests, data) is called after each guest, with what there
    is until then: the last time with all.

    data: {"copied": bytes that an instruction of the copy moves, 0 if not known,
    "costs": a row() for each operation, size and kernel, "latency": a latency()
    for each pressure and kernel, "sizes": KiB of the pages of a THP and less that the
    patched kernel was asked for, None if it has not said what it has, "device":
    whether it has one}.  What a guest did not deliver is not there.
    """
    run = Run(share, folder, profile.plugin(), next(iter(kernels.values())).arch.copied, keep)
    run.data["device"] = has_device(kernels["patched"])
    for name, kernel in kernels.items():
        # Each kernel does the same first: what comes later finds memory in the same state.
        about = run.profiled(name, kernel, "cost", [HINT_THP, MOVE, hint(0)])
        sizes = between(about["page_kib"], quick)
        if name == "patched" and about["page_kib"]:
            run.data["sizes"] = sizes
        if sizes:
            run.profiled(name, kernel, "cost by size", [hint(kib) for kib in sizes])
        if name != "base" and has_device(kernel):
            run.profiled(name, kernel, "cost of a device", [DEVICE],
                         "\n".join((setup(FAST), LOAD)))
    faults, pressures = (QUICK_FAULTS, QUICK_PRESSURES) if quick else (FAULTS, PRESSURES)
    tasks = [machine.Task(p, f"./hint_latency.run -f {faults} {p}", 300) for p in pressures]
    for name, kernel in kernels.items():
        run.profiled(name, kernel, "latency", tasks, "\n".join((setup(PIECES), NO_DEFRAG)))


def between(page_kib, quick):
    """KiB of the sizes of pages of a kernel between base pages and those of a PMD."""
    return [k for k in page_kib[1:-1] if not quick or k in QUICK_SIZES]


class Run:
    """What measure() has found so far."""

    def __init__(self, share, folder, plugin, copied, keep):
        self.share, self.folder, self.plugin, self.keep = share, folder, plugin, keep
        self.guests = []
        self.data = {"copied": copied, "costs": [], "latency": [], "sizes": None, "device": False}

    def profiled(self, name, kernel, what, tasks, before=setup(FAST)):
        """Run tasks under the plugin and add the rows: what the results say about the guest.

        before: shell commands.  The windows that the plugin wrote are some MB for
        each task: only what becomes of them is kept.  A guest of which they cannot be read
        has failed.
        """
        say(f"{what}: {name}")
        where = self.folder / f"{what.replace(' ', '-')}-{name}"
        where.mkdir(parents=True, exist_ok=True)
        windows = where / "windows"
        out = guest(kernel, tasks, self.share, where, "\n".join((before, profile.SYMBOLS)),
                    counting(kernel, profile.options(self.plugin, windows)))
        about = guest_record(name, what, out)
        self.guests.append(about)
        if out.verdict == "pass":
            try:
                self.add(name, out, Profiles(profile.read(windows),
                                             profile.Symbols(out.file("kallsyms") or "")))
            except Failure as e:
                about.update(verdict="fail", why=str(e))
                say(f"  fail: {e}")
        windows.unlink(missing_ok=True)
        self.keep(self.guests, self.data)
        return about

    def add(self, name, out, profiles):
        """The rows of the records of a guest."""
        for record in records(out).values():
            self.data["costs"] += rows(name, record, self.data["copied"], profiles)
            if record["test"] == "hint_latency":
                self.data["latency"].append(latency(name, record))


@dataclass(frozen=True)
class Profiles:
    """The windows of a guest, {(name, number): profile.Window}, and its symbols."""

    windows: dict
    symbols: profile.Symbols

    def of(self, name, numbers, values):
        """[(window, value)] of a name, where there is a window; numbers: one for each value."""
        return [(self.windows[name, n], v) for n, v in zip(numbers, values)
                if (name, n) in self.windows]


def rows(kernel, record, copied, profiles):
    """The rows of a record of any program of bench/cost."""
    thp, of = record["thp_bytes"], {"device_cost": _device_rows, "hint_latency": _fault_rows}
    if record["test"] in of:
        return of[record["test"]](kernel, record, copied, profiles)
    what = "move" if record["test"] == "move_cost" else "hint"
    profiled = profiles.of(record["window"], record["windows"], record["values"])
    return [row(what, kernel, thp, 1, record["values"], copied, profiled, profiles.symbols)]


def _device_rows(kernel, record, copied, profiles):
    base, thp = record["page_bytes"], record["thp_bytes"]
    found = []
    for way in ("to_device", "to_system"):
        for name, size in (("base", base), ("thp", thp)):
            values = record[f"{name}_{way}"]
            # The first round is not among the values
            profiled = profiles.of(f"{name}_{way}", range(1, len(values) + 1), values)
            found.append(row(way, kernel, size, thp // size, values, copied, profiled,
                             profiles.symbols))
    return found


def _fault_rows(kernel, record, copied, profiles):
    """Rows of the faults that migrate nothing; nothing where there was none."""
    found = []
    for (pressure, kind), what in FAULTS_ONLY.items():
        if pressure == record["pressure"] and record[kind]:
            values, numbers = zip(*record[kind])
            profiled = profiles.of(record["window"], numbers, values)
            found.append(row(what, kernel, record["thp_bytes"], 1, values, copied, profiled,
                             profiles.symbols))
    return found


def row(what, kernel, size, pages, values, copied, profiled, symbols):
    """One operation on pages of `size` bytes: its values, in instructions, and where they went.

    profiled: [(window, value)] of those that have a window.

    floor: instructions of the plain copies of the data, 0 where it is not known
    what an instruction copies.  above: the median above the floor.  breakdown:
    [[function, instructions above the floor]] of the mean of the middle half of
    the operations, which comes to `profiled` with the floor; instructions of the
    program itself are not in it.  clock: the mean of the values of the same operations,
    in which they are.  copies_ran: how often the instruction ran that
    ran most often, the median.
    """
    floor = COPIES[what] * size * pages // copied if copied else 0
    used = profile.middle([window for window, _ in profiled])
    value_of = {window.number: value for window, value in profiled}
    median = statistics.median(values)
    return {"what": what, "kernel": kernel, "kib": size >> 10, "pages": pages,
            "n": len(values), "least": min(values), "median": median,
            "mean": statistics.fmean(values),
            "deviation": statistics.stdev(values) if len(values) > 1 else 0,
            "floor": floor, "above": median - floor,
            "profiled": statistics.fmean(w.instructions for w in used) if used else None,
            "clock": statistics.fmean(value_of[w.number] for w in used) if used else None,
            "copies_ran": profile.hottest(used) if used else None,
            "breakdown": profile.breakdown(used, symbols, floor) if used else []}


def latency(kernel, record):
    """The latencies of hinting faults under a pressure, in guest nanoseconds.

    shares: [[SERVED, share of the faults that took no more]].  kinds: number and
    median by what became of the page.  histogram: as histogram() has it.
    """
    kinds = {k: [v for v, _ in record[k]] for k in KINDS}
    values = [v for k in KINDS for v in kinds[k]]
    return {"kernel": kernel, "pressure": record["pressure"], "thp": record["thp"],
            "room_mib": record["room_mib"], "n": len(values),
            "mean": statistics.fmean(values), "median": statistics.median(values),
            "shares": [[most, sum(v <= most for v in values) / len(values)] for most in SERVED],
            "kinds": {k: {"n": len(v), "median": statistics.median(v) if v else None}
                      for k, v in kinds.items()},
            "histogram": histogram(values)}


def histogram(values):
    """[[power of two, how many values from it up to twice as much]], from least to greatest."""
    found = [max(0, math.frexp(v)[1] - 1) for v in values]
    return [[1 << e, found.count(e)] for e in range(min(found), max(found) + 1)] if found else []
