"""All runs of a pipeline, one process per run, with live progress.

Finished runs are skipped, interrupted ones continued, failed ones named. A run whose folder was
started with another configuration is refused (`same_config`). Where the processes run is the
business of `Runs`: this machine (`local`), or a Ray cluster (`ray_runs`). Left out: other clusters,
for which `plan` prints the commands.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NoReturn, Protocol

from rich.console import Console
from rich.live import Live

from critique_rl._lazy import heavy_imports
from critique_rl.config.durable_files import CHECKSUM, EVALUATIONS, read_json, read_yaml
from critique_rl.config.folder_lock import is_locked, lock_folder
from critique_rl.config.names import path_word
from critique_rl.config.resolved_run import base_config, run_defaults
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say
from critique_rl.config.verifier_settings import with_verdict_settings
from critique_rl.experiment.plan import check_stored, train_words
from critique_rl.experiment.progress import (
    Job,
    budget_share,
    ended_line,
    estimate,
    progress_table,
    time_left,
)
from critique_rl.experiment.same_config import check_folders, fill_defaults
from critique_rl.experiment.sweep import choose, extended, trials, with_chosen

BASE = "base"
ACCEPT = "--accept-changes"
STARTED_BEFORE = "running (started before)"
"""Status of a run that a process of an earlier campaign trains."""


class Runs(Protocol):
    """Where the processes of a campaign run."""

    limit: int
    """Runs that may be started at a time."""
    at_once: int
    """Runs that there is room for, for an estimate."""
    is_elsewhere: bool
    """Whether they run on other machines, whose devices nobody knows here."""

    @property
    def busy(self) -> int:
        """Runs that were started and have not ended."""

    def prepare(self) -> None:
        """What can begin before the settings are looked at. Raises ConfigError: There is no room
        for a run.
        """

    def start(self, job: Job) -> None:
        """Start a job, whose folder is there, and set its status."""

    def take_ended(self, seconds: float) -> list[Job]:
        """Wait so long at most for a job to end; the jobs that have, with their status."""

    def stop(self) -> None:
        """Ask the runs to stop, and wait for their checkpoints. Raises KeyboardInterrupt: On a
        second Ctrl-C, after the runs were killed.
        """

    def close(self) -> None:
        """Let go of what `prepare` and `start` have taken."""


def run_all(
    pipeline: Pipeline,
    folder: PipelineFolder,
    path: Path,
    overrides: Sequence[str],
    runs: Runs,
    accepts_changes: bool = False,
) -> list[str]:
    """Run everything that is not finished.

    Args:
        pipeline: The experiment; the trials of its sweep come first.
        folder: Where its results go.
        path: The pipeline's file, which each process reads again.
        overrides: `key=value` words for that file.
        runs: Where they run.
        accepts_changes: Whether started runs go on where something has changed since.

    Returns:
        The names of the runs that failed.

    Raises:
        ConfigError: The settings cannot be used, or another process runs this pipeline.
        KeyboardInterrupt: After all runs were asked to stop, and did.
    """
    tail = [path_word(path), *overrides, "--out", path_word(folder.path.parent)]
    if accepts_changes:
        tail.append(ACCEPT)
    # Before the folder is made and the first trial runs.
    for warning in check_settings(pipeline, folder, runs, accepts_changes):
        say(warning)
    with lock_folder(folder.path, "running this pipeline"):
        if pipeline.sweep is not None:
            failed = _run_sweep(pipeline, folder, tail, runs)
            if failed:
                return failed
        chosen = with_chosen(pipeline, folder)
        return _run_missing(chosen, folder, tail, runs)


def _run_sweep(
    pipeline: Pipeline, folder: PipelineFolder, tail: list[str], runs: Runs
) -> list[str]:
    """Run the trials, and write what they chose; the names of those that failed."""
    assert pipeline.sweep is not None, "the caller has a sweep"
    tried: Pipeline | None = pipeline
    for _ in range(pipeline.sweep.extend + 1):
        if tried is None:
            break
        assert tried.sweep is not None, "a longer list is a sweep too"
        sweep_tail = [*tail, "--sweep"]
        if tried.sweep.values != pipeline.sweep.values:
            # The trial's process reads the file, which does not have the new values.
            listed = ", ".join(f"{value!r}" for value in tried.sweep.values)
            sweep_tail.insert(1, f"sweep.values=[{listed}]")
        failed = _run_missing(trials(tried), folder.sweep, sweep_tail, runs, with_base=False)
        if failed:
            return [f"sweep/{name}" for name in failed]
        choice = choose(tried, folder)
        tried = extended(tried, choice)
    return []


def _run_missing(
    pipeline: Pipeline, folder: PipelineFolder, tail: list[str], runs: Runs, with_base: bool = True
) -> list[str]:
    """Run what one pipeline, or its trials, lacks; the names of the runs that failed."""
    accepts_changes = ACCEPT in tail
    check_folders(pipeline, folder, accepts_changes=accepts_changes)
    todo = _missing_runs(pipeline, folder, tail)
    if with_base and _is_base_due(pipeline, folder):
        command = ["evaluate", *[word for word in tail if word != ACCEPT]]
        base = Job(BASE, None, folder.base, command)
        # Not first: it takes least, and the last of a few runs would begin later for it.
        todo.insert(runs.at_once, base)
    if not todo:
        return []
    say(estimate(pipeline, folder, todo, runs.at_once))
    return _execute(todo, runs, pipeline)


def check_settings(
    pipeline: Pipeline, folder: PipelineFolder, runs: Runs, accepts_changes: bool = False
) -> list[str]:
    """Refuse settings that cannot be used, and inputs that have changed, where something is to do.

    Meanwhile the runs are prepared: what they are forked from imports, or Ray is joined.

    Args:
        pipeline: The experiment.
        folder: Where its results go.
        runs: Where they run.
        accepts_changes: Whether started runs go on where something has changed since.

    Returns:
        Warnings, a line each.

    Raises:
        ConfigError: Every setting that cannot be used.
    """
    check_stored(pipeline, folder, accepts_changes)
    due = _due_arms(pipeline, folder)
    if not due and not _is_base_due(pipeline, folder):
        return []
    runs.prepare()
    # Imported here: `critique-rl run` on finished runs then needs neither torch nor TRL.
    with heavy_imports():
        from critique_rl.experiment.preflight import check_pipeline, check_started

    warnings = check_pipeline(pipeline, due, is_elsewhere=runs.is_elsewhere)
    if not accepts_changes:
        check_started(pipeline, folder)
    return warnings


def _due_arms(pipeline: Pipeline, folder: PipelineFolder) -> set[str]:
    """The arms that have a run or a trial to do."""
    due = {job.arm for job in _missing_runs(pipeline, folder, [])}
    if pipeline.sweep is not None and _missing_runs(trials(pipeline), folder.sweep, []):
        due |= set(pipeline.arms)
    return due


def _missing_runs(pipeline: Pipeline, folder: PipelineFolder, tail: list[str]) -> list[Job]:
    """A job per run that is not finished, all arms of one seed before the next seed."""
    missing = []
    for seed in pipeline.seeds:
        for arm, config in pipeline.arms.items():
            run = folder.run(arm, seed)
            if run.finished:
                continue
            branch = config.branch_from
            trunk = folder.run(branch.arm, seed) if branch else None
            # The settings were looked at before the first run.
            command = [*train_words(tail, arm, seed), "--checked"]
            missing.append(Job(arm, seed, run, command, trunk))
    return missing


def _is_base_due(pipeline: Pipeline, folder: PipelineFolder) -> bool:
    """True where the policy before training is not evaluated yet, or was with other settings."""
    if not folder.base.finished:
        return True
    advice = "delete the folder base and evaluate it again"
    checksum = read_json(folder.base.evaluation, advice).get(CHECKSUM)
    # Folders older than the base's config.yaml are trusted: nothing says how they were judged.
    if not folder.base.config.exists():
        return checksum is not None
    stored = read_yaml(folder.base.config, advice)
    known = stored.pop(EVALUATIONS, None)
    if isinstance(known, dict) and known.get(BASE, checksum) != checksum:
        return True
    # Options that a later version added have their defaults in older folders.
    defaults = {name: run_defaults()[name] for name in ("policy", "evaluation")}
    evaluated = fill_defaults(defaults, stored)
    wanted = base_config(pipeline.arms[pipeline.control])
    for settings in (evaluated, wanted):
        settings["task"] = with_verdict_settings(settings["task"])
    return evaluated != wanted


def _execute(todo: list[Job], runs: Runs, pipeline: Pipeline) -> list[str]:
    """Run all jobs and name those that failed. However this ends, no run is left behind.

    Raises:
        KeyboardInterrupt: On Ctrl-C or SIGTERM, after the runs have stopped.
    """
    previous_handler = signal.signal(signal.SIGTERM, _interrupt)
    try:
        done = _run_jobs(todo, runs, pipeline)
    except BaseException:
        # Whatever ends this process: a run that it left behind would train on, seen by nobody.
        say("stopping: each run finishes its step and saves a checkpoint")
        runs.stop()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous_handler)
    failed = [job for job in done if job.status.startswith("failed")]
    for job in failed:
        say(f"failed: {job.name}; see {job.folder.log}{_last_words(job)}")
    return [job.name for job in failed]


def _last_words(job: Job) -> str:
    """The sentence that a failed run ended with, where it did not end by a fault of ours."""
    if not job.folder.log.is_file():
        return ""
    lines = job.folder.log.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    if lines and lines[-1].startswith("critique-rl: "):
        return f": {lines[-1].removeprefix('critique-rl: ')}"
    return ""


def _run_jobs(todo: list[Job], runs: Runs, pipeline: Pipeline) -> list[Job]:
    """Run jobs until none is left; those that ended, failed ones included.

    Args:
        todo: All jobs, as the table shows them.
        runs: Where they run. It knows what to stop when this function is interrupted.
        pipeline: For the table.
    """
    waiting = list(todo)
    done: list[Job] = []
    share_at_start = sum(_shares(todo, pipeline))
    began = time.monotonic()
    # A file has no width: rich would take 80 columns and break every name.
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    # A log takes a line per run that ends, and the table once: it cannot be drawn over.
    display: AbstractContextManager[Live | None] = nullcontext()
    if console.is_terminal:
        table = progress_table(todo, pipeline)
        # Ray prints to standard output, which `RayRuns` leads elsewhere.
        display = Live(table, console=console, refresh_per_second=1, redirect_stdout=False)
    with display as live:
        while waiting or runs.busy:
            free = runs.limit - runs.busy
            for job in _ready_jobs(waiting)[:free]:
                waiting.remove(job)
                job.folder.path.mkdir(parents=True, exist_ok=True)
                runs.start(job)
            waiting = _drop_finished(waiting)
            statuses = [job.status for job in waiting]
            is_run_elsewhere = STARTED_BEFORE in statuses
            if waiting and not runs.busy and not is_run_elsewhere:
                done += _mark_orphans(waiting)
                break
            # A second is the table's; a run that ends makes room for the next one at once.
            ended = runs.take_ended(1)
            done += ended
            seconds = time.monotonic() - began
            left = time_left(_shares(todo, pipeline), share_at_start, seconds)
            if live is not None:
                live.update(progress_table(todo, pipeline, left))
            else:
                for job in ended:
                    say(ended_line(job, len(done), len(todo), left))
    if live is None:
        console.print(progress_table(todo, pipeline))
    return done


def _shares(todo: list[Job], pipeline: Pipeline) -> list[float]:
    """The used share of each budget; jobs without one are left out."""
    shares = [budget_share(job, pipeline) for job in todo]
    return [share for share in shares if share is not None]


def _ready_jobs(waiting: list[Job]) -> list[Job]:
    """The jobs that can start now: their trunk is finished, and no other process trains them."""
    ready = []
    for job in waiting:
        is_trunk_ready = job.trunk is None or job.trunk.finished
        if is_trunk_ready and not _is_elsewhere(job):
            ready.append(job)
    return ready


def _is_elsewhere(job: Job) -> bool:
    """True where a process of an earlier campaign, killed alone, still trains this run."""
    # Such a run is waited for: two processes would write one folder.
    path = job.folder.path
    is_elsewhere = path.exists() and is_locked(path)
    job.status = STARTED_BEFORE if is_elsewhere else "waiting"
    return is_elsewhere


def _drop_finished(waiting: list[Job]) -> list[Job]:
    """The jobs still to wait for, without those that processes of earlier campaigns finished."""
    for job in waiting:
        if job.folder.finished:
            job.status = "finished"
    return [job for job in waiting if job.status != "finished"]


def _mark_orphans(waiting: list[Job]) -> list[Job]:
    """Give jobs up whose trunk will never finish."""
    for job in waiting:
        job.status = "failed (the run it branches from did not finish)"
    return waiting


def _interrupt(*_: object) -> NoReturn:
    """Signal handler: SIGTERM ends a campaign as Ctrl-C does.

    Raises:
        KeyboardInterrupt: Always.
    """
    raise KeyboardInterrupt
