"""make stress: the race tests of the series, each for a long time, in a debug guest."""

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
    for name, cases in test.catalogue(tree).items():
        if name == test.KUNIT or name.endswith(".sh"):
            continue
        text = kernels.git("show", f"{tree}:{test.MM}/{name}.c")
        if "race_seconds(" in text:
            alone = [c for c in cases if c.startswith("stress.")]
            found[name] = (alone, len(alone) or len(TEST.findall(text)))
    return found


def race_seconds(total, alone, races):
    """Seconds of one race: what is run alone takes all, others `total` or a part of it."""
    return total // races if alone else min(LONGEST, max(1, total // races))


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
        (alone, races), begin, number = known[name], time.monotonic(), 0
        seconds = race_seconds(total, alone, races)
        while time.monotonic() < begin + total:
            number += 1
            title = f"{name}, round {number}"
            say(f"{title}: {races} races of {seconds} s, of {total // 60} min in all")
            found = test.one_guest(kernel, asked.get(name, test.Want()), [name], tests,
                                   folder / f"{name}-{number}", f"{title}: ",
                                   alone, seconds, seconds * races)
            cases += found
            ktap.write(folder, "stress", cases)
            if any(c.verdict not in ("pass", "skip") for c in found):
                break
        say(f"{name}: {number} rounds, {int(time.monotonic() - begin) // 60} min")
    test.show(cases)
    say(f"results: {folder}")
    print(ktap.summary(cases), flush=True)
    return EXIT_CODES[ktap.verdict(cases)]
