"""measure.py: what is run on which kernel, in what order."""

import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from harness import measure, records
from harness.tests.test_records import RECORD, outcome


class Order(unittest.TestCase):
    def test_abba(self):
        self.assertEqual(list(measure.order(3)),
                         [("base", 0), ("patched", 0), ("patched", 1), ("base", 1),
                          ("base", 2), ("patched", 2)])

    def test_at_least_five(self):
        self.assertGreaterEqual(measure.BOOTS, 5)


class Tasks(unittest.TestCase):
    def test_more_passes_under_kvm(self):
        tcg, kvm = (measure.tasks(1, a)[0].command for a in ("tcg", "kvm"))
        self.assertEqual(tcg, "./autonuma.run numa01 -s 1 -p 120")
        self.assertEqual(kvm, "./autonuma.run numa01 -s 1 -p 1200")


class Sizes(unittest.TestCase):
    """The size axis."""

    def chosen(self, *kib):
        return measure.chosen_sizes([{"kernel": "base", "page_kib": [4]},
                                     {"kernel": "patched", "page_kib": []},
                                     {"kernel": "patched", "page_kib": list(kib)}])

    def test_chosen(self):
        self.assertEqual(self.chosen(4, 16, 32, 64, 128, 256, 512, 1024, 2048),
                         [4, 16, 64, 128, 2048])
        self.assertEqual(self.chosen(64, 256, 512, 1024, 2048), [64, 2048])
        self.assertEqual(self.chosen(4, 16, 64), [4, 16, 64])
        self.assertEqual(self.chosen(4), [])
        self.assertEqual(measure.chosen_sizes([]), [])

    def test_each_size_is_first_once(self):
        sizes = [4, 16, 64, 128, 2048]
        self.assertGreaterEqual(measure.SIZE_BOOTS, len(sizes))
        for place in range(len(sizes)):
            there = [list(measure.size_tasks(sizes, boot, "tcg"))[3 * place].name
                     for boot in range(5)]
            self.assertEqual(len(set(there)), 5)

    def test_commands(self):
        tasks = list(measure.size_tasks([4, 64], 1, "tcg"))
        self.assertEqual([t.name for t in tasks],
                         ["numa01_THREAD_ALLOC-64", "numa02-64", "contended-64",
                          "numa01_THREAD_ALLOC-4", "numa02-4", "contended-4"])
        self.assertEqual(tasks[1].command, "./autonuma.run numa02 -s 1 -m 64 -p 320 -k 64")
        self.assertEqual(tasks[2].command, "./contended.run -s 1 -k 64")
        self.assertIn("-p 3200 ", list(measure.size_tasks([4], 0, "kvm"))[0].command)


class Plan(unittest.TestCase):
    """autonuma() with guests that are made up."""

    def setUp(self):
        self.seen = []
        for where, name, fake in ((measure.rootfs, "basic", lambda kernel: []),
                                  (measure.machine, "run", self.run_guest),
                                  (measure.machine, "accelerator", lambda *a: "tcg"),
                                  (measure, "say", lambda message: None),
                                  (records, "say", lambda message: None)):
            patch = mock.patch.object(where, name, fake)
            patch.start()
            self.addCleanup(patch.stop)

    def run_guest(self, _machine, _kernel, _initrds, job, folder, listener=None):
        """Every workload delivers, except the last one of the last guest."""
        self.seen.append((Path(folder).name, [t.command for t in job.tasks]))
        done = {t.name: (0, [RECORD.replace("numa01", t.name)]) for t in job.tasks}
        for _, lines in done.values():
            listener("task", lines[0])
        if len(self.seen) == 2 * measure.BOOTS:
            done["numa02_SMT"] = (1, ["killed"])
        return outcome(**done)

    def test_sizes(self):
        kernel = SimpleNamespace(arch=None, slow=1)
        guests, runs = measure.size_axis(kernel, [4, 64], "tcg", "bench.cpio", Path("r"))
        self.assertEqual(len(runs), 2 * 3 * measure.SIZE_BOOTS)
        self.assertEqual([g["what"] for g in guests[:2]], ["sizes 1", "sizes 2"])
        self.assertEqual({r["boot"] for r in runs}, set(range(1, measure.SIZE_BOOTS + 1)))
        self.assertEqual(measure.size_axis(kernel, [], "tcg", "bench.cpio", Path("r")), ([], []))

    def test_plan(self):
        kernel = SimpleNamespace(arch=None, slow=1)
        built = {k: kernel for k in measure.KERNELS}
        guests, runs = measure.autonuma(built, "bench.cpio", Path("r"))
        self.assertEqual(len(runs), 4 * 2 * measure.BOOTS - 1)
        self.assertEqual([g["verdict"] for g in guests].count("pass"), 2 * measure.BOOTS - 1)
        self.assertEqual(guests[-1]["why"], "numa02_SMT: killed")
        starts = {name: c[0].split("-s ")[1][0] for name, c in self.seen}
        for boot in range(1, measure.BOOTS + 1):
            self.assertEqual(starts[f"{boot}-base"], starts[f"{boot}-patched"])
        self.assertEqual({"0", "1"}, set(starts.values()))


if __name__ == "__main__":
    unittest.main()
