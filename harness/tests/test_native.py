"""native.py and bench/native/run: on made-up machines, with a program that is made up too."""

import contextlib
import io
import json
import os
import signal
import subprocess
import time
import unittest
from unittest import mock

from harness import bench_compare, native
from harness.common import ROOT, Failure
from harness.tests import test_common

RUN = ROOT / "bench" / "native" / "run"
THP = "sys/kernel/mm/transparent_hugepage"
# What the program says depends on how it was called and on what was set then.
PROGRAM = """#!/bin/sh
echo "$(cat $NATIVE_ROOT/proc/sys/kernel/numa_balancing) $*" >> $NATIVE_ROOT/calls
case $FAKE in
fail) echo "the node is too small"; exit 1 ;;
hang) echo never > $NATIVE_ROOT/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled
      touch $NATIVE_ROOT/begun; exec sleep 100 ;;
esac
echo '{"test": "'$1'", "seconds": 2, "written_mib": 2048, "vmstat": {}}'
"""


def default_signals():
    """As from a terminal: a shell cannot trap what was ignored when it began."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Machine(test_common.Folder):
    """A machine: nodes with memory, nodes with CPUs."""

    def machine(self, memory="0-1", cpu="0-1", sizes=(16, 32, 64, 2048)):
        self.file("sys/devices/system/node/has_memory", memory)
        self.file("sys/devices/system/node/has_cpu", cpu)
        self.file("sys/devices/system/cpu/online", "0-3")
        for node in (0, 1):
            folder = f"sys/devices/system/node/node{node}"
            self.file(f"{folder}/meminfo", f"Node {node} MemTotal: 1048576 kB\n"
                                           f"Node {node} MemFree:   819200 kB")
            self.file(f"{folder}/cpulist", "0-1")
            self.file(f"{folder}/distance", "10 20")
        self.file(f"{THP}/hpage_pmd_size", "2097152")
        self.file(f"{THP}/enabled", "always madvise [never]")
        for kib in sizes:
            self.file(f"{THP}/hugepages-{kib}kB/enabled", "always [inherit] madvise never")
        # Later kernels have a size of page cache only
        self.file(f"{THP}/hugepages-8kB/shmem_enabled", "always [never]")
        self.file("proc/sys/kernel/numa_balancing", "3")
        for name in ("scan_delay_ms", "scan_period_min_ms", "scan_period_max_ms"):
            self.file(f"proc/sys/kernel/numa_balancing_{name}", "1000")
        # Where later kernels have all of them
        self.file("sys/kernel/debug/sched/numa_balancing/scan_size_mb", "77")
        for name, text in (("id", "echo 0"), ("nproc", "echo ${OMP_NUM_THREADS:-4}")):
            self.file(f"bin/{name}", f"#!/bin/sh\n{text}").chmod(0o755)
        self.file("programs/autonuma.run", PROGRAM).chmod(0o755)

    def file(self, name, text):
        path = self.tmp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        return path

    def env(self, **more):
        return dict(os.environ, NATIVE_ROOT=str(self.tmp),
                    PATH=f"{self.tmp}/bin:{os.environ['PATH']}", **more)

    def run_script(self, *args, **more):
        return subprocess.run([RUN, "-o", self.tmp / "out", "-p", self.tmp / "programs", *args],
                              env=self.env(**more), capture_output=True, text=True, check=False)

    def settings(self):
        """What is set, the word in brackets where there is one."""
        files = [*(self.tmp / "proc/sys/kernel").iterdir(),
                 *(self.tmp / "sys/kernel").rglob("enabled"),
                 *(self.tmp / "sys/kernel/debug").rglob("scan_*")]
        words = {str(f.relative_to(self.tmp)): f.read_text().strip() for f in files}
        return {f: w.split("[")[-1].split("]")[0] for f, w in words.items()}

    def calls(self):
        return (self.tmp / "calls").read_text().splitlines()


class Refusals(Machine):
    def refused(self, code, why, *args, **more):
        done = self.run_script(*args, **more)
        self.assertEqual((done.returncode, done.stdout), (code, ""))
        self.assertEqual(done.stderr.splitlines()[0], f"native: {why}")
        self.assertFalse((self.tmp / "out").exists() or (self.tmp / "calls").exists())

    def test_one_node(self):
        self.machine(memory="0")
        before = self.settings()
        self.refused(4, "this machine has one node with memory: nothing to balance")
        self.assertEqual(self.settings(), before)

    def test_no_numa(self):
        self.refused(4, "this machine has one node with memory: nothing to balance")

    def test_one_node_with_cpus(self):
        self.machine(cpu="1")
        self.refused(4, "this machine has one node with memory and CPUs: "
                        "no second one to run on")

    def test_not_root(self):
        self.machine()
        self.file("bin/id", "#!/bin/sh\necho 1000").chmod(0o755)
        self.refused(2, "needs root, to set the scan rates of NUMA balancing "
                        "(they are put back)")

    def test_too_little_memory(self):
        self.machine()
        self.file("sys/devices/system/cpu/online", "0-1999,2010-4009")
        self.refused(2, "numa01: 800 MiB free on node 0 or 1 are too few for 4000 CPUs")

    def test_too_few_cpus(self):
        self.machine()
        self.file("sys/devices/system/cpu/online", "0-1,3")
        self.refused(2, "3 CPUs online: needs at least 4, two for each of two nodes")

    def test_bad_arguments(self):
        self.machine()
        self.refused(2, "-n: '0' is not a number of at least 1", "-n", "0")
        self.refused(2, "-t: 'x' is not a number of at least 1", "-t", "x")
        self.refused(2, "no workload numa03", "numa03")


class Runs(Machine):
    def test_order_and_settings(self):
        self.machine()
        before = self.settings()
        done = self.run_script("-n", "2", "-t", "3", "numa01", "numa02")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(len(self.calls()), 2 * 4 * 2 * 4)
        self.assertEqual(self.calls()[:4],
                         ["1 numa01 -m 200 -t 3 -s 0 -k 4", "0 numa01 -m 200 -t 3 -s 0 -k 4",
                          "0 numa01 -m 200 -t 3 -b hard -k 4",
                          "0 numa01 -m 200 -t 3 -b inverse -k 4"])
        self.assertEqual(self.calls()[-4:],
                         ["0 numa02 -m 400 -t 3 -b inverse -k 2048",
                          "0 numa02 -m 400 -t 3 -b hard -k 2048",
                          "0 numa02 -m 400 -t 3 -s 1 -k 2048",
                          "1 numa02 -m 400 -t 3 -s 1 -k 2048"])
        # numa_balancing is put back to what is no bracketed word
        self.assertEqual(self.settings(), before)
        self.assertFalse((self.tmp / "out" / "before").exists())

    def test_cpus_are_those_online(self):
        """Whatever the caller's OMP_NUM_THREADS says, which is no business of the programs."""
        self.machine(sizes=())
        done = self.run_script("-n", "1", "-t", "3", "numa01", OMP_NUM_THREADS="1")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("cpus 4", (self.tmp / "out" / "machine").read_text().splitlines())

    def test_kernel_with_one_size(self):
        self.machine(sizes=())
        self.assertEqual(self.run_script("-n", "1", "-m", "64", "numa02").returncode, 0)
        self.assertEqual([c.split("-s")[1] for c in self.calls()[::4]], [" 0 -k 4", " 0"])
        runs = native.read(self.tmp / "out")["runs"]
        self.assertEqual([r["page_kib"] for r in runs], [4] * 4 + [2048] * 4)

    def test_sizes_of_page_cache_only(self):
        self.machine(sizes=(64,))
        for kib in (16, 2048):
            self.file(f"{THP}/hugepages-{kib}kB/shmem_enabled", "always [never]")
        self.assertEqual(self.run_script("-n", "1", "-m", "64", "numa02").returncode, 0)
        self.assertEqual([c.split("-s")[1] for c in self.calls()[::4]],
                         [" 0 -k 4", " 0 -k 64", " 0"])

    def test_failures_are_kept(self):
        self.machine(sizes=())
        before = self.settings()
        done = self.run_script("-n", "1", "numa01", FAKE="fail")
        self.assertEqual(done.returncode, 1)
        self.assertIn("8 of 8 runs failed", done.stderr)
        self.assertEqual(self.settings(), before)
        said = (self.tmp / "out" / "failed").read_text().splitlines()
        self.assertEqual(said[0], "on 1 numa01 4: the node is too small")

    def test_interrupted(self):
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
            self.machine()
            before = self.settings()
            (self.tmp / "begun").unlink(missing_ok=True)
            with subprocess.Popen([RUN, "-o", self.tmp / f"out{code}", "-p",
                                   self.tmp / "programs", "numa01"], env=self.env(FAKE="hang"),
                                  stdout=subprocess.DEVNULL,
                                  preexec_fn=default_signals) as script:
                end = time.monotonic() + 60
                while not (self.tmp / "begun").exists() and time.monotonic() < end:
                    time.sleep(0.05)
                try:
                    self.assertNotEqual(self.settings(), before)
                    script.send_signal(number)
                    self.assertEqual(script.wait(60), code)
                finally:
                    script.kill()
            self.assertEqual(self.settings(), before)

    def test_results_are_not_overwritten(self):
        self.machine(sizes=())
        self.assertEqual(self.run_script("-n", "1", "numa01").returncode, 0)
        again = self.run_script("-n", "1", "numa01")
        self.assertEqual(again.returncode, 2)
        self.assertIn("has results already", again.stderr)


