"""Reading test output."""

import tempfile
import unittest
import xml.etree.ElementTree as ET
from pathlib import Path

from harness import ktap
from harness.machine import Done

FIXTURES = Path(__file__).with_name("fixtures")


def lines(name):
    return (FIXTURES / f"{name}.tap").read_text().splitlines()


def done(name, code=0, **more):
    return Done("thp", code, 1.0, started=True, lines=lines(name), **more)


class Parse(unittest.TestCase):
    def verdicts(self, cases):
        return {c.name: c.verdict for c in cases}

    def test_nested(self):
        cases, problems = ktap.parse(lines("nested"), "kunit")
        self.assertEqual(self.verdicts(cases), {
            "first_suite.adds_up": "pass", "first_suite.carries": "fail",
            "second_suite.holds": "skip"})
        self.assertIn("EXPECTATION FAILED", cases[1].why)
        self.assertEqual(cases[2].why, "needs two nodes")
        self.assertEqual(problems, [])

    def test_suite_that_fails_as_a_whole(self):
        text = [s.replace("not ok 2", "ok 2") for s in lines("nested")]
        cases, _ = ktap.parse(text, "kunit")
        self.assertEqual(self.verdicts(cases)["first_suite"], "fail")

    def test_debugfs_has_no_outer_plan(self):
        cases, problems = ktap.parse(lines("nested")[2:], "kunit")
        self.assertEqual(len(cases), 3)
        self.assertEqual(problems, [])

    def test_flat(self):
        cases, problems = ktap.parse(lines("flat"), "thp")
        self.assertEqual(self.verdicts(cases), {
            "thp.numa.counters": "pass", "thp.numa.pinned": "fail",
            "thp.numa.three_nodes": "skip", "thp.global.last": "pass"})
        self.assertIn("Expected 0", cases[1].why)
        self.assertEqual(problems, [])

    def test_interleaved(self):
        cases, problems = ktap.parse(lines("interleaved"), "kunit")
        self.assertEqual(self.verdicts(cases),
                         {"thp.round_trip": "pass", "thp.protection": "pass"})
        self.assertEqual(problems, [])

    def test_cut_off(self):
        cases, problems = ktap.parse(lines("cut-off"), "kunit")
        self.assertEqual(self.verdicts(cases), {
            "thp_migration.with_migration": "pass",
            "thp_migration.without_migration": "fail",
            "thp_migration.on_this_architecture": "fail",
            "thp_migration.round_trip": "pass",
            "thp_migration.mapping": "fail"})
        self.assertEqual([c.name for c in cases],
                         list(self.verdicts(cases)))
        self.assertTrue(all("EXPECTATION FAILED" in c.why for c in cases
                            if c.verdict == "fail"))
        self.assertEqual(problems, [])

    def test_cut_off_anywhere(self):
        """The log of a case is cut after any of its bytes."""
        first = "    # one: EXPECTATION FAILED at x.c:1\n"
        more = "    Expected a == 1, but\n        a == 2\n    not ok 1 - one\n"
        for behind in ("    ok 2 - two\n", "    # two: EXPECTATION FAILED at x.c:2\n"
                       "    Expected b == 1, but\n    not ok 2 - two\n"):
            for size in range(len(more) + 1):
                text = f"    # Subtest: s\n    1..2\n{first}{more[:size]}{behind}" \
                       "not ok 1 - s\n"
                with self.subTest(cut=more[:size], behind=behind):
                    cases, problems = ktap.parse(text.splitlines(), "kunit")
                    self.assertEqual(self.verdicts(cases), {
                        "s.one": "fail",
                        "s.two": "pass" if behind.startswith("    ok") else "fail"})
                    self.assertEqual(problems, [])

    def test_wrong_count(self):
        text = [s for s in lines("flat") if not s.startswith("ok 4")]
        self.assertEqual(ktap.parse(text, "thp")[1], ["thp: 3 results of 4 planned"])

    def test_wrong_number(self):
        text = [s.replace("ok 4", "ok 5") for s in lines("flat")]
        self.assertIn("thp: result 5 where 4 was due", ktap.parse(text, "thp")[1])

    def test_all_skipped(self):
        cases, problems = ktap.parse(["TAP version 13", "1..0 # SKIP no node"], "thp")
        self.assertEqual([(c.verdict, c.why) for c in cases], [("skip", "no node")])
        self.assertEqual(problems, [])


class Program(unittest.TestCase):
    def last(self, *args):
        return ktap.program("thp", *args)[-1]

    def test_good(self):
        cases = ktap.program("thp", done("flat", 1))
        self.assertEqual(ktap.total(cases), (2, 1, 1))

    def test_truncated_by_a_crash(self):
        case = self.last(done("truncated", None), "crash", "BUG")
        self.assertEqual((case.name, case.verdict), ("thp.numa.pinned", "crash"))

    def test_truncated_and_the_guest_says_nothing(self):
        self.assertEqual(self.last(done("truncated", None)).verdict, "lost")

    def test_truncated_by_exit(self):
        case = self.last(done("truncated", 0))
        self.assertEqual((case.verdict, case.why), ("fail", "thp: 1 results of 3 planned"))

    def test_timeout(self):
        self.assertEqual(self.last(done("truncated", 137, timed_out=True)).verdict, "timeout")

    def test_exit_code_without_a_failed_case(self):
        text = [s.replace("not ok 2", "ok 2") for s in lines("flat")]
        case = self.last(Done("thp", 139, 1, started=True, lines=text))
        self.assertEqual((case.verdict, case.why), ("fail", "exit code 139"))

    def test_silent_success_is_a_failure(self):
        self.assertEqual(self.last(Done("thp", 0, 1, started=True)).verdict, "fail")

    def test_skip_by_exit_code(self):
        self.assertEqual(self.last(Done("thp", 4, 1, started=True, lines=["# no"])).why, "no")

    def test_not_run(self):
        self.assertEqual(self.last(Done("thp")).verdict, "not run")

    def test_no_suite(self):
        self.assertEqual(ktap.suites(["cat: no such file"])[-1].verdict, "fail")


class Total(unittest.TestCase):
    CASES = [ktap.Case("a.b", "pass"), ktap.Case("a.c", "skip", "no \x01node"),
             ktap.Case("a.d", "fail", "x"), ktap.Case("a.e", "crash"), ktap.Case("a.f")]

    def test_failed(self):
        self.assertEqual([c.name for c in ktap.failed(self.CASES)], ["a.d", "a.e", "a.f"])

    def test_summary(self):
        self.assertEqual(ktap.summary(self.CASES), "1 passed, 3 failed, 1 skipped")

    def test_verdict(self):
        self.assertEqual(ktap.verdict(self.CASES), "crash")
        self.assertEqual(ktap.verdict(self.CASES[:2]), "pass")
        self.assertEqual(ktap.verdict(self.CASES[1:2]), "skip")
        self.assertEqual(ktap.verdict([ktap.Case("a.f")]), "fail")

    def test_files(self):
        with tempfile.TemporaryDirectory() as tmp:
            ktap.write(Path(tmp), "all", self.CASES)
            suite = ET.parse(Path(tmp) / "all.xml").getroot()
        self.assertEqual((suite.get("tests"), suite.get("failures")), ("5", "3"))


if __name__ == "__main__":
    unittest.main()
