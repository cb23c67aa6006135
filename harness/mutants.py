"""make mutants: put each bug back and see that the named test catches it.

A mutant is mutants/<name>.patch, a diff on top of the series with, before it,
`Test: <program>.<case>` or `Test: <suite>.<case>` of KUnit, optionally
`Kernel: <flavor>`, `Arch: <architecture>` and `Machine: <topology> [boot
arguments]`, and a description.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness import (arches, install, kernel as kernels, ktap, machine, rootfs, series,
                     test)
from harness.common import EXIT_CODES, ROOT, Failure, new_results, say

MUTANTS = ROOT / "mutants"
# A race is not met each time.
TRIES = 3


@dataclass(frozen=True)
class Mutant:
    """One file of mutants/."""

    name: str
    path: Path
    program: str           # 'kunit' for a case of a KUnit suite
    case: str              # full name, as in ktap.Case
    arch: arches.Arch
    flavor: str
    want: test.Want


def read(path, known, asked):
    """The Mutant of a file.  known: test.catalogue().  asked: test.wants()."""
    head = re.split(r"^(?:--- |diff )", path.read_text(errors="replace"), 1, re.M)[0]
    fields = dict(re.findall(r"^(Test|Kernel|Arch|Machine):\s*(.+?)\s*$", head, re.M))
    if "Test" not in fields:
        raise Failure(f"mutants/{path.name}: has no line 'Test: <program>.<case>'", "fail")
    program, _, name = fields["Test"].partition(".")
    if program not in known:
        program = test.KUNIT
    if not any(test.is_case(name, c) for c in known[program]):
        raise Failure(f"mutants/{path.name}: there is no test {fields['Test']}", "fail")
    arch = _arch(fields.get("Arch"), path)
    flavor = fields.get("Kernel", "release")
    if flavor not in kernels.flavors(arch):
        raise Failure(f"mutants/{path.name}: Kernel: is one of "
                      + ", ".join(kernels.flavors(arch)), "fail")
    want = asked.get(program, test.Want())
    if "Machine" in fields:
        want = test.wants(f"x: {fields['Machine']}")["x"]
    return Mutant(path.stem, path, program, fields["Test"], arch, flavor, want)


def _arch(name, path):
    """The architecture that a mutant names, else the one that is asked for."""
    try:
        return arches.find(name) if name else arches.wished()
    except Failure as e:
        raise Failure(f"mutants/{path.name}: {e}", "fail") from e


def run(kernel, mutant, tests, folder):
    """(verdict, why) of the mutant's test on a kernel."""
    command = test.READ_KUNIT if mutant.program == test.KUNIT else \
        f"./{mutant.program} {mutant.case.split('.', 1)[1]}"
    task = machine.Task(mutant.program, command, test.limit(tests))
    mach = machine.Machine(kernel.arch, machine.TOPOLOGIES[mutant.want.topology],
                           mutant.want.boot, timeout=task.timeout + 120, slow=kernel.slow,
                           warns=mutant.want.warns)
    lines = []

    def listen(_, line):
        """Stop as soon as the case has failed; what passes may still leave a splat."""
        lines.append(line)
        if not ktap.RESULT.match(line) or mutant.program == test.KUNIT:
            return False
        return any(c.verdict == "fail"
                   for c in _of(ktap.parse(lines, mutant.program)[0], mutant.case))

    initrds = rootfs.basic(kernel) + [rootfs.folder(tests, "tests")]
    out = machine.run(mach, kernel, initrds, machine.Job((task,), "/tests"), folder, listen)
    if out.verdict == "infra":
        raise Failure(out.why)
    cases = _of(ktap.parse(out.done[mutant.program].lines, mutant.program)[0], mutant.case)
    for case in cases:
        if case.verdict == "fail":
            return "fail", case.why
    if out.verdict != "pass":
        return out.verdict, out.why
    if out.done[mutant.program].timed_out:
        return "timeout", "the program did not end"
    return (cases[0].verdict, cases[0].why) if cases else ("not run", "the case did not run")


