"""Write cpio archives for the kernel's initramfs (format newc), no root needed."""

import os
import stat
from pathlib import Path


class Archive:
    """Entries are owned by root and carry no time, so equal content is equal bytes."""

    def __init__(self):
        self._parts = []
        self._number = 0
        self._known = set()

    def _entry(self, name, mode, data=b"", device=(0, 0)):
        self._number += 1
        raw = os.fsencode(name) + b"\0"
        head = "070701" + "".join(f"{v:08X}" for v in (
            self._number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(raw), 0))
        part = head.encode() + raw
        part += b"\0" * (-len(part) % 4)
        self._parts += [part, data, b"\0" * (-len(data) % 4)]

    def folder(self, name):
        """A folder, and those above it."""
        name = name.strip("/")
        parent = os.path.dirname(name)
        if parent:
            self.folder(parent)
        if name and name not in self._known:
            self._known.add(name)
            self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name, data, mode=0o644):
        """A file; text is stored as UTF-8."""
        self.folder(os.path.dirname(name))
        self._entry(name.strip("/"), stat.S_IFREG | mode,
                    data.encode() if isinstance(data, str) else data)

    def link(self, name, target):
        """A symbolic link."""
        self.folder(os.path.dirname(name))
        self._entry(name.strip("/"), stat.S_IFLNK | 0o777, os.fsencode(target))

    def device(self, name, major, minor):
        """A character device."""
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def tree(self, source, name, above=()):
        """A folder of the host and what is in it; links are followed, but not upwards."""
        above = (*above, Path(source).resolve())
        self.folder(name)
        for path in sorted(Path(source).iterdir()):
            inside = f"{name}/{path.name}"
            if path.is_symlink() and (not path.exists() or path.resolve() in above):
                self.link(inside, os.readlink(path))
            elif path.is_dir():
                self.tree(path, inside, above)
            elif path.is_file():
                self.file(inside, path.read_bytes(), path.stat().st_mode & 0o777)

    def data(self):
        """The archive."""
        saved = list(self._parts), self._number
        self._entry("TRAILER!!!", 0)
        out = b"".join(self._parts)
        self._parts, self._number = saved
        return out


def joined(parts):
    """One archive from the bytes of several; later entries take the place of earlier ones."""
    # The last entry is a head of 110 bytes and its name.
    return b"".join(p[:p.rindex(b"TRAILER!!!") - 110] for p in parts) + Archive().data()
