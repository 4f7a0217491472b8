"""A metric as a matrix of evaluations and problems, which is what intervals are computed from.

Problems are paired by id. Axis E is over evaluations, axis P over problems.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from critique_rl.analysis.evaluations import ALL_FAMILIES, Evaluation

LOPSIDED = 3
"""The largest family may be this times the smallest for `stratified` to remove what families differ
by."""


def problem_matrix(evaluations: Sequence[Evaluation], metric: str) -> np.ndarray:
    """The metric on the problems that every evaluation has a value for.

    Args:
        evaluations: at least one. The first one's order of problems is the matrix's.
        metric: as `Evaluation.values` takes it. Over all families, values are `stratified`.

    Returns:
        (evaluations, problems); no columns where there is no such problem.
    """
    values_EP, families = values_and_families(evaluations, metric)
    over_families = metric.endswith(f"/{ALL_FAMILIES}")
    if not over_families or not families:
        return values_EP
    return stratified(values_EP, families)


def values_and_families(
    evaluations: Sequence[Evaluation], metric: str
) -> tuple[np.ndarray, list[str]]:
    """The metric as it is, on the problems that every evaluation has a value for.

    Args:
        evaluations: at least one. The first one's order of problems is the matrix's.
        metric: as `Evaluation.values` takes it.

    Returns:
        (evaluations, problems), and the family of each problem; "" for a metric of a complete
        evaluation.
    """
    rows = [evaluation.values(metric) for evaluation in evaluations]
    # A problem without enough judged samples in one of the evaluations drops out of all of them:
    # differences must be between the same problems.
    shared = list(rows[0])
    for row in rows[1:]:
        shared = [name for name in shared if name in row]
    # Allocated with its shape: an array of empty rows would have one axis.
    values_EP = np.empty((len(rows), len(shared)))
    for e, row in enumerate(rows):
        values_EP[e] = [row[name] for name in shared]
    problems = evaluations[0].problems
    families = []
    for name in shared:
        problem = problems.get(name)
        families.append(problem.family if problem else "")
    return values_EP, families


def stratified(values_EP: np.ndarray, families: Sequence[str]) -> np.ndarray:
    """Reweight values so that families count alike, whatever their sizes.

    The mean of the result over problems is the mean of the family means. Its sample variance
    estimates the error of that mean.

    Problems are drawn within families, so the differences between families are no chance. With
    m_E the mean of the family means, n_f a family's size, F families and P problems:

        x'_EP = m_E + P / (F n_f) * sqrt(n_f / (n_f - 1) * (P - 1) / P) * (x_EP - family mean)

    Args:
        values_EP: (evaluations, problems).
        families: the family of each problem.

    Returns:
        (evaluations, problems). Where one family is over `LOPSIDED` times another, or has one
        problem, values are only weighed, by P / (F n_f).
    """
    sizes = Counter(families)
    problems = values_EP.shape[1]
    assert len(families) == problems, f"{len(families)} families for {problems} problems"
    sizes_P = np.array([sizes[family] for family in families])
    weights_P = problems / (len(sizes) * sizes_P)
    weighted_EP: np.ndarray = values_EP * weights_P
    smallest = min(sizes.values())
    largest = max(sizes.values())
    # A small family's few degrees of freedom would be lost among the others'. Measured with 190 and
    # 10 problems: 92% of 95% intervals held the truth. Weighing alone errs to the wide side, down
    # to families of about ten (197 and 3 problems: 91%).
    if largest > LOPSIDED * smallest or smallest == 1:
        return weighted_EP
    deviations_EP = np.empty_like(values_EP)
    for family, size in sizes.items():
        members_P = np.array(families) == family
        members_EN = values_EP[:, members_P]
        # (n - 1) of a family for (P - 1) of all: without it small families would look surer than
        # they are.
        correction = size / (size - 1) * (problems - 1) / problems
        family_means_E1 = members_EN.mean(axis=1, keepdims=True)
        deviations_EN = members_EN - family_means_E1
        deviations_EP[:, members_P] = math.sqrt(correction) * deviations_EN
    means_E1 = weighted_EP.mean(axis=1, keepdims=True)
    stratified_EP: np.ndarray = means_E1 + weights_P * deviations_EP
    return stratified_EP
