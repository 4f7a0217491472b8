"""Published claims as tests on a pipeline's arms: the `claim:` section of a pipeline, and verdicts.

    claim:
      says: negative reinforcement keeps pass@k where positive-only loses it
      source: arXiv 2506.01347
      tests:
        - {metric: pass@256/tier2, contrast: {nsr: 1, base: -1}, above: -0.02,
           says: nsr is not under the base}

The value of a test is the sum over arms of coefficient times metric, problem by problem and seed by
seed. `base` is the policy before training, the same for every seed. The interval is
`intervals.crossed_interval` over problems and seeds. Metrics of a complete evaluation
(`metrics.EVALUATION_METRICS`) have no value per problem, so theirs is over seeds alone. Reproduced:
the complete interval lies on the expected side of the bound. Not reproduced: it lies on the other
side, the bound itself included. Else undecided. Left out: a correction for many tests, and verdicts
on one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from critique_rl.analysis.evaluations import BASE, METRIC, ArmRuns, Evaluation
from critique_rl.analysis.metric_intervals import arm_contrast
from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.config.schema import BudgetConfig, Pipeline
from critique_rl.intervals import Interval
from critique_rl.metrics import EVALUATION_METRICS

BOUNDS = ("above", "below", "within")
REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
UNDECIDED = "undecided"
NO_VERDICT = "no verdict"
QUICK_SHARE = 0.15
"""Share of the budget for a look at whether everything runs."""
QUICK_PROBLEMS = 10
"""Problems per family for such a look."""
EXAMPLE_TEST = "{metric: pass@1/all, contrast: {a: 1, b: -1}, above: 0}"


@dataclass(frozen=True)
class Test:
    """One inequality on a linear combination of arms."""

    metric: str
    contrast: Mapping[str, float]
    """{arm, or "base": coefficient}."""
    bound: str
    """"above", "below", or "within": between -number and number."""
    number: float
    says: str = ""


@dataclass(frozen=True)
class Claim:
    """A sentence, where it comes from, and what would have to hold."""

    says: str
    source: str
    tests: tuple[Test, ...]


@dataclass(frozen=True)
class Finding:
    """The runs' answer to one test."""

    test: Test
    interval: Interval | None
    """None where there is nothing to say."""
    per_seed: Mapping[int, float]
    """Seed -> the contrast's mean over problems."""
    verdict: str
    reason: str = ""
    """Why there is no verdict."""


def parse_claim(pipeline: Pipeline) -> Claim | None:
    """The pipeline's `claim:` section; None where it has none.

    Raises:
        ConfigError: a part of it could not be judged.
    """
    data = pipeline.claim
    where = f"pipeline {pipeline.name}, claim"
    if data is None:
        return None
    tests = data.get("tests") if isinstance(data, Mapping) else None
    if not isinstance(tests, list) or not tests:
        raise ConfigError(
            f"{where}: got {data!r}, expected says, source and tests such as {EXAMPLE_TEST}"
        )
    check_keys(data, ("says", "source", "tests"), where)
    parsed = []
    for i, item in enumerate(tests, start=1):
        place = f"{where}, test {i}"
        parsed.append(_parse_test(place, item, pipeline))
    says = data.get("says", pipeline.name)
    source = data.get("source", "")
    return Claim(str(says), str(source), tuple(parsed))


