"""Run a function in a forked child process, watch it, and say how it ended."""

import contextlib
import faulthandler
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# A process with threads must not be forked; these are read when NumPy is imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

TRACEBACK = "Traceback (most recent call last)"
_ESCAPED = 70
"""Exit code of a child whose function raised an exception."""
_TICK_SECONDS = 0.01
_FRAME = re.compile(r'File "[^"]*?(featurepipe/[^"]+)", line (\d+),? in (\S+)')


@dataclass(frozen=True)
class Limits:
    """What a child may take before it is killed.

    Attributes
    ----------
    cpu_s, idle_s, wall_s : float
        Processor time, time without any work, and time by the clock. The last is far longer, since
        other processes may be busy on the same machine.
    memory_bytes : int
        Resident memory beyond that of the parent.
    file_bytes : int
        Size of any file that it writes.
    """

    cpu_s: float = 20
    idle_s: float = 15
    wall_s: float = 90
    memory_bytes: int = 2_000_000_000
    file_bytes: int = 400_000_000


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes
    ----------
    code : int
        Exit code; negative if a signal ended it.
    killed_for : str
        ``"hang"`` or ``"excess"`` if a limit was reached; else empty.
    out, err : str
    seconds : float
    """

    code: int
    killed_for: str
    out: str
    err: str
    seconds: float

    @property
    def problems(self) -> list[str]:
        """Names of what must not happen, as far as the process alone shows it."""
        if self.killed_for:
            return [self.killed_for]
        problems = []
        if TRACEBACK in self.err or self.code == _ESCAPED:
            problems.append("traceback")
        elif self.code not in (0, 1, 2):
            problems.append("crash")
        elif self.code == 1 and "featurepipe: " not in self.err:
            problems.append("no reason")
        if "\x1b" in self.out + self.err:
            problems.append("escape")
        return problems

    @property
    def where(self) -> str:
        """The innermost frame of featurepipe in the traceback, or in the stack at the end."""
        frames = _FRAME.findall(self.err)
        if not frames:
            return ""
        # faulthandler lists the innermost frame first, a traceback lists it last.
        path, line, name = frames[-1] if TRACEBACK in self.err else frames[0]
        return f"{path}:{line} {name}"

    @property
    def last_line(self) -> str:
        """The last line of the traceback or, without one, of what the command said."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        if TRACEBACK in self.err:
            errors = [
                line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Exit)", line)
            ]
            lines = errors or lines
        elif fatal := [line for line in lines if line.startswith("Fatal Python error")]:
            lines = fatal
        return lines[-1].strip()[:300] if lines else ""


def watch(function: Callable[[], int], folder: Path, limits: Limits) -> Ended:
    """Run a function in a child process.

    Parameters
    ----------
    function : callable
        Returns the exit code.
    folder : Path
        Where the output is kept while the child runs.
    limits : Limits
    """
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        _become(function, out, err, limits)
    code, killed_for = _wait(process, limits, started)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)  # processes that the child started
    texts = (_read(path) for path in (out, err))
    return Ended(code, killed_for, *texts, time.monotonic() - started)


def _become(function: Callable[[], int], out: Path, err: Path, limits: Limits) -> None:
    """Be the child; never returns."""
    code = _ESCAPED
    try:
        os.setsid()
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags, 0o600), number)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        faulthandler.enable(open(2, "w", closefd=False))  # noqa: SIM115
        faulthandler.register(signal.SIGUSR1, open(2, "w", closefd=False))  # noqa: SIM115
        code = function()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(process: int, limits: Limits, started: float) -> tuple[int, str]:
    killed_for, base_bytes = "", _resident_bytes(os.getpid())
    before_s, worked_at = 0.0, started
    while True:
        ended, status, used = os.wait4(process, os.WNOHANG)
        if ended:
            break
        cpu_s, memory_bytes = _cpu_seconds(process), _resident_bytes(process) - base_bytes
        now = time.monotonic()
        if cpu_s > before_s:
            before_s, worked_at = cpu_s, now
        is_idle = now - worked_at > limits.idle_s
        if cpu_s > limits.cpu_s or is_idle or now - started > limits.wall_s:
            killed_for = "hang"
        if memory_bytes > limits.memory_bytes:
            killed_for = "excess"
        if killed_for:
            os.kill(process, signal.SIGUSR1)  # writes the stack to stderr
            time.sleep(0.1)
            os.killpg(process, signal.SIGKILL)
            _, status, used = os.wait4(process, 0)
            break
        time.sleep(_TICK_SECONDS)
    code = os.waitstatus_to_exitcode(status)
    if not killed_for and used.ru_maxrss * 1024 - base_bytes > limits.memory_bytes:
        killed_for = "excess"
    return code, "excess" if code == -signal.SIGXFSZ else killed_for


def _resident_bytes(process: int) -> int:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(path: Path, n_characters: int = 200_000) -> str:
    try:
        return path.read_bytes()[-n_characters:].decode(errors="replace")
    except OSError:
        return ""
