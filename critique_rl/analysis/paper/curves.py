"""Learning curves of a figure: a mean over seeds per arm, from metrics.jsonl.

Curves are of validation problems. Left out: the curve of another metric beside the primary one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.evaluations import ALL_FAMILIES
from critique_rl.analysis.learning_curves import SPENT, MeanCurve, Step, curve, mean_curve, steps
from critique_rl.analysis.page.curve_charts import AXES
from critique_rl.analysis.paper.words import primary_summaries
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.costs import KINDS

PREFIX = "eval/"
"""Of metrics of learning curves in metrics.jsonl."""
ArmRows = Mapping[str, Sequence[Sequence[Step]]]
"""Arm -> the logged steps of each of its runs."""


@dataclass(frozen=True)
class PaperCurves:
    """The learning curves of a comparison."""

    metric: str
    """What the y axis shows: the primary metric, or pass@1 where that was not logged."""
    spending: str
    """What the x axis shows, such as "generated tokens"."""
    arms: Mapping[str, MeanCurve]
    """Arms that have a curve, in the order of the comparison."""


def read_curves(folder: PipelineFolder, comparison: Comparison) -> PaperCurves | None:
    """The curves of the runs that are compared.

    Returns:
        None where no run logged any.

    Raises:
        DamagedFile: a line of metrics.jsonl is no object of numbers.
    """
    rows: dict[str, list[list[Step]]] = {}
    for arm, summary in primary_summaries(comparison).items():
        rows[arm] = []
        for seed in summary.per_seed:
            run = folder.run(arm, int(seed))
            rows[arm].append(list(steps(run)))
    metric = _logged_metric(rows, comparison.primary)
    if metric is None:
        return None
    spending = _logged_spending(rows, KINDS[comparison.measure])
    arms = {}
    for arm, runs in rows.items():
        mean = _arm_mean(runs, f"{PREFIX}{metric}", spending)
        if mean is not None:
            arms[arm] = mean
    if not arms:
        return None
    return PaperCurves(metric, AXES[spending], arms)


def _all_steps(rows: ArmRows) -> Iterator[Step]:
    for runs in rows.values():
        for logged in runs:
            yield from logged


def _logged_metric(rows: ArmRows, primary: str) -> str | None:
    """The primary metric where it was logged, else pass@1 of its family, else of all problems."""
    logged = {key for step in _all_steps(rows) for key in step}
    _, _, family = primary.partition("/")
    for metric in (primary, f"pass@1/{family}", f"pass@1/{ALL_FAMILIES}"):
        if f"{PREFIX}{metric}" in logged:
            return metric
    return None


def _logged_spending(rows: ArmRows, budget: str) -> str:
    """What the budget is of where it was logged, else generated tokens, else steps."""
    logged = {key for step in _all_steps(rows) for key in step}
    for key in (budget, SPENT):
        if key in logged:
            return key
    return "step"


def _arm_mean(runs: Sequence[Sequence[Step]], key: str, spending: str) -> MeanCurve | None:
    curves = []
    for logged in runs:
        points = curve(logged, key, spending)
        if len(points[0]):
            curves.append(points)
    return mean_curve(curves)
