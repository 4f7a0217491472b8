"""A process of our own that may hang, crash or eat memory without harm: it runs one function, a
call at a time, and is killed at a deadline.

The parent speaks JSON lines over two pipes and waits with `select`; whatever the function does,
`ask` returns within its deadline. Three nets hold the child: SIGKILL from the parent at the
deadline; a kernel timer in the child itself (SIGALRM with its default action needs no interpreter,
so it ends big-number work that no Python signal handler could); and end-of-file on its pipe, or
another parent, while it waits. A fresh interpreter is started, never a fork of a process with torch
and threads in it. Left out: pools; a check costs milliseconds, and every rank has a worker of its
own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import Any
from weakref import WeakSet

LONGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read."""
LOOK_SECONDS = 0.2
"""Between two looks at the memory."""
START_SECONDS = 120.0
"""For the interpreter and the imports, which a busy machine slows down."""
_running: WeakSet[Worker] = WeakSet()


class Lost(Exception):
    """A call without an answer; the message is a short code: "timeout", "crash", "memory", or
    "error <what the function raised>".
    """


@dataclass(eq=False)
class Worker:
    """`target` ("module:function", called as `function(**options)` in the child) gives the function
    that answers: it gets a JSON object, returns JSON.
    """

    target: str
    options: Mapping[str, Any] = field(default_factory=dict)
    deadline: float = 5.0
    """Wall seconds a call; then the process is killed, and the next call starts another."""
    memory: int = 2 << 30
    """Bytes it may hold, watched where there is a /proc. Not a limit of the kernel's: libraries
    swallow its MemoryError, and say "wrong".
    """
    calls: int = 0
    lost: int = 0
    """Calls without an answer."""

    def __post_init__(self) -> None:
        self._lock, self._process, self._owner = RLock(), None, 0

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: getattr(self, name)
            for name in ("target", "options", "deadline", "memory", "calls", "lost")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def start(self) -> None:
        """Start the process if there is none of ours, and wait until the function is there.
        ValueError with the child's words where it cannot be.
        """
        with self._lock:
            if (
                self._process is not None
                and self._owner == os.getpid()
                and self._process.poll() is None
            ):
                return
            if self._owner == os.getpid():
                self.stop()
            environment = {
                **os.environ,
                "PYTHONPATH": os.pathsep.join(
                    path or os.getcwd() for path in [*sys.path, os.getcwd()]
                ),
                "OMP_NUM_THREADS": "1",
            }
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from critique_rl.tasks.worker import serve; serve()"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True,
            )  # fmt: skip
            self._owner, self._rest = os.getpid(), b""
            os.set_blocking(self._process.stdin.fileno(), False)
            _running.add(self)
            try:
                ready = self._exchange(
                    {
                        "target": self.target,
                        "options": dict(self.options),
                        "deadline": self.deadline,
                    },
                    START_SECONDS,
                )
            except Lost as lost:
                self.stop()
                raise ValueError(
                    f"{self.target}: the worker did not start ({lost}); its own words are above, on stderr"
                ) from lost
            if "error" in ready:
                self.stop()
                raise ValueError(f"{self.target}: {ready['error']}")

    def ask(self, question: Mapping[str, Any]) -> Any:
        """The function's answer to a JSON object. Lost where there is none; never later than the
        deadline, and START_SECONDS where a process has to start.
        """
        with self._lock:
            self.calls += 1
            try:
                self.start()
                answer = self._exchange(question, self.deadline)
                if "error" in answer:
                    raise Lost(answer["error"])
                return answer["value"]
            except ValueError as error:
                self.lost += 1
                raise Lost("crash") from error
            except Lost:
                self.lost += 1
                raise

    def stop(self) -> None:
        """Kill the process, if it is ours. A fork of this process leaves its parent's worker alone."""
        with self._lock:
            process, self._process = self._process, None
            if process is None or self._owner != os.getpid():
                return
            with suppress(ProcessLookupError, PermissionError):
                # Its own session: what the function itself has started goes too.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()

    def _exchange(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Write one line, read one line; both within `seconds`, since a child that hangs reads
        nothing.
        """
        end, out = time.monotonic() + seconds, json.dumps(message).encode() + b"\n"
        to, back = self._process.stdin.fileno(), self._process.stdout.fileno()
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            readable, writable, _ = select.select(
                [back], [to] if out else [], [], min(max(left, 0), LOOK_SECONDS)
            )
            if not readable and (left <= 0 or _resident(self._process.pid) > self.memory):
                self.stop()
                raise Lost("timeout" if left <= 0 else "memory")
            try:
                out = out[os.write(to, out[:65536]) :] if writable else out
            except BrokenPipeError:
                out = b""
            piece = os.read(back, 65536) if readable else b"-"
            self._rest += piece if readable else b""
            if not piece or len(self._rest) > LONGEST_ANSWER:
                raise Lost(self._ended())
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _ended(self) -> str:
        """Why the child ended: its own kernel timer is a timeout too."""
        process = self._process
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        code = process.returncode
        self.stop()
        return "timeout" if code in (-signal.SIGALRM, -signal.SIGXCPU) else "crash"


def _resident(process: int) -> int:
    """Bytes that a process holds; 0 where the system does not say."""
    try:
        with open(f"/proc/{process}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@atexit.register
def _stop_all() -> None:
    for worker in list(_running):
        worker.stop()


# ---- in the child --------------------------------------------------------------------------------


def serve() -> None:
    """The child: read the target, say whether it is there, then answer one line after the other
    until the pipe ends.
    """
    # What the function prints must not get among the answers.
    answers, parent = os.fdopen(os.dup(1), "wb"), os.getppid()
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = _lines(parent)
    order = json.loads(next(lines))
    function = _say(answers, lambda: _load(order["target"], order["options"]), hide=True)
    if function is None:
        return
    for line in lines:
        _arm(order["deadline"] + 1)
        _say(answers, lambda line=line: function(json.loads(line)))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _say(answers, work, hide: bool = False) -> Any:
    """Do the work and send what came of it; None where it raised."""
    result, message = None, {}
    try:
        result = work()
        message = {"value": None if hide else result}
        line = json.dumps(message)
    except MemoryError:
        result, line = None, json.dumps({"error": "memory"})
    except BaseException as error:
        # SystemExit too: a function that ends its process is one that failed.
        words = " ".join(str(error).split())[:200]
        result, line = (
            None,
            json.dumps(
                {
                    "error": f"{type(error).__name__}: {words}"
                    if hide
                    else f"error {type(error).__name__}"
                }
            ),
        )
    answers.write(line.encode() + b"\n")
    answers.flush()
    return result


def _load(target: str, options: Mapping[str, Any]) -> Any:
    from critique_rl.config.user_code import load_target

    return load_target(target)(**options)


def _lines(parent: int):
    """Lines of standard input. Ends with it, or when the parent is gone though a fork of it still
    holds the pipe.
    """
    rest = b""
    while True:
        while b"\n" not in rest:
            if not select.select([0], [], [], 2.0)[0]:
                if os.getppid() != parent:
                    return
                continue
            piece = os.read(0, 65536)
            if not piece:
                return
            rest += piece
        line, _, rest = rest.partition(b"\n")
        yield line


def _arm(seconds: float) -> None:
    """Have the kernel end this process: after so many seconds, and, should the function disarm that
    timer, after as much CPU time.
    """
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(
        resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 2, hard)
    )
