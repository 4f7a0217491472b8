"""A comparison on a terminal: the verdict in one sentence, the runs that were left out, and tables
that fit 80 columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from rich.console import Group

from critique_rl.analysis.comparison import Comparison, Cost, Difference
from critique_rl.analysis.comparison_tables import (
    TERMINAL,
    arms_table,
    best_arm,
    best_table,
    boundary_table,
    critiques_table,
    differences_table,
    second_table,
    seeds_table,
    target_table,
)
from critique_rl.analysis.critiques.words import missing_clauses
from critique_rl.analysis.formats import (
    MEASURES,
    bracket,
    plural,
    short,
    signed,
    spent_alike,
    two_decimals,
)
from critique_rl.analysis.power import DELTA, cannot_show
from critique_rl.analysis.table import Table, to_terminal

ONE_SEED = "one seed says nothing of other seeds"
Format = Callable[[float], str]
"""An amount -> its text."""
MOST_UNCLEAR = 2
"""Arms without a clear difference that have a clause each; more of them share one."""


def verdict(comparison: Comparison) -> str:
    """The comparison in one sentence.

    Returns:
        Arms whose critiques did not arrive. Then every arm's difference from the control on the
        primary metric, its interval, the spending, and how many runs are missing or were left out.
    """
    control = comparison.control
    primary = comparison.primary
    unfinished = _unfinished(comparison)
    pairs = [pair for pair in comparison.comparisons if pair.metric == primary]
    # First: whatever follows is not about critiques that nobody read.
    clauses = missing_clauses(comparison.critiques)
    if not pairs:
        clauses.append(f"no arm can be compared with {control} on {primary} yet{unfinished}")
        sentence = "; ".join(clauses)
        if len(clauses) == 1:
            # The clauses before it start with names of arms, which stay as they are.
            sentence = sentence[0].upper() + sentence[1:]
        return f"{sentence}."
    weak = [pair for pair in pairs if cannot_show(pair, comparison.delta) is not None]
    strong = [pair for pair in pairs if pair not in weak]
    unclear = _many([pair for pair in strong if _holds_zero(pair)])
    many_weak = _many(weak)
    is_metric_named = False
    for pair in pairs:
        if pair in unclear or pair in many_weak:
            continue
        contrast = f"{pair.arm} - {control}"
        if not is_metric_named:
            contrast += f" on {primary}"
            is_metric_named = True
        finding = _finding(pair, comparison)
        if pair in weak:
            finding = _too_few([pair], comparison.delta)
        clauses.append(f"{contrast}: {finding}")
    if unclear:
        clauses.append(_no_difference(unclear, control))
    if many_weak:
        arms = ", ".join(_arms(many_weak))
        reach = _too_few(many_weak, comparison.delta)
        clauses.append(f"{arms} against {control} on {primary}: {reach}")
    costs = {}
    for arm in (control, *_arms(pairs)):
        costs[arm] = comparison.arms[arm].cost
    clauses.append(f"at {_spent(costs)}{unfinished}")
    return "; ".join(clauses) + "."


def _many(pairs: list[Difference]) -> list[Difference]:
    """The pairs if they share one clause, else []."""
    if len(pairs) > MOST_UNCLEAR:
        return pairs
    return []


def _too_few(pairs: Sequence[Difference], delta: float | None) -> str:
    """That pairs cannot show the difference asked for, with what they could show."""
    asked = DELTA if delta is None else delta
    reaches = [cannot_show(pair, delta) or 0.0 for pair in pairs]
    observed = [pair.difference for pair in pairs]
    seeds = _range([len(pair.seeds) for pair in pairs], str)
    problems = _range([pair.problems for pair in pairs], str)
    seed_word = "seeds" if seeds != "1" else "seed"
    problem_word = "problems" if problems != "1" else "problem"
    size = f"{seeds} {seed_word} and {problems} {problem_word}"
    if min(reaches) > 1:
        return f"cannot show any difference over {size} (observed {_range(observed, signed)})"
    needed = _range(reaches, two_decimals)
    return (
        f"cannot show a difference of {two_decimals(asked)} over {size}, only of {needed} or more "
        f"(observed {_range(observed, signed)})"
    )


def _arms(pairs: Sequence[Difference]) -> list[str]:
    return [pair.arm for pair in pairs]


def _holds_zero(pair: Difference) -> bool:
    if pair.ci95 is None:
        return False
    low, high = pair.ci95
    return low <= 0 <= high


def _no_difference(pairs: Sequence[Difference], control: str) -> str:
    """Arms whose intervals hold 0, in one clause with the reach of these intervals."""
    intervals = [pair.ci95 for pair in pairs if pair.ci95 is not None]
    lowest = min(low for low, _ in intervals)
    highest = max(high for _, high in intervals)
    seeds = [len(pair.seeds) for pair in pairs]
    problems = [pair.problems for pair in pairs]
    seed_word = "seeds" if max(seeds) > 1 else "seed"
    seed_range = _range(seeds, str)
    problem_range = _range(problems, str)
    reach = bracket((lowest, highest))
    within = f"within {reach} over {seed_range} {seed_word} and {problem_range} problems"
    if min(seeds) == 1:
        within += f"; {ONE_SEED}"
    arms = ", ".join(_arms(pairs))
    return f"no difference from {control} shown for {arms} (intervals {within})"


def _finding(pair: Difference, comparison: Comparison) -> str:
    """A difference, its interval, and what to doubt about it."""
    size = plural(len(pair.seeds), "seed")
    if pair.interval_covers != "seeds":
        size += f" and {plural(pair.problems, 'problem')}"
    difference = signed(pair.difference)
    interval = bracket(pair.ci95)
    finding = f"{difference} {interval} over {size}"
    if pair.ci95 is None:
        return f"{finding}, too few for an interval"
    doubts = []
    if _holds_zero(pair):
        doubt = "the interval contains 0"
        if pair.seeds_to_decide:
            doubt += f"; about {pair.seeds_to_decide} seeds would tell such a difference from 0"
        doubts.append(doubt)
    if len(pair.seeds) == 1:
        doubts.append(ONE_SEED)
    doubts += _unlike_seeds(pair, comparison)
    if not doubts:
        return finding
    words = ", and ".join(doubts)
    return f"{finding} ({words})"


def _unlike_seeds(pair: Difference, comparison: Comparison) -> list[str]:
    """Arms of a pair of which some seeds took off and others did not: no mean describes them."""
    parts = []
    for arm in (pair.arm, pair.control):
        metric = comparison.arms[arm].metrics.get(pair.metric)
        if metric is None or metric.kinds is None:
            continue
        number = len(metric.per_seed)
        took_off = metric.kinds.took_off
        if 0 < took_off < number:
            parts.append(f"only {took_off} of {number} seeds of {arm} took off")
        collapsed = metric.kinds.collapsed
        if 0 < collapsed < number:
            parts.append(f"{collapsed} of {number} seeds of {arm} collapsed")
    return parts


def _spent(costs: Mapping[str, Cost]) -> str:
    """Spending per arm, tokens of critics, and dollars in all.

    Args:
        costs: arm -> cost of the arms that the verdict speaks of.
    """
    if not any(cost.generated_tokens or cost.total_tokens for cost in costs.values()):
        # A run of our own counts its tokens; a log of another trainer may hold none.
        return "a cost that is not known"
    measure = spent_alike(list(costs.values()))
    if measure:
        # One number stands for all arms, for they agree within 5%.
        amounts = [getattr(cost, measure) for cost in costs.values()]
        mean = float(np.mean(amounts))
        spent = f"{short(mean)} {MEASURES[measure]} an arm"
    else:
        parts = []
        for arm, cost in costs.items():
            tokens = short(cost.generated_tokens)
            parts.append(f"{arm} {tokens}")
        spent = f"unequal generated tokens ({', '.join(parts)})"
    critic_tokens = {arm: cost.critic_tokens for arm, cost in costs.items()}
    critics = _paid(critic_tokens, short, " critic tokens")
    if critics:
        # Total tokens count the critics' already.
        among = "of which" if measure == "total_tokens" else "plus"
        spent += f", {among} {critics}"
    usd = {arm: cost.usd for arm, cost in costs.items()}
    dollars = _paid(usd, "${:.2f}".format, "")
    if dollars and measure != "usd":
        spent += f"; {dollars} in all"
    return spent


def _paid(amounts: Mapping[str, float], form: Format, unit: str) -> str:
    """Who paid how much: by name, or as a range where more than two arms paid."""
    paid = [amount for amount in amounts.values() if amount > 0]
    if len(paid) > 2:
        amount_range = _range(paid, form)
        return f"{amount_range}{unit} for each of {len(paid)} arms"
    parts = []
    for arm, amount in amounts.items():
        if amount > 0:
            parts.append(f"{form(amount)}{unit} for {arm}")
    return " and ".join(parts)


def _range(values: Sequence[float], form: Format) -> str:
    lowest = form(min(values))
    highest = form(max(values))
    # Amounts may differ and read alike.
    if lowest == highest:
        return lowest
    return f"{lowest} to {highest}"


def _unfinished(comparison: Comparison) -> str:
    """How many runs are missing or left out, in parentheses; "" where none is."""
    counts = []
    missing = len(comparison.missing)
    if missing:
        counts.append(f"{plural(missing, 'run')} without an evaluation")
    # An arm that cannot be paired is left out once per metric, and counts once.
    left_out = {(item.arm, item.seed) for item in comparison.incomparable}
    if left_out:
        counts.append(f"{len(left_out)} left out as incomparable")
    if not counts:
        return ""
    return f" ({', '.join(counts)})"


def left_out(comparison: Comparison, most: int = 8) -> list[str]:
    """A line for each run or pair that entered no comparison, and why.

    Args:
        comparison: compare.json holds all of them.
        most: lines; if there are more, a last line says how many.
    """
    lines = []
    for item in comparison.incomparable:
        place = item.arm
        if item.seed is not None:
            place += f"/seed{item.seed}"
        lines.append(f"left out: {place}: {item.reason}")
    more = len(lines) - most
    if more > 0:
        return [*lines[:most], f"left out: {more} more, in compare.json"]
    return lines


def terminal_tables(comparison: Comparison) -> list[Table]:
    """The tables that `critique-rl compare` prints."""
    tables = [arms_table(comparison, TERMINAL), differences_table(comparison, TERMINAL)]
    if comparison.second:
        tables.append(second_table(comparison, comparison.second, TERMINAL))
    if comparison.boundary:
        tables.append(boundary_table(comparison.boundary, TERMINAL))
    seeds = seeds_table(comparison)
    if seeds:
        tables.append(seeds)
    if comparison.target:
        tables.append(target_table(comparison))
    critiques = critiques_table(comparison)
    if critiques.rows:
        tables.append(critiques)
    best = best_arm(comparison)
    # With two arms this table would repeat the differences from the control.
    if best and len(comparison.arms) > 2:
        tables.append(best_table(comparison, best))
    return tables


def table(comparison: Comparison) -> Group:
    """`terminal_tables` as rich prints them, in 80 columns."""
    printed = [to_terminal(part) for part in terminal_tables(comparison)]
    return Group(*printed)
