"""lava.py and .ci/lava/lab: what becomes of KTAP, records and the kernel's log in LAVA."""

import json
import os
import re
import subprocess
import unittest
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

from harness import arches, ktap, lava, splat
from harness.common import Failure
from harness.cpio import Archive, joined
from harness.machine import Done
from harness.test import Want
from harness.tests import test_common
from harness.tests.test_ktap import FIXTURES

LAB = lava.LAVA / "lab"
SIGNAL = re.compile(r"^<LAVA_SIGNAL_TESTCASE TEST_CASE_ID=([\w./-]+) RESULT=(pass|fail|skip)"
                    r"(?: MEASUREMENT=(-?[\d.]+) UNITS=(\S+))?>$", re.M)


class Scripts(test_common.Folder):
    def signals(self, *argv, **env):
        """[(case, result, measurement, units)] that a script prints, and all of its output."""
        done = subprocess.run([str(a) for a in argv], env=dict(os.environ, **env), text=True,
                              capture_output=True, check=True)
        self.assertEqual(done.stdout.count("<LAVA_"), len(SIGNAL.findall(done.stdout)))
        return SIGNAL.findall(done.stdout), done.stdout

    def script(self, name, text):
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path


class Ktap(Scripts):
    """The verdicts are those of ktap.py."""

    def cases(self, lines, code=0, name="thp"):
        (self.tmp / "said").write_text("".join(f"{s}\n" for s in lines))
        found, out = self.signals(LAB / "ktap", name, "10", "sh", "-c",
                                  f"cat {self.tmp}/said; exit {code}")
        return [(case, result) for case, result, *_ in found], out

    def same(self, lines, code=0):
        done = Done("thp", code, 1, started=True, lines=lines)
        want = [(c.name, c.verdict) for c in ktap.program("thp", done)]
        self.assertEqual(self.cases(lines, code)[0], want)
        return want

    def fixture(self, name):
        return (FIXTURES / f"{name}.tap").read_text().splitlines()

    def test_fixtures(self):
        for name in ("flat", "nested", "interleaved", "truncated"):
            for code in (0, 1):
                with self.subTest(name=name, code=code):
                    self.assertTrue(self.same(self.fixture(name), code))

    def test_what_must_fail(self):
        flat, nested = self.fixture("flat"), self.fixture("nested")
        for lines, code in (
                ([], 0), ([], 1), (["no result"], 0), (flat[:2], 0),
                ([s for s in flat if not s.startswith("ok 4")], 1),
                ([s.replace("ok 4", "ok 5") for s in flat], 1),
                ([s.replace("not ok 2", "ok 2") for s in nested], 0),
                ([s for s in nested if " carries" not in s and "- carries" not in s], 0),
                (["1..1", "ok 1 a"], 9)):
            with self.subTest(lines=lines, code=code):
                self.assertIn("fail", [v for _, v in self.same(lines, code)])

    def test_skips(self):
        self.assertEqual(self.same(["SKIP: no node"], 4), [("thp", "skip")])
        self.assertEqual(self.same(["1..0 # SKIP no node"]), [("thp", "skip")])
        self.assertEqual(self.same(["1..1", "ok 1 a # SKIP"]), [("thp.a", "skip")])
        self.assertEqual(self.same(["1..1", "not ok 1 a # TODO later"]), [("thp.a", "skip")])
        self.assertIn("# skip thp.numa.three_nodes: needs three nodes",
                      self.cases(self.fixture("flat"))[1])

    def test_debugfs(self):
        self.same(self.fixture("nested")[2:])

    def test_cut_off_kunit_fails(self):
        """ktap.py mends it; here the case that follows the cut is lost, not the failure."""
        self.assertIn("fail", dict(self.cases(self.fixture("cut-off"))[0]).values())

    def test_names_that_a_signal_cannot_have(self):
        self.assertEqual(self.cases(["1..1", "ok 1 a b>c=d"])[0], [("thp.a_b_c_d", "pass")])

    def test_hang(self):
        path = self.script("hang", "echo '#  RUN           numa.stuck ...'; sleep 30")
        found, out = self.signals(LAB / "ktap", "thp", "1", path)
        self.assertEqual([c[:2] for c in found], [("thp", "fail")])
        self.assertIn("not finished after 1 s, in numa.stuck", out)

    def test_output_without_newline(self):
        path = self.script("cut", "printf '1..1\\nok 1 a'")
        self.assertEqual([c[:2] for c in self.signals(LAB / "ktap", "thp", "9", path)[0]],
                         [("thp.a", "pass")])


