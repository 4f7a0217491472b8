"""Equal tuning effort: each arm with each value of one option, judged on validation problems with
seeds of their own; the best one trains the arm.

The trials of a pipeline are a pipeline too, in `<folder>/sweep`, with an arm "<arm>@<value>" for
each; so they are continued, skipped and refused like any run. What was tried and chosen is in
`<folder>/sweep.json`, and in compare.json. Left out: search beyond one list of values, which no
reader could call equal.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import BudgetConfig, Pipeline, RunConfig, SweepConfig


def with_value(config: RunConfig, key: str, value: Any) -> RunConfig:
    """The arm with one option ("trl.learning_rate") set."""
    section, _, option = key.partition(".")
    return replace(config, **{section: {**getattr(config, section), option: value}})


def trials(pipeline: Pipeline) -> Pipeline:
    """The pipeline of all trials: arms "<arm>@<value>", on the validation split, with a share of
    the budget.
    """
    sweep = _of(pipeline)
    arms = {
        f"{arm}@{value:g}": _trial(with_value(config, sweep.key, value), sweep)
        for arm, config in pipeline.arms.items()
        for value in sweep.values
    }
    return replace(
        pipeline,
        name="sweep",
        arms=arms,
        seeds=sweep.seeds,
        control=next(iter(arms)),
        primary=sweep.metric,
        target=None,
        sweep=None,
    )


def _of(pipeline: Pipeline) -> SweepConfig:
    assert pipeline.sweep is not None, "a pipeline without sweep: has no trials"
    return pipeline.sweep


def _trial(config: RunConfig, sweep: SweepConfig) -> RunConfig:
    budget = {f.name: getattr(config.budget, f.name) for f in fields(BudgetConfig)}
    scaled = {
        name: None if limit is None else type(limit)(limit * sweep.budget_share)
        for name, limit in budget.items()
    }
    return replace(
        config,
        budget=BudgetConfig(**scaled),
        evaluation=replace(config.evaluation, split="validation"),
    )


def choose(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, Any]:
    """Read the finished trials, write sweep.json and return it: what each arm was tried with, and
    the value that did best (the first, where two did).
    """
    sweep, arms = _of(pipeline), {}
    for arm in pipeline.arms:
        tried = {value: _score(folder.sweep, f"{arm}@{value:g}", sweep) for value in sweep.values}
        best = max(tried, key=tried.get)
        # A best value at the end of the list says that a better one may lie beyond it.
        arms[arm] = {
            "chosen": best,
            "at_edge": best in (min(tried), max(tried)),
            "tried": {f"{value:g}": score for value, score in tried.items()},
        }
    chosen = {
        "key": sweep.key,
        "metric": sweep.metric,
        "seeds": list(sweep.seeds),
        "budget_share": sweep.budget_share,
        "arms": arms,
    }
    write_json(folder.sweep_choice, chosen)
    return chosen


def _score(folder: PipelineFolder, arm: str, sweep: SweepConfig) -> float:
    scores = [
        json.loads(folder.run(arm, seed).evaluation.read_text())["metrics"].get(sweep.metric)
        for seed in sweep.seeds
    ]
    if None in scores:
        raise ConfigError(
            f"sweep.metric: {arm} has no {sweep.metric!r}; name one of the pass@k that evaluations hold"
        )
    return sum(scores) / len(scores)


def with_chosen(pipeline: Pipeline, folder: PipelineFolder) -> Pipeline:
    """The pipeline with each arm's chosen value, chosen now where the trials have just finished;
    ConfigError where some have not, or had another list.
    """
    if pipeline.sweep is None:
        return pipeline
    path, sweep = folder.sweep_choice, pipeline.sweep
    stored = json.loads(path.read_text()) if path.exists() else _chosen_now(pipeline, folder)
    wanted = sorted(f"{value:g}" for value in sweep.values)
    for arm in pipeline.arms:
        found = stored["arms"].get(arm)
        if found is None or stored["key"] != sweep.key or sorted(found["tried"]) != wanted:
            raise ConfigError(
                f"sweep: nothing chosen for arm {arm} in {path} with these values; critique-rl run tries them first"
            )
    return replace(
        pipeline,
        arms={
            arm: with_value(config, sweep.key, stored["arms"][arm]["chosen"])
            for arm, config in pipeline.arms.items()
        },
    )


def _chosen_now(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, Any]:
    tried = trials(pipeline)
    finished = all(
        folder.sweep.run(arm, seed).finished for arm in tried.arms for seed in tried.seeds
    )
    return choose(pipeline, folder) if finished else {"arms": {}}
