"""Get the base: Debian's source package through apt, or LINUX=dir.

A download is used only after apt has checked its signature and we its digest.
"""

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from harness.common import (ROOT, Failure, build_dir, cache_dir, command, locked,
                            output, say, sha256)

SERIES = ROOT / "series" / "linux-5.10.y"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
PERSON = ("THP migration series", "thp-migration@series.invalid")
DATE = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Release:
    """A version of Debian's source package `linux`."""

    package: str
    suite: str
    sha256: str
    last: str = ""          # topic up to which the series applies to it; all, if empty

    @property
    def version(self):
        """The kernel's version."""
        return self.package.split("-")[0]

    @property
    def tarball(self):
        """Name of the orig tarball."""
        return f"linux_{self.version}.orig.tar.xz"


@dataclass(frozen=True)
class Base:
    """The file `base`."""

    release: Release
    tree: str
    points: tuple


def base(path=SERIES / "base"):
    """Read the file `base`."""
    words, points = {}, []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        fields = line.split("#")[0].split()
        if not fields:
            continue
        if fields[0] == "point" and len(fields) in (4, 5):
            points.append(Release(*fields[1:]))
        elif len(fields) == 2:
            words[fields[0]] = fields[1]
        else:
            raise Failure(f"{path}:{number}: not understood: {line.strip()}")
    try:
        release = Release(words["package"], words["suite"], words["sha256"])
        return Base(release, words["tree"], tuple(points))
    except KeyError as e:
        raise Failure(f"{path}: has no line '{e.args[0]}'") from e


def fetch(release):
    """Path of the verified orig tarball, downloaded unless it is in the cache."""
    store = cache_dir() / "source"
    path = store / release.tarball
    if path.exists():
        if sha256(path) == release.sha256:
            return path
        say(f"{path} is damaged: getting it again")
        path.unlink()
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download.", dir=store) as tmp:
        _download(release, Path(tmp))
        got = Path(tmp) / release.tarball
        check(got, release)
        got.rename(path)
    return path


def check(path, release):
    """Failure unless a tarball has the digest that `base` records."""
    if not path.exists():
        raise Failure(f"apt did not bring {release.tarball}: give LINUX=dir, "
                      f"a git checkout with tag v{release.version}")
    found = sha256(path)
    if found != release.sha256:
        raise Failure(f"{path.name}: wrong digest {found}, {SERIES.name}/base says "
                      f"{release.sha256}: not used; look who changed it, or give LINUX=dir")


def _download(release, folder):
    """Have apt bring the source package, with lists and cache of our own."""
    other = f"or give LINUX=dir, a git checkout with tag v{release.version}"
    for program, package in (("apt-get", "apt"), (KEYRING, "debian-archive-keyring")):
        if not shutil.which(program) and not Path(program).exists():
            raise Failure(f"{program} is missing: install {package}, {other}")
    uris = mirrors(release.suite)
    if not uris:
        raise Failure(f"apt knows no Debian mirror that could have {release.suite}: "
                      f"add one to its sources, {other}")
    with locked("apt", cache_dir()):
        _download_from(uris, release, folder, other)


def _download_from(uris, release, folder, other):
    state = cache_dir() / "apt"
    for sub in ("lists/partial", "cache/archives/partial"):
        (state / sub).mkdir(parents=True, exist_ok=True)
    lines = [f"deb-src [signed-by={KEYRING}] {uri} {release.suite} main\n" for uri in uris]
    (state / "sources.list").write_text("".join(lines), encoding="utf-8")
    apt = ["apt-get", "-o", f"Dir::Etc::SourceList={state}/sources.list",
           "-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={state}/lists",
           "-o", f"Dir::Cache={state}/cache", "-o", "APT::Get::List-Cleanup=0",
           "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2"]
    title = f"getting linux {release.package} from Debian"
    say(title)
    log = build_dir() / "logs" / "apt.log"
    hint = f"{title}: no network or no such mirror? Check both"
    try:
        command(apt + ["update", "--error-on=any"], log, title, timeout=600)
        command(apt + ["source", "--download-only", f"linux={release.package}"], log, title,
                cwd=folder, timeout=1800, progress=lambda n: title)
    except Failure as e:
        if "disk full" in str(e):
            raise
        raise Failure(f"{hint}, {other} ({e})") from e


def mirrors(suite):
    """URIs of the mirrors that this machine's apt uses for such a suite."""
    said = output(["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"])
    found = []
    for line in sorted(set(said.splitlines())):
        name, _, uri = line.partition(" ")
        if name.endswith("-security") == suite.endswith("-security") \
                and "-" not in name.removesuffix("-security") and uri not in found:
            found.append(uri)
    return found


