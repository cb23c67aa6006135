"""Files, programs, exit codes: what a full disk or a missing tool gets."""

import contextlib
import errno
import io
import os
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from harness import __main__ as front, arches, common, install, kernel, machine
from harness.common import Failure
from harness.cpio import Archive


class Folder(unittest.TestCase):
    def setUp(self):
        tmp = tempfile.TemporaryDirectory()
        self.addCleanup(tmp.cleanup)
        self.tmp = Path(tmp.name)
        patch = mock.patch.dict(os.environ, {
            "BUILD": str(self.tmp / "build"), "RESULTS": str(self.tmp / "results"),
            "XDG_CACHE_HOME": str(self.tmp / "cache")})
        patch.start()
        self.addCleanup(patch.stop)
        for name in ("ARCH", "FLAVOR", "ONLY", "KERNEL", "CMD", "SHARE", "ACCEL", "SLOW",
                     "LINUX", "TIMEOUT"):
            os.environ.pop(name, None)


class Files(Folder):
    def test_half_a_file_is_never_seen(self):
        path = self.tmp / "x"
        common.write_file(path, "old")
        with mock.patch("os.replace", side_effect=OSError(errno.ENOSPC, "full", "x")):
            with self.assertRaises(OSError):
                common.write_file(path, "new")
        self.assertEqual(os.listdir(self.tmp), ["x"])
        self.assertEqual(path.read_text(), "old")

    def test_half_a_folder_is_never_seen(self):
        with self.assertRaises(Failure):
            with common.new_dir(self.tmp / "d") as tmp:
                (tmp / "half").write_text("x")
                raise Failure("no")
        self.assertEqual(os.listdir(self.tmp), [])

    def test_disk_full(self):
        script = (
            "import sys; from pathlib import Path; from harness import common\n"
            "try: common.write_file(Path(sys.argv[1]) / 'x', b'x' * 1000000)\n"
            "except OSError as e:\n"
            "    left = [p.name for p in Path(sys.argv[1]).iterdir()]\n"
            "    print(left); sys.exit(common.fail(e))\n")
        shell = f"mount -t tmpfs -o size=64k none {self.tmp} && exec {sys.executable} -c '" \
            + script.replace("'", '"') + f"' {self.tmp}"
        probe = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", self.tmp],
                               capture_output=True, check=False)
        if probe.returncode:
            self.skipTest("no user namespaces to mount a small disk in")
        said = subprocess.run(["unshare", "-rm", "sh", "-c", shell], cwd=common.ROOT,
                              capture_output=True, text=True, check=False)
        self.assertEqual(said.returncode, 2, said)
        self.assertEqual(said.stdout.strip(), "[]")
        self.assertRegex(said.stderr, r"^harness: disk full at .*: free some space")
        self.assertEqual(said.stderr.count("\n"), 1)

    def test_disk_full_in_a_program(self):
        with self.assertRaisesRegex(Failure, "disk full, free some space"):
            common.command(["sh", "-c", "cat /etc/passwd > /dev/full"], self.tmp / "log", "writing")

    def test_disk_full_in_git(self):
        with self.assertRaisesRegex(Failure, "cat /etc/passwd: disk full, free some space"):
            said = subprocess.CompletedProcess(
                [], 1, stderr="fatal: cannot write: No space left on device")
            with mock.patch("subprocess.run", return_value=said):
                common.output(["cat", "/etc/passwd"])

    def test_results_are_unique(self):
        self.assertNotEqual(common.new_results("a"), common.new_results("a"))


