"""make guest CMD=... SHARE=dir and make shell: a guest for one's own programs."""

import os
import sys
from pathlib import Path

from harness import arches, kernel as kernels, machine, rootfs, series
from harness.common import EXIT_CODES, Failure, new_results, say, seconds_of_task


def prepare():
    """(kernel, initrds, folder in the guest) from ARCH, FLAVOR, KERNEL and SHARE."""
    arch = arches.wished()
    which = os.environ.get("KERNEL") or "patched"
    share = os.environ.get("SHARE")
    if share and not Path(share).is_dir():
        raise Failure(f"SHARE={share}: no such folder")
    if which not in ("base", "patched"):
        raise Failure(f"KERNEL={which}: there is base, patched")
    tree = series.trees()[which]
    kernel = kernels.build(arch, tree, os.environ.get("FLAVOR") or "release",
                           f"the {which} kernel")
    initrds = rootfs.basic(kernel)
    if share:
        initrds.append(rootfs.folder(share, "share"))
    return kernel, initrds, "/share" if share else "/"


def step_guest():
    """make guest: the exit code is that of CMD where it is below 125."""
    command = os.environ.get("CMD")
    if not command:
        raise Failure("say what to run: make guest CMD='...' [SHARE=dir]")
    kernel, initrds, where = prepare()
    folder = new_results("guest")
    seconds = seconds_of_task()
    say("booting the guest")
    out = machine.run(
        machine.Machine(kernel.arch, timeout=seconds + 60, slow=kernel.slow), kernel, initrds,
        machine.Job((machine.Task("cmd", command, seconds),), where), folder,
        lambda name, line: print(line, flush=True))
    done = out.done["cmd"]
    (folder / "output").write_text("\n".join(done.lines) + "\n")
    out.extract()
    say(f"what the command left in /results, and the console: {folder}")
    if out.verdict != "pass":
        print(f"harness: {out.verdict}: {out.why}", file=sys.stderr)
        return EXIT_CODES[out.verdict]
    if done.timed_out:
        print(f"harness: timeout: not finished after {done.seconds:.0f} s", file=sys.stderr)
        return EXIT_CODES["timeout"]
    return done.code


def step_shell():
    """make shell"""
    kernel, initrds, where = prepare()
    say("booting a shell; `poweroff -f` or Ctrl-A X ends it")
    out = machine.run(machine.Machine(kernel.arch), kernel, initrds,
                      machine.Job((), where, shell=True), new_results("shell"))
    return EXIT_CODES[out.verdict]
