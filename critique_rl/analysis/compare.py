"""Arms against a control: paired differences on the same problems and seeds, with intervals over
both (`metrics.crossed_interval`).

Every number written to compare.json was measured in one way: evaluations with another task, split,
sampling or other problems than the control's are left out and listed with the reason. Problems are
paired by id, seeds by number; a problem without enough judged samples in one of the paired
evaluations drops out of that pair, and `problems` counts what is left. No correction for many arms:
the primary metric and the control are named before the run, and the verdict speaks of every arm,
never of the best one alone.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from critique_rl.analysis.evaluations import (
    COSTS,
    METRIC,
    Evaluation,
    Runs,
    _parse,
    read_evaluation,
)
from critique_rl.analysis.learning_curves import to_target
from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.costs import KINDS
from critique_rl.metrics import (
    EVALUATION_METRICS,
    crossed_interval,
    expected_calibration_error,
    reliability_bins,
    sign_flip_p,
)


def compare(
    folder: PipelineFolder,
    control: str,
    primary: str,
    arms: Sequence[str],
    seeds: Sequence[int],
    target: float | None = None,
    measure: str = "generated_tokens",
) -> dict[str, Any]:
    """Read every eval.json of the pipeline and return what compare.json is to hold.

    Beside `arms` and `comparisons` it has `control`, `primary`, `seeds`, `base` (metrics of the
    untrained policy, or None), `pairs` (every arm against every earlier one, on the primary
    metric), `boundary` (problems newly solved and newly lost against the base, None without one),
    `second` (the same under `evaluation.second_template`: base, arms, comparisons; None without
    one), `sweep` (what each arm was tried with, or None), `measure` (of `costs.KINDS`: what is
    counted until `target`), `missing` (runs without eval.json) and `incomparable` (evaluations and
    pairs left out, with the reason). Raises ConfigError where there is nothing to compare.
    """
    if control not in arms:
        raise ConfigError(
            f"got control {control!r}, expected one of the arms {', '.join(arms)}: name one of them as `control`"
        )
    found, kept, base, incomparable = read_runs(folder, control, arms, seeds)
    again = (
        read_evaluation(folder.base_again.evaluation, "base")
        if base and folder.base_again.finished
        else None
    )
    metrics = _metric_names([e for runs in kept.values() for e in runs.values()], primary)
    comparisons, unpaired = _comparisons(kept, control, metrics)
    summaries = {arm: _arm_summary(runs, metrics) for arm, runs in kept.items() if runs}
    if target is not None:
        reached = {
            arm: to_target(
                {seed: folder.run(arm, seed) for seed in kept[arm]}, primary, target, KINDS[measure]
            )
            for arm in summaries
        }
        summaries = {
            arm: {**summary, "to_target": reached[arm]} for arm, summary in summaries.items()
        }
    return {
        "target": target,
        "measure": measure,
        "control": control,
        "primary": primary,
        "seeds": list(seeds),
        "arms": summaries,
        "base": None if base is None else {name: base.metrics.get(name) for name in metrics},
        "comparisons": comparisons,
        "pairs": _all_pairs(kept, primary),
        "boundary": _boundary(kept, base, again),
        "second": _second(kept, control, base, primary),
        "sweep": json.loads(folder.sweep_choice.read_text())
        if folder.sweep_choice.exists()
        else None,
        "missing": [
            {"arm": arm, "seed": seed} for arm in arms for seed in seeds if seed not in found[arm]
        ],
        "incomparable": incomparable + unpaired,
    }


def read_runs(
    folder: PipelineFolder, control: str, arms: Sequence[str], seeds: Sequence[int]
) -> tuple[dict[str, Runs], dict[str, Runs], Evaluation | None, list[dict[str, Any]]]:
    """(all evaluations, those measured alike, the base's, what was left out and why). ConfigError
    where there is none.
    """
    found = {
        arm: {
            s: read_evaluation(folder.run(arm, s).evaluation, arm, s)
            for s in seeds
            if folder.run(arm, s).finished
        }
        for arm in arms
    }
    if not any(found.values()):
        raise ConfigError(
            f"got no eval.json under {folder.path}, expected {arms[0]}/seed{seeds[0]}/eval.json and the like: train the arms first"
        )
    base = read_evaluation(folder.base.evaluation, "base") if folder.base.finished else None
    return found, *_measured_alike(found, control, base)


def _second(
    kept: dict[str, Runs], control: str, base: Evaluation | None, primary: str
) -> dict[str, Any] | None:
    """What the arms do with the same problems in other words: {"template", "base", "arms": {arm:
    {"metrics"}}, "comparisons"}.
    """
    found = {
        arm: {seed: e.second for seed, e in runs.items() if e.second} for arm, runs in kept.items()
    }
    if not any(found.values()):
        return None
    found, base, left_out = _measured_alike(found, control, base.second if base else None)
    metrics = _metric_names([e for runs in found.values() for e in runs.values()], primary)
    arms = {arm: {"metrics": _summaries(runs, metrics)} for arm, runs in found.items() if runs}
    template = next(e.protocol["template"] for runs in found.values() for e in runs.values())
    before = None if base is None else {name: base.metrics.get(name) for name in metrics}
    comparisons, unpaired = _comparisons(found, control, metrics)
    return {
        "template": template,
        "base": before,
        "arms": arms,
        "comparisons": comparisons,
        "incomparable": left_out + unpaired,
    }


def _measured_alike(
    found: dict[str, Runs], control: str, base: Evaluation | None
) -> tuple[dict[str, Runs], Evaluation | None, list[dict[str, Any]]]:
    """(arms without the evaluations that differ from the reference, base or None, what was left out
    and why).
    """
    reference = _reference(
        found[control].values() or [e for runs in found.values() for e in runs.values()]
    )
    left_out = []
    for arm, runs in [*found.items(), ("base", {None: base} if base else {})]:
        for seed, evaluation in runs.items():
            if reason := _difference(evaluation, reference):
                left_out.append({"arm": arm, "seed": seed, "reason": reason})
    dropped = {(item["arm"], item["seed"]) for item in left_out}
    kept = {
        arm: {s: e for s, e in runs.items() if (arm, s) not in dropped}
        for arm, runs in found.items()
    }
    return kept, None if ("base", None) in dropped else base, left_out


def _reference(evaluations: Iterable[Evaluation]) -> Evaluation:
    """The first evaluation with the commonest protocol, so that one odd seed of the control does
    not throw out everybody else.
    """
    evaluations = list(evaluations)
    protocols = [json.dumps(e.protocol, sort_keys=True) for e in evaluations]
    return evaluations[protocols.index(Counter(protocols).most_common(1)[0][0])]


def _difference(evaluation: Evaluation, reference: Evaluation) -> str:
    """Why the two cannot be compared, "" where they can."""
    got = _flat(evaluation.protocol)
    expected = _flat(reference.protocol)
    differing = [
        f"{key} {got.get(key)} instead of {expected.get(key)}"
        for key in {**expected, **got}
        if got.get(key) != expected.get(key)
    ]
    if not differing and not evaluation.counts.keys() & reference.counts.keys():
        differing = ["none of its problems is among the control's"]
    return (
        f"evaluated with {', '.join(differing)}: evaluate it again as the control was"
        if differing
        else ""
    )


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """{"split": "test", "task.name": ..., "versions.trl": ...}: a difference is named by the part
    that differs.
    """
    parts = {
        key: value if isinstance(value, dict) else {"": value} for key, value in protocol.items()
    }
    return {
        f"{key}.{name}".rstrip("."): value
        for key, inner in parts.items()
        for name, value in inner.items()
    }


def _metric_names(evaluations: Sequence[Evaluation], primary: str) -> list[str]:
    """Names of all metrics, the primary first, then pass@k by k, then shares, then those of whole
    evaluations.
    """
    found = {name for e in evaluations for name in e.metrics}
    names = sorted((name for name in found if METRIC.fullmatch(name)), key=_order) + [
        name for name in EVALUATION_METRICS if name in found
    ]
    if primary not in names:
        raise ConfigError(
            f"got primary {primary!r}, expected one of {', '.join(sorted(names)) or '(no pass@k metric found)'}: correct `primary`"
        )
    return sorted(names, key=lambda name: name != primary)


def _order(metric: str) -> tuple[bool, int, str, str]:
    name, k, family = _parse(metric)
    return name != "pass", k, name, family


def _arm_summary(runs: Runs, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "metrics": _summaries(runs, metrics),
        "cost": {name: float(np.mean([e.cost[name] for e in runs.values()])) for name in COSTS},
        "unscored": sum(e.unscored for e in runs.values()),
        "reliability": _reliability([vote for e in runs.values() for vote in e.votes]),
    }


def _summaries(runs: Runs, metrics: Sequence[str]) -> dict[str, Any]:
    return {metric: summary for metric in metrics if (summary := _summary(runs, metric))}


def _reliability(votes: Sequence[tuple[float, bool]]) -> dict[str, Any] | None:
    """How sure a policy is, and how often it is right then; None where evaluations hold no votes."""
    if not votes:
        return None
    confidence, right = zip(*votes, strict=True)
    words = "share of a problem's samples that gave its commonest answer"
    return {
        "confidence": words,
        "ece": expected_calibration_error(confidence, right),
        "bins": [asdict(of) for of in reliability_bins(confidence, right)],
    }


def _summary(runs: Runs, metric: str) -> dict[str, Any] | None:
    values_SP = matrix(list(runs.values()), metric)
    if not values_SP.size:
        return None
    mean, ci95 = _estimate(values_SP)
    return {
        "mean": mean,
        "ci95": ci95,
        "per_seed": _per_seed(runs, values_SP),
        "problems": values_SP.shape[1],
    }


def _comparisons(
    kept: dict[str, Runs], control: str, metrics: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(paired differences of every arm on every metric, pairs that could not be made)."""
    pairs, unpaired = [], []
    for arm in (name for name, runs in kept.items() if name != control and runs):
        seeds = sorted(kept[arm].keys() & kept[control].keys())
        if not seeds:
            unpaired.append(
                {
                    "arm": arm,
                    "seed": None,
                    "reason": f"no seed that {control} has too: train both on the same seeds",
                }
            )
        for metric in metrics if seeds else ():
            if pair := _pair(
                {s: kept[arm][s] for s in seeds}, {s: kept[control][s] for s in seeds}, metric
            ):
                pairs.append({"arm": arm, "control": control, "metric": metric, **pair})
            else:
                unpaired.append(
                    {
                        "arm": arm,
                        "seed": None,
                        "reason": f"{metric}: no problem has enough judged samples in both arms and every seed",
                    }
                )
    return pairs, unpaired


def _all_pairs(kept: dict[str, Runs], primary: str) -> list[dict[str, Any]]:
    """Every arm minus every arm before it: whether an arm is better than the control is one
    question, whether a cheaper arm does as well another.
    """
    arms, pairs = [arm for arm, runs in kept.items() if runs], []
    for i, arm in enumerate(arms):
        for other in arms[:i]:
            seeds = sorted(kept[arm].keys() & kept[other].keys())
            pair = (
                _pair({s: kept[arm][s] for s in seeds}, {s: kept[other][s] for s in seeds}, primary)
                if seeds
                else None
            )
            pairs += [{"arm": arm, "control": other, "metric": primary, **pair}] if pair else []
    return pairs


def _pair(runs: Runs, controls: Runs, metric: str) -> dict[str, Any] | None:
    both = matrix([*runs.values(), *controls.values()], metric)
    if not both.size:
        return None
    differences_SP = both[: len(runs)] - both[len(runs) :]
    mean, ci95 = _estimate(differences_SP)
    covers = (
        "seeds"
        if metric in EVALUATION_METRICS
        else "problems and seeds"
        if len(runs) > 1
        else "problems"
    )
    counts = {"seeds": list(runs), "problems": differences_SP.shape[1]}
    per_seed = _per_seed(runs, differences_SP)
    return {
        "difference": mean,
        "ci95": ci95,
        "p": sign_flip_p(list(per_seed.values())),
        "per_seed": per_seed,
        **counts,
        "interval_covers": covers,
    }


def matrix(evaluations: Sequence[Evaluation], metric: str) -> np.ndarray:
    """(evaluations, problems): the metric on the problems every evaluation has a value for, in the
    first one's order.
    """
    rows = [e.values(metric) for e in evaluations]
    names = [name for name in rows[0] if all(name in row for row in rows)]
    values = np.array([[row[name] for name in names] for row in rows]).reshape(
        len(rows), len(names)
    )
    return (
        stratified(values, [evaluations[0].counts[name][0] for name in names])
        if names and metric.endswith("/all")
        else values
    )


LOPSIDED = 3


def stratified(values_EP: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Values whose mean over problems is that of the families' means, and whose spread over
    problems is the error of that mean.

    Problems are drawn within families, so what families differ by is no chance: a problem stands
    for its row's mean, and for what it is away from its family's mean in that row, weighed by the
    family's size. Where one family is over `LOPSIDED` times another, the small one's few degrees of
    freedom would be lost among the others' (190 and 10 problems: 92 % of 95 % intervals held the
    truth), so there problems are only weighed, which errs to the wide side down to families of ten
    or so (197 and 3 problems: 91 %).
    """
    sizes, problems = Counter(families), values_EP.shape[1]
    weights = np.array([problems / (len(sizes) * sizes[family]) for family in families])
    if max(sizes.values()) > LOPSIDED * min(sizes.values()) or min(sizes.values()) == 1:
        return values_EP * weights
    away = np.empty_like(values_EP)
    for family, size in sizes.items():
        of = np.array(families) == family
        # (n - 1) of a family for (P - 1) of all: without it small families would look surer than
        # they are
        unbiased = math.sqrt(size / (size - 1) * (problems - 1) / problems)
        away[:, of] = unbiased * (values_EP[:, of] - values_EP[:, of].mean(axis=1, keepdims=True))
    return (values_EP * weights).mean(axis=1, keepdims=True) + weights * away


def _estimate(values_SP: np.ndarray) -> tuple[float, list[float] | None]:
    estimate = crossed_interval(values_SP)
    return estimate.mean, [estimate.low, estimate.high] if math.isfinite(estimate.low) else None


def _boundary(
    kept: dict[str, Runs], base: Evaluation | None, again: Evaluation | None
) -> dict[str, Any] | None:
    """Problems an arm solves (at least one right sample) and the base does not, and the reverse, a
    run; "base again" is the base with other samples: noise.

    {"<arm>": {"solved": .., "lost": .., "problems": ..}}; where the base samples a problem's answer
    once in a hundred, two evaluations differ by chance.
    """
    if base is None:
        return None
    rows = {"base again": {0: again}} if again is not None else {}
    return {
        arm: _crossed(list(runs.values()), base) for arm, runs in {**rows, **kept}.items() if runs
    }


def _crossed(evaluations: Sequence[Evaluation], base: Evaluation) -> dict[str, float]:
    alike = [
        [
            (was, now)
            for name, was in base.counts.items()
            if (now := e.counts.get(name)) and now[1] == was[1]
        ]
        for e in evaluations
    ]
    solved = [sum(not before[2] and after[2] > 0 for before, after in pairs) for pairs in alike]
    lost = [sum(before[2] > 0 and not after[2] for before, after in pairs) for pairs in alike]
    return {
        "solved": float(np.mean(solved)),
        "lost": float(np.mean(lost)),
        "problems": float(np.mean([len(pairs) for pairs in alike])),
    }


def _per_seed(runs: Runs, values_SP: np.ndarray) -> dict[str, float]:
    return {str(seed): float(row.mean()) for seed, row in zip(runs, values_SP, strict=True)}
