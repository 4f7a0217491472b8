"""Each run is a process of its own, forked from a prepared server if that is safe.

A new interpreter takes 6 to 7 seconds to import torch, transformers and TRL, where a run in the lab
takes 100. On Linux without CUDA, children are forked from a server that has imported everything
once (`multiprocessing`'s forkserver). Left out: runs of several ranks, which `plan` and `accelerate
launch` start.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOAD = ["critique_rl.experiment.preload"]


def context() -> ForkServerContext | SpawnContext:
    """How processes start on this machine.

    Variables that libraries read at import must be in the environment before the first process
    starts.
    """
    import torch

    # CUDA does not survive a fork, and macOS's frameworks may not.
    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(PRELOAD)
    return forking


def warm_up() -> None:
    """Have the server import while this process looks at the settings, which takes as long.

    Nothing happens where runs are not forked. A machine with NVIDIA's driver is taken to have a
    GPU: to ask torch would take as long as what is saved. `set_environment` comes first.
    """
    if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists():
        multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()


def set_environment(jobs: int) -> None:
    """Variables that libraries read at import, for the server and the runs; the user's stay."""
    # Two torch threads on two busy cores were 15 times slower than one.
    cores = os.cpu_count() or 1
    threads = max(1, cores // jobs)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


def start(words: Sequence[str], log: Path) -> BaseProcess:
    """Start `critique-rl <words>` as a process whose output is appended to `log`."""
    process = context().Process(target=command, args=(list(words), log, log))
    process.start()
    return process


def command(words: list[str], out: Path, errors: Path) -> None:
    """In the new process: run `python -m critique_rl <words>` with its output in files.

    Raises:
        SystemExit: always, with the command's exit status.
    """
    # Ctrl-C then reaches only the process that started this one, and that asks each run once.
    os.setsid()
    for path, descriptor in ((out, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    sys.argv = ["critique-rl", *words]
    runpy.run_module("critique_rl", run_name="__main__")
