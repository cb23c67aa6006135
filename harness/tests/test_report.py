"""report.py: each check fails on the records that it is there to catch."""

import copy
import tempfile
import unittest
from pathlib import Path

from harness import ktap, report


def record(kernel, boot, workload="numa01", **changes):
    """A record as the workload prints it, of a kernel that does what is expected of it."""
    whole = 64 if kernel == "patched" else 0
    vm = {"numa_hint_faults": 100 + boot, "numa_pages_migrated": 64 * 512 + 3,
          "thp_migration_success": whole, "thp_split_page": 0, "thp_split_pmd": 2,
          "thp_migration_split": 0}
    vm.update(changes.pop("vmstat", {}))
    return {"kernel": kernel, "boot": boot, "test": workload, "seconds": 5 + boot / 10,
            "processes": 2, "threads": 2, "mib": 128, "anon_huge_mib": 256,
            "share_end": 1, "share_mean": 0.9, "converged": 2 + boot / 10, "vmstat": vm,
            "samples": [{"t": 0.2, "share": 0.5}, {"t": 1.9, "share": 0.7},
                        {"t": 3, "share": 1}], **changes}


SIZES = [4, 16, 64, 128, 2048]


def sized(workload, kib, boot, **changes):
    """A record of the size axis of a kernel that does what is expected of it."""
    n, pages = kib // 4, 8192
    vm = {"numa_hint_faults": 5 * pages // n, "numa_hint_faults_local": 4 * pages // n,
          "numa_pages_migrated": pages, "numa_pte_updates": 5 * pages}
    vm.update(changes.pop("vmstat", {}))
    return {"boot": boot, "test": workload, "page_kib": kib, "base_kib": 4, "mib": 32,
            "processes": 2, "whole_mib": 64, "seconds": 5, "vmstat": vm,
            "share_final": 0.97 + boot / 200, **changes}


def contended(kib, boot):
    """A record of `contended`."""
    n = kib // 4
    pages = 4096 // n
    return {"boot": boot, "test": "contended", "page_kib": kib, "base_kib": 4, "mib": 16,
            "whole_mib": 16, "pages": pages, "turns": 8,
            "first": {"vmstat": {"numa_hint_faults": pages, "numa_pages_migrated": 4096}},
            "contended": {"vmstat": {"numa_hint_faults": 8 * pages, "numa_pages_migrated": 0}}}


def size_runs(boots):
    """Records of a size axis."""
    return [record for kib in SIZES for boot in range(1, boots + 1) for record in
            (sized("numa01_THREAD_ALLOC", kib, boot), sized("numa02", kib, boot),
             contended(kib, boot))]


def results(boots=5):
    """Results of a good run."""
    runs = [record(k, b, w) for k in ("base", "patched") for b in range(1, boots + 1)
            for w in ("numa01", "numa01_THREAD_ALLOC", "numa02", "numa02_SMT")]
    cost = {k: {"values": [v] * 32, "min": v, "median": v, "thp_bytes": 2 << 20}
            for k, v in (("base", 306955), ("patched", 300000))}
    guests = [{"kernel": k, "what": "cost", "verdict": "pass", "why": ""}
              for k in ("base", "patched")]
    device = {"base_to_device": [2600, 2400], "base_to_system": [2100, 2100],
              "thp_to_device": [1000, 1000], "thp_to_system": [400, 400]}
    return {"arch": "x86_64", "accel": "tcg", "host_cpus": 2, "runs": runs, "cost": cost,
            "device": device, "device_time": {k: [1000 * t for t in v] for k, v in device.items()},
            "guests": guests, "page_kib": SIZES,
            "size_runs": size_runs(boots)}


def of(data, kernel):
    """The records of a kernel."""
    return [r for r in data["runs"] if r["kernel"] == kernel]


