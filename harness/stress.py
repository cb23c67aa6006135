"""make stress: the race tests of the series, each for a long time, in a debug guest."""

import math
import os
import re
import time

from harness import arches, install, kernel as kernels, ktap, rootfs, series, test
from harness.common import EXIT_CODES, Failure, new_results, say

DEFAULT_MINUTES = 30
LONGEST = 60        # seconds of one race, of the 180 that the tests give themselves
TEST = re.compile(r"^(?:FIXTURE_VARIANT_ADD|TEST(?:_F)?(?:_TIMEOUT)?)\(", re.M)


def minutes():
    """Minutes of MINUTES=, for each program."""
    text = os.environ.get("MINUTES") or str(DEFAULT_MINUTES)
    if not re.fullmatch(r"[1-9]\d{0,4}", text):
        raise Failure(f"MINUTES={text}: wants a number of minutes, 1 to 99999")
    return int(text)


def programs(tree):
    """{program: (cases, number of races)} of those that take THP_SECONDS.

    Where cases are named stress, for everything at once, they are run alone.
    """
    found = {}
    for name, text in test.sources(tree).items():
        if "race_seconds(" in text:
            alone = [c for c in test.cases_of(text) if c.startswith("stress.")]
            found[name] = (alone, len(alone) or len(TEST.findall(text)))
    return found


def plan(total, alone, races):
    """(rounds, seconds of one race) that come to `total` seconds of racing, or a little more.

    What is run alone takes all the time at once.
    """
    rounds = 1 if alone else max(1, math.ceil(total / (races * LONGEST)))
    return rounds, math.ceil(total / (races * rounds))


def step_stress():
    """make stress [MINUTES=n] [ARCH=] [FLAVOR=] [ONLY=program]"""
    only, total = os.environ.get("ONLY"), minutes() * 60
    arch, flavor = arches.wished(), os.environ.get("FLAVOR") or "debug"
    install.ensure(install.BUILD, arch=arch)
    tree = series.trees()["patched"]
    known = programs(tree)
    if only and only not in known:
        raise Failure(f"ONLY={only}: no such race test; there is {', '.join(known) or 'none'}")
    kernel = kernels.build(arch, tree, flavor, "the patched kernel")
    tests, folder, cases = rootfs.selftests(arch, tree), new_results("stress"), []
    asked = test.machines(tree)
    for name in [only] if only else known:
        (alone, races), begin = known[name], time.monotonic()
        rounds, seconds = plan(total, alone, races)
        for number in range(1, rounds + 1):
            title = f"{name}, round {number} of {rounds}"
            say(f"{title}: {races} races of {seconds} s")
            found = test.one_guest(kernel, asked.get(name, test.Want()), [name], tests,
                                   folder / f"{name}-{number}", f"{title}: ",
                                   alone, seconds, seconds * races)
            cases += found
            ktap.write(folder, "stress", cases)
            if any(c.verdict not in ("pass", "skip") for c in found):
                break
        say(f"{name}: {number} of {rounds} rounds, {int(time.monotonic() - begin) // 60} min")
    test.show(cases)
    say(f"results: {folder}")
    print(ktap.summary(cases), flush=True)
    return EXIT_CODES[ktap.verdict(cases)]
