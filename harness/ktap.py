"""Read (K)TAP: kselftest's flat TAP 13 and the nested form of 5.10's KUnit.

Debian's python3-tap knows neither nesting nor what 5.10 prints for a skip
(`ok 2 # SKIP reason`, without a name), hence this.
"""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import asdict, dataclass

from harness.common import NOT_RUN

# printk's prefix, and the "# " by which kselftest's runner nests.
STAMP = re.compile(r"^(?:<\d+>)?\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? ?")
PLAN = re.compile(r"^(\s*)1\.\.(\d+)(?:\s*#\s*SKIP\s*(.*))?\s*$", re.I)
RESULT = re.compile(r"^(\s*)(not ok|ok)\s+(\d+)\b\s*(?:-\s*)?(.*)$")
DIRECTIVE = re.compile(r"(?:^|\s)#\s*(SKIP|TODO|XFAIL)\b\s*(.*)$", re.I)
SUBTEST = re.compile(r"^(\s*)#\s*Subtest:\s*(\S+)\s*$")
RUNNING = re.compile(r"^#\s+RUN\s+(\S+)\s+\.\.\.")
HEADER = re.compile(r"^\s*K?TAP version \d+\s*$")
# A KUnit case that fails, a result of KUnit, and either at the end of a line
# that another case was cut off in.
FAILED = re.compile(r"^ *# (\w+): (?:EXPECTATION|ASSERTION) FAILED\b")
KRESULT = re.compile(r"^ *(?:not ok|ok) (\d+) - (\w*)$")
GLUED = re.compile(r"^(.*?\S.*?)( {4}# \w+: (?:EXPECTATION|ASSERTION) FAILED\b.*"
                   r"|(?: {4})?(?:not ok|ok) \d+ - \w+)$")


@dataclass
class Case:
    """One test case: `verdict` is one of common.EXIT_CODES or 'not run'."""

    name: str              # <program or suite>.<case>
    verdict: str = NOT_RUN
    why: str = ""
    seconds: float = 0


class _Level:
    """Results at one depth of nesting."""

    def __init__(self, indent, name):
        self.indent, self.name = indent, name
        self.plan = None
        self.count = 0


def parse(lines, program):
    """(cases, problems) of the output of one program or suite.

    problems: what is wrong with the output itself (no plan, a wrong count,
    numbers out of order), one line each.  Other lines may be mixed in.
    """
    cases, problems = [], []
    levels, running, said = [_Level(0, program)], "", []
    for line in _mended([STAMP.sub("", raw.rstrip("\n\r")) for raw in lines]):
        plan, result = PLAN.match(line), RESULT.match(line)
        subtest, run = SUBTEST.match(line), RUNNING.match(line)
        if run:
            running, said = run[1], []
        elif subtest:
            levels.append(_Level(len(subtest[1]), subtest[2]))
        elif plan:
            level = _at(levels, len(plan[1]))
            level.plan = int(plan[2])
            if plan[3] is not None and not level.plan:
                cases.append(Case(level.name, "skip", plan[3].strip() or "unknown"))
        elif result:
            indent = len(result[1])
            if indent < levels[-1].indent:
                # The line that closes a subtest: its own result is in its cases.
                _count(levels.pop(), problems)
                if indent == levels[-1].indent:
                    levels[-1].count += 1
                    _closing(result, cases)
                    continue
            level = levels[-1]
            level.count += 1
            if int(result[3]) != level.count:
                problems.append(f"{level.name}: result {result[3]} where "
                                f"{level.count} was due")
                level.count = int(result[3])
            cases.append(_case(result, level, running, said))
            running, said = "", []
        elif not HEADER.match(line) and line.strip():
            said.append(line.strip("# \t"))
    for level in reversed(levels):
        _count(level, problems)
    return cases, problems


def _mended(lines):
    """The lines, with the result of each KUnit case that said too much to keep it.

    5.10 keeps 511 bytes of what a case says, its result included.  The log of
    a case that failed at length so ends somewhere in a line, and that line
    goes on with the log of the next case.
    """
    found, failed, number = [], "", 0
    for line in lines:
        parts = [line]
        if failed and not KRESULT.match(line) and (glued := GLUED.match(line)):
            parts = list(glued.groups())
            whole = KRESULT.match(parts[0])
            if RESULT.match(parts[0]) and not (whole and whole[2] == failed):
                del parts[0]
        for part in parts:
            told, result = FAILED.match(part), KRESULT.match(part)
            if failed and (told and told[1] != failed or result and result[2] != failed):
                number += 1
                found.append(f"    not ok {number} - {failed}")
                failed = ""
            if told:
                failed = told[1]
            elif result:
                number, failed = int(result[1]), ""
            elif SUBTEST.match(part):
                number = 0
            found.append(part)
    return found