def record(column, boot, rate, **more):
    """A run of 10 s that wrote `rate` GiB a second."""
    return {"column": column, "boot": boot, "test": "numa02", "page_kib": 64, "base_kib": 4,
            "seconds": 10, "written_mib": 10 * 1024 * rate, "share_mean": 0.5,
            "share_final": 1, "converged": None,
            "vmstat": {"numa_hint_faults": 7, "numa_pages_migrated": 16,
                       "thp_migration_success": None}, **more}


class Table(test_common.Folder):
    MACHINE = ("time 2026-01-01T00:00:00Z\nrelease 5.10.262\narch x86_64\ncpus 4\nmodel Some CPU\n"
               "rounds 2\nseconds 10\nruns {runs}\nnode 0 cpus 0-1 mib 1024 distances 10 20\n"
               "set /proc/sys/kernel/numa_balancing_scan_delay_ms 100\n")

    def folder(self, runs, planned=None, failed=""):
        (self.tmp / "machine").write_text(self.MACHINE.format(runs=planned or len(runs)))
        (self.tmp / "runs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in runs))
        if failed:
            (self.tmp / "failed").write_text(failed)
        return native.finish(native.read(self.tmp))

    def some(self):
        rates = {"on": (3.5, 3.7), "off": (2, 2.2), "hard": (4, 4), "inverse": (2, 2)}
        return [record(c, i + 1, r) for c, rs in rates.items() for i, r in enumerate(rs)]

    def test_way(self):
        self.assertEqual(native.way(3, 2, 4), 50)
        self.assertEqual(native.way(5, 2, 4), 150)
        self.assertIsNone(native.way(3, 4, 4))
        self.assertIsNone(native.way(3, 4, 2))
        self.assertIsNone(native.way(None, 2, 4))

    def test_summary(self):
        data = self.folder(self.some())
        row, = data["summary"]
        self.assertAlmostEqual(row["on"]["rate"]["mean"], 3.6)
        self.assertAlmostEqual(row["way"]["on"], 80)
        self.assertAlmostEqual(row["way"]["off"], 5)
        self.assertLess(row["p"], 0.05)
        self.assertEqual(row["on"]["converged"]["mean"], 10)
        self.assertEqual(row["on"]["thp_whole"]["mean"], 0)
        self.assertEqual(data["verdict"], "pass")
        self.assertEqual(list(data["sysctls"].values()), [100])
        self.assertEqual(data["machine"]["nodes"], ["0 cpus 0-1 mib 1024 distances 10 20"])

    def test_output(self):
        data = self.folder(self.some())
        self.assertIn("numa02                64K       3.60 ± 1.27  2.10 ± 1.27", native.text(data))
        self.assertIn("| numa02 | 64K | 3.60 ± 1.27 |", native.markdown(data))

    def test_side_by_side(self):
        a = self.folder(self.some())
        b = a | {"runs": [r | {"written_mib": 2 * r["written_mib"]} for r in a["runs"]
                          if r["column"] == "on"], "machine": a["machine"] | {"release": "6.1"}}
        lines = native.side_by_side(a, b)
        self.assertEqual(lines[2].split()[-2:], ["2.000", "0.012"])
        self.assertEqual(lines[3:], ["", "release: A 5.10.262, B 6.1"])
        with self.assertRaisesRegex(Failure, "no row in common"):
            native.side_by_side(a, b | {"runs": []})

    def test_one_round_only(self):
        row, = self.folder([record("on", 1, 3)])["summary"]
        self.assertEqual((row["p"], row["way"]["on"]), (None, None))

    def test_what_is_missing_fails(self):
        data = self.folder(self.some(), planned=10, failed="on 2 numa02 64: killed\n")
        self.assertEqual(data["verdict"], "fail")
        self.assertEqual(data["failed"], ["on 2 numa02 64: killed",
                                          "broken off: 1 of 10 not run"])

    def test_no_results(self):
        with self.assertRaisesRegex(Failure, "machine: no results of bench/native/run"):
            native.read(self.tmp)
        self.folder(self.some())
        (self.tmp / "runs.jsonl").write_text('{"test"')
        with self.assertRaisesRegex(Failure, "not records of bench/native/run"):
            native.read(self.tmp)

    def test_step(self):
        self.folder(self.some())
        with mock.patch.dict(os.environ, FROM=str(self.tmp)), \
                contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(native.step_native(), 0)
        self.assertEqual(json.loads((self.tmp / "results.json").read_text())["step"], "native")

    def test_make_compare(self):
        data = self.folder(self.some())
        for name, content in (("a", data), ("b", data), ("c", {"bench": 1, "runs": [1]})):
            (self.tmp / name).mkdir()
            (self.tmp / name / "results.json").write_text(json.dumps(content))
        out = io.StringIO()
        with mock.patch.dict(os.environ, A=str(self.tmp / "a"), B=str(self.tmp / "b")), \
                contextlib.redirect_stdout(out):
            self.assertEqual(bench_compare.step_compare(), 0)
        self.assertIn("A and B were run alike.", out.getvalue())
        with mock.patch.dict(os.environ, A=str(self.tmp / "a"), B=str(self.tmp / "c")), \
                self.assertRaisesRegex(Failure, "one of A and B is of make native"):
            bench_compare.step_compare()

    def test_step_skips(self):
        with mock.patch.dict(os.environ, {"FROM": "", "RESULTS": str(self.tmp / "r")}), \
                mock.patch.object(native, "_measure", lambda folder: 4):
            self.assertEqual(native.step_native(), 4)
        self.assertEqual(list((self.tmp / "r").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
