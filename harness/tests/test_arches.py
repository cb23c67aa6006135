"""What differs between architectures, as far as no guest is needed to see it."""

import contextlib
import io
import os
import re
import unittest
from dataclasses import replace
from pathlib import Path
from unittest import mock

from harness import (arches, check, emulator, install, kernel, machine, mutants, packages,
                     rootfs, test)
from harness.common import Failure, cache_dir
from harness.tests.test_common import Folder

X86, ARM, PPC, S390 = (arches.ARCHES[n] for n in ("x86_64", "arm64", "ppc64le", "s390x"))


def on(uname):
    """The host is of this kind."""
    return mock.patch("platform.machine", return_value=uname)


class Records(unittest.TestCase):
    def test_tested(self):
        self.assertEqual(arches.tested(), [X86, ARM, PPC, S390])
        with self.assertRaisesRegex(Failure, "ARCH=i386: .*there is x86_64, arm64, ppc64le, "):
            arches.find("i386")

    def test_cross(self):
        with on("x86_64"):
            self.assertEqual((X86.cross(), arches.ARCHES["i386"].cross()), ("", ""))
            self.assertEqual(PPC.cross(), "powerpc64le-linux-gnu-")
            self.assertEqual(arches.default(), X86)
        with on("aarch64"):
            self.assertEqual((ARM.cross(), X86.cross()), ("", "x86_64-linux-gnu-"))
            self.assertEqual(arches.default(), ARM)
        with on("riscv64"):
            self.assertEqual(arches.default(), X86)

    def test_bootable_records_are_whole(self):
        for arch in arches.tested():
            for field in ("qemu_package", "machine", "cpu", "icount_cpu", "console",
                          "serial_bus", "image", "target"):
                self.assertTrue(getattr(arch, field), (arch.name, field))
            self.assertTrue(arch.numa or not arch.distances)
            self.assertGreaterEqual(arch.slow, 1)

    def test_wished(self):
        with mock.patch.dict(os.environ, {"ARCH": "s390x"}):
            self.assertEqual((arches.wished(), arches.asked()), (S390, [S390]))
        with mock.patch.dict(os.environ, {"ARCH": ""}), on("x86_64"):
            self.assertEqual((arches.wished(), arches.asked()), (X86, arches.tested()))


class Configuration(unittest.TestCase):
    def want(self, arch, flavor):
        return kernel.wanted(kernel.fragments(arch, flavor))

    def test_every_flavor_differs(self):
        for arch in arches.tested():
            release = self.want(arch, "release")
            for flavor in kernel.flavors(arch)[1:]:
                self.assertNotEqual(self.want(arch, flavor), release, (arch.name, flavor))

    def test_no_flavor_is_forgotten(self):
        known = {"common", "debug", "drivers", "series"} | set(arches.ARCHES)
        known |= {f"{a.name}.{f}" for a in arches.ARCHES.values() for f in kernel.flavors(a)}
        for path in kernel.CONFIG.iterdir():
            self.assertIn(path.name.rpartition(".")[0], known)

    def test_one_page_size(self):
        sizes = re.compile(r"CONFIG_\w+_\d+K_PAGES")
        for arch in arches.tested():
            for flavor in kernel.flavors(arch):
                on_ = [k for k, v in self.want(arch, flavor).items()
                       if sizes.fullmatch(k) and v == "y"]
                self.assertLessEqual(len(on_), 1, (arch.name, flavor))

    def test_the_gate(self):
        """All but one have PMD migration entries, and one flavor goes without."""
        for arch, flavor, value in ((X86, "release", "y"), (ARM, "release", "y"),
                                    (PPC, "release", "y"), (S390, "release", "n"),
                                    (X86, "no-thp-migration", "n")):
            self.assertEqual(
                self.want(arch, flavor)["CONFIG_ARCH_ENABLE_THP_MIGRATION"], value)

    def test_unknown_flavor(self):
        with self.assertRaisesRegex(Failure, "FLAVOR=64k: there is release, debug on s390x"):
            kernel.fragments(S390, "64k")

    def test_common_holds_for_all(self):
        for symbol in ("CONFIG_TEST_HMM", "CONFIG_DEVICE_PRIVATE", "CONFIG_ZONE_DEVICE"):
            self.assertNotIn(symbol, kernel.wanted([kernel.CONFIG / "common.config"]))

    def test_slowness(self):
        for arch, flavor, slow in ((X86, "release", 1), (X86, "debug", 4), (PPC, "64k", 2),
                                   (PPC, "debug", 8)):
            self.assertEqual(kernel.Kernel(arch, flavor, "", "", Path()).slow, slow)

    def test_options_turned_off(self):
        for name, symbols in kernel.WITHOUT.items():
            self.assertIn(name, symbols)
            self.assertTrue({f"CONFIG_{s}" for s in symbols} <= set(self.want(X86, "release")))