def _at(levels, indent):
    """The level that a plan belongs to: without a header the outermost one."""
    for level in reversed(levels):
        if level.indent <= indent:
            return level
    return levels[0]


def _count(level, problems):
    """Note a plan that was not kept."""
    if level.plan is None:
        if level.count and level.name:
            # 5.10's debugfs has no plan around its suites.
            if level.indent:
                problems.append(f"{level.name}: no plan")
    elif level.plan != level.count:
        problems.append(f"{level.name}: {level.count} results of {level.plan} planned")


def _case(result, level, running, said):
    """The Case of a result line."""
    text, verdict, why = result[4], "pass" if result[2] == "ok" else "fail", ""
    directive = DIRECTIVE.search(text)
    if directive:
        text = text[:directive.start()]
        if directive[1].upper() == "SKIP":
            verdict, why = "skip", directive[2].strip() or "unknown"
        elif verdict == "fail":
            verdict, why = "skip", f"expected to fail: {directive[2].strip()}"
    if verdict == "fail":
        why = next((s for s in said if "xpect" in s or ".c:" in s), said[0] if said else "")
    name = text.strip() or running or result[3]
    return Case(f"{level.name}.{name}", verdict, why)


def _closing(result, cases):
    """A subtest that failed as a whole while its cases passed is a failure too."""
    name = result[4].strip()
    mine = [c for c in cases if c.name.startswith(f"{name}.")]
    if result[2] == "not ok" and not any(c.verdict == "fail" for c in mine):
        cases.append(Case(name, "fail", "the suite failed as a whole"))


def program(name, done, verdict="pass", why=""):
    """The cases of a kselftest program.

    done: machine.Done.  verdict, why: of the guest, for what did not get to its end.
    """
    cases, problems = parse(done.lines, name)
    failed = any(c.verdict == "fail" for c in cases)
    if not done.started:
        return [Case(name, NOT_RUN, why)]
    if done.code is None:
        last = next((m[1] for s in reversed(done.lines) if (m := RUNNING.match(s))), "")
        where = f"{name}.{last}" if last and f"{name}.{last}" not in \
            {c.name for c in cases} else name
        return cases + [Case(where, verdict if verdict != "pass" else "lost", why)]
    if done.timed_out:
        return cases + [Case(name, "timeout", f"not finished after {done.seconds:.0f} s")]
    if done.code == 4 and not cases:
        return [Case(name, "skip", done.lines[-1].strip("# ") if done.lines else "unknown")]
    if done.code not in (0, 4) and not failed:
        problems.append(f"exit code {done.code}")
    if not cases and not problems:
        problems.append("no test result in its output")
    return cases + [Case(name, "fail", "; ".join(problems))] * bool(problems)


def suites(lines):
    """The cases of KUnit's debugfs results of all suites, concatenated."""
    cases, problems = parse(lines, "kunit")
    if not cases:
        problems.append("no KUnit suite has run")
    return cases + [Case("kunit", "fail", "; ".join(problems))] * bool(problems)


def write(folder, name, cases):
    """Write <name>.json and <name>.xml (JUnit) into a folder."""
    (folder / f"{name}.json").write_text(
        json.dumps([asdict(c) for c in cases], indent=1) + "\n", encoding="utf-8")
    suite = ET.Element("testsuite", name=name, tests=str(len(cases)),
                       failures=str(len(failed(cases))),
                       skipped=str(sum(c.verdict == "skip" for c in cases)))
    for c in cases:
        group, _, short = c.name.rpartition(".")
        node = ET.SubElement(suite, "testcase", classname=f"{name}.{group}",
                             name=short, time=f"{c.seconds:.2f}")
        if c.verdict == "skip":
            ET.SubElement(node, "skipped", message=_clean(c.why))
        elif c.verdict != "pass":
            ET.SubElement(node, "failure", type=c.verdict, message=_clean(c.why))
    ET.ElementTree(suite).write(folder / f"{name}.xml", encoding="utf-8",
                                xml_declaration=True)


def _clean(text):
    """Text without the control characters that XML cannot carry."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)


def failed(cases):
    """Those that did not end well, whatever it was."""
    return [c for c in cases if c.verdict not in ("pass", "skip")]


def total(cases):
    """(passed, failed, skipped)."""
    return (sum(c.verdict == "pass" for c in cases), len(failed(cases)),
            sum(c.verdict == "skip" for c in cases))


def summary(cases):
    """The last line of `make test`."""
    return "{} passed, {} failed, {} skipped".format(*total(cases))


def verdict(cases):
    """The worst verdict of all, the one that the exit code is made of."""
    found = {c.verdict for c in cases}
    for bad in ("infra", "lost", "crash", "timeout", "fail"):
        if bad in found:
            return bad
    if NOT_RUN in found:
        return "fail"
    return "pass" if "pass" in found or not found else "skip"
