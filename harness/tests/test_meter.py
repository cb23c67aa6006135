"""meter.py: what is read from the plugin's lines, and what is made of it."""

import json
import unittest
from pathlib import Path
from unittest import mock

from harness import emulator, machine, meter
from harness.common import Failure
from harness.machine import Node
from harness.tests.test_common import Folder

# Of a guest that ran known.c: CPU 3 of node 1 with its memory on node 0.
RECORDED = Path(__file__).with_name("fixtures") / "meter.jsonl"
NEAR = machine.distances(machine.TOPOLOGIES["default"])


def record(**more):
    """A phase of two vCPUs, one on each of two nodes."""
    def cpu(node, user, kernel):
        return {"node": node, "user": user, "kernel": kernel, "other": 5}

    def counts(loads, stores, load_misses, store_misses):
        return {"loads": loads, "stores": stores, "load_misses": load_misses,
                "store_misses": store_misses}
    zero = [0, 0]
    return {"phase": "p", "seconds": 0.15, "cache_kib": 1024, "ways": 16, "slice_ms": 100,
            "nodes": 2,
            "cpus": [cpu(0, counts([100, 10], [50, 5], [20, 2], [6, 1]),
                         counts([7, 0], zero, [1, 0], zero)),
                     cpu(1, counts([0, 30], zero, [0, 3], zero), counts(zero, zero, zero, zero))],
            "slices": [[[20, 1], [0, 1]], [[7, 2], [0, 2]]], **more}


class Lines(Folder):
    def read(self, *lines):
        path = self.tmp / "meter"
        path.write_text("".join(s if isinstance(s, str) else json.dumps(s) + "\n" for s in lines))
        return meter.read(path)

    def only(self, **more):
        return self.read(record(**more))[0]


class Read(Lines):
    def test_phases_in_order(self):
        self.assertEqual([p.name for p in self.read(record(), record(phase="q"))], ["p", "q"])

    def test_none(self):
        self.assertEqual(self.read(), [])

    def test_not_metered(self):
        with self.assertRaisesRegex(Failure, "none: the guest was not metered"):
            meter.read(self.tmp / "none")

    def test_unfinished(self):
        self.assertEqual([p.name for p in self.read({"unfinished": "x"}, record())], ["p"])

    def test_error_of_the_plugin(self):
        with self.assertRaisesRegex(Failure, ":2: the nodes differ$"):
            self.read(record(), {"error": "the nodes differ"})

    def test_damaged(self):
        short = record()
        short["cpus"][0]["user"]["loads"] = [1]
        lost = record()
        del lost["cpus"][1]["kernel"]["stores"]
        cut = json.dumps(record())[:100] + "\n"
        for line in (cut, "7\n", "[]\n", "{}\n", "\n", short, lost, record(slices=[[[1, 2]]]),
                     record(slices=[[[1], [2]]]), record(cpus=None), record(nodes=3)):
            with self.subTest(line=line), \
                    self.assertRaisesRegex(Failure, "meter:2: not a record of the meter: "):
                self.read(record(), line)


    def test_cut_at_the_end(self):
        cut = json.dumps(record(phase="q"))[:100]
        self.assertEqual([p.name for p in self.read(record(), cut)], ["p"])
        with self.assertRaisesRegex(Failure, "meter:1: not a record of the meter: "):
            self.read(cut + "\n", record())
        with self.assertRaisesRegex(Failure, "meter:2: not a record of the meter: "):
            self.read(record(), '{"error": "the no')


class Shares(Lines):
    def test_matrix(self):
        p = self.only()
        self.assertEqual(p.matrix(), ((27, 3), (0, 3)))
        self.assertEqual(p.matrix("accesses"), ((157, 15), (0, 30)))
        self.assertEqual(p.matrix("accesses", ("user",), ("loads",)), ((100, 10), (0, 30)))
        self.assertEqual(p.matrix("misses", ("kernel",)), ((1, 0), (0, 0)))

    def test_sums(self):
        p = self.only()
        self.assertEqual((p.total(), p.total("accesses")), (33, 202))
        self.assertEqual(p.by_node(), (27, 6))
        self.assertEqual(p.by_node("accesses", ops=("stores",)), (50, 5))

    def test_local(self):
        p = self.only()
        self.assertEqual(p.local(), 30)
        self.assertEqual(p.local_share(), 30 / 33)
        self.assertEqual(p.local_share("accesses"), 187 / 202)
        self.assertIsNone(p.local_share("misses", ("kernel",), ("stores",)))

    def test_over_time(self):
        self.assertEqual(self.only().over_time(), [(0.1, 21, 1), (0.2, 9, 2)])

    def test_modelled(self):
        p = self.only()
        self.assertEqual(meter.modelled(p, NEAR), 30 + 3 * 2)
        self.assertEqual(meter.modelled(p, NEAR, "accesses"), 187 + 15 * 2)
        self.assertEqual(meter.modelled(p, ((10, 30), (20, 10))), 30 + 3 * 3)
        self.assertEqual(meter.modelled(p, ((10, 10), (10, 10))), p.total())

    def test_too_few_distances(self):
        with self.assertRaisesRegex(Failure, "distances of 1 nodes, the guest has 2"):
            meter.modelled(self.only(), ((10,),))


