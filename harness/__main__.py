"""python3 -m harness STEP; options are environment variables, as make passes them."""

import importlib
import signal
import sys

from harness import arches, install
from harness.common import Failure, check_options, fail

# step -> module and function; tables of tools that it needs, None: it sees to that itself
STEPS = {
    "apply": ("series", "step_apply", ()),
    "export": ("series", "step_export", ()),
    "check": ("check", "step_check", (install.BUILD, install.CHECK, install.RUN)),
    "configs": ("check", "step_configs", (install.BUILD,)),
    "run": ("measure", "step_run", (install.BUILD, install.RUN)),
    "bench": ("bench", "step_bench", (install.BUILD, install.RUN)),
    "compare": ("bench_compare", "step_compare", (install.RUN,)),
    "test": ("test", "step_test", (install.BUILD, install.RUN)),
    "metered": ("test", "step_metered", (install.BUILD, install.RUN)),
    "shell": ("guest", "step_shell", (install.BUILD,)),
    "guest": ("guest", "step_guest", (install.BUILD,)),
    "stress": ("stress", "step_stress", (install.BUILD,)),
    "native": ("native", "step_native", None),
    "lava": ("lava", "step_lava", (install.BUILD,)),
    "mutants": ("mutants", "step_mutants", (install.BUILD,)),
}
APPLY = {k: install.BUILD[k] for k in ("git", "xz")}


def main(args):
    """Run one step; the exit code tells the verdict (common.EXIT_CODES)."""
    # So that compilers and guests are ended with us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, frame: sys.exit(128 + n))
    try:
        if len(args) != 1 or args[0] not in STEPS:
            raise Failure(f"no such step: {' '.join(args)}: there is {', '.join(STEPS)}")
        check_options()
        name, function, tools = STEPS[args[0]]
        arch = arches.wished()
        if tools:
            install.ensure(*tools, arch=arch)
        elif tools is not None:
            install.ensure(APPLY)
        return getattr(importlib.import_module(f"harness.{name}"), function)()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (Failure, OSError) as e:
        return fail(e)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
