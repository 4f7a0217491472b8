"""The one place where tests wait: for the event itself, polled.

A bound is so generous that only a hang reaches it, also on a busy machine.
Left out: fixed sleeps, and bounds near to what an idle machine takes.
A port is a free one that the process which listens has bound itself.
"""

from __future__ import annotations

import multiprocessing.process
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from critique_rl.config.run_folder import RunFolder

SECONDS = 300
"""The limit of every wait of a test; only a hang reaches it."""
LONG = 6 * SECONDS
"""The same for scripts that train several times."""
POLL_SECONDS = 0.02
Process = subprocess.Popen | multiprocessing.process.BaseProcess


def wait_until(
    event: Callable[[], Any], what: str, seconds: float = SECONDS, every: float = POLL_SECONDS
) -> Any:
    """The first true value of `event()`. AssertionError naming `what` if none comes in time."""
    end = time.monotonic() + seconds
    while True:
        # Looked at before the clock: an event that came is an event, however late the look is.
        value = event()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        time.sleep(every)


@contextmanager
def within(what: str, seconds: float = SECONDS) -> Iterator[None]:
    """Fails if the block takes longer. An alarm breaks off what hangs in the main thread."""

    def ring(*_: Any) -> None:
        raise AssertionError(f"{what}: not over after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    start = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # The alarm's error may have been swallowed inside.
    assert time.monotonic() - start < seconds, f"{what}: not over after {seconds:g} s"


# ---- processes ----------------------------------------------------------------------


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def gone(pid: int) -> bool:
    """Whether a process has ended. A zombie has, though nobody asked for its status."""
    stat = _stat(pid)
    return not stat or stat[0] in "ZX"


def of_group(group: int) -> list[int]:
    """Processes of a group that still run."""
    running = []
    for folder in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(folder.name))
        if stat and stat[0] not in "ZX" and int(stat[2]) == group:
            running.append(int(folder.name))
    return running


def ticks(pid: int) -> int:
    """CPU time of a process in clock ticks."""
    stat = _stat(pid)
    return int(stat[11]) + int(stat[12]) if stat else 0


def exit_code(process: Process) -> int | None:
    """None while it runs."""
    return process.poll() if isinstance(process, subprocess.Popen) else process.exitcode


def ended(process: Process, what: str, seconds: float = SECONDS) -> int:
    """The exit code of a process once it has ended. One that does not end is killed and fails."""
    try:
        wait_until(lambda: exit_code(process) is not None, f"{what} to end", seconds)
    except AssertionError:
        process.kill()
        raise
    return exit_code(process)


def wait_for_steps(run: RunFolder, steps: int, *processes: Process) -> None:
    """Wait until a run has logged so many steps. Fails at once if a process ends before."""

    def there() -> bool:
        codes = [exit_code(process) for process in processes]
        if run.metrics.exists() and run.metrics.read_bytes().count(b"\n") >= steps:
            return True
        assert all(code is None for code in codes), f"ended with {codes} before step {steps}"
        return False

    try:
        wait_until(there, f"step {steps} of {run.path}")
    except AssertionError:
        for process in processes:
            process.kill()
        raise
