"""Install what a step lacks on Debian, or say what is missing elsewhere."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

from harness import emulator
from harness.common import Failure, build_dir, command, say
from harness.source import KEYRING

# What shows that it is there: a program, the path of a file, or a Python module
# -> Debian package.
BUILD = {
    "git": "git", "make": "make", "gcc": "gcc", "flex": "flex", "bison": "bison",
    "bc": "bc", "perl": "perl", "rsync": "rsync", "xz": "xz-utils", "ccache": "ccache",
    "ps": "procps", "busybox": "busybox-static", "file": "file", "ldd": "libc-bin",
    "/usr/include/libelf.h": "libelf-dev", "/usr/include/openssl/ssl.h": "libssl-dev",
    "/usr/include/stdio.h": "libc6-dev",
}
CHECK = {"shellcheck": "shellcheck", "sparse": "sparse"}
RUN = {"import scipy": "python3-scipy", "import matplotlib": "python3-matplotlib"}


def lacking(tools):
    """Packages whose tool is not there."""
    importlib.invalidate_caches()
    return sorted({package for tool, package in tools.items() if not _there(tool)})


def _there(tool):
    word, _, module = tool.partition(" ")
    if module:
        return importlib.util.find_spec(module) is not None
    return Path(tool).exists() if tool.startswith("/") else shutil.which(tool)


def is_debian(path="/etc/os-release"):
    """Whether apt installs packages with Debian's names here."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    return "ID=debian" in lines and shutil.which("apt-get") is not None


def of(arch):
    """The table of an architecture: its emulator, and its compiler and libc if not the host's."""
    tools = {}
    if arch.cross():
        tools[f"{arch.cross()}gcc"] = f"gcc-{arch.triplet.replace('_', '-')}"
    if arch.tested:
        tools.update(emulator.tools(arch))
        if arch.cross():
            tools[f"/usr/{arch.triplet}/include/stdio.h"] = f"libc6-dev-{arch.debian}-cross"
    return tools


def ensure(*tables, arch=None):
    """Install what is lacking of the tables and, for an architecture, of its own."""
    tools = {k: v for table in tables for k, v in table.items()}
    if not os.environ.get("LINUX"):
        tools[KEYRING] = "debian-archive-keyring"
    if arch:
        tools.update(of(arch))
    packages = lacking(tools)
    if not packages:
        return
    names = " ".join(packages)
    if not is_debian():
        raise Failure(f"missing: {', '.join(sorted(k for k in tools if lacking({k: 0})))}: "
                      f"install them (Debian calls the packages {names})")
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if root and (not shutil.which("sudo") or
                 subprocess.run(["sudo", "-n", "true"], capture_output=True,
                                check=False).returncode):
        raise Failure(f"missing packages, and no root and no sudo to install them: "
                      f"have root run `apt-get install {names}`")
    say(f"installing packages: {names}")
    log = build_dir() / "logs" / "install.log"
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    apt = root + ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-y", "-o",
                  "DPkg::Lock::Timeout=300"]
    try:
        command(apt + ["update"], log, "apt-get update", env=env)
        command(apt + ["install", "--no-install-recommends", *packages], log,
                "installing packages", env=env)
    except Failure as e:
        if "disk full" in str(e):
            raise
        raise Failure(f"{e}: no network? Or install by hand: {names}") from e
    left = lacking(tools)
    if left:
        raise Failure(f"still missing after their installation: {' '.join(left)}")