def git_env():
    """Environment in which git obeys nobody's personal configuration."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    env.update(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_SYSTEM="/dev/null", LC_ALL="C",
               GIT_AUTHOR_NAME=PERSON[0], GIT_AUTHOR_EMAIL=PERSON[1],
               GIT_COMMITTER_NAME=PERSON[0], GIT_COMMITTER_EMAIL=PERSON[1],
               GIT_AUTHOR_DATE=DATE, GIT_COMMITTER_DATE=DATE)
    return env


def ensure():
    """The work tree <build>/linux with the branch `base`, imported when needed."""
    linux = build_dir() / "linux"
    want = base()
    with locked("linux"):
        if not linux.exists():
            checkout = os.environ.get("LINUX")
            tmp = Path(tempfile.mkdtemp(prefix=".linux.", dir=build_dir()))
            try:
                tmp.chmod(0o755)
                if checkout:
                    _from_checkout(tmp, Path(checkout).resolve(), want)
                else:
                    _from_tarball(tmp, want)
                tmp.rename(linux)
            finally:
                shutil.rmtree(tmp, ignore_errors=True)
        _verify(linux, want)
    return linux


def _verify(linux, want):
    """Failure if the work tree is not of this base."""
    env = git_env()
    try:
        tree = output(["git", "-C", linux, "rev-parse", "--verify", "base^{tree}"],
                      env=env).strip()
    except Failure as e:
        raise Failure(f"{linux} has no branch 'base': move it away and run again") from e
    if tree == want.tree:
        return
    marked = subprocess.run(["git", "-C", linux, "config", "thp-migration.base"],
                            capture_output=True, text=True, env=env, check=False)
    if marked.stdout.strip() != f"{want.release.version} {tree}":
        raise Failure(f"{linux} is not {want.release.version}: move it away and run again")


def _init(folder):
    env = git_env()
    output(["git", "-C", folder, "init", "-q", "-b", "base"], env=env)
    for name, value in (("user.name", PERSON[0]), ("user.email", PERSON[1]),
                        ("gc.auto", "0")):
        output(["git", "-C", folder, "config", name, value], env=env)
    return env


def _from_tarball(folder, want):
    """Import Debian's orig tarball as one commit, the same everywhere."""
    tarball = fetch(want.release)
    title = f"importing Linux {want.release.version}"
    say(title)
    logs = build_dir() / "logs"
    command(["tar", "-xf", tarball, "-C", folder, "--strip-components=1", "--no-same-owner"],
            logs / "unpack.log", title)
    env = _init(folder)
    command(["git", "-C", folder, "add", "-f", "-A"], logs / "import.log", title, env=env,
            progress=lambda n: title)
    output(["git", "-C", folder, "commit", "-q", "-m", f"Linux {want.release.version}"],
           env=env)
    tree = output(["git", "-C", folder, "rev-parse", "HEAD^{tree}"], env=env).strip()
    if tree != want.tree:
        raise Failure(f"{tarball.name}: unpacks to tree {tree}, {SERIES.name}/base says "
                      f"{want.tree}: not used")


def _from_checkout(folder, checkout, want):
    """Import the tag of a git checkout as one commit."""
    tag = f"v{want.release.version}"
    say(f"importing {tag} from {checkout}")
    # The user named it, whoever owns it
    env = dict(_init(folder), GIT_CONFIG_GLOBAL=str(Path(__file__).with_name("gitconfig")))
    try:
        output(["git", "-C", checkout, "rev-parse", "--verify", f"{tag}^{{tree}}"], env=env)
    except Failure as e:
        raise Failure(f"LINUX={checkout}: not a git checkout that has the tag {tag}: "
                      f"fetch it, or leave LINUX= out") from e
    output(["git", "-C", folder, "fetch", "-q", "--depth=1", f"file://{checkout}",
            f"refs/tags/{tag}"], env=env)
    tree = output(["git", "-C", folder, "rev-parse", "FETCH_HEAD^{tree}"], env=env).strip()
    commit = output(["git", "-C", folder, "commit-tree", "-m",
                     f"Linux {want.release.version}", tree], env=env).strip()
    output(["git", "-C", folder, "reset", "-q", "--hard", commit], env=env)
    (folder / ".git" / "shallow").unlink(missing_ok=True)
    output(["git", "-C", folder, "config", "thp-migration.base",
            f"{want.release.version} {tree}"], env=env)
