"""Choosing tests, judging guests, reading mutants."""

import contextlib
import io
import re
import unittest
from pathlib import Path
from unittest import mock

from harness import (__main__ as front, check, common, kernel, ktap, machine, mutants, series,
                     splat, stress, test)
from harness.common import Failure
from harness.tests.test_common import Folder

KNOWN = {"kunit": ["protnone_is_skipped"],
         "thp_numa": ["numa.counters", "bits.soft_dirty", "global.plain"],
         "thp_numa_race": ["numa.fork"]}


class Select(unittest.TestCase):
    def names(self, only):
        return test.select(only, KNOWN)[0]

    def test_all(self):
        self.assertEqual(self.names(None), list(KNOWN))

    def test_program(self):
        self.assertEqual(self.names("thp_numa"), ["thp_numa"])
        self.assertEqual(self.names("race"), ["thp_numa_race"])

    def test_case(self):
        programs, wanted = test.select("thp_numa.numa.counters", KNOWN)
        self.assertEqual(programs, ["thp_numa"])
        self.assertTrue(wanted("thp_numa.numa.counters"))
        self.assertFalse(wanted("thp_numa.numa.other"))
        self.assertEqual(self.names("fork"), ["thp_numa_race"])
        self.assertEqual(self.names("protnone_is_skipped"), ["kunit"])

    def test_variants(self):
        programs, wanted = test.select("bits.soft_dirty", KNOWN)
        self.assertEqual(programs, ["thp_numa"])
        self.assertTrue(wanted("thp_numa.bits.moved.soft_dirty"))
        self.assertFalse(wanted("thp_numa.bits.moved.read_only"))

    def test_unknown(self):
        with self.assertRaisesRegex(Failure, "ONLY=nonsense: no such test; there is kunit, "
                                    "thp_numa, thp_numa_race"):
            test.select("nonsense", KNOWN)


class Steps(unittest.TestCase):
    def test_makefile_has_all(self):
        text = (common.ROOT / "Makefile").read_text()
        names = re.search(r"^STEPS = (.*)$", text, re.M)[1].split()
        self.assertEqual(sorted(names), sorted(front.STEPS))
        for name in names:
            self.assertRegex(text, rf"(?m)^\t@echo [\"']make {name} ")


class Metered(Folder):
    """make metered: a kernel first, or all of the tests would be skipped."""

    def metered(self, *verdicts):
        """Exit code, what was printed, and what was done in which order."""
        done = []

        def own(pattern, folder):
            done.append(pattern)
            return [ktap.Case(f"harness.{n}", v) for n, v in enumerate(verdicts)]
        with mock.patch.object(test, "own", own), \
                mock.patch.object(series, "trees", return_value={"patched": "tree"}), \
                mock.patch.object(kernel, "build", lambda arch, tree, what: done.append(tree)), \
                contextlib.redirect_stdout(io.StringIO()) as out:
            return test.step_metered(), out.getvalue().splitlines()[-1], done

    def test_last_line(self):
        self.assertEqual(self.metered("pass", "skip", "pass"),
                         (0, "2 passed, 0 failed, 1 skipped", ["tree", "metered_*.py"]))
        self.assertEqual(self.metered("pass", "fail")[:2], (1, "1 passed, 1 failed, 0 skipped"))
        folder, = (self.tmp / "results").glob("*-metered")
        self.assertTrue((folder / "summary").exists())


class Catalogue(unittest.TestCase):
    FILES = {
        "mm/Makefile": "TEST_GEN_PROGS += thp_a \\\n\tb-tests\nTEST_PROGS := c.sh\n"
                       "TEST_GEN_PROGS_EXTENDED += d\nTEST_GEN_PROGS_EXTENDED += e\n"
                       "vpath b-tests.c ../vm\n",
        "mm/guests": "e: default warns=f\n", "mm/e.c": "TEST(wrong)\n",
        "mm/thp_a.c": "TEST_F(pair, swap)\nTEST(alone)\n",
        "vm/b-tests.c": "TEST_F_TIMEOUT(hmm, read, 9)\n"}

    def git(self, command, *args):
        if command == "ls-tree":
            return "x_kunit.c"
        if args[0] == "tree:mm/tests/x_kunit.c":
            return "\tKUNIT_CASE(one),\n"
        return self.FILES[args[0].removeprefix("tree:tools/testing/selftests/")]

    def test_cases(self):
        with mock.patch("harness.kernel.git", self.git):
            self.assertEqual(test.catalogue("tree"), {
                "kunit": ["one"], "thp_a": ["pair.swap", "global.alone"],
                "b-tests": ["hmm.read"], "c.sh": [], "e": ["global.wrong"]})


class Order(unittest.TestCase):
    def test_longest_first(self):
        plan = {"a": (mock.Mock(slow=1), [1, 2]), "failed": ("a case", [3]),
                "b": (mock.Mock(slow=4), [4, 5])}
        self.assertEqual(test.longest_first(plan),
                         [("b", 4), ("a", 1), ("failed", 3), ("b", 5), ("a", 2)])


