"""From verdicts to the metrics of an evaluation.

    verdicts of a problem -> tally {id, family, n, right, unscored, agreement, ...} -> metrics

A metric "<name>/<family>" is the mean over the problems of a family, "<name>/all" the mean over the
families' means. Left out: intervals, which are `analysis`'s business.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from critique_rl.metrics import (
    SHARES,
    auroc,
    brier_score,
    exact_pass_at_k,
    expected_calibration_error,
    pass_at_k,
    shares,
    truthfulness,
)
from critique_rl.tasks.judging import count_lost
from critique_rl.types import Verdict

Tally = dict[str, Any]
"""The counts of one problem, as `problems` of eval.json holds them."""


def tally(row: Mapping[str, Any], verdicts: Sequence[Verdict], abstains: bool = False) -> Tally:
    """Count the verdicts of one problem.

    Args:
        row: The problem, of which "id" and "family" are kept.
        verdicts: One per answer.
        abstains: True where answers may abstain: then "abstained" is there even where none did.

    Returns:
        {"id", "family", "n", "right", "unscored", "agreement", "agreed_right"}, "timeouts" where
        there are any, and "abstained" and "stated" where answers abstain or state a confidence. `n`
        leaves unscored answers out, and counts timeouts.
    """
    judged = [verdict for verdict in verdicts if verdict.outcome != "unscored"]
    return {
        "id": row["id"],
        "family": row["family"],
        "n": len(judged),
        "right": sum(verdict.outcome == "right" for verdict in judged),
        "unscored": len(verdicts) - len(judged),
        **_timeouts(verdicts),
        **_agreement(judged),
        **_self_assessment(judged, abstains),
    }


def _timeouts(verdicts: Sequence[Verdict]) -> dict[str, int]:
    """{"timeouts": answers that are wrong because judging them took too long}; {} without any."""
    timeouts = count_lost(verdicts)["timeout"]
    if not timeouts:
        return {}
    return {"timeouts": timeouts}


def _self_assessment(judged: Sequence[Verdict], abstains: bool) -> dict[str, Any]:
    """How answers assess themselves; {} for tasks that ask for neither.

    Returns:
        "abstained": how many did; "stated": [confidence, 1 right or 0] of each that stated one.
    """
    assessment: dict[str, Any] = {}
    abstained = sum(verdict.outcome == "abstained" for verdict in judged)
    if abstained or abstains:
        assessment["abstained"] = abstained
    stated = [
        [verdict.confidence, int(verdict.outcome == "right")]
        for verdict in judged
        if verdict.confidence is not None
    ]
    if stated:
        assessment["stated"] = stated
    return assessment


def _agreement(judged: Sequence[Verdict]) -> dict[str, Any]:
    """Self-consistency as a confidence (Wang et al. 2023, arXiv 2203.11171).

    Returns:
        "agreement": the share of judged answers that equal the commonest one; "agreed_right":
        whether that one is right. Both None where no answer could be read.
    """
    votes = Counter(verdict.answer for verdict in judged if verdict.answer is not None)
    if not votes:
        return {"agreement": None, "agreed_right": None}
    [(commonest, count)] = votes.most_common(1)
    agreed_right = any(
        verdict.outcome == "right" for verdict in judged if verdict.answer == commonest
    )
    return {"agreement": count / len(judged), "agreed_right": agreed_right}


def all_metrics(problems: Sequence[Tally], ks: Sequence[int]) -> dict[str, float]:
    """Every metric that an evaluation reports."""
    return {
        **pass_metrics(problems, ks),
        **exact_metrics(problems, ks),
        **self_metrics(problems),
        **share_metrics(problems),
    }


def pass_metrics(problems: Sequence[Tally], ks: Sequence[int]) -> dict[str, float]:
    """The unbiased pass@k as "pass@<k>/<family>" and "pass@<k>/all".

    Args:
        problems: Tallies.
        ks: Those larger than every n of a family are left out for it.
    """
    metrics: dict[str, float] = {}
    families = _by_family(problems)
    for k in ks:
        means = {family: _mean_pass(members, k) for family, members in families.items()}
        finite = {family: mean for family, mean in means.items() if not np.isnan(mean)}
        _add_family_means(metrics, f"pass@{k}", finite, len(families))
    return metrics


def exact_metrics(problems: Sequence[Tally], ks: Sequence[int]) -> dict[str, float]:
    """exact@k as "exact@<k>/<family>" and "exact@<k>/all"; {} where no problem has its chance."""
    families = _by_family(problems)
    metrics: dict[str, float] = {}
    for k in ks:
        means = {}
        for family, members in families.items():
            chances = [problem["chance"] for problem in members if "chance" in problem]
            if chances:
                values = [exact_pass_at_k(chance, k) for chance in chances]
                means[family] = float(np.mean(values))
        _add_family_means(metrics, f"exact@{k}", means, len(families))
    return metrics


def share_metrics(problems: Sequence[Tally]) -> dict[str, float]:
    """The shares of `metrics.SHARES` as "<share>/<family>" and "<share>/all"."""
    families = _by_family(problems)
    metrics: dict[str, float] = {}
    for name in SHARES:
        means = {}
        for family, members in families.items():
            values = [_problem_shares(problem).get(name) for problem in members]
            # A problem has no share where no sample was judged, or where its task never abstains.
            present = [value for value in values if value is not None]
            if present:
                means[family] = float(np.mean(present))
        _add_family_means(metrics, name, means, len(families))
    return metrics


def _problem_shares(problem: Tally) -> dict[str, float]:
    return shares(problem["n"], problem["right"], problem.get("abstained"), problem["agreement"])


def _add_family_means(
    metrics: dict[str, float], name: str, means: Mapping[str, float], families: int
) -> None:
    """Add "<name>/<family>" for each mean, and "<name>/all" where all `families` have one."""
    for family, mean in means.items():
        metrics[f"{name}/{family}"] = mean
    # Over a part of the families the mean would look like one over all of them.
    if means and len(means) == families:
        metrics[f"{name}/all"] = float(np.mean(list(means.values())))


def _by_family(problems: Sequence[Tally]) -> dict[str, list[Tally]]:
    families: dict[str, list[Tally]] = defaultdict(list)
    for problem in problems:
        families[problem["family"]].append(problem)
    return families


def _mean_pass(problems: Sequence[Tally], k: int) -> float:
    """Mean pass@k over the problems with k judged answers or more; NaN where none has."""
    values = np.array(
        [pass_at_k(problem["n"], problem["right"], k) for problem in problems], dtype=float
    )
    # nanmean would warn of an empty slice.
    if not np.isfinite(values).any():
        return float("nan")
    return float(np.nanmean(values))


def self_metrics(problems: Sequence[Tally]) -> dict[str, float]:
    """Metrics of how answers assess themselves, over all problems; {} where none does.

    Returns:
        "ece", "brier" and "auroc" of stated confidences; "truthfulness", "hallucination" and
        "abstention" where answers may abstain.
    """
    return {**_calibration(problems), **_truthfulness(problems)}


def _calibration(problems: Sequence[Tally]) -> dict[str, float]:
    stated = [pair for problem in problems for pair in problem.get("stated", ())]
    if not stated:
        return {}
    confidence, right = zip(*stated, strict=True)
    values = {
        "ece": expected_calibration_error(confidence, right),
        "brier": brier_score(confidence, right),
        "auroc": auroc(confidence, right),
    }
    # An AUROC needs a right and a wrong answer, and JSON has no NaN.
    return {name: value for name, value in values.items() if not np.isnan(value)}


def _truthfulness(problems: Sequence[Tally]) -> dict[str, float]:
    if not any("abstained" in problem for problem in problems):
        return {}
    total = sum(problem["n"] for problem in problems)
    right = sum(problem["right"] for problem in problems)
    abstained = sum(problem.get("abstained", 0) for problem in problems)
    wrong = total - right - abstained
    outcomes = ["right"] * right + ["abstained"] * abstained + ["wrong"] * wrong
    values = truthfulness(outcomes)
    # It is pass@1 under another name.
    values.pop("accuracy", None)
    return values
