"""The progress of a campaign: its estimate before the start, a table of its runs, the time left.

All figures are read from the run folders, so they hold for runs that another process started too.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from critique_rl.config.durable_files import EVALUATE, read_json, readable_rows
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.schema import Pipeline
from critique_rl.costs import KINDS

Costs = dict[str, Any]
"""The cost of one finished run, as eval.json has it."""
Rows = Sequence[dict[str, Any]]
"""Rows of metrics.jsonl."""
COLUMNS = ("arm", "seed", "status", "step", "generated", "reward")
"""Columns of the table before that of the primary metric."""


@dataclass
class Job:
    """One process to run: an arm with a seed, or the evaluation of the base."""

    arm: str
    """Name of the arm, or "base"."""
    seed: int | None
    """None for the base."""
    folder: RunFolder
    """Where the run writes."""
    command: list[str]
    """Arguments of `critique-rl`."""
    trunk: RunFolder | None = None
    """The run it branches from, which must be finished first."""
    status: str = "waiting"
    """Shown in the table; a failure begins with "failed"."""
    started: float = field(default=0.0)
    """When the process was started, in seconds of `time.monotonic`."""
    seconds: float = field(default=0.0)
    """What a process that has ended took."""

    @property
    def name(self) -> str:
        """<arm>/seed<seed>; the arm alone where there is no seed."""
        if self.seed is None:
            return self.arm
        return f"{self.arm}/seed{self.seed}"


def estimate(pipeline: Pipeline, folder: PipelineFolder, todo: list[Job], jobs: int) -> str:
    """Say in one line how much the runs still to do will take.

    Generated tokens follow from the budgets. Critic tokens, money and time follow from the finished
    runs of the same arm, or of all arms where this one has none.

    Args:
        pipeline: Its arms and budgets.
        folder: The results so far.
        todo: Jobs still to do; the evaluation of the base is not counted.
        jobs: Runs at a time.
    """
    runs = [job for job in todo if job.arm in pipeline.arms]
    shares_left = []
    for job in runs:
        used = budget_share(job, pipeline) or 0.0
        shares_left.append(1 - used)
    budgets = _budgets_left(pipeline, runs, shares_left)
    start = f"{len(runs)} runs to do: {budgets}"
    costs = _finished_costs(pipeline, folder)
    if not costs:
        unknown = "critic tokens, money and time are not known until a run has finished"
        return f"{start}; {unknown}"
    costs_of_all_arms = []
    for costs_of_arm in costs.values():
        costs_of_all_arms += costs_of_arm
    totals = {"critic_tokens": 0.0, "usd": 0.0, "wall_seconds": 0.0}
    for job, share in zip(runs, shares_left, strict=True):
        finished = costs.get(job.arm, costs_of_all_arms)
        for key in totals:
            mean = _mean_cost(finished, key)
            totals[key] += share * mean
    critic_tokens = totals["critic_tokens"]
    usd = totals["usd"]
    seconds = totals["wall_seconds"] / jobs
    duration = format_seconds(seconds)
    return (
        f"{start}, {critic_tokens:,.0f} critic tokens, {usd:.2f} USD, "
        f"{duration} with {jobs} at a time "
        f"(by {len(costs_of_all_arms)} finished runs; without evaluations)"
    )


def _budgets_left(pipeline: Pipeline, runs: list[Job], shares_left: list[float]) -> str:
    """The unused part of all budgets, such as "1,500 generated tokens"."""
    sums = dict.fromkeys(KINDS, 0.0)
    for job, share in zip(runs, shares_left, strict=True):
        config = pipeline.arms[job.arm]
        # A budget of steps says nothing about tokens.
        if config.budget.limit is not None:
            kind, limit = config.budget.limit
            sums[kind] += limit * share
    parts = []
    for kind, left in sums.items():
        if left:
            words = kind.replace("_", " ")
            parts.append(f"{left:,.0f} {words}")
    return ", ".join(parts) or "generated tokens by steps"


def _finished_costs(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, list[Costs]]:
    """Arm -> the cost of each of its finished runs; arms without one are left out."""
    costs: dict[str, list[Costs]] = {}
    for arm in pipeline.arms:
        for seed in pipeline.seeds:
            run = folder.run(arm, seed)
            if run.finished:
                evaluation = read_json(run.evaluation, EVALUATE)
                costs_of_arm = costs.setdefault(arm, [])
                cost = evaluation.get("cost")
                costs_of_arm.append(cost if isinstance(cost, dict) else {})
    return costs


def _mean_cost(costs: list[Costs], key: str) -> float:
    values = []
    for cost in costs:
        value = cost.get(key)
        values.append(value if isinstance(value, int | float) else 0.0)
    return sum(values) / len(values)


def format_seconds(seconds: float) -> str:
    """A duration in words for people, such as "3 min"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        hours, minutes = divmod(minutes, 60)
        return f"{hours} h {minutes:02} min"
    if minutes:
        return f"{minutes} min"
    return f"{seconds:.0f} s"


