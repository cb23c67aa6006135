"""make bench: plan, estimate, traffic; each check fails on what it is there to catch."""

import contextlib
import io
import json
import lzma
import os
import random
import re
import subprocess
import unittest
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from harness import (bench, bench_compare, bench_plots, bench_report, machine, measure, meter,
                     peer, records)
from harness.common import Failure
from harness.machine import Done, Outcome
from harness.tests.test_common import Folder

NODES = machine.TOPOLOGIES["default"]
DISTANCES = machine.distances(NODES)
# Local share of a run: over all, and after convergence.
SHARES = {"base": (0.97, 0.99), "patched": (0.97, 0.99), "off": (0.5, 0.5), "hard": (0.998, 0.998),
          "inverse": (0.003, 0.003)}
MISSES = 30e6


def record(column, boot, workload, kib, noise=0.01):
    """A record as bench makes it, of a run that does what is expected of it."""
    whole, end = SHARES[column]
    chance = random.Random(f"{column} {boot} {workload} {kib}")
    whole = min(0.999, max(0.001, whole + chance.uniform(-noise, noise)))
    start = None if column in ("hard", "inverse") else bench.start_node(boot - 1)
    slices, samples, faults, near = [], [], 0, 0
    for i in range(1, 49):
        share = whole if column != "patched" else min(end, 0.5 + 0.02 * i)
        local = int(MISSES / 48 * share)
        here = int(MISSES / 48 * (0.5 if start is None or column == "off" else 1 - share / 2))
        slices.append([i / 4, local, [here, int(MISSES / 48) - here]])
        if i % 4 == 0:
            faults += 40
            near += int(40 * share)
            samples.append({"t": i / 4, "share": share,
                            "mib": [[32 - i / 3, i / 3][::-1 if start else 1]],
                            "numa_hint_faults": faults,
                            "numa_hint_faults_local": near,
                            "numa_pages_migrated": 16 * faults})
    return {"column": column, "boot": boot, "test": workload, "page_kib": kib, "base_kib": 4,
            "seconds": 12.0, "written_mib": 1920, "start_node": start, "share_final": end,
            "samples": samples,
            "vmstat": {"numa_hint_faults": faults, "numa_hint_faults_local": faults // 2,
                       "numa_pages_migrated": 16 * faults, "thp_migration_success": None},
            "traffic": {"seconds": 12.0, "misses": MISSES, "kernel_misses": MISSES / 50,
                        "accesses": 8 * MISSES, "local": whole, "local_all": whole,
                        "modelled": MISSES * (2 - whole), "other": 0,
                        "tail": {"local": end, "per_miss": 2 - end}, "slices": slices}}


def results(boots=8, quick=False):
    """Results of a good run."""
    page_kib = {"base": [4, 2048], "patched": [4, 16, 32, 64, 128, 2048]}
    data = {"bench": 1, "time": "2026-01-01T00:00:00Z", "arch": "x86_64", "quick": quick,
            "host_cpus": 2, "sysctls": bench.RATES, "nodes": [vars(n) for n in NODES],
            "distances": DISTANCES, "page_kib": page_kib, "peer_lacks": "",
            "meter": {"cache_kib": 1024, "ways": 16, "slice_ms": 250},
            "kernels": {"base": {"tree": "a" * 40, "key": "k1"}},
            "guests": [{"kernel": "base", "what": "base 1", "verdict": "pass", "why": ""}],
            "cost": COSTS,
            "verdict": "not run", "seconds": 90}
    plan = bench.plan_of(data, quick)
    data["plan"] = {"boots": boots, "rows": plan.rows, "estimate": 60,
                    "passes": {w: 60 for w in bench.WORKLOADS},
                    "mib": {w: 32 for w in bench.WORKLOADS}}
    data["runs"] = [record(c, b, w, k) for c, rows in plan.rows.items() for w, k in rows
                    for b in range(1, boots + 1)]
    return data


# What harness.cost finds, as far as it is used here, and what cost_report makes of it.
COSTS = {"copied": 8, "costs": [{"what": "hint", "kernel": "base", "kib": 2048, "median": 300000,
                                 "above": 37856}],
         "latency": []}


BENCH_ALL = bench.Bench.all


def cost_checks(data):
    """One check, which holds if there are costs."""
    return [{"what": "cost of one THP", "ok": bool(data["costs"]), "why": ""}]


def setUpModule():                  # pylint: disable=invalid-name
    """Costs have tests of their own."""
    for name, fake in (("checks", cost_checks), ("plots", lambda data: [("Bars", "<svg></svg>")]),
                       ("tables", lambda data: [("Cost", ("", "base"), [("least", "7")])])):
        patch = mock.patch.object(bench_report.cost_report, name, fake)
        patch.start()
        unittest.addModuleCleanup(patch.stop)


def of(data, column, kib, workload=None):
    """Records of a column and size."""
    return [r for r in data["runs"] if (r["column"], r["page_kib"]) == (column, kib)
            and workload in (None, r["test"])]


