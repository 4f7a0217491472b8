"""What a Ray task does on its node: it runs one command of `critique-rl` as a process of its own,
with the output in the run's log.

Results lie on storage that all nodes share at the same path. The process ends with the Ray worker,
and the worker with its raylet, so that the lock of a run's folder never outlives its node.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from critique_rl.config.durable_files import write_text
from critique_rl.config.folder_lock import is_locked

CHILD = "critique_rl.experiment.campaigns.child"
LOOK_SECONDS = 0.3
SHARED_SECONDS = 10.0
"""The longest wait for a new folder: shared storage may show it late."""
LOCK_SECONDS = 180.0
"""The longest wait for the lock of a lost node. NFS servers keep one for 90 seconds."""


@dataclass(frozen=True)
class Request:
    """One command for a node. All paths are absolute."""

    words: list[str]
    """Arguments of `critique-rl`."""
    run: Path
    """The run's folder."""
    log: Path
    cwd: Path
    """The folder in which the campaign was started, to which relative paths belong."""
    marks: Path
    """A folder that the campaign has just made, where a task that starts leaves a file."""
    mark: str
    """The name of that file, which then holds the node's id and name, a line each."""
    variables: dict[str, str]
    """Added to the environment of the process; no secrets."""


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    """Its exit status; negative after a signal."""
    host: str
    """Name of the node."""
    fault: str = ""
    """Why this node can run no command of this campaign; "" where it can."""


def run_on_node(request: Request) -> Ending:
    """Run a command to its end. `ray.cancel` has it asked to stop, and waited for."""
    import ray

    host = socket.gethostname()
    fault = sharing_fault(request, host)
    if fault:
        return Ending(1, host, fault)
    raylet = os.getppid()
    child = None
    try:
        node = ray.get_runtime_context().get_node_id()
        write_text(request.marks / request.mark, f"{node}\n{host}\n")
        _wait_for_lock(request.run, raylet)
        child = _start(request)
        return Ending(_watch(child, raylet), host)
    # Raised by `ray.cancel`, in the main thread of the worker.
    except KeyboardInterrupt:
        if child is None:
            return Ending(130, host)
        child.terminate()
        return Ending(_watch(child, raylet), host)


def sharing_fault(request: Request, host: str) -> str:
    """Why the folders of the campaign are not those of this node; "" where they are."""
    advice = "start the command where all nodes have the same folders, with --out on shared storage"
    if not request.cwd.is_dir():
        return f"node {host} does not have {request.cwd}, where this command was given; {advice}"
    end = time.monotonic() + SHARED_SECONDS
    while not request.marks.is_dir():
        if time.monotonic() > end:
            results = request.marks.parent.parent
            return f"on node {host} {results} is not the folder of this machine; {advice}"
        time.sleep(LOOK_SECONDS)
    return ""


def _start(request: Request) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **request.variables}
    command = [sys.executable, "-m", CHILD, str(os.getpid()), *request.words]
    with request.log.open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=request.cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C then reaches only the campaign, which asks each run once.
            start_new_session=True,
        )


def _watch(child: subprocess.Popen[bytes], raylet: int) -> int:
    """Wait for the end of the process; its exit status."""
    while child.poll() is None:
        _end_with(raylet)
        time.sleep(LOOK_SECONDS)
    assert child.returncode is not None, "poll() has set it"
    return child.returncode


def _wait_for_lock(run: Path, raylet: int) -> None:
    """Wait for a process on a lost node to lose its lock. A run that still finds one says so."""
    end = time.monotonic() + LOCK_SECONDS
    while is_locked(run) and time.monotonic() < end:
        _end_with(raylet)
        time.sleep(LOOK_SECONDS)


def _end_with(raylet: int) -> None:
    # Ray 2.60 leaves a worker alone in the middle of a task where its raylet was killed. The
    # cluster then has lost this node, and runs the task elsewhere.
    if os.getppid() != raylet:
        os._exit(1)
