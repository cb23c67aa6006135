"""cost.py: rows and latencies from records and windows, and the plan of guests, made up."""

import json
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from harness import cost, machine, profile, records
from harness.common import Failure
from harness.machine import Done, Outcome
from harness.tests import test_common
from harness.tests.test_profile import CALL, COPY, KALLSYMS, window

VMSTAT = {"numa_hint_faults": 4}


def thp_record(kib=64, values=(9000, 9100, 9100, 15000)):
    """A record of thp_cost."""
    return {"test": "thp_cost", "thp": len(values), "thp_bytes": kib << 10, "page_bytes": 4096,
            "window": f"hint-{kib}K", "windows": [3 + i for i in range(len(values))],
            "values": list(values), "min": min(values), "median": 9100, "vmstat": VMSTAT}


def profiles(*found):
    """Profiles of (name, number, at)."""
    return cost.Profiles({(name, n): profile.Window(name, n, sum(at.values()), at)
                          for name, n, at in found}, profile.Symbols(KALLSYMS))


class Rows(unittest.TestCase):
    """rows()"""

    def test_hint(self):
        found = profiles(*(("hint-64K", n, {COPY: 8208, CALL: more})
                           for n, more in ((3, 800), (4, 900), (5, 900), (6, 6800))),
                         ("hint-64K", 9, {CALL: 2210}))
        row, = cost.rows("patched", thp_record(), 8, found)
        self.assertEqual({k: row[k] for k in ("what", "kernel", "kib", "pages", "n", "least",
                                              "median", "mean", "floor", "above")},
                         {"what": "hint", "kernel": "patched", "kib": 64, "pages": 1, "n": 4,
                          "least": 9000, "median": 9100, "mean": 10550, "floor": 8192,
                          "above": 908})
        self.assertAlmostEqual(row["deviation"], 2967.04, 2)
        # The two in the middle; the one that a timer hit is not among them
        self.assertEqual((row["profiled"], row["clock"], row["copies_ran"]), (9108, 9100, 8208))
        self.assertEqual(row["breakdown"], [["migrate_pages", 900], ["copy_page", 16]])
        self.assertEqual(row["profiled"], row["floor"] + sum(n for _, n in row["breakdown"]))

    def test_nothing_known_of_the_copy(self):
        row, = cost.rows("base", thp_record(), 0, profiles(("hint-64K", 3, {COPY: 8208})))
        self.assertEqual((row["floor"], row["above"]), (0, 9100))
        self.assertEqual(row["breakdown"], [["copy_page", 8208]])

    def test_not_profiled(self):
        row, = cost.rows("base", thp_record(), 8, profiles())
        self.assertEqual((row["profiled"], row["copies_ran"], row["breakdown"]), (None, None, []))

    def test_move(self):
        record = thp_record(2048) | {"test": "move_cost", "window": "move"}
        row, = cost.rows("base", record, 8, profiles(("move", 4, {COPY: 262656, CALL: 9})))
        self.assertEqual((row["what"], row["floor"]), ("move", 262144))
        self.assertEqual(row["breakdown"], [["copy_page", 512], ["migrate_pages", 9]])

    def test_device(self):
        record = {"test": "device_cost", "thp_bytes": 2 << 20, "page_bytes": 4096,
                  "base_to_device": [2000000, 2000002], "base_to_system": [1000000, 1000000],
                  "thp_to_device": [600000, 600000], "thp_to_system": [300000, 300000]}
        # The first round, number 0, is not among the values
        found = profiles(*(("thp_to_device", n, {COPY: 262144, COPY + 4: 262146, CALL: 5})
                           for n in (1, 2)), ("thp_to_device", 0, {CALL: 10 ** 6}))
        rows = cost.rows("patched", record, 8, found)
        self.assertEqual([(r["what"], r["kib"], r["pages"], r["floor"], r["median"])
                          for r in rows],
                         [("to_device", 4, 512, 524288, 2000001),
                          ("to_device", 2048, 1, 524288, 600000),
                          ("to_system", 4, 512, 262144, 1000000),
                          ("to_system", 2048, 1, 262144, 300000)])
        self.assertEqual(rows[1]["breakdown"], [["migrate_pages", 5], ["copy_page", 2]])


class Faults(unittest.TestCase):
    """Rows of faults that migrate nothing."""

    def rows(self, record):
        """Those of a record, profiled."""
        return cost.rows("base", record, 8,
                         profiles(*(("latency-full", n, {CALL: 22000 + n}) for n in (2, 4, 5))))

    def test_left_on_a_full_node(self):
        row, = self.rows(LATENCY)
        self.assertEqual((row["what"], row["n"], row["median"], row["floor"], row["above"]),
                         ("full", 2, 22588, 0, 22588))
        self.assertEqual(row["breakdown"], [["migrate_pages", 22004.5]])

    def test_local(self):
        """Not all faults have a window."""
        row, = self.rows(LATENCY | {"pressure": "free"})
        self.assertEqual((row["what"], row["n"], row["profiled"]), ("local", 3, 22002))

    def test_clock_is_of_what_was_profiled(self):
        """Only the first faults of a THP have a window, and these take longer here."""
        row, = self.rows(LATENCY | {"stayed": [[22006, 4], [22007, 5], [900, None], [901, None],
                                               [902, None]]})
        self.assertEqual((row["median"], row["profiled"], row["clock"]), (902, 22004.5, 22006.5))

    def test_none(self):
        self.assertEqual(self.rows(LATENCY | {"stayed": []}), [])