class Plan(unittest.TestCase):
    def plan(self, quick=False):
        return bench.plan_of(results(1), quick)

    def test_rows(self):
        plan = self.plan()
        self.assertEqual(len(plan.rows["patched"]), 4 * 5)
        self.assertEqual({k for _, k in plan.rows["patched"]}, {4, 16, 64, 128, 2048})
        self.assertEqual({k for _, k in plan.rows["base"]}, {4, 2048})
        self.assertGreaterEqual(plan.boots, 7)

    def test_abba(self):
        names = [(c.name, b) for c, b in self.plan().guests()]
        self.assertEqual([n for n, b in names if b == 0], [c.name for c in bench.COLUMNS])
        self.assertEqual([n for n, b in names if b == 1], [c.name for c in bench.COLUMNS[::-1]])

    def test_quick(self):
        plan = self.plan(True)
        self.assertEqual({k for _, k in plan.rows["patched"]}, {64, 2048})
        self.assertLess(plan.passes("numa02"), self.plan().passes("numa02"))

    def test_commands(self):
        plan = self.plan()
        free = bench.tasks(plan, bench.PATCHED, 3)
        bound = bench.tasks(plan, bench.INVERSE, 3)
        self.assertTrue(all(" -s 1 " in t.command for t in free))
        self.assertTrue(all(" -b inverse " in t.command for t in bound))
        self.assertFalse(any(" -s " in t.command for t in bound))
        self.assertEqual(sorted(t.name for t in free), sorted(t.name for t in bound))

    def test_start_is_not_the_direction(self):
        """Each node as often with the columns forward as back."""
        plan = self.plan()
        seen = [(boot % 2, bench.tasks(plan, bench.PATCHED, boot)[0].command.split("-s ")[1][0])
                for boot in range(plan.boots)]
        self.assertEqual({s: seen.count(s) for s in seen},
                         {(d, n): plan.boots // 4 for d in (0, 1) for n in "01"})

    def test_each_row_starts_elsewhere(self):
        plan = self.plan()
        first = {bench.tasks(plan, bench.PATCHED, b)[0].name for b in range(plan.boots)}
        self.assertEqual(len(first), plan.boots)

    def test_shared_rows_go_alike(self):
        """What is compared ran at the same place after the same neighbours, in each column."""
        for quick in (False, True):
            plan = self.plan(quick)
            n = len(plan.rows["base"])
            for boot in range(plan.boots):
                found = {c.name: [t.name for t in bench.tasks(plan, c, boot)]
                         for c in plan.columns}
                for name, tasks in found.items():
                    self.assertEqual(tasks[:n], found["base"], (name, boot))
                    self.assertEqual(sorted(tasks), sorted(bench.phase_name(*r)
                                                           for r in plan.rows[name]))

    def test_others_take_turns(self):
        plan = self.plan()
        at = len(plan.rows["base"])
        first = {bench.tasks(plan, bench.PATCHED, b)[at].name for b in range(plan.boots)}
        self.assertEqual(len(first), plan.boots)

    def test_balancing(self):
        on = {c.name for c in bench.COLUMNS if c.sysctls()["kernel.numa_balancing"]}
        self.assertEqual(on, {"base", "patched"})

    def test_sizes(self):
        self.assertEqual(bench.sizes_of([4], 2048), [4, 2048])
        self.assertEqual(bench.sizes_of([4, 16, 2048], 2048), [4, 16, 2048])

    def test_peer(self):
        data = results(1)
        data["page_kib"]["peer"] = [4, 2048]
        self.assertEqual({k for _, k in bench.plan_of(data, False).rows["peer"]}, {4, 2048})


class Estimate(unittest.TestCase):
    def test_by_trial(self):
        plan = bench.plan_of(results(1), True)
        fast, slow = (bench.estimate(plan, {"base": (10, rate)}, {}) for rate in (0.001, 0.01))
        self.assertGreater(slow, fast)

    def test_an_earlier_run_counts(self):
        plan = bench.plan_of(results(1), True)
        pace = {f"{c}-{w}-{k}": 0.5 for c, rows in plan.rows.items() for w, k in rows}
        pace |= {"boot": 3, bench.cost_name(True): 7, bench.cost_name(False): 999}
        whole = sum(3 + 0.5 * bench.work(plan, w) for c, _ in plan.guests()
                    for w, _ in plan.rows[c.name])
        self.assertAlmostEqual(bench.estimate(plan, {"base": (99, 99)}, pace), 7 + whole)

    def test_hint_faults_are_of_balancing(self):
        plan = bench.plan_of(results(1), False)
        on, off = (bench.guest_seconds(plan, c, {"base": (10, 0.01)}, {})
                   for c in (bench.PATCHED, bench.OFF))
        self.assertGreater(on, off)
        self.assertAlmostEqual(off, 10 + sum(0.01 * bench.work(plan, w)
                                             for w, _ in plan.rows["off"]))

    def test_left_is_by_weight(self):
        self.assertEqual(bench.remaining(20, [1, 3, 2], 2), 10)

    def test_words(self):
        self.assertEqual(bench.duration(20), "1 min")
        self.assertEqual(bench.duration(3 * 3600 + 300), "3 h 05 min")


class Pace(Folder):
    def test_damaged(self):
        for text in ("[1]", "{", '{"boot": 1.5}', '{"arch": {"boot": "soon"}}'):
            bench.pace_path().parent.mkdir(exist_ok=True)
            bench.pace_path().write_text(text)
            self.assertEqual(bench.remembered_pace("arch"), {})

    def test_by_architecture(self):
        bench.remember_pace("one", {"boot": 1})
        bench.remember_pace("two", {"boot": 2})
        bench.remember_pace("two", {"boot": 3})
        self.assertEqual(bench.remembered_pace("one"), {"boot": 1})
        self.assertEqual(bench.remembered_pace("two"), {"boot": 3})
        self.assertEqual(bench.remembered_pace("three"), {})


class Options(Folder):
    def test_quick(self):
        for text, want in (("", False), ("0", False), ("1", True)):
            with mock.patch.dict(os.environ, QUICK=text):
                self.assertEqual(bench.is_quick(), want)
        with mock.patch.dict(os.environ, QUICK="yes"), self.assertRaises(Failure):
            bench.is_quick()


class Peer(Folder):
    """What is found beside the image of a peer."""

    def package(self, **modules):
        """An image with modules beside it, as a package is unpacked; its path."""
        folder = self.tmp / "lib/modules/6.1.0-1"
        for name, needs in modules.items():
            path = folder / "kernel/drivers" / f"{name.replace('_', '-')}.ko"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{name}\0depends={needs}\0more\0".encode())
        (self.tmp / "boot").mkdir()
        image = self.tmp / "boot/vmlinuz-6.1.0-1"
        image.write_bytes(b"kernel")
        return image, folder

    def test_no_such_file(self):
        with mock.patch.dict(os.environ, PEER=str(self.tmp / "none")), \
                self.assertRaisesRegex(Failure, "no such file"):
            peer.wished()

    def test_in_order(self):
        image, folder = self.package(virtio_console="virtio,virtio_ring", virtio_ring="virtio",
                                     virtio="", other="virtio",
                                     virtio_pci="virtio-pci-modern,virtio",
                                     virtio_pci_modern="")
        self.assertEqual(peer.module_folder(image), folder)
        self.assertEqual([name for name, _ in peer.needed(folder)],
                         ["virtio_pci_modern", "virtio", "virtio_pci", "virtio_ring",
                          "virtio_console"])

    def test_below_usr(self):
        image, folder = self.package()
        (self.tmp / "usr" / "lib").mkdir(parents=True)
        folder.mkdir(parents=True)
        (self.tmp / "lib/modules").rename(self.tmp / "usr/lib/modules")
        self.assertEqual(peer.module_folder(image), self.tmp / "usr/lib/modules/6.1.0-1")

    def test_kernel(self):
        image, folder = self.package()
        folder.mkdir(parents=True)
        (folder / "virtio_pci.ko.xz").write_bytes(lzma.compress(b"module"))
        found = peer.kernel(None, image)
        self.assertEqual(found.image.read_bytes(), b"kernel")
        self.assertEqual((found.folder / "early/00-virtio_pci.ko").read_bytes(), b"module")
        self.assertEqual(found.modules, [])

    def test_built_in(self):
        image, _ = self.package()
        self.assertEqual(list((peer.kernel(None, image).folder / "early").iterdir()), [])

    def test_packed_otherwise(self):
        with self.assertRaisesRegex(Failure, "cannot unpack"):
            peer.content(self.tmp / "virtio.ko.zst")

    def test_release(self):
        head = bytearray(1024)
        head[0x202:0x206] = b"HdrS"
        head[0x20e:0x210] = (0x100).to_bytes(2, "little")
        head[0x300:0x30d] = b"6.12.1 (who)\0"
        image = self.tmp / "bzImage"
        image.write_bytes(head)
        self.assertEqual(peer.release(image), "6.12.1")
        image.write_bytes(b"something else")
        self.assertEqual(peer.release(image), "")
        self.assertIsNone(peer.module_folder(image))


def phase(name="numa02-64", slices=None):
    """A phase of the meter: half of vCPU 0's and all of vCPU 1's misses are local."""
    counts = ({"user": {"loads": [10, 10], "stores": [0, 0], "load_misses": [5, 5],
                        "store_misses": [0, 0]},
               "kernel": {"loads": [0, 0], "stores": [0, 0], "load_misses": [0, 0],
                          "store_misses": [0, 0]}},
              {"user": {"loads": [0, 30], "stores": [0, 0], "load_misses": [0, 9],
                        "store_misses": [0, 0]},
               "kernel": {"loads": [0, 1], "stores": [0, 0], "load_misses": [0, 1],
                          "store_misses": [0, 0]}})
    slices = slices or ([[5, 5], [0, 5]], [[0, 0], [0, 5]])
    return meter.Phase(name, 1.0, 1024, 16, (0, 1), 2, counts, (0, 2), 0.5, tuple(slices))


class Traffic(unittest.TestCase):
    def test_counts(self):
        t = bench.traffic(phase(), DISTANCES)
        self.assertEqual((t["misses"], t["kernel_misses"], t["accesses"], t["other"]),
                         (20, 1, 51, 2))
        self.assertEqual(t["local"], 15 / 20)
        self.assertEqual(t["modelled"], 15 + 2 * 5)
        self.assertEqual(t["slices"], [[0.5, 10, [5, 10]], [1.0, 5, [0, 5]]])

    def test_tail_is_the_last_quarter(self):
        self.assertEqual(bench.traffic(phase(), DISTANCES)["tail"], {"local": 1, "per_miss": 1})
        late = phase(slices=([[5, 0], [0, 10]], [[0, 5], [0, 0]]))
        self.assertEqual(bench.traffic(late, DISTANCES)["tail"], {"local": 0, "per_miss": 2})

    def test_tail_begins_within_a_slice(self):
        """Five of 20: the last one, and of the 19 before, of which 9 are local, four in 19."""
        found = bench.tail(phase(slices=([[0, 10], [0, 9]], [[1, 0], [0, 0]])), DISTANCES)
        self.assertAlmostEqual(found["local"], (1 + 4 * 9 / 19) / 5)
        self.assertAlmostEqual(found["per_miss"], (1 + 4 * (9 + 2 * 10) / 19) / 5)

    def test_tail_is_called_what_it_is(self):
        data = results(2)
        bench_report.finish(data)
        for text in (bench_report.text(data), bench_report.markdown(data)):
            self.assertIn("patched, last quarter", text)
            self.assertNotIn("converged,", text)
            self.assertNotIn(", converged", text)

    def test_nothing_counted(self):
        none = phase(slices=([[0, 0], [0, 0]],))
        self.assertIsNone(bench.tail(none, DISTANCES))

    def test_lost(self):
        with mock.patch.object(meter, "read", lambda path: [phase()]):
            found, wrong = bench.with_traffic(Path("r"), {"numa02-64": {"seconds": 1}}, DISTANCES)
            self.assertEqual((len(found), wrong), (1, ""))
            found, wrong = bench.with_traffic(Path("r"), {"numa01-64": {}}, DISTANCES)
            self.assertEqual((found, wrong), ({}, "numa01-64: its accesses were not counted"))

    def test_unreadable(self):
        with mock.patch.object(meter, "read", side_effect=Failure("line 3")):
            self.assertEqual(bench.with_traffic(Path("r"), {"a": {}}, DISTANCES), ({}, "line 3"))


class Trial(Folder):
    """What a peer may lack."""

    def guest(self, console="", sysctls=None, verdict="pass"):
        sysctls = bench.PEER.sysctls() if sysctls is None else sysctls
        (self.tmp / "console").write_text(console)
        out = Outcome(verdict, "" if verdict == "pass" else "the guest went away", 9, self.tmp,
                      {"trial": Done("trial", 0, lines=['{"test": "numa02", "seconds": 1}'])},
                      [], "tcg")
        out.file = lambda name: "\n".join(f"{k} = {v}" for k, v in sysctls.items())
        return out

    def test_good(self):
        self.assertEqual(bench.lacks(self.guest(), bench.PEER), "")

    def sizes(self, page_kib):
        """KiB that the trial asks for on a kernel with these sizes of pages."""
        (self.tmp / "page_kib").write_text("".join(f"{k}\n" for k in page_kib))
        (self.tmp / "pmd_kib").write_text("2048\n")
        words = [t.command.replace("/results", str(self.tmp)).replace("./autonuma.run", "echo")
                 for t in bench.TRIALS]
        return [subprocess.check_output(["sh", "-c", w], text=True).split()[-1] for w in words]

    def test_sizes_are_tried(self):
        self.assertEqual(self.sizes([4, 16, 64, 2048]), ["2048", "64"])
        self.assertEqual(self.sizes([4]), ["2048", "4"])

    def test_one_size_fails(self):
        out = self.guest()
        out.done["trial-small"] = Done("trial-small", 1, lines=["cannot read enabled"])
        self.assertEqual(bench.lacks(out, bench.PEER), "trial-small: cannot read enabled")

    def test_no_ports(self):
        self.assertIn("virtio-serial", bench.lacks(self.guest("\x01boot\n", verdict="lost"),
                                                   bench.PEER))

    def test_does_not_boot(self):
        self.assertEqual(bench.lacks(self.guest(verdict="lost"), bench.PEER),
                         "the guest went away")

    def test_no_balancing(self):
        some = bench.PEER.sysctls() | {"kernel.numa_balancing": ""}
        self.assertEqual(bench.lacks(self.guest(sysctls=some), bench.PEER),
                         "it does not take kernel.numa_balancing")


class Trials(Folder):
    """Bench.trials() with guests that are made up."""

    def setUp(self):
        super().setUp()
        self.files = {"page_kib": "4\n64\n2048\n", "pmd_kib": "2048\n", "release": "5.10.262\n"}
        for where, name, fake in ((bench.Bench, "guest", self.run_guest),
                                  (bench, "say", lambda message: None)):
            patch = mock.patch.object(where, name, fake)
            patch.start()
            self.addCleanup(patch.stop)

    def run_guest(self, column, todo, where, listener=None):
        where.mkdir()
        (where / "console").write_text("")
        record = {"test": "numa02", "seconds": 2, "written_mib": 10}
        done = {t.name: Done(t.name, 0, lines=[json.dumps(record)]) for t in todo}
        out = Outcome("pass", "", 30, where, done, [], "tcg")
        sysctls = "".join(f"{k} = {v}\n" for k, v in column.sysctls().items())
        out.file = (self.files | {"sysctls": sysctls}).get
        return out

    def trials(self, *names):
        """What the trials of some kernels return, and the results."""
        data = results(1)
        data.update(page_kib={}, kernels={n: {"tree": "", "key": n} for n in names})
        return bench.Bench(None, dict.fromkeys(names), None, None, self.tmp, data).trials(), data

    def test_sizes_and_pace(self):
        found, data = self.trials("base", "patched")
        self.assertEqual(found, {"base": (26, 0.2), "patched": (26, 0.2)})
        self.assertEqual(data["page_kib"]["patched"], [4, 64, 2048])
        self.assertEqual(data["kernels"]["base"]["release"], "5.10.262")

    def test_distances_of_the_guest(self):
        self.files["distances"] = "10 40\n40 10\n"
        self.assertEqual(self.trials("base", "patched")[1]["distances"], ((10, 40), (40, 10)))

    def test_no_distances(self):
        for said in (None, "", "10 40\n", "10\n40\n", "10 0\n0 10\n", "near far\nfar near\n"):
            with self.subTest(said=said):
                self.assertIsNone(bench.read_distances(said, 2))
        self.assertEqual(self.trials("patched")[1]["distances"], DISTANCES)


class Guests(Folder):
    """Bench.run() with guests that are made up."""

    def setUp(self):
        super().setUp()
        self.seen, self.fails, self.sysctls = [], (), {}
        for where, name, fake in (
                (bench.Bench, "guest", self.run_guest), (bench, "say", lambda message: None),
                (records, "say", lambda message: None),
                (meter, "read", lambda path: [phase(n) for n in self.named])):
            patch = mock.patch.object(where, name, fake)
            patch.start()
            self.addCleanup(patch.stop)
        env = mock.patch.dict(os.environ, BUILD=str(self.tmp))
        env.start()
        self.addCleanup(env.stop)

    def run_guest(self, column, todo, where, listener=None):
        """Every run delivers, except the last one in the folders self.fails."""
        self.seen.append(where.name)
        self.named = [t.name for t in todo]
        done = {}
        for t in todo:
            workload, _, kib = t.name.rpartition("-")
            done[t.name] = Done(t.name, 0, lines=[json.dumps(
                {"test": workload, "page_kib": int(kib), "seconds": 2, "written_mib": 10,
                 "share_end": 1, "share_final": 1})])
        if where.name in self.fails:
            done[todo[-1].name] = Done(todo[-1].name, 1, lines=["killed"])
        out = Outcome("pass", "", 30, where, done, [], "tcg")
        sysctls = "".join(f"{k} = {v}\n" for k, v in (column.sysctls() | self.sysctls).items())
        out.file = {"sysctls": sysctls, "page_kib": "4\n64\n2048\n"}.get
        return out

    def one(self, column=bench.PATCHED):
        """The results of a guest that is alone."""
        data = results(1)
        data.update(runs=[], guests=[])
        plan = bench.plan_of(data, True)
        bench.Bench(None, {}, None, None, self.tmp, data).one(plan, column, 0)
        self.assertTrue(all(r["boot"] == 1 for r in data["runs"]))
        return data

    def test_sysctl_is_another(self):
        for column, value in ((bench.OFF, 1), (bench.PATCHED, 0)):
            self.assertEqual(self.one(column)["guests"][0]["verdict"], "pass")
            self.sysctls = {"kernel.numa_balancing": value}
            data = self.one(column)
            self.assertEqual((data["guests"][0]["verdict"], data["guests"][0]["why"]),
                             ("fail", "kernel.numa_balancing was not as its column wants it"))
            self.assertEqual(data["runs"], [])
            self.sysctls = {}

    def all(self, quick=True):
        """The plan and the results of all guests."""
        data = results(1)
        data.update(runs=[], guests=[])
        plan = bench.plan_of(data, quick)
        bench.Bench(None, {}, None, None, self.tmp, data).run(plan, {})
        return plan, data

    def test_all(self):
        """One guest fails, and so does the next one that is to do its part."""
        self.fails = "2-base", "2-base-again"
        plan, data = self.all()
        runs = sum(len(plan.rows[c.name]) for c, _ in plan.guests())
        self.assertEqual(len(data["runs"]), runs - 1)
        self.assertEqual([g["verdict"] for g in data["guests"]].count("pass"),
                         len(plan.guests()) - 1)
        self.assertEqual([(g["what"], g["verdict"], g["why"].split(": ")[1], g.get("repeated"))
                          for g in data["guests"][-2:]],
                         [("base 2", "fail", "killed", "fail"),
                          ("base 2 again", "fail", "killed", None)])
        self.assertTrue((self.tmp / "results.json").exists())
        self.assertEqual(bench.remembered_pace("x86_64")["patched-numa02-64"], 0.2)

    def test_once_more(self):
        """All runs are there once, and the failure is kept."""
        self.fails = ("1-off",)
        plan, data = self.all()
        self.assertEqual(self.seen.count("1-off-again"), 1)
        keys = [(r["column"], r["boot"], r["test"], r["page_kib"]) for r in data["runs"]]
        self.assertEqual(len(keys), sum(len(plan.rows[c.name]) for c, _ in plan.guests()))
        self.assertEqual(len(keys), len(set(keys)))
        failed, again = (next(g for g in data["guests"] if g["what"] == w)
                         for w in ("off 1", "off 1 again"))
        self.assertEqual((failed["verdict"], failed["repeated"], again["verdict"]),
                         ("fail", "pass", "pass"))

    def test_not_for_ever(self):
        """A column whose guests all fail is not run twice."""
        self.fails = [f"{b}-off{a}" for b in range(1, 9) for a in ("", "-again")]
        self.all(quick=False)
        self.assertEqual([s for s in self.seen if "again" in s], ["1-off-again"])

    def test_pace_is_kept_after_each_guest(self):
        self.one()
        self.assertEqual(bench.remembered_pace("x86_64")["patched-numa02-64"], 0.2)


class Report(Folder):
    """What is written, and when."""

    def setUp(self):
        super().setUp()
        self.folder = self.tmp / "results" / "1-bench"
        self.folder.mkdir(parents=True)
        self.data = results()
        for where, name, fake in (
                (bench.series, "trees", lambda: dict.fromkeys(measure.KERNELS)),
                (bench.kernels, "build", lambda *args, **more: SimpleNamespace(
                    tree="t", key="k", config=self.tmp / "none")),
                (records, "programs", lambda arch: None),
                (bench.rootfs, "folder", lambda *args: None), (meter, "plugin", lambda: None),
                (bench, "new_results", lambda what: self.folder),
                (bench, "start", lambda *args: self.data), (bench.Bench, "all", self.all)):
            patch = mock.patch.object(where, name, fake)
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop("FROM", None)
        os.environ.pop("PEER", None)

    def all(self, quick):
        """Bench.all() of a good run."""

    def broken_off(self, error, **more):
        """Bench.all() that raises; what there was before."""
        def all_(_bench, _quick):
            self.data.update(more)
            raise error
        with mock.patch.object(bench.Bench, "all", all_), \
                contextlib.redirect_stdout(io.StringIO()) as out, \
                self.assertRaises(type(error)):
            bench.step_bench()
        return out.getvalue()

    def step(self, **env):
        """Exit code."""
        with mock.patch.dict(os.environ, env), contextlib.redirect_stdout(io.StringIO()):
            return bench.step_bench()

    def files(self):
        return sorted(p.name for p in self.folder.iterdir())

    def test_written(self):
        self.assertEqual(self.step(), 0)
        self.assertEqual(self.files(), ["report.html", "report.md", "results.json"])

    def test_broken_off(self):
        """All that was measured is good, and yet it does not pass."""
        del self.data["seconds"]
        for error in (KeyboardInterrupt(), SystemExit(143), Failure("disk full")):
            self.assertIn("broken off; the report of what there is: ", self.broken_off(error))
            self.assertEqual(self.files(), ["report.html", "report.md", "results.json"])
            saved = json.loads((self.folder / "results.json").read_text())
            self.assertEqual(saved["verdict"], "fail")
            self.assertEqual([c["what"] for c in saved["checks"] if not c["ok"]],
                             ["the bench came to its end"])

    def test_broken_off_before_anything_was_measured(self):
        self.broken_off(KeyboardInterrupt(), runs=[], cost=COSTS | {"costs": []})
        self.assertEqual(self.files(), ["results.json"])

    def test_broken_off_among_the_costs(self):
        """The costs of the first guest are saved, and there is a report of them."""
        def measure_(_kernels, _share, _folder, _quick, keep):
            keep([{"kernel": "base", "what": "cost", "verdict": "pass", "why": ""}], COSTS)
            saved = json.loads((self.folder / "results.json").read_text())
            self.assertEqual((saved["cost"], len(saved["guests"])), (COSTS, 1))
            raise KeyboardInterrupt
        self.data.update(runs=[], guests=[], cost=COSTS | {"costs": []})
        del self.data["seconds"]
        with mock.patch.object(bench.Bench, "all", BENCH_ALL), \
                mock.patch.object(bench.Bench, "trials", lambda _: {}), \
                mock.patch.object(bench, "say", lambda message: None), \
                mock.patch.object(bench.cost, "measure", measure_), \
                self.assertRaises(KeyboardInterrupt):
            bench.step_bench()
        self.assertEqual(self.files(), ["report.html", "report.md", "results.json"])
        self.assertIn("least | 7", (self.folder / "report.md").read_text())

    def test_report_that_fails_loses_nothing(self):
        with mock.patch.object(bench_report, "finish", side_effect=TypeError), \
                self.assertRaises(TypeError):
            self.step()
        self.assertEqual(self.files(), ["results.json"])
        self.assertEqual(self.step(FROM=str(self.folder)), 0)
        self.assertEqual(self.files(), ["report.html", "report.md", "results.json"])

    def test_made_anew(self):
        self.assertEqual(self.step(), 0)
        page = (self.folder / "report.md").read_text()
        for name in ("report.md", "report.html"):
            (self.folder / name).unlink()
        with mock.patch.object(bench.Bench, "all", side_effect=AssertionError):
            for where in (self.folder, self.folder / "results.json"):
                self.assertEqual(self.step(FROM=str(where)), 0)
        self.assertEqual((self.folder / "report.md").read_text(), page)
        self.assertTrue((self.folder / "report.html").exists())

    def test_from_elsewhere(self):
        with self.assertRaisesRegex(Failure, "FROM=.*: no results.json there"):
            self.step(FROM=str(self.tmp / "none"))
        (self.folder / "results.json").write_text('{"step": "native", "runs": [1]}')
        with self.assertRaisesRegex(Failure, "of make native: make native FROM="):
            self.step(FROM=str(self.folder))


class Checks(unittest.TestCase):
    """Results in which one thing is wrong."""

    def setUp(self):
        self.data = results()

    def failed(self):
        bench_report.finish(self.data)
        return [c["what"] for c in self.data["checks"] if not c["ok"]]

    def assert_fails(self, *words):
        failed = self.failed()
        self.assertEqual(self.data["verdict"], "fail")
        self.assertEqual(len(failed), len(words), failed)
        for word, what in zip(words, failed):
            self.assertIn(word, what)

    def test_good(self):
        self.assertEqual(self.failed(), [])
        self.assertEqual(self.data["verdict"], "pass")

    def test_too_few(self):
        for r in of(self.data, "off", 64, "numa01")[:2]:
            self.data["runs"].remove(r)
        self.assert_fails("at least 7")

    def lost(self, verdict="lost", boots=1, **more):
        """The first guests of a column did not do their part."""
        for boot in range(1, boots + 1):
            self.data["guests"].append({"kernel": "patched", "column": "off", "why": "gone",
                                        "what": f"off {boot}", "verdict": verdict, **more})
            self.data["runs"] = [r for r in self.data["runs"]
                                 if (r["column"], r["boot"]) != ("off", boot)]
        bench_report.finish(self.data)
        return self.data["verdict"], bench_report.failed_lines(self.data)

    def test_one_lost_guest_leaves_enough(self):
        self.assertEqual(self.lost(repeated="lost"),
                         ("pass", ["lost off 1: gone (once more: lost) (not judged)"]))

    def test_two_lost_guests_do_not(self):
        self.assertEqual(self.lost(boots=2)[0], "lost")

    def test_lost_guest_of_a_quick_run(self):
        self.data = results(2, quick=True)
        self.assertEqual(self.lost(repeated="lost")[0], "lost")
        self.data["guests"][-1]["repeated"] = "pass"
        bench_report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")

    def test_crash_and_hang_count_though_repeated(self):
        for verdict in ("crash", "timeout", "fail"):
            self.data = results()
            self.assertEqual(self.lost(verdict, repeated="pass")[0], verdict)

    def test_peer_is_not_judged(self):
        """It crashes, lacks runs, and has pages that no other kernel has."""
        self.data["plan"]["rows"]["peer"] = (("numa01", 4), ("numa01", 524288))
        self.data["runs"] += [r | {"column": "peer", "page_kib": kib} for kib in (4, 524288)
                              for r in of(self.data, "base", 4, "numa01")[:3]]
        self.data["guests"].append({"kernel": "peer", "column": "peer", "what": "peer 4",
                                    "verdict": "crash", "why": "BUG"})
        self.assertEqual(self.failed(), [])
        self.assertEqual(self.data["verdict"], "pass")
        for text in (bench_report.text(self.data), bench_report.markdown(self.data),
                     bench_report.html(self.data)):
            self.assertIn("crash peer 4: BUG (not judged)", text)

    def test_lost_guest_of_the_costs(self):
        self.data["guests"].append({"kernel": "base", "what": "cost", "verdict": "lost",
                                    "why": "gone"})
        bench_report.finish(self.data)
        self.assertEqual(self.data["verdict"], "lost")

    def test_bound_is_none(self):
        for r in of(self.data, "inverse", 16, "numa02"):
            r["traffic"]["local"] = 0.5
        self.assert_fails("bounds")

    def test_no_traffic(self):
        """Nothing missed the filter: no share, no time."""
        for column, row in (("hard", (16, "numa02")), ("off", (64, "numa01")),
                            ("base", (2048, "numa01"))):
            for r in of(self.data, column, *row):
                r["traffic"].update(misses=0, kernel_misses=0, accesses=0, local=None, tail=None,
                                    local_all=None, modelled=0,
                                    slices=[[t, 0, [0, 0]] for t, *_ in r["traffic"]["slices"]])
        self.assert_fails("bounds", "numa01, 64K", "numa01, 2M")
        self.assertIn("numa02, 16K: not measured", bench_report.markdown(self.data))
        self.assertIn("</html>", bench_report.html(self.data))

    def test_does_not_converge(self):
        for r in of(self.data, "patched", 64, "numa01"):
            r["traffic"]["tail"] = {"local": 0.7, "per_miss": 1.3}
        self.assert_fails("numa01, 64K")

    def test_possible_ratio_is_wanted(self):
        """The best placement gets there, so the way to it does not count."""
        for r in of(self.data, "patched", 64, "numa02"):
            r["traffic"]["modelled"] = 0.75 * MISSES * 1.5
        self.assert_fails("numa02, 64K")

    def test_what_is_not_excluded_is_said(self):
        """One run of eight is worse by half: the test finds nothing, the interval is wide."""
        of(self.data, "patched", 2048, "numa02")[0]["traffic"]["modelled"] *= 1.5
        self.assertEqual(self.failed(), [])
        row = next(r for r in self.data["summary"] if (r["workload"], r["kib"]) ==
                   ("numa02", 2048))
        low, high = row["interval_base"]
        self.assertLess(low, row["ratio_base"])
        self.assertGreater(high, 1.1)
        said = f"95 % interval {low:.3f} to {high:.3f}, p of more"
        for text in (bench_report.text(self.data), bench_report.markdown(self.data),
                     bench_report.html(self.data)):
            self.assertIn(said, text)

    def test_runs_that_do_not_get_there_are_counted(self):
        """The mean of the runs does, so the check holds."""
        of(self.data, "patched", 64, "numa01")[0]["traffic"]["tail"] = \
            {"local": 0.7, "per_miss": 1.3}
        self.assertEqual(self.failed(), [])
        patched = bench_report._find(self.data, "numa01", 64)["columns"]["patched"]
        self.assertEqual(patched["tail_reached"], (7, 8))
        way = f"{100 * patched['tail_way']['mean']:.1f} ± {100 * patched['tail_way']['ci']:.1f} %"
        for text in (bench_report.text(self.data), bench_report.markdown(self.data),
                     bench_report.html(self.data)):
            self.assertIn(f"{way} of the way in the last quarter, 7 of 8 runs got to 90 %", text)
        # Also where the published ratio is possible
        self.assertEqual(sum("runs got to 90 %" in c["why"] for c in self.data["checks"]), 4)
        self.assertIn("7 of 8", dict(zip(*(bench_report.arithmetic_table(self.data)[1],
                                           bench_report.arithmetic_table(self.data)[2][0])))
                      ["runs to 90 %"])

    def test_worse_than_base(self):
        for r in of(self.data, "patched", 2048, "numa02_SMT"):
            r["traffic"]["modelled"] *= 1.05
        self.assert_fails("numa02_SMT, 2M")

    def test_better_than_base(self):
        for r in of(self.data, "patched", 2048):
            r["traffic"]["modelled"] *= 0.9
        self.assertEqual(self.failed(), [])

    def test_cost(self):
        self.data["cost"] = {"copied": 8, "costs": [], "latency": []}
        self.assert_fails("cost of one THP")

    def test_cost_is_judged_in_a_quick_run(self):
        self.data = results(2, quick=True)
        self.data["cost"] = {"copied": 8, "costs": [], "latency": []}
        self.assertIn("cost of one THP", self.failed())
        self.assertEqual(self.data["verdict"], "fail")

    def test_guest_is_graver(self):
        self.data["guests"].append({"kernel": "patched", "what": "off 2", "verdict": "crash",
                                    "why": "BUG"})
        bench_report.finish(self.data)
        self.assertEqual(self.data["verdict"], "crash")

    def test_quick_does_not_judge_means(self):
        self.data = results(2, quick=True)
        for r in of(self.data, "patched", 64):
            r["traffic"]["tail"] = {"local": 0.7, "per_miss": 1.3}
        self.assertTrue(self.failed())
        self.assertEqual(self.data["verdict"], "pass")
        self.assertIn("(no)", "\n".join(bench_report.check_lines(self.data)))

    def test_nothing_measured(self):
        self.data["runs"] = []
        self.assertTrue(self.failed())
        self.assertEqual(self.data["verdict"], "fail")
        self.assertIn("FAIL", bench_report.text(self.data))
        self.assertIn("</html>", bench_report.html(self.data))


class Way(unittest.TestCase):
    @staticmethod
    def mean(value, ci=None):
        return {"mean": value, "ci": ci}

    def test_ends(self):
        for x, want in ((20, 0), (10, 1), (15, 0.5)):
            gone = bench_report.way(self.mean(x), self.mean(20), self.mean(10))
            self.assertEqual(gone, {"mean": want, "ci": None})

    def test_errors_are_carried(self):
        gone = bench_report.way(self.mean(15, 1), self.mean(20, 1), self.mean(10, 1))
        self.assertAlmostEqual(gone["ci"], (1 + 0.25 + 0.25) ** 0.5 / 10)

    def test_no_way(self):
        self.assertIsNone(bench_report.way(self.mean(15), self.mean(10), self.mean(10)))
        self.assertIsNone(bench_report.way(self.mean(None), self.mean(20), self.mean(10)))


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.data = results(2)
        bench_report.finish(cls.data)
        cls.page = bench_report.html(cls.data)

    def test_nothing_outside(self):
        for word in ("<script", "<img", "<link", "@import", 'href="http', "url(http"):
            self.assertNotIn(word, self.page)

    def test_checks_come_first(self):
        self.assertLess(self.page.index("Checks"), self.page.index("Modelled memory time"))

    def test_plots_and_tables(self):
        self.assertGreater(self.page.count("<svg"), 20)
        for text in (self.page, bench_report.markdown(self.data), bench_report.text(self.data)):
            for title, *_ in bench_report.tables(self.data) + bench_report.cost_tables(self.data):
                self.assertIn(title, text)

    def test_setup(self):
        for cells in (("base kernel", f"tree {'a' * 40}, k1"),
                      ("kernel.numa_balancing_scan_delay_ms", "100"),
                      ("numa01", "32 MiB of a process, 60 passes")):
            self.assertIn(f"| {' | '.join(cells)} |\n", bench_report.markdown(self.data))
            self.assertIn("".join(f"<td class=text>{c}</td>" for c in cells), self.page)

    def modelled(self, data):
        """{title: cells} of the row of pages of 2M of numa01, in the order of the table; the table
        is in the page and in the Markdown."""
        bench_report.finish(data)
        _, head, rows, _ = bench_report.modelled_table(data)
        row = next(r for r in rows if r[1] == "2M")
        self.assertIn(" | ".join(row), bench_report.markdown(data))
        self.assertIn("".join(f"<td>{c}</td>" for c in row[2:]).replace("<0.001", "&lt;0.001"),
                      bench_report.html(data))
        return list(zip(head, row))

    def test_deviation(self):
        data = results(3)
        for r, n in zip(of(data, "patched", 2048, "numa01"), (30, 31, 35)):
            r["traffic"]["modelled"] = n * 1e6
        self.assertEqual(dict(self.modelled(data))["patched"], "32.00 ± 6.57 (2.65)")
        self.assertIn("in brackets the standard deviation", bench_report.notes(data)[3])

    def test_ratios_have_a_p(self):
        data = results(4)
        cells = self.modelled(data)
        at = [i for i, (title, _) in enumerate(cells) if title == "p"]
        self.assertEqual([cells[i - 1][0] for i in at], ["patched/base", "patched/off"])
        row = next(r for r in data["summary"] if (r["workload"], r["kib"]) == ("numa01", 2048))
        self.assertEqual([cells[i][1] for i in at],
                         [bench_report.probability(row[k]) for k in ("p_base", "p_off")])
        data["runs"] += [r | {"column": "peer", "traffic": r["traffic"] | {"modelled": 1e6}}
                         for r in of(data, "base", 2048)]
        cells = self.modelled(data)
        self.assertEqual(cells[-3][0], "patched/peer")
        self.assertAlmostEqual(float(cells[-3][1]), 31, delta=1)
        self.assertEqual(cells[-2], ("p", "<0.001"))

    def test_peer_has_a_name(self):
        data = results(2)
        data["plan"]["rows"]["peer"] = data["plan"]["rows"]["base"]
        data["runs"] += [r | {"column": "peer"} for r in data["runs"] if r["column"] == "base"]
        bench_report.finish(data)
        self.assertIn("another kernel", bench_report.html(data))
        peer_kernel = {"tree": "", "key": "peer-1", "image": "vmlinuz", "named": "6.12.1"}
        for more, name in (({}, "6.12.1"), ({"release": "6.12.1-who"}, "6.12.1-who")):
            data["kernels"]["peer"] = peer_kernel | more
            self.assertIn(f"peer, {name} (vmlinuz), NUMA balancing on", bench_report.html(data))
            for text in (bench_report.html(data), bench_report.markdown(data),
                         bench_report.text(data)):
                self.assertIn(f"The peer is {name} (vmlinuz).", text)
                self.assertIn(f"peer {name}, last quarter", text)

    def test_peer_is_named_from_the_start(self):
        arch = SimpleNamespace(name="x", copied=8)
        built = dict.fromkeys(("base", "peer"), SimpleNamespace(tree="", key="k"))
        found = bench.start(arch, built, False, Path("/boot/vmlinuz-6.1.0-9"))["kernels"]
        self.assertEqual(found, {"base": {"tree": "", "key": "k"},
                                 "peer": {"tree": "", "key": "k", "image": "vmlinuz-6.1.0-9",
                                          "named": "6.1.0-9"}})

    def test_costs_are_explained(self):
        for text in (self.page, bench_report.markdown(self.data), bench_report.text(self.data)):
            for words in ("18.4 % of the faults", "55.7 % patched",
                          "The copy of the data is the floor", "8 bytes an instruction",
                          "a nanosecond of theirs is one instruction"):
                self.assertIn(words, text)

    def test_ids_of_plots_do_not_clash(self):
        ids = re.findall(r'id="([^"]*)"', self.page)
        self.assertTrue(ids)
        self.assertEqual(len(ids), len(set(ids)))

    def test_interval_of_the_samples_is_said(self):
        for more, words in (({}, "1000 ms"), ({"sample_ms": 100}, "100 ms")):
            notes = [note for _, note, _ in bench_plots.of_runs(self.data | more)]
            self.assertEqual(sum(f"every {words}." in note for note in notes), 3)

    def test_mean_course(self):
        course = bench_plots.mean_course([[(1, 0), (2, 10)], [(1, 10), (2, 20)], []], bins=2)
        self.assertEqual(course, [(1, 5), (2, 15)])

    def test_empty_slices_weigh_nothing(self):
        slices = [[1, 0, [100, 100]], [2, 2, [1, 1]], [3, 0, [0, 0]]]
        course = bench_plots.local_traffic({"traffic": {"slices": slices}})
        self.assertEqual([t for t, _ in course], [1, 2, 3])
        self.assertTrue(all(v < 1 for _, v in course))
        self.assertEqual(bench_plots.local_traffic({"traffic": {"slices": slices[2:]}}), [])

    def test_memory_by_node(self):
        """Of all processes; the node where it started is another one in other boots."""
        samples = [{"t": 1, "mib": [[30, 2], [16, 16]]}, {"t": 2, "mib": [[0, 32], [32, 0]]}]
        for start, first, other in ((0, 46, 18), (1, 18, 46)):
            r = {"start_node": start, "samples": samples}
            self.assertEqual(bench_plots.memory_on(r, True), [(1, first), (2, 32)])
            self.assertEqual(bench_plots.memory_on(r, False), [(1, other), (2, 32)])
        self.assertIn("Memory over time by node, patched", self.page)

    def test_placement_over_time(self):
        r = {"samples": [{"t": 1, "share": 0.5}, {"t": 2, "share": 0.75}]}
        self.assertEqual([bench_report.share_at(r, t) for t in (0.9, 1, 1.9, 9)],
                         [None, 50, 50, 75])
        _, head, rows, _ = bench_report.course_table(self.data)
        self.assertEqual(head[3:], ("seconds", "10 %", "25 %", "50 %", "75 %", "100 %"))
        row = next(r for r in rows if r[:3] == ("numa01", "64K", "patched"))
        # After 1 s of 12, 3, 6, 9 and 12 s; two runs alike
        self.assertEqual([c.split()[0] for c in row[3:]],
                         ["12.0", "58.0", "74.0", "98.0", "99.0", "99.0"])
        self.assertIn(" | ".join(row), bench_report.markdown(self.data))

    def test_faults_between_samples(self):
        r = {"samples": [{"t": 1, "numa_hint_faults": 10, "numa_hint_faults_local": 5},
                         {"t": 2, "numa_hint_faults": 20, "numa_hint_faults_local": 15}]}
        self.assertEqual(bench_plots.local_faults(r), [(1, 50), (2, 100)])
        self.assertEqual(bench_plots.local_faults({"samples": [{"t": 1}]}), [])


class Compare(Folder):
    def put(self, name, data):
        folder = self.tmp / name
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(data))
        return str(folder)

    def test_rows_in_common(self):
        a, b = results(3), results(3, quick=True)
        b["host_cpus"] = 4
        for r in of(b, "patched", 64, "numa02"):
            r["traffic"]["modelled"] *= 2
        text = "\n".join(bench_compare.lines(a, b))
        self.assertIn("host_cpus: A 2, B 4", text)
        self.assertNotIn("128K", text)
        row = next(s for s in text.splitlines() if " 2.0" in s and "modelled" in s)
        self.assertIn("<0.001", row)

    def test_alike(self):
        self.assertIn("A and B were run alike.", bench_compare.lines(results(2), results(2)))

    def test_no_bench(self):
        for data, words in (({"runs": [1]}, "no result of `make bench`"),
                            ([], "no result of `make bench`"),
                            ({"bench": 1, "runs": []}, "no result of `make bench`")):
            with mock.patch.dict(os.environ, A=self.put(f"x{len(str(data))}", data)), \
                    self.assertRaisesRegex(Failure, words):
                bench_compare.load("A")

    def test_no_folder(self):
        with mock.patch.dict(os.environ, A=str(self.tmp / "none")), \
                self.assertRaisesRegex(Failure, "no results.json"):
            bench_compare.load("A")
        with mock.patch.dict(os.environ, A=""), self.assertRaisesRegex(Failure, "missing"):
            bench_compare.load("A")

    def test_costs(self):
        a, b = results(2), results(2)
        b["cost"] = {"copied": 8, "costs": [r | {"median": 2 * r["median"]}
                                            for r in COSTS["costs"][:1]], "latency": []}
        r = COSTS["costs"][0]
        row = [s for s in bench_compare.lines(a, b) if s.startswith(f"{r['what']}, ")]
        self.assertEqual(len(row), 1)
        self.assertEqual(row[0].split()[-1], "2.000")


if __name__ == "__main__":
    unittest.main()
