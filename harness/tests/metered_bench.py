"""The bounds of placement, seen by the meter; needs a kernel that was built before."""

import unittest

from harness import arches, bench, machine, meter, records, rootfs
from harness.machine import Job, Machine, Task
from harness.tests import test_common
from harness.tests.guest_machine import KERNEL


@unittest.skipUnless(KERNEL, "no kernel has been built yet")
@unittest.skipUnless(arches.default().numa, "a machine with one node")
class Bounds(test_common.Folder):
    @classmethod
    def setUpClass(cls):
        cls.plugin = meter.plugin()
        cls.programs = records.programs(KERNEL.arch)

    def guest(self, *commands, balancing=0):
        """Outcome of a metered guest that runs autonuma several times."""
        tasks = tuple(Task(str(i), f"./autonuma.run {c}", 60) for i, c in enumerate(commands))
        job = Job(tasks, where="/bench", heartbeat=False,
                  setup=bench.settings(bench.RATES | {"kernel.numa_balancing": balancing}))
        how = Machine(KERNEL.arch, accel="tcg", timeout=300, slow=2 * KERNEL.slow,
                      options=meter.options(self.plugin, self.tmp / "meter"))
        out = machine.run(how, KERNEL, rootfs.basic(KERNEL) +
                          [rootfs.folder(self.programs, "bench")], job, self.tmp / "guest")
        self.assertEqual((out.verdict, out.why), ("pass", ""))
        return out

    def test_swap(self):
        """The best placement and the worst: same CPUs, same memory on each node, other nodes."""
        todo = [(w, b) for w in bench.WORKLOADS for b in ("hard", "inverse")]
        out = self.guest(*(f"{w} -b {b} -m 16 -p 40 -l" for w, b in todo))
        found = records.records(out)
        self.assertEqual(len(found), len(todo), records.complaint(out))
        for (workload, bound), r, phase in zip(todo, found.values(),
                                               meter.read(self.tmp / "meter")):
            with self.subTest(workload=workload, bound=bound):
                self.assertEqual((r["test"], r["bound"], phase.name),
                                 (workload, bound, workload))
                local = bound == "hard"
                self.assertEqual(r["share_final"], 1 if local else 0)
                mib = [sum(m) for m in zip(*r["end_mib"])]
                self.assertEqual(mib, [16 * r["processes"] / 2] * 2)
                share = phase.local_share(modes=("user",))
                self.assertAlmostEqual(share, 1 if local else 0, delta=0.02)

    def test_balancing_leaves_it_alone(self):
        out = self.guest("numa02 -b inverse -m 16 -p 200 -l", balancing=1)
        r = records.records(out)["0"]
        self.assertEqual(r["share_final"], 0)

    def test_no_start_node(self):
        done = self.guest("numa02 -b hard -s 1 -m 16 -p 1").done["0"]
        self.assertEqual(done.code, 1)
        self.assertIn("-b says where", done.lines[0])


if __name__ == "__main__":
    unittest.main()
