"""A process that may hang, crash or eat memory without harm: it runs one function, one call at a
time, and is killed at a deadline.

The parent speaks JSON lines over pipes that never block it. Four nets hold the child: SIGKILL from
the parent at the deadline; a kernel timer in the child; limits on memory and output; and a watcher
in its process group that kills the group when the parent is gone.

A fresh interpreter is started, never a fork of a process with torch and threads in it.
"""

from __future__ import annotations

import atexit
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakSet

from critique_rl.tasks.workers.child import PIPE_PIECE, resident_bytes

LONGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read."""
LONGEST_OUTPUT = 1 << 16
"""Bytes that a process may print, which are passed on to stderr; the rest is dropped."""
LOOK_SECONDS = 0.05
"""Seconds between two looks at a child's memory."""
START_SECONDS = 120.0
"""Seconds for the interpreter and the imports, which a busy machine slows down."""
END_SECONDS = 5.0
"""Seconds that the parent waits for the end of a process that it has killed."""
CHILD_CODE = "from critique_rl.tasks.workers.child import serve; serve()"
MARK = "CRITIQUE_RL_WORKER"
"""Environment variable by which the processes are known that a function has started."""
MEMORY = 2 << 30
"""Bytes that a process may hold."""
_running: WeakSet[Worker] = WeakSet()


