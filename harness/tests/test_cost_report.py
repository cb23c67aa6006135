"""cost_report.py, on what a run recorded (fixtures/cost.json)."""

import copy
import json
import re
import unittest
import xml.etree.ElementTree
from pathlib import Path

from harness import bench_plots, cost_report

DATA = json.loads((Path(__file__).parent / "fixtures" / "cost.json").read_text())
AGREE = "breakdowns agree with the clock, within 64 instructions of an operation"
NOTHING = {"copied": 8, "costs": [], "latency": []}


def changed(what, kernel, **values):
    """The data with other values in the rows of an operation on a kernel, the largest page."""
    data = copy.deepcopy(DATA)
    rows = [r for r in data["costs"] if (r["what"], r["kernel"]) == (what, kernel)]
    max(rows, key=lambda r: r["kib"]).update(values)
    return data


def failed(data):
    """What the checks that do not hold are of."""
    return [c["what"] for c in cost_report.checks(data) if not c["ok"]]


class Checks(unittest.TestCase):
    """checks()"""

    def test_recorded(self):
        self.assertEqual(failed(DATA), [])
        self.assertEqual(len(cost_report.checks(DATA)), 9)

    def test_no_higher_than_the_base(self):
        base = next(r for r in DATA["costs"] if r["what"] == "move" and r["kernel"] == "base")
        found = failed(changed("move", "patched", above=base["above"] + 1))
        self.assertEqual(found, ["move_pages(2) of one THP: no more above the copy than on the "
                                 "base"])
        self.assertEqual(failed(changed("move", "patched", above=base["above"])), [])

    def test_measured_elsewhere(self):
        what, = [c["what"] for c in cost_report.checks(DATA) if "81,549" in c["what"]]
        self.assertIn("measured elsewhere", what)
        self.assertNotIn("published", what)
        self.assertIn("81,549 on the ad hoc path, 98,300 on Linux 7.2.13",
                      " ".join(cost_report.notes(DATA)))

    def test_above_the_ad_hoc_path(self):
        self.assertEqual(len(failed(changed("hint", "patched", above=81550))), 2)
        base = changed("hint", "base", above=90000)
        self.assertEqual(failed(base), [])

    def test_missing(self):
        data = copy.deepcopy(DATA)
        data["costs"] = [r for r in data["costs"] if r["kernel"] != "base"]
        self.assertEqual(len(failed(data)), 2)
        self.assertEqual(len(failed(NOTHING)), 8)

    def without(self, *names, **more):
        """The checks that do not hold, and those that say why, without rows of some operations."""
        data = DATA | more
        data["costs"] = [r for r in DATA["costs"] if r["what"] not in names
                         and (r["what"], r["kib"]) not in names]
        return failed(data), [c["why"] for c in cost_report.checks(data) if c["why"]]

    def test_sizes_not_measured(self):
        gone = [("hint", kib) for kib in (16, 32, 64, 128, 256, 512, 1024)]
        what = "hinting faults: a page of each size takes fewer instructions than as many " \
               "base pages"
        self.assertEqual(self.without(sizes=[16, 64]), ([], []))
        self.assertEqual(self.without(*gone, sizes=[16, 64]),
                         ([what], ["16K: not measured, 64K: not measured"]))
        self.assertEqual(self.without(*gone[:1], sizes=[16, 64]), ([what], ["16K: not measured"]))
        self.assertEqual(self.without(*gone, sizes=[]), ([], [
            "not measured, between a base page and a PMD's: the kernel has no such size"]))
        self.assertEqual(self.without(*gone, sizes=None), ([what], ["not measured"]))
        self.assertEqual(self.without(*gone, ("hint", 2048), sizes=[])[1][-1], "not measured")
        data = changed("hint", "patched", median=10 ** 7) | {"sizes": []}
        self.assertIn(what, failed(data))

    def test_device_not_measured(self):
        for more in ({}, {"device": True}):
            found, why = self.without("to_device", "to_system", **more)
            self.assertEqual((len(found), why), (2, ["not measured"] * 2))
        self.assertEqual(self.without("to_device", "to_system", device=False),
                         ([], ["not measured, the kernel has no module test_hmm"] * 2))

    def test_sizes(self):
        data = copy.deepcopy(DATA)
        row = next(r for r in data["costs"] if r["kib"] == 64)
        row["median"] = 16 * 6000
        self.assertIn("hinting faults: a page of each size takes fewer instructions than as many "
                      "base pages", failed(data))

    def test_device(self):
        found = failed(changed("to_system", "patched", mean=1e6))
        self.assertEqual(found, ["2M back from the device: a THP takes at most 1/5 of what its "
                                 "base pages take"])

    def test_copy_not_seen(self):
        for ran in (262143, None):
            self.assertEqual(failed(changed("hint", "base", copies_ran=ran)),
                             ["the copy that is left out was seen to run"])

    def test_breakdown_of_something_else(self):
        for profiled in (400000, None):
            self.assertEqual(failed(changed("hint", "base", profiled=profiled)),
                             [AGREE])

    def test_breakdown_of_some(self):
        """Compared is the clock of the operations that were profiled, not of all."""
        whole = next(r for r in DATA["costs"] if (r["what"], r["kernel"]) == ("full", "base"))
        self.assertEqual(failed(changed("full", "base", median=9000, above=9000,
                                        clock=whole["profiled"] + 4)), [])
        self.assertEqual(failed(changed("full", "base", clock=9000)),
                         [AGREE])

    def test_breakdown_that_lacks_some(self):
        """Whatever the operation takes: 65 of 300,000 are too many."""
        whole = next(r for r in DATA["costs"] if (r["what"], r["kernel"]) == ("hint", "base"))
        for more, found in ((64, []), (65, [AGREE]), (-65, [AGREE])):
            self.assertEqual(failed(changed("hint", "base", clock=whole["profiled"] + more)),
                             found)

    def test_served(self):
        data = copy.deepcopy(DATA)
        for r in data["latency"]:
            r["median"] = {"base": 1200, "patched": 1201}[r["kernel"]]
        self.assertEqual(failed(data), ["node nearly full: the median hinting fault takes no longer "
                                        "than on the base"])