def _parse_test(where: str, data: Any, pipeline: Pipeline) -> Test:
    """One entry of `tests:`.

    Raises:
        ConfigError: it could not be judged.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where}: got {data!r}, expected a mapping with metric, contrast and one of "
            f"{', '.join(BOUNDS)}"
        )
    check_keys(data, ("metric", "contrast", "says", *BOUNDS), where)
    metric = str(data.get("metric", ""))
    _check_metric(where, metric, pipeline)
    contrast = _parse_contrast(where, data.get("contrast"), pipeline)
    bound = _parse_bound(where, data)
    number = float(data[bound])
    says = str(data.get("says", ""))
    return Test(metric, contrast, bound, number, says)


def _check_metric(where: str, metric: str, pipeline: Pipeline) -> None:
    """Refuse metrics that the pipeline's evaluations will not hold.

    Raises:
        ConfigError: no such metric, or no such k.
    """
    match = METRIC.fullmatch(metric)
    if match is None:
        if metric not in EVALUATION_METRICS:
            raise ConfigError(
                f"{where}, metric: got {metric!r}, expected pass@<k>/<family>, <share>/<family>, "
                f"or one of {', '.join(EVALUATION_METRICS)}"
            )
        return
    evaluation = pipeline.arms[pipeline.control].evaluation
    k = match[1]
    if k is None:
        return
    known = int(k) in evaluation.ks
    if not known or int(k) > evaluation.samples:
        raise ConfigError(
            f"{where}, metric: got {metric!r}, expected a k of evaluation.ks "
            f"{list(evaluation.ks)}, at most {evaluation.samples} samples"
        )


def _parse_contrast(where: str, contrast: Any, pipeline: Pipeline) -> dict[str, float]:
    """The coefficients of known arms.

    Raises:
        ConfigError: no mapping, no number, or no such arm.
    """
    values = list(contrast.values()) if isinstance(contrast, Mapping) else []
    if not values or not all(map(_is_number, values)):
        raise ConfigError(
            f"{where}, contrast: got {contrast!r}, expected arms with coefficients, such as "
            f"{{nsr: 1, base: -1}}"
        )
    names = (BASE, *pipeline.arms)
    for arm in contrast:
        if arm not in names:
            advice = suggest(str(arm), names)
            raise ConfigError(f"{where}, contrast: no arm {arm!r}; {advice}")
    return dict(contrast)


def _parse_bound(where: str, data: Mapping[str, Any]) -> str:
    """The one key of `BOUNDS` that a test has.

    Raises:
        ConfigError: none or several, or a number that is no bound.
    """
    given = [bound for bound in BOUNDS if bound in data]
    fits = False
    if len(given) == 1:
        bound = given[0]
        number = data[bound]
        fits = _is_number(number)
        # No interval lies between -0 and 0.
        if fits and bound == "within":
            fits = number > 0
    if not fits:
        got = ", ".join(given) or "no bound"
        expected = ", ".join(BOUNDS)
        raise ConfigError(
            f"{where}: got {got}, expected one of {expected} with a number (within: above 0)"
        )
    return given[0]


def _is_number(value: Any) -> bool:
    # YAML's true is a bool, which Python counts among the ints.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def decide(test: Test, interval: Interval) -> str:
    """The verdict on one test.

    Args:
        test: its bound is open.
        interval: of the test's value; NaN ends leave it undecided.
    """
    low = interval.low
    high = interval.high
    number = test.number
    if math.isnan(low):
        return UNDECIDED
    # Bounds are open: a value that is the bound itself is neither above nor below it.
    if test.bound == "above":
        holds = low > number
        fails = high <= number
    elif test.bound == "below":
        holds = high < number
        fails = low >= number
    else:
        holds = -number < low and high < number
        fails = low >= number or high <= -number
    if holds:
        return REPRODUCED
    if fails:
        return NOT_REPRODUCED
    return UNDECIDED


def overall(verdicts: Sequence[str]) -> str:
    """The verdict on a claim.

    Args:
        verdicts: those on its tests, in any order.
    """
    # In this order: one test without a verdict leaves the claim without one, and one test that is
    # not reproduced refutes it.
    for verdict in (NO_VERDICT, NOT_REPRODUCED, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return REPRODUCED


def judge(test: Test, runs: ArmRuns, base: Evaluation | None) -> Finding:
    """Judge one test on the seeds that all of its arms have.

    Args:
        test: names arms of `runs`, or "base".
        runs: arm -> evaluations by seed.
        base: the policy before training; None where it was not evaluated.
    """
    seeds = _shared_seeds(test, runs)
    if base is not None:
        # The base is the same for every seed.
        runs = {**runs, BASE: dict.fromkeys(seeds, base)}
    if not seeds or any(arm not in runs for arm in test.contrast):
        return Finding(test, None, {}, NO_VERDICT, "runs are missing")
    evaluations = []
    for arm in test.contrast:
        evaluations.append([runs[arm][seed] for seed in seeds])
    contrast = arm_contrast(evaluations, list(test.contrast.values()), test.metric)
    if contrast is None:
        reason = f"no evaluation of all these arms holds {test.metric}"
        return Finding(test, None, {}, NO_VERDICT, reason)
    interval = contrast.interval
    means_S = contrast.values_SP.mean(axis=1)
    per_seed = dict(zip(seeds, means_S.tolist(), strict=True))
    if len(seeds) < 2:
        reason = "one seed says nothing of other seeds"
        return Finding(test, interval, per_seed, NO_VERDICT, reason)
    return Finding(test, interval, per_seed, decide(test, interval))


def _shared_seeds(test: Test, runs: ArmRuns) -> list[int]:
    seeds = []
    for arm in test.contrast:
        if arm != BASE:
            evaluated = runs.get(arm, {})
            seeds.append(set(evaluated))
    if not seeds:
        # The base alone has no seeds, but one evaluation.
        return [0]
    return sorted(set.intersection(*seeds))


def quick_overrides(pipeline: Pipeline) -> list[str]:
    """Overrides that make a pipeline a look at whether everything runs.

    Returns:
        `key=value` as the command line takes them: the first seed, no sweep, few problems, and a
        small share of every arm's budget.
    """
    overrides = [
        f"seeds=[{pipeline.seeds[0]}]",
        "sweep=null",
        f"evaluation.problems={QUICK_PROBLEMS}",
    ]
    for arm, config in pipeline.arms.items():
        for item in fields(BudgetConfig):
            limit = getattr(config.budget, item.name)
            if limit is not None:
                # Tokens and steps stay integers.
                quick_limit = type(limit)(limit * QUICK_SHARE)
                overrides.append(f"arms.{arm}.budget.{item.name}={quick_limit}")
    return overrides
