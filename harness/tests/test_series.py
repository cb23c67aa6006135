"""The base and the patches, on a kernel of three files."""

import contextlib
import io
import os
import subprocess
from unittest import mock

from harness import kernel, series, source
from harness.common import Failure, build_dir, sha256
from harness.tests.test_common import Folder


class Source(Folder):
    def setUp(self):
        super().setUp()
        out = contextlib.redirect_stdout(io.StringIO())
        out.__enter__()
        self.addCleanup(out.__exit__, None, None, None)
        self.release = source.Release("5.10.1-1", "sid", "0" * 64)
        self.store = self.tmp / "cache" / "thp-migration" / "source"

    def test_base_file(self):
        base = source.base()
        self.assertIn(base.release.version, {p.version for p in base.points})
        self.assertEqual(series.patches(series.NAMES[-1]), series.patches())
        self.assertLess(len(series.patches(series.NAMES[0])), len(series.patches()))
        with self.assertRaisesRegex(Failure, "there is no topic 9-x"):
            series.patches("9-x")
        path = self.tmp / "base"
        path.write_text("package 5.10.1-1\nnonsense in here\n")
        with self.assertRaisesRegex(Failure, "base:2: not understood"):
            source.base(path)
        path.write_text("package 5.10.1-1\n")
        with self.assertRaisesRegex(Failure, "no line 'suite'"):
            source.base(path)

    def test_wrong_digest(self):
        def bring(release, folder):
            (folder / release.tarball).write_text("not a kernel")
        with mock.patch.object(source, "_download", bring):
            with self.assertRaisesRegex(Failure, "wrong digest .* not used"):
                source.fetch(self.release)
        self.assertEqual(os.listdir(self.store), [])

    def test_good_digest_and_no_second_download(self):
        def bring(release, folder):
            (folder / release.tarball).write_text("a kernel")
        (self.tmp / "x").write_text("a kernel")
        release = source.Release("5.10.1-1", "sid", sha256(self.tmp / "x"))
        with mock.patch.object(source, "_download", bring):
            path = source.fetch(release)
        with mock.patch.object(source, "_download", side_effect=AssertionError):
            self.assertEqual(source.fetch(release), path)

    def test_damaged_cache(self):
        self.store.mkdir(parents=True)
        (self.store / self.release.tarball).write_text("half of it")
        with mock.patch.object(source, "_download") as bring:
            with self.assertRaisesRegex(Failure, "apt did not bring"):
                source.fetch(self.release)
        self.assertTrue(bring.called)
        self.assertEqual(os.listdir(self.store), [])

    def test_no_network(self):
        with mock.patch.object(source, "mirrors", return_value=["http://localhost:9/none"]), \
                mock.patch.object(source, "KEYRING", "/dev/null"), \
                mock.patch("shutil.which", return_value="/usr/bin/apt-get"), \
                mock.patch.object(source, "command",
                                  side_effect=Failure("E: could not resolve")):
            with self.assertRaisesRegex(Failure, "no network .*LINUX=dir"):
                source.fetch(self.release)
        self.assertEqual(os.listdir(self.store), [])

    def test_no_mirror(self):
        with mock.patch.object(source, "mirrors", return_value=[]), \
                mock.patch.object(source, "KEYRING", "/dev/null"), \
                mock.patch("shutil.which", return_value="/usr/bin/apt-get"):
            with self.assertRaisesRegex(Failure, "apt knows no Debian mirror.*LINUX=dir"):
                source.fetch(self.release)


