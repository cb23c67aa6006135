"""The meter counts accesses that are known; needs a kernel that was built before."""

import json
import unittest

from harness import arches, machine, measure, meter, rootfs
from harness.common import Failure
from harness.machine import Job, Machine, Node, Task
from harness.tests import test_common
from harness.tests.guest_machine import KERNEL

# Of known.c: CPU, node of its memory, node of all else.
PLACES = ((0, 0, 1), (1, 1, 0), (2, 0, 1), (3, 1, 0))
CPUS = (0, 0, 1, 1)


@unittest.skipUnless(KERNEL, "no kernel has been built yet")
@unittest.skipUnless(arches.default().numa, "a machine with one node")
class Meter(test_common.Folder):
    def metered(self, places, **how):
        """What known.c says of its runs in a guest: [(CPU, node, {phase: record})]; phases."""
        parts = rootfs.basic(KERNEL) + [rootfs.folder(self.programs, "bench")]
        tasks = tuple(Task(f"known-{i}", "./known.run " + " ".join(map(str, place)), 60)
                      for i, place in enumerate(places))
        out = machine.run(Machine(KERNEL.arch, accel="tcg", timeout=300, slow=2 * KERNEL.slow,
                                  options=meter.options(self.plugin, self.tmp / "meter", **how)),
                          KERNEL, parts, Job(tasks, where="/bench", heartbeat=False),
                          self.tmp / "guest")
        self.assertEqual((out.verdict, out.why), ("pass", ""))
        said = []
        for done in out.done.values():
            self.assertEqual(done.code, 0, done.lines)
            record = json.loads(done.lines[-1])
            said.append((record["cpu"], record["node"], record["phases"]))
        return said, meter.read(self.tmp / "meter")

    @classmethod
    def setUpClass(cls):
        cls.plugin = meter.plugin()
        cls.programs = measure.programs(KERNEL.arch)

    def test_known_accesses(self):
        said, phases = self.metered(PLACES)
        self.assertEqual([p.name for p in phases],
                         [known["name"] for _, _, all_ in said for known in all_])
        todo = iter(phases)
        for cpu, node, all_ in said:
            for known in all_:
                with self.subTest(cpu=cpu, node=node, phase=known["name"]):
                    self.compare(next(todo), cpu, node, known)

    def compare(self, phase, cpu, node, known):
        """Exactly what the program did, and nothing of other CPUs."""
        self.assertEqual(phase.cpus, CPUS)
        for op in meter.OPS:
            seen = phase.matrix("accesses", ("user",), (op,))
            self.assertEqual([row[node] for row in seen],
                             [known[op] if i == cpu else 0 for i in range(len(CPUS))])
        lines = known["size"] // meter.LINE
        fits = known["size"] < phase.cache_kib << 10
        misses = phase.matrix("misses", ("user",))[cpu][node]
        self.assertEqual(misses, lines if fits else lines * known["passes"])
        # The kernel's own accesses are few beside those of the larger phases.
        if not fits:
            share = phase.local_share("misses", ("user",))
            self.assertAlmostEqual(share, 1 if CPUS[cpu] == node else 0, places=3)
        self.assertEqual(sum(local + remote for _, local, remote in phase.over_time()),
                         phase.total())

    def test_no_cache(self):
        said, phases = self.metered(PLACES[:1], cache_kib=0)
        self.assertTrue(phases)
        for phase, known in zip(phases, said[0][2]):
            self.assertEqual(phase.matrix("misses", ("user",))[0][0],
                             known["loads"] + known["stores"])
            self.assertEqual(phase.matrix("misses"), phase.matrix("accesses"))

    def test_nodes_elsewhere(self):
        with self.assertRaisesRegex(Failure, "memory of node [01] is at 0x[0-9a-f]+, where no"):
            self.metered(PLACES[:1], nodes=(Node(2, 512), Node(2, 1536)))


if __name__ == "__main__":
    unittest.main()
