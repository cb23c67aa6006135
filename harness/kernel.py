"""Build kernels from git trees, and remember them by content.

A kernel is a folder <build>/kernels/<key>/ with image, config, System.map,
the compiler's warnings and modules/*.ko.  One source folder, <build>/tree, is switched from tree to tree
and one object folder per architecture and flavor is built in, so that going
from one patch to the next compiles only what changed.
"""

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import source
from harness.arches import Arch
from harness.common import (ROOT, Failure, build_dir, cache_dir, command, key_of,
                            locked, need, new_dir, output, say, write_file)

# Those of every architecture; it may have others besides (arches.Arch.flavors).
FLAVORS = ("release", "debug")
# How much longer things take in a guest of this flavor.
SLOWNESS = {"debug": 4}
WARNING = re.compile(r"^\S+:\d+:\d+: warning:")
CONFIG = ROOT / "guest" / "config"
SERIES_CONFIG = CONFIG / "series.config"
# What `make configs` turns off in turn -> the symbols that make it so.  What
# depends on them goes with them; what selects them is named.
WITHOUT = {name: (name,) for name in (
    "NUMA", "NUMA_BALANCING", "TRANSPARENT_HUGEPAGE", "SMP", "DEVICE_PRIVATE", "MEMCG",
    "SWAP")}
WITHOUT["MIGRATION"] = ("TRANSPARENT_HUGEPAGE", "COMPACTION", "MIGRATION")
# What the kernel and its modules are not made of.
NOT_BUILT = ("Documentation", "LICENSES", "MAINTAINERS", "CREDITS", "samples")


@dataclass(frozen=True)
class Kernel:
    """A built kernel."""

    arch: Arch
    flavor: str
    tree: str           # git tree it was first built from
    key: str            # names its content
    folder: Path

    @property
    def image(self):
        """What QEMU boots."""
        return self.folder / "image"

    @property
    def config(self):
        """The full configuration."""
        return self.folder / "config"

    @property
    def warnings(self):
        """Lines that the compiler warned with when it was built."""
        path = self.folder / "warnings"
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    @property
    def modules(self):
        """The modules, flat."""
        return sorted((self.folder / "modules").glob("*.ko"))

    @property
    def slow(self):
        """Factor for the time limits of a guest."""
        return SLOWNESS.get(self.flavor, 1) * self.arch.slow


def git(*args, env=None):
    """Output of git in the work tree."""
    return output(["git", "-C", build_dir() / "linux", *args],
                  env=env or source.git_env()).strip()


def tree_of(rev):
    """Id of the git tree of a branch or commit."""
    return git("rev-parse", "--verify", f"{rev}^{{tree}}")


def content_of(tree):
    """Digest of the parts of a tree that a kernel is built from."""
    lines = []
    for line in git("ls-tree", tree).splitlines():
        name = line.split("\t")[1]
        if name == "tools":
            lines += [s for s in git("ls-tree", f"{tree}:tools").splitlines()
                      if s.split("\t")[1] != "testing"]
        elif name not in NOT_BUILT:
            lines.append(line)
    return key_of("\n".join(lines))


def flavors(arch):
    """Names of the kernels of an architecture."""
    return FLAVORS + arch.flavors + arch.compiled + arch.configs


def fragments(arch, flavor):
    """The configuration fragments, in the order in which they are merged."""
    if flavor not in flavors(arch):
        raise Failure(f"FLAVOR={flavor}: there is {', '.join(flavors(arch))} on {arch.name}")
    first = [arch.name] if not arch.tested else ["common", arch.name]
    paths = [CONFIG / f"{n}.config" for n in first]
    more = (CONFIG / f"{n}.config" for n in (flavor, f"{arch.name}.{flavor}"))
    return paths + [p for p in more if p.exists()]


def patched(tree, path):
    """Id of the tree with a patch applied: strictly, without a work tree.

    Raises Failure, of verdict fail, if it does not apply.
    """
    with tempfile.TemporaryDirectory(dir=build_dir()) as tmp:
        env = dict(source.git_env(), GIT_INDEX_FILE=f"{tmp}/index")
        start = ["git", "-C", build_dir() / "linux"]
        output(start + ["read-tree", tree], env=env)
        said = subprocess.run(start + ["apply", "--cached", path.resolve()], env=env,
                              capture_output=True, text=True, check=False)
        if said.returncode:
            why = said.stderr.strip().splitlines()[0].removeprefix("error: ")
            raise Failure(f"{path.name} does not apply: {why}", "fail")
        return output(start + ["write-tree"], env=env).strip()


