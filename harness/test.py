"""make test: the harness' own tests, then KUnit and kselftests in guests.

A guest is booted for each set of machine and boot arguments that the tests of
the series ask for (tools/testing/selftests/mm/guests).  A program that takes
the guest down does not take the rest with it: they get a new guest.
"""

import os
import posixpath
import re
import unittest
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from harness import arches, kernel as kernels, install, ktap, machine, report, rootfs, series
from harness.common import (EXIT_CODES, NOT_RUN, ROOT, Failure, new_results, reason,
                            say, stopping, write_file)

MM = "tools/testing/selftests/mm"
KUNIT = "kunit"
READ_KUNIT = "cat /sys/kernel/debug/kunit/*/results"
CASE = re.compile(r"^TEST(?:_F)?(?:_TIMEOUT|_SIGNAL)?\(\s*(\w+)(?:\s*,\s*(\w+))?", re.M)
PROGRAMS = re.compile(r"^TEST_(?:GEN_|CUSTOM_)?PROGS\s*[:+]?=\s*(.*)$", re.M)
BY_HAND = re.compile(r"^TEST_GEN_PROGS_EXTENDED\s*[:+]?=\s*(.*)$", re.M)
WARNS = "warns="
VPATH = re.compile(r"^vpath\s+(\S+\.c)\s+(\S+)$", re.M)
KCASE = re.compile(r"KUNIT_CASE(?:_PARAM)?\(\s*(\w+)")


@dataclass(frozen=True)
class Want:
    """Where a test program wants to run.

    warns: the beginning of the name of a function that is to warn in the kernel's log.
    """

    topology: str = "default"
    boot: str = ""
    warns: str = ""


def wants(text):
    """{program: Want} of a file `guests`: lines of `program: topology [warns=function]
    [boot arguments]`."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, colon, rest = line.partition(":")
        topology, *boot = rest.split() or [""]
        if not colon or topology not in machine.TOPOLOGIES:
            raise Failure(f"{MM}/guests:{number}: wants `program: topology [{WARNS}function] [boot "
                          f"arguments]`, topology one of {', '.join(machine.TOPOLOGIES)}")
        warns = boot.pop(0).removeprefix(WARNS) if boot and boot[0].startswith(WARNS) else ""
        found[name.strip()] = Want(topology, " ".join(boot), warns)
    return found


def limit(folder):
    """Seconds that a program may take: `timeout=` of settings, else kselftest's 45."""
    path = folder / "settings"
    found = re.search(r"^timeout=(\d+)", path.read_text(), re.M) if path.exists() else None
    return int(found[1]) if found else 45


def sources(tree):
    """{program: text of its source}, in the order of the Makefile; '' of a script.

    A program may be that of another target: make's vpath says where its source is.
    One that the Makefile leaves to be run by hand is among them if `guests` names it.
    """
    try:
        makefile = kernels.git("show", f"{tree}:{MM}/Makefile").replace("\\\n", " ")
    except Failure as e:
        raise Failure(f"the series has no kselftest target mm ({MM})") from e
    elsewhere = dict(VPATH.findall(makefile))

    def text(name):
        path = posixpath.normpath(f"{MM}/{elsewhere.get(f'{name}.c', '.')}/{name}.c")
        return "" if name.endswith(".sh") else kernels.git("show", f"{tree}:{path}")

    asked = machines(tree)
    by_hand = " ".join(BY_HAND.findall(makefile)).split()
    names = " ".join(PROGRAMS.findall(makefile)).split()
    return {n: text(n) for n in names + [n for n in by_hand if n in asked]}


def cases_of(text):
    """Names of the cases in the source of a program."""
    return [f"{first}.{second}" if second else f"global.{first}"
            for first, second in CASE.findall(text)]


def catalogue(tree):
    """{program or suite: names of its cases}, read from the sources of a tree."""
    found = {KUNIT: []} | {n: cases_of(text) for n, text in sources(tree).items()}
    try:
        files = kernels.git("ls-tree", "--name-only", f"{tree}:mm/tests").splitlines()
    except Failure:
        files = []
    for path in files:
        if path.endswith("_kunit.c"):
            found[KUNIT] += KCASE.findall(kernels.git("show", f"{tree}:mm/tests/{path}"))
    return found


