"""All runs of a pipeline, each a process of its own, with live progress. Finished runs are skipped,
interrupted ones continued, failed ones named.

A run whose folder was started with another configuration is refused: its results would be compared
under a name they do not have.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from rich.console import Console
from rich.live import Live

from critique_rl.config.pipeline_file import base_config, run_defaults
from critique_rl.config.run_folder import PipelineFolder, held, is_held
from critique_rl.config.schema import Pipeline
from critique_rl.experiment.plan import train_words
from critique_rl.experiment.processes import start
from critique_rl.experiment.progress import Job, _name, _share, _table, estimate, time_left
from critique_rl.experiment.same_config import _filled, check_folders
from critique_rl.experiment.sweep import choose, trials, with_chosen

BASE = "base"


def run_all(
    pipeline: Pipeline, folder: PipelineFolder, path: Path, overrides: Sequence[str], jobs: int
) -> list[str]:
    """Run what is not finished, `jobs` at a time; returns the names of runs that failed.
    KeyboardInterrupt after all were asked to stop.
    """
    tail = [str(path), *overrides, "--out", str(folder.path.parent)]
    with held(folder.path, "running this pipeline"):
        if pipeline.sweep is not None:
            failed = _run_missing(
                trials(pipeline), folder.sweep, [*tail, "--sweep"], jobs, base=False
            )
            if failed:
                return [f"sweep/{name}" for name in failed]
            choose(pipeline, folder)
        return _run_missing(with_chosen(pipeline, folder), folder, tail, jobs)


def _run_missing(
    pipeline: Pipeline, folder: PipelineFolder, tail: list[str], jobs: int, base: bool = True
) -> list[str]:
    check_folders(pipeline, folder)
    todo = (
        [Job(BASE, None, folder.base, ["evaluate", *tail])]
        if base and _base_is_due(pipeline, folder)
        else []
    )
    for seed in pipeline.seeds:
        for arm in pipeline.arms:
            run = folder.run(arm, seed)
            if not run.finished:
                branch = pipeline.arms[arm].branch_from
                trunk = folder.run(branch.arm, seed) if branch else None
                todo.append(Job(arm, seed, run, train_words(tail, arm, seed), trunk))
    if not todo:
        return []
    from critique_rl.experiment.preflight import check_arms, check_primary

    check_arms(dict(pipeline.arms))
    for config in pipeline.arms.values():
        check_primary(pipeline.primary, config)
    print(estimate(pipeline, folder, todo, jobs), file=sys.stderr)
    return _execute(todo, jobs, pipeline)


def _base_is_due(pipeline: Pipeline, folder: PipelineFolder) -> bool:
    """True where the policy before training is not evaluated yet, or was with other settings."""
    if not folder.base.finished:
        return True
    if not folder.base.config.exists():
        return False
    stored = yaml.safe_load(folder.base.config.read_text())
    defaults = {"evaluation": run_defaults()["evaluation"]}
    return _filled(defaults, stored) != base_config(pipeline.arms[pipeline.control])


def _execute(todo: list[Job], jobs: int, pipeline: Pipeline) -> list[str]:
    waiting, running, done = list(todo), [], []
    previous = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        before, began = sum(_share(job, pipeline) or 0.0 for job in todo), time.monotonic()
        # A file has no width: rich would take 80 columns and break every name.
        console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
        with Live(_table(todo, pipeline), console=console, refresh_per_second=1) as live:
            while waiting or running:
                for job in _ready(waiting)[: jobs - len(running)]:
                    waiting.remove(job)
                    running.append(_start(job, jobs))
                waiting, elsewhere = _left_by_others(waiting)
                if waiting and not running and not elsewhere:
                    done += _orphaned(waiting)
                    break
                time.sleep(1)
                running, ended = _poll(running)
                done += ended
                shares = [share for job in todo if (share := _share(job, pipeline)) is not None]
                live.update(
                    _table(todo, pipeline, time_left(shares, before, time.monotonic() - began))
                )
    except KeyboardInterrupt:
        _stop(running)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    failed = [job for job in done if job.status.startswith("failed")]
    for job in failed:
        print(f"failed: {_name(job)}; see {job.folder.log}", file=sys.stderr)
    return [_name(job) for job in failed]


def _ready(waiting: list[Job]) -> list[Job]:
    return [
        job
        for job in waiting
        if (job.trunk is None or job.trunk.finished) and not _is_elsewhere(job)
    ]


def _is_elsewhere(job: Job) -> bool:
    """True where a process of an earlier campaign, killed alone, still trains this run: it is
    waited for, since two would write one folder.
    """
    elsewhere = job.folder.path.exists() and is_held(job.folder.path)
    job.status = "running (started before)" if elsewhere else "waiting"
    return elsewhere


def _left_by_others(waiting: list[Job]) -> tuple[list[Job], bool]:
    """The jobs still to wait for, without those that others finished; and whether others are at
    work.
    """
    for job in waiting:
        if job.folder.finished:
            job.status = "finished"
    left = [job for job in waiting if job.status != "finished"]
    return left, any(job.status == "running (started before)" for job in left)


def _orphaned(waiting: list[Job]) -> list[Job]:
    for job in waiting:
        job.status = "failed (the run it branches from did not finish)"
    return waiting


def _as_interrupt(*_) -> None:
    raise KeyboardInterrupt


def _start(job: Job, jobs: int) -> Job:
    job.folder.path.mkdir(parents=True, exist_ok=True)
    # Threads beyond the cores cost far more than they give: see runs/README.md.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    job.process = start(job.command, job.folder.log)
    job.status, job.started = "running", time.monotonic()
    return job


def _poll(running: list[Job]) -> tuple[list[Job], list[Job]]:
    ended = [job for job in running if job.process.exitcode is not None]
    for job in ended:
        code = job.process.exitcode
        job.status = "finished" if code == 0 else f"failed ({code})"
    return [job for job in running if job not in ended], ended


def _stop(running: list[Job]) -> None:
    print("stopping: each run finishes its step and saves a checkpoint", file=sys.stderr)
    for job in running:
        job.process.terminate()
    try:
        for job in running:
            job.process.join()
    except KeyboardInterrupt:
        for job in running:
            job.process.kill()
        raise
