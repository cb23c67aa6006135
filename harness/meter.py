"""Where the memory accesses of a guest go: the plugin of bench/meter, and what it wrote.

A phase is what a program of bench/ runs between mark_begin() and mark_end().
Its `accesses` are all loads and stores of the guest, its `misses`, the memory
traffic, those that miss the filter: a cache of each vCPU.  Both are counted by
vCPU and by node of the memory; bench/meter/README.md says how.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from harness import emulator, machine
from harness.common import ROOT, Failure

CACHE_KIB, WAYS, SLICE_MS = 1024, 16, 100
LINE = 64                       # bytes
MODES = ("user", "kernel")      # of the instruction
OPS = ("loads", "stores")
# What can be asked for -> which counts of the plugin it is, by operation.
COUNTS = {"accesses": {"loads": "loads", "stores": "stores"},
          "misses": {"loads": "load_misses", "stores": "store_misses"}}


def plugin():
    """Path of the plugin, built unless it is remembered."""
    return emulator.plugin(ROOT / "bench" / "meter" / "meter.c")


def options(plug, out, cache_kib=CACHE_KIB, ways=WAYS, slice_ms=SLICE_MS,
            nodes=machine.TOPOLOGIES["default"]):
    """QEMU options that have a guest metered.

    plug: plugin().  out: the file to write.  cache_kib: of a vCPU's filter, 0
    for none.  nodes: machine.Machine.nodes of the guest.
    """
    sets, rest = divmod(cache_kib << 10, LINE * ways) if ways > 0 else (0, 1)
    if cache_kib < 0 or rest or sets & (sets - 1):
        raise Failure(f"a cache of {cache_kib} KiB in {ways} ways: the number of its sets of "
                      f"{LINE} bytes each way must be a power of two")
    if slice_ms < 1:
        raise Failure(f"slices of {slice_ms} ms: must be at least 1")
    if "," in str(out):
        raise Failure(f"{out}: QEMU takes no name with a ','")
    words = [str(plug), f"out={Path(out).resolve()}", f"cache={cache_kib}", f"ways={ways}",
             f"slice={slice_ms}", *(f"node={n.cpus}:{n.mib}" for n in nodes)]
    return ("-plugin", ",".join(words))


@dataclass(frozen=True)
class Phase:
    """What was counted between two markers."""

    name: str
    seconds: float
    cache_kib: int
    ways: int
    cpus: tuple         # of each vCPU: its node
    nodes: int
    counts: tuple       # of each vCPU: {mode: {count: [of each node]}}, see COUNTS
    other: tuple        # of each vCPU: accesses to devices and to firmware
    slice_seconds: float
    slices: tuple       # of each slice of time: [vCPU][node], misses

    def matrix(self, what="misses", modes=MODES, ops=OPS):
        """Number of accesses or misses, [vCPU][node]; of some modes and operations only."""
        names = [COUNTS[what][op] for op in ops]
        return tuple(tuple(sum(cpu[m][n][node] for m in modes for n in names)
                           for node in range(self.nodes)) for cpu in self.counts)

    def total(self, what="misses", modes=MODES, ops=OPS):
        """The sum over vCPUs and nodes."""
        return sum(map(sum, self.matrix(what, modes, ops)))

    def by_node(self, what="misses", modes=MODES, ops=OPS):
        """Sums over vCPUs: of each node."""
        return tuple(map(sum, zip(*self.matrix(what, modes, ops))))

    def local(self, what="misses", modes=MODES, ops=OPS):
        """Number of those that went to the node of their vCPU."""
        return self._local(self.matrix(what, modes, ops))

    def local_share(self, what="misses", modes=MODES, ops=OPS):
        """Share of those that went to the node of their vCPU; None if there are none."""
        total = self.total(what, modes, ops)
        return self.local(what, modes, ops) / total if total else None

    def _local(self, matrix):
        return sum(row[node] for node, row in zip(self.cpus, matrix))

    def over_time(self):
        """[(seconds since the start, local misses, remote misses)] of each slice, at its end."""
        found = []
        for i, matrix in enumerate(self.slices, 1):
            local = self._local(matrix)
            found.append((i * self.slice_seconds, local, sum(map(sum, matrix)) - local))
        return found


def modelled(phase, distances, what="misses"):
    """Modelled memory time, in accesses to local memory.

    The sum over all vCPUs v and nodes n of misses(v, n) times
    distance(node of v, n) / distance(node of v, node of v).
    distances: a matrix as machine.distances() gives.
    """
    if len(distances) < phase.nodes:
        raise Failure(f"distances of {len(distances)} nodes, the guest has {phase.nodes}")
    return sum(count * distances[at][node] / distances[at][at]
               for at, row in zip(phase.cpus, phase.matrix(what))
               for node, count in enumerate(row))


def read(path):
    """The phases that the plugin wrote, in order.

    One that the guest did not end is left out: so is one that died in it, and a
    last line of one that was cut, as QEMU was ended while it wrote it.  Raises Failure
    if another line is damaged, or if the guest's nodes are not where the plugin
    was told that they are.
    """
    path, found = Path(path), []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        raise Failure(f"{path}: the guest was not metered: did QEMU load the plugin?") from None
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if "error" in record:
                raise Failure(f"{path}:{number}: {record['error']}")
            if "unfinished" not in record:
                found.append(_phase(record))
        except (ValueError, KeyError, TypeError, IndexError) as e:
            if number == len(lines) and line.startswith('{"phase"') and line[-1] != "\n":
                break
            raise Failure(f"{path}:{number}: not a record of the meter: "
                          f"{line.rstrip()[:60]}") from e
    return found


def _phase(record):
    """The phase of a line; one of many errors of Python for what is none."""
    cpus, nodes = record["cpus"], record["nodes"]
    phase = Phase(name=record["phase"], seconds=record["seconds"],
                  cache_kib=record["cache_kib"], ways=record["ways"],
                  cpus=tuple(c["node"] for c in cpus), nodes=nodes,
                  counts=tuple({m: c[m] for m in MODES} for c in cpus),
                  other=tuple(c["other"] for c in cpus),
                  slice_seconds=record["slice_ms"] / 1000, slices=tuple(record["slices"]))
    for matrix in (*phase.slices, *(phase.matrix(what) for what in COUNTS)):
        if len(matrix) != len(cpus) or any(len(row) != nodes for row in matrix):
            raise ValueError("a number is missing")
    return phase
