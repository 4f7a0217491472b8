"""Tables of a comparison in LaTeX (booktabs): every arm with its cost, also those that lost or
never finished, and the differences from the control.

The tables of `exports` are plain text for many formats; these have captions and numbers as a paper
sets them. Functions take a `Comparison`, and no folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from critique_rl.analysis.comparison import Comparison, Cost, Difference, Ends, MetricSummary
from critique_rl.analysis.formats import plural, short, shown_metrics
from critique_rl.analysis.paper.setup import Setup
from critique_rl.analysis.paper.words import (
    BEFORE,
    arm_coverage,
    arm_size,
    decimals_for,
    differences_on,
    listed,
    lost_arms,
    pair_coverage,
    primary_summaries,
    sizes_in_words,
)
from critique_rl.analysis.table import escape_latex

EMPTY = "--"
"""A cell without a value."""
COST_HEADS = {
    "generated_tokens": "generated",
    "critic_tokens": "critic",
    "total_tokens": "total",
    "flops": "FLOPs",
    "usd": "US$",
}
"""Field of `Cost` -> head of its column, which is there where some arm spent any of it."""
COSTS_IN_WORDS = {
    "generated_tokens": "tokens generated for training",
    "critic_tokens": "tokens of critics",
    "total_tokens": "tokens in all",
    "flops": "FLOPs",
    "usd": "US dollars",
}
"""Field of `Cost` -> its words in the caption."""
PACKAGES = {"booktabs": r"\usepackage{booktabs}", "fontenc": r"\usepackage[T1]{fontenc}"}
LAST_LATIN = "\N{LATIN SMALL LETTER LONG S}"
"""pdfLaTeX knows letters up to here without further packages."""


@dataclass(frozen=True)
class LatexTable:
    """A table whose heads and cells are LaTeX already."""

    caption: str
    """Plain text, which is escaped."""
    label: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    alignment: str
    """A letter per column."""
    wide: bool = False
    """Whether it spans both columns of a paper."""

    def __str__(self) -> str:
        environment = "table*" if self.wide else "table"
        lines = [
            rf"\begin{{{environment}}}[t]",
            r"\centering\footnotesize" if self.wide else r"\centering\small",
            r"\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escape_latex(self.caption)}}}",
            rf"\label{{{self.label}}}",
            rf"\begin{{tabular}}{{@{{}}{self.alignment}@{{}}}}",
            r"\toprule",
            _line(self.heads),
            r"\midrule",
            *[_line(row) for row in self.rows],
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{environment}}}",
        ]
        text = "\n".join(lines) + "\n"
        return latex_notes(text, tuple(PACKAGES)) + text


def latex_notes(text: str, packages: Sequence[str]) -> str:
    """Comments above a file: what its document needs.

    Args:
        text: the file without them.
        packages: keys of `PACKAGES`.
    """
    lines = [f"% Needs {' and '.join(PACKAGES[name] for name in packages)}."]
    if any(sign > LAST_LATIN for sign in text):
        lines.append("% Has letters that need XeLaTeX or LuaLaTeX, and a font that holds them.")
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


# ---- arms ----------------------------------------------------------------------------------------


def arms_latex(comparison: Comparison, setup: Setup) -> str:
    """The table of arms.

    Args:
        comparison: its arms on the metrics that fit, with the mean cost of a run.
        setup: its budget is said in the caption.

    Returns:
        A row for the policy before training where it was evaluated, for each arm, and for each arm
        without a run that could be compared.
    """
    metrics = shown_metrics(comparison)
    costs = _shown_costs(comparison)
    digits = {metric: decimals_for(_intervals(comparison, metric)) for metric in metrics}
    rows = []
    if comparison.base:
        cells = []
        for metric in metrics:
            value = comparison.base.get(metric)
            cells.append(_number(value, digits[metric]))
        no_cost = [EMPTY] * len(costs)
        rows.append([BEFORE, EMPTY, EMPTY, *cells, *no_cost])
    for arm, summary in comparison.arms.items():
        primary = summary.metrics.get(comparison.primary)
        start = [_arm_name(arm, comparison), *_size_cells(primary)]
        means = [_mean_cell(summary.metrics, metric, digits[metric]) for metric in metrics]
        intervals = [_ends_cell(summary.metrics, metric, digits[metric]) for metric in metrics]
        amounts = [_amount(summary.cost, name) for name in costs]
        if len(metrics) > 1:
            # A page has no room for several intervals beside their means.
            rows.append([*start, *means, *amounts])
            rows.append(["", "", "", *intervals, *[""] * len(costs)])
        else:
            cells = [f"{means[0]} {intervals[0]}".rstrip()]
            rows.append([*start, *cells, *amounts])
    for arm in lost_arms(comparison):
        name = _arm_name(arm, comparison)
        unknown = len(metrics) + len(costs)
        cells = [EMPTY] * unknown
        rows.append([name, "0", EMPTY, *cells])
    heads = ["arm", "seeds", "problems", *metrics, *[COST_HEADS[name] for name in costs]]
    return str(
        LatexTable(
            _arms_caption(comparison, setup, costs),
            "tab:arms",
            [escape_latex(head) for head in heads],
            rows,
            "l" + "r" * (len(heads) - 1),
            wide=len(heads) > 5,
        )
    )


def _arm_name(arm: str, comparison: Comparison) -> str:
    name = escape_latex(arm)
    if arm == comparison.control:
        name += " (control)"
    return name


def _size_cells(summary: MetricSummary | None) -> list[str]:
    if summary is None:
        return ["0", EMPTY]
    size = arm_size(summary)
    if size.problems is None:
        return [str(size.seeds), EMPTY]
    return [str(size.seeds), str(size.problems)]


def _shown_costs(comparison: Comparison) -> list[str]:
    costs = [arm.cost for arm in comparison.arms.values()]
    shown = []
    for name in COST_HEADS:
        # FLOPs repeat what tokens say, unless the budget is of them.
        if name == "flops" and comparison.measure != "flops":
            continue
        if any(getattr(cost, name) > 0 for cost in costs):
            shown.append(name)
    return shown


def _amount(cost: Cost, name: str) -> str:
    amount = getattr(cost, name)
    if name == "usd":
        return f"{amount:.2f}"
    return short(amount)


def _intervals(comparison: Comparison, metric: str) -> list[Ends | None]:
    intervals = []
    for arm in comparison.arms.values():
        if metric in arm.metrics:
            intervals.append(arm.metrics[metric].ci95)
    return intervals


def _mean_cell(metrics: Mapping[str, MetricSummary], metric: str, digits: int) -> str:
    summary = metrics.get(metric)
    if summary is None:
        return EMPTY
    return _number(summary.mean, digits)


def _ends_cell(metrics: Mapping[str, MetricSummary], metric: str, digits: int) -> str:
    """The interval; "" where there is none."""
    summary = metrics.get(metric)
    if summary is None or summary.ci95 is None:
        return ""
    return _interval(summary.ci95, digits)


def _arms_caption(comparison: Comparison, setup: Setup, costs: Sequence[str]) -> str:
    summaries = primary_summaries(comparison)
    sizes = sizes_in_words(arm_size(summary) for summary in summaries.values())
    coverage = arm_coverage(comparison.primary, summaries.values())
    sentences = [
        f"Arms on {comparison.primary}: {sizes}.",
        f"Numbers are means over seeds and problems, with the {coverage}.",
    ]
    if len(shown_metrics(comparison)) > 1:
        sentences.append(f"Seeds and problems are those of {comparison.primary}.")
    if costs:
        spent = [COSTS_IN_WORDS[name] for name in costs]
        sentences.append(f"Costs are means per run: {', '.join(spent)}.")
    else:
        sentences.append("Costs are not recorded.")
    if setup.budget:
        sentences.append(setup.budget)
    lost = lost_arms(comparison)
    if lost:
        sentences.append(f"Without a run to compare: {listed(lost)}.")
    return " ".join(sentences)


# ---- differences ---------------------------------------------------------------------------------


def differences_latex(comparison: Comparison, setup: Setup) -> str:
    """The table of differences from the control.

    Args:
        comparison: the metrics that fit, the primary one first.
        setup: its budget is said in the caption.

    Returns:
        A row per arm and metric; without a pair of arms the table has heads alone.
    """
    pairs: list[Difference] = []
    for metric in shown_metrics(comparison):
        pairs += differences_on(comparison, metric)
    has_together = any(pair.together for pair in pairs)
    has_p = any(pair.p is not None for pair in pairs)
    heads = ["arm", "metric", "difference", "95% interval"]
    if has_together:
        heads.append("all pairs at once")
    heads += ["seeds", "problems"]
    if has_p:
        heads.append("p")
    digits = decimals_for(pair.ci95 for pair in pairs)
    rows = []
    for pair in pairs:
        row = [escape_latex(pair.arm), escape_latex(pair.metric), _signed(pair.difference, digits)]
        row.append(_interval(pair.ci95, digits, is_signed=True))
        if has_together:
            row.append(_interval(pair.together, digits, is_signed=True))
        row += [str(len(pair.seeds)), str(pair.problems)]
        if has_p:
            row.append(_p_value(pair.p))
        rows.append(row)
    return str(
        LatexTable(
            _differences_caption(comparison, setup, pairs),
            "tab:differences",
            [escape_latex(head) for head in heads],
            rows,
            "ll" + "r" * (len(heads) - 2),
            wide=len(heads) > 6,
        )
    )


def _differences_caption(comparison: Comparison, setup: Setup, pairs: Sequence[Difference]) -> str:
    primary = comparison.primary
    sentences = [
        f"Each arm minus the control {comparison.control}, paired on problems and seeds.",
        f"The primary metric is {primary}.",
    ]
    if pairs:
        sentences.append(f"Brackets: {pair_coverage(pairs)}, not corrected for several arms.")
    if any(pair.together for pair in pairs):
        number = plural(len(comparison.pairs), "pair")
        sentences.append(f"The intervals of all {number} of arms on {primary} hold at once.")
    if any(pair.p is not None for pair in pairs):
        sentences.append("p: exact sign-flip test over seeds, two-sided.")
    if setup.budget:
        sentences.append(setup.budget)
    compared = {pair.arm for pair in pairs if pair.metric == primary}
    alone = [arm for arm in comparison.arms if arm not in compared and arm != comparison.control]
    if alone:
        sentences.append(f"Not paired with the control on {primary}: {listed(alone)}.")
    return " ".join(sentences)


# ---- numbers -------------------------------------------------------------------------------------


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return EMPTY
    return f"${value:z.{digits}f}$"


def _signed(value: float, digits: int) -> str:
    return f"${value:+z.{digits}f}$"


def _interval(ends: Ends | None, digits: int, is_signed: bool = False) -> str:
    if ends is None:
        return EMPTY
    sign = "+" if is_signed else ""
    low, high = ends
    return f"$[{low:{sign}z.{digits}f}, {high:{sign}z.{digits}f}]$"


def _p_value(p: float | None) -> str:
    if p is None:
        return EMPTY
    if p < 0.001:
        return "$<0.001$"
    return f"${p:.3f}$"