class CheckCase(unittest.TestCase):
    """Results in which one thing is wrong."""

    def setUp(self):
        self.data = results()

    def failed(self):
        """What does not hold."""
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "fail")
        return [c["what"] for c in self.data["checks"] if not c["ok"]]

    def assert_fails(self, words):
        failed = self.failed()
        self.assertEqual(len(failed), 1, failed)
        self.assertIn(words, failed[0])

    def assert_passes(self):
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass",
                         [c for c in self.data["checks"] if not c["ok"]])


class Checks(CheckCase):
    def test_size_of_a_thp(self):
        self.assertEqual(report.thp_pages(self.data), 512)
        for r in self.data["cost"].values():
            r["page_bytes"] = 65536
        self.assertEqual(report.thp_pages(self.data), 32)

    def test_copy_of_unknown_cost(self):
        self.data["copied"] = 0
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")
        self.assertEqual(self.data["cost_summary"]["base"]["above_copy"], 306955)

    def test_good(self):
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")

    def test_base_counts_thp(self):
        of(self.data, "base")[3]["vmstat"]["thp_migration_success"] = 1
        self.assert_fails("none counted as THP")

    def idle(self, kernel, boot):
        """Nothing is migrated in any run of a boot."""
        for r in of(self.data, kernel):
            if r["boot"] == boot:
                r["vmstat"].update(numa_pages_migrated=0, thp_migration_success=0)

    def test_base_migrates_nothing(self):
        self.idle("base", 3)
        self.assert_fails("pages are migrated")

    def test_one_run_may_have_nothing_to_migrate(self):
        for kernel in ("base", "patched"):
            of(self.data, kernel)[3]["vmstat"].update(numa_pages_migrated=0,
                                                      thp_migration_success=0)
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")

    def test_pages_counted_once_per_thp(self):
        of(self.data, "patched")[3]["vmstat"]["numa_pages_migrated"] = 64
        self.assert_fails("agrees")

    def test_one_thp_not_counted(self):
        of(self.data, "patched")[3]["vmstat"]["numa_pages_migrated"] += 512
        self.assert_fails("agrees")

    def test_patched_migrates_nothing(self):
        self.idle("patched", 2)
        self.assert_fails("agrees")

    def test_patched_copies_ad_hoc(self):
        of(self.data, "patched")[3]["vmstat"]["thp_migration_success"] = 0
        self.assert_fails("agrees")

    def test_split(self):
        for name in ("thp_split_page", "thp_migration_split"):
            self.data = results()
            of(self.data, "patched")[3]["vmstat"][name] = 1
            self.assert_fails("split")

    def test_not_whole(self):
        of(self.data, "patched")[3]["anon_huge_mib"] = 254
        self.assert_fails("whole THP at the end")

    def test_later(self):
        for r in of(self.data, "patched"):
            if r["test"] == "numa02":
                r["converged"] += 1
        self.assert_fails("numa02: placement converges no later")

    def test_never(self):
        for r in of(self.data, "patched"):
            if r["test"] == "numa02":
                r["converged"] = None
        self.assert_fails("numa02: placement converges no later")

    def test_fewer_runs(self):
        self.data = results(10)
        for r in [r for r in of(self.data, "patched") if r["test"] == "numa02"][:7]:
            r.update(converged=None, seconds=0.1)
        self.assert_fails("numa02: placement converges no later")

    def test_earlier_is_fine(self):
        for r in of(self.data, "patched"):
            r["converged"] /= 2
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")

    def test_cost(self):
        self.data["cost"]["patched"]["median"] = 306956
        self.assert_fails("cost")

    def test_cost_missing(self):
        del self.data["cost"]["patched"]
        self.assert_fails("cost")

    def test_device(self):
        report.finish(self.data)
        row = self.data["device_summary"]["to_device"]
        self.assertEqual((row["base"]["mean"], row["base"]["n"], row["ratio"]), (2500, 2, 2.5))
        self.assertIn("2,500 ± 141", report.text(self.data))
        self.assertIn("2.500 ± 0.141", report.text(self.data))

    def test_device_is_judged_by_instructions(self):
        self.data["device_time"]["thp_to_device"] = [2e6, 2e6]
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")

    def test_device_is_dear(self):
        self.data["device"]["thp_to_device"] = [1001, 1001]
        self.assert_fails("to the device")

    def test_device_is_dear_on_the_way_back(self):
        self.data["device"]["thp_to_system"] = [421, 421]
        self.assert_fails("back")

    def test_device_is_dearer_than_later(self):
        self.data["device"].update(thp_to_device=[1_913_000] * 2, base_to_device=[9e6] * 2)
        self.assert_fails("to the device: a THP takes fewer instructions than the 1,913,000")

    def test_no_device(self):
        self.data["device"] = self.data["device_time"] = {}
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")
        self.assertNotIn("to a device", report.text(self.data))

    def test_no_records(self):
        self.data["runs"] = []
        self.assertIn("patched: no THP is split", self.failed())

    def test_counter_that_the_kernel_lacks(self):
        for r in self.data["runs"]:
            r["vmstat"]["thp_migration_split"] = None
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "pass")

    def test_gravest_guest(self):
        self.data["guests"][0]["verdict"] = "lost"
        self.data["guests"][1]["verdict"] = "crash"
        report.finish(self.data)
        self.assertEqual(self.data["verdict"], "crash")