class Stress(unittest.TestCase):
    def minutes(self, text):
        with mock.patch.dict("os.environ", MINUTES=text):
            return stress.minutes()

    def test_minutes(self):
        self.assertEqual(self.minutes("60"), 60)
        self.assertEqual(self.minutes(""), stress.DEFAULT_MINUTES)
        for wrong in ("0", "-1", "1.5", "an hour"):
            with self.assertRaisesRegex(Failure, f"MINUTES={wrong}: wants a number"):
                self.minutes(wrong)

    def test_seconds_of_a_race(self):
        self.assertEqual(stress.plan(600, [], 30), (1, 20))
        self.assertEqual(stress.plan(10, [], 30), (1, 1))
        self.assertEqual(stress.plan(36000, [], 30), (20, stress.LONGEST))
        # Two rounds of 60 s would be more than was asked for
        self.assertEqual(stress.plan(3600, [], 31), (2, 59))
        self.assertEqual(stress.plan(36000, ["stress.all"], 1), (1, 36000))

    def test_programs(self):
        texts = {"thp_race": "x = race_seconds(1);\nFIXTURE_VARIANT_ADD(a, b) {};\n"
                             "TEST_F_TIMEOUT(a, c, 9)\n", "thp_other": "TEST(a)\n",
                 "thp_all": "race_seconds(1)\nTEST_F(stress, all)\nTEST(b)\n", "x.sh": ""}
        with mock.patch("harness.test.sources", return_value=texts):
            self.assertEqual(stress.programs("tree"),
                             {"thp_race": ([], 2), "thp_all": (["stress.all"], 1)})


class Wants(unittest.TestCase):
    def test_lines(self):
        found = test.wants("# why\n\nthp_numa: memoryless movablecore=256M quiet\nx: default\n")
        self.assertEqual(found["thp_numa"], test.Want("memoryless", "movablecore=256M quiet"))
        self.assertEqual(found["x"], test.Want())

    def test_warning(self):
        self.assertEqual(test.wants("x: default warns=migrate_vma_ cma=64M quiet"),
                         {"x": test.Want("default", "cma=64M quiet", "migrate_vma_")})

    def test_unknown_machine(self):
        with self.assertRaisesRegex(Failure, "guests:1: wants .* one of default"):
            test.wants("thp_numa: mainframe")


class Judge(Folder):
    """What becomes of the programs of a guest."""

    def judge(self, verdict, splats=(), **done):
        (self.tmp / "files.tar").write_bytes(b"")
        tasks = {n: machine.Done(n, **d) for n, d in done.items()}
        out = machine.Outcome(verdict, "why", 1, self.tmp, tasks, list(splats), "tcg")
        cases, again = test.judge(out, list(tasks))
        return {c.name: c.verdict for c in cases}, again

    def judge_log(self, *console, finished=True, **done):
        """The same of a guest that is to warn in func_, and said this on its console."""
        for name, text in (("console", "\n".join(console)), ("files.tar", "")):
            (self.tmp / name).write_text(text)
        status = machine.Status(machine.Job(()))
        status.finished = finished
        status.done = {n: machine.Done(n, **d) for n, d in done.items()}
        out = machine.outcome(status, 0, "", 1, self.tmp, "tcg", "func_")
        cases, again = test.judge(out, list(done), "func_")
        return {c.name: c.verdict for c in cases}, again

    GOOD = {"code": 0, "started": True, "lines": ["1..1", "ok 1 x"]}
    OPEN = {"started": True, "lines": ["1..1"]}

    def test_crash_leaves_the_rest_to_another_guest(self):
        self.assertEqual(self.judge("crash", a=self.GOOD, b=self.OPEN, c={}), (
            {"a.x": "pass", "b": "crash"}, ["c"]))

    def test_crash_at_boot_is_not_tried_again(self):
        self.assertEqual(self.judge("crash", a={}, b={}), (
            {"a": "not run", "b": "not run", "guest": "crash"}, []))

    def test_splat_in_a_test_that_passes(self):
        found, _ = self.judge("crash", [splat.Splat("WARNING: x", "a")], a=self.GOOD)
        self.assertEqual(found, {"a.x": "pass", "a.splat": "crash"})

    def test_splat_at_boot(self):
        found, _ = self.judge("crash", [splat.Splat("WARNING: x", "")], a=self.GOOD)
        self.assertEqual(found, {"a.x": "pass", "guest": "crash"})

    WARNING = "harness: start a", "WARNING: CPU: 1 PID: 7 at mm/x.c:9 func_a+0x1/0x2"
    OTHER = "harness: start a", "WARNING: CPU: 1 PID: 7 at mm/x.c:9 unfunc_a+0x1/0x2"

    def test_warning_that_is_wanted(self):
        found, _ = self.judge_log(*self.WARNING, a=self.GOOD)
        self.assertEqual(found, {"a.x": "pass", "a.warning": "pass"})

    def test_warning_that_does_not_come(self):
        found, _ = self.judge_log(a=self.GOOD)
        self.assertEqual(found, {"a.x": "pass", "a.warning": "fail"})

    def test_warning_of_another(self):
        found, _ = self.judge_log(*self.OTHER, a=self.GOOD)
        self.assertEqual(found, {"a.x": "pass", "a.warning": "fail", "a.splat": "crash"})

    def test_warning_where_all_is_skipped(self):
        skips = {"code": 4, "started": True, "lines": ["1..1", "ok 1 # SKIP x"]}
        self.assertNotIn("a.warning", self.judge_log(a=skips)[0])

    def test_crash_after_a_warning_that_is_wanted(self):
        found, _ = self.judge_log(*self.WARNING, "Kernel panic - not syncing: x",
                                  finished=False, a=self.OPEN)
        self.assertEqual(found, {"a": "crash"})

    def test_end_of_the_guest_after_a_warning_that_is_wanted(self):
        for console, verdict in ((["Kernel panic - not syncing: x"], "crash"), ([], "lost")):
            found, _ = self.judge_log(*self.WARNING, *console, finished=False, a=self.GOOD)
            self.assertEqual(found, {"a.x": "pass", "a.warning": "pass", "guest": verdict})

    def test_lost_after_the_last_test(self):
        found, _ = self.judge("lost", a=self.GOOD)
        self.assertEqual(found, {"a.x": "pass", "guest": "lost"})

    def test_timeout(self):
        self.assertEqual(self.judge("timeout", a=self.OPEN)[0], {"a": "timeout"})


