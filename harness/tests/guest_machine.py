"""Guests that go wrong, on a kernel that was built before; skipped without one."""

import unittest
from dataclasses import replace

from harness import arches, kernel, machine, rootfs, series
from harness.common import Failure, build_dir
from harness.cpio import Archive
from harness.machine import Job, Task
from harness.tests import test_common


def built():
    """A remembered kernel, or None."""
    arch = arches.default()
    if not (build_dir() / "linux").is_dir():
        return None
    top = series.present()
    for branch in [t.branch for t in reversed(top)] + ["base"]:
        for flavor in kernel.FLAVORS:
            try:
                found = kernel.find(arch, kernel.tree_of(branch), flavor)
            except Failure:
                continue
            if found:
                return found
    return None


KERNEL = built()


@unittest.skipUnless(KERNEL, "no kernel has been built yet")
class Guest(test_common.Folder):
    def run_guest(self, *tasks, init=None, kern=KERNEL, **more):
        mach = replace(machine.Machine(arches.default(), accel="tcg", silence=60,
                                       timeout=120, slow=kern.slow), **more)
        parts = [self.system]
        if init:
            out = Archive()
            out.file("init", init, 0o755)
            (self.tmp / "init").write_bytes(out.data())
            parts.append(self.tmp / "init")
        return machine.run(mach, kern, parts, Job(tasks), self.tmp / "guest")

    @property
    def system(self):
        return rootfs.system(arches.default())

    def test_good(self):
        out = self.run_guest(Task("one", "echo hello; echo file > /results/f; printf x"),
                             Task("two", "exit 7"))
        self.assertEqual((out.verdict, out.why), ("pass", ""))
        self.assertEqual(out.done["one"].lines, ["hello", "x"])
        self.assertEqual((out.done["one"].code, out.done["two"].code), (0, 7))
        self.assertEqual(out.file("f"), "file\n")
        self.assertIn("numa_pages_migrated", out.file("vmstat.after"))

    def test_task_that_hangs(self):
        out = self.run_guest(Task("hang", "sleep 1000", 3), Task("next", "echo here"))
        self.assertEqual(out.verdict, "pass")
        self.assertTrue(out.done["hang"].timed_out)
        self.assertEqual(out.done["next"].lines, ["here"])

    def test_panic(self):
        out = self.run_guest(Task("never", "true"), init="#!/bin/sh\nexit 1\n")
        self.assertEqual(out.verdict, "crash")
        self.assertIn("Kernel panic - not syncing", out.why)
        self.assertFalse(out.done["never"].started)

    def test_hang(self):
        out = self.run_guest(Task("long", "sleep 1000", 1000), timeout=20)
        self.assertEqual(out.verdict, "timeout")
        self.assertRegex(out.why, "not finished after .* in long")

    def test_silence(self):
        out = self.run_guest(init="#!/bin/sh\nwhile :; do :; done\n", silence=8)
        self.assertEqual(out.verdict, "timeout")
        self.assertRegex(out.why, "silent for .* before init")

    def test_guest_that_goes_away(self):
        out = self.run_guest(Task("off", "poweroff -f"), Task("after", "true"))
        self.assertEqual(out.verdict, "lost")
        self.assertIsNone(out.done["off"].code)

    def test_splat(self):
        out = self.run_guest(Task("bad", "echo '<4>WARNING: CPU: 0 at x' > /dev/kmsg"))
        self.assertEqual(out.verdict, "crash")
        self.assertEqual([s.task for s in out.splats], ["bad"])

    def test_no_image(self):
        nothing = replace(KERNEL, folder=self.tmp / "nothing")
        out = self.run_guest(kern=nothing)
        self.assertEqual(out.verdict, "infra")
        self.assertIn("QEMU did not start", out.why)


if __name__ == "__main__":
    unittest.main()
