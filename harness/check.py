"""make check: everything that can be said about the patches without running them."""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections import Counter
from pathlib import Path

from harness import arches, install, kernel as kernels, series, source, test
from harness.common import (EXIT_CODES, ROOT, Failure, build_dir, command, key_of,
                            locked, new_dir, new_results, output, say, write_file)

IGNORED = Path(__file__).with_name("checkpatch-ignore")
# file:line: or file:line:column: in front of a warning
PLACE = re.compile(r"(?<=[\w.])(:\d+)+(?=:)")
LINE_IN_TEXT = re.compile(r"\bline \d+\b")


def touched(paths):
    """Files of the kernel that some patches touch."""
    found = set()
    for path in paths:
        found.update(re.findall(r"^diff --git a/(\S+) b/", path.read_text(errors="replace"),
                                re.M))
    return sorted(found)


def regenerate():
    """The branches give back the patches byte for byte."""
    problems, below = [], "base"
    for topic in series.topics():
        if not topic.patches:
            continue
        have = {p.name: p.read_bytes() for p in topic.patches}
        want = series.rendered(below, topic)
        problems += [f"{topic.name}/{name}: export writes it differently: run `make export`"
                     for name in sorted(have.keys() | want.keys())
                     if have.get(name) != want.get(name)]
        if not (topic.folder / "cover-letter.md").exists():
            problems.append(f"{topic.name}: has no cover-letter.md")
        below = topic.branch
    return problems


def points():
    """The series applies to each point release of `base`, with git am and nothing else."""
    problems, releases = [], source.base().points
    for number, release in enumerate(releases, 1):
        patches = series.patches(release.last)
        mark = build_dir() / "checked" / key_of(
            "point", release.sha256, *[p.read_bytes() for p in patches])
        if mark.exists():
            continue
        say(f"applying to {release.package} ({number}/{len(releases)})")
        try:
            _apply_to(_files_of(release, touched(patches)), patches)
            write_file(mark, f"{release.package}\n")
        except Failure as e:
            problems.append(f"{release.package}: {e}")
    return problems


def _files_of(release, names):
    """Folder with those files of a release that the series touches."""
    folder = build_dir() / "points" / key_of(release.sha256, *names)
    if folder.exists():
        return folder
    tarball, wanted = source.fetch(release), set(names)
    with new_dir(folder) as tmp, \
            subprocess.Popen(["xz", "-dc", tarball], stdout=subprocess.PIPE) as xz:
        with tarfile.open(fileobj=xz.stdout, mode="r|") as tar:
            for member in tar:
                name = member.name.partition("/")[2]
                if name in wanted and member.isfile():
                    path = tmp / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(tar.extractfile(member).read())
                    path.chmod(member.mode & 0o777)
        while xz.stdout.read(1 << 20):
            pass
    return folder


def _apply_to(folder, patches):
    """git am of all patches on a copy of a folder."""
    with tempfile.TemporaryDirectory(dir=build_dir()) as tmp:
        tree = Path(tmp) / "tree"
        shutil.copytree(folder, tree)
        env = source.git_env()
        for args in (["init", "-q"], ["add", "-f", "-A"],
                     ["commit", "-q", "--allow-empty", "-m", "base"]):
            output(["git", "-C", tree, *args], env=env)
        series.am(tree, patches)


def commits():
    """(commit, subject) of the patches, in order."""
    top = series.present()[-1].branch
    lines = series.git("log", "--reverse", "--format=%H %s", f"base..{top}").splitlines()
    return [tuple(s.split(" ", 1)) for s in lines]


def kinds():
    """[(architecture, flavor)] of the kernels that each patch is built as.

    Release kernels of ARCH=, else of all architectures.
    """
    wish = os.environ.get("ARCH")
    return [(a, "release") for a in ([arches.find(wish)] if wish else arches.ARCHES.values())]


def builds():
    """Each patch builds without a warning of the compiler, and all together in each flavor."""
    problems, all_ = [], commits()
    for arch, flavor in kinds():
        for number, (commit, subject) in enumerate(all_, 1):
            problems += _compile(arch, commit, flavor, f"patch {number}/{len(all_)}, {subject}")
        for more in arch.flavors + arch.compiled:
            problems += _compile(arch, all_[-1][0], more, "the patched kernel")
    return problems


def _compile(arch, commit, flavor, what, without=""):
    """What is wrong with the build of a commit: it fails, or the compiler warns."""
    where = f"{arch.name}{f' without {without}' if without else ''}, {flavor}, {what}"
    try:
        warned = kernels.compiled(arch, kernels.tree_of(commit), flavor, what, without)
    except Failure as e:
        return [f"{where}: {e}"]
    return [f"{where}: {line}" for line in warned]


def configs(name):
    """Each patch builds with an option turned off, on the default architecture."""
    problems, all_ = [], commits()
    for number, (commit, subject) in enumerate(all_, 1):
        problems += _compile(arches.wished(), commit, "release",
                             f"patch {number}/{len(all_)}, {subject}", name)
    return problems


def flavor_of_both(arch, flavor):
    """Base and patched kernel build as this flavor, the latter without a warning of its own."""
    said = {}
    for name, tree in series.trees().items():
        try:
            lines = kernels.compiled(arch, tree, flavor, f"the {name} kernel")
        except Failure as e:
            return [f"{arch.name}, {flavor}, {name}: {e}"]
        said[name] = Counter(PLACE.sub("", line) for line in lines)
    return [f"{arch.name}, {flavor}: new warning: {line}"
            for line in sorted((said["patched"] - said["base"]).elements())]


def ignored():
    """checkpatch types that do not count; one line each: type, tab, reason."""
    found = []
    for line in IGNORED.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, tab, why = line.partition("\t")
            if not tab or not why.strip():
                raise Failure(f"{IGNORED.name}: {name}: no reason given")
            found.append(name)
    return found