class Log(Scripts):
    LINES = ("WARNING: CPU: 0 PID: 1 at mm/x.c:1 f+0x1/0x2", "BUG: Bad page map in process x",
             "INFO: possible recursive locking detected", "Bad rss-counter state mm:1 val:1",
             "INFO: task kworker/0:1 blocked for more than 60 seconds.",
             "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:", "Oops: 0000 [#1] SMP",
             "general protection fault, probably", "Internal error: Oops: 96000004 [#1] SMP",
             "watchdog: BUG: soft lockup - CPU#0 stuck", "ilc:2 [#1] SMP", "mm: bad pmd 123")
    FINE = ("Linux version 5.10.262", "DEBUG: nothing", "x86/fpu: no warning", "bad pm")

    def verdict(self, log, exceptions=""):
        lab = self.tmp / "lab"
        lab.mkdir(exist_ok=True)
        (lab / "splats").write_bytes((LAB / "splats").read_bytes())
        (lab / "splats").chmod(0o755)
        (lab / "splat-patterns").write_text(lava.extended(splat.PATTERNS) + "\n")
        (lab / "splat-exceptions").write_text(exceptions)
        (self.tmp / "log").write_text(f"[    1.0] {log}\n")
        self.script("bin/dmesg", f"cat {self.tmp}/log")
        found, _ = self.signals(lab / "splats", PATH=f"{self.tmp}/bin:{os.environ['PATH']}")
        return found[0][:2]

    def test_same_as_the_harness(self):
        for line in self.LINES + self.FINE:
            want = "fail" if splat.scan([line], []) else "pass"
            self.assertEqual(want, "fail" if line in self.LINES else "pass", line)
            self.assertEqual(self.verdict(line), ("kernel.splats", want), line)

    def test_exception(self):
        known = lava.extended(re.compile(r"at mm/x\.c:\d+ f")) + "\n"
        self.assertEqual(self.verdict(self.LINES[0], known)[1], "pass")
        self.assertEqual(self.verdict(self.LINES[1], known)[1], "fail")

    def test_lab_has_them(self):
        data = lava.lab()
        self.assertIn(lava.extended(splat.PATTERNS).encode(), data)
        for name in ("ktap", "tests", "bench", "splats", "splat-exceptions"):
            self.assertIn(f"lab/{name}\0".encode(), data)


