"""Published claims as tests on a pipeline's arms: the `claim:` section of a pipeline.

    claim:
      says: negative reinforcement keeps pass@k where positive-only loses it
      source: arXiv 2506.01347
      tests:
        - {metric: pass@1/tier3, contrast: {nsr: 1, psr: -1}, delta: 0.05, reason: half of table 2,
           says: nsr keeps more than psr}
        - {metric: pass@256/tier3, contrast: {nsr: 1, base: -1}, above: -0.02,
           says: nsr is not under the base}
      checks:
        - {arm: psr, log: entropy, moves: 0.05, says: the policy moved}

The value of a test is the sum over arms of coefficient times metric, problem by problem and seed by
seed. `base` is the policy before training, the same for every seed. Its interval is that of
`intervals.share_contrast_interval` over problems and seeds. Metrics of a complete evaluation
(`metrics.EVALUATION_METRICS`) have no value per problem, so theirs is over seeds alone. `delta` is
the smallest effect that is worth the claim, with its reason; the rules are in
`analysis.claims.rules`. A check reads what every seed of an arm logged: its mean over the steps is
`above` or `below` a number, or `moves` by it between the first and the last tenth. Where a check
fails, tests of that arm cannot show anything. The others are held against the base where the
contrast has it, else against the pipeline's control, else against the one arm that is subtracted.
Left out: a correction for many tests, and verdicts on one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from critique_rl.analysis.claims.rules import (
    BOUNDS,
    DELTA,
    EQUIVALENCE_LEVEL,
    NO_VERDICT,
    REFUTED,
    UNDECIDED,
    WEAKER,
    WITHIN,
    Check,
    Evidence,
    Room,
    decide,
    distance,
    moves_up,
)
from critique_rl.analysis.evaluations import (
    BASE,
    EXACT,
    METRIC,
    PASS,
    ArmRuns,
    Evaluation,
    parse_metric,
)
from critique_rl.analysis.metric_intervals import arm_contrast, least_value
from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.config.schema import BudgetConfig, Pipeline
from critique_rl.intervals import Interval, excluded_chance
from critique_rl.metrics import EVALUATION_METRICS

QUICK_SHARE = 0.15
"""Share of the budget for a look at whether everything runs."""
QUICK_PROBLEMS = 10
"""Problems per family for such a look."""
EXAMPLE_TEST = "{metric: pass@1/all, contrast: {a: 1, b: -1}, delta: 0.1}"
EXAMPLE_CHECK = "{arm: a, log: entropy, moves: 0.1}"
CHECK_BOUNDS = ("above", "below", "moves")


@dataclass(frozen=True)
class Test:
    """One inequality on a linear combination of arms."""

    metric: str
    contrast: Mapping[str, float]
    """{arm, or "base": coefficient}."""
    bound: str
    """"delta": above 0, and worth the claim from number on; "above", "below", or "within": between
    -number and number.
    """
    number: float
    says: str = ""
    reason: str = ""
    """Why the number is what it is."""
    control: str = ""
    """Of the pipeline."""

    @property
    def reference(self) -> str:
        """The arm that the others are held against; "" where there is none."""
        for name in (BASE, self.control):
            if name in self.contrast:
                return name
        subtracted = [arm for arm, weight in self.contrast.items() if weight < 0]
        if len(subtracted) == 1:
            return subtracted[0]
        return ""


def contrast_words(contrast: Mapping[str, float]) -> str:
    """ "+1 critique -1 scalar"."""
    return " ".join(f"{weight:+g} {arm}" for arm, weight in contrast.items())


@dataclass(frozen=True)
class Claim:
    """A sentence, where it comes from, and what would have to hold."""

    says: str
    source: str
    tests: tuple[Test, ...]
    checks: tuple[Check, ...] = ()


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
    """Why there is no verdict, or why the test cannot show anything."""
    seeds_to_decide: int | None = None
    """Where undecided: the seeds in all that would decide what was observed; None: too many."""
    note: str = ""
    """Of an effect refuted or weaker: which chance of a seed above the bound is excluded."""


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
    check_keys(data, ("says", "source", "tests", "checks"), where)
    parsed = []
    for i, item in enumerate(tests, start=1):
        place = f"{where}, test {i}"
        parsed.append(_parse_test(place, item, pipeline))
    given = data.get("checks") or []
    if not isinstance(given, list):
        raise ConfigError(f"{where}.checks: got {given!r}, expected a list of {EXAMPLE_CHECK}")
    checks = []
    for i, item in enumerate(given, start=1):
        place = f"{where}, check {i}"
        checks.append(_parse_check(place, item, pipeline))
    says = data.get("says", pipeline.name)
    source = data.get("source", "")
    return Claim(str(says), str(source), tuple(parsed), tuple(checks))


def _parse_check(where: str, data: Any, pipeline: Pipeline) -> Check:
    """One entry of `checks:`.

    Raises:
        ConfigError: it could not be judged.
    """
    if not isinstance(data, Mapping) or not data.get("log"):
        raise ConfigError(f"{where}: got {data!r}, expected a mapping such as {EXAMPLE_CHECK}")
    check_keys(data, ("arm", "log", "says", *CHECK_BOUNDS), where)
    arm = str(data.get("arm"))
    if arm not in pipeline.arms:
        raise ConfigError(f"{where}: no arm {arm!r}; {suggest(arm, pipeline.arms)}")
    bound = _parse_bound(where, data, CHECK_BOUNDS)
    log = str(data["log"])
    number = float(data[bound])
    says = str(data.get("says", ""))
    return Check(arm=arm, log=log, bound=bound, number=number, says=says)


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
    check_keys(data, ("metric", "contrast", "says", "reason", *BOUNDS), where)
    metric = str(data.get("metric", ""))
    _check_metric(where, metric, pipeline)
    contrast = _parse_contrast(where, data.get("contrast"), pipeline)
    bound = _parse_bound(where, data, BOUNDS)
    number = float(data[bound])
    says = str(data.get("says", ""))
    reason = str(data.get("reason", ""))
    return Test(
        metric=metric,
        contrast=contrast,
        bound=bound,
        number=number,
        says=says,
        reason=reason,
        control=pipeline.control,
    )


def _check_metric(where: str, metric: str, pipeline: Pipeline) -> None:
    """Refuse metrics that the pipeline's evaluations will not hold.

    Raises:
        ConfigError: no such metric, or no such k.
    """
    if METRIC.fullmatch(metric) is None:
        if metric not in EVALUATION_METRICS:
            raise ConfigError(
                f"{where}, metric: got {metric!r}, expected pass@<k>/<family>, "
                f"exact@<k>/<family>, <share>/<family>, or one of {', '.join(EVALUATION_METRICS)}"
            )
        return
    evaluation = pipeline.arms[pipeline.control].evaluation
    name, k, _ = parse_metric(metric)
    if name == EXACT:
        if not evaluation.exact or k not in evaluation.ks:
            raise ConfigError(
                f"{where}, metric: got {metric!r}, expected evaluation.exact and a k of "
                f"evaluation.ks {list(evaluation.ks)}"
            )
        return
    if name != PASS:
        return
    if k not in evaluation.ks or k > evaluation.samples:
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


def _parse_bound(where: str, data: Mapping[str, Any], bounds: Sequence[str]) -> str:
    """The one key of `bounds` that a test or a check has.

    Raises:
        ConfigError: none or several, or a number that is no bound.
    """
    given = [bound for bound in bounds if bound in data]
    fits = False
    if len(given) == 1:
        bound = given[0]
        number = data[bound]
        fits = _is_number(number)
        # No interval lies between -0 and 0, and an effect of 0 is none.
        if fits and bound in (WITHIN, DELTA):
            fits = number > 0
    if not fits:
        got = ", ".join(given) or "no bound"
        expected = ", ".join(bounds)
        raise ConfigError(
            f"{where}: got {got}, expected one of {expected} with a number (delta, within: above 0)"
        )
    return given[0]


def _is_number(value: Any) -> bool:
    # YAML's true is a bool, which Python counts among the ints.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


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
    coefficients = list(test.contrast.values())
    contrast = arm_contrast(evaluations, coefficients, test.metric)
    if contrast is None:
        reason = f"no evaluation of all these arms holds {test.metric}"
        return Finding(test, None, {}, NO_VERDICT, reason)
    interval = contrast.interval
    means_S = contrast.values_SP.mean(axis=1)
    per_seed = dict(zip(seeds, means_S.tolist(), strict=True))
    if len(seeds) < 2:
        reason = "one seed says nothing of other seeds"
        return Finding(test, interval, per_seed, NO_VERDICT, reason)
    narrow = arm_contrast(evaluations, coefficients, test.metric, EQUIVALENCE_LEVEL)
    assert narrow is not None, "the same contrast has an interval at .95"
    room = _room(test, runs, seeds)
    evidence = Evidence(interval=interval, narrow=narrow.interval, room=room)
    verdict, reason = decide(test.bound, test.number, evidence)
    wanted = None
    if verdict == UNDECIDED:
        away = distance(test.bound, test.number, interval.mean)
        wanted = contrast.seeds_to_decide(away)
    return Finding(
        test=test,
        interval=interval,
        per_seed=per_seed,
        verdict=verdict,
        reason=reason,
        seeds_to_decide=wanted,
        note=_chance_left(test, verdict, list(per_seed.values())),
    )


def _chance_left(test: Test, verdict: str, values: Sequence[float]) -> str:
    """Of an effect that is refuted or weaker in the mean: what its seeds exclude; "" otherwise.

    A seed that takes off with a small chance moves the true mean, and few seeds may not meet it.
    """
    is_effect = test.bound in (DELTA, "above") and test.number >= 0
    if verdict not in (REFUTED, WEAKER) or not is_effect:
        return ""
    seeds = len(values)
    reached = sum(value > test.number for value in values)
    if reached:
        return f"{reached} of {seeds} seeds are above the bound"
    # More often than one in so many would show among these seeds, at 95%.
    most = 1 / excluded_chance(seeds)
    return f"none of {seeds} seeds is above the bound, which excludes that one in {most:.2g} is"


def _room(test: Test, runs: ArmRuns, seeds: Sequence[int]) -> Room | None:
    """What the arm that the others are held against leaves for the move that a test is about.

    That is the effect that is expected, or the loss (or gain) that is tolerated. None where there
    is no such arm, and for equivalence, where a move to either side would show.
    """
    name = test.reference
    if not name or test.bound == WITHIN:
        return None
    weight = test.contrast[name]
    if abs(weight) != 1:
        return None
    evaluations = [runs[name][seed] for seed in seeds]
    alone = arm_contrast([evaluations], (1,), test.metric)
    assert alone is not None, "the arm has a value in the contrast"
    reference = alone.interval.mean
    # The contrast moves up with the other arms where the reference is subtracted.
    is_others_up = (weight < 0) == moves_up(test.bound, test.number)
    if is_others_up:
        return Room("ceiling", reference, 1 - reference)
    return Room("floor", reference, reference - least_value(test.metric))


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


@dataclass(frozen=True)
class Loss:
    """The family, other than the tested one, on which an arm does worst against another."""

    arm: str
    reference: str
    metric: str
    difference: float
    ci95: tuple[float, float] | None


def largest_loss(test: Test, runs: ArmRuns, base: Evaluation | None) -> Loss | None:
    """The largest loss that comes with what a test asks for.

    Args:
        test: arms with a positive coefficient are held against those with a negative one; the
            other way round where the reference has the positive one, as for what falls.
        runs: arm -> evaluations by seed.
        base: the policy before training.

    Returns:
        The least difference of pass@1 on another family, which may be a gain; None where there is
        no other family, or no arm to hold against.
    """
    seeds = _shared_seeds(test, runs)
    if not seeds:
        return None
    if base is not None:
        runs = {**runs, BASE: dict.fromkeys(seeds, base)}
    sign = 1.0
    if test.contrast.get(test.reference, 0) > 0:
        sign = -1.0
    arms = []
    references = []
    for arm, weight in test.contrast.items():
        if sign * weight < 0:
            references.append(arm)
        elif arm != BASE:
            arms.append(arm)
    losses = []
    for arm in arms:
        for reference in references:
            if reference in runs:
                losses += _differences_by_family(test, runs, seeds, (arm, reference))
    return min(losses, key=lambda loss: loss.difference, default=None)


def _differences_by_family(
    test: Test, runs: ArmRuns, seeds: Sequence[int], pair: tuple[str, str]
) -> list[Loss]:
    arm, reference = pair
    of_arm = [runs[arm][seed] for seed in seeds]
    of_reference = [runs[reference][seed] for seed in seeds]
    families: dict[str, None] = {}
    for problem in of_arm[0].problems.values():
        families[problem.family] = None
    _, _, tested = test.metric.partition("/")
    differences = []
    for family in families:
        metric = f"pass@1/{family}"
        if family == tested:
            continue
        contrast = arm_contrast([of_arm, of_reference], (1, -1), metric)
        if contrast is None:
            continue
        interval = contrast.interval
        ci95 = None
        if math.isfinite(interval.low):
            ci95 = (interval.low, interval.high)
        loss = Loss(
            arm=arm, reference=reference, metric=metric, difference=interval.mean, ci95=ci95
        )
        differences.append(loss)
    return differences


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