def style():
    """checkpatch --strict has nothing to say."""
    problems = []
    with locked("tree"):
        src = kernels.checkout(kernels.tree_of("base"))
        for path in series.patches():
            said = subprocess.run(
                ["perl", "scripts/checkpatch.pl", "--strict", "--terse", "--show-types",
                 "--no-summary", "--no-signoff", f"--ignore={','.join(ignored())}",
                 path.resolve()], cwd=src, capture_output=True, text=True, check=False)
            problems += [line.replace(str(path.parent.parent) + "/", "")
                         for line in said.stdout.splitlines() if line.strip()]
            if said.returncode and not said.stdout.strip():
                problems.append(f"{path.name}: checkpatch: {said.stderr.strip()}")
    return problems


def warnings():
    """No warning of sparse, W=1 or kernel-doc that the base has not."""
    problems, names, trees = [], touched(series.patches()), series.trees()
    for arch, _ in kinds():
        before = _warnings(arch, trees["base"], names)
        after = _warnings(arch, trees["patched"], names)
        problems += [f"{arch.name}: new warning: {text}"
                     for text in sorted((after - before).elements())]
    return problems


def _warnings(arch, tree, names):
    """Counter of warnings about files, remembered by content."""
    key = key_of("warnings 1", arch.name, kernels.content_of(tree), kernels.compiler(arch),
                 *names)
    store = build_dir() / "checked" / key
    if not store.exists():
        with locked("tree"):
            src = kernels.checkout(tree)
            obj = kernels.configure(arch, src, "release", tree)
            env, log = kernels.environment(arch), build_dir() / "logs" / f"{key}.log"
            say(f"sparse, W=1 and kernel-doc on {len(names)} files ({tree[:12]})")
            # What the configuration builds is seen from the objects.
            ready = "prepare" if (obj / "vmlinux").exists() else arch.target
            command(kernels.make(src, obj) + [ready], log, f"make {ready}", env=env)
            objects = [n[:-1] + "o" for n in names if n.endswith(".c") and (src / n).exists()
                       and (obj / (n[:-1] + "o")).exists()]
            command(kernels.make(src, obj) + ["-k", "C=2", "CHECK=sparse", "W=1", *objects],
                    log, "sparse and W=1", env=env)
            said = log.read_text(errors="replace")
            for name in names:
                if name.startswith("include/") and (src / name).exists():
                    doc = subprocess.run(["perl", "scripts/kernel-doc", "-none", name], cwd=src,
                                         capture_output=True, text=True, check=False)
                    said += doc.stderr
        lines = []
        for line in said.splitlines():
            if re.search(r"\b(warning|error):", line):
                line = line.replace(f"{src}/", "").removeprefix("../")
                lines.append(LINE_IN_TEXT.sub("line N", PLACE.sub("", line)))
        write_file(store, "\n".join(lines))
    return Counter(store.read_text().splitlines())


def shell():
    """shellcheck of every script of the repository."""
    scripts = []
    for name in output(["git", "-C", ROOT, "ls-files"]).splitlines():
        path = ROOT / name
        if path.is_file() and path.read_bytes()[:64].split(b"\n")[0] in (
                b"#!/bin/sh", b"#!/bin/bash", b"#!/usr/bin/env bash"):
            scripts.append(path)
    said = subprocess.run(["shellcheck", "-f", "gcc", *scripts], capture_output=True,
                          text=True, check=False)
    return [s.replace(f"{ROOT}/", "") for s in said.stdout.splitlines()]


def step_check():
    """make check [ARCH=]"""
    for arch, _ in kinds():
        install.ensure(arch=arch)
    series.apply()
    folder, total = new_results("check"), 0
    steps = (("patches regenerate", regenerate), ("point releases", points),
             ("checkpatch", style), ("shellcheck", shell), ("every patch builds", builds),
             ("new warnings", warnings))
    with open(folder / "problems", "w", encoding="utf-8") as out:
        for number, (name, step) in enumerate(steps, 1):
            problems = step() if series.patches() or step is shell else []
            total += _tell(f"{number}/{len(steps) + 1} {name}", problems, out)
    cases = test.own("test_*.py", folder)
    bad = sum(c.verdict == "fail" for c in cases)
    say(f"{len(steps) + 1}/{len(steps) + 1} the harness' own tests: {bad or 'no'} problems")
    return _end("check", total + bad, folder)


def step_configs():
    """make configs [ARCH=] [ONLY=option or flavor]"""
    only, arch = os.environ.get("ONLY"), arches.wished()
    names = [*kernels.WITHOUT, *arch.configs]
    if only and only not in names:
        raise Failure(f"ONLY={only}: there is {', '.join(names)}")
    names = [only] if only else names
    series.apply()
    folder, total = new_results("configs"), 0
    with open(folder / "problems", "w", encoding="utf-8") as out:
        for number, name in enumerate(names, 1):
            if name in arch.configs:
                total += _tell(f"{number}/{len(names)} {name}", flavor_of_both(arch, name), out)
            else:
                total += _tell(f"{number}/{len(names)} without {name}", configs(name), out)
    return _end("configs", total, folder)


def _tell(title, problems, out):
    """Print and write what a part found: the number of problems."""
    say(f"{title}: {len(problems) or 'no'} problems")
    for line in problems:
        print(f"        {line}", flush=True)
        out.write(f"{title.split(' ', 1)[1]}: {line}\n")
    return len(problems)


def _end(step, total, folder):
    """Last line and exit code of a step."""
    print(f"{step}: {total or 'no'} problems ({folder})", flush=True)
    return EXIT_CODES["fail" if total else "pass"]
