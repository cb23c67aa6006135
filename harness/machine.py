"""Boot a kernel in a QEMU guest, give it a job, and say how that went.

The guest talks through three files: the console, a status port (what the job
says, see guest/init) and a files port (a tar of /results at the end).  The
console decides nothing except that splats are looked for in it.
"""

import os
import shlex
import subprocess
import tarfile
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness import emulator, splat
from harness.arches import Arch
from harness.common import Failure, say, slow_factor, stopping, wished_accel
from harness.cpio import Archive


@dataclass(frozen=True)
class Node:
    """A NUMA node: number of CPUs, MiB of memory; either may be 0."""

    cpus: int
    mib: int


TOPOLOGIES = {
    "default": (Node(2, 1024), Node(2, 1024)),
    # A third node whose CPU has no memory next to it.
    "memoryless": (Node(2, 1024), Node(1, 1024), Node(1, 0)),
    # All CPUs on node 0, node 1 memory only.
    "cpuless": (Node(4, 1024), Node(0, 1024)),
    # For instruction counts, which need one CPU.
    "one-cpu": (Node(1, 1024), Node(0, 1024)),
    "one-node": (Node(4, 2048),),
}

# Distances of a node to itself, and to any other, where a machine takes them.
LOCAL, REMOTE = 10, 20


@dataclass(frozen=True)
class Machine:
    """What the guest is run on."""

    arch: Arch
    nodes: tuple = TOPOLOGIES["default"]
    boot: str = ""            # added to the kernel command line
    icount: bool = False      # guest time counts instructions: deterministic, slow
    timeout: float = 600      # seconds for all of it, before the slow factor
    silence: float = 60       # seconds without a byte, before the slow factor
    accel: str = ""           # "kvm" or "tcg"; chosen by trial when empty
    options: tuple = ()       # further QEMU options, for a plugin
    slow: float = 1           # of this kernel, on top of the machine's slow factor
    warns: str = ""           # beginning of the name of a function that is to warn


@dataclass(frozen=True)
class Task:
    """One shell command in the guest."""

    name: str
    command: str
    timeout: float = 60       # seconds in the guest, before the slow factor


@dataclass(frozen=True)
class Job:
    """What the guest does: tasks in order, each in the folder `where`."""

    tasks: tuple
    where: str = "/"
    setup: str = ""           # shell commands before the first task
    heartbeat: bool = True    # a sign of life every ten seconds
    shell: bool = False       # an interactive shell on the console instead


@dataclass
class Done:
    """How one task went.  code is None where the guest did not get to its end."""

    name: str
    code: int = None
    seconds: float = 0
    timed_out: bool = False
    started: bool = False
    lines: list = field(default_factory=list)


@dataclass
class Outcome:
    """How a guest went.

    `verdict` is about the guest, not about its tasks: pass when it ran the
    whole job and powered off without a splat, else crash, timeout, lost or
    infra.  `why` says more in one line.
    """

    verdict: str
    why: str
    seconds: float
    folder: Path
    done: dict               # name of the task -> Done, in order
    splats: list             # of splat.Splat, without those that Machine.warns wants
    accel: str
    warned: bool = False     # whether the kernel warned as Machine.warns wants

    @property
    def console(self):
        """Path of the console log."""
        return self.folder / "console"

    def file(self, name):
        """Content of /results/<name> of the guest as text, or None."""
        try:
            with tarfile.open(self.folder / "files.tar") as tar:
                return tar.extractfile(f"results/{name}").read().decode(errors="replace")
        except (OSError, KeyError, tarfile.TarError, AttributeError):
            return None

    def extract(self):
        """Write the guest's /results below the folder; only plain files are taken."""
        try:
            with tarfile.open(self.folder / "files.tar") as tar:
                for member in tar:
                    path = (self.folder / member.name).resolve()
                    if member.isfile() and path.is_relative_to(self.folder / "results"):
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(tar.extractfile(member).read())
        except tarfile.TarError:
            pass        # a guest that went away early has sent half a file, or none


def node_options(machine):
    """QEMU options for the CPUs, the memory and the nodes."""
    nodes = machine.nodes
    cpus, mib = sum(n.cpus for n in nodes), sum(n.mib for n in nodes)
    # A socket that spans nodes makes the kernel warn about its topology.
    kinds = {n.cpus for n in nodes if n.cpus}
    cores = kinds.pop() if len(kinds) == 1 else 1
    opts = ["-smp", f"{cpus},sockets={cpus // cores},cores={cores},threads=1",
            "-m", f"{mib}M"]
    if not machine.arch.numa or len(nodes) == 1:
        return opts
    first = 0
    for i, node in enumerate(nodes):
        numa = f"node,nodeid={i}"
        if node.mib:
            opts += ["-object", f"memory-backend-ram,id=m{i},size={node.mib}M"]
            numa += f",memdev=m{i}"
        if node.cpus:
            numa += f",cpus={first}-{first + node.cpus - 1}"
            first += node.cpus
        opts += ["-numa", numa]
    if machine.arch.distances:
        for i in range(len(nodes)):
            for j in range(i + 1, len(nodes)):
                opts += ["-numa", f"dist,src={i},dst={j},val={REMOTE}"]
    return opts


