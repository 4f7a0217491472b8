"""Runs as processes of their own, forked where that is safe: importing torch, transformers and TRL
takes 6 to 7 seconds, a run in the lab 100.

On Linux without CUDA children are forked from a server that has imported everything once
(`multiprocessing`'s forkserver), else each is a new interpreter: CUDA does not survive a fork, and
macOS's frameworks may not. Left out: runs of several ranks, which `plan` and `accelerate launch`
start.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path


def context() -> BaseContext:
    """How processes start here. Variables that libraries read while they are imported must be in
    the environment before the first one starts.
    """
    import torch

    if sys.platform != "linux" or torch.cuda.is_available():
        return multiprocessing.get_context("spawn")
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["critique_rl.experiment.preload"])
    return forking


def start(words: Sequence[str], log: Path) -> BaseProcess:
    """Start `critique-rl <words>`; what it prints is added to `log`."""
    process = context().Process(target=command, args=(list(words), log, log))
    process.start()
    return process


def command(words: list[str], out: Path, errors: Path) -> None:
    """In the new process: `python -m critique_rl <words>`, with its output in files. Ends with
    SystemExit.
    """
    os.setsid()  # Ctrl-C reaches the process that started this one, which then asks each run once
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for path, descriptor in ((out, 1), (errors, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    sys.argv = ["critique-rl", *words]
    runpy.run_module("critique_rl", run_name="__main__")
