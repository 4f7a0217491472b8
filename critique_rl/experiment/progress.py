"""What a campaign shows while it runs: a table of runs, estimates, time left."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.table import Table

from critique_rl.config.run_folder import PipelineFolder, RunFolder, read_jsonl
from critique_rl.config.schema import Pipeline
from critique_rl.costs import KINDS


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


def estimate(pipeline: Pipeline, folder: PipelineFolder, todo: list[Job], jobs: int) -> str:
    """What the runs still to do will take: generated tokens by their budgets; critic tokens, money
    and time by the finished runs, nearest first.
    """
    runs = [job for job in todo if job.arm in pipeline.arms]
    left = [(1 - (_share(job, pipeline) or 0.0)) for job in runs]
    budgets = [pipeline.arms[job.arm].budget.of for job in runs]
    sums = {
        kind: sum(b[1] * part for b, part in zip(budgets, left, strict=True) if b and b[0] == kind)
        for kind in KINDS
    }
    tokens = (
        ", ".join(f"{spent:,.0f} {kind.replace('_', ' ')}" for kind, spent in sums.items() if spent)
        or "generated tokens by steps"
    )
    costs = _finished_costs(pipeline, folder)
    if not costs:
        return f"{len(runs)} runs to do: {tokens}; critic tokens, money and time are not known until a run has finished"
    every = [cost for seeds in costs.values() for cost in seeds]
    critic, usd, seconds = (
        sum(
            part * _mean(costs.get(job.arm, every), key)
            for job, part in zip(runs, left, strict=True)
        )
        for key in ("critic_tokens", "usd", "wall_seconds")
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
    return (
        f"{minutes // 60} h {minutes % 60:02} min"
        if minutes >= 60
        else f"{minutes} min"
        if minutes
        else f"{seconds:.0f} s"
    )


def _rows(job: Job) -> list[dict]:
    """The metrics of a job's run; read again only where the file has grown, because a table of many
    runs is drawn every second.
    """
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
    name, limit = (
        (KINDS[budget.of[0]], budget.of[1]) if budget.of else ("step", budget.optimizer_steps)
    )
    return min(1.0, next((row[name] for row in reversed(rows) if name in row), 0) / limit)


def time_left(shares: list[float], before: float, seconds: float) -> float | None:
    """Seconds left, by what was done of all runs' budgets since the start, at which `before` of
    them was done; None too early to say.
    """
    done = sum(shares) - before
    return None if done < 0.01 * len(shares) else (len(shares) - sum(shares)) * seconds / done


def _name(job: Job) -> str:
    return job.arm if job.seed is None else f"{job.arm}/seed{job.seed}"


def _table(todo: list[Job], pipeline: Pipeline, left: float | None = None) -> Table:
    title = f"{pipeline.name}: {sum(job.status == 'finished' for job in todo)} of {len(todo)} runs finished"
    table = Table(
        title=title + (f", about {_clock(left)} left" if left is not None else ""),
        title_justify="left",
    )
    for column in (
        "arm",
        "seed",
        "status",
        "step",
        "generated",
        "reward",
        pipeline.primary,
        "rescue",
        "USD",
        "time",
    ):
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
        f"{spent:.2f}"
        if (spent := next((row["cost/usd"] for row in reversed(rows) if "cost/usd" in row), 0.0))
        else "",
        seconds,
    ]