class Recorded(unittest.TestCase):
    """A file that a guest wrote."""

    def test_remote(self):
        phases = {p.name: p for p in meter.read(RECORDED)}
        self.assertEqual(list(phases), ["loads", "stores", "both", "fits", "large"])
        p = phases["large"]
        self.assertEqual(p.cpus, (0, 0, 1, 1))
        self.assertEqual(p.matrix("accesses", ("user",), ("loads",))[3][0], 3 * 524288)
        self.assertEqual(p.matrix("misses", ("user",))[3][0], 3 * 65536)
        self.assertLess(p.local_share(), 0.01)
        self.assertAlmostEqual(meter.modelled(p, NEAR) / p.total(), 2, places=1)
        self.assertEqual(phases["fits"].matrix("misses", ("user",))[3][0], 4096)
        for p in phases.values():
            self.assertEqual(sum(a + b for _, a, b in p.over_time()), p.total())


class Options(unittest.TestCase):
    def test_words(self):
        self.assertEqual(meter.options("m.so", "/r/out"), (
            "-plugin",
            "m.so,out=/r/out,cache=1024,ways=16,slice=100,node=2:1024,node=2:1024"))

    def test_nodes(self):
        words = meter.options("m.so", "/r/out", 0, 4, 20, (Node(4, 1024), Node(0, 512)))[1]
        self.assertEqual(words, "m.so,out=/r/out,cache=0,ways=4,slice=20,node=4:1024,node=0:512")

    def test_what_cannot_be(self):
        for cache, ways, ms, out, why in ((1000, 16, 100, "o", "power of two"),
                                          (-1, 16, 100, "o", "power of two"),
                                          (1024, 0, 100, "o", "power of two"),
                                          (1, 32, 100, "o", "power of two"),
                                          (1024, 16, 0, "o", "at least 1"),
                                          (1024, 16, 100, "a,b", "no name with a ','")):
            with self.subTest(cache=cache, ways=ways), self.assertRaisesRegex(Failure, why):
                meter.options("m.so", out, cache, ways, ms)


class Plugin(Folder):
    """Building it, with a header that is given."""

    def setUp(self):
        super().setUp()
        header = self.tmp / "header"
        header.mkdir()
        (header / "qemu-plugin.h").write_text("#define ANSWER 42\n")
        self.patch(emulator, "_plugin_header", lambda: header)
        self.patch(emulator, "say", lambda message: None)
        self.source = self.tmp / "bench" / "p.c"
        self.source.parent.mkdir()
        self.source.write_text("#include <qemu-plugin.h>\n"
                               "int answer(void)\n{\n\treturn ANSWER;\n}\n")

    def patch(self, *what):
        patch = mock.patch.object(*what)
        patch.start()
        self.addCleanup(patch.stop)

    def test_built_once(self):
        path = emulator.plugin(self.source)
        self.assertEqual(path.read_bytes()[:4], b"\x7fELF")
        with mock.patch.object(emulator, "command", side_effect=AssertionError):
            self.assertEqual(emulator.plugin(self.source), path)
        self.source.with_name("other.h").write_text("\n")
        self.assertNotEqual(emulator.plugin(self.source), path)

    def test_does_not_compile(self):
        self.source.write_text("int answer(void)\n{\n}\n")
        with self.assertRaisesRegex(Failure, "building the plugin p failed: .*return-type"):
            emulator.plugin(self.source)
        self.assertEqual(list((self.tmp / "build" / "plugins").glob("*/*")), [])


if __name__ == "__main__":
    unittest.main()
