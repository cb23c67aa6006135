"""What the programs of bench/ deliver: one line of JSON for each, and what a guest says of it.

A record that a guest did not deliver is missing from the results and fails the run.
"""

import json
from pathlib import Path

from harness import kernel as kernels
from harness.common import ROOT, build_dir, command, key_of, locked, new_dir, say

# The scanner's rates.  A run of seconds must see many scans, each of all the
# memory of a process (256 MB, also the kernel's default): partial scans leave
# numa01 undecided far more often.  No period goes below 100 ms with that size
# (task_scan_min()).
SYSCTLS = {
    "kernel.numa_balancing": 1,
    "kernel.numa_balancing_scan_delay_ms": 100,
    "kernel.numa_balancing_scan_period_min_ms": 100,
    "kernel.numa_balancing_scan_period_max_ms": 400,
    "kernel.numa_balancing_scan_size_mb": 256,
}


def programs(arch):
    """Folder with the programs of bench/, built for the guest."""
    bench = ROOT / "bench"
    sources = sorted(p for p in bench.rglob("*")
                     if p.suffix in (".c", ".h") or p.name == "Makefile")
    key = key_of("bench 1", arch.name, kernels.compiler(arch),
                 *(p.read_bytes() for p in sources))
    done = build_dir() / "bench" / key
    if not done.exists():
        with locked("bench"), new_dir(done) as tmp:
            say(f"building the workloads ({arch.name})")
            command(["make", "-C", bench, f"OUT={tmp}", f"CC={arch.cross()}gcc"],
                    build_dir() / "logs" / "bench.log", "building the workloads",
                    env=kernels.environment(arch))
    return done


def records(outcome):
    """{task: record} of the tasks that delivered one.

    A program prints its record as one line of JSON and nothing else on it.
    """
    found = {}
    for name, done in outcome.done.items():
        for line in done.lines:
            if done.code == 0 and line.startswith('{"test"'):
                try:
                    found[name] = json.loads(line)
                except ValueError:
                    pass
    return found


def complaint(outcome):
    """Why a guest did not deliver all its records, in one line; '' if it did."""
    if outcome.verdict != "pass":
        return outcome.why
    have = records(outcome)
    for name, done in outcome.done.items():
        if name not in have:
            said = [s for s in done.lines if s.strip() and not s.startswith("{")]
            return f"{name}: {said[-1] if said else f'exit code {done.code}'}"
    return ""


def guest_record(kernel, what, outcome):
    """What the results say about a guest."""
    why = complaint(outcome)
    verdict = outcome.verdict if outcome.verdict != "pass" or not why else "fail"
    if why:
        say(f"  {verdict}: {why} (see {outcome.folder})")
    return {"kernel": kernel, "what": what, "verdict": verdict, "why": why,
            "accel": outcome.accel, "seconds": round(outcome.seconds, 1),
            "sysctls": (outcome.file("sysctls") or "").splitlines(),
            "page_kib": [int(n) for n in (outcome.file("page_kib") or "").split()],
            "folder": Path(outcome.folder).name}


# KiB of the kernel's pages, the base page first: what each guest records.  A size without
# `enabled`, which later kernels have, is one of page cache only.
PAGE_KIB = r"""{ awk '/^KernelPageSize/ {print $2; exit}' /proc/self/smaps
ls /sys/kernel/mm/transparent_hugepage/*/enabled 2>/dev/null |
sed -n 's|.*/hugepages-\(.*\)kB/enabled$|\1|p' | sort -n
} > /results/page_kib"""


def setup(sysctls):
    """Shell commands that set the sysctls and record what they are then, and the page sizes."""
    lines = [f"sysctl -w {k}={v} >/dev/null" for k, v in sysctls.items()]
    names = " ".join(sysctls)
    return "\n".join(lines + [f"sysctl {names} > /results/sysctls", PAGE_KIB])
