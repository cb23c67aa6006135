"""make lava: what a LAVA lab needs to run the tests and the bench: kernel, initrd, jobs.

Data goes: kernel, programs -> one initrd with a shell -> jobs, from the templates
of .ci/lava -> results/<time>-lava/.  Nothing is sent anywhere.
"""

import gzip
import json
import os
import re
import shutil
from string import Template
from textwrap import indent

from harness import arches, kernel as kernels, machine, records, rootfs, series, splat, test
from harness.common import ROOT, Failure, new_results, say, slow_factor, wished_accel, write_file
from harness.cpio import Archive, joined

LAVA = ROOT / ".ci" / "lava"
# Minutes for everything but the tests: to fetch, to boot.
AROUND = 30
# What runs on a board, and in an emulated guest, which is there to see that it runs.
BENCH_BOARD = ("-n 7 -t 15", 240)
BENCH_QEMU = ("-n 1 -t 5 -m 32", 60)


def step_lava():
    """make lava [ARCH=] [FLAVOR=] [KERNEL=] [URL=]"""
    arch, which = arches.wished(), os.environ.get("KERNEL") or "patched"
    trees = series.trees()
    if which not in ("base", "patched"):
        raise Failure(f"KERNEL={which}: there is base, patched")
    kernel = kernels.build(arch, trees[which], os.environ.get("FLAVOR") or "release",
                           f"the {which} kernel")
    tests = rootfs.selftests(arch, trees["patched"])
    folder = new_results("lava")
    url = (os.environ.get("URL") or folder.as_uri()).rstrip("/")
    say("collecting what a lab needs")
    write_file(folder / "initrd.gz", gzip.compress(initrd(kernel, tests), 6, mtime=0))
    shutil.copy(kernel.image, folder / "image")
    shutil.copy(kernel.config, folder / "config")
    # The base has no tests: they are the series'.
    groups = test_groups(tests) if which == "patched" else []
    for name, text in jobs(kernel, groups, test.limit(tests), url):
        write_file(folder / name, text)
        print(f"  {name}")
    print(f"kernel, initrd and jobs: {folder}\nthe jobs look for them at {url}")
    return 0


# The initrd -----------------------------------------------------------------

def initrd(kernel, tests):
    """One archive with all that the jobs use; it ends in a shell on the console.

    LAVA unpacks it to put its own test shell in, and reads one archive only.
    """
    shell = machine.job_archive(machine.Job((), shell=True), 1)
    parts = [*rootfs.basic(kernel), rootfs.folder(tests, "tests"),
             rootfs.folder(records.programs(kernel.arch), "bench"),
             rootfs.folder(ROOT / "bench" / "native", "native")]
    return joined([*(p.read_bytes() for p in parts), lab(), shell])


def lab():
    """The scripts that turn KTAP and records into LAVA's signals, and what they look up."""
    out = Archive()
    out.tree(LAVA / "lab", "lab")
    out.file("lab/splat-patterns", extended(splat.PATTERNS) + "\n")
    out.file("lab/splat-exceptions",
             "".join(extended(e) + "\n" for e in splat.exceptions()))
    return out.data()


def extended(pattern):
    """A compiled regular expression as one of grep -E."""
    text = pattern.pattern
    if pattern.flags & re.VERBOSE:
        text = re.sub(r"(?<!\\)\s+", "", text)
    for python, grep in ((r"\ ", " "), (r"\d", "[0-9]"), (r"\s", "[[:space:]]")):
        text = text.replace(python, grep)
    return text


# Jobs -----------------------------------------------------------------------

def test_groups(tests):
    """[(Want, programs)]: what runs on the same machine with the same boot arguments."""
    path = tests / "guests"
    asked = test.wants(path.read_text() if path.exists() else "")
    found = {test.Want(): [test.KUNIT]}
    for name in (tests / "list").read_text().split():
        found.setdefault(asked.get(name, test.Want()), []).append(name)
    return list(found.items())


def jobs(kernel, groups, limit, url):
    """(file name, text) of each job.

    groups: of test_groups().  limit: seconds of a program.  url: where kernel and initrd are.
    """
    slow = max(1, round(kernel.slow * slow_factor()))
    seen, by_boot = {}, {}
    for want, names in groups:
        seen[want.topology] = number = seen.get(want.topology, 0) + 1
        name = _numbered(f"tests-{want.topology}", number)
        by_boot.setdefault(want.boot, []).extend(names)
        yield f"{name}.yaml", job("qemu", kernel, "tests", want, url, _minutes(names, limit * slow),
                                  name=name, PROGRAMS=" ".join(names), SLOW=slow)
    yield "bench.yaml", job("qemu", kernel, "bench", test.Want(), url, BENCH_QEMU[1] * slow,
                            name="bench", ARGUMENTS=BENCH_QEMU[0])
    # A board has the nodes that it has: only boot arguments tell its jobs apart.
    for number, (boot, names) in enumerate(by_boot.items(), 1):
        name = _numbered("board-tests", number)
        yield f"{name}.yaml", job("board", kernel, "tests", test.Want(boot=boot), url,
                                  _minutes(names, limit), name=name, PROGRAMS=" ".join(names))
    yield "board-bench.yaml", job("board", kernel, "bench", test.Want(), url, BENCH_BOARD[1],
                                  name="board-bench", ARGUMENTS=BENCH_BOARD[0])


def _numbered(name, number):
    return f"{name}-{number}" if number > 1 else name


def _minutes(names, limit):
    """Minutes that programs take at most, each `limit` seconds."""
    return 5 + len(names) * limit // 60


def job(template, kernel, short, want, url, minutes, *, name, **params):
    """The text of a job: a template and a test definition of .ci/lava, with `params` set."""
    arch, nodes = kernel.arch, machine.TOPOLOGIES[want.topology]
    boot = f"console={arch.console} loglevel=6 log_buf_len=4M panic=-1 {want.boot}".strip()
    definition = with_params((LAVA / f"{short}.yaml").read_text(encoding="utf-8"), params)
    text = (LAVA / f"{template}.yaml").read_text(encoding="utf-8")
    return Template(text).substitute(
        name=name, short=f"thp-{short}", arch=arch.name, lava_arch=arch.debian, url=url,
        extra=want.boot, no_kvm=json.dumps(wished_accel() != "kvm"),
        memory=sum(n.mib for n in nodes), options=json.dumps(options(arch, nodes)), boot=boot,
        test_minutes=minutes, job_minutes=minutes + AROUND,
        definition=indent(definition.rstrip("\n"), " " * 8))


def options(arch, nodes):
    """What QEMU is to be called with besides what the lab's device says, which comes first."""
    mach = machine.Machine(arch, nodes)
    found = [*arch.machine, "-cpu", arch.cpu, *machine.node_options(mach), "-no-reboot"]
    if arch.tcg:
        found += ["-accel", f"tcg,{arch.tcg}"]
    memory = found.index("-m")          # the device has it from the job's context
    return found[:memory] + found[memory + 2:]


def with_params(definition, params):
    """The text of a test definition with the values of some of its parameters."""
    for key, value in params.items():
        definition, n = re.subn(rf"^(  {key}:) .*$", rf"\1 {json.dumps(value)}", definition,
                                flags=re.M)
        if n != 1:
            raise Failure(f"the test definition has no parameter {key}")
    return definition