def machines(tree):
    """{program: Want} of a tree whose series has the file `guests`, else {}."""
    path = f"{MM}/guests"
    there = kernels.git("ls-tree", tree, path)
    return wants(kernels.git("show", f"{tree}:{path}")) if there else {}


def select(only, known):
    """Programs to run for ONLY=, and whether a case is selected by it."""
    if not only:
        return list(known), lambda name: True
    if only in known:
        return [only], lambda name: True
    programs = [p for p in known if only in p]
    if programs:
        return programs, lambda name: True
    if "." in only and only.split(".", 1)[0] in known:
        programs, case = [only.split(".", 1)[0]], only.split(".", 1)[1]
    else:
        programs, case = list(known), only
    programs = [p for p in programs if any(is_case(case, c) for c in known[p])]
    if not programs:
        raise Failure(f"ONLY={only}: no such test; there is {', '.join(known)}, "
                      "and their cases: " +
                      ", ".join(c for cases in known.values() for c in cases))
    return programs, lambda name: is_case(case, name.split(".", 1)[-1])


def is_case(case, name):
    """Whether `name` is that case, the variant in fixture.variant.case left open."""
    if name == case or name.split(".")[-1] == case:
        return True
    parts, wanted = name.split("."), case.split(".")
    return len(parts) == 3 and len(wanted) == 2 and [parts[0], parts[2]] == wanted


class _Cases(unittest.TextTestResult):
    """Collects ktap.Case of unittest."""

    def __init__(self, *args):
        super().__init__(*args)
        self.cases = []

    def _add(self, test, verdict, why=""):
        self.cases.append(ktap.Case(f"harness.{test.id().removeprefix('harness.tests.')}",
                                    verdict, why))

    def addSuccess(self, test):
        super().addSuccess(test)
        self._add(test, "pass")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._add(test, "fail", str(err[1]).splitlines()[0] if str(err[1]) else "")

    def addError(self, test, err):
        super().addError(test, err)
        self._add(test, "fail", f"{err[0].__name__}: {err[1]}")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._add(test, "skip", reason)

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self._add(subtest, "fail", str(err[1]))


def own(pattern, folder):
    """Run the harness' tests whose file matches; their cases."""
    tests = unittest.defaultTestLoader.discover(ROOT / "harness" / "tests", pattern,
                                                ROOT)
    log = folder / f"harness-{pattern.split('_')[0]}.log"
    with open(log, "w", encoding="utf-8") as out:
        result = unittest.TextTestRunner(out, verbosity=2, resultclass=_Cases).run(tests)
    ktap.write(folder, log.stem, result.cases)
    show(result.cases)
    return result.cases


def show(cases):
    """Print what did not pass."""
    for c in cases:
        if c.verdict not in ("pass",):
            print(f"        {c.verdict}: {c.name}{': ' + c.why if c.why else ''}", flush=True)


def plan(chosen):
    """[(architecture, flavor)] of FLAVOR=: release if it is not given, or 'all'.

    A flavor that only some architectures have is tested on these.
    """
    wish = os.environ.get("FLAVOR") or "release"
    found = [(a, f) for a in chosen for f in kernels.FLAVORS + a.flavors
             if wish in ("all", f)]
    if not found:
        there = dict.fromkeys(f for a in chosen for f in kernels.FLAVORS + a.flavors)
        raise Failure(f"FLAVOR={wish}: there is {', '.join(there)}, all")
    return found


