"""Starts one process a rank, forked from one that has imported everything: torchrun's ranks would each take 7 seconds for that."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from critique_rl import processes

Call = tuple[str, list[str]]
"""A module of tests/ and the arguments of its `main`."""


def start(folder: Path, calls: list[Call], world: int = 2, **environment: str) -> list[BaseProcess]:
    """Processes that make these calls one after the other, as ranks of one group; what they print is in folder/rank<n>.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder.mkdir(parents=True, exist_ok=True)
    group = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true", **environment}
    ranks = []
    for rank in range(world):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), **group} if world > 1 else environment
        ranks.append(processes.context().Process(target=_main, args=(folder / f"rank{rank}.log", own, calls)))
        ranks[-1].start()
    return ranks


def run(folder: Path, calls: list[Call], world: int = 2, seconds: float = 300, **environment: str) -> None:
    """`start`, and wait until all have ended well."""
    ranks = start(folder, calls, world, **environment)
    for number, process in enumerate(ranks):
        process.join(timeout=seconds)
        alive = process.exitcode is None
        if alive or process.exitcode:
            for other in ranks:
                other.kill()
            said = (folder / f"rank{number}.log").read_text()[-3000:]
            raise AssertionError(f"rank {number} {'still runs, so it waits for ever' if alive else f'ended with {process.exitcode}'}:\n{said}")


def _main(log: Path, environment: dict[str, str], calls: list[Call]) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    os.environ |= environment
    if "FSDP_ON_CPU" in environment:
        importlib.import_module("fsdp_on_cpu")
    for module, arguments in calls:
        importlib.import_module(module).main(*arguments)
    sys.exit(0)