def _metrics(job: Job) -> Rows:
    """Rows of metrics.jsonl; [] before the first step."""
    path = job.folder.metrics
    if not path.exists():
        return []
    # A table of many runs is drawn every second: the size in the cache's key has a file read again
    # only where it has grown.
    size = path.stat().st_size
    return _read_metrics(path, size)


@functools.lru_cache(maxsize=256)
def _read_metrics(path: Path, size: int) -> Rows:
    # The table shows what can be read: a damaged line is the business of who continues the run.
    rows, _ = readable_rows(path)
    return rows


def _latest(rows: Rows, metric: str) -> Any:
    """The newest value of a metric; None where no row has it."""
    # The learning curve has a point every `curve_every` steps only.
    for row in reversed(rows):
        if metric in row:
            return row[metric]
    return None


def budget_share(job: Job, pipeline: Pipeline) -> float | None:
    """How much of its budget a run has used, from 0 to 1.

    Returns:
        None for a run without a budget, and for the evaluation of the base.
    """
    if job.status == "finished":
        return 1.0
    if job.arm not in pipeline.arms:
        return None
    budget = pipeline.arms[job.arm].budget
    if budget.limit is not None:
        kind, limit = budget.limit
        metric = KINDS[kind]
    elif budget.optimizer_steps:
        limit = budget.optimizer_steps
        metric = "step"
    else:
        return None
    spent = _latest(_metrics(job), metric) or 0
    # The last step overshoots a budget of tokens.
    return min(1.0, spent / limit)


def time_left(shares: list[float], before: float, seconds: float) -> float | None:
    """Estimate the seconds left from the pace since the start.

    Args:
        shares: `budget_share` of every run with a budget.
        before: The sum of these shares at the start.
        seconds: Time since the start.

    Returns:
        None where less than 1 % was done since the start, too early to tell, and where no run has
        a budget.
    """
    total = sum(shares)
    done = total - before
    runs = len(shares)
    if not shares or done < 0.01 * runs:
        return None
    shares_left = runs - total
    return shares_left * seconds / done


def ended_line(job: Job, done: int, number: int, left: float | None) -> str:
    """A line of a log for a run that has ended.

    Args:
        job: The run.
        done: Runs that have ended, this one among them.
        number: Runs of the campaign.
        left: The time left in seconds; None where it is not known.
    """
    seconds = format_seconds(job.seconds)
    line = f"{job.name}: {job.status} after {seconds}; {done} of {number} runs"
    if left is not None and done < number:
        line += f", about {format_seconds(left)} left"
    return line


def progress_table(todo: list[Job], pipeline: Pipeline, left: float | None = None) -> Table:
    """The table of a campaign's runs; `left` is the time left in seconds, where it is known."""
    statuses = [job.status for job in todo]
    finished = statuses.count("finished")
    title = f"{pipeline.name}: {finished} of {len(todo)} runs finished"
    if left is not None:
        title += f", about {format_seconds(left)} left"
    table = Table(title=title, title_justify="left")
    for column in (*COLUMNS, pipeline.primary, "rescue", "USD", "time"):
        # Folded, not cut: a reader must be able to tell long names of arms apart.
        table.add_column(column, overflow="fold")
    for job in todo:
        cells = _cells(job, pipeline)
        table.add_row(*cells)
    return table


def _cells(job: Job, pipeline: Pipeline) -> list[str]:
    # Metrics of a waiting job are those that an earlier campaign left.
    rows: Rows = []
    if job.status != "waiting":
        rows = _metrics(job)
    seed = "" if job.seed is None else str(job.seed)
    step = _format_latest(rows[-1:], "step", "")
    generated = _format_latest(rows, "tokens/generated", ",.0f")
    if rows and job.arm in pipeline.arms:
        config = pipeline.arms[job.arm]
        limit = config.budget.generated_tokens
        if limit:
            generated += f" / {limit:,}"
    reward = _format_latest(rows, "reward")
    primary = _format_latest(rows, f"eval/{pipeline.primary}")
    rescue = _format_latest(rows, "refine/rescue_rate")
    usd = ""
    # A run that costs nothing shows no price.
    if _latest(rows, "cost/usd"):
        usd = _format_latest(rows, "cost/usd")
    seconds = ""
    if job.status == "running":
        elapsed = time.monotonic() - job.started
        seconds = f"{elapsed:.0f}s"
    elif job.seconds:
        seconds = f"{job.seconds:.0f}s"
    return [job.arm, seed, job.status, step, generated, reward, primary, rescue, usd, seconds]


def _format_latest(rows: Rows, metric: str, form: str = ".2f") -> str:
    value = _latest(rows, metric)
    if value is None:
        return ""
    return format(value, form)
