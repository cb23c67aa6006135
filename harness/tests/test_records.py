"""records.py: what counts as a record, and what is said when there is none."""

import unittest
from pathlib import Path
from unittest import mock

from harness import records
from harness.machine import Done, Outcome

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


if __name__ == "__main__":
    unittest.main()
