"""profile.py: what the plugin wrote, symbols, and the breakdown."""

import json
from unittest import main

from harness import profile
from harness.common import Failure
from harness.tests import test_common

KALLSYMS = """0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T startup_64
ffffffff81000100 t copy_page.part.0
ffffffff81000200 T migrate_pages
ffffffff81000280 D some_data
ffffffffa0000000 t dmirror_copy\t[test_hmm]
"""


def window(number, at, name="hint", total=None):
    """A line as the plugin writes it."""
    return json.dumps({"window": name, "number": number,
                       "instructions": sum(at.values()) if total is None else total,
                       "at": {f"{a:x}": n for a, n in at.items()}}) + "\n"


class Read(test_common.Folder):
    """read()"""

    def read(self, text):
        path = self.tmp / "windows"
        path.write_text(text)
        return profile.read(path)

    def test_two(self):
        found = self.read(window(0, {0xffffffff81000100: 7}) + window(4, {0xffffffff81000204: 1}))
        self.assertEqual(list(found), [("hint", 0), ("hint", 4)])
        self.assertEqual(found["hint", 0].at, {0xffffffff81000100: 7})
        self.assertEqual(found["hint", 4].instructions, 1)

    def test_none(self):
        self.assertEqual(self.read(""), {})

    def test_damaged(self):
        whole = window(0, {0xffffffff81000100: 7})
        for bad in (whole[:40], "nonsense\n", "[]\n", whole.replace('"at"', '"where"'),
                    whole.replace("{\"ffff", "{\"gfff"),
                    window(0, {0xffffffff81000100: 7}, total=8)):
            with self.assertRaisesRegex(Failure, "windows:2: not a window of the plugin"):
                self.read(whole + bad)

    def test_no_file(self):
        with self.assertRaisesRegex(Failure, "was not profiled"):
            profile.read(self.tmp / "nothing")

    def test_options(self):
        self.assertEqual(profile.options("p.so", "/r/windows", 9),
                         ("-plugin", "p.so,out=/r/windows,least=9"))
        with self.assertRaisesRegex(Failure, "','"):
            profile.options("p.so", "a,b")


class Symbols(test_common.Folder):
    """Symbols"""

    def test_functions(self):
        symbols = profile.Symbols(KALLSYMS)
        for address, name in ((0xffffffff81000000, "startup_64"),
                              (0xffffffff810000ff, "startup_64"),
                              (0xffffffff81000100, "copy_page"),
                              (0xffffffff810001ff, "copy_page"),
                              (0xffffffff81000290, "migrate_pages"),
                              (0xffffffffa0000010, "dmirror_copy"),
                              (0x1000, "0x1000")):
            self.assertEqual(symbols.function(address), name)

    def test_global_name_first(self):
        text = "ffffffff81000000 t a_local\nffffffff81000000 T the_global\n"
        self.assertEqual(profile.Symbols(text).function(0xffffffff81000000), "the_global")

    def test_hidden(self):
        """What kallsyms shows to who may not see addresses."""
        for text in ("", "0000000000000000 T _stext\n", "ffffffff81000280 D some_data\n"):
            with self.assertRaisesRegex(Failure, "no function"):
                profile.Symbols(text)


def windows(*ats):
    """Windows with these counts."""
    return [profile.Window("hint", i, sum(at.values()), at) for i, at in enumerate(ats)]


COPY, MORE, CALL = 0xffffffff81000110, 0xffffffff81000114, 0xffffffff81000210


class Breakdown(test_common.Folder):
    """middle(), without_copy(), breakdown(), hottest()"""

    def test_middle_has_no_timer(self):
        found = profile.middle(windows(*({CALL: n} for n in (5, 900, 6, 1, 7, 6, 6, 5))))
        self.assertEqual([w.instructions for w in found], [5, 6, 6, 6])
        self.assertEqual(len(profile.middle(windows({CALL: 1}, {CALL: 2}))), 2)

    def test_copy_is_left_out(self):
        self.assertEqual(profile.without_copy(windows({COPY: 513, MORE: 4, CALL: 30})[0], 512),
                         {COPY: 1, MORE: 4, CALL: 30})

    def test_two_copies(self):
        """By the same instruction, or by two."""
        self.assertEqual(profile.without_copy(windows({COPY: 1025, CALL: 30})[0], 1024),
                         {COPY: 1, CALL: 30})
        self.assertEqual(profile.without_copy(windows({COPY: 513, MORE: 512, CALL: 3})[0], 1024),
                         {COPY: 0, MORE: 1, CALL: 3})

    def test_no_floor(self):
        self.assertEqual(profile.without_copy(windows({COPY: 9})[0], 0), {COPY: 9})

    def test_by_function(self):
        found = profile.breakdown(windows({COPY: 512, MORE: 4, CALL: 30},
                                          {COPY: 514, MORE: 4, CALL: 50}),
                                  profile.Symbols(KALLSYMS), 512)
        self.assertEqual(found, [["migrate_pages", 40], ["copy_page", 5]])

    def test_hottest(self):
        self.assertEqual(profile.hottest(windows({COPY: 513, CALL: 1}, {COPY: 514, CALL: 1},
                                                 {COPY: 513})), 513)


if __name__ == "__main__":
    main()
