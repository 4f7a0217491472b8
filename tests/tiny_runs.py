"""Tiny pipelines for tests: their configuration, and the command line that runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from waiting import ended

from critique_rl.experiment import processes

SMALL = {
    "task": {"name": "lab/chain", "size": 12},
    "trl": {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 12,
        "learning_rate": 1e-3,
    },
    "budget": {"optimizer_steps": 3},
    "evaluation": {
        "problems": 3,
        "samples": 2,
        "ks": [1, 2],
        "curve_every": 2,
        "curve_problems": 2,
        "curve_samples": 1,
    },
    "seeds": [0],
    "primary": "pass@1/plateau",
    "arms": {"scalar": {}, "critique": {"critic": {"kind": "oracle"}}},
}


def write_pipeline(folder: Path, policy: str, **changes) -> Path:
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump({**SMALL, "policy": {"model": policy}, **changes}))
    return path


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "critique_rl", *map(str, arguments)]


def cli(
    *arguments: object, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    """The command as a process of its own, forked as runs are, because imports would take most of
    the time. It starts in `folder`, with these variables in its environment.
    """
    words = [str(argument) for argument in arguments]
    with TemporaryDirectory() as logs:
        out, errors = Path(logs, "out"), Path(logs, "errors")
        given = (words, out, errors, folder, environment)
        process = processes.context().Process(target=_command, args=given)
        process.start()
        code = ended(process, f"critique-rl {' '.join(words)}")
        return subprocess.CompletedProcess(words, code, out.read_text(), errors.read_text())


def _command(
    words: list[str], out: Path, errors: Path, folder: Path | None, environment: dict[str, str]
) -> None:
    """In the new process. The runs of a pipeline are forked from the server that it was itself
    forked from. It has that server's address, but Python would start a second one, which imports
    everything again.
    """
    if forkserver._forkserver._forkserver_address is not None:
        forkserver._forkserver.ensure_running = lambda: None
        forkserver.ensure_running = lambda: None
    os.environ |= environment
    if "PYTHONPATH" in environment:
        # As a new interpreter does.
        sys.path[1:1] = environment["PYTHONPATH"].split(os.pathsep)
    if folder is not None:
        os.chdir(folder)
    processes.command(words, out, errors)
