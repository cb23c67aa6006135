"""autonuma.c, built for this machine on nodes that are made up: what it says of time."""

import json
import subprocess
import time
import unittest

from harness.common import ROOT
from harness.tests import test_common

BENCH = ROOT / "bench"
# In place of what needs two nodes: all memory is whole THP on node 0, where all threads run.
NODES = r"""
#include "mem.h"
size_t mem_thp_size(void) { return 2 << 20; }
size_t mem_smaps(int pid, const char *field) { return (size_t)1 << 40 | pid | !field; }
void mem_bind(void *addr, size_t size, int node) { (void)addr, (void)size, (void)node; }
void mem_bind_thread(int node) { (void)node; }
void mem_run_on(int node) { (void)node; }
void mem_nodes(int pid, void **addr, int *node, size_t n)
{
	(void)pid, (void)addr;
	while (n--)
		*node++ = 0;
}
"""


class Native(test_common.Folder):
    """The program, on two nodes of two CPUs that are none."""

    def setUp(self):
        super().setUp()
        self.numbers = 0, 1

    def build(self):
        """Path of the program."""
        for node in self.numbers:
            (self.tmp / f"node{node}").mkdir(exist_ok=True)
            (self.tmp / f"node{node}/cpulist").write_text(f"{node}-{node + 1}\n")
        (self.tmp / "mem.c").write_text((BENCH / "lib" / "mem.c").read_text()
                                        .replace("/sys/devices/system/node", str(self.tmp)))
        source = (BENCH / "autonuma" / "autonuma.c").read_text()
        source = source.replace("sysconf(_SC_NPROCESSORS_ONLN)", "4").replace("../lib/", "")
        (self.tmp / "autonuma.c").write_text(source)
        (self.tmp / "nodes.c").write_text(NODES)
        lib = BENCH / "lib"
        gcc = ["gcc", "-O2", "-I", lib, "-pthread"]
        subprocess.run([*gcc, "-c", "-o", self.tmp / "mem.o", self.tmp / "mem.c"], check=True)
        subprocess.run(["objcopy", "--weaken", self.tmp / "mem.o"], check=True)
        subprocess.run([*gcc, "-o", self.tmp / "autonuma", self.tmp / "autonuma.c",
                        self.tmp / "nodes.c", self.tmp / "mem.o", lib / "marks.c"], check=True)
        return self.tmp / "autonuma"

    def run_it(self, *args):
        """The record, and seconds of all of it."""
        program, began = self.build(), time.monotonic()
        done = subprocess.run([program, *map(str, args)], capture_output=True, text=True,
                              timeout=300, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return json.loads(done.stdout), time.monotonic() - began

    def test_ends_with_its_threads(self):
        """Not with the next sample, which would be a minute later."""
        for workload in ("numa01", "numa02"):
            record, all_ = self.run_it(workload, "-m", 8, "-p", 40, "-i", 60000)
            self.assertGreater(record["seconds"], 0)
            self.assertLess(record["seconds"], all_)
            self.assertLess(all_, 50)
            self.assertEqual(record["samples"], [])

    def test_numbers_of_nodes_have_gaps(self):
        self.numbers = 0, 8
        record, _ = self.run_it("numa02", "-m", 8, "-p", 1)
        self.assertEqual(record["end_mib"], [[8] + [0] * 8])
        done = subprocess.run([self.build(), "numa02", "-s", "3"], capture_output=True, text=True,
                              check=False)
        self.assertEqual((done.returncode, done.stderr), (1, "start node 3: there is none\n"))

    def test_samples(self):
        """A sample for each interval of a run, and none after its end."""
        record, _ = self.run_it("numa02", "-m", 8, "-t", 2, "-i", 100)
        times = [s["t"] for s in record["samples"]]
        self.assertGreaterEqual(record["seconds"], 2)
        self.assertGreater(len(times), 3)
        self.assertTrue(all(b - a >= 0.099 for a, b in zip([0, *times], times)), times)
        # The last may be taken while the first threads end
        self.assertLess(times[-1], record["seconds"] + 1)
        self.assertEqual(record["share_end"], 1)


if __name__ == "__main__":
    unittest.main()
