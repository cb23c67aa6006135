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
            "device": device, "guests": guests}


def of(data, kernel):
    """The records of a kernel."""
    return [r for r in data["runs"] if r["kernel"] == kernel]


class Checks(unittest.TestCase):
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

    def test_device_is_dear(self):
        self.data["device"]["thp_to_device"] = [1001, 1001]
        self.assert_fails("to the device")

    def test_device_is_dear_on_the_way_back(self):
        self.data["device"]["thp_to_system"] = [421, 421]
        self.assert_fails("back")

    def test_no_device(self):
        self.data["device"] = {}
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
        self.assertEqual(sum(s.startswith("|") for s in lines), rows + 8)
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
