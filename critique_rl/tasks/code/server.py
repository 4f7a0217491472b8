"""The warm parent of programs: one forked child per program, in a room of its own.

It runs inside the sandbox that `sandbox` builds, reads jobs as JSON lines, and answers each with a
report. For each job it forks a keeper, which takes new namespaces of processes and mounts, puts an
empty folder over /tmp, and forks the program as their first process. When that process ends, or
the keeper kills it, the kernel ends everything it started, and the folder is gone. So no program
meets a process or a file of another.
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import resource
import secrets
import select
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from critique_rl.tasks.code import harness

CLONE_NEWNS = 0x00020000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
FILTER_BYTES = 8
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522
MOST_FILES = 64
"""Open files of a program."""
MOST_INODES = 4096
"""Files and folders of a program."""
LONGEST_REPORT = 1 << 22
"""Bytes of a report that are read: a thousand results fit."""
FOLDER = "/tmp"
NEARLY = 0.5
"""Of its processor time: what a program has used that the kernel ended for it. The kernel counts by
ticks, and on a busy machine more of them than were used.
"""
PIECE = 1 << 16
libc = ctypes.CDLL(None, use_errno=True)
Report = dict[str, Any]


class SockFilters(ctypes.Structure):
    """The kernel's `struct sock_fprog`: a filter of system calls."""

    _fields_ = (("count", ctypes.c_ushort), ("filters", ctypes.c_char_p))


def serve(calls: bytes) -> None:
    """Answer jobs until the input ends.

    Args:
        calls: The filter of system calls, see `call_filter`. b"": without a sandbox; programs then
            get no namespaces of their own.
    """
    warm_up()
    answers = os.fdopen(os.dup(1), "w")
    # Prints of a program must not get among the answers.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(nowhere, number)
    # Children then share what is loaded, and do not copy it to count references.
    gc.collect()
    gc.freeze()
    answers.write(json.dumps({"status": "ready"}) + "\n")
    answers.flush()
    for line in sys.stdin:
        job = json.loads(line)
        report = keep_child(job, calls)
        answers.write(json.dumps(report) + "\n")
        answers.flush()


def warm_up() -> None:
    """Run a job that fails, so that what it imports is loaded before a child is forked."""
    tests = [{"name": "test", "kind": "code", "code": "assert f(1) == [2]"}]
    harness.run_job(
        {"program": "def f(x):\n return [x]", "before": "", "entry": "f", "tests": tests}
    )
    for name in ("math", "re", "random", "string", "statistics", "datetime"):
        __import__(name)
    harness.common_names()


def keep_child(job: Mapping[str, Any], calls: bytes) -> Report:
    """Fork the keeper of one program, and wait for what it reports."""
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        os.close(reading)
        report = {"status": "lost"}
        try:
            report = run_child(job, calls)
        finally:
            words = json.dumps(report)
            os.write(writing, words.encode())
            os._exit(0)
    os.close(writing)
    text = read_to_end(reading, None)
    os.waitpid(keeper, 0)
    return json.loads(text) if text else {"status": "lost"}


# ---- the keeper ----------------------------------------------------------------------------------


def run_child(job: Mapping[str, Any], calls: bytes) -> Report:
    """Fork the program, wait until its time is over, and end all that it started."""
    limits = job["limits"]
    is_alone = bool(calls)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if is_alone:
        check(libc.unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC))
        size = f"size={limits['disk']},nr_inodes={MOST_INODES},mode=777"
        place = FOLDER.encode()
        check(libc.mount(b"tmpfs", place, b"tmpfs", 0, size.encode()))
    else:
        os.setsid()
    folder = FOLDER if is_alone else job["folder"]
    reading, writing = os.pipe()
    # Known to the child's harness alone: what a program writes into the pipe is no report.
    key = secrets.token_hex(16)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(reading)
        run_program(job, folder, writing, key, calls)
    os.close(writing)
    text = read_to_end(reading, start + limits["seconds"])
    seconds = time.monotonic() - start
    end_all(child, is_alone)
    _, status, usage = os.wait4(child, 0)
    is_late = seconds >= limits["seconds"]
    report = read_report(text, key, status, is_late)
    cpu = usage.ru_utime + usage.ru_stime
    # The first process of a namespace gets SIGKILL in place of SIGXCPU.
    is_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXCPU)
    if report["status"] == "ended" and is_killed and cpu >= NEARLY * limits["cpu"]:
        report = {"status": "cpu"}
    report["cpu"] = round(cpu, 4)
    return report


def end_all(child: int, is_alone: bool) -> None:
    """Kill a program, and what it has started."""
    with suppress(ProcessLookupError):
        # With the first process of a namespace all others end.
        os.kill(child, signal.SIGKILL)
    if not is_alone:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)


def read_report(text: bytes, key: str, status: int, is_late: bool) -> Report:
    """The child's report, or what its end says."""
    first, _, rest = text.decode(errors="replace").partition("\n")
    if first == key:
        try:
            report: Report = json.loads(rest)
            return report
        except ValueError:
            pass
    if is_late:
        return {"status": "time"}
    words = "the program ended before its tests"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name
        words = f"ended by signal {name}"
    return {"status": "ended", "error": words}


def read_to_end(pipe: int, end: float | None) -> bytes:
    """What comes through a pipe until its end, or until a time; `LONGEST_REPORT` at most."""
    data = bytearray()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while len(data) < LONGEST_REPORT:
        wait = None
        if end is not None:
            wait = max(0.0, 1000 * (end - time.monotonic()))
        if not poll.poll(wait):
            break
        piece = os.read(pipe, PIECE)
        if not piece:
            break
        data += piece
    os.close(pipe)
    return bytes(data)


# ---- the program ---------------------------------------------------------------------------------


def run_program(job: Mapping[str, Any], folder: str, pipe: int, key: str, calls: bytes) -> None:
    """In the child: take the limits, run the job, send the report. It never returns."""
    try:
        os.setsid()
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.closerange(3, pipe)
        os.closerange(pipe + 1, MOST_FILES)
        os.environ.clear()
        set_limits(job["limits"])
        if calls:
            drop_capabilities()
            refuse_calls(calls)
        program = os.getpid()
        report = harness.run_job(job)
        # A fork that the program left behind comes here too, and has no report to send.
        if os.getpid() != program:
            os._exit(0)
        text = json.dumps(report)
        message = f"{key}\n{text}"
        os.write(pipe, message.encode())
    finally:
        os._exit(0)


def set_limits(limits: Mapping[str, Any]) -> None:
    """Bound CPU time, memory and files of this process."""
    cpu = math.ceil(limits["cpu"])
    bounds = {
        resource.RLIMIT_CPU: (cpu, cpu),
        resource.RLIMIT_AS: (limits["memory"], limits["memory"]),
        resource.RLIMIT_FSIZE: (limits["file"], limits["file"]),
        resource.RLIMIT_NOFILE: (MOST_FILES, MOST_FILES),
        resource.RLIMIT_CORE: (0, 0),
    }
    for name, bound in bounds.items():
        resource.setrlimit(name, bound)


def drop_capabilities() -> None:
    """Give up what the keeper needed to mount and to take namespaces."""
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    check(libc.capset(header, nothing))


def refuse_calls(calls: bytes) -> None:
    """Load a filter of system calls."""
    count = len(calls) // FILTER_BYTES
    filters = SockFilters(count, calls)
    check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filters), 0, 0))


def check(result: int) -> None:
    """Raises OSError where a call of the kernel failed."""
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
