"""Equal tuning effort: each arm is tried with each value of one option, on validation problems and
with seeds that no other run has. The best value trains the arm.

The trials of a pipeline are a pipeline too, in `<folder>/sweep`, with an arm "<arm>@<value>" for
each; so they are continued, skipped and refused like any run. `<folder>/sweep.json` and
compare.json hold the tried values, their scores and the choice. `extend` lets the list grow by one
value at a time, for all arms, while some arm does best at its end. Left out: other search, which no
reader could call equal.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import (
    EVALUATE,
    DamagedFile,
    check_checksum,
    read_json,
    write_json,
)
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import BudgetConfig, Pipeline, RunConfig, SweepConfig

UNSTABLE = 0.2
"""Seeds of a trial that differ by more: one of them took off or collapsed, and their mean is
chance.
"""


def with_value(config: RunConfig, key: str, value: Any) -> RunConfig:
    """The arm with one option set; `key` is "trl.<option>" or "method.<option>"."""
    section, _, option = key.partition(".")
    if section == "trl":
        return replace(config, trl={**config.trl, option: value})
    return replace(config, method={**config.method, option: value})


def trials(pipeline: Pipeline) -> Pipeline:
    """The pipeline of all trials: arms "<arm>@<value>", on the validation split, with a share of
    the budget.
    """
    sweep = _sweep_config(pipeline)
    arms = {}
    for arm, config in pipeline.arms.items():
        for value in sweep.values:
            tried = with_value(config, sweep.key, value)
            arms[_trial_arm(arm, value)] = _trial(tried, sweep)
    return replace(
        pipeline,
        name="sweep",
        arms=arms,
        seeds=sweep.seeds,
        control=next(iter(arms)),
        primary=sweep.metric,
        target=None,
        delta=None,
        sweep=None,
    )


def _sweep_config(pipeline: Pipeline) -> SweepConfig:
    assert pipeline.sweep is not None, "a pipeline without sweep: has no trials"
    return pipeline.sweep


def _trial_arm(arm: str, value: float) -> str:
    return f"{arm}@{value:g}"


def _trial(config: RunConfig, sweep: SweepConfig) -> RunConfig:
    limits = {}
    for name, limit in asdict(config.budget).items():
        if limit is not None:
            # Limits in tokens and steps stay integers: the share is rounded down.
            limits[name] = type(limit)(limit * sweep.budget_share)
    # Judged on validation problems, so that the choice does not see the test split.
    evaluation = replace(config.evaluation, split="validation")
    return replace(config, budget=BudgetConfig(**limits), evaluation=evaluation)


def choose(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, Any]:
    """Choose each arm's value by the finished trials, and write sweep.json.

    Returns:
        The content of sweep.json: each arm's scores and the value that did best among those that
        are not `UNSTABLE`, if there are any. Of two values that did equally well, the first counts.

    Raises:
        ConfigError: an evaluation lacks the sweep's metric.
    """
    sweep = _sweep_config(pipeline)
    arms = {}
    for arm in pipeline.arms:
        means = {}
        unstable = []
        for value in sweep.values:
            scores = _scores(folder.sweep, arm, value, sweep)
            means[value] = sum(scores) / len(scores)
            if max(scores) - min(scores) > UNSTABLE:
                unstable.append(value)
        stable = [value for value in means if value not in unstable]
        best = max(stable or means, key=lambda value: means[value])
        arms[arm] = {
            "chosen": best,
            # A better value may lie beyond the end of the list.
            "at_edge": best in (min(means), max(means)),
            "tried": {f"{value:g}": mean for value, mean in means.items()},
        }
        if unstable:
            arms[arm]["unstable"] = [f"{value:g}" for value in unstable]
    choice = {
        "key": sweep.key,
        "metric": sweep.metric,
        "seeds": list(sweep.seeds),
        "budget_share": sweep.budget_share,
        "arms": arms,
    }
    write_json(folder.sweep_choice, choice)
    return choice


def extended(pipeline: Pipeline, choice: dict[str, Any]) -> Pipeline | None:
    """The pipeline with a value more beyond each end of the list at which some arm did best.

    Args:
        pipeline: with the values that were tried.
        choice: of those, as `choose` gives it.

    Returns:
        None where no arm did best at an end.
    """
    sweep = _sweep_config(pipeline)
    values = sorted(sweep.values)
    chosen = [arm["chosen"] for arm in choice["arms"].values()]
    grown = []
    if values[0] in chosen:
        grown.append(values[0] ** 2 / values[1])
    if values[-1] in chosen:
        grown.append(values[-1] ** 2 / values[-2])
    if not grown:
        return None
    # Three digits: a folder's name and a command's word hold the value.
    rounded = [float(f"{value:.3g}") for value in grown]
    return replace(pipeline, sweep=replace(sweep, values=(*sweep.values, *rounded)))


def _scores(folder: PipelineFolder, arm: str, value: float, sweep: SweepConfig) -> list[float]:
    """A trial's metric on each seed.

    Raises:
        ConfigError: an evaluation lacks the metric.
    """
    trial = _trial_arm(arm, value)
    scores = []
    for seed in sweep.seeds:
        path = folder.run(trial, seed).evaluation
        evaluation = read_json(path, EVALUATE)
        check_checksum(path, evaluation, EVALUATE)
        metrics = evaluation.get("metrics")
        score = metrics.get(sweep.metric) if isinstance(metrics, dict) else None
        if score is None:
            raise ConfigError(
                f"sweep.metric: {trial} has no {sweep.metric!r}; "
                "name one of the pass@k that evaluations hold"
            )
        scores.append(score)
    return scores


def with_chosen(pipeline: Pipeline, folder: PipelineFolder) -> Pipeline:
    """The pipeline with each arm's chosen value, which is chosen now if all trials have finished.

    Raises:
        ConfigError: trials are missing, or tried another list of values.
    """
    sweep = pipeline.sweep
    if sweep is None:
        return pipeline
    path = folder.sweep_choice
    if path.exists():
        choice = _read_choice(path)
    else:
        choice = _choose_if_finished(pipeline, folder)
    values = {f"{value:g}" for value in sweep.values}
    arms = {}
    for arm, config in pipeline.arms.items():
        chosen = choice["arms"].get(arm)
        # A stored choice holds only for the option and the values that it was made among.
        fits = chosen is not None and choice["key"] == sweep.key
        if fits:
            tried = set(chosen["tried"])
            fits = values <= tried if sweep.extend else values == tried
        if not fits:
            raise ConfigError(
                f"sweep: nothing chosen for arm {arm} in {path} with these values; "
                "critique-rl run tries them first"
            )
        arms[arm] = with_value(config, sweep.key, chosen["chosen"])
    return replace(pipeline, arms=arms)


def _read_choice(path: Path) -> dict[str, Any]:
    """The stored choice. Raises DamagedFile where it says nothing of that kind."""
    advice = "delete it, and critique-rl run chooses again from the trials"
    choice = read_json(path, advice)
    arms = choice.get("arms")
    choices = list(arms.values()) if isinstance(arms, dict) else [None]
    if "key" not in choice or not all(map(_is_choice, choices)):
        raise DamagedFile(path, "no choice of a sweep", advice)
    return choice


def _is_choice(arm: Any) -> bool:
    if not isinstance(arm, dict) or not isinstance(arm.get("tried"), dict):
        return False
    return isinstance(arm.get("chosen"), int | float)


def _choose_if_finished(pipeline: Pipeline, folder: PipelineFolder) -> dict[str, Any]:
    """The choice, or one without arms if a trial has not finished."""
    trial_pipeline = trials(pipeline)
    for arm in trial_pipeline.arms:
        for seed in trial_pipeline.seeds:
            if not folder.sweep.run(arm, seed).finished:
                return {"arms": {}}
    return choose(pipeline, folder)
