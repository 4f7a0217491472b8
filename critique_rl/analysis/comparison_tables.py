"""The tables of a comparison, each built once. A `Form` holds the words and columns that differ
between a terminal of 80 columns and a paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from critique_rl.analysis.boundary import BASE_AGAIN
from critique_rl.analysis.comparison import (
    Boundary,
    Comparison,
    Cost,
    Difference,
    Ends,
    MetricSummary,
    MetricValues,
    SecondTemplate,
)
from critique_rl.analysis.critiques.words import NOT_RECORDED, describe_reasons, is_no_critique_arm
from critique_rl.analysis.formats import (
    MEASURES,
    bracket,
    short,
    shown_metrics,
    signed,
    two_decimals,
)
from critique_rl.analysis.table import Table
from critique_rl.intervals import excluded_chance
from critique_rl.intervals.seeds import TAKE_OFF


@dataclass(frozen=True)
class Form:
    """Words and columns of the tables in one place where they are read."""

    arms_caption: str
    boundary_caption: str
    base: str
    """The row of the policy before training."""
    no_value: str
    """The cell of an arm without the metric."""
    cost_heads: Mapping[str, str]
    """Field of `Cost` -> head of its column."""
    always_shown: Sequence[str]
    """The fields of `Cost` that have a column even where nobody spent anything."""
    differences_alignment: str


TERMINAL = Form(
    arms_caption="Arms: mean and 95% interval, cost a run",
    boundary_caption=(
        "Against the base: problems with a right sample that had none, and the reverse, a run"
    ),
    base="base",
    no_value="-",
    cost_heads={
        "generated_tokens": "tokens",
        "critic_tokens": "critic",
        "usd": "usd",
        "wall_seconds": "min",
    },
    # 80 columns have no room for columns of zeros.
    always_shown=("generated_tokens", "wall_seconds"),
    differences_alignment="llrrrr",
)
PAPER = Form(
    arms_caption=(
        "Arms: mean over seeds and problems with its 95% interval; cost is the mean of a run"
    ),
    boundary_caption=(
        "Against the base, a run: problems with a right sample that had none, and the reverse"
    ),
    base="before training",
    no_value="",
    cost_heads={
        "generated_tokens": "generated tokens",
        "critic_tokens": "critic tokens",
        "usd": "usd",
        "wall_seconds": "minutes",
    },
    always_shown=("generated_tokens", "critic_tokens", "usd", "wall_seconds"),
    differences_alignment="lrrrrr",
)


def arms_table(comparison: Comparison, form: Form) -> Table:
    """Base and arms on the metrics that fit, with their cost.

    Args:
        comparison: with at least one arm.
        form: a terminal leaves out columns of costs that nobody had.
    """
    metrics = shown_metrics(comparison)
    shown_costs = _shown_costs(comparison, form)
    rows = []
    if comparison.base:
        no_cost = [""] * len(shown_costs)
        row = _base_row(comparison.base, metrics, form)
        rows.append(row + no_cost)
    for arm, summary in comparison.arms.items():
        cells = _metric_cells(summary.metrics, metrics, form)
        amounts = [_amount(summary.cost, name) for name in shown_costs]
        rows.append([arm, *cells, *amounts])
    cost_heads = [form.cost_heads[name] for name in shown_costs]
    heads = ["arm", *metrics, *cost_heads]
    return Table(form.arms_caption, heads, rows)


def _shown_costs(comparison: Comparison, form: Form) -> list[str]:
    """The fields of `Cost` that have a column."""
    shown = []
    for name in form.cost_heads:
        amounts = [getattr(arm.cost, name) for arm in comparison.arms.values()]
        if name in form.always_shown or any(amounts):
            shown.append(name)
    return shown


def second_table(comparison: Comparison, second: SecondTemplate, form: Form) -> Table:
    """Base and arms under the second template.

    Args:
        comparison: says which metrics are shown: those of the first template's table.
        second: the part of the comparison that is shown.
        form: of the words.
    """
    metrics = shown_metrics(comparison)
    rows = []
    if second.base:
        rows.append(_base_row(second.base, metrics, form))
    for arm, summary in second.arms.items():
        rows.append([arm, *_metric_cells(summary.metrics, metrics, form)])
    caption = f"The same problems asked by the template {second.template}"
    return Table(caption, ["arm", *metrics], rows)


def _base_row(base: MetricValues, metrics: Sequence[str], form: Form) -> list[str]:
    cells = [form.base]
    for name in metrics:
        value = base.get(name)
        cell = form.no_value if value is None else f"{value:.2f}"
        cells.append(cell)
    return cells


def _metric_cells(
    summaries: Mapping[str, MetricSummary], metrics: Sequence[str], form: Form
) -> list[str]:
    cells = []
    for name in metrics:
        summary = summaries.get(name)
        if summary is None:
            cells.append(form.no_value)
        else:
            # The interval has a line of its own where a table keeps line breaks: four metrics and
            # the cost fit 80 columns only so.
            interval = bracket(summary.ci95)
            cells.append(f"{summary.mean:.2f}\n{interval}")
    return cells


def _amount(cost: Cost, name: str) -> str:
    if name == "usd":
        return f"{cost.usd:.2f}"
    if name == "wall_seconds":
        return f"{cost.wall_seconds / 60:.1f}"
    return short(getattr(cost, name))


def differences_table(comparison: Comparison, form: Form) -> Table:
    """Every arm minus the control on the metrics that fit."""
    metrics = shown_metrics(comparison)
    shown = [pair for pair in comparison.comparisons if pair.metric in metrics]
    return Table(
        f"Differences from {comparison.control}, paired on problems and seeds",
        ["arm", "metric", "difference", "95% interval", "seeds", "problems"],
        [_difference_row(pair) for pair in shown],
        form.differences_alignment,
        bold=[i for i, pair in enumerate(shown) if pair.metric == comparison.primary],
    )


def _difference_row(pair: Difference) -> list[str]:
    return [
        pair.arm,
        pair.metric,
        signed(pair.difference),
        bracket(pair.ci95),
        str(len(pair.seeds)),
        str(pair.problems),
    ]


def boundary_table(boundary: Mapping[str, Boundary], form: Form) -> Table:
    """Problems newly solved and newly lost against the base."""
    rows = []
    for arm, row in boundary.items():
        name = "base again (noise)" if arm == BASE_AGAIN else arm
        # Means over runs, so counts have decimals.
        solved = f"{row.solved:.1f}"
        lost = f"{row.lost:.1f}"
        problems = f"{row.problems:.0f}"
        rows.append([name, solved, lost, problems])
    heads = ["arm", "newly solved", "newly lost", "problems"]
    return Table(form.boundary_caption, heads, rows)


def critiques_table(comparison: Comparison) -> Table:
    """What became of every arm's critiques.

    Returns:
        No row for an arm that asked for none. The last column has every reason.
    """
    rows = []
    for arm, counts in comparison.critiques.items():
        if counts is None:
            rows.append([arm, "", "", "", "", "", NOT_RECORDED])
        elif counts.asked:
            _, _, missing_share = counts.shares
            numbers = (counts.asked, counts.written, counts.failed, counts.skipped)
            cells = [str(number) for number in numbers]
            reasons = describe_reasons(counts.reasons.items())
            if is_no_critique_arm(counts):
                reasons = f"not a critique arm: {reasons}"
            rows.append([arm, *cells, f"{missing_share:.0%}", reasons])
    return Table(
        "Critiques, all seeds and steps together: asked for = written + failed + skipped",
        ["arm", "asked", "written", "failed", "skipped", "missing", "reasons"],
        rows,
        "lrrrrrl",
    )


def target_table(comparison: Comparison) -> Table:
    """Each arm's spending until its validation curve reached the target.

    Args:
        comparison: with a target.

    Returns:
        Amounts in the comparison's `measure`; "-" where a seed never got there.
    """
    measure = MEASURES[comparison.measure]
    rows = []
    for arm, summary in comparison.arms.items():
        spent = summary.to_target
        if spent is not None:
            seeds = f"{spent.reached} of {len(spent.per_seed)}"
            mean = short(spent.mean) if spent.mean else "-"
            interval = "-"
            if spent.ci95:
                low, high = spent.ci95
                interval = f"[{short(low)}, {short(high)}]"
            rows.append([arm, seeds, mean, interval])
    # capitalize() would turn FLOPs into Flops.
    spent_words = f"{measure[0].upper()}{measure[1:]}"
    return Table(
        f"{spent_words} until {comparison.primary} reached {comparison.target:g} on validation "
        f"problems",
        ["arm", "seeds that did", "spent (geometric mean)", "95% interval"],
        rows,
    )


def seeds_table(comparison: Comparison) -> Table | None:
    """Which seeds of each arm took off or collapsed on the primary metric.

    Returns:
        None with one seed, or without an evaluated base.
    """
    primary = comparison.primary
    rows = []
    seeds = 0
    for arm, summary in comparison.arms.items():
        metric = summary.metrics.get(primary)
        if metric is None or metric.kinds is None:
            continue
        kinds = metric.kinds
        number = len(metric.per_seed)
        seeds = max(seeds, number)
        interval = bracket(kinds.took_off95)
        chance = f"{kinds.took_off} of {number} {interval}"
        collapsed = f"{kinds.collapsed} of {number}"
        if kinds.collapsed95:
            collapsed += f" {bracket(kinds.collapsed95)}"
        among = _level(kinds.among, kinds.among95)
        kept = _level(kinds.kept, kinds.kept95)
        median = two_decimals(kinds.median)
        row = [arm, median, chance, among, collapsed, kept]
        rows.append(row)
    if not rows:
        return None
    most = 1 / excluded_chance(seeds)
    return Table(
        f"Seeds on {primary}: one that took off is {TAKE_OFF:g} over the base, one that collapsed "
        f"as much under it. {seeds} seeds that all do alike exclude that one in {most:.2g} does "
        "otherwise (95%)",
        ["arm", "median", "took off", "their level", "collapsed", "level of the others"],
        rows,
        "lrrrrr",
    )


def _level(mean: float | None, ends: Ends | None) -> str:
    """A mean of some seeds with its interval; "-" where there are none."""
    if mean is None:
        return "-"
    return f"{two_decimals(mean)} {bracket(ends)}"


def best_arm(comparison: Comparison) -> str | None:
    """The arm with the highest mean of the primary metric; None where several have it."""
    primary = comparison.primary
    means = {
        arm: summary.metrics[primary].mean
        for arm, summary in comparison.arms.items()
        if primary in summary.metrics
    }
    highest = max(means.values(), default=0.0)
    best = [arm for arm, mean in means.items() if mean == highest]
    if len(best) == 1:
        return best[0]
    return None


def best_table(comparison: Comparison, best: str) -> Table:
    """The best arm minus every other one, on the primary metric.

    Args:
        comparison: its pairs are turned round where the best arm is subtracted.
        best: from `best_arm`.
    """
    # It says what the best arm's gain is worth: an arm that does as well without what the best one
    # has explains the gain away.
    rows = []
    for pair in comparison.pairs:
        if best in (pair.arm, pair.control):
            sign = 1 if pair.arm == best else -1
            other = pair.control if sign > 0 else pair.arm
            interval = None
            # Files of earlier versions have no interval that holds for all pairs at once.
            ends = pair.together or pair.ci95
            if ends:
                interval = sorted(sign * end for end in ends)
            difference = signed(sign * pair.difference)
            wanted = "-"
            if pair.seeds_to_decide:
                wanted = str(pair.seeds_to_decide)
            row = [other, difference, bracket(interval), str(len(pair.seeds)), wanted]
            rows.append(row)
    return Table(
        f"{best}, best on {comparison.primary} (chosen after the fact), minus every other arm; "
        "the intervals of all pairs hold at once",
        ["minus", "difference", "95% interval", "seeds", "to decide"],
        rows,
    )