class Sizes(CheckCase):
    """The size axis."""

    def of(self, test, kib):
        """The records of a workload with a size."""
        return [r for r in self.data["size_runs"] if (r["test"], r["page_kib"]) == (test, kib)]

    def row(self, workload, kib):
        """A row of the summary."""
        return next(r for r in self.data["size_summary"]
                    if (r["workload"], r["kib"]) == (workload, kib))

    def test_figures(self):
        for r in self.of("numa02", 64):
            r["vmstat"].update(numa_hint_faults=3000, numa_hint_faults_local=2000,
                               numa_pages_migrated=20000, numa_pte_updates=60000)
        self.of("numa02", 64)[1]["vmstat"]["numa_pages_migrated"] = 0
        report.finish(self.data)
        row = self.row("numa02", 64)
        self.assertEqual((row["hint_faults"]["mean"], row["remote_faults"]["mean"]), (3000, 1000))
        self.assertEqual((row["per_migrated"], row["all_per_migrated"]), (0.8, 3))
        self.assertEqual(row["per_marked"], 0.8)
        self.assertEqual(self.row("numa02", 4)["per_migrated"], 1)

    def test_good(self):
        self.assert_passes()
        row = self.data["contended_summary"][2]
        self.assertEqual(row, {"kib": 64, "n": 5, "pages": 1280, "turns": 10240, "faults": 10240,
                               "placed": 1280, "per_placed": 1, "moved": 0})

    def test_one_size(self):
        self.data.update(page_kib=[], size_runs=[])
        self.assert_passes()
        self.assertNotIn("contend", report.text(self.data))

    def test_no_records(self):
        self.data["size_runs"] = []
        self.assertIn("sizes: all memory is whole pages of its size at the end", self.failed())

    def test_not_whole(self):
        for test in ("numa02", "contended"):
            self.data = results()
            self.of(test, 128)[2]["whole_mib"] -= 0.125
            self.assert_fails("sizes: all memory is whole")

    def remote(self, kib, factor, workloads=("numa01_THREAD_ALLOC", "numa02")):
        """So many times the hint faults of remote pages."""
        for r in [r for w in workloads for r in self.of(w, kib)]:
            vm = r["vmstat"]
            more = round((factor - 1) * (vm["numa_hint_faults"] - vm["numa_hint_faults_local"]))
            vm["numa_hint_faults_local"] -= more

    def test_a_fault_for_each_base_page(self):
        self.remote(16, 4, ["numa02"])
        self.assert_fails("numa02: hint faults of remote pages per page migrated")
        self.assertIn("16K: 4.00/N against 1.00",
                      [c for c in self.data["checks"] if not c["ok"]][0]["why"])

    def test_a_few_more_faults(self):
        self.remote(128, 1.2)
        self.remote(64, 1.19)
        self.assert_passes()
        self.remote(64, 1.02, ["numa02"])
        self.assert_fails("numa02: hint faults of remote pages per page migrated")

    def test_as_with_base_pages(self):
        for kib in SIZES:
            self.remote(kib, 2)
        self.assert_passes()

    def test_one_workload_is_enough(self):
        self.remote(64, 4, ["numa02"])
        self.assert_fails("numa02: hint faults of remote pages per page migrated")

    def test_median(self):
        for r, local in zip(self.of("numa02", 64), (512, 1024, 1536, 2048, 2048)):
            r["vmstat"]["numa_hint_faults_local"] = local
        report.finish(self.data)
        self.assertEqual(self.row("numa02", 64)["per_migrated"], 2)

    def test_nothing_migrated(self):
        for r in self.data["size_runs"]:
            if (r["page_kib"], r["test"]) == (64, "numa02"):
                r["vmstat"]["numa_pages_migrated"] = 0
        self.assert_fails("numa02: hint faults of remote pages per page migrated")

    def test_siblings_fault_when_the_page_is_local(self):
        for r in self.of("numa01_THREAD_ALLOC", 64):
            for key in ("numa_hint_faults", "numa_hint_faults_local"):
                r["vmstat"][key] += 1024
        self.assert_fails("numa01_THREAD_ALLOC: hint faults per PTE marked")

    def test_nothing_marked(self):
        for r in self.of("numa02", 64):
            r["vmstat"]["numa_pte_updates"] = 0
        self.assert_fails("hint faults per PTE marked")

    def test_less_local(self):
        for r in self.of("numa02", 2048):
            r["share_final"] -= 0.05
        self.assert_fails("numa02: no less is local at the end than with 4K")
        self.assertIn("2M: ", [c for c in self.data["checks"] if not c["ok"]][0]["why"])

    def test_more_local_is_fine(self):
        for r in self.of("numa02", 2048):
            r["share_final"] += 0.05
        self.assert_passes()

    def test_fewer_boots_lack(self):
        for r in self.of("numa02", 16)[1:]:
            self.data["size_runs"].remove(r)
        self.assert_fails("numa02: no less is local at the end than with 4K")

    def first(self, kib, **counters):
        self.of("contended", kib)[0]["first"]["vmstat"].update(counters)

    def then(self, kib, **counters):
        self.of("contended", kib)[0]["contended"]["vmstat"].update(counters)

    def test_first_user_gets_nothing(self):
        for r in self.of("contended", 16):
            r["first"]["vmstat"].update(numa_pages_migrated=0)
        self.assertIn("contended: 90 % of the pages move to their first user, none twice",
                      self.failed())

    def test_moved_twice(self):
        self.first(16, numa_pages_migrated=4100)
        self.assert_fails("none twice")

    def test_faults_to_place(self):
        self.first(64, numa_hint_faults=4096)
        self.assert_fails("contended: hint faults per page migrated to its first user")

    def test_migrated_while_contended(self):
        self.then(64, numa_pages_migrated=16)
        self.assert_fails("contended: no page migrates")

    def test_fault_out_of_turn(self):
        self.then(64, numa_pages_migrated=16, numa_hint_faults=2049)
        self.assert_passes()
        self.then(64, numa_pages_migrated=32)
        self.assert_fails("contended: no page migrates")

    def test_siblings_fault(self):
        self.then(64, numa_hint_faults=2048 * 16)
        self.assert_fails("contended: no page migrates")

    def test_turns_without_a_hint_fault(self):
        self.then(64, numa_hint_faults=2047)
        self.assert_fails("contended: no page migrates")

    def test_larger_base_pages(self):
        self.data["page_kib"] = [64, 2048]
        self.data["size_runs"] = [r | {"base_kib": 64} for r in self.data["size_runs"]
                                  if r["page_kib"] in (64, 2048)]
        report.finish(self.data)
        self.assertEqual([r["per_marked"] for r in self.data["size_summary"]],
                         [1 / 16, 1 / 16] * 2)

    def test_names(self):
        self.assertEqual([report.size_name(k) for k in SIZES], ["4K", "16K", "64K", "128K", "2M"])


