"""The architectures: one record each, and no other file of the harness names one.

The kernel's fragment of an architecture is guest/config/<name>.config.
"""

import platform
from dataclasses import dataclass

from harness.common import Failure


@dataclass(frozen=True)
class Arch:
    """How to build for one architecture and how to boot it under QEMU."""

    name: str               # what ARCH= of this repository calls it
    kernel: str             # the kernel's own ARCH=
    uname: tuple            # uname -m of hosts that run it natively
    debian: str             # Debian's name of it
    triplet: str            # of the compiler; Debian's cross package is gcc-<triplet>
    target: str             # make target of the bootable image
    image: str              # the image, relative to the object folder
    qemu: str               # program
    qemu_package: str
    machine: tuple          # QEMU options that select the machine
    cpu: str
    icount_cpu: str         # the CPU for deterministic instruction counts
    console: str            # console= of the kernel command line, and what else the
                            # machine needs there: emulated timers are late on a busy host
    serial_bus: str         # the device that virtio-serial ports sit on
    numa: bool              # the machine takes -numa
    distances: bool         # ... and -numa dist
    tested: bool            # the guests of this architecture are in `make test`

    def cross(self):
        """CROSS_COMPILE prefix, empty where the host is this architecture."""
        return "" if platform.machine() in self.uname else f"{self.triplet}-"


ARCHES = {a.name: a for a in (
    Arch("x86_64", "x86_64", ("x86_64",), "amd64", "x86_64-linux-gnu",
         "bzImage", "arch/x86/boot/bzImage",
         "qemu-system-x86_64", "qemu-system-x86", ("-machine", "q35"),
         "max", "max,-erms,-fsrm", "ttyS0 no_timer_check",
         "virtio-serial-pci", True, True, True),
    Arch("arm64", "arm64", ("aarch64", "arm64"), "arm64", "aarch64-linux-gnu",
         "Image", "arch/arm64/boot/Image",
         "qemu-system-aarch64", "qemu-system-arm", ("-machine", "virt,gic-version=3"),
         "cortex-a72", "cortex-a72", "ttyAMA0", "virtio-serial-pci", True, True, False),
    Arch("ppc64le", "powerpc", ("ppc64le",), "ppc64el", "powerpc64le-linux-gnu",
         "vmlinux", "vmlinux",
         "qemu-system-ppc64", "qemu-system-ppc", ("-machine", "pseries"),
         "POWER9", "POWER9", "hvc0", "virtio-serial-pci", True, False, False),
    Arch("s390x", "s390", ("s390x",), "s390x", "s390x-linux-gnu",
         "bzImage", "arch/s390/boot/bzImage",
         "qemu-system-s390x", "qemu-system-misc", ("-machine", "s390-ccw-virtio"),
         "max", "max", "ttysclp0", "virtio-serial-ccw", False, False, False),
)}


def tested():
    """The architectures that `make test` without ARCH= runs on."""
    return [a for a in ARCHES.values() if a.tested]


def find(name):
    """The record of an architecture that can be run today."""
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
