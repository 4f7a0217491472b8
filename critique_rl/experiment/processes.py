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
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path


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
    forking.set_forkserver_preload(["critique_rl.experiment.preload"])
    return forking


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