LATENCY = {"test": "hint_latency", "pressure": "full", "thp": 2, "thp_bytes": 2 << 20,
           "page_bytes": 4096, "faults_each": 3, "room_mib": 62, "window": "latency-full",
           "migrated": [[306930, 1]], "local": [[960, 2], [1000, None], [1001, None]],
           "stayed": [[22576, 4], [22600, 5]], "vmstat": VMSTAT}


class Latency(unittest.TestCase):
    """latency() and histogram()"""

    def test_row(self):
        row = cost.latency("base", LATENCY)
        self.assertEqual((row["n"], row["median"]), (6, 11788.5))
        self.assertEqual(row["shares"], [[1000, 2 / 6], [2000, 3 / 6], [4000, 3 / 6]])
        self.assertEqual(row["kinds"], {"migrated": {"n": 1, "median": 306930},
                                        "local": {"n": 3, "median": 1000},
                                        "stayed": {"n": 2, "median": 22588}})
        self.assertEqual(sum(n for _, n in row["histogram"]), 6)

    def test_a_kind_that_did_not_happen(self):
        row = cost.latency("base", LATENCY | {"stayed": []})
        self.assertEqual(row["kinds"]["stayed"], {"n": 0, "median": None})

    def test_buckets(self):
        self.assertEqual(cost.histogram([511, 512, 1023, 1024, 4096]),
                         [[256, 1], [512, 2], [1024, 1], [2048, 0], [4096, 1]])
        self.assertEqual(cost.histogram([]), [])