def guests(kernel, tests, programs, folder, where=""):
    """[function that boots a guest, runs programs of the folder `tests` in it and returns
    their cases]: one for each kind of guest that they want, that of the most first.

    kernel: kernel.Kernel.  programs: names, 'kunit' among them for the suites.
    """
    asked = wants((tests / "guests").read_text() if (tests / "guests").exists() else "")
    groups = {}
    for name in programs:
        groups.setdefault(asked.get(name, Want()), []).append(name)

    def job(number, want, names):
        say(f"{where}guest {number} of {len(groups)}, {want.topology} {want.boot}".rstrip()
            + f": {', '.join(names)}")
        return one_guest(kernel, want, names, tests, folder / f"guest-{number}", where)

    most = sorted(groups.items(), key=lambda g: -len(g[1]))
    return [partial(job, n, want, names) for n, (want, names) in enumerate(most, 1)]


def one_guest(kernel, want, names, tests, folder, where="", cases=(), race=0, more=0):
    """The cases of programs that run on one kind of guest.

    cases: the names of those that kselftest programs are to run, if not all.
    race: seconds that each race takes, if not as usual.  more: seconds that a
    program may take beyond what the tests ask for.
    What a program that takes the guest down leaves undone gets another guest.
    """
    seconds = limit(tests) + more
    longer = f"THP_SECONDS={race} " if race else ""
    initrds = rootfs.basic(kernel) + [rootfs.folder(tests, "tests")]

    def listen(name, line):
        if where and name != KUNIT and ktap.RESULT.match(line):
            say(f"{where}{name}: {line.strip()}")

    tasks = {n: machine.Task(n, READ_KUNIT if n == KUNIT else
                             longer + " ".join([f"./{n}", *cases]), seconds) for n in names}
    done, left, again = [], list(names), 0
    while left:
        mach = machine.Machine(kernel.arch, machine.TOPOLOGIES[want.topology], want.boot,
                               timeout=120 + seconds * len(left), slow=kernel.slow,
                               warns=want.warns)
        job = machine.Job(tuple(tasks[n] for n in left), "/tests")
        out = machine.run(mach, kernel, initrds, job,
                          folder.with_name(f"{folder.name}{f'-{again}' if again else ''}"),
                          listen)
        if out.verdict == "infra":
            raise Failure(out.why)
        found, left = judge(out, left, want.warns)
        done += found
        again += 1
    return done


def judge(out, names, warns=""):
    """(cases, programs still to run) of an Outcome.  warns: as in Want."""
    cases, again = [], []
    begun = any(d.started for d in out.done.values())
    for name in names:
        done = out.done[name]
        if not done.started and begun:
            again.append(name)
            continue
        found = (ktap.suites(done.lines) if name == KUNIT and done.code is not None
                 else ktap.program(name, done, out.verdict, out.why))
        splats = [s for s in out.splats if s.task == name]
        if splats and done.code is not None:
            found.append(ktap.Case(f"{name}.splat", "crash", splats[0].line))
        if warns and any(c.verdict == "pass" for c in found):
            found.append(ktap.Case(f"{name}.warning", "pass" if out.warned else "fail",
                                   "" if out.warned else f"the kernel has no warning of {warns}"))
        for c in found[:1]:
            c.seconds = done.seconds
        (out.folder / f"{name}.tap").write_text("\n".join(done.lines) + "\n")
        cases += found
    told = any(c.verdict in ("crash", "timeout", "lost") for c in cases)
    if any(s.task == "" for s in out.splats) or (out.verdict != "pass" and not told):
        cases.append(ktap.Case("guest", out.verdict, out.why))
    for end in ("before", "after"):
        text = out.file(f"vmstat.{end}")
        if text:
            (out.folder / f"vmstat.{end}").write_text(text)
    return cases, again


