"""`make run`: base and patched kernel side by side in a guest.

Data goes: programs of bench/ -> guests -> records (dicts, as bench/*/README.md
says) -> compare -> report.  A record that a guest did not deliver is missing
from the results and fails the run.
"""

import json
import time

from harness import arches, cost, machine, report, rootfs, series
from harness import kernel as kernels
from harness.common import EXIT_CODES, NOT_RUN, Failure, new_results, say, write_file
from harness.records import SYSCTLS, guest_record, programs, records, setup

# Workload -> passes over its memory.
WORKLOADS = {"numa01": 120, "numa01_THREAD_ALLOC": 120, "numa02": 160, "numa02_SMT": 120}
# How many times more passes under KVM: a guess at its speed, never run.
KVM_PASSES = 10
KERNELS = ("base", "patched")
BOOTS = 10          # of each kernel; a boot runs every workload once

# The size axis, on the patched kernel: KiB of the pages that hold the memory,
# besides base pages and those of a PMD, where the kernel has them.
SIZES = (16, 64, 128)
# Workload -> (MiB of a process, passes over it).  Less memory than above: its
# base pages are migrated one by one, each with an interrupt for every other CPU.
SIZE_WORKLOADS = {"numa01_THREAD_ALLOC": (32, 320), "numa02": (64, 320)}
SIZE_BOOTS = 5      # each runs everything with every size


def step_run():
    """Measure both kernels, print the table, write results/<time>-run/."""
    arch = arches.wished()
    if not arch.numa:
        raise Failure(f"ARCH={arch.name}: its machine has one node: nothing to balance")
    trees = series.trees()
    built = {name: kernels.build(arch, trees[name], what=f"{name} kernel")
             for name in KERNELS}
    share = rootfs.folder(programs(arch), "bench")
    folder = new_results("run")
    data = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "arch": arch.name, "copied": arch.copied, "host_cpus": kernels.jobs(),
            "sysctls": SYSCTLS,
            "kernels": {n: {"tree": k.tree, "key": k.key} for n, k in built.items()},
            "verdict": NOT_RUN}
    save(folder, data)
    for name, kernel in built.items():
        write_file(folder / f"config-{name}", kernel.config.read_bytes())

    data["guests"], data["cost"] = cost.one_thp(built, share, folder)
    guests, found = cost.device(built["patched"], share, folder)
    data["guests"] += guests
    data |= found
    guests, data["runs"] = autonuma(built, share, folder)
    data["guests"] += guests
    data["accel"] = guests[0]["accel"]
    data["page_kib"] = chosen_sizes(data["guests"])
    guests, data["size_runs"] = size_axis(built["patched"], data["page_kib"], data["accel"],
                                          share, folder)
    data["guests"] += guests
    report.finish(data)
    save(folder, data)
    write_file(folder / "report.md", report.markdown(data))
    report.plot(data, folder / "share.svg")
    print("\n" + report.text(data))
    print(f"\nresults: {folder}")
    return EXIT_CODES[data["verdict"]]


def save(folder, data):
    """The results as JSON."""
    write_file(folder / "results.json", json.dumps(data, indent=1) + "\n")


def order(boots, names=KERNELS):
    """(kernel, or what else is named, boot number) of each guest: by turns, ABBA."""
    for boot in range(boots):
        for name in names if boot % 2 == 0 else reversed(names):
            yield name, boot


def tasks(start, accel):
    """Every workload, with its memory on node `start`."""
    times = KVM_PASSES if accel == "kvm" else 1
    return tuple(machine.Task(w, f"./autonuma.run {w} -s {start} -p {passes * times}", 180)
                 for w, passes in WORKLOADS.items())


def autonuma(built, share, folder):
    """The workloads on both kernels: guests and records.

    The memory starts on node 0 in even boots and on node 1 in odd ones.
    """
    guests, runs = [], []
    plan = list(order(BOOTS))
    first = built[plan[0][0]]
    accel = machine.accelerator(machine.Machine(first.arch), first, rootfs.basic(first))
    for number, (name, boot) in enumerate(plan, 1):
        start = boot % 2
        say(f"guest {number} of {len(plan)}: {name} kernel, memory starts on node {start}")
        out = workload_guest(built[name], tasks(start, accel), accel, share,
                             folder / f"{boot + 1}-{name}")
        guests.append(guest_record(name, f"autonuma {boot + 1}", out))
        for record in records(out).values():
            runs.append({"kernel": name, "boot": boot + 1, **record})
    return guests, runs


def workload_guest(kernel, todo, accel, share, folder):
    """A guest that runs tasks with programs of bench/ on two nodes: its outcome."""
    job = machine.Job(todo, where="/bench", setup=setup(SYSCTLS))
    return machine.run(machine.Machine(kernel.arch, accel=accel, timeout=900, slow=kernel.slow),
                       kernel, rootfs.basic(kernel) + [share], job, folder, progress)


def chosen_sizes(guests):
    """KiB of the pages of the size axis, base pages first.

    Nothing where the patched kernel has THP of one size only; a size that an
    architecture does not have is left out.
    """
    base, *thp = next((g["page_kib"] for g in guests
                       if g["kernel"] == "patched" and g["page_kib"]), [0])
    return [base, *(k for k in SIZES if k in thp and k < thp[-1]), thp[-1]] if thp else []


def size_tasks(sizes, boot, accel):
    """Every workload with every size, which a boot after the other puts first."""
    times = KVM_PASSES if accel == "kvm" else 1
    first, start = boot % len(sizes), boot % 2
    for kib in sizes[first:] + sizes[:first]:
        for workload, (mib, passes) in SIZE_WORKLOADS.items():
            yield machine.Task(f"{workload}-{kib}", f"./autonuma.run {workload} -s {start} -m "
                               f"{mib} -p {passes * times} -k {kib}", 180)
        yield machine.Task(f"contended-{kib}", f"./contended.run -s {start} -k {kib}", 180)


def size_axis(kernel, sizes, accel, share, folder):
    """The workloads on pages of each size: guests and records."""
    guests, runs = [], []
    for boot in range(SIZE_BOOTS if sizes else 0):
        say(f"sizes of pages: guest {boot + 1} of {SIZE_BOOTS}")
        out = workload_guest(kernel, tuple(size_tasks(sizes, boot, accel)), accel, share,
                             folder / f"sizes-{boot + 1}")
        guests.append(guest_record("patched", f"sizes {boot + 1}", out))
        runs += [{"boot": boot + 1, **record} for record in records(out).values()]
    return guests, runs


def progress(_task, line):
    """One line to the user for a record that came in."""
    try:
        r = json.loads(line) if line.startswith('{"test"') else {}
    except ValueError:
        return
    if "share_end" in r:
        size, share = "", r["share_end"]
        if "page_kib" in r:
            size, share = f"{r['page_kib']:>5} KiB", r["share_final"]
        say(f"  {r['test']:<20}{size} {r['seconds']:5.1f} s, "
            f"{100 * share:3.0f} % of the pages on the node of their user")
