"""The patches and the branches of the work tree: apply and export.

A topic is a folder of the series and a branch of the work tree, each topic on
top of the one before.  The repository configuration of the work tree notes,
for each branch, which patches it was last equal to.
"""

import contextlib
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness import source
from harness.common import Failure, build_dir, key_of, locked, output, say, write_file

NAMES = ("1-fixes", "2-numa-balancing", "3-device-private", "4-mthp")
FORMAT = ("format-patch", "--zero-commit", "--full-index", "--no-signature",
          "--no-numbered", "--diff-algorithm=myers", "--no-base", "-q")


@dataclass(frozen=True)
class Topic:
    """One folder of the series."""

    name: str
    folder: Path

    @property
    def branch(self):
        """The branch of the work tree."""
        return self.name.split("-", 1)[1]

    @property
    def patches(self):
        """Paths of the patches, in order."""
        return sorted(self.folder.glob("*.patch"))


def topics():
    """All topics that there can be."""
    return [Topic(n, source.SERIES / n) for n in NAMES]


def patches(last=""):
    """All patches of the series, in order, or those up to and including a topic.

    Raises Failure if there is no such topic.
    """
    if last and last not in NAMES:
        raise Failure(f"{source.SERIES / 'base'}: there is no topic {last}")
    end = NAMES.index(last) + 1 if last else len(NAMES)
    return [p for t in topics()[:end] for p in t.patches]


def git(*args, cwd=None, dated=False):
    """Output of git in the work tree; fixed dates only for what must not vary."""
    env = source.git_env()
    if not dated:
        del env["GIT_AUTHOR_DATE"], env["GIT_COMMITTER_DATE"]
    return output(["git", "-C", cwd or build_dir() / "linux", *args], env=env).strip()


def tip(branch):
    """Commit of a branch, or '' if there is none."""
    env = source.git_env()
    said = subprocess.run(["git", "-C", build_dir() / "linux", "rev-parse", "--verify", "-q",
                           f"refs/heads/{branch}"], capture_output=True, text=True,
                          env=env, check=False)
    return said.stdout.strip()


def _note(branch, digest=None):
    """Remember, or give, 'digest commit' of the patches that a branch is equal to."""
    name = f"thp-migration.{branch}"
    if digest:
        git("config", name, f"{digest} {tip(branch)}")
        return None
    said = subprocess.run(["git", "-C", build_dir() / "linux", "config", name],
                          capture_output=True, text=True, env=source.git_env(), check=False)
    return (said.stdout.split() + ["", ""])[:2]


def _digests():
    """{branch: digest of all patches up to and including its own}."""
    seen, found = [], {}
    for topic in topics():
        seen += [p.read_bytes() for p in topic.patches]
        found[topic.branch] = key_of(tip("base"), *seen)
    return found


def present():
    """Topics that have patches or a branch, in order."""
    return [t for t in topics() if t.patches or tip(t.branch)]


def unexported():
    """Names of the branches that hold commits which are not in the patches."""
    digests, found, below = _digests(), [], "base"
    for topic in topics():
        commit = tip(topic.branch)
        if not commit:
            continue
        digest, known = _note(topic.branch)
        if commit != known:
            if rendered(below, topic) == {p.name: p.read_bytes() for p in topic.patches}:
                _note(topic.branch, digests[topic.branch])
            else:
                found.append(topic.branch)
        below = topic.branch
    return found


def _topmost():
    """The topmost branch, each of them being on top of the one below."""
    below = "base"
    for topic in topics():
        if tip(topic.branch):
            _on_top(below, topic.branch)
            below = topic.branch
    return below


def apply(keep=False):
    """Make the branches equal to the patches; return the topmost branch.

    Branches with commits that are not exported are never overwritten: that is
    a Failure, or with `keep` they are used as they are.
    """
    source.ensure()
    with locked("linux"):
        own = unexported()
        if own and keep:
            say(f"using {', '.join(own)} as it is: commits that are not exported")
            return _topmost()
        if own:
            raise Failure(f"branch {own[0]} of {build_dir() / 'linux'} has commits that are "
                          "not exported: run `make export`, or rename the branch", "fail")
        digests, current = _digests(), [t for t in topics() if t.patches]
        if not current:
            return "base"
        if all(_note(t.branch) == [digests[t.branch], tip(t.branch)] for t in current):
            return current[-1].branch
        _apply(current, digests)
        return current[-1].branch