class NoAnswer(Exception):
    """A call without an answer.

    The message is a short code: "timeout", "crash", "memory", that of an `AnswerLost`, or
    "error <class of the exception>".
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
    # The kernel's limit alone would not do: libraries swallow its MemoryError, and say "wrong".
    memory: int = MEMORY
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
        self._mark = ""
        # Of the process: whether its function is there, calls answered, and bytes printed.
        self.is_loaded = False
        self.answered = 0
        self._printed = 0
        # Of the exchange in progress.
        self._number = 0
        self._expected = 0
        self._output_is_open = True
        self._unsent = memoryview(b"")
        self._unread = bytearray()
        self._end = 0.0
        self._next_look = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process starts a child there; locks and pipes cannot be pickled.
        names = ("target", "options", "deadline", "memory", "calls", "lost")
        return {name: getattr(self, name) for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    # ---- blocking --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process if it does not run, and wait until its function is loaded.

        Raises:
            ValueError: With the child's message, where the function cannot be loaded.
        """
        with self._lock:
            if self.is_running:
                return
            try:
                self.launch()
                reply = self._wait()
            except (NoAnswer, OSError) as failure:
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
                self.send(question, self.deadline)
                reply = self._wait()
                if "error" in reply:
                    raise NoAnswer(reply["error"])
                return reply["value"]
            except ValueError as error:
                self.lost += 1
                raise NoAnswer("crash") from error
            except NoAnswer:
                self.lost += 1
                raise
            except BaseException:
                # Ctrl-C: the child works on an answer that nobody will read.
                self.stop()
                raise

    def _wait(self) -> dict[str, Any]:
        """The reply to the message in progress. Raises NoAnswer as `receive` does."""
        while True:
            wait_for_any([self], LOOK_SECONDS)
            reply = self.receive()
            if reply is not None:
                return reply

    # ---- step by step, which never blocks --------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether this process has a child, and that child has not ended."""
        process = self._process
        return process is not None and self._owner == os.getpid() and process.poll() is None

    @property
    def process_number(self) -> int | None:
        """The number of the child's process; None where none was started."""
        return None if self._process is None else self._process.pid

    def launch(self) -> None:
        """Start a process in place of the one before. `receive` tells when its function is loaded.

        Raises:
            OSError: The system starts no further process.
        """
        self.stop()
        self._mark = uuid.uuid4().hex
        self._process = _launch_child(self._mark)
        self._owner = os.getpid()
        self._unread = bytearray()
        self.is_loaded = False
        self.answered = 0
        self._printed = 0
        self._output_is_open = True
        # The reply to the order, which has no number.
        self._expected = 0
        _running.add(self)
        order = {
            "target": self.target,
            "options": dict(self.options),
            "deadline": self.deadline,
            "memory": self.memory,
        }
        self._begin(order, START_SECONDS)

    def send(self, question: Mapping[str, Any], seconds: float) -> None:
        """Begin a call: `receive` returns its reply, within so many seconds."""
        self._number += 1
        self._expected = self._number
        self._begin([self._number, question], seconds)

    def _begin(self, message: Any, seconds: float) -> None:
        # As UTF-8, of which escapes would take up to three times the memory. The child's json takes
        # halves of characters too.
        line = json.dumps(message, ensure_ascii=False) + "\n"
        self._unsent = memoryview(line.encode(errors="surrogatepass"))
        now = time.monotonic()
        self._end = now + seconds
        self._next_look = now + LOOK_SECONDS

    def events(self) -> Iterable[tuple[int, int]]:
        """(number of a pipe, event of `select.poll`) for which the exchange waits."""
        process = self._running_process()
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        yield process.stdout.fileno(), select.POLLIN
        if self._output_is_open:
            yield process.stderr.fileno(), select.POLLIN
        if self._unsent:
            yield process.stdin.fileno(), select.POLLOUT

    def receive(self) -> dict[str, Any] | None:
        """Move what the pipes take and give; the reply, or None where there is none yet.

        Raises:
            NoAnswer: Where the child ended, holds too much memory, or its time is over. It has been
                stopped.
        """
        process = self._running_process()
        assert process.stdout is not None
        # The clock is read first: an answer that is there counts, however late the look is.
        now = time.monotonic()
        self._pass_output_on(process)
        self._write_some(process)
        piece = _read_some(process.stdout.fileno())
        if piece is not None:
            self._unread += piece
            if self._unread.endswith(b"\n"):
                return self._read_reply()
            if not piece or len(self._unread) > LONGEST_ANSWER:
                raise NoAnswer(self._end_code(process))
        if now >= self._end:
            self.stop()
            raise NoAnswer("timeout")
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            if resident_bytes(process.pid) > self.memory:
                self.stop()
                raise NoAnswer("memory")
        return None

    def is_due(self, now: float) -> bool:
        """Whether `receive` has a clock or the memory to look at, though no pipe is ready."""
        return now >= min(self._end, self._next_look)

    def kill(self) -> None:
        """Kill the process group, and wait for nothing."""
        process = self._process
        if process is not None and self._owner == os.getpid():
            with suppress(ProcessLookupError, PermissionError):
                # The child leads a session: processes that the function has started die too.
                os.killpg(process.pid, signal.SIGKILL)

    def stop(self, seconds: float = END_SECONDS) -> None:
        """Kill the process and what it started. A fork leaves its parent's worker alone.

        Args:
            seconds: The longest wait for its end.
        """
        with self._lock:
            self.kill()
            process = self._process
            self._process = None
            if process is None or self._owner != os.getpid():
                return
            self._pass_output_on(process)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()
            _kill_marked(self._mark)

    # ---- pipes -----------------------------------------------------------------------------------

    def _running_process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "a worker that was not launched, or was stopped"
        return self._process

    def _write_some(self, process: subprocess.Popen[bytes]) -> None:
        """Write as much of the message as the pipe takes."""
        assert process.stdin is not None
        while self._unsent:
            try:
                written = os.write(process.stdin.fileno(), self._unsent[:PIPE_PIECE])
            except BlockingIOError:
                return
            except BrokenPipeError:
                # The child has ended; the end of its other pipe tells how.
                self._unsent = memoryview(b"")
                return
            self._unsent = self._unsent[written:]

    def _read_reply(self) -> dict[str, Any] | None:
        """The reply in the lines that were read; None where they are answers to earlier calls.

        Raises:
            NoAnswer: The lines are no replies: the function wrote into the pipe.
        """
        lines = bytes(self._unread).splitlines()
        self._unread.clear()
        for line in lines:
            try:
                reply = json.loads(line)
                number = reply.get("number", 0)
            except (ValueError, AttributeError, RecursionError) as error:
                self.stop()
                raise NoAnswer("crash") from error
            if number == self._expected:
                self.answered += number != 0
                self.is_loaded = self.is_loaded or "value" in reply
                return dict(reply)
        return None

    def _pass_output_on(self, process: subprocess.Popen[bytes]) -> None:
        """Pass what the child printed on to stderr, up to a bound."""
        assert process.stderr is not None
        if not self._output_is_open:
            return
        piece = _read_some(process.stderr.fileno())
        if piece is None:
            return
        self._output_is_open = piece != b""
        left = LONGEST_OUTPUT - self._printed
        self._printed += len(piece)
        if left <= 0:
            return
        text = piece[:left].decode(errors="replace")
        if self._printed >= LONGEST_OUTPUT:
            text += f"\n[{self.target}: further output of this process is dropped]\n"
        # Where there is no stderr, or none that takes text, nobody reads it.
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(text)

    def _end_code(self, process: subprocess.Popen[bytes]) -> str:
        """Why the child ended, as a code of `NoAnswer`."""
        # It is closing its pipes, or has closed them and goes on: others must not wait for it.
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
        code = process.returncode
        self.stop()
        # The child's kernel timers are deadlines too.
        if code in (-signal.SIGALRM, -signal.SIGXCPU):
            return "timeout"
        return "crash"