class Topics(Folder):
    """A base of three files, two topics."""

    def setUp(self):
        super().setUp()
        out = contextlib.redirect_stdout(io.StringIO())
        out.__enter__()
        self.addCleanup(out.__exit__, None, None, None)
        self.origin = self.tmp / "origin"
        self.origin.mkdir()
        self.git("init", "-q", "-b", "main", where=self.origin)
        for name in ("a", "b", "c"):
            (self.origin / name).write_text("".join(f"{name}{i}\n" for i in range(9)))
        self.git("add", "-A", where=self.origin)
        self.git("commit", "-q", "-m", "x", where=self.origin)
        self.git("tag", "v5.10.1", where=self.origin)
        folder = self.tmp / "series"
        folder.mkdir()
        (folder / "base").write_text("package 5.10.1-1\nsuite sid\nsha256 0\ntree 0\n")
        base = source.base(folder / "base")
        for patch in (mock.patch.object(source, "SERIES", folder),
                      mock.patch.object(source, "base", return_value=base),
                      mock.patch.dict(os.environ, {"LINUX": str(self.origin)})):
            patch.start()
            self.addCleanup(patch.stop)
        source.ensure()
        self.linux = build_dir() / "linux"
        self.git("checkout", "-q", "-b", "fixes", "base")
        self.change("a", "a4", "A4", "mm: thp: change a")
        self.change("b", "b4", "B4", "mm: thp: change b")
        self.git("checkout", "-q", "-b", "numa-balancing")
        self.change("a", "a7", "A7", "mm: thp: change a again")
        series.export()

    def git(self, *args, where=None):
        env = source.git_env()
        return subprocess.run(["git", "-C", where or self.linux, *args], env=env, check=True,
                              capture_output=True, text=True).stdout.strip()

    def change(self, name, old, new, message):
        path = self.linux / name
        path.write_text(path.read_text().replace(old, new))
        self.git("commit", "-q", "-a", "-m", message)

    def files(self):
        return {str(p.relative_to(source.SERIES)): p.read_bytes()
                for p in source.SERIES.rglob("*.patch")}

    def test_export(self):
        self.assertEqual(sorted(self.files()), [
            "1-fixes/0001-mm-thp-change-a.patch", "1-fixes/0002-mm-thp-change-b.patch",
            "2-numa-balancing/0001-mm-thp-change-a-again.patch"])
        self.assertEqual(series.export(), 0)

    def test_export_removes_what_is_gone_and_keeps_the_letter(self):
        letter = source.SERIES / "1-fixes" / "cover-letter.md"
        letter.write_text("hello\n")
        self.git("checkout", "-q", "numa-balancing")
        self.git("rebase", "-q", "--onto", "fixes~1", "fixes")
        self.git("branch", "-f", "fixes", "fixes~1")
        self.assertEqual(series.export(), 1)
        self.assertNotIn("1-fixes/0002-mm-thp-change-b.patch", self.files())
        self.assertEqual(letter.read_text(), "hello\n")

    def test_apply_gives_the_same_commits_everywhere(self):
        before, tree = self.files(), self.git("rev-parse", "numa-balancing^{tree}")
        commits = []
        for name in ("one", "two"):
            os.environ["BUILD"] = str(self.tmp / name)
            self.assertEqual(series.apply(), "numa-balancing")
            commits.append(series.tip("numa-balancing"))
            self.assertEqual(series.trees()["patched"], tree)
            self.assertEqual(series.export(), 0)
        self.assertEqual(commits[0], commits[1])
        self.assertEqual(self.files(), before)

    def test_apply_again_does_nothing(self):
        tip = series.tip("numa-balancing")
        with mock.patch.object(series, "_apply", side_effect=AssertionError):
            series.apply()
        self.assertEqual(series.tip("numa-balancing"), tip)

    def test_unexported_work_is_kept(self):
        self.change("c", "c4", "C4", "mm: thp: change c")
        tip = series.tip("numa-balancing")
        with self.assertRaisesRegex(Failure, "branch numa-balancing .* not exported: run") as e:
            series.apply()
        self.assertEqual(e.exception.verdict, "fail")
        self.assertEqual(series.tip("numa-balancing"), tip)
        self.assertEqual(series.apply(keep=True), "numa-balancing")
        series.export()
        series.apply()
        self.assertEqual(series.tip("numa-balancing"), tip)

    def test_patches_that_changed_are_applied(self):
        path = source.SERIES / "2-numa-balancing" / "0001-mm-thp-change-a-again.patch"
        path.write_text(path.read_text().replace("+A7", "+A77"))
        series.apply()
        self.assertIn("A77", self.git("show", "numa-balancing:a"))

    def test_patch_that_does_not_apply(self):
        path = source.SERIES / "1-fixes" / "0002-mm-thp-change-b.patch"
        path.write_text(path.read_text().replace(" b3", " b33"))
        tips = series.tip("fixes"), series.tip("numa-balancing")
        with self.assertRaisesRegex(
                Failure, r"1-fixes/0002-mm-thp-change-b.patch does not apply: .*b:\d") as e:
            series.apply()
        self.assertEqual(e.exception.verdict, "fail")
        self.assertEqual((series.tip("fixes"), series.tip("numa-balancing")), tips)
        self.assertEqual([p.name for p in build_dir().glob(".scratch*")], [])

    def test_export_keeps_patches_that_are_newer(self):
        path = source.SERIES / "2-numa-balancing" / "0001-mm-thp-change-a-again.patch"
        path.write_text(path.read_text().replace("+A7", "+A77"))
        before = self.files()
        with self.assertRaisesRegex(Failure, "2-numa-balancing: the patches have changed .*"
                                    "`make apply`") as e:
            series.export()
        self.assertEqual(e.exception.verdict, "fail")
        self.change("c", "c4", "C4", "mm: thp: change c")
        with self.assertRaisesRegex(Failure, "rename the branch"):
            series.export()
        self.assertEqual(self.files(), before)

    def test_own_work_below_the_top_is_not_left_out(self):
        self.git("checkout", "-q", "fixes")
        self.change("c", "c4", "C4", "mm: thp: change c")
        with self.assertRaisesRegex(Failure, "numa-balancing is not on top of fixes: rebase"):
            series.trees()
        self.git("rebase", "-q", "fixes", "numa-balancing")
        self.assertIn("C4", self.git("show", f"{series.trees()['patched']}:c"))

    def test_uncommitted_work_is_kept(self):
        path = source.SERIES / "2-numa-balancing" / "0001-mm-thp-change-a-again.patch"
        path.write_text(path.read_text().replace("+A7", "+A77"))
        (self.linux / "c").write_text("mine\n")
        with self.assertRaisesRegex(Failure, "not committed: commit or stash"):
            series.apply()
        self.assertEqual((self.linux / "c").read_text(), "mine\n")

    def test_mutant(self):
        path = self.tmp / "m.patch"
        text = self.git("diff", "numa-balancing", "fixes")
        path.write_text(f"Test: a.b\n\nPuts the bug back.\n\n{text}\n")
        tree = kernel.patched(self.git("rev-parse", "numa-balancing^{tree}"), path)
        self.assertEqual(tree, self.git("rev-parse", "fixes^{tree}"))
        with self.assertRaisesRegex(Failure, "m.patch does not apply: .*a:"):
            kernel.patched(tree, path)

    def test_topic_that_left_its_place(self):
        self.git("checkout", "-q", "fixes")
        self.change("c", "c4", "C4", "mm: thp: change c")
        with self.assertRaisesRegex(Failure, "numa-balancing is not on top of fixes: rebase"):
            series.export()

    def test_another_base_in_the_build_folder(self):
        self.git("config", "thp-migration.base", "5.10.0 0")
        with self.assertRaisesRegex(Failure, "is not 5.10.1: move it away"):
            source.ensure()
