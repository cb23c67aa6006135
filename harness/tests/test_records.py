"""records.py: what counts as a record, and what is said when there is none."""

import subprocess
import unittest
from pathlib import Path
from unittest import mock

from harness import records
from harness.common import ROOT
from harness.machine import Done, Outcome
from harness.tests import test_common

RECORD = '{"test": "numa01", "seconds": 5, "share_end": 1}'


def outcome(verdict="pass", **done):
    """A guest with tasks name=(code, lines)."""
    return Outcome(verdict, "" if verdict == "pass" else "panic", 12.3, Path("r/1-base"),
                   {n: Done(n, code=c, lines=lines, started=True)
                    for n, (c, lines) in done.items()}, [], "tcg")


class Records(unittest.TestCase):
    def test_one(self):
        out = outcome(numa01=(0, ["noise", RECORD]))
        self.assertEqual(records.records(out)["numa01"]["seconds"], 5)
        self.assertEqual(records.complaint(out), "")

    def test_failed_program(self):
        out = outcome(numa01=(1, [RECORD, "data lost at offset 64: 0"]))
        self.assertEqual(records.records(out), {})
        self.assertEqual(records.complaint(out), "numa01: data lost at offset 64: 0")

    def test_cut_off(self):
        out = outcome(numa01=(0, [RECORD[:20]]), numa02=(None, []))
        self.assertEqual(records.records(out), {})
        self.assertEqual(records.complaint(out), "numa01: exit code 0")

    def test_crash(self):
        self.assertEqual(records.complaint(outcome("crash", numa01=(0, [RECORD]))), "panic")


class GuestRecord(unittest.TestCase):
    @mock.patch.object(records, "say", lambda message: None)
    def test_verdicts(self):
        for verdict, code, want in (("pass", 0, "pass"), ("pass", 1, "fail"),
                                    ("timeout", 0, "timeout"), ("crash", 1, "crash")):
            out = outcome(verdict, numa01=(code, [RECORD]))
            self.assertEqual(records.guest_record("base", "cost", out)["verdict"], want)


class Setup(unittest.TestCase):
    def test_sysctls_are_set_and_recorded(self):
        lines = records.setup({"a.b": 1, "c.d": 2}).splitlines()
        self.assertEqual(lines, ["sysctl -w a.b=1 >/dev/null", "sysctl -w c.d=2 >/dev/null",
                                 "sysctl a.b c.d > /results/sysctls",
                                 *records.PAGE_KIB.splitlines()])


class Sizes(test_common.Folder):
    """Sizes of pages that a kernel has, by files that are made up."""

    SYS = "/sys/kernel/mm/transparent_hugepage"
    # Allows pages of the size that it is given, and puts all back.
    PROGRAM = """#include <stdlib.h>
#include "mem.h"
int main(int argc, char **argv) { mem_allow_pages(atol(argv[1]) << 10); return argc != 2; }
"""

    def setUp(self):
        super().setUp()
        for name in ("enabled", "khugepaged/defrag", "hugepages-8kB/shmem_enabled",
                     "hugepages-2048kB/enabled", "hugepages-64kB/enabled"):
            path = self.tmp / "thp" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("always inherit madvise [never]\n")

    def recorded(self):
        """What a guest records, without the base page."""
        script = records.PAGE_KIB.replace(self.SYS, f"{self.tmp}/thp") \
            .replace("/results", str(self.tmp))
        subprocess.run(["sh", "-c", script], check=True)
        return (self.tmp / "page_kib").read_text().split()[1:]

    def test_recorded(self):
        self.assertEqual(self.recorded(), ["64", "2048"])

    def test_one_size(self):
        for kib in (64, 2048):
            (self.tmp / f"thp/hugepages-{kib}kB/enabled").unlink()
        self.assertEqual(self.recorded(), [])

    def allow(self, kib):
        """Exit code and last words of a program that has pages of a size only."""
        lib = ROOT / "bench" / "lib"
        source = (lib / "mem.c").read_text().replace(self.SYS, f"{self.tmp}/thp")
        (self.tmp / "mem.c").write_text(source)
        (self.tmp / "main.c").write_text(self.PROGRAM)
        subprocess.run(["gcc", "-I", lib, "-o", self.tmp / "main", self.tmp / "main.c",
                        self.tmp / "mem.c"], check=True)
        done = subprocess.run([self.tmp / "main", str(kib)], capture_output=True, text=True,
                              check=False)
        return done.returncode, done.stderr

    def test_allowed(self):
        self.assertEqual(self.allow(64), (0, ""))
        self.assertEqual(self.allow(8), (1, "this kernel has no pages of 8 KiB\n"))


if __name__ == "__main__":
    unittest.main()