class Plan(test_common.Folder):
    """measure() with guests that are made up."""

    def setUp(self):
        super().setUp()
        self.seen, self.counts, self.fails = [], [], ""
        for where, name, fake in ((cost.rootfs, "basic", lambda kernel: []),
                                  (machine, "run", self.run_guest),
                                  (profile, "plugin", lambda: "profile.so"),
                                  (cost, "say", lambda message: None),
                                  (records, "say", lambda message: None)):
            patch = mock.patch.object(where, name, fake)
            patch.start()
            self.addCleanup(patch.stop)

    def run_guest(self, mach, kernel, _initrds, job, folder):
        """Every task delivers what its program would."""
        self.seen.append((Path(folder).name, [t.name for t in job.tasks]))
        self.counts.append(mach.icount)
        if self.fails and self.fails in Path(folder).name:
            return Outcome("crash", "panic", 1, Path(folder), {}, [], "tcg")
        lines, windows = {}, ""
        for task in job.tasks:
            if task.name in cost.PRESSURES:
                record = LATENCY | {"pressure": task.name}
            elif task.name == "device_cost":
                record = {"test": "device_cost", "thp_bytes": 2 << 20, "page_bytes": 4096,
                          **{f"{s}_{w}": [9, 9] for s in ("base", "thp")
                             for w in ("to_device", "to_system")}}
            else:
                kib = int(task.name[5:]) or 4 if task.name.startswith("hint_") else 2048
                record = thp_record(kib)
                windows += window(3, {COPY: 512, CALL: 2}, f"hint-{kib}K")
            lines[task.name] = Done(task.name, 0, lines=[json.dumps(record)], started=True)
        words = " ".join(mach.options)
        if "profile.so" in words:
            Path(words.split("out=")[1].split(",")[0]).write_text(windows, encoding="ascii")
        out = Outcome("pass", "", 1, Path(folder), lines, [], "tcg")
        out.file = {"kallsyms": KALLSYMS, "page_kib": kernel.page_kib}.get
        return out

    def kernels(self):
        """A base, and a patched kernel that has THP of several sizes."""
        arch = SimpleNamespace(copied=8)
        device = [Path("test_hmm.ko")]
        base = SimpleNamespace(arch=arch, slow=1, modules=device, page_kib="4\n")
        patched = SimpleNamespace(arch=arch, slow=1, modules=device,
                                  page_kib="4\n16\n64\n1024\n2048\n")
        return {"base": base, "patched": patched}

    def measure(self, quick=False, fails=""):
        """Guests and data; a guest whose folder has `fails` in its name crashes."""
        self.fails = fails
        self.kept = []
        cost.measure(self.kernels(), "bench.cpio", self.tmp, quick, self.keep)
        self.assertEqual(list(self.tmp.rglob("windows")), [])
        return self.kept[-1]

    def keep(self, guests, data):
        """What there is after each guest, as it would be saved."""
        self.kept.append(json.loads(json.dumps([guests, data])))

    def test_all(self):
        guests, data = self.measure()
        self.assertEqual(self.seen, [
            ("cost-base", ["thp_cost", "move_cost", "hint_0"]),
            ("cost-patched", ["thp_cost", "move_cost", "hint_0"]),
            ("cost-by-size-patched", ["hint_16", "hint_64", "hint_1024"]),
            ("cost-of-a-device-patched", ["device_cost"]),
            ("latency-base", ["free", "full", "pieces"]),
            ("latency-patched", ["free", "full", "pieces"])])
        self.assertEqual({g["verdict"] for g in guests}, {"pass"})
        self.assertEqual(len(data["costs"]), 3 + 3 + 3 + 4 + 2 * 3)
        self.assertEqual([(r["kernel"], r["pressure"]) for r in data["latency"]],
                         [(k, p) for k in ("base", "patched") for p in cost.PRESSURES])
        self.assertEqual(json.loads(json.dumps(data)), data)
        self.assertEqual((data["sizes"], data["device"]), ([16, 64, 1024], True))

    def test_kept_after_each_guest(self):
        self.measure()
        self.assertEqual([(len(guests), len(data["costs"]), len(data["latency"]))
                          for guests, data in self.kept],
                         [(1, 3, 0), (2, 6, 0), (3, 9, 0), (4, 13, 0), (5, 16, 3), (6, 19, 6)])

    def test_windows_that_cannot_be_read(self):
        """It is the guest that failed; the others are measured."""
        with mock.patch.object(profile, "read", side_effect=[Failure("line 3: damaged")] +
                               [{}] * 5):
            guests, data = self.measure()
        self.assertEqual([g["verdict"] for g in guests], ["fail"] + ["pass"] * 5)
        self.assertEqual(guests[0]["why"], "line 3: damaged")
        self.assertEqual({r["kernel"] for r in data["costs"] if r["what"] == "hint"}, {"patched"})
        with mock.patch.object(profile, "Symbols", side_effect=Failure("no function")):
            self.assertEqual({g["verdict"] for g in self.measure()[0]}, {"fail"})

    def test_what_make_run_wants(self):
        kernels = self.kernels()
        guests, found = cost.one_thp(kernels, "bench.cpio", self.tmp)
        self.assertEqual([g["what"] for g in guests], ["cost", "cost"])
        self.assertEqual({k: r["test"] for k, r in found.items()},
                         {"base": "thp_cost", "patched": "thp_cost"})
        guests, found = cost.device(kernels["patched"], "bench.cpio", self.tmp)
        self.assertEqual([(g["what"], g["verdict"]) for g in guests],
                         [("device", "pass"), ("device time", "pass")])
        self.assertEqual({k: r["test"] for k, r in found.items()},
                         {"device": "device_cost", "device_time": "device_cost"})
        self.assertEqual(self.counts[-2:], [True, False])
        kernels["patched"].modules = []
        self.assertEqual(cost.device(kernels["patched"], "bench.cpio", self.tmp), ([], {}))

    def test_quick(self):
        self.measure(quick=True)
        self.assertIn(("cost-by-size-patched", ["hint_64"]), self.seen)
        self.assertIn(("latency-patched", ["free", "full"]), self.seen)

    def test_a_guest_that_fails(self):
        guests, data = self.measure(fails="cost-patched")
        self.assertEqual([g["verdict"] for g in guests].count("crash"), 1)
        self.assertEqual({r["kernel"] for r in data["costs"] if r["what"] == "hint"}, {"base"})
        self.assertEqual(len(data["latency"]), 6)
        self.assertIsNone(data["sizes"])

    def test_latencies_need_their_guest(self):
        _, data = self.measure(fails="latency")
        self.assertEqual(data["latency"], [])


class Commands(unittest.TestCase):
    """What is run in a guest."""

    def test_hint(self):
        self.assertEqual(cost.hint(0).command, "./thp_cost.run -k 0 -n 128")
        self.assertEqual(cost.hint(64).command, "./thp_cost.run -k 64 -n 32")

    def test_between(self):
        self.assertEqual(cost.between([4, 16, 64, 2048], False), [16, 64])
        self.assertEqual(cost.between([4, 16, 64, 2048], True), [64])
        self.assertEqual(cost.between([4], False), [])
        self.assertEqual(cost.between([], False), [])

    def test_counts_on_one_cpu(self):
        kernel = SimpleNamespace(arch=None, slow=1)
        mach = cost.counting(kernel, ("-plugin", "x"))
        self.assertTrue(mach.icount)
        self.assertEqual(sum(n.cpus for n in mach.nodes), 1)
        self.assertEqual(mach.options, (*cost.REPEATABLE, "-plugin", "x"))


if __name__ == "__main__":
    unittest.main()
