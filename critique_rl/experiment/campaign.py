"""All runs of a pipeline, each a process of its own, with live progress. Finished runs are skipped, interrupted ones continued, failed ones named.

A run whose folder was started with another configuration is refused: its results would be compared under a name they do not have.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.live import Live
from rich.table import Table

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import base_config, run_defaults, to_dict, with_seed
from critique_rl.config.run_folder import SCHEMA, PipelineFolder, RunFolder, held, is_held, read_jsonl
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.costs import KINDS
from critique_rl.critic.api.endpoint import OPERATIONAL
from critique_rl.experiment.plan import train_words
from critique_rl.experiment.processes import start
from critique_rl.experiment.sweep import choose, trials, with_chosen

BASE = "base"


@dataclass
class Job:
    """One process to run: an arm with a seed, or the base's evaluation."""

    arm: str
    seed: int | None
    folder: RunFolder
    command: list[str]
    trunk: RunFolder | None = None
    """The run it branches from, which must be finished first."""
    process: BaseProcess | None = None
    status: str = "waiting"
    started: float = field(default=0.0)


def run_all(pipeline: Pipeline, folder: PipelineFolder, path: Path, overrides: Sequence[str], jobs: int) -> list[str]:
    """Run what is not finished, `jobs` at a time; returns the names of runs that failed. KeyboardInterrupt after all were asked to stop."""
    tail = [str(path), *overrides, "--out", str(folder.path.parent)]
    with held(folder.path, "running this pipeline"):
        if pipeline.sweep is not None:
            failed = _run_missing(trials(pipeline), folder.sweep, [*tail, "--sweep"], jobs, base=False)
            if failed:
                return [f"sweep/{name}" for name in failed]
            choose(pipeline, folder)
        return _run_missing(with_chosen(pipeline, folder), folder, tail, jobs)


def _run_missing(pipeline: Pipeline, folder: PipelineFolder, tail: list[str], jobs: int, base: bool = True) -> list[str]:
    check_folders(pipeline, folder)
    todo = [Job(BASE, None, folder.base, ["evaluate", *tail])] if base and _base_is_due(pipeline, folder) else []
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


def estimate(pipeline: Pipeline, folder: PipelineFolder, todo: list[Job], jobs: int) -> str:
    """What the runs still to do will take: generated tokens by their budgets; critic tokens, money and time by the finished runs, nearest first."""
    runs = [job for job in todo if job.arm in pipeline.arms]
    left = [(1 - (_share(job, pipeline) or 0.0)) for job in runs]
    budgets = [pipeline.arms[job.arm].budget.of for job in runs]
    sums = {kind: sum(b[1] * part for b, part in zip(budgets, left, strict=True) if b and b[0] == kind) for kind in KINDS}
    tokens = ", ".join(f"{spent:,.0f} {kind.replace('_', ' ')}" for kind, spent in sums.items() if spent) or "generated tokens by steps"
    costs = _finished_costs(pipeline, folder)
    if not costs:
        return f"{len(runs)} runs to do: {tokens}; critic tokens, money and time are not known until a run has finished"
    every = [cost for seeds in costs.values() for cost in seeds]
    critic, usd, seconds = (
        sum(part * _mean(costs.get(job.arm, every), key) for job, part in zip(runs, left, strict=True)) for key in ("critic_tokens", "usd", "wall_seconds")
    )
    return (
        f"{len(runs)} runs to do: {tokens}, {critic:,.0f} critic tokens, {usd:.2f} USD, {_clock(seconds / jobs)} with {jobs} at a time "
        f"(by {len(every)} finished runs; without evaluations)"
    )


def _finished_costs(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, list[dict]]:
    costs: dict[str, list[dict]] = {}
    for arm in pipeline.arms:
        for seed in pipeline.seeds:
            run = folder.run(arm, seed)
            if run.finished:
                costs.setdefault(arm, []).append(json.loads(run.evaluation.read_text())["cost"])
    return costs


def _mean(costs: list[dict], key: str) -> float:
    return sum(cost[key] for cost in costs) / len(costs)


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _rows(job: Job) -> list[dict]:
    """The metrics of a job's run; read again only where the file has grown, because a table of many runs is drawn every second."""
    path = job.folder.metrics
    return _read(path, path.stat().st_size) if path.exists() else []


@functools.lru_cache(maxsize=256)
def _read(path: Path, size: int) -> list[dict]:
    return read_jsonl(path)


def _share(job: Job, pipeline: Pipeline) -> float | None:
    """How much of its budget a run has used; None for one without a budget."""
    if job.status == "finished":
        return 1.0
    rows = _rows(job)
    budget = pipeline.arms[job.arm].budget if job.arm in pipeline.arms else None
    if budget is None or not (budget.of or budget.optimizer_steps):
        return None
    name, limit = (KINDS[budget.of[0]], budget.of[1]) if budget.of else ("step", budget.optimizer_steps)
    return min(1.0, next((row[name] for row in reversed(rows) if name in row), 0) / limit)


def time_left(shares: list[float], before: float, seconds: float) -> float | None:
    """Seconds left, by what was done of all runs' budgets since the start, at which `before` of them was done; None too early to say."""
    done = sum(shares) - before
    return None if done < 0.01 * len(shares) else (len(shares) - sum(shares)) * seconds / done