def flavored(arch, tree, flavor):
    """The tree that a flavor is built from: most are a matter of configuration only."""
    path = CONFIG / f"{arch.name}.{flavor}.patch"
    return patched(tree, path) if path.exists() else tree


def wanted(paths):
    """{symbol: value} of fragments, a later one overriding an earlier; 'n' for not set."""
    want = {}
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            line = line.strip()
            unset = re.fullmatch(r"# (CONFIG_\w+) is not set", line)
            if unset:
                want[unset[1]] = "n"
            elif line and not line.startswith("#"):
                name, is_, value = line.partition("=")
                if not is_ or not re.fullmatch(r"CONFIG_\w+", name):
                    raise Failure(f"{path}:{number}: not a line of a configuration: {line}")
                want[name] = value
    return want


def missing(want, config):
    """Lines of the fragments that are not in a configuration."""
    have = wanted([config])
    return [f"{k}={v}" for k, v in want.items() if have.get(k, "n") != v]


def added(tree):
    """The fragment of what the series adds, as far as a tree has the symbols."""
    want = wanted([SERIES_CONFIG])
    found = git("grep", "-hE", r"^\s*(menu)?config ", tree, "--", "*Kconfig*").split()
    return {k: v for k, v in want.items() if k.removeprefix("CONFIG_") in found}


def environment(arch):
    """Environment for make: reproducible, ccache in front of the compiler."""
    env = dict(os.environ)
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "ARCH", "CROSS_COMPILE", "O"):
        env.pop(name, None)
    cache = env.get("CCACHE_DIR") or str(cache_dir() / "ccache")
    env.update(CCACHE_DIR=cache, CCACHE_MAXSIZE=env.get("CCACHE_MAXSIZE", "5G"),
               CCACHE_NOHASHDIR="1", CCACHE_BASEDIR=str(build_dir()), LC_ALL="C",
               KBUILD_BUILD_TIMESTAMP="2026-01-01", KBUILD_BUILD_USER="thp",
               KBUILD_BUILD_HOST="guest", ARCH=arch.kernel, CROSS_COMPILE=arch.cross())
    ccache = Path("/usr/lib/ccache")
    if ccache.is_dir():
        env["PATH"] = f"{ccache}:{env['PATH']}"
    return env


def compiler(arch):
    """First line of the compiler's --version."""
    name = f"{arch.cross()}gcc"
    need(name, "gcc" if not arch.cross() else f"gcc-{arch.triplet}")
    return output([name, "--version"]).splitlines()[0]


def jobs():
    """How many compilers at a time."""
    return len(os.sched_getaffinity(0))


def find(arch, tree, flavor="release"):
    """The remembered kernel of a tree, or None.  Runs no make."""
    kernel = _named(arch, tree, flavor)
    return kernel if (kernel.folder / "image").exists() else None


def _named(arch, tree, flavor):
    tree = flavored(arch, tree, flavor)
    want = wanted(fragments(arch, flavor) + [SERIES_CONFIG])
    text = "".join(f"{k}={v}\n" for k, v in want.items())
    key = key_of("kernel 1", arch.name, flavor, content_of(tree), text, compiler(arch))
    return Kernel(arch, flavor, tree, key, build_dir() / "kernels" / key)


def build(arch, tree, flavor="release", what="kernel"):
    """The kernel of a git tree, built unless it is remembered; what: for the progress lines."""
    kernel = find(arch, tree, flavor)
    if kernel:
        return kernel
    kernel = _named(arch, tree, flavor)
    with locked("tree"):
        src = checkout(kernel.tree)
        obj = configure(arch, src, flavor, kernel.tree)
        log = build_dir() / "logs" / f"{kernel.key}.log"
        title = f"building {what} ({arch.name}, {flavor})"
        say(title)
        command(make(src, obj) + [arch.target, "modules"], log, title,
                env=environment(arch), verdict="fail",
                progress=lambda n: f"{title}: {n} steps done")
        _keep(kernel, obj, log)
    return kernel


