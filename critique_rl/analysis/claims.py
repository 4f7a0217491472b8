"""Published claims as tests on a pipeline's arms: what a `claim:` section says, and what finished
runs say of it. Running them is `cli`'s and `campaign`'s.

    claim:
      says: negative reinforcement keeps pass@k where positive-only loses it
      source: arXiv 2506.01347
      tests:
        - {metric: pass@256/tier2, contrast: {nsr: 1, base: -1}, above: -0.02, says: nsr is not under the base}

A test's value is the sum over arms of coefficient times metric, problem by problem and seed by seed
(`base`, the policy before training, is the same for every seed), with `metrics.crossed_interval`
over both; metrics of whole evaluations (`metrics.EVALUATION_METRICS`) have seeds alone. Reproduced: the whole
interval lies on the expected side of the bound; not reproduced: wholly on the other side, the bound
itself included; else undecided. Left out: a correction for many tests, and verdicts on one seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from critique_rl.analysis.compare import matrix
from critique_rl.analysis.evaluations import METRIC, Evaluation
from critique_rl.config.checks import ConfigError, check_keys, suggest
from critique_rl.config.schema import BudgetConfig, Pipeline
from critique_rl.metrics import EVALUATION_METRICS, Interval, crossed_interval

BOUNDS = ("above", "below", "within")
REPRODUCED, NOT_REPRODUCED, UNDECIDED, NO_VERDICT = (
    "reproduced",
    "not reproduced",
    "undecided",
    "no verdict",
)
QUICK_SHARE, QUICK_PROBLEMS = 0.15, 10
"""Of the budget, and problems a family, for a look at whether everything runs."""


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
    """What the runs say of one test; `interval` is None, and `reason` says why, where there is
    nothing to say.
    """

    test: Test
    interval: Interval | None
    per_seed: Mapping[int, float]
    verdict: str
    reason: str = ""


def parse_claim(pipeline: Pipeline) -> Claim | None:
    """The pipeline's `claim:` section, None where it has none. ConfigError for anything that could
    not be judged.
    """
    data, where = pipeline.claim, f"pipeline {pipeline.name}, claim"
    if data is None:
        return None
    if (
        not isinstance(data, Mapping)
        or not isinstance(data.get("tests"), list)
        or not data["tests"]
    ):
        raise ConfigError(
            f"{where}: got {data!r}, expected says, source and tests such as {{metric: pass@1/all, contrast: {{a: 1, b: -1}}, above: 0}}"
        )
    check_keys(data, ("says", "source", "tests"), where)
    tests = tuple(
        _test(f"{where}, test {i}", item, pipeline) for i, item in enumerate(data["tests"], start=1)
    )
    return Claim(str(data.get("says", pipeline.name)), str(data.get("source", "")), tests)


def _test(where: str, data: Any, pipeline: Pipeline) -> Test:
    if not isinstance(data, Mapping):
        raise ConfigError(
            f"{where}: got {data!r}, expected a mapping with metric, contrast and one of {', '.join(BOUNDS)}"
        )
    check_keys(data, ("metric", "contrast", "says", *BOUNDS), where)
    metric, contrast = str(data.get("metric", "")), data.get("contrast")
    found, evaluation = METRIC.fullmatch(metric), pipeline.arms[pipeline.control].evaluation
    if metric not in EVALUATION_METRICS and not found:
        raise ConfigError(
            f"{where}, metric: got {metric!r}, expected pass@<k>/<family>, <share>/<family>, or one of {', '.join(EVALUATION_METRICS)}"
        )
    if (
        found
        and found[1]
        and not (int(found[1]) in evaluation.ks and int(found[1]) <= evaluation.samples)
    ):
        raise ConfigError(
            f"{where}, metric: got {metric!r}, expected a k of evaluation.ks {list(evaluation.ks)}, at most {evaluation.samples} samples"
        )
    if (
        not isinstance(contrast, Mapping)
        or not contrast
        or not all(map(_is_number, contrast.values()))
    ):
        raise ConfigError(
            f"{where}, contrast: got {contrast!r}, expected arms with coefficients, such as {{nsr: 1, base: -1}}"
        )
    for arm in contrast:
        if arm not in ("base", *pipeline.arms):
            raise ConfigError(
                f"{where}, contrast: no arm {arm!r}; {suggest(str(arm), ('base', *pipeline.arms))}"
            )
    given = [bound for bound in BOUNDS if bound in data]
    if (
        len(given) != 1
        or not _is_number(data[given[0]])
        or (given == ["within"] and data["within"] <= 0)
    ):
        raise ConfigError(
            f"{where}: got {', '.join(given) or 'no bound'}, expected one of {', '.join(BOUNDS)} with a number (within: above 0)"
        )
    return Test(metric, dict(contrast), given[0], float(data[given[0]]), str(data.get("says", "")))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def decide(test: Test, interval: Interval) -> str:
    """The verdict on one test. Bounds are open: a value that is the bound itself is not above it,
    nor below.
    """
    low, high, number = interval.low, interval.high, test.number
    if math.isnan(low):
        return UNDECIDED
    match test.bound:
        case "above":
            holds, fails = low > number, high <= number
        case "below":
            holds, fails = high < number, low >= number
        case _:
            holds, fails = -number < low and high < number, low >= number or high <= -number
    return REPRODUCED if holds else NOT_REPRODUCED if fails else UNDECIDED


def overall(verdicts: Sequence[str]) -> str:
    """Of a claim: not reproduced if one test is not, reproduced if all are, else undecided; without
    a verdict where one has none.
    """
    for verdict in (NO_VERDICT, NOT_REPRODUCED, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return REPRODUCED


def find(
    test: Test, runs: Mapping[str, Mapping[int, Evaluation]], base: Evaluation | None
) -> Finding:
    """Judge one test on the seeds that all of its arms have."""
    trained = [arm for arm in test.contrast if arm != "base"]
    seeds = (
        sorted(set.intersection(*(set(runs.get(arm, {})) for arm in trained))) if trained else [0]
    )
    if not seeds or ("base" in test.contrast and base is None):
        return Finding(test, None, {}, NO_VERDICT, "runs are missing")
    evaluations = [
        base if arm == "base" else runs[arm][seed] for arm in test.contrast for seed in seeds
    ]
    values = matrix(evaluations, test.metric)
    if not values.size:
        return Finding(
            test, None, {}, NO_VERDICT, f"no evaluation of all these arms holds {test.metric}"
        )
    values_SP = np.tensordot(
        list(test.contrast.values()), values.reshape(len(test.contrast), len(seeds), -1), axes=1
    )
    interval, per_seed = (
        crossed_interval(values_SP),
        dict(zip(seeds, values_SP.mean(axis=1).tolist(), strict=True)),
    )
    if len(seeds) < 2:
        return Finding(test, interval, per_seed, NO_VERDICT, "one seed says nothing of other seeds")
    return Finding(test, interval, per_seed, decide(test, interval))


def report(
    pipeline: Pipeline,
    claim: Claim,
    runs: Mapping[str, Mapping[int, Evaluation]],
    base: Evaluation | None,
    sweep: Any = None,
) -> dict[str, Any]:
    """One claim as claims.json holds it: verdict, tests with intervals, and every arm's seeds and
    means of the metrics tested.
    """
    findings = [find(test, runs, base) for test in claim.tests]
    metrics = list(dict.fromkeys(test.metric for test in claim.tests))
    arms = {"base": {0: base}} if base else {}
    arms |= {arm: runs.get(arm, {}) for arm in pipeline.arms}
    return {
        "pipeline": pipeline.name,
        "says": claim.says,
        "source": claim.source,
        "verdict": overall([finding.verdict for finding in findings]),
        "tests": [_told(finding) for finding in findings],
        "arms": {
            arm: {
                "seeds": [] if arm == "base" else sorted(of),
                "means": {metric: _mean(of, metric) for metric in metrics},
            }
            for arm, of in arms.items()
        },
        "sweep": sweep,
    }


def _mean(of: Mapping[int, Evaluation], metric: str) -> float | None:
    values = matrix(list(of.values()), metric) if of else np.empty(0)
    return float(values.mean()) if values.size else None


def _told(finding: Finding) -> dict[str, Any]:
    test, interval = finding.test, finding.interval
    known = interval is not None and math.isfinite(interval.low)
    return {
        "says": test.says,
        "metric": test.metric,
        "contrast": dict(test.contrast),
        "expected": f"{test.bound} {test.number:g}",
        "mean": None if interval is None else interval.mean,
        "ci95": [interval.low, interval.high] if known else None,
        "per_seed": {str(seed): value for seed, value in finding.per_seed.items()},
        "verdict": finding.verdict,
        "reason": finding.reason,
    }


def quick_overrides(pipeline: Pipeline) -> list[str]:
    """A pipeline for a look: its first seed, no sweep, few problems, a small share of every arm's
    budget.
    """
    overrides = [
        f"seeds=[{pipeline.seeds[0]}]",
        "sweep=null",
        f"evaluation.problems={QUICK_PROBLEMS}",
    ]
    for arm, config in pipeline.arms.items():
        for name, limit in ((f.name, getattr(config.budget, f.name)) for f in fields(BudgetConfig)):
            overrides += (
                [f"arms.{arm}.budget.{name}={type(limit)(limit * QUICK_SHARE)}"]
                if limit is not None
                else []
            )
    return overrides


def _reproduced(tests: Sequence[Mapping[str, Any]]) -> str:
    return f"{sum(test['verdict'] == REPRODUCED for test in tests)} of {len(tests)}"


def markdown(claims: Sequence[Mapping[str, Any]]) -> str:
    """The table of all claims, then each with its arms and tests."""
    lines = [
        "# Claims",
        "",
        "| claim | source | tests reproduced | verdict |",
        "|:---|:---|---:|:---|",
    ]
    lines += [
        f"| {c['says']} | {c['source']} | {_reproduced(c['tests'])} | {c['verdict']} |"
        for c in claims
    ]
    for claim in claims:
        lines += [
            "",
            f"## {claim['pipeline']}: {claim['verdict']}",
            "",
            f"{claim['says']} ({claim['source']})",
            "",
        ]
        metrics = list(next(iter(claim["arms"].values()))["means"])
        lines += [
            f"| arm | seeds | {' | '.join(metrics)} |",
            f"|:---|---:|{'---:|' * len(metrics)}",
        ]
        for arm, of in claim["arms"].items():
            values = (
                f"{value:.3f}" if value is not None else "-" for value in of["means"].values()
            )
            lines.append(
                f"| {arm} | {', '.join(map(str, of['seeds'])) or '-'} | {' | '.join(values)} |"
            )
        lines += [
            "",
            "| test | contrast | metric | expected | value and 95% interval | verdict |",
            "|:---|:---|:---|:---|---:|:---|",
        ]
        lines += [_row(test) for test in claim["tests"]]
    return "\n".join(lines) + "\n"


def _row(test: Mapping[str, Any]) -> str:
    contrast = " ".join(f"{coefficient:+g} {arm}" for arm, coefficient in test["contrast"].items())
    value = "-" if test["mean"] is None else f"{test['mean']:+.3f}"
    interval = f" [{test['ci95'][0]:+.3f}, {test['ci95'][1]:+.3f}]" if test["ci95"] else ""
    verdict = f"{test['verdict']}: {test['reason']}" if test["reason"] else test["verdict"]
    return f"| {test['says']} | {contrast} | {test['metric']} | {test['expected']} | {value}{interval} | {verdict} |"