class Programs(Folder):
    def test_missing(self):
        with self.assertRaisesRegex(Failure, "no-such-tool is missing: install it .*some-pkg"):
            common.need("no-such-tool", "some-pkg")
        with self.assertRaisesRegex(Failure, "no-such-tool is missing"):
            common.output(["no-such-tool"])

    def test_failing_names_the_error_and_the_log(self):
        with self.assertRaisesRegex(Failure, "building failed: mm/a.c:1: error: no.*log: "):
            common.command(["sh", "-c", "echo hello; echo 'mm/a.c:1: error: no'; exit 2"],
                           self.tmp / "log", "building")

    def test_the_line_that_names_the_cause(self):
        for cause in ("mm/a.c:1:2: error: no such thing", "ld: x.o: undefined reference to `y'",
                      "fatal: not a git repository", "E: Unable to locate package",
                      "make[1]: *** [Makefile:9: all] Error 2"):
            (self.tmp / "log").write_text(f"  CC  str_error_r.o\n{cause}\nmake: leaving\n")
            self.assertEqual(common.tail(self.tmp / "log"), cause)

    def test_kernel_that_does_not_build(self):
        with self.assertRaisesRegex(Failure, "building x failed: a.c:1:.*error") as caught:
            (self.tmp / "a.c").write_text("int main(void) { return nothing; }\n")
            (self.tmp / "Makefile").write_text("all:\n\t@gcc a.c\n")
            common.command(["make", "-C", self.tmp], self.tmp / "log", "building x",
                           env=dict(os.environ, LC_ALL="C"), verdict="fail")
        self.assertEqual(caught.exception.verdict, "fail")

    def test_program_that_hangs(self):
        with self.assertRaises(Failure) as caught:
            common.command(["sleep", "100"], self.tmp / "log", "waiting", timeout=0.5)
        self.assertEqual(common.EXIT_CODES[caught.exception.verdict], 6)

    def test_program_may_clean_up(self):
        script = f"trap 'touch {self.tmp}/clean; exit' TERM; while :; do sleep 0.1; done"
        with self.assertRaises(Failure):
            common.command(["sh", "-c", script], self.tmp / "log", "waiting", timeout=0.5)
        self.assertTrue((self.tmp / "clean").exists())

    def test_disk_too_full_for_the_log(self):
        usage = mock.Mock(free=0)
        with mock.patch("shutil.disk_usage", return_value=usage), \
                self.assertRaisesRegex(Failure, "building x: disk full"):
            common.command(["sh", "-c", "echo '  CC  x.o'; exit 1"], self.tmp / "log",
                           "building x")

    def test_second_run_waits(self):
        (self.tmp / "build").mkdir()
        hold = subprocess.Popen(["flock", self.tmp / "build" / "x.lock", "sleep", "0.6"])
        time.sleep(0.3)
        out = io.StringIO()
        with contextlib.redirect_stdout(out), common.locked("x"):
            self.assertEqual(hold.wait(), 0)
        self.assertIn("waiting for another run", out.getvalue())

    def test_nothing_is_left_running(self):
        script = ("import sys\nfrom unittest import mock\nfrom harness import __main__, common\n"
                  "def step(): common.command(['sleep', sys.argv[1]], sys.argv[2], 'x')\n"
                  "module = mock.Mock(step_apply=step)\n"
                  "with mock.patch('importlib.import_module', return_value=module), "
                  "mock.patch('harness.install.ensure'):\n"
                  "    sys.exit(__main__.main(['apply']))\n")
        seconds = f"98{os.getpid()}"
        with subprocess.Popen([sys.executable, "-c", script, seconds, str(self.tmp / "log")],
                              cwd=common.ROOT) as child:
            def sleeping():
                said = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True,
                                      check=True)
                return f"sleep {seconds}" in said.stdout.splitlines()
            for _ in range(100):
                if sleeping():
                    break
                time.sleep(0.1)
            self.assertTrue(sleeping())
            child.terminate()
            self.assertEqual(child.wait(), 128 + 15)
            self.assertFalse(sleeping())


class Install(Folder):
    TOOLS = {"no-such-tool": "some-pkg"}

    def test_nothing_lacking(self):
        with mock.patch("subprocess.run", side_effect=AssertionError):
            install.ensure({"sh": "dash"})

    def test_not_debian(self):
        with mock.patch.object(install, "is_debian", return_value=False):
            with self.assertRaisesRegex(Failure, "missing: no-such-tool: install .*some-pkg"):
                install.ensure(self.TOOLS)

    def test_no_root_and_no_sudo(self):
        with mock.patch.object(install, "is_debian", return_value=True), \
                mock.patch("os.geteuid", return_value=1000), \
                mock.patch("shutil.which", return_value=None):
            with self.assertRaisesRegex(Failure, "no root and no sudo.*apt-get install some-pkg"):
                install.ensure(self.TOOLS)

    def test_no_network(self):
        with mock.patch.object(install, "is_debian", return_value=True), \
                mock.patch("os.geteuid", return_value=0), \
                mock.patch.object(install, "command", side_effect=Failure("E: no route")), \
                contextlib.redirect_stdout(io.StringIO()) as out:
            with self.assertRaisesRegex(Failure, "no network.*some-pkg"):
                install.ensure(self.TOOLS)
        self.assertIn("installing packages: some-pkg", out.getvalue())

    def test_which_system(self):
        path = self.tmp / "os-release"
        path.write_text("ID=fedora\nID_LIKE=debian\n")
        self.assertFalse(install.is_debian(path))