def step_test():
    """make test [ARCH=] [FLAVOR=] [ONLY=]"""
    only, todo = os.environ.get("ONLY"), plan(arches.asked())
    for arch in dict.fromkeys(a for a, _ in todo):
        install.ensure(install.BUILD, arch=arch)
    tree = series.trees()["patched"]
    known = catalogue(tree)
    names = select(only, known)[0]
    folder, cases, kinds = new_results("test"), [], {}
    ktap.write(folder, "all", [ktap.Case(f"{a.name}-{f}.{n}") for a, f in todo
                               for n in names])
    try:
        _all(todo, only, tree, known, folder, cases, kinds)
    except (Failure, OSError) as e:
        why, verdict = reason(e)
        cases.append(ktap.Case("harness", verdict, why))
        show(cases[-1:])
    ktap.write(folder, "all", cases)
    table = "\n".join(report.platforms(kinds, set(known) - {KUNIT}))
    write_file(folder / "table.md", table + "\n")
    if len(kinds) > 1:
        print(table, flush=True)
        show(ktap.failed(cases))
    return _end(folder, cases)


def _end(folder, cases):
    """Say where the results are and, last, how many passed: the exit code."""
    say(f"results: {folder}")
    write_file(folder / "summary", ktap.summary(cases) + "\n")
    print(ktap.summary(cases), flush=True)
    return EXIT_CODES[ktap.verdict(cases)]


def step_metered():
    """make metered: the bench's own tests, with QEMU's plugins and a kernel of the host's kind."""
    kernels.build(arches.default(), series.trees()["patched"], what="the patched kernel")
    folder = new_results("metered")
    say("the bench's own tests in guests: plugins, bounds, bench/native; some minutes")
    return _end(folder, own("metered_*.py", folder))


def _all(todo, only, tree, known, folder, cases, kinds):
    """Everything that step_test was asked for; adds to `cases` and `kinds` as it goes.

    First all kernels are built, then as many guests run at a time as there are
    CPUs: an emulated guest keeps little more than one of them busy.  Those that take
    longest begin, or the last one would run alone for long.
    """
    if not only:
        say("the harness' own tests")
        cases += own("test_*.py", folder)
    built = {(arch, flavor): _built(arch, flavor, tree) for arch, flavor in todo}
    programs, wanted = select(only, known)

    def jobs(kernel):
        if isinstance(kernel, ktap.Case):
            return [lambda: [kernel]]
        name = f"{kernel.arch.name}-{kernel.flavor}"
        (folder / name).mkdir()
        write_file(folder / name / "config", kernel.config.read_bytes())
        return guests(kernel, rootfs.selftests(kernel.arch, tree), programs, folder / name,
                      f"{name}: ")

    def chosen(kernel, found):
        if isinstance(kernel, ktap.Case):
            return found
        found = [c for c in found
                 if wanted(c.name) or c.verdict not in ("pass", "skip", "fail", NOT_RUN)]
        return found or [ktap.Case(only, "fail", "was not run by its program")]

    with ThreadPoolExecutor(kernels.jobs()) as pool:
        try:
            begun = {kind: [] for kind in built}
            for kind, job in longest_first({k: (v, jobs(v)) for k, v in built.items()}):
                begun[kind].append(pool.submit(job))
            for arch, flavor in built:
                name = f"{arch.name}-{flavor}"
                found = chosen(built[arch, flavor],
                               [c for b in begun[arch, flavor] for c in b.result()])
                ktap.write(folder, name, found)
                print(f"{name}: {ktap.summary(found)}", flush=True)
                show(found)
                kinds[name] = found
                cases += [replace(c, name=f"{name}.{c.name}") for c in found]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stopping.set()
            raise
    if not only:
        say("the harness' own tests with guests")
        cases += own("guest_*.py", folder)


def longest_first(plan):
    """[(what, job)] of {what: (kernel, its jobs)}: the first job of each kernel, that of
    the slower one earlier, then the second of each."""
    found = [(n, -getattr(kernel, "slow", 0), what, job)
             for what, (kernel, jobs) in plan.items() for n, job in enumerate(jobs)]
    return [(what, job) for _, _, what, job in sorted(found, key=lambda f: f[:2])]


def _built(arch, flavor, tree):
    """The kernel; the case that says why, where it does not build."""
    try:
        rootfs.selftests(arch, tree)
        return kernels.build(arch, tree, flavor, "the patched kernel")
    except Failure as e:
        if e.verdict != "fail":
            raise
        return ktap.Case("kernel", e.verdict, str(e))