class CommandLine(Folder):
    def line(self, arch, topology="default", **more):
        mach = replace(machine.Machine(arch, machine.TOPOLOGIES[topology]), **more)
        kern = kernel.Kernel(arch, "release", "", "", Path("/k"))
        return " ".join(machine.command_line(mach, "tcg", kern, "/initrd", Path("/out")))

    def test_each(self):
        for arch in arches.tested():
            line = self.line(arch)
            self.assertTrue(line.startswith(f"{arch.qemu} {' '.join(arch.machine)} "))
            for part in (f"-cpu {arch.cpu} ", f"console={arch.console} ", "-no-reboot",
                         f"-device {arch.serial_bus} ", "-smp 4,", "-m 2048M",
                         "name=thp.status", "name=thp.files", "panic=-1"):
                self.assertIn(part, line, arch.name)
            self.assertEqual("-numa" in line, arch.numa)
            self.assertEqual("-numa dist" in line, arch.distances)

    def test_one_node_has_all_memory_and_cpus(self):
        line = self.line(S390, "memoryless")
        self.assertNotIn("-object", line)
        self.assertIn("-smp 4,sockets=4,cores=1,threads=1 -m 2048M", line)

    def test_emulation_by_one_thread(self):
        self.assertIn("-accel tcg,thread=single ", self.line(PPC))
        self.assertIn("-accel tcg ", self.line(X86))

    def test_instructions(self):
        self.assertIn("-icount shift=0,sleep=off", self.line(PPC, "one-cpu", icount=True))


class Packages(Folder):
    def test_of_the_host(self):
        with on("x86_64"):
            self.assertEqual(install.of(X86), {"qemu-system-x86_64": "qemu-system-x86"})
            self.assertEqual(install.of(arches.ARCHES["i386"]), {})

    def test_of_another(self):
        with on("x86_64"):
            self.assertEqual(install.of(PPC), {
                "powerpc64le-linux-gnu-gcc": "gcc-powerpc64le-linux-gnu",
                "qemu-system-ppc64": "qemu-system-ppc",
                "/usr/powerpc64le-linux-gnu/include/stdio.h": "libc6-dev-ppc64el-cross"})

    def test_apt_is_kept_to_itself(self):
        text = " ".join(packages.options(ARM, self.tmp))
        for part in ("APT::Architecture=arm64", f"Dir::State::Lists={self.tmp}/lists",
                     f"Dir::State::Status={self.tmp}/status", "SourceParts=/dev/null"):
            self.assertIn(part, text)
        self.assertRegex(packages.sources(S390, ["http://x/debian"]),
                         r"^deb \[arch=s390x signed-by=\S+\] http://x/debian \w+ main\n$")
        self.assertRegex(packages.sources(None, ["http://x/debian"]),
                         r"^deb-src \[signed-by=\S+\] http://x/debian \w+ main\n$")

    def test_fetched_once(self):
        folder = cache_dir() / "packages" / f"{packages.SUITE}-s390x"
        folder.mkdir(parents=True)
        (folder / "busybox").write_text("x")
        with mock.patch.object(packages, "bring", side_effect=AssertionError):
            self.assertEqual(packages.program(S390, "busybox-static", "bin/busybox"),
                             folder / "busybox")

    def test_package_without_the_file(self):
        def bring(folder, *_):
            (folder / "busybox-static_1_s390x.deb").touch()
        with mock.patch.object(packages, "bring", bring), \
                mock.patch.object(packages, "output"), \
                self.assertRaisesRegex(Failure, "_s390x.deb has no bin/busybox"):
            packages.program(S390, "busybox-static", "bin/busybox")

    def test_no_network(self):
        with mock.patch.object(packages.source, "mirrors", return_value=["http://x"]), \
                mock.patch.object(packages.shutil, "which", return_value="apt-get"), \
                mock.patch.object(packages, "command", side_effect=Failure("E: no route")), \
                contextlib.redirect_stdout(io.StringIO()), \
                self.assertRaisesRegex(Failure, "busybox-static .s390x.*no network"):
            packages.program(S390, "busybox-static", "bin/busybox")

    def test_busybox_is_the_guests(self):
        busybox = self.tmp / "busybox"
        busybox.write_text("foreign")
        with on("x86_64"), mock.patch.object(packages, "program", return_value=busybox), \
                mock.patch.object(rootfs, "output", return_value="statically linked"):
            self.assertIn(b"foreign", rootfs.system(ARM).read_bytes())


