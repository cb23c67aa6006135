"""Find what the kernel complained about in its log.

An exception is one line of splat-exceptions: regular expression, reason and
link, separated by tabs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from harness.common import Failure

PATTERNS = re.compile(r"""
      \bWARNING:\s | \bkernel\ BUG\ at\b | \bBUG:\s | \bKASAN: | \bUBSAN:
    | \bINFO:\ (possible|inconsistent|suspicious|task\ .*\ blocked|rcu|trying\ to\ register)
    | \bBad\ rss-counter | \bbad\ p[gu4m]d | \bBad\ page\ (state|map|cache)
    | \brcu:.*\bdetected\ (stalls|expedited\ stalls) | \bself-detected\ stall
    | \bwatchdog:\ BUG | \bsoft\ lockup | \bhard\ LOCKUP
    | \bOops: | \bInternal\ error:\s | \bilc:\d+\s+\[\#\d+\]
    | \bgeneral\ protection\ fault | \bUnable\ to\ handle\ kernel
    | \bunregister_netdevice: | \bINFO:\ lockdep\ is\ turned\ off
    | \bpage\ dumped\ because:\ VM_BUG | \bpossible\ (circular|recursive)\ locking
    | \bsleeping\ function\ called\ from\ invalid
    | \bBUG\ \S+\ \((Not\ t|T)ainted | \bSlab\ cache\ still\ has\ objects
""", re.VERBOSE)
# printk's own prefix: "[   12.345678]", with a caller id where configured.
STAMP = re.compile(r"^\[\s*\d+\.\d+\](\[\s*[TC]\d+\])?\s?")
# guest/init notes the start of each task in the kernel's log.
TASK = re.compile(r"harness: start (\S+)")
PANIC = re.compile(r"Kernel panic - not syncing:.*")


@dataclass(frozen=True)
class Splat:
    """A line that should not be there, and the task that ran ('' at boot)."""

    line: str
    task: str

    def warns_in(self, name):
        """Whether it is the warning of a function whose name begins so."""
        return f" {name}" in self.line.partition("WARNING: ")[2]


def exceptions(path=Path(__file__).with_name("splat-exceptions")):
    """The compiled expressions of the exceptions file."""
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [f.strip() for f in line.split("\t") if f.strip()]
        if len(fields) != 3 or not fields[2].startswith("https://"):
            raise Failure(f"{path.name}:{number}: wants expression, reason and link, "
                          "separated by tabs")
        found.append(re.compile(fields[0]))
    return found


def scan(logs, allowed=None):
    """The splats of several logs of one boot, each once, in order."""
    allowed = exceptions() if allowed is None else allowed
    seen, found = set(), []
    for log in logs:
        task = ""
        for raw in log.splitlines():
            line = STAMP.sub("", raw.strip("\r\n"))
            start = TASK.search(line)
            if start:
                task = start[1]
            elif PATTERNS.search(line) and not any(e.search(line) for e in allowed):
                if line not in seen:
                    seen.add(line)
                    found.append(Splat(line, task))
    return found


def panic(console):
    """The panic's line, or ''."""
    found = PANIC.search(console)
    return found[0].strip() if found else ""
