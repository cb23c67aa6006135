"""The plugin of bench/profile in a guest, against its clock; skipped without a kernel."""

import unittest

from harness import arches, cost, machine, profile, records, rootfs
from harness.machine import Task
from harness.tests import test_common
from harness.tests.guest_machine import KERNEL

# Found before a test has its own build folder
BUILT = KERNEL and arches.default().numa
PLUGIN = profile.plugin() if BUILT else None
PROGRAMS = records.programs(arches.default()) if BUILT else None
SYSTEM = rootfs.system(arches.default()) if BUILT else None


@unittest.skipUnless(BUILT, "no kernel has been built yet")
class Profile(test_common.Folder):
    """A guest with the plugin."""

    def run_guest(self, mach, *tasks):
        """Outcome and the windows' file."""
        windows = self.tmp / "windows"
        job = machine.Job(tasks, where="/bench", heartbeat=False,
                          setup="\n".join((records.setup(cost.FAST), profile.SYMBOLS)))
        share = rootfs.folder(PROGRAMS, "bench")
        return machine.run(mach(profile.options(PLUGIN, windows)), KERNEL, [SYSTEM, share], job,
                           self.tmp / "guest"), windows

    def test_agrees_with_the_clock(self):
        """A window has the instructions of its value but the touch itself, which is no kernel's."""
        out, windows = self.run_guest(lambda options: cost.counting(KERNEL, options),
                                      Task("thp", "./thp_cost.run -n 8", 120),
                                      Task("base", "./thp_cost.run -n 8 -k 0", 120))
        self.assertEqual((out.verdict, out.why, records.complaint(out)), ("pass", "", ""))
        found = profile.read(windows)
        symbols = profile.Symbols(out.file("kallsyms"))
        for record in records.records(out).values():
            for number, value in zip(record["windows"], record["values"]):
                window = found[record["window"], number]
                self.assertLessEqual(abs(value - window.instructions), 4)
                names = {symbols.function(a) for a in window.at}
                self.assertTrue(names & {"do_huge_pmd_numa_page", "do_numa_page",
                                         "handle_mm_fault"}, names)
        # What is not in the window of a fault: the program's other system calls
        self.assertFalse([w for w in found.values()
                          if any("kallsyms" in symbols.function(a) for a in w.at)])

    def test_refuses_several_cpus(self):
        out, _ = self.run_guest(lambda options: machine.Machine(
            KERNEL.arch, accel="tcg", options=options, timeout=120), Task("true", "true"))
        self.assertEqual(out.verdict, "infra")
        self.assertIn("only for a guest of one vCPU", out.why)


if __name__ == "__main__":
    unittest.main()