class Status(unittest.TestCase):
    def test_stream_in_pieces(self):
        heard = []
        status = machine.Status(machine.Job((machine.Task("a b", ""),)),
                                lambda name, line: heard.append((name, line)))
        data = (b"\x01boot\n\x01start a b\nhello\n\nwor\x01ld\n\n"
                b"\x01end 3 1.50 0 a b\nstray\n\x01done\n")
        for i in range(0, len(data), 3):
            status.feed(data[i:i + 3])
        done = status.done["a b"]
        self.assertEqual((done.code, done.seconds, done.lines),
                         (3, 1.5, ["hello", "", "wor\x01ld"]))
        self.assertTrue(status.booted and status.finished)
        self.assertEqual(heard[0], ("a b", "hello"))

    def test_sign_of_life_within_a_line(self):
        status = machine.Status(machine.Job((machine.Task("a", ""),)))
        for data in (b"\x01start a\nwork", b"ing ... \x01alive\n", b"\x01alive\n",
                     b"done\n\n\x01end 0 1.00 0 a\n"):
            status.feed(data)
        self.assertEqual(status.done["a"].lines, ["working ... done"])


class Mutants(Folder):
    def read(self, text):
        path = self.tmp / "m.patch"
        path.write_text(text)
        return mutants.read(path, KNOWN, {"thp_numa": test.Want("memoryless")})

    def test_program(self):
        found = self.read("Test: thp_numa.numa.counters\n\nWhy.\n\n--- a/x\n+++ b/x\n")
        self.assertEqual((found.program, found.case, found.want.topology, found.flavor),
                         ("thp_numa", "thp_numa.numa.counters", "memoryless", "release"))

    def test_suite(self):
        found = self.read("Test: thp_migration.protnone_is_skipped\nKernel: debug\n"
                          "Machine: cpuless\n--- a/x\n")
        self.assertEqual((found.program, found.flavor, found.want.topology),
                         ("kunit", "debug", "cpuless"))

    def test_errors(self):
        for text, why in (("--- a/x\nTest: thp_numa.numa.counters\n", "has no line 'Test:"),
                          ("Test: thp_numa.numa.nothing\n", "there is no test thp_numa.numa"),
                          ("Test: thp_numa.numa.counters\nKernel: best\n", "is one of release"),
                          ("Test: thp_numa.numa.counters\nMachine: vax\n", "one of default")):
            with self.assertRaisesRegex(Failure, why):
                self.read(text)


class Check(Folder):
    def test_ignored_have_reasons(self):
        self.assertIn("MISSING_SIGN_OFF", check.ignored())
        path = self.tmp / "list"
        path.write_text("LONG_LINE\n")
        with mock.patch.object(check, "IGNORED", path), \
                self.assertRaisesRegex(Failure, "LONG_LINE: no reason given"):
            check.ignored()

    def test_touched(self):
        path = self.tmp / "a.patch"
        path.write_text("diff --git a/mm/x.c b/mm/x.c\n--- a/mm/x.c\n")
        self.assertEqual(check.touched([path, path]), ["mm/x.c"])

    def test_places_do_not_count(self):
        text = "mm/x.c:12:3: warning: foo"
        self.assertEqual(check.PLACE.sub("", text), "mm/x.c: warning: foo")


class Fixtures(unittest.TestCase):
    def test_every_fixture_is_used(self):
        folder = Path(__file__).with_name("fixtures")
        text = Path(__file__).with_name("test_ktap.py").read_text()
        for path in folder.glob("*.tap"):
            self.assertIn(f'"{path.stem}"', text)


if __name__ == "__main__":
    unittest.main()