def _of(cases, name):
    """The cases of that name, in all variants."""
    first, _, rest = name.partition(".")
    return [c for c in cases if c.name == name or
            c.name.startswith(f"{first}.") and test.is_case(rest, c.name.split(".", 1)[1])]


def step_mutants():
    """make mutants [ONLY=mutant]"""
    only = os.environ.get("ONLY")
    paths = sorted(MUTANTS.glob("*.patch"))
    if only:
        if only not in {p.stem for p in paths}:
            raise Failure(f"ONLY={only}: no such mutant; there is "
                          + (", ".join(p.stem for p in paths) or "none"))
        paths = [p for p in paths if p.stem == only]
    if not paths:
        raise Failure("mutants/ is empty", "fail")
    tree = series.trees()["patched"]
    known, asked = test.catalogue(tree), test.machines(tree)
    mutants = [read(p, known, asked) for p in paths]
    for arch in {m.arch for m in mutants}:
        install.ensure(install.BUILD, arch=arch)
    tests = {m.arch: rootfs.selftests(m.arch, tree) for m in mutants}
    trees = {m.name: kernels.patched(tree, m.path) for m in mutants}
    folder, cases = new_results("mutants"), []
    sound = _sound(tree, tests, mutants, folder)
    for number, m in enumerate(mutants, 1):
        title = f"{number}/{len(mutants)} {m.name}"
        case = ktap.Case(f"mutants.{m.name}")
        cases.append(case)
        if m.case not in sound[m.arch, m.flavor]:
            case.verdict, case.why = "fail", f"{m.case} does not pass without the mutant"
        else:
            case.verdict, case.why = _tried(m, trees[m.name], tests[m.arch], folder, title)
        say(f"{title}: {'killed' if case.verdict == 'pass' else 'SURVIVED'}, {case.why}")
        ktap.write(folder, "mutants", cases)
    killed = sum(c.verdict == "pass" for c in cases)
    say(f"results: {folder}")
    print(f"{killed} of {len(cases)} mutants killed", flush=True)
    return EXIT_CODES["pass" if killed == len(cases) else "fail"]


def _tried(m, tree, tests, folder, title):
    """(verdict, why) of a mutant: 'pass' if its test caught it."""
    try:
        kernel = kernels.build(m.arch, tree, m.flavor, f"mutant {title}")
        for again in range(1, TRIES + 1):
            verdict, why = run(kernel, m, tests, folder / f"{m.name}-{again}")
            if verdict in ("fail", "crash", "timeout"):
                return "pass", f"{m.case}: {verdict}: {why}"
    except Failure as e:
        return "fail", str(e)
    return "fail", f"{m.case}: {verdict} {why}, {TRIES} times"


def _sound(tree, tests, mutants, folder):
    """{(architecture, flavor): the cases that pass on the kernel without a mutant}."""
    found = {}
    for arch, flavor in dict.fromkeys((m.arch, m.flavor) for m in mutants):
        kernel = kernels.build(arch, tree, flavor, "the patched kernel")
        name, good = f"{arch.name}-{flavor}", found.setdefault((arch, flavor), set())
        todo = {}
        for m in mutants:
            if (m.arch, m.flavor) == (arch, flavor):
                todo.setdefault((m.want, m.program), set()).add(m.case)
        for number, ((want, program), names) in enumerate(todo.items(), 1):
            say(f"{program} without mutants ({number}/{len(todo)}, {name})")
            cases = test.one_guest(kernel, want, [program], tests[arch],
                                   folder / f"sound-{name}-{number}",
                                   cases=[n.partition(".")[2] for n in sorted(names)])
            if any(c.verdict in ("crash", "timeout", "lost") for c in cases):
                continue
            for case in names:
                # A variant that does not apply says nothing
                of = [c for c in _of(cases, case) if c.verdict != "skip"]
                if of and all(c.verdict == "pass" for c in of):
                    good.add(case)
    return found
