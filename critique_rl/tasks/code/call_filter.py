"""The system calls that a program may make: all but those that start processes, and some that no
program needs and that reach deep into the kernel.

Written with libseccomp (package pyseccomp) outside the sandbox; `server` loads the bytes. A limit
on processes (RLIMIT_NPROC) would not do: the kernel does not hold root to it, inside a namespace of
users either.
"""

from __future__ import annotations

import errno
import os

CLONE_THREAD = 0x00010000
REFUSED = (
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "io_uring_setup",
    "add_key",
    "keyctl",
    "request_key",
    # Memory that no limit of a process counts.
    "shmget",
    "msgget",
    "semget",
)
LONGEST = 1 << 16


def call_filter() -> bytes:
    """The filter as the kernel takes it (an array of `struct sock_filter`).

    Raises:
        ImportError: Without pyseccomp.
        RuntimeError: Without the library that it loads, libseccomp.so.2.
    """
    try:
        import pyseccomp
    except ImportError as error:
        raise ImportError("the package pyseccomp is missing") from error
    calls = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    again = pyseccomp.ERRNO(errno.EAGAIN)
    for name in ("fork", "vfork"):
        calls.add_rule(again, name)
    # Threads are started by the same call as processes.
    is_process = pyseccomp.Arg(0, pyseccomp.MASKED_EQ, CLONE_THREAD, 0)
    calls.add_rule(again, "clone", is_process)
    # Its flags lie in memory, which no filter reads. libc then takes the older call.
    calls.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    for name in REFUSED:
        calls.add_rule(pyseccomp.ERRNO(errno.EPERM), name)
    return _exported(calls)


def _exported(calls: object) -> bytes:
    """The bytes of a filter."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as target:
        calls.export_bpf(target)  # type: ignore[attr-defined]
        target.close()
        return source.read(LONGEST)
