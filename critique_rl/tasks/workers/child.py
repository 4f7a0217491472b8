"""What runs in a worker's process: load the function, then answer line by line.

A watcher, forked before anything else is loaded, waits for the end of the parent's pipe and then
kills the process group: no code of the function's can stop it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import IO, Any

PIPE_PIECE = 1 << 16
"""Bytes that are read or written at once."""
LOOK_SECONDS = 2.0
"""Seconds between two looks whether the parent is there."""
MOMENT = 0.02
"""Seconds in which no function fills the memory that it may hold."""
LONGEST_MESSAGE = 400
"""Characters of the error of a function that cannot be loaded."""
Function = Callable[[Any], Any]
"""The function that answers: a JSON object -> JSON."""


class TookTooLong(Exception):
    """Raised by a function that has seen itself that its answer takes too long: the call counts as
    one that was stopped at its deadline, and is tried again as such.
    """


class AnswerLost(Exception):
    """Raised by a function whose process is of no more use. The message is a code of `pool.LOST`:
    the call is made again in a fresh process.
    """


def serve() -> None:
    """Run the child: load the function, report it, then answer line by line until the pipe ends."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Prints of the function go to stderr, or they would get among the answers.
    answers_pipe = os.dup(1)
    os.dup2(2, 1)
    _fork_watcher(parent, answers_pipe)
    answers = os.fdopen(answers_pipe, "wb")
    serving = os.getpid()
    lines = _read_lines(parent)
    order = json.loads(next(lines))
    _limit_memory(order["memory"])
    function = _load_function(answers, order)
    if function is None:
        return
    for line in lines:
        _set_timers(order["deadline"] + 1)
        answer = _answer(function, line, order["memory"])
        if os.getpid() != serving:
            # A fork that the function left behind must neither answer nor read.
            os._exit(0)
        _send(answers, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _fork_watcher(parent: int, answers_pipe: int) -> None:
    """Fork the process that kills the group once this one or its parent is gone."""
    worker = os.getpid()
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    # Forked twice: a function that waits for its own children must not wait for the watcher.
    if os.fork():
        os._exit(0)
    # Its copies of the pipes would hide the worker's end from the parent.
    for pipe in (answers_pipe, 1, 2):
        os.close(pipe)
    poll = select.poll()
    # Without an event to wait for, poll reports the end of the pipe alone.
    poll.register(0, 0)
    while _is_running(worker) and _is_running(parent):
        if poll.poll(1000 * LOOK_SECONDS):
            break
    os.killpg(0, signal.SIGKILL)


def _is_running(process_number: int) -> bool:
    try:
        os.kill(process_number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _limit_memory(memory: int) -> None:
    """Have the kernel refuse what is far over the limit, which the parent watches for."""
    import resource

    # Far over, because libraries swallow its MemoryError and say "wrong".
    limit = 2 * memory + (1 << 30)
    with suppress(ValueError, OSError):
        _, hard_limit = resource.getrlimit(resource.RLIMIT_DATA)
        if hard_limit == resource.RLIM_INFINITY or limit < hard_limit:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard_limit))


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
        message = " ".join(words)[:LONGEST_MESSAGE]
        name = type(error).__name__
        reply = {"error": f"{name}: {message}"}
        _send(answers, json.dumps(reply))
        return None
    _send(answers, json.dumps({"value": None}))
    return function


def _answer(function: Function, line: bytes, memory: int) -> str:
    """Call the function; its answer, or its error, as JSON."""
    number, question = json.loads(line)
    start = time.monotonic()
    try:
        reply: dict[str, Any] = {"number": number, "value": function(question)}
        # A library may have swallowed its MemoryError. In a moment nobody fills a memory.
        if time.monotonic() - start > MOMENT and _peak_bytes() > memory:
            reply = {"number": number, "error": "memory"}
        return json.dumps(reply)
    except MemoryError:
        return json.dumps({"number": number, "error": "memory"})
    except TookTooLong:
        return json.dumps({"number": number, "error": "timeout"})
    except AnswerLost as loss:
        return json.dumps({"number": number, "error": str(loss)})
    # SystemExit too: a function that ends its process has failed.
    except BaseException as error:
        # The class alone: reasons are counted, and a message would make each a reason of its own.
        code = f"error {type(error).__name__}"[:80]
        return json.dumps({"number": number, "error": code})


def _peak_bytes() -> int:
    """The most memory that this process has held at any time; 0 where the system does not say."""
    # Not ru_maxrss, in which the parent's memory stays when a process is started.
    try:
        with open("/proc/self/status") as file:
            lines = file.read().splitlines()
    except OSError:
        return 0
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def resident_bytes(process_number: int) -> int:
    """Bytes of memory that a process holds; 0 where the system does not say."""
    try:
        with open(f"/proc/{process_number}/statm") as file:
            columns = file.read().split()
    except OSError:
        return 0
    # The second column counts resident pages. The file of a process that has ended is empty.
    pages = int(columns[1]) if columns else 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _send(answers: IO[bytes], message: str) -> None:
    answers.write(message.encode() + b"\n")
    answers.flush()


def _read_lines(parent: int) -> Iterator[bytes]:
    """Lines of standard input, until it ends or the parent is gone."""
    unread = bytearray()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while True:
        while not unread.endswith(b"\n"):
            if not poll.poll(1000 * LOOK_SECONDS):
                # A fork of the parent may still hold the pipe, so that it never ends.
                if os.getppid() != parent:
                    return
                continue
            piece = os.read(0, PIPE_PIECE)
            if not piece:
                return
            unread += piece
        # The parent sends the next line after the answer to this one, so there is only one.
        yield bytes(unread)
        unread.clear()


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