class Tables(unittest.TestCase):
    """tables()"""

    def test_shape(self):
        found = cost_report.tables(DATA)
        self.assertEqual(len(found), 4 + 7 + 2)
        for title, header, rows in found:
            self.assertTrue(title and rows)
            for row in rows:
                self.assertEqual(len(row), len(header))
                self.assertTrue(all(isinstance(cell, str) for cell in row))

    def test_all_pressures_are_compared(self):
        rows = {r[0]: r[1:] for title, _, rows in cost_report.tables(DATA) for r in rows
                if "against the base" in title}
        self.assertEqual(rows["node free: median"], ("996", "1,023", "+27", "1.027", "slower"))
        self.assertEqual(rows["node nearly full: median"],
                         ("22,623", "1,241", "-21,382", "0.055", "faster"))
        self.assertEqual(rows["node in pieces: median"],
                         ("1,977", "3,288", "+1,312", "1.663", "slower"))
        self.assertEqual(len(rows), 6)

    def test_what_is_slower_is_said(self):
        self.assertIn("node free by 27 (2.7 %), node in pieces by 1,312 (66.3 %). Judged is only: "
                      "node nearly full.", cost_report.notes(DATA)[-1])
        same = copy.deepcopy(DATA)
        for r in same["latency"]:
            r["median"] = 1000
        self.assertNotIn("takes longer", " ".join(cost_report.notes(same)))
        one = DATA | {"latency": [r for r in DATA["latency"] if r["kernel"] == "base"]}
        self.assertNotIn("takes longer", " ".join(cost_report.notes(one)))

    def test_breakdown_of_each_size(self):
        _, head, rows = cost_report._size_breakdown(DATA)
        self.assertEqual(head, ("", "4K", "16K", "32K", "64K", "128K", "256K", "512K", "1M", "2M"))
        self.assertEqual(len(rows), cost_report.LINES + 2)
        for at, r in enumerate(cost_report.size_rows(DATA), 1):
            whole = sum(n for _, n in r["breakdown"])
            self.assertEqual(rows[-1][at], cost_report.number(whole))
            self.assertAlmostEqual(sum(float(row[at].replace(",", "")) for row in rows[:-1]), whole,
                                   delta=len(rows))

    def test_bound_beside_the_own_base(self):
        said = " ".join(cost_report.notes(DATA))
        self.assertIn("81,549 are of base 5.10.262, too", said)
        base = next(r for r in DATA["costs"] if (r["what"], r["kernel"], r["kib"]) ==
                    ("hint", "base", 2048))
        self.assertIn(f"this bench takes {base['above']:,.0f} on the same path", said)
        none = DATA | {"costs": [r for r in DATA["costs"] if r["kernel"] != "base"]}
        self.assertNotIn("configuration is not noted", " ".join(cost_report.notes(none)))

    def test_nothing(self):
        self.assertEqual(cost_report.tables(NOTHING), [])
        self.assertEqual(cost_report.plots(NOTHING), [])

    def test_breakdown_adds_up(self):
        """All of it is what the plugin counted above the floor."""
        for r in DATA["costs"]:
            self.assertAlmostEqual(sum(n for _, n in r["breakdown"]), r["profiled"] - r["floor"])

    def test_side_by_side(self):
        rows = cost_report.side_by_side([["a", 10], ["b", 5], ["c", 1]], [["b", 7], ["d", 20]],
                                        2)
        self.assertEqual(rows, [("d", 0, 20), ("a", 10, 0), ("2 others", 6, 7)])
        self.assertEqual(cost_report.side_by_side([["a", 1]], []), [("a", 1, 0)])
        rows = cost_report.side_by_side([["a", 10], ["b", 5]], [["b", 2], ["c", 1]], by_two=True)
        self.assertEqual(rows, [("b", 5, 2), ("c", 0, 1), ("a", 10, 0)])

    def test_sizes_against_base_pages(self):
        rows = cost_report.size_rows(DATA)
        one = rows[0]
        self.assertEqual((one["kib"], one["count"], one["median"]), (4, 1, one["pages_median"]))
        for r in rows:
            self.assertEqual(r["pages_median"], r["kib"] // 4 * one["median"])

    def test_unknown_copy(self):
        notes = cost_report.notes(DATA | {"copied": 0})
        self.assertIn("not known", notes[0])
        self.assertIn("8 bytes", cost_report.notes(DATA)[0])


class Plots(unittest.TestCase):
    """plots()"""

    def test_svg(self):
        found = cost_report.plots(DATA)
        self.assertEqual(len(found), 3)
        for _, text in found:
            root = xml.etree.ElementTree.fromstring(text)
            self.assertTrue(root.tag.endswith("svg"))
            self.assertNotIn("href=\"http", text)
        for name in ("__free_pages_ok", "migrate_page_copy", "others"):
            self.assertIn(f">{name}<", found[0][1])
        # The same data, the same text
        self.assertEqual(cost_report.plots(DATA), found)

    def test_ids_do_not_clash(self):
        """Also with each other's, as they are put into one page."""
        page = "".join(bench_plots.without_names(text) for _, text in cost_report.plots(DATA))
        ids = re.findall(r'id="([^"]*)"', page)
        self.assertTrue(ids)
        self.assertEqual(sorted(i for i in set(ids) if ids.count(i) > 1), [])

    def test_one_kernel(self):
        data = {k: [r for r in v if r["kernel"] == "base"] if k != "copied" else v
                for k, v in DATA.items()}
        # Pages by size are of the patched kernel
        self.assertEqual(len(cost_report.plots(data)), 2)


if __name__ == "__main__":
    unittest.main()