def _apply(current, digests):
    linux = build_dir() / "linux"
    if git("status", "--porcelain", "-uno"):
        raise Failure(f"{linux} has changes that are not committed: commit or stash them",
                      "fail")
    say(f"applying {len(patches())} patches to {source.base().release.version}")
    commits = {}
    with scratch("base", patches()) as tree:
        for topic in current:
            am(tree, topic.patches)
            commits[topic.branch] = git("rev-parse", "HEAD", cwd=tree)
    git("checkout", "-q", "--detach")
    for topic in topics():
        if topic.branch in commits:
            git("branch", "-f", topic.branch, commits[topic.branch])
            _note(topic.branch, digests[topic.branch])
        elif tip(topic.branch):
            git("branch", "-D", "-q", topic.branch)
    git("checkout", "-q", current[-1].branch)


@contextlib.contextmanager
def scratch(rev, files):
    """A worktree of `rev` that has only what some patches touch; removed at the end."""
    touched = set()
    for path in files:
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("diff --git a/"):
                touched.update("/" + w[2:] for w in line.split()[2:4])
    tmp = Path(tempfile.mkdtemp(prefix=".scratch.", dir=build_dir()))
    try:
        git("worktree", "add", "-q", "--no-checkout", "--detach", "-f", tmp / "tree", rev)
        tree = tmp / "tree"
        info = Path(git("rev-parse", "--absolute-git-dir", cwd=tree)) / "info"
        info.mkdir(exist_ok=True)
        (info / "sparse-checkout").write_text("\n".join(sorted(touched)) + "\n",
                                              encoding="utf-8")
        git("-c", "core.sparseCheckout=true", "read-tree", "-m", "-u", "HEAD", cwd=tree)
        yield tree
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
        git("worktree", "prune")


def am(tree, files):
    """git am of patches, one after the other: no fuzz, no 3-way."""
    for path in files:
        try:
            git("-c", "core.sparseCheckout=true", "-c", "core.hooksPath=/dev/null", "am", "-q",
                "--no-3way", "--keep-cr", "--committer-date-is-author-date", path, cwd=tree)
        except Failure as e:
            why = _am_error(tree, path) or str(e)
            raise Failure(f"{path.parent.name}/{path.name} does not apply: {why}",
                          "fail") from e


def _am_error(tree, path):
    """git's first complaint about a patch."""
    said = subprocess.run(["git", "-C", tree, "-c", "core.sparseCheckout=true", "apply",
                           "--check", path], capture_output=True, text=True,
                          env=source.git_env(), check=False)
    lines = said.stderr.strip().splitlines()
    return lines[0].removeprefix("error: ") if lines else ""


def _on_top(below, branch):
    """Failure unless a branch has all commits of the one below."""
    if subprocess.run(["git", "-C", build_dir() / "linux", "merge-base", "--is-ancestor",
                       below, branch], env=source.git_env(), check=False,
                      capture_output=True).returncode:
        raise Failure(f"branch {branch} is not on top of {below}: rebase it "
                      "(git rebase --update-refs)", "fail")


def rendered(below, topic):
    """{file name: content} of the patches of a branch."""
    _on_top(below, topic.branch)
    span = f"{below}..{topic.branch}"
    if git("rev-list", "--merges", span):
        raise Failure(f"branch {topic.branch} has a merge: make it linear (git rebase)", "fail")
    with tempfile.TemporaryDirectory() as tmp:
        git(*FORMAT, "-o", tmp, span)
        return {p.name: p.read_bytes() for p in Path(tmp).iterdir()}


def export():
    """Write the patches of all branches; return the number of files that changed."""
    source.ensure()
    with locked("linux"):
        below, changed, new, digests = "base", 0, {}, _digests()
        for topic in topics():
            if tip(topic.branch):
                if _note(topic.branch)[0] not in ("", digests[topic.branch]):
                    raise Failure(f"{topic.name}: the patches have changed since branch "
                                  f"{topic.branch} was equal to them, export would undo that: "
                                  "rename the branch if it has work of yours, and run "
                                  "`make apply`", "fail")
                new[topic] = rendered(below, topic)
                below = topic.branch
        for topic, files in new.items():
            for path in topic.patches:
                if path.name not in files:
                    path.unlink()
                    changed += 1
            for name, data in files.items():
                path = topic.folder / name
                if not path.exists() or path.read_bytes() != data:
                    write_file(path, data)
                    changed += 1
        digests = _digests()
        for topic in new:
            _note(topic.branch, digests[topic.branch])
    return changed


def trees():
    """{"base": tree id, "patched": tree id}, the series being applied when needed."""
    top = apply(keep=True)
    return {"base": git("rev-parse", "base^{tree}"),
            "patched": git("rev-parse", f"{top}^{{tree}}")}


def step_apply():
    """make apply"""
    top = apply()
    say(f"{len(patches())} patches are applied: {build_dir() / 'linux'}, branch {top}")
    return 0


def step_export():
    """make export"""
    changed = export()
    say(f"{len(patches())} patches, {changed} files changed")
    return 0