def distances(nodes):
    """Matrix of the distances between nodes that a machine is given (Arch.distances)."""
    return tuple(tuple(LOCAL if i == j else REMOTE for j in range(len(nodes)))
                 for i in range(len(nodes)))


def command_line(machine, accel, kernel, initrd, folder, shell=False):
    """The whole QEMU command; `folder` gets console, status and files.tar."""
    arch = machine.arch
    cpu = arch.icount_cpu if machine.icount else arch.cpu
    line = f"console={arch.console} loglevel=6 panic=-1 {machine.boot}".strip()
    how = f"tcg,{arch.tcg}" if accel == "tcg" and arch.tcg else accel
    cmd = [arch.qemu, *arch.machine, "-accel", how, "-cpu",
           "host" if accel == "kvm" else cpu, *node_options(machine),
           "-kernel", str(kernel.image), "-initrd", str(initrd), "-append", line,
           "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    if machine.icount:
        cmd += ["-icount", "shift=0,sleep=off"]
    if shell:
        cmd += ["-serial", "mon:stdio"]
    else:
        cmd += ["-chardev", f"file,id=console,path={folder}/console",
                "-serial", "chardev:console"]
    cmd += ["-device", arch.serial_bus]
    for port in ("status", "files"):
        path = f"{folder}/status" if port == "status" else f"{folder}/files.tar"
        cmd += ["-chardev", f"file,id={port},path={path}",
                "-device", f"virtserialport,chardev={port},name=thp.{port}"]
    return cmd + list(machine.options)


def job_archive(job, factor):
    """The job as an initrd part: /job/env and /job/<number>/{name,timeout,command}."""
    out = Archive()
    out.folder("job")
    out.file("job/env", f"where={shlex.quote(job.where)}\n"
                        f"heartbeat={int(job.heartbeat)}\nshell={int(job.shell)}\n")
    out.file("job/setup", job.setup + "\n")
    for i, task in enumerate(job.tasks):
        folder = f"job/{i:04d}"
        out.folder(folder)
        out.file(f"{folder}/name", task.name + "\n")
        out.file(f"{folder}/timeout", f"{max(1, round(task.timeout * factor))}\n")
        out.file(f"{folder}/command", task.command + "\n")
    return out.data()


class Status:
    """Reader of the status port: control lines start with byte 1, the rest is output."""

    def __init__(self, job, listener=None):
        self.done = {t.name: Done(t.name) for t in job.tasks}
        self.finished = False
        self.booted = False
        self.listener = listener
        self.stop = False
        self._rest = self._held = b""
        self._empty = 0
        self._now = None

    def feed(self, data):
        """Take the bytes that came."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for raw in lines:
            # A sign of life comes in the middle of a line that is not ended yet
            raw = self._held + raw
            self._held = b""
            if raw.endswith(b"\x01alive") and raw != b"\x01alive":
                self._held = raw.removesuffix(b"\x01alive")
                continue
            line = raw.decode(errors="replace").rstrip("\r")
            if line.startswith("\x01"):
                # The newline in front of a control line is init's.
                self._empty = max(0, self._empty - 1) if line[1:4] == "end" else self._empty
                self._output()
                self._control(line[1:])
            elif not line:
                self._empty += 1
            else:
                self._output(line)

    def _output(self, *lines):
        """Empty lines that were held back, and what came after them."""
        if self._now is not None:
            for line in [""] * self._empty + list(lines):
                self._now.lines.append(line)
                if self.listener and self.listener(self._now.name, line):
                    self.stop = True
        self._empty = 0

    def _control(self, line):
        """boot | start NAME | end CODE SECONDS NAME | alive | done"""
        word, _, rest = line.partition(" ")
        if word == "boot":
            self.booted = True
        elif word == "start" and rest in self.done:
            self._now = self.done[rest]
            self._now.started = True
        elif word == "end":
            code, seconds, timed_out, name = rest.split(" ", 3)
            if name in self.done:
                done = self.done[name]
                done.code, done.seconds = int(code), float(seconds)
                done.timed_out = timed_out == "1"
            self._now = None
        elif word == "done":
            self.finished = True


_accel = {}
_trying = threading.Lock()


def accelerator(machine, kernel, initrds):
    """'kvm' where a guest under KVM was just seen to boot, else 'tcg'.

    /dev/kvm says little: nested, it may be there and hang the guest.
    """
    arch = machine.arch
    if machine.icount or machine.accel:
        return machine.accel or "tcg"
    wish = wished_accel()
    if wish:
        return wish
    if os.uname().machine not in arch.uname or not os.access("/dev/kvm", os.W_OK):
        return "tcg"
    # Guests of a kernel start together: the first one tries for all.
    with _trying:
        if arch.name not in _accel:
            with tempfile.TemporaryDirectory() as folder:
                trial = replace(machine, accel="kvm", timeout=10, slow=1, boot="", options=())
                out = run(trial, kernel, initrds, Job((Task("true", "true"),)), folder)
            _accel[arch.name] = "kvm" if out.verdict == "pass" else "tcg"
            if out.verdict != "pass":
                say(f"KVM does not run guests here ({out.verdict}): using TCG")
    return _accel[arch.name]


def run(machine, kernel, initrds, job, folder, listener=None):
    """Boot, run the job, power off: an Outcome.

    kernel: kernel.Kernel.  initrds: paths of cpio archives, joined in order.
    folder: gets qemu, console, status, files.tar.  listener(task, line) is
    called as the lines of a task come in; if it returns True the guest is
    stopped there, and its verdict is about what it did so far.
    """
    folder = Path(folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    accel = accelerator(machine, kernel, initrds)
    factor = slow_factor() * machine.slow
    initrd = _join(initrds, job_archive(job, factor), folder)
    try:
        cmd = command_line(machine, accel, kernel, initrd, folder, job.shell)
        cmd[:1] = emulator.start(machine.arch)
        (folder / "qemu").write_text(shlex.join(cmd) + "\n", encoding="utf-8")
        if job.shell:
            return _interactive(cmd, folder, accel)
        return _watch(cmd, machine, job, folder, factor, accel, listener)
    finally:
        initrd.unlink(missing_ok=True)


def _join(initrds, job, folder):
    """One initrd from the parts; each starts at a multiple of 512."""
    path = folder / "initrd"
    with open(path, "wb") as out:
        for part in [Path(p).read_bytes() for p in initrds] + [job]:
            out.write(part + b"\0" * (-len(part) % 512))
    return path


def _interactive(cmd, folder, accel):
    """A guest on the user's terminal."""
    start = time.monotonic()
    code = subprocess.run(cmd, check=False).returncode
    return Outcome("pass" if code == 0 else "infra", f"QEMU exit code {code}",
                   time.monotonic() - start, folder, {}, [], accel)


def _watch(cmd, machine, job, folder, factor, accel, listener):
    """Run QEMU until it ends or a time limit does."""
    for name in ("console", "status", "files.tar"):
        (folder / name).write_bytes(b"")
    status = Status(job, listener)
    start = heard = time.monotonic()
    size, limit = 0, ""
    with open(folder / "qemu.log", "wb") as log, open(folder / "status", "rb") as port, \
            subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             start_new_session=True) as qemu:
        try:
            while True:
                ended = qemu.poll() is not None
                status.feed(port.read())
                now = time.monotonic()
                seen = sum((folder / f).stat().st_size
                           for f in ("console", "status", "files.tar"))
                if seen != size:
                    size, heard = seen, now
                if ended or status.stop:
                    break
                if now - start > machine.timeout * factor:
                    limit = f"not finished after {now - start:.0f} s"
                elif now - heard > machine.silence * factor:
                    limit = f"silent for {now - heard:.0f} s"
                if limit:
                    break
                if stopping.is_set():
                    raise Failure("stopped")
                time.sleep(0.05)
        finally:
            if qemu.poll() is None:
                qemu.kill()
            qemu.wait()
        status.feed(port.read())
    seconds = time.monotonic() - start
    return outcome(status, qemu.returncode, limit, seconds, folder, accel, machine.warns)


def outcome(status, code, limit, seconds, folder, accel, warns):
    """The verdict on a guest that is gone."""
    out = Outcome("pass", "", seconds, folder, status.done, [], accel)
    console = (folder / "console").read_text(errors="replace")
    found = splat.scan([console, out.file("dmesg") or ""])
    out.splats = [s for s in found if not (warns and s.warns_in(warns))]
    out.warned = len(out.splats) < len(found)
    panic = splat.panic(console)
    if out.splats or panic:
        out.verdict, out.why = "crash", out.splats[0].line if out.splats else panic
    elif limit:
        at = [d.name for d in status.done.values() if d.started and d.code is None]
        out.verdict = "timeout"
        out.why = "the guest was " + limit + (f", in {at[0]}" if at else
                                              "" if status.booted else ", before init")
    elif status.finished or status.stop:
        return out
    elif code != 0 and not console.strip():
        said = (folder / "qemu.log").read_text(errors="replace").strip().splitlines()
        out.verdict = "infra"
        out.why = f"QEMU did not start: {said[-1] if said else f'exit code {code}'}"
    else:
        out.verdict, out.why = "lost", "the guest went away before its job was done"
    return out