def wait_for_any(workers: Iterable[Worker], seconds: float) -> list[Worker]:
    """Wait until a pipe of a worker is ready, or its time is over; those whose pipes are."""
    # Not select.select, which takes no file number over 1023: a trainer has many open.
    poll = select.poll()
    by_pipe = {}
    now = time.monotonic()
    for worker in workers:
        for pipe, event in worker.events():
            poll.register(pipe, event)
            by_pipe[pipe] = worker
        seconds = min(seconds, max(worker._end - now, 0))
    # Rounded up, or the last millisecond would be spent looking.
    ready = poll.poll(math.ceil(1000 * seconds))
    return list(dict.fromkeys(by_pipe[pipe] for pipe, _ in ready))


def stop_all(workers: Iterable[Worker]) -> None:
    """Stop workers: all are killed first, and then share the wait for their ends."""
    workers = list(workers)
    for worker in workers:
        worker.kill()
    end = time.monotonic() + END_SECONDS
    for worker in workers:
        worker.stop(max(0.0, end - time.monotonic()))


def _launch_child(mark: str) -> subprocess.Popen[bytes]:
    # The child finds the modules that this process finds; "" on a path is the working folder.
    folder = os.getcwd()
    path = [entry or folder for entry in sys.path]
    path.append(folder)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        # Every rank has workers, and all of them share the cores of the machine.
        "OMP_NUM_THREADS": "1",
        MARK: mark,
    }
    process = subprocess.Popen(
        # Without -P the working folder comes first, and may hold another package of our name.
        [sys.executable, "-P", "-c", CHILD_CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    for pipe in (process.stdin, process.stdout, process.stderr):
        assert pipe is not None
        # A child that hangs reads nothing: a blocking write of a long message would miss the
        # deadline.
        os.set_blocking(pipe.fileno(), False)
    return process


def _read_some(pipe: int) -> bytes | None:
    """Bytes that a pipe holds: None where there are none yet, b"" at its end."""
    try:
        return os.read(pipe, PIPE_PIECE)
    except BlockingIOError:
        return None


def _kill_marked(mark: str) -> None:
    """Kill the processes that left the group of a worker, where there is a /proc."""
    words = f"{MARK}={mark}".encode()
    for file in Path("/proc").glob("[0-9]*/environ"):
        # Another user's process, or one that has ended since.
        with suppress(OSError):
            if words in file.read_bytes().split(b"\0"):
                os.kill(int(file.parent.name), signal.SIGKILL)


@atexit.register
def _stop_running() -> None:
    stop_all(_running)
