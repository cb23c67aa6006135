"""What every step shares: folders, verdicts, running programs, progress.

Nothing here knows about kernels or guests.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Verdicts of a test, a guest or a run, and the exit code of each.  4 is what
# kselftest uses for skip.
EXIT_CODES = {"pass": 0, "fail": 1, "infra": 2, "skip": 4, "crash": 5,
              "timeout": 6, "lost": 7}
NOT_RUN = "not run"


class Failure(Exception):
    """Ends the step with one line for the user; `verdict` gives the exit code."""

    def __init__(self, message, verdict="infra"):
        super().__init__(message)
        self.verdict = verdict


def build_dir():
    """Folder of everything that can be made again; BUILD=dir moves it."""
    return Path(os.environ.get("BUILD") or ROOT / "build").resolve()


def cache_dir():
    """Folder of verified downloads, shared by all clones of the repository."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "thp-migration"


def results_dir():
    """Folder of results, one folder per run below it."""
    return Path(os.environ.get("RESULTS") or ROOT / "results").resolve()


def new_results(what):
    """Make and return results/<time>-<what>/, unique even within a second."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for suffix in [""] + [f".{i}" for i in range(1, 100)]:
        path = results_dir() / f"{stamp}-{what}{suffix}"
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise Failure(f"too many results of {stamp}-{what}")


def slow_factor():
    """How much slower than a plain two-core machine this one is (SLOW=n)."""
    return _number("SLOW", 1, 1000, "SLOW must be a number above 0, for example SLOW=3")


def seconds_of_task():
    """TIMEOUT=s of `make guest`."""
    return _number("TIMEOUT", 3600, 1e6,
                   "TIMEOUT must be a number of seconds, for example TIMEOUT=600")


def _number(name, default, limit, complaint):
    """A number above 0 and below a limit from the environment."""
    try:
        value = float(os.environ.get(name) or default)
    except ValueError:
        value = 0
    if not 0 < value < limit:
        raise Failure(complaint)
    return value


def wished_accel():
    """ACCEL=, 'kvm', 'tcg' or '' to try."""
    wish = os.environ.get("ACCEL") or ""
    if wish not in ("", "kvm", "tcg"):
        raise Failure(f"ACCEL={wish}: there is kvm and tcg")
    return wish


def check_options():
    """Failure for what would only be found hours later."""
    if sys.version_info < (3, 11):
        raise Failure("python3 is older than 3.11, which Debian 12 has: run it there")
    slow_factor()
    seconds_of_task()
    wished_accel()
    checkout = os.environ.get("LINUX")
    if checkout and not Path(checkout).is_dir():
        raise Failure(f"LINUX={checkout}: no such folder")
    for name, path in (("BUILD", build_dir()), ("RESULTS", results_dir())):
        if re.search(r"[\s:,]", str(path)):
            raise Failure(f"{path}: a kernel cannot be built, nor a guest run, below a name "
                          f"with a space, ':' or ',': give {name}=dir")


# Set when a run is broken off: guests that other threads watch are ended.
stopping = threading.Event()
_started = time.monotonic()


def clock(seconds):
    """'m:ss' of a number of seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def say(message):
    """Progress: one line with the time since the command was started."""
    print(f"[{clock(time.monotonic() - _started):>5}] {message}", flush=True)


