"""What Debian has and nobody installs: programs for guests of other architectures, sources.

apt brings the package and checks its signature; lists and cache are our own.
"""

import shutil
import tempfile
from pathlib import Path

from harness import source
from harness.common import (Failure, build_dir, cache_dir, command, locked, output, say)

# Of Debian 12, like the compilers.
SUITE = "bookworm"


def program(arch, package, path):
    """Path of a file of a package of an architecture, fetched unless it is in the cache.

    path: of the file within the package.  Raises Failure without a network.
    """
    found = cache_dir() / "packages" / f"{SUITE}-{arch.debian}" / Path(path).name
    with locked("packages"):
        if not found.exists():
            found.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".download.", dir=found.parent) as tmp:
                bring(Path(tmp), arch, ["download", package], f"{package} ({arch.name})")
                deb = next(Path(tmp).glob(f"{package}_*.deb"))
                output(["dpkg-deb", "-x", deb, f"{tmp}/root"])
                if not (Path(tmp) / "root" / path).is_file():
                    raise Failure(f"{deb.name} has no {path}")
                (Path(tmp) / "root" / path).rename(found)
    return found


def options(arch, folder):
    """Options for apt-get that keep it to an architecture, if any, and to a folder of our own."""
    only = ["-o", f"APT::Architecture={arch.debian}",
            "-o", f"APT::Architectures={arch.debian}"] if arch else []
    return [*only, "-o", f"Dir::Etc::SourceList={folder}/sources.list",
            "-o", "Dir::Etc::SourceParts=/dev/null", "-o", f"Dir::State::Lists={folder}/lists",
            "-o", f"Dir::State::Status={folder}/status", "-o", f"Dir::Cache={folder}/cache",
            "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2",
            "-o", "Acquire::Languages=none"]


def sources(arch, uris):
    """Text of a sources.list with the mirrors: of an architecture, or of source packages."""
    kind = f"deb [arch={arch.debian} " if arch else "deb-src ["
    return "".join(f"{kind}signed-by={source.KEYRING}] {uri} {SUITE} main\n" for uri in uris)


def bring(folder, arch, what, name):
    """Have apt bring something into a folder.

    arch: whose packages, None for sources.  what: arguments of apt-get.  name: for the user.
    """
    if not shutil.which("apt-get"):
        raise Failure(f"{name} is taken from Debian: apt-get is missing")
    uris = source.mirrors(SUITE)
    if not uris:
        raise Failure(f"{name} is taken from Debian: apt knows no mirror: add one to its sources")
    for sub in ("lists/partial", "cache/archives/partial"):
        (folder / sub).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(sources(arch, uris), encoding="utf-8")
    apt = ["apt-get", *options(arch, folder)]
    title = f"getting {name} from Debian"
    say(title)
    log = build_dir() / "logs" / "packages.log"
    try:
        command(apt + ["update", "--error-on=any"], log, title, timeout=600)
        command(apt + what, log, title, cwd=folder, timeout=600)
    except Failure as e:
        if "disk full" in str(e):
            raise
        raise Failure(f"{title}: no network or no such mirror? Check both ({e})") from e