def compiled(arch, tree, flavor="release", what="kernel", without=""):
    """Compile and link a kernel that nobody boots, unless that was done: the warnings.

    without: a name of WITHOUT, turned off.  Raises Failure if it does not
    compile.  The warnings are those of the first time.
    """
    kernel = _named(arch, tree, flavor)
    name = f"without {without}" if without else flavor
    key = key_of("compiled 1", kernel.key, without and WITHOUT[without])
    done = build_dir() / "compiled" / key
    if kernel.image.exists() and not without:
        return kernel.warnings
    if done.exists():
        return done.read_text(errors="replace").splitlines()
    with locked("tree"):
        src = checkout(kernel.tree)
        obj = configure(arch, src, flavor, kernel.tree, without)
        title = f"compiling {what} ({arch.name}, {name})"
        say(title)
        log = build_dir() / "logs" / f"{key}.log"
        command(make(src, obj) + [arch.target, "modules"], log, title,
                env=environment(arch), verdict="fail",
                progress=lambda n: f"{title}: {n} steps done")
        found = _warnings(log)
        write_file(done, "".join(f"{s}\n" for s in found))
    return found


def make(src, obj):
    """Start of a make command line."""
    return ["make", "-C", src, f"O={obj}", f"-j{jobs()}", "LOCALVERSION="]


def _warnings(log):
    return [s for s in log.read_text(errors="replace").splitlines() if WARNING.search(s)]


def _keep(kernel, obj, log):
    """Copy the results of a build to where they are found again."""
    with new_dir(kernel.folder) as tmp:
        (tmp / "warnings").write_text("".join(f"{s}\n" for s in _warnings(log)))
        shutil.copy(obj / kernel.arch.image, tmp / "image")
        shutil.copy(obj / ".config", tmp / "config")
        shutil.copy(obj / "System.map", tmp / "System.map")
        (tmp / "modules").mkdir()
        for line in (obj / "modules.order").read_text().split():
            shutil.copy(obj / line, tmp / "modules")


def checkout(tree):
    """Switch the source folder to a tree, touching only what differs."""
    src = build_dir() / "tree"
    src.mkdir(parents=True, exist_ok=True)
    linux = build_dir() / "linux"
    gitdir = output(["git", "-C", linux, "rev-parse", "--absolute-git-dir"]).strip()
    env = dict(source.git_env(), GIT_DIR=gitdir, GIT_WORK_TREE=str(src),
               GIT_INDEX_FILE=str(build_dir() / "tree.index"))
    lock = build_dir() / "tree.index.lock"     # ours alone: "tree" is locked
    lock.unlink(missing_ok=True)
    output(["git", "read-tree", "--reset", "-u", tree], cwd=src, env=env)
    changed = output(["git", "diff-files", "--name-only"], cwd=src, env=env)
    if changed:
        output(["git", "checkout-index", "-f", "-a"], cwd=src, env=env)
    return src


def configure(arch, src, flavor, tree, without=""):
    """Write .config from tinyconfig and the fragments, and verify it.

    With a name of WITHOUT only that is verified: what else goes is not known.
    """
    off = {f"CONFIG_{s}": "n" for s in (WITHOUT[without] if without else ())}
    name = f"{arch.name}-{'without' if without else flavor}"
    obj = src / f"obj-{name}"
    obj.mkdir(exist_ok=True)
    env = environment(arch)
    paths = fragments(arch, flavor)
    want = wanted(paths) | added(tree) | off
    log = build_dir() / "logs" / f"config-{name}.log"
    say(f"configuring ({arch.name}, {f'without {without}' if without else flavor})")
    command(make(src, obj) + ["tinyconfig"], log, "tinyconfig", env=env)
    with open(obj / ".config", "a", encoding="ascii") as f:
        f.write("".join(f"{k}={v}\n" for k, v in want.items()))
    command(make(src, obj) + ["olddefconfig"], log, "olddefconfig", env=env)
    lost = missing(off or want, obj / ".config")
    if lost:
        where = ", ".join(p.name for p in paths)
        raise Failure(f"{arch.name} {without or flavor}: the kernel does not take {lost[0]}"
                      f"{f' and {len(lost) - 1} more' if lost[1:] else ''}: "
                      f"see what it depends on, or correct it ({where})")
    return obj
