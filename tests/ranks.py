"""Starts one process a rank, forked from one that has imported everything: torchrun's ranks would
each take 7 seconds for that.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from filelock import FileLock
from torch.distributed import TCPStore
from waiting import LONG, wait_until

from critique_rl.experiment import processes

Call = tuple[str, list[str]]
"""A module of tests/ and the arguments of its `main`."""


def start(folder: Path, calls: list[Call], world: int = 2, **environment: str) -> list[BaseProcess]:
    """Processes that make these calls one after the other, as ranks of one group; what they print
    is in folder/rank<n>.log.
    """
    # As torchrun does: the port is bound here and stays so. One that rank 0 binds could be taken.
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder.mkdir(parents=True, exist_ok=True)
    group = {
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "ACCELERATE_USE_CPU": "true",
        **environment,
    }
    ranks = []
    for rank in range(world):
        variables = environment
        if world > 1:
            variables = {"RANK": str(rank), "LOCAL_RANK": str(rank), **group}
        ranks.append(
            processes.context().Process(
                target=_main, args=(folder / f"rank{rank}.log", variables, calls)
            )
        )
        ranks[-1].start()
        ranks[-1].store = store  # it listens as long as somebody holds the ranks
    return ranks


def run(
    folder: Path, calls: list[Call], world: int = 2, seconds: float = LONG, **environment: str
) -> None:
    """`start`, and wait until all have ended well. One that fails ends the wait."""
    ranks = start(folder, calls, world, **environment)

    def over() -> bool:
        codes = [process.exitcode for process in ranks]
        return any(codes) or None not in codes

    with suppress(AssertionError):  # reported below
        wait_until(over, "ranks to end", seconds)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    for number, code in enumerate(codes):
        if code or (code is None and not any(codes)):
            output = (folder / f"rank{number}.log").read_text()[-3000:]
            how = "still runs, so it waits for ever" if code is None else f"ended with {code}"
            raise AssertionError(f"rank {number} {how}:\n{output}")


def run_once(
    factory: pytest.TempPathFactory,
    name: str,
    calls_of: Callable[[Path], list[Call]],
    world: int = 2,
    **environment: str,
) -> Path:
    """`run` in a folder of this name, for all workers of these tests together.

    A module's fixture is made by each worker that takes one of its tests, and these take half a
    minute of both cores.
    """
    top = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent
    folder = top / name
    with FileLock(top / f"{name}.lock"):
        over = folder / "over"
        if not over.exists():
            run(folder, calls_of(folder), world, **environment)
            over.touch()
    return folder


def _main(log: Path, environment: dict[str, str], calls: list[Call]) -> None:
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    os.environ |= environment
    # A rank that aborts says in which threads.
    faulthandler.enable()
    if "FSDP_ON_CPU" in environment:
        importlib.import_module("fsdp_on_cpu")
    if "DEEPSPEED_ON_CPU" in environment:
        importlib.import_module("deepspeed_on_cpu")
    for module, arguments in calls:
        importlib.import_module(module).main(*arguments)
    sys.exit(0)
