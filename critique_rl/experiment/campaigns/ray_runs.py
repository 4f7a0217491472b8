"""Runs as tasks of a Ray cluster: Ray queues them and places them, one task per run.

A run whose node is lost is given to Ray again, and continues from its newest checkpoint. That is
done here, not by Ray's `max_retries`, so that each loss can be counted and told. A run that failed
is never given again.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.terminal import say
from critique_rl.experiment.campaigns.cluster import (
    Share,
    check_room,
    import_ray,
    join,
    living_nodes,
    room,
)
from critique_rl.experiment.campaigns.node import Ending, Request, run_on_node
from critique_rl.experiment.progress import Job

PASSED = (
    "OMP_NUM_THREADS",
    "PYTHONPATH",
    "CRITIQUE_RL_CACHE",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_CACHE",
    "HF_HUB_DISABLE_TELEMETRY",
    "TRL_EXPERIMENTAL_SILENCE",
    "TOKENIZERS_PARALLELISM",
    "WANDB_MODE",
    "WANDB_PROJECT",
)
"""Variables of this process that runs get. None is a secret: those stay on the nodes."""
MOST_LOSSES = 5
"""Nodes that a run may lose in a row without a new checkpoint between them."""
SEEN_SECONDS = 120.0
"""The longest wait until this machine sees the files of a run that has finished elsewhere."""
STOPPED_CODES = (130, -15)
"""Exit codes of a run that was asked to stop: by its node, where this campaign did not."""


@dataclass
class Task:
    """A run that Ray has."""

    job: Job
    mark: str
    """The file that it leaves where it starts."""
    node: str = ""
    """Id of its node; "" while it is queued."""
    host: str = ""


@dataclass
class Losses:
    """Nodes that one run has lost."""

    total: int = 0
    in_a_row: int = 0
    """Since its last new checkpoint."""
    step: int = 0
    """Of its newest checkpoint."""


@dataclass(frozen=True)
class RayOptions:
    """The options of `--on ray`."""

    address: str | None = None
    """host:port, "local", or None to look for a cluster."""
    cpus: int = 1
    """CPUs per run."""
    gpus: float | None = None
    """GPUs per run, at most 1; None for 1 where the cluster has GPUs, else 0."""
    jobs: int | None = None
    """Runs at a time; None for all that the cluster has room for."""


class RayRuns:
    """Each run is a task of a Ray cluster.

    Args:
        options: Where, and with what.
        folder: The results of the pipeline, on storage that all nodes share.
    """

    is_elsewhere = True

    def __init__(self, options: RayOptions, folder: PipelineFolder) -> None:
        self.limit = options.jobs or sys.maxsize
        self.at_once = 1
        self._options = options
        self._share = Share(options.cpus, options.gpus or 0.0)
        self._folder = folder
        # A folder of its own per campaign tells whether a node sees the same storage.
        self._marks = folder.ray.absolute() / uuid.uuid4().hex
        self._ray: Any = None
        self._open = ExitStack()
        self._submitted = 0
        self._tasks: dict[Any, Task] = {}
        self._unseen: dict[str, tuple[Job, float]] = {}
        self._losses: dict[str, Losses] = {}
        self._waits_for_node = False

    @property
    def busy(self) -> int:
        """Runs that Ray has, and finished ones whose files are not seen yet."""
        return len(self._tasks) + len(self._unseen)

    def prepare(self) -> None:
        """Join or start the cluster, where that was not done yet.

        Raises:
            ConfigError: There is none, or no node has room for a run.
        """
        if self._ray is not None:
            return
        line = join(self._options.address)
        self._ray = import_ray()
        nodes = living_nodes()
        has_gpus = any(resources.get("GPU") for resources in nodes.values())
        if self._options.gpus is None and has_gpus:
            self._share = Share(self._options.cpus, 1.0)
        places = check_room(nodes, self._share)
        self.at_once = min(places, self.limit)
        say(f"{line}: {len(nodes)} nodes, room for {places} runs, each of {self._share}")

    def start(self, job: Job) -> None:
        """Give a job to Ray, which queues it."""
        if not self._submitted:
            self._open_folder()
        self._submit(job)

    def take_ended(self, seconds: float) -> list[Job]:
        """Wait for a task to end, and take the jobs that have ended; give lost ones to Ray again.

        Args:
            seconds: The longest wait.

        Returns:
            These jobs, with their status.

        Raises:
            ConfigError: A node does not share the folders of this campaign, or lacks this package.
        """
        if self._tasks:
            references = list(self._tasks)
            ready, _ = self._ray.wait(references, num_returns=1, timeout=seconds)
        else:
            ready = []
            time.sleep(seconds)
        self._look_at_marks()
        ended = []
        for reference in ready:
            task = self._tasks.pop(reference)
            ended += self._end(task, reference)
        nodes = living_nodes()
        for reference, task in list(self._tasks.items()):
            # Where a machine just vanishes, Ray waits for its task for minutes.
            if task.node and task.node not in nodes:
                del self._tasks[reference]
                self._ray.cancel(reference, force=True)
                ended += self._continue(task, "lost")
        self._warn_without_room(nodes)
        return ended + self._take_seen()

    def stop(self) -> None:
        """Ask the runs to stop, and wait for their checkpoints.

        Raises:
            KeyboardInterrupt: On a second Ctrl-C; the runs are killed.
        """
        try:
            self._cancel(is_forced=False)
            while self._tasks:
                references = list(self._tasks)
                ready, _ = self._ray.wait(references, num_returns=1, timeout=1)
                nodes = living_nodes()
                for reference in references:
                    node = self._tasks[reference].node
                    if reference in ready or (node and node not in nodes):
                        del self._tasks[reference]
        except KeyboardInterrupt:
            self._cancel(is_forced=True)
            raise

    def close(self) -> None:
        """Leave the cluster, or end the one that was started; say what was lost."""
        if self._ray is None:
            return
        self._ray.shutdown()
        self._open.close()
        shutil.rmtree(self._marks, ignore_errors=True)
        total = sum(losses.total for losses in self._losses.values())
        if total:
            say(f"Ray: {len(self._losses)} runs went on after {total} lost tasks")

    def _open_folder(self) -> None:
        shutil.rmtree(self._marks.parent, ignore_errors=True)
        self._marks.mkdir(parents=True)
        # Ray prints what happens to its nodes, from a thread, where results of ours would stand.
        messages = self._open.enter_context((self._marks.parent / "messages.txt").open("w"))
        self._open.enter_context(redirect_stdout(messages))

    def _submit(self, job: Job) -> None:
        self._submitted += 1
        task = Task(job, mark=f"task{self._submitted}")
        variables = {name: os.environ[name] for name in PASSED if name in os.environ}
        variables.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        if self._options.gpus == 0:
            # Ray leaves all GPUs of a node to a task that asks for none.
            variables["CUDA_VISIBLE_DEVICES"] = ""
        request = Request(
            words=job.command,
            run=job.folder.path.absolute(),
            log=job.folder.log.absolute(),
            cwd=Path.cwd(),
            marks=self._marks,
            mark=task.mark,
            variables=variables,
        )
        remote = self._ray.remote(run_on_node).options(
            num_cpus=self._share.cpus, num_gpus=self._share.gpus, max_retries=0, name=job.name
        )
        self._tasks[remote.remote(request)] = task
        job.status = "queued"

    def _look_at_marks(self) -> None:
        """Learn which tasks have started, and where."""
        # Listed, not asked for by name: a shared folder remembers for a while what it lacked.
        names = os.listdir(self._marks) if self._submitted else []
        for task in self._tasks.values():
            if task.node or task.mark not in names:
                continue
            task.node, task.host = (self._marks / task.mark).read_text().split()
            task.job.status = "running"
            task.job.started = time.monotonic()

    def _end(self, task: Task, reference: Any) -> list[Job]:
        """The job of a task that has ended, if it has ended with it.

        Raises:
            ConfigError: This node can run nothing of this campaign.
        """
        errors = self._ray.exceptions
        try:
            ending: Ending = self._ray.get(reference)
        except (errors.WorkerCrashedError, errors.NodeDiedError):
            return self._continue(task, "lost")
        except errors.RayError as error:
            if "failed to import on the worker" in str(error):
                raise ConfigError(
                    "--on ray: a node cannot import critique_rl; install it there, in the "
                    f"environment in which `ray start` was given: {_last_line(error)}"
                ) from error
            return [_ended(task.job, f"failed ({_last_line(error)})")]
        if ending.fault:
            raise ConfigError(f"--on ray: {ending.fault}")
        task.host = ending.host
        if ending.code in STOPPED_CODES:
            return self._continue(task, "stopped the run")
        if ending.code:
            return [_ended(task.job, f"failed ({ending.code})")]
        self._unseen[task.job.name] = (task.job, time.monotonic() + SEEN_SECONDS)
        return []

    def _continue(self, task: Task, event: str) -> list[Job]:
        """Give a lost run to Ray again; the job if it has lost too many nodes."""
        job = task.job
        losses = self._losses.setdefault(job.name, Losses())
        losses.total += 1
        step = newest_step(job.folder)
        if step > losses.step:
            losses.in_a_row = 0
        losses.step = step
        losses.in_a_row += 1
        if losses.in_a_row > MOST_LOSSES:
            status = f"failed (lost its node {losses.in_a_row} times without a new checkpoint)"
            return [_ended(job, status)]
        place = f"continues from step {step}" if step else "starts again"
        say(f"{job.name}: node {task.host} {event}; it {place} where Ray has room")
        self._submit(job)
        return []

    def _take_seen(self) -> list[Job]:
        """The finished jobs whose files this machine sees, or should see by now."""
        seen = []
        for name, (job, end) in list(self._unseen.items()):
            # Has a shared folder ask its server again.
            os.listdir(job.folder.path)
            if job.folder.finished:
                seen.append(_ended(job, "finished"))
            elif time.monotonic() > end:
                seen.append(_ended(job, "failed (its evaluation is not seen on this machine)"))
            else:
                continue
            del self._unseen[name]
        return seen

    def _warn_without_room(self, nodes: dict[str, dict[str, float]]) -> None:
        """Say once that no node which is up could take the queued runs."""
        is_queued = any(not task.node for task in self._tasks.values())
        has_room = any(room(resources, self._share) for resources in nodes.values())
        if is_queued and not has_room and not self._waits_for_node:
            say(f"Ray: no node has {self._share} now; the runs wait for one, Ctrl-C stops them")
        self._waits_for_node = is_queued and not has_room

    def _cancel(self, is_forced: bool) -> None:
        for reference in self._tasks:
            self._ray.cancel(reference, force=is_forced)


def newest_step(run: RunFolder) -> int:
    """The step of a run's newest checkpoint; 0 where it has none."""
    # Imported here: it brings torch.
    from critique_rl.trainer.checkpoint import last_sealed, step_of

    checkpoint = last_sealed(run.checkpoints)
    return step_of(checkpoint) if checkpoint else 0


def _ended(job: Job, status: str) -> Job:
    job.status = status
    # A job that never started took no time.
    if job.started:
        job.seconds = time.monotonic() - job.started
    return job


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