class Emulator(Folder):
    """The emulator that is built here."""

    def test_debians(self):
        with mock.patch.object(emulator, "need"), \
                mock.patch.object(emulator, "_build", side_effect=AssertionError):
            self.assertEqual(emulator.start(ARM), ["qemu-system-aarch64"])
        self.assertEqual(list(emulator.tools(ARM)), ["qemu-system-aarch64"])

    def test_built_once(self):
        def build(arch, patch, found):
            self.assertIn("+    S390_FEAT_EDAT,", patch.read_text())
            found.parent.mkdir(parents=True)
            found.touch()
        with mock.patch.object(emulator, "need"):
            with mock.patch.object(emulator, "_build", build):
                first = emulator.start(S390)
            with mock.patch.object(emulator, "_build", side_effect=AssertionError):
                self.assertEqual(emulator.start(S390), first)
        self.assertEqual(Path(first[0]).name, "qemu-system-s390x")
        self.assertIn("ninja", emulator.tools(S390))

    def test_does_not_build(self):
        """Nothing is left that the next run would take for the program."""
        with mock.patch.object(emulator, "need"), \
                mock.patch.object(emulator.packages, "bring", lambda folder, *_:
                                  (folder / "qemu_7.2.dsc").touch()), \
                mock.patch.object(emulator, "command", side_effect=Failure("does not apply")), \
                contextlib.redirect_stdout(io.StringIO()), \
                self.assertRaisesRegex(Failure, "does not apply"):
            emulator.start(S390)
        self.assertEqual([p for p in cache_dir().rglob("*") if p.is_file() and "qemu-" in p.name],
                         [])


class Plan(unittest.TestCase):
    def plan(self, flavor, *chosen):
        with mock.patch.dict(os.environ, {"FLAVOR": flavor}):
            return [f"{a.name}-{f}" for a, f in test.plan(chosen or arches.tested())]

    def test_release(self):
        self.assertEqual(self.plan(""), ["x86_64-release", "arm64-release",
                                         "ppc64le-release", "s390x-release"])

    def test_flavor_of_one(self):
        self.assertEqual(self.plan("64k"), ["ppc64le-64k"])

    def test_all(self):
        self.assertEqual(self.plan("all", PPC), [f"ppc64le-{f}" for f in
                                                 ("release", "debug", "64k")])

    def test_unknown(self):
        with self.assertRaisesRegex(Failure, "FLAVOR=64k: there is release, debug, all"):
            self.plan("64k", ARM)


class Checks(Folder):
    def test_what_is_built(self):
        self.assertEqual([a.name for a, _ in check.kinds()], list(arches.ARCHES))
        with mock.patch.dict(os.environ, {"ARCH": "arm64"}):
            self.assertEqual(check.kinds(), [(ARM, "release")])

    def test_unknown_option(self):
        with mock.patch.dict(os.environ, {"ONLY": "WATER"}), \
                self.assertRaisesRegex(Failure, "ONLY=WATER: there is NUMA, "):
            check.step_configs()

    def test_warning_that_the_base_has(self):
        old = "m.c:1:2: warning: old"
        said = {"base": [old], "patched": [old.replace("1", "7"), "n.c:3:4: warning: new"]}
        with mock.patch.object(check.series, "trees", return_value={n: n for n in said}), \
                mock.patch.object(check.kernels, "compiled",
                                  side_effect=lambda arch, tree, *_: said[tree]):
            self.assertEqual(check.flavor_of_both(X86, "drivers"), [
                "x86_64, drivers: new warning: n.c: warning: new"])

    def test_warning_of_the_compiler(self):
        (self.tmp / "log").write_text("  CC mm/x.o\nmm/x.c:1:2: warning: unused\n")
        warned = check.kernels._warnings(self.tmp / "log")
        with mock.patch.object(check.kernels, "tree_of"), \
                mock.patch.object(check.kernels, "compiled", return_value=warned):
            found = check._compile(X86, "c", "release", "patch 1/1", "SMP")
        self.assertEqual(found, ["x86_64 without SMP, release, patch 1/1: "
                                 "mm/x.c:1:2: warning: unused"])

    def test_mutant_of_another_architecture(self):
        path = self.tmp / "m.patch"
        path.write_text("Test: a.b\nArch: s390x\n--- a/x\n")
        found = mutants.read(path, {"a": ["b"]}, {})
        self.assertEqual((found.arch, found.flavor), (S390, "release"))
        path.write_text("Test: a.b\nArch: s390x\nKernel: 64k\n--- a/x\n")
        with self.assertRaisesRegex(Failure, "Kernel: is one of release, debug$"):
            mutants.read(path, {"a": ["b"]}, {})
        path.write_text("Test: a.b\nArch: vax\n--- a/x\n")
        with self.assertRaisesRegex(Failure, "mutants/m.patch: ARCH=vax: no such"):
            mutants.read(path, {"a": ["b"]}, {})


if __name__ == "__main__":
    unittest.main()
