"""The architectures: one record each, and no other file of the harness names one.

The kernel's fragment of an architecture is guest/config/<name>.config, that of
one of its own flavors guest/config/<name>.<flavor>.config.
"""

import os
import platform
from dataclasses import dataclass

from harness.common import Failure


@dataclass(frozen=True)
class Arch:
    """How to build for one architecture and how to boot it under QEMU.

    Without a `qemu` its kernel is compiled by `make check` and nothing more.
    """

    name: str               # what ARCH= of this repository calls it
    kernel: str             # the kernel's own ARCH=
    uname: tuple            # uname -m of hosts whose compiler builds for it
    debian: str             # Debian's name of it
    triplet: str            # of the compiler; Debian's cross package is gcc-<triplet>
    target: str             # make target of the bootable image
    image: str              # the image, relative to the object folder
    flavors: tuple = ()     # kernels that only this one has, tests run on them on demand
    compiled: tuple = ()    # ... that `make check` only compiles: their THP are too large
    configs: tuple = ()     # ... that `make configs` only compiles: they take long

    qemu: str = ""          # program
    qemu_package: str = ""
    qemu_patch: str = ""    # of guest/qemu/: what Debian's program lacks (harness.emulator)
    machine: tuple = ()     # QEMU options that select the machine
    cpu: str = ""
    icount_cpu: str = ""    # the CPU for deterministic instruction counts
    copied: int = 0         # bytes that its copy of a page moves per instruction; 0: unknown
    console: str = ""       # console= of the kernel command line, and what else the
                            # machine needs there: emulated timers are late on a busy host
    serial_bus: str = ""    # the device that virtio-serial ports sit on
    tcg: str = ""           # what -accel tcg needs there to emulate several CPUs
    numa: bool = True       # the machine takes -numa
    distances: bool = True  # ... and -numa dist
    slow: float = 1         # how much longer things take in its guests

    @property
    def tested(self):
        """Whether guests of this architecture are in `make test`."""
        return bool(self.qemu)

    def cross(self):
        """CROSS_COMPILE prefix, empty where the host's compiler will do."""
        return "" if platform.machine() in self.uname else f"{self.triplet}-"


ARCHES = {a.name: a for a in (
    Arch("x86_64", "x86_64", ("x86_64",), "amd64", "x86_64-linux-gnu",
         "bzImage", "arch/x86/boot/bzImage", flavors=("no-thp-migration",),
         configs=("drivers",),
         qemu="qemu-system-x86_64", qemu_package="qemu-system-x86",
         machine=("-machine", "q35"), cpu="max", icount_cpu="max,-erms,-fsrm", copied=8,
         console="ttyS0 no_timer_check", serial_bus="virtio-serial-pci"),
    Arch("arm64", "arm64", ("aarch64", "arm64"), "arm64", "aarch64-linux-gnu",
         "Image", "arch/arm64/boot/Image", compiled=("16k", "64k"),
         qemu="qemu-system-aarch64", qemu_package="qemu-system-arm",
         machine=("-machine", "virt,gic-version=3"), cpu="cortex-a72",
         icount_cpu="cortex-a72", console="ttyAMA0", serial_bus="virtio-serial-device"),
    Arch("ppc64le", "powerpc", ("ppc64le",), "ppc64el", "powerpc64le-linux-gnu",
         "vmlinux", "vmlinux", flavors=("64k",), configs=("drivers",),
         qemu="qemu-system-ppc64", qemu_package="qemu-system-ppc",
         machine=("-machine", "pseries"), cpu="POWER9", icount_cpu="POWER9",
         console="hvc0", serial_bus="virtio-serial-pci", distances=False, slow=2,
         # ppc_radix64_set_rc() writes back the page table entry that it has read before, with
         # its R and C bits, not atomically: what another CPU has removed meanwhile is there again.
         tcg="thread=single"),
    Arch("s390x", "s390", ("s390x",), "s390x", "s390x-linux-gnu",
         "bzImage", "arch/s390/boot/bzImage",
         qemu="qemu-system-s390x", qemu_package="qemu-system-misc", qemu_patch="s390x-edat.patch",
         machine=("-machine", "s390-ccw-virtio"), cpu="max", icount_cpu="max",
         console="ttysclp0", serial_bus="virtio-serial-ccw", numa=False, distances=False),
    # The one of 32 bits.
    Arch("i386", "i386", ("x86_64", "i386", "i686"), "i386", "i686-linux-gnu",
         "bzImage", "arch/x86/boot/bzImage"),
)}


def tested():
    """The architectures that `make test` without ARCH= runs on."""
    return [a for a in ARCHES.values() if a.tested]


def find(name):
    """The record of an architecture that guests can be run of.

    Raises Failure that lists them.
    """
    arch = ARCHES.get(name)
    if not arch or not arch.tested:
        raise Failure(f"ARCH={name}: no such architecture here; there is "
                      + ", ".join(a.name for a in tested()))
    return arch


def default():
    """The host's architecture if it is in the table, else the first of the table."""
    for arch in tested():
        if platform.machine() in arch.uname:
            return arch
    return tested()[0]


def wished():
    """The architecture of ARCH=, else the default one."""
    wish = os.environ.get("ARCH")
    return find(wish) if wish else default()


def asked():
    """The architecture of ARCH=, else all that guests are run of."""
    wish = os.environ.get("ARCH")
    return [find(wish)] if wish else tested()
