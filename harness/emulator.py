"""The emulator of an architecture: Debian's program, or one that is built here; its plugins.

Where Debian's lacks what the tests need, it is built from the source of Debian's
package with a patch of guest/qemu/ that says what, and with nothing else in it.
A plugin of bench/ needs a header that no binary package has.
"""

import shutil
import tempfile
from pathlib import Path

from harness import kernel as kernels, packages
from harness.common import (ROOT, Failure, build_dir, cache_dir, command, key_of, locked,
                            need, new_dir, output, say)

# Of the package that the program would be of: its firmware is used.
FIRMWARE = Path("/usr/share/qemu")
# What the build wants besides install.BUILD.
TOOLS = {"ninja": "ninja-build", "meson": "meson", "pkg-config": "pkg-config",
         "dpkg-source": "dpkg-dev", "/usr/include/pixman-1/pixman.h": "libpixman-1-dev",
         "/usr/include/glib-2.0/glib.h": "libglib2.0-dev", "/usr/include/zlib.h": "zlib1g-dev"}


def tools(arch):
    """What install.ensure() has to see to, for an architecture."""
    return {arch.qemu: arch.qemu_package, **(TOOLS if arch.qemu_patch else {})}


def start(arch):
    """First words of the command line of a guest."""
    need(arch.qemu, arch.qemu_package)
    if not arch.qemu_patch:
        return [arch.qemu]
    return [str(_built(arch)), "-L", str(FIRMWARE)]


def _built(arch):
    """Path of the program, built unless it is in the cache."""
    patch = ROOT / "guest" / "qemu" / arch.qemu_patch
    key = key_of("qemu 1", packages.SUITE, patch.read_text(encoding="utf-8"))
    found = cache_dir() / "qemu" / key / arch.qemu
    with locked("qemu"):
        if not found.exists():
            _build(arch, patch, found)
    return found


def _build(arch, patch, found):
    """Build the program and put it where it is found."""
    title = f"building {arch.qemu} with {patch.name}"
    log = build_dir() / "logs" / f"{arch.qemu}.log"
    build_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".qemu.", dir=build_dir()) as tmp:
        folder = Path(tmp)
        _bring_source(folder)
        say(title)
        src, obj = folder / "src", folder / "obj"
        obj.mkdir()
        command(["dpkg-source", "-x", next(folder.glob("qemu_*.dsc")), src], log, title)
        command(["patch", "-p1", "--fuzz=0", "-i", patch.resolve()], log, title, cwd=src)
        command([src / "configure", f"--target-list={arch.qemu.removeprefix('qemu-system-')}"
                 "-softmmu", "--without-default-features", "--enable-tcg", "--disable-docs",
                 "--disable-tools", "--disable-user"], log, title, cwd=obj)
        command(["ninja", "-C", obj, "-j", str(kernels.jobs()), arch.qemu], log,
                title, progress=lambda n: f"{title}: {n} steps done")
        found.parent.mkdir(parents=True, exist_ok=True)
        part = found.with_name(f".{found.name}.part")
        shutil.copy2(obj / arch.qemu, part)
        part.rename(found)


def _bring_source(folder):
    """Have apt bring Debian's source package of QEMU into a folder."""
    packages.bring(folder, None, ["source", "--download-only", "qemu"], "QEMU's source")


def _plugin_header():
    """Folder with qemu-plugin.h, taken from the source package unless it is in the cache."""
    found = cache_dir() / "qemu" / f"plugin-{packages.SUITE}"
    name = "qemu-plugin.h"
    with locked("qemu"):
        if (found / name).exists():
            return found
        build_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".qemu.", dir=build_dir()) as tmp:
            folder = Path(tmp)
            _bring_source(folder)
            tarball = next(folder.glob("qemu_*.orig.tar.xz"))
            output(["tar", "-xf", tarball, "-C", folder, "--wildcards", f"*/include/qemu/{name}"])
            header = next(folder.glob(f"*/include/qemu/{name}"), None)
            if not header:
                raise Failure(f"{tarball.name} has no {name}")
            with new_dir(found) as new:
                shutil.copy2(header, new / name)
    return found


def plugin(path):
    """The plugin for QEMU of a file of C, built by the host's compiler unless it is remembered."""
    path = Path(path)
    compiler = need("gcc", "gcc")
    header = _plugin_header()
    parts = [*sorted(path.parent.glob("*.[ch]")), *sorted((ROOT / "bench" / "lib").glob("*.h")),
             *header.iterdir()]
    key = key_of("plugin 1", path.name, output([compiler, "--version"]).splitlines()[0],
                 *(p.read_bytes() for p in parts))
    done = build_dir() / "plugins" / key
    found = done / f"{path.stem}.so"
    if not found.exists():
        with locked("plugins"), new_dir(done) as tmp:
            say(f"building the plugin {path.stem}")
            command([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                     "-fvisibility=hidden", "-I", header, "-o", tmp / found.name, path],
                    build_dir() / "logs" / f"plugin-{path.stem}.log",
                    f"building the plugin {path.stem}")
    return found
