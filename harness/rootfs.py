"""What the guest finds in its initramfs: init, busybox, modules, tests, a folder of the host.

Every part is a cpio archive of its own; the kernel unpacks one after the other.
"""

import shutil
import subprocess
from pathlib import Path

from harness import kernel as kernels, packages
from harness.common import (ROOT, Failure, build_dir, command, key_of, locked, need,
                            new_dir, output, say, sha256, write_file)
from harness.cpio import Archive


def _keep(name, archive):
    """Store an archive under build/initrd and return its path."""
    path = build_dir() / "initrd" / name
    write_file(path, archive.data())
    return path


def system(arch):
    """init and busybox, the host's own where its programs run in the guest."""
    if arch.cross():
        busybox = packages.program(arch, "busybox-static", "bin/busybox")
    else:
        busybox = need("busybox", "busybox-static")
    init = ROOT / "guest" / "init"
    path = build_dir() / "initrd" / f"system-{key_of(sha256(busybox), init.read_text())}"
    if path.exists():
        return path
    if "statically linked" not in output(["file", "-L", busybox]):
        raise Failure("busybox needs libraries: install Debian's busybox-static")
    out = Archive()
    for name in ("bin", "proc", "sys", "dev", "tmp", "root"):
        out.folder(name)
    out.device("dev/console", 5, 1)
    out.device("dev/null", 1, 3)
    out.file("init", init.read_bytes(), 0o755)
    out.file("bin/busybox", Path(busybox).read_bytes(), 0o755)
    out.link("bin/sh", "busybox")
    out.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    out.file("etc/group", "root:x:0:\nnogroup:x:65534:\n")
    return _keep(path.name, out)


def modules(kernel):
    """The modules of a kernel, in /modules, and in /early those that init needs, if any."""
    path = build_dir() / "initrd" / f"modules-{kernel.key}"
    if path.exists():
        return path
    out = Archive()
    out.folder("modules")
    for module in kernel.modules:
        out.file(f"modules/{module.name}", module.read_bytes())
    for module in sorted((kernel.folder / "early").glob("*.ko")):
        out.file(f"early/{module.name}", module.read_bytes())
    return _keep(path.name, out)


def basic(kernel):
    """The parts that every guest has."""
    return [system(kernel.arch), modules(kernel)]


def folder(source, name):
    """A folder of the host as /<name>, with the libraries that its programs need."""
    source = Path(source)
    if not source.is_dir():
        raise Failure(f"SHARE={source}: no such folder")
    out = Archive()
    out.tree(source, name)
    for library in sorted(libraries(source)):
        out.file(library, Path(library).read_bytes(), 0o755)
    return _keep(f"share-{key_of(out.data())}", out)


def libraries(source):
    """Paths of the shared libraries of the programs below a folder."""
    found = set()
    for path in source.rglob("*"):
        if not path.is_file() or path.read_bytes()[:4] != b"\x7fELF":
            continue
        said = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        for line in said.stdout.splitlines():
            found.update(w for w in line.split() if w.startswith("/") and Path(w).exists())
    return found


def selftests(arch, tree):
    """Folder with the tree's kselftest target mm, linked statically.

    It holds the programs and the files of the target, `settings`, `guests` and
    `list`, the names of the test programs in the order of the Makefile.
    """
    parts = [kernels.git("rev-parse", f"{tree}:{p}") for p in
             ("tools/testing/selftests", "tools/include", "include/uapi", "lib")]
    key = key_of("selftests 1", arch.name, kernels.compiler(arch), *parts)
    done = build_dir() / "selftests" / key
    if done.exists():
        return done
    with locked("tree"):
        src = kernels.checkout(tree)
        home = src / "tools" / "testing" / "selftests" / "mm"
        if not home.is_dir():
            raise Failure("the series has no kselftest target mm "
                          "(tools/testing/selftests/mm)")
        say(f"building the selftests ({arch.name})")
        env = kernels.environment(arch)
        logs = build_dir() / "logs"
        command(["make", "-C", src, "headers_install", f"O={src}/obj-headers-{arch.name}",
                 f"INSTALL_HDR_PATH={src}/usr"], logs / "headers.log", "headers_install",
                env=env)
        with new_dir(done) as tmp:
            work = tmp / "work"
            work.mkdir()
            make = ["make", "-C", home, f"OUTPUT={work}", f"CC={arch.cross()}gcc",
                    "LDFLAGS=-static", f"-j{kernels.jobs()}"]
            command(make + [f"INSTALL_PATH={tmp}", "install"], logs / "selftests.log",
                    "building the selftests", env=env)
            shutil.rmtree(work)
            listed = output(make + ["-s", "--no-print-directory", "COLLECTION=mm",
                                    "emit_tests"], env=env)
            names = [s.split(":", 1)[1] for s in listed.splitlines() if ":" in s]
            if not names:
                raise Failure("the kselftest target mm names no test")
            for name in names:
                if not (tmp / name).exists():
                    raise Failure(f"selftest {name} was listed but not built")
            (tmp / "list").write_text("\n".join(names) + "\n")
            for extra in ("settings", "guests"):
                if (home / extra).exists():
                    shutil.copy(home / extra, tmp / extra)
    return done
