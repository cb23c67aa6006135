"""Which functions of the kernel ran in an operation: the plugin of bench/profile, its windows.

A window is what a program of bench/ runs between mark_begin() and mark_end().  Only
instructions of the kernel are counted, each by its address; the guest's own
/proc/kallsyms, which has the modules too, says what function is there.
"""

import bisect
import json
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from harness import emulator
from harness.common import ROOT, Failure

# Windows with fewer instructions have no fault in them: not even written.
LEAST = 500
# Shell command that leaves the symbols of the guest's functions in its /results.
SYMBOLS = "grep -i ' [tw] ' /proc/kallsyms > /results/kallsyms"


def plugin():
    """Path of the plugin, built unless it is remembered."""
    return emulator.plugin(ROOT / "bench" / "profile" / "profile.c")


def options(plug, out, least=LEAST):
    """QEMU options that have a guest of one vCPU profiled.

    plug: plugin().  out: the file to write.  least: instructions of a window that is written.
    """
    if "," in str(out):
        raise Failure(f"{out}: QEMU takes no name with a ','")
    return ("-plugin", f"{plug},out={Path(out).resolve()},least={least}")


@dataclass(frozen=True)
class Window:
    """One operation."""

    name: str
    number: int         # of those of its name, from 0
    instructions: int   # of the kernel
    at: dict            # {address: how often}


def read(path):
    """{(name, number): Window} of what the plugin wrote.  Raises Failure if it is damaged."""
    path, found = Path(path), {}
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                window = _window(line)
                if not window:
                    raise Failure(f"{path}:{number}: not a window of the plugin: {line[:60]}")
                found[window.name, window.number] = window
    except FileNotFoundError:
        raise Failure(f"{path}: the guest was not profiled: did QEMU load the plugin?") from None
    return found


def _window(line):
    """The window of a line, or None."""
    try:
        record = json.loads(line)
        at = {int(a, 16): int(n) for a, n in record["at"].items()}
        window = Window(record["window"], record["number"], record["instructions"], at)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return window if sum(at.values()) == window.instructions else None


class Symbols:
    """The functions of a kernel, by address."""

    def __init__(self, text):
        """text: lines of /proc/kallsyms.  Raises Failure if there is no function in it."""
        names = {}
        for line in text.splitlines():
            words = line.split()
            if len(words) in (3, 4) and words[1] in "tTwW":
                # Of several names the global one, and not one of a section's beginning or end
                rank = (words[1] not in "TW", words[2].startswith("_"), words[2])
                names.setdefault(int(words[0], 16), []).append(rank)
        self.names = {a: _plain(min(found)[-1]) for a, found in names.items() if a}
        self.starts = sorted(self.names)
        if not self.starts:
            raise Failure("the guest's kallsyms has no function: was it read as root?")

    def function(self, address):
        """Name of the function that an address is in."""
        i = bisect.bisect_right(self.starts, address)
        return self.names[self.starts[i - 1]] if i else f"{address:#x}"


def _plain(name):
    """A name without what the compiler adds to the parts of a function that it makes."""
    return name.split(".")[0] or name


def middle(windows):
    """The middle half of some windows by their length: without those that a timer hit."""
    ordered = sorted(windows, key=lambda w: w.instructions)
    cut = len(ordered) // 4
    return ordered[cut:len(ordered) - cut]


def without_copy(window, copied):
    """{address: how often} of a window, less `copied` times the instruction that copies.

    That is the one that ran most often; where there are several copies, the next ones too.
    """
    left, at = copied, dict(window.at)
    for address, n in sorted(window.at.items(), key=lambda item: (-item[1], item[0])):
        if not left:
            break
        less = min(n, left)
        at[address], left = n - less, left - less
    return at


def breakdown(windows, symbols, copied):
    """[[function, instructions]] of the mean of some windows, the most first.

    copied: instructions of a window that are the copy, left out.
    """
    total = Counter()
    for window in windows:
        for address, n in without_copy(window, copied).items():
            total[symbols.function(address)] += n
    return [[name, n / len(windows)] for name, n in total.most_common() if n]


def hottest(windows):
    """How often the instruction ran that ran most often, the median of some windows."""
    return statistics.median_low([max(w.at.values()) for w in windows])
