"""PEER=: a kernel that somebody else has built, a distribution's or a later release's.

The guest talks through virtio-serial, which a distribution has as modules: they
are looked for where its package has put them, and loaded first (guest/init).
"""

import gzip
import lzma
import os
import re
import shutil
from pathlib import Path

from harness import kernel as kernels
from harness.common import Failure, build_dir, key_of, new_dir

# What the ports need, where it is a module.
NEEDED = ("virtio_pci", "virtio_mmio", "virtio_console")
# Of a bzImage: where the offset of its release is, and from where that counts.
RELEASE_AT, RELEASE_FROM = 0x20e, 0x200


def wished():
    """Path of PEER=, or None."""
    wish = os.environ.get("PEER")
    if wish and not Path(wish).is_file():
        raise Failure(f"PEER={wish}: no such file: give the image of a kernel, "
                      "such as a vmlinuz or a bzImage")
    return Path(wish).resolve() if wish else None


def release(image):
    """The release of an image by its name or, of a bzImage, its header; '' if neither tells."""
    named = re.fullmatch(r"(?:vmlinu[xz]|bzImage|Image)-(\d.*)", image.name)
    if named:
        return named[1]
    with open(image, "rb") as f:
        head = f.read(1 << 16)
    if head[0x202:0x206] != b"HdrS":
        return ""
    at = int.from_bytes(head[RELEASE_AT:RELEASE_AT + 2], "little") + RELEASE_FROM
    words = head[at:at + 80].split(b"\0")[0].decode(errors="replace").split()
    return words[0] if words else ""


def module_folder(image):
    """Folder of the modules of an image: beside it, as in its package, or the system's; or None."""
    name = release(image)
    for root in (image.parent.parent, Path("/")):
        # Newer packages have them below usr, which /lib leads to once they are installed.
        for folder in (root / "lib" / "modules" / name, root / "usr" / "lib" / "modules" / name):
            if name and folder.is_dir():
                return folder
    return None


def needed(folder):
    """[(name, content)] of the modules of NEEDED that there are and what they need, to be loaded
    in that order."""
    there = {_stem(p): p for p in sorted(folder.rglob("*.ko*"))}
    order = {}

    def add(name):
        if name in there and name not in order:
            data = content(there[name])
            for other in depends(data):
                add(other)
            order[name] = data
    for name in NEEDED:
        add(name)
    return list(order.items())


def depends(module):
    """Names of the modules that one says it needs."""
    said = re.search(rb"\0depends=([^\0]+)\0", module)
    return said[1].decode(errors="replace").replace("-", "_").split(",") if said else []


def _stem(path):
    return path.name.split(".")[0].replace("-", "_")


def content(module):
    """A module as insmod takes it."""
    if module.name.endswith(".ko"):
        return module.read_bytes()
    for end, unpack in ((".xz", lzma.decompress), (".gz", gzip.decompress)):
        if module.name.endswith(end):
            return unpack(module.read_bytes())
    raise Failure(f"PEER: {module}: cannot unpack it: do so by hand, and try again")


def kernel(arch, image):
    """The kernel of an image, without modules but those that guests talk through."""
    folder = module_folder(image)
    early = needed(folder) if folder else []
    key = "peer-" + key_of(image.read_bytes(), *(data for _, data in early))
    done = build_dir() / "kernels" / key
    if not done.exists():
        with new_dir(done) as tmp:
            shutil.copy(image, tmp / "image")
            (tmp / "modules").mkdir()
            (tmp / "early").mkdir()
            for number, (name, data) in enumerate(early):
                (tmp / "early" / f"{number:02d}-{name}.ko").write_bytes(data)
    return kernels.Kernel(arch, "release", "", key, done)
