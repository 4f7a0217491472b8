"""A process that may hang, crash or eat memory without harm: it runs one function, one call at a
time, and is killed at a deadline.

The parent speaks JSON lines over two pipes and waits with `select`; whatever the function does,
`ask` returns within its deadline. Three nets hold the child: SIGKILL from the parent at the
deadline; a kernel timer in the child; and the end of its pipe or of its parent while it waits.

A fresh interpreter is started, never a fork of a process with torch and threads in it. Left out:
pools. A check costs milliseconds, and every rank has its worker.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import RLock
from typing import IO, Any
from weakref import WeakSet

LONGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read."""
PIPE_PIECE = 1 << 16
"""Bytes that are read or written at once."""
LOOK_SECONDS = 0.2
"""Seconds between two looks at the child's memory."""
START_SECONDS = 120.0
"""Seconds for the interpreter and the imports, which a busy machine slows down."""
Function = Callable[[Any], Any]
"""The function that the child runs: a JSON object -> JSON."""
CHILD_CODE = "from critique_rl.tasks.killable_process import serve; serve()"
_running: WeakSet[Worker] = WeakSet()


class NoAnswer(Exception):
    """A call without an answer.

    The message is a short code: "timeout", "crash", "memory", or "error <class of the exception>".
    """


@dataclass(eq=False)
class Worker:
    """A function in a process of its own, which is started at the first call."""

    target: str
    """"module:name", called as `name(**options)` in the child. It returns the function that
    answers: a JSON object -> JSON.
    """
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for `target`, as JSON."""
    deadline: float = 5.0
    """Wall seconds per call; then the process is killed, and the next call starts another."""
    # Not a limit of the kernel's: libraries swallow its MemoryError, and say "wrong".
    memory: int = 2 << 30
    """Bytes that the process may hold, watched where there is a /proc."""
    calls: int = 0
    """Calls so far."""
    lost: int = 0
    """Calls without an answer."""

    def __post_init__(self) -> None:
        self._lock = RLock()
        self._process: subprocess.Popen[bytes] | None = None
        # Number of the process that started the child: a fork inherits the object, not the child.
        self._owner = 0
        self._unread = b""

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process starts a child there; locks and pipes cannot be pickled.
        names = ("target", "options", "deadline", "memory", "calls", "lost")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def start(self) -> None:
        """Start the process if it does not run, and wait until its function is loaded.

        Raises:
            ValueError: With the child's message, where the function cannot be loaded.
        """
        with self._lock:
            if self._owner == os.getpid():
                if self._process is not None and self._process.poll() is None:
                    return
                self.stop()
            self._process = _launch_child()
            self._owner = os.getpid()
            self._unread = b""
            _running.add(self)
            order = {
                "target": self.target,
                "options": dict(self.options),
                "deadline": self.deadline,
            }
            try:
                reply = self._exchange(order, START_SECONDS)
            except NoAnswer as failure:
                self.stop()
                raise ValueError(
                    f"{self.target}: the worker did not start ({failure}); "
                    "its own words are above, on stderr"
                ) from failure
            if "error" in reply:
                self.stop()
                raise ValueError(f"{self.target}: {reply['error']}")

    def ask(self, question: Mapping[str, Any]) -> Any:
        """Call the function.

        Args:
            question: A JSON object.

        Returns:
            The function's answer, as JSON.

        Raises:
            NoAnswer: Where there is none, at the deadline at the latest; START_SECONDS later where
                a process has to start.
        """
        with self._lock:
            self.calls += 1
            try:
                self.start()
                reply = self._exchange(question, self.deadline)
                if "error" in reply:
                    raise NoAnswer(reply["error"])
                return reply["value"]
            except ValueError as error:
                self.lost += 1
                raise NoAnswer("crash") from error
            except NoAnswer:
                self.lost += 1
                raise

    def stop(self) -> None:
        """Kill the process. A fork of this process leaves its parent's worker alone."""
        with self._lock:
            process = self._process
            self._process = None
            if process is None or self._owner != os.getpid():
                return
            with suppress(ProcessLookupError, PermissionError):
                # The child leads a session: processes that the function has started die too.
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _exchange(self, message: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Write one line and read one line, both within `seconds`.

        Raises:
            NoAnswer: Where the child ends, holds too much memory, or the time is over.
        """
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        to_child = process.stdin.fileno()
        from_child = process.stdout.fileno()
        line = json.dumps(message)
        unsent = line.encode() + b"\n"
        end = time.monotonic() + seconds
        while b"\n" not in self._unread:
            left = end - time.monotonic()
            writers = [to_child] if unsent else []
            wait = min(max(left, 0), LOOK_SECONDS)
            readable, writable, _ = select.select([from_child], writers, [], wait)
            if not readable:
                self._check_limits(process.pid, left)
            if writable:
                unsent = _write_some(to_child, unsent)
            if readable:
                piece = os.read(from_child, PIPE_PIECE)
                self._unread += piece
                if not piece or len(self._unread) > LONGEST_ANSWER:
                    raise NoAnswer(self._end_code(process))
        first_line, _, self._unread = self._unread.partition(b"\n")
        reply: dict[str, Any] = json.loads(first_line)
        return reply

    def _check_limits(self, process_number: int, seconds_left: float) -> None:
        """Kill the child where its time or its memory is used up.

        Raises:
            NoAnswer: "timeout" or "memory".
        """
        if seconds_left <= 0:
            self.stop()
            raise NoAnswer("timeout")
        if _resident_bytes(process_number) > self.memory:
            self.stop()
            raise NoAnswer("memory")

    def _end_code(self, process: subprocess.Popen[bytes]) -> str:
        """Why the child ended, as a code of `NoAnswer`."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(1)
        code = process.returncode
        self.stop()
        # The child's kernel timers (`_set_timers`) are deadlines too.
        if code in (-signal.SIGALRM, -signal.SIGXCPU):
            return "timeout"
        return "crash"


def _launch_child() -> subprocess.Popen[bytes]:
    # The child finds the modules that this process finds; "" on a path is the working folder.
    folder = os.getcwd()
    path = [entry or folder for entry in sys.path]
    path.append(folder)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        # Every rank has a worker, and all of them share the cores of the machine.
        "OMP_NUM_THREADS": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD_CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    assert process.stdin is not None
    # A child that hangs reads nothing: a blocking write of a long message would miss the deadline.
    os.set_blocking(process.stdin.fileno(), False)
    return process


def _write_some(pipe: int, unsent: bytes) -> bytes:
    """Write as much as the pipe takes; what is left to send."""
    try:
        written = os.write(pipe, unsent[:PIPE_PIECE])
    except BrokenPipeError:
        # The child has ended; the end of its other pipe tells how.
        return b""
    return unsent[written:]


def _resident_bytes(process_number: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    try:
        with open(f"/proc/{process_number}/statm") as file:
            columns = file.read().split()
    except OSError:
        return 0
    # The second column counts resident pages.
    return int(columns[1]) * os.sysconf("SC_PAGE_SIZE")


@atexit.register
def _stop_all() -> None:
    for worker in list(_running):
        worker.stop()


# ---- in the child --------------------------------------------------------------------------------


def serve() -> None:
    """Run the child: load the function, report it, then answer line by line until the pipe ends."""
    parent = os.getppid()
    # Prints of the function go to stderr, or they would get among the answers.
    answers_pipe = os.dup(1)
    answers = os.fdopen(answers_pipe, "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = _read_lines(parent)
    order = json.loads(next(lines))
    function = _load_function(answers, order)
    if function is None:
        return
    for line in lines:
        _set_timers(order["deadline"] + 1)
        _send(answers, _answer(function, line))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _load_function(answers: IO[bytes], order: Mapping[str, Any]) -> Function | None:
    """Load the function and send whether it is there; None where it is not."""
    from critique_rl.config.user_code import load_target

    try:
        build = load_target(order["target"])
        function: Function = build(**order["options"])
    except MemoryError:
        _send(answers, json.dumps({"error": "memory"}))
        return None
    except BaseException as error:
        words = str(error).split()
        message = " ".join(words)[:200]
        name = type(error).__name__
        reply = {"error": f"{name}: {message}"}
        _send(answers, json.dumps(reply))
        return None
    _send(answers, json.dumps({"value": None}))
    return function


def _answer(function: Function, line: bytes) -> str:
    """Call the function; its answer, or its error, as JSON."""
    try:
        value = function(json.loads(line))
        return json.dumps({"value": value})
    except MemoryError:
        return json.dumps({"error": "memory"})
    # SystemExit too: a function that ends its process has failed.
    except BaseException as error:
        # The class alone: reasons are counted, and a message would make each a reason of its own.
        code = f"error {type(error).__name__}"
        return json.dumps({"error": code})


def _send(answers: IO[bytes], message: str) -> None:
    answers.write(message.encode() + b"\n")
    answers.flush()


def _read_lines(parent: int) -> Iterator[bytes]:
    """Lines of standard input, until it ends or the parent is gone."""
    unread = b""
    while True:
        while b"\n" not in unread:
            if not select.select([0], [], [], 2.0)[0]:
                # A fork of the parent may still hold the pipe, so that it never ends.
                if os.getppid() != parent:
                    return
                continue
            piece = os.read(0, PIPE_PIECE)
            if not piece:
                return
            unread += piece
        line, _, unread = unread.partition(b"\n")
        yield line


def _set_timers(seconds: float) -> None:
    """Have the kernel end this process after `seconds` of wall time, or as much CPU time."""
    import resource

    # The default action needs no interpreter, so it ends big-number work that no Python signal
    # handler could interrupt.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    # For a function that disarms the timer, as libraries with timeouts by SIGALRM do.
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used = usage.ru_utime + usage.ru_stime
    cpu_limit = int(used + seconds) + 2
    _, hard_limit = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit, hard_limit))