class Bench(Scripts):
    def run_bench(self, code, runs=(), failed=""):
        self.script("native", f"echo $* > {self.tmp}/asked; exit {code}")
        self.script("bin/dmesg", "true")
        (self.tmp / "runs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in runs))
        if failed:
            (self.tmp / "failed").write_text(failed)
        lab = self.tmp / "lab"
        lab.mkdir()
        for name in ("bench", "splats"):
            (lab / name).write_bytes((LAB / name).read_bytes())
            (lab / name).chmod(0o755)
        (lab / "splat-patterns").write_text("WARNING\n")
        (lab / "splat-exceptions").write_text("")
        return self.signals(lab / "bench", "-n", "1", NATIVE=str(self.tmp / "native"),
                            OUT=str(self.tmp), PROGRAMS="/bench",
                            PATH=f"{self.tmp}/bin:{os.environ['PATH']}")[0]

    def test_measurements(self):
        record = {"column": "on", "boot": 3, "test": "numa02", "page_kib": 2048,
                  "init_seconds": 9, "seconds": 4, "written_mib": 8192, "share_mean": 0.25,
                  "share_final": 1, "converged": None, "end_mib": [[1, 2]],
                  "vmstat": {"numa_hint_faults": 17, "numa_pages_migrated": 512,
                             "thp_split_page": None},
                  "samples": [{"t": 0.2, "share": 0.5, "numa_hint_faults": 3}]}
        small = record | {"page_kib": 64, "column": "off", "converged": 1.5e1}
        found = self.run_bench(0, [record, small])
        self.assertEqual(found[:5], [("numa02.2M.on.3.rate", "pass", "2.000", "GiB/s"),
                                     ("numa02.2M.on.3.share_mean", "pass", "25", "percent"),
                                     ("numa02.2M.on.3.share_final", "pass", "100", "percent"),
                                     ("numa02.2M.on.3.hint_faults", "pass", "17", "faults"),
                                     ("numa02.2M.on.3.pages_migrated", "pass", "512", "pages")])
        self.assertIn(("numa02.64K.off.3.converged", "pass", "15.0", "seconds"), found)
        self.assertEqual(found[-1][:2], ("kernel.splats", "pass"))
        self.assertEqual((self.tmp / "asked").read_text().split()[-2:], ["-n", "1"])

    def test_failed_runs(self):
        found = self.run_bench(1, failed="hard 2 numa01 64: the node is <too> small\n")
        self.assertEqual(found[0][:2], ("numa01.64K.hard.2", "fail"))

    def test_failed_runs_are_called_as_others(self):
        found = self.run_bench(1, failed="on 1 numa01 2048: killed\nno run at all\n")
        self.assertEqual([c[:2] for c in found], [("numa01.2M.on.1", "fail"),
                                                  ("kernel.splats", "pass")])

    def test_one_node_is_a_skip(self):
        self.assertEqual([c[:2] for c in self.run_bench(4)], [("bench", "skip")])

    def test_no_start_is_a_failure(self):
        self.assertEqual([c[:2] for c in self.run_bench(2)], [("bench", "fail")])


class Jobs(test_common.Folder):
    GROUPS = [(Want(), ["kunit", "thp_numa"]), (Want("memoryless"), ["thp_numa_memoryless"]),
              (Want("default", "cma=64M"), ["thp_sizes_contig"])]

    def jobs(self, arch="x86_64", groups=None, **more):
        kernel = SimpleNamespace(arch=replace(arches.find(arch), **more), slow=1)
        return dict(lava.jobs(kernel, self.GROUPS if groups is None else groups, 180,
                              "https://lab.invalid/x"))

    def test_names(self):
        self.assertEqual(list(self.jobs()), ["tests-default.yaml", "tests-memoryless.yaml",
                                             "tests-default-2.yaml", "bench.yaml",
                                             "board-tests.yaml", "board-tests-2.yaml",
                                             "board-bench.yaml"])
        # The base has no tests.
        self.assertEqual(list(self.jobs(groups=[])), ["bench.yaml", "board-bench.yaml"])

    def test_all_is_filled_in(self):
        for name, text in self.jobs().items():
            self.assertNotIn("$url", text)
            self.assertIn("url: https://lab.invalid/x/initrd.gz" if "board" not in name else
                          "{url: https://lab.invalid/x/initrd.gz,", text)

    def test_programs(self):
        jobs = self.jobs()
        self.assertIn('          PROGRAMS: "kunit thp_numa"\n', jobs["tests-default.yaml"])
        self.assertIn('PROGRAMS: "kunit thp_numa thp_numa_memoryless"', jobs["board-tests.yaml"])
        self.assertIn('PROGRAMS: "thp_sizes_contig"', jobs["board-tests-2.yaml"])
        self.assertIn('extra_kernel_args: "cma=64M"', jobs["board-tests-2.yaml"])
        self.assertIn('ARGUMENTS: "-n 7 -t 15"', jobs["board-bench.yaml"])

    def test_machine(self):
        jobs = self.jobs()
        self.assertIn('panic=-1 cma=64M"', jobs["tests-default-2.yaml"])
        self.assertIn("arch: amd64\n", jobs["tests-default.yaml"])
        options = json.loads(re.search(r"extra_options: (.*)", jobs["tests-memoryless.yaml"])[1])
        self.assertIn("node,nodeid=2,cpus=3-3", options)
        self.assertIn("-no-reboot", options)
        self.assertNotIn("-m", options)
        self.assertIn("memory: 2048\n", jobs["tests-memoryless.yaml"])

    def test_other_architecture(self):
        text = self.jobs("arm64")["tests-default.yaml"]
        self.assertIn("arch: arm64\n", text)
        self.assertIn("console=ttyAMA0", text)

    def test_kvm_is_a_wish(self):
        self.assertIn("no_kvm: true\n", self.jobs()["bench.yaml"])
        with mock.patch.dict(os.environ, ACCEL="kvm"):
            self.assertIn("no_kvm: false\n", self.jobs()["bench.yaml"])

    def test_unknown_parameter(self):
        with self.assertRaisesRegex(Failure, "no parameter SPEED"):
            lava.with_params("params:\n  SLOW: 1\n", {"SPEED": 2})

    def test_groups(self):
        (self.tmp / "list").write_text("a\nb\nc\n")
        (self.tmp / "guests").write_text("b: memoryless\nc: default cma=64M\n")
        self.assertEqual(lava.test_groups(self.tmp),
                         [(Want(), ["kunit", "a"]), (Want("memoryless"), ["b"]),
                          (Want("default", "cma=64M"), ["c"])])


class Initrd(test_common.Folder):
    def test_joined_is_one_archive(self):
        parts = []
        for name, text in (("a", "070701 TRAILER!!!"), ("b", "x"), ("c", "")):
            out = Archive()
            out.file(f"folder/{name}", text)
            parts.append(out.data())
        (self.tmp / "one.cpio").write_bytes(joined(parts))
        subprocess.run(["busybox", "cpio", "-idu", "-F", "one.cpio"], cwd=self.tmp, check=True,
                       capture_output=True)
        self.assertEqual({p.name: p.read_text() for p in (self.tmp / "folder").iterdir()},
                         {"a": "070701 TRAILER!!!", "b": "x", "c": ""})


if __name__ == "__main__":
    unittest.main()