class Options(Folder):
    """Wrong options: one line and the exit code of `infra`."""

    def step(self, name, **env):
        os.environ.update(env)
        err = io.StringIO()
        with mock.patch.object(install, "ensure"), contextlib.redirect_stderr(err), \
                contextlib.redirect_stdout(io.StringIO()):
            code = front.main([name])
        self.assertEqual(err.getvalue().count("\n"), 1, err.getvalue())
        return code, err.getvalue()

    def test_step(self):
        self.assertEqual(self.step("nonsense")[0], 2)

    def test_arch(self):
        for step in ("test", "shell"):
            code, said = self.step(step, ARCH="vax")
            self.assertEqual(code, 2)
            self.assertRegex(said, "ARCH=vax: no such architecture here; there is "
                             + arches.default().name)

    def test_flavor(self):
        self.assertRegex(self.step("test", FLAVOR="mint")[1], "there is .*release, debug")

    def test_kernel(self):
        self.assertRegex(self.step("shell", KERNEL="new")[1], "there is base, patched")

    def test_share(self):
        self.assertRegex(self.step("shell", SHARE="/nowhere")[1], "SHARE=/nowhere: no such folder")

    def test_no_command(self):
        self.assertRegex(self.step("guest")[1], "make guest CMD=")

    def test_linux(self):
        code, said = self.step("apply", LINUX=str(self.tmp))
        self.assertEqual(code, 2)
        self.assertRegex(said, "not a git checkout that has the tag v5")
        self.assertFalse((self.tmp / "build" / "linux").exists())

    def test_before_anything_is_installed(self):
        wrong = (("LINUX", "/nowhere", "LINUX=/nowhere: no such folder"),
                 ("SLOW", "very", "SLOW must be a number"),
                 ("TIMEOUT", "1h", "TIMEOUT must be a number of seconds"),
                 ("TIMEOUT", "nan", "TIMEOUT must be a number of seconds"),
                 ("ACCEL", "warp", "there is kvm and tcg"),
                 ("BUILD", f"{self.tmp}/my build", "my build: .* give BUILD=dir"),
                 ("RESULTS", f"{self.tmp}/a,b", "a,b: .* give RESULTS=dir"))
        for name, value, line in wrong:
            with mock.patch.dict(os.environ, {name: value}), \
                    mock.patch("importlib.import_module", side_effect=AssertionError):
                code, said = self.step("run")
                self.assertEqual((name, code), (name, 2))
                self.assertRegex(said, line)


class Share(Folder):
    """A folder of the user's in the guest."""

    def test_links_that_lead_upwards(self):
        (self.tmp / "s" / "d").mkdir(parents=True)
        (self.tmp / "s" / "f").write_text("x")
        for name in ("up", "again"):
            (self.tmp / "s" / "d" / name).symlink_to("..")
        out = Archive()
        out.tree(self.tmp / "s", "share")
        self.assertEqual(out.data().count(b"share/d/up\0"), 1)
        self.assertNotIn(b"share/d/up/", out.data())

    def test_name_that_is_no_text(self):
        (self.tmp / os.fsdecode(b"\xff")).write_text("x")
        out = Archive()
        out.tree(self.tmp, "share")
        self.assertIn(b"share/\xff\0", out.data())


class Config(Folder):
    def test_missing_line_is_named(self):
        fragment, config = self.tmp / "a.config", self.tmp / "config"
        fragment.write_text("# why\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=7\nCONFIG_D=n\n")
        config.write_text("CONFIG_A=y\nCONFIG_C=8\n")
        want = kernel.wanted([fragment])
        self.assertEqual(want, {"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_C": "7",
                                "CONFIG_D": "n"})
        self.assertEqual(kernel.missing(want, config), ["CONFIG_C=7"])

    def test_nonsense_line(self):
        (self.tmp / "a.config").write_text("CONFIG_A\n")
        with self.assertRaisesRegex(Failure, "a.config:1: not a line of a configuration"):
            kernel.wanted([self.tmp / "a.config"])

    def test_later_fragment_wins(self):
        (self.tmp / "a").write_text("CONFIG_A=y\n")
        (self.tmp / "b").write_text("CONFIG_A=n\n")
        self.assertEqual(kernel.wanted([self.tmp / "a", self.tmp / "b"]), {"CONFIG_A": "n"})

    def test_every_architecture_has_its_console(self):
        for arch in arches.tested():
            self.assertTrue(all(p.exists() for f in kernel.FLAVORS
                                for p in kernel.fragments(arch, f)))

    def test_only_the_table_names_architectures(self):
        names = {n for a in arches.ARCHES.values()
                 for n in (a.name, a.kernel, a.debian, a.triplet, a.qemu) if len(n) > 3}
        for path in list((common.ROOT / "harness").glob("*.py")):
            if path.name != "arches.py":
                found = [n for n in names if n in path.read_text()]
                self.assertEqual(found, [], path)


class Nodes(Folder):
    def options(self, name):
        return " ".join(machine.node_options(
            machine.Machine(arches.default(), machine.TOPOLOGIES[name])))

    def test_default(self):
        self.assertEqual(self.options("default"), (
            "-smp 4,sockets=2,cores=2,threads=1 -m 2048M "
            "-object memory-backend-ram,id=m0,size=1024M -numa node,nodeid=0,memdev=m0,cpus=0-1 "
            "-object memory-backend-ram,id=m1,size=1024M -numa node,nodeid=1,memdev=m1,cpus=2-3 "
            "-numa dist,src=0,dst=1,val=20"))

    def test_node_without_memory(self):
        self.assertIn("-numa node,nodeid=2,cpus=3-3 ", self.options("memoryless"))

    def test_node_without_cpu(self):
        self.assertIn("-numa node,nodeid=1,memdev=m1 ", self.options("cpuless"))

    def test_one_node(self):
        self.assertEqual(self.options("one-node"),
                         "-smp 4,sockets=1,cores=4,threads=1 -m 2048M")


if __name__ == "__main__":
    unittest.main()