def check_folders(pipeline: Pipeline, folder: PipelineFolder, but: Sequence[str] = ()) -> None:
    """`check_same_config` of every run, without the sections in `but`."""
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            check_same_config(folder.run(arm, seed), config, seed, but)


def check_same_config(run: RunFolder, config: RunConfig, seed: int, but: Sequence[str] = ()) -> None:
    """ConfigError where the folder was started with other settings than these, sections in `but` aside."""
    if not run.config.exists():
        return
    stored, wanted = yaml.safe_load(run.config.read_text()), to_dict(with_seed(config, seed))
    if stored.get("schema", SCHEMA) != SCHEMA:
        raise ConfigError(f"{run.path} has layout {stored['schema']}, this version reads {SCHEMA}; give another --out, or use the version that wrote it")
    stored = _filled(run_defaults(), stored)
    # Which checkpoints are kept changes no result: an arm that branches from a finished run may be added.
    stored, wanted = {**stored, "critic": _lasting(stored["critic"])}, {**wanted, "critic": _lasting(wanted["critic"])}
    changed = [key for key in wanted if key not in ("keep_steps", *but) and stored.get(key) != wanted[key]]
    if changed:
        words = "; ".join(_difference(key, stored.get(key), wanted[key]) for key in changed)
        raise ConfigError(f"{run.path} was started with other settings ({words}); remove the folder, or give another --out")


def _lasting(critic: dict) -> dict:
    """A critic's section without what changes no answer: a run that stopped at a cap, or for a deadline, is continued with another one."""
    kept = {name: value for name, value in critic.items() if name not in OPERATIONAL}
    return {name: _lasting(value) if name == "critic" and isinstance(value, dict) else value for name, value in kept.items()}


def _difference(key: str, was: Any, now: Any) -> str:
    """The options of a section that differ, with both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        return "; ".join(_difference(f"{key}.{name}", was.get(name), now.get(name)) for name in {**was, **now} if was.get(name) != now.get(name))
    return f"{key} {was!r}, now {now!r}"


def _filled(defaults: dict, stored: dict) -> dict:
    """What was stored, with the defaults of options that came later."""
    merged = {**defaults, **stored}
    return {key: {**defaults[key], **value} if isinstance(value, dict) and isinstance(defaults.get(key), dict) else value for key, value in merged.items()}


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
                live.update(_table(todo, pipeline, time_left(shares, before, time.monotonic() - began)))
    except KeyboardInterrupt:
        _stop(running)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    failed = [job for job in done if job.status.startswith("failed")]
    for job in failed:
        print(f"failed: {_name(job)}; see {job.folder.log}", file=sys.stderr)
    return [_name(job) for job in failed]


def _name(job: Job) -> str:
    return job.arm if job.seed is None else f"{job.arm}/seed{job.seed}"


def _ready(waiting: list[Job]) -> list[Job]:
    return [job for job in waiting if (job.trunk is None or job.trunk.finished) and not _is_elsewhere(job)]


def _is_elsewhere(job: Job) -> bool:
    """True where a process of an earlier campaign, killed alone, still trains this run: it is waited for, since two would write one folder."""
    elsewhere = job.folder.path.exists() and is_held(job.folder.path)
    job.status = "running (started before)" if elsewhere else "waiting"
    return elsewhere


def _left_by_others(waiting: list[Job]) -> tuple[list[Job], bool]:
    """The jobs still to wait for, without those that others finished; and whether others are at work."""
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


def _table(todo: list[Job], pipeline: Pipeline, left: float | None = None) -> Table:
    title = f"{pipeline.name}: {sum(job.status == 'finished' for job in todo)} of {len(todo)} runs finished"
    table = Table(title=title + (f", about {_clock(left)} left" if left is not None else ""), title_justify="left")
    for column in ("arm", "seed", "status", "step", "generated", "reward", pipeline.primary, "rescue", "USD", "time"):
        table.add_column(column, overflow="fold")
    for job in todo:
        table.add_row(*_cells(job, pipeline))
    return table


def _cells(job: Job, pipeline: Pipeline) -> list[str]:
    rows = _rows(job) if job.status != "waiting" else []
    last = rows[-1] if rows else {}

    def latest(name: str, form: str = ".2f") -> str:
        value = next((row[name] for row in reversed(rows) if name in row), None)
        return "" if value is None else format(value, form)

    seconds = f"{time.monotonic() - job.started:.0f}s" if job.status == "running" else ""
    budget = pipeline.arms[job.arm].budget.generated_tokens if job.arm in pipeline.arms else None
    generated = latest("tokens/generated", ",.0f") + (f" / {budget:,}" if budget and last else "")
    return [
        job.arm,
        "" if job.seed is None else str(job.seed),
        job.status,
        str(last.get("step", "")),
        generated,
        latest("reward"),
        latest(f"eval/{pipeline.primary}"),
        latest("refine/rescue_rate"),
        f"{spent:.2f}" if (spent := next((row["cost/usd"] for row in reversed(rows) if "cost/usd" in row), 0.0)) else "",
        seconds,
    ]