class Output(unittest.TestCase):
    def setUp(self):
        self.data = results()
        for r in self.data["runs"]:
            r["vmstat"]["numa_pages_migrated"] += 123456 * r["boot"]
        report.finish(self.data)

    def test_fits(self):
        lines = report.text(self.data).splitlines()
        self.assertLessEqual(max(map(len, lines[:60])), 120)

    def test_columns_align(self):
        for head, rows, left in report.tables(self.data):
            lines = report.layout(head, rows, left)
            self.assertEqual(len(lines), len(rows) + 2)
            end = lines[0].index(head[left]) + len(head[left])
            for line, row in zip(lines[2:], rows):
                if row[left]:
                    self.assertEqual(line[:end].rstrip()[-len(row[left]):], row[left])
                    self.assertIn(line[end:end + 2], ("", "  "))

    def test_share_at(self):
        r = record("base", 1)
        self.assertIsNone(report.share_at(r, 0.1))
        self.assertEqual(report.share_at(r, 2), 0.7)
        self.assertEqual(report.share_at(r, 99), 1)

    def test_markdown_has_the_rows(self):
        lines = report.markdown(self.data).splitlines()
        rows = sum(len(t[1]) for t in report.tables(self.data))
        self.assertEqual(sum(s.startswith("|") for s in lines), rows + 12)
        self.assertTrue(all(s.count("|") > 3 for s in lines if s.startswith("|")))

    def test_half_a_run(self):
        data = copy.deepcopy(results())
        data["runs"] = data["runs"][:1]
        data["cost"] = {}
        report.finish(data)
        self.assertIn("verdict: fail", report.text(data))

    def test_plot(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "share.svg"
            report.plot(self.data, path)
            self.assertIn(b"<svg", path.read_bytes())


class Platforms(unittest.TestCase):
    """The table of what was seen on each kernel."""

    KINDS = {
        "x86_64-release": [ktap.Case("thp_migration.entry_round_trip", "pass"),
                           ktap.Case("thp_numa.numa.memcg", "pass"),
                           ktap.Case("thp_numa.numa.bits", "fail", "thp_numa.c:7"),
                           ktap.Case("thp_gate.gate.mbind", "skip", "no node"),
                           ktap.Case("thp_gate.gate.move", "skip", "no node")],
        "arm64-release": [ktap.Case("kernel", "fail", "mm/rmap.c does not compile")],
        "s390x-release": [ktap.Case("kunit", "not run"), ktap.Case("thp_numa", "not run"),
                          ktap.Case("guest", "crash", "Oops")],
    }

    def rows(self):
        lines = report.platforms(self.KINDS, {"thp_numa", "thp_gate"})
        return {line.split(" | ")[0]: line for line in lines}

    def test_counts(self):
        self.assertEqual(self.rows()["| x86_64-release"], "| x86_64-release | yes | yes | "
                         "1 of 1 | 1 | 1 | 2; 2 × no node |")

    def test_does_not_build(self):
        self.assertEqual(self.rows()["| arm64-release"],
                         "| arm64-release | no | no | 0 of 0 | 0 | 1 | 0 |")

    def test_does_not_boot(self):
        self.assertEqual(self.rows()["| s390x-release"],
                         "| s390x-release | yes | no | 0 of 1 | 0 | 3 | 0 |")


if __name__ == "__main__":
    unittest.main()
