"""Words and numbers that figures, tables and the methods paragraph share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from critique_rl.analysis.comparison import Comparison, Difference, Ends, MetricSummary
from critique_rl.analysis.formats import plural
from critique_rl.metrics import EVALUATION_METRICS

NARROW = 0.02
"""An interval of less width needs a third decimal."""
BEFORE = "before training"
"""The row of the policy that training starts from."""


@dataclass(frozen=True)
class ArmSize:
    """How much an arm's mean on a metric stands on."""

    seeds: int
    problems: int | None
    """None where it is not known."""


def primary_summaries(comparison: Comparison) -> dict[str, MetricSummary]:
    """Arm -> its summary on the primary metric, of the arms that have one."""
    summaries = {}
    for arm, summary in comparison.arms.items():
        metric = summary.metrics.get(comparison.primary)
        if metric is not None:
            summaries[arm] = metric
    return summaries


def differences_on(comparison: Comparison, metric: str) -> list[Difference]:
    """Every arm minus the control on a metric, with the interval of all pairs where it is known."""
    together = _together(comparison)
    pairs = []
    for pair in comparison.comparisons:
        if pair.metric == metric:
            ends = pair.together or together.get((pair.arm, metric))
            pairs.append(replace(pair, together=ends))
    return pairs


def _together(comparison: Comparison) -> dict[tuple[str, str], Ends]:
    """(arm, metric) -> the interval of its difference from the control among all pairs."""
    known = {}
    for pair in comparison.pairs:
        if pair.together is None:
            continue
        low, high = pair.together
        if pair.control == comparison.control:
            known[pair.arm, pair.metric] = (low, high)
        elif pair.arm == comparison.control:
            # An arm that stands before the control is the one subtracted.
            known[pair.control, pair.metric] = (-high, -low)
    return known


def lost_arms(comparison: Comparison) -> list[str]:
    """Arms without one run that could be compared."""
    names = [run.arm for run in comparison.missing]
    names += [item.arm for item in comparison.incomparable if item.seed is not None]
    return [arm for arm in dict.fromkeys(names) if arm not in comparison.arms]


def arm_size(summary: MetricSummary) -> ArmSize:
    """Seeds and problems behind a mean."""
    return ArmSize(len(summary.per_seed), summary.problems)


def sizes_in_words(sizes: Iterable[ArmSize]) -> str:
    """Seeds and problems of all arms, such as "5 seeds and 200 problems per arm"."""
    listed = list(sizes)
    seeds = _range([size.seeds for size in listed], "seed")
    problems = [size.problems for size in listed if size.problems is not None]
    if not problems:
        return f"{seeds} per arm"
    return f"{seeds} and {_range(problems, 'problem')} per arm"


def _range(counts: Sequence[int], noun: str) -> str:
    lowest = min(counts)
    highest = max(counts)
    if lowest == highest:
        return plural(highest, noun)
    return f"{lowest} to {highest} {noun}s"


def arm_coverage(metric: str, summaries: Iterable[MetricSummary]) -> str:
    """What the intervals of arms cover, in words."""
    covered = []
    for summary in summaries:
        if summary.ci95 is not None:
            covered.append(_covered_by_arm(metric, arm_size(summary)))
    return _coverage(covered)


def _covered_by_arm(metric: str, size: ArmSize) -> str:
    # The same rule as that of differences (`analysis.differences`), which say it themselves.
    if metric in EVALUATION_METRICS or size.problems is None:
        return "seeds"
    if size.seeds > 1:
        return "problems and seeds"
    return "problems"


def pair_coverage(pairs: Iterable[Difference]) -> str:
    """What the intervals of differences cover, in words."""
    return _coverage([pair.interval_covers for pair in pairs if pair.ci95 is not None])


def _coverage(covered: Sequence[str]) -> str:
    kinds = list(dict.fromkeys(covered))
    if not kinds:
        return "no interval can be given"
    if "" in kinds:
        return "95% interval (what it covers is not recorded)"
    words = f"95% interval for new {' or '.join(kinds)}"
    if kinds == ["problems"]:
        words += " (a single seed says nothing of other seeds)"
    if len(kinds) > 1:
        words += ", depending on the arm"
    return words


def decimals_for(intervals: Iterable[Ends | None]) -> int:
    """Decimals that show every interval's width: 2, or 3 where one is narrow."""
    for ends in intervals:
        if ends is not None and ends[1] - ends[0] < NARROW:
            return 3
    return 2


def listed(names: Sequence[str]) -> str:
    """Names as a list of words: "a", "a and b", "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"
