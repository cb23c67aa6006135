"""bench/native/run in a guest with two nodes, which is a machine to it, and in one with one.

On a kernel that was built before; skipped without one.
"""

import json
import unittest

from harness import common, machine, native, records, rootfs
from harness.machine import Job, Task
from harness.tests import guest_machine, test_common

KERNEL = guest_machine.KERNEL
SETTINGS = ("cat /proc/sys/kernel/numa_balancing* "
            "/sys/kernel/mm/transparent_hugepage/enabled "
            "/sys/kernel/mm/transparent_hugepage/hugepages-*kB/enabled 2>/dev/null")


@unittest.skipUnless(KERNEL, "no kernel has been built yet")
class Guest(test_common.Folder):
    @classmethod
    def setUpClass(cls):
        # The folders of each test are empty: what is shared is made before.
        cls.parts = [*rootfs.basic(KERNEL), rootfs.folder(records.programs(KERNEL.arch), "bench"),
                     rootfs.folder(common.ROOT / "bench" / "native", "native")]

    def run_guest(self, command, topology="default"):
        mach = machine.Machine(KERNEL.arch, machine.TOPOLOGIES[topology], accel="tcg",
                               timeout=400, silence=100, slow=KERNEL.slow)
        out = machine.run(mach, KERNEL, self.parts, Job((
            Task("before", SETTINGS), Task("run", command, 300), Task("after", SETTINGS))),
            self.tmp / "guest")
        self.assertEqual((out.verdict, out.why), ("pass", ""))
        self.assertTrue(out.done["before"].lines)
        self.assertEqual(out.done["after"].lines, out.done["before"].lines)
        out.extract()
        return out

    def test_two_nodes(self):
        out = self.run_guest("/native/run -n 1 -t 4 -m 32 -p /bench -o /results/native "
                             "numa01_THREAD_ALLOC")
        said = "\n".join(out.done["run"].lines)
        self.assertEqual(out.done["run"].code, 0, said)
        data = native.finish(native.read(out.folder / "results" / "native"))
        self.assertEqual((data["verdict"], data["failed"]), ("pass", []))
        self.assertEqual(len(data["machine"]["nodes"]), 2)
        self.assertEqual(data["sysctls"]["/proc/sys/kernel/numa_balancing_scan_period_max_ms"],
                         400)
        for kib in {r["page_kib"] for r in data["runs"]}:
            by = {c: native.records(data, "numa01_THREAD_ALLOC", kib, c)[0]
                  for c in native.COLUMNS}
            self.assertEqual(by["hard"]["share_final"], 1, kib)
            self.assertEqual(by["inverse"]["share_final"], 0, kib)
            for column in ("off", "hard", "inverse"):
                self.assertEqual(by[column]["vmstat"]["numa_hint_faults"], 0, (kib, column))
            self.assertGreater(by["on"]["vmstat"]["numa_hint_faults"], 0, kib)
        self.assertIn("verdict: pass", native.text(data))
        json.dumps(data)

    def test_interrupted(self):
        out = self.run_guest("/native/run -n 1 -t 60 -m 32 -p /bench -o /results/native & "
                             "sleep 8; cat /proc/sys/kernel/numa_balancing_scan_delay_ms; "
                             "kill -TERM $!; wait $!; echo code $?; pidof autonuma.run")
        self.assertEqual(out.done["run"].lines[-2:], ["100", "code 143"])

    def test_one_node(self):
        out = self.run_guest("/native/run -p /bench -o /results/native", "one-node")
        self.assertEqual((out.done["run"].code, out.done["run"].lines),
                         (4, ["native: this machine has one node with memory: "
                              "nothing to balance"]))


if __name__ == "__main__":
    unittest.main()