def sha256(path):
    """Hex digest of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def key_of(*parts):
    """Short name for content: equal parts, equal name."""
    h = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        h.update(b"%d:" % len(data) + data)
    return h.hexdigest()[:20]


def write_file(path, data):
    """Write a file so that it is either the old one or all of the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fd, tmp = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        os.chmod(tmp, 0o644)
        os.replace(tmp, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(tmp)
        raise


@contextlib.contextmanager
def new_dir(path):
    """Give a temporary folder that becomes `path` only if all went well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield tmp
        tmp.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        tmp.rename(path)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


@contextlib.contextmanager
def locked(name, folder=None):
    """One process at a time below a folder, the build folder; the second one waits."""
    path = (folder or build_dir()) / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="ascii") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            if e.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            say(f"waiting for another run that uses {path.parent}")
            fcntl.flock(f, fcntl.LOCK_EX)
        yield


def need(program, package):
    """Path of a program, or a Failure that names the package it is in."""
    path = shutil.which(program)
    if not path:
        raise Failure(f"{program} is missing: install it (Debian package {package})")
    return path


def _end(child):
    """End a program and what it started; apt and dpkg clean up if they are let."""
    for number, wait in ((signal.SIGTERM, 10), (signal.SIGKILL, None)):
        if child.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(wait)


# What a line of a log looks like that names the cause of a failure: the
# compiler's, the linker's, apt's, and last make's own.
CAUSES = (re.compile(r"No space left on device"),
          re.compile(r"(\bfatal|\berror|\bERROR|^E): |undefined reference|\bKilled\b"),
          re.compile(r"\*\*\* "))


def tail(path):
    """The line of a log that tells most: the first that names a cause, else the last."""
    try:
        lines = [s.strip() for s in
                 Path(path).read_text(errors="replace").splitlines() if s.strip()]
    except OSError:
        return ""
    for cause in CAUSES:
        for line in lines:
            if cause.search(line):
                return line
    return lines[-1] if lines else ""


def command(argv, log, what, *, progress=None, cwd=None, env=None, timeout=None,
            verdict="infra"):
    """Run a program with its output in the file `log`; Failure, of `verdict`, if it fails.

    `what` names the work for the user.  `progress`, a function of the number
    of lines printed so far, gives a line to show every half minute.
    """
    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    start = shown = time.monotonic()
    with open(log, "wb") as out:
        try:
            child = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL,
                                     stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                                     env=env, start_new_session=True)
        except FileNotFoundError as e:
            raise Failure(f"{what}: {e.filename} is missing") from e
        try:
            while True:
                try:
                    code = child.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    pass
                now = time.monotonic()
                if timeout and now - start > timeout:
                    raise Failure(f"{what}: no end after {int(timeout)} s, see {log}",
                                  "timeout")
                if progress and now - shown >= 30:
                    shown = now
                    with open(log, "rb") as f:
                        say(progress(sum(1 for _ in f)))
        finally:
            _end(child)
    if code:
        why = tail(log)
        if "No space left on device" in why or _full(log.parent):
            raise Failure(f"{what}: disk full, free some space and run again (log: {log})")
        raise Failure(f"{what} failed: {why} (log: {log})", verdict)


def _full(folder):
    """Whether a disk is so full that a log may not say so."""
    return shutil.disk_usage(folder).free < 1 << 20


def output(argv, *, cwd=None, env=None, data=None):
    """Standard output of a program as text; Failure with its last words if it fails."""
    try:
        p = subprocess.run([str(a) for a in argv], cwd=cwd, env=env, check=False,
                           input=data if data is not None else "",
                           capture_output=True, text=True, errors="surrogateescape")
    except FileNotFoundError as e:
        raise Failure(f"{e.filename} is missing: install it") from e
    if p.returncode:
        words = [s for s in p.stderr.splitlines() if s.strip()]
        if "No space left on device" in p.stderr:
            raise Failure(f"{Path(str(argv[0])).name} {argv[1]}: disk full, free some space "
                          "and run again")
        raise Failure(f"{Path(str(argv[0])).name} {argv[1]}: "
                      f"{words[-1] if words else 'exit code ' + str(p.returncode)}")
    return p.stdout


def reason(error):
    """One line for an exception that ends a step, and its verdict."""
    if isinstance(error, Failure):
        return str(error), error.verdict
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or f"{build_dir()} or {results_dir()}"
        return f"disk full at {where}: free some space and run again", "infra"
    if isinstance(error, OSError):
        return f"{error.filename or 'system'}: {error.strerror or error}", "infra"
    raise error


def fail(error):
    """Print the line for an exception and return the exit code."""
    message, verdict = reason(error)
    print(f"harness: {message}", file=sys.stderr, flush=True)
    return EXIT_CODES[verdict]
