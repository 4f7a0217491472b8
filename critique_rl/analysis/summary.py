"""What a comparison says: the verdict in a sentence, and tables that fit a terminal of 80 columns.
The numbers are `compare`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from critique_rl.analysis.formats import (
    MEASURES,
    bracket,
    short,
    shown_metrics,
    signed,
    spent_alike,
)


def verdict(comparison: Mapping[str, Any]) -> str:
    """One sentence: every arm's difference from the control on the primary metric, its interval,
    and what it cost.
    """
    primary, control = comparison["primary"], comparison["control"]
    pairs = [c for c in comparison["comparisons"] if c["metric"] == primary]
    if not pairs:
        return f"No arm can be compared with {control} on {primary} yet{_unfinished(comparison)}."
    unclear = [c for c in pairs if c["ci95"] and c["ci95"][0] <= 0 <= c["ci95"][1]]
    told = [c for c in pairs if c not in unclear] if len(unclear) > 2 else pairs
    clauses = [
        f"{c['arm']} - {control}{f' on {primary}' if i == 0 else ''}: {_finding(c)}"
        for i, c in enumerate(told)
    ]
    clauses += [_no_difference(unclear, control)] if len(unclear) > 2 else []
    return f"{'; '.join(clauses)}; at {_spent(comparison, [control, *(c['arm'] for c in pairs)])}{_unfinished(comparison)}."


def _no_difference(pairs: Sequence[Mapping[str, Any]], control: str) -> str:
    """Arms whose intervals hold 0, in one clause with the reach of these intervals."""
    reach = [min(c["ci95"][0] for c in pairs), max(c["ci95"][1] for c in pairs)]
    seeds, problems = (
        [min(of), max(of)]
        for of in ([len(c["seeds"]) for c in pairs], [c["problems"] for c in pairs])
    )
    doubt = "; one seed says nothing of other seeds" * (seeds[0] == 1)
    over = (
        f"over {_range(seeds, str)} seed{'s'[: seeds[1] > 1]} and {_range(problems, str)} problems"
    )
    return f"no difference from {control} shown for {', '.join(c['arm'] for c in pairs)} (intervals within {bracket(reach)} {over}{doubt})"


def _finding(pair: Mapping[str, Any]) -> str:
    seeds = len(pair["seeds"])
    over = f"over {seeds} seed{'s'[: seeds > 1]} and {pair['problems']} problem{'s'[: pair['problems'] > 1]}"
    text = f"{signed(pair['difference'])} {bracket(pair['ci95'])} {over}"
    if pair["ci95"] is None:
        return f"{text}, too few for an interval"
    contains_zero = pair["ci95"][0] <= 0 <= pair["ci95"][1]
    doubts = ["the interval contains 0"] * contains_zero + [
        "one seed says nothing of other seeds"
    ] * (seeds == 1)
    return f"{text} ({', and '.join(doubts)})" if doubts else text


def _spent(comparison: Mapping[str, Any], arms: Sequence[str]) -> str:
    """What an arm spent, as one number of the first measure by which all agree within 5%; then
    tokens of critics, and dollars in all.
    """
    costs = {arm: comparison["arms"][arm]["cost"] for arm in arms}
    measure = spent_alike(list(costs.values()))
    if measure:
        spent = f"{short(np.mean([cost[measure] for cost in costs.values()]))} {MEASURES[measure]} an arm"
    else:
        listed = [f"{arm} {short(cost['generated_tokens'])}" for arm, cost in costs.items()]
        spent = f"unequal generated tokens ({', '.join(listed)})"
    critics = _each(
        {arm: cost["critic_tokens"] for arm, cost in costs.items()}, short, " critic tokens"
    )
    dollars = (
        ""
        if measure == "usd"
        else _each({arm: cost["usd"] for arm, cost in costs.items()}, "${:.2f}".format, "")
    )
    among = "of which" if measure == "total_tokens" else "plus"
    return spent + f", {among} {critics}" * bool(critics) + f"; {dollars} in all" * bool(dollars)


def _each(paid: Mapping[str, float], form: Callable[[float], str], unit: str) -> str:
    """Who paid how much, arms that paid nothing left out: by name, or as a range where they are
    more than two.
    """
    paid = {arm: amount for arm, amount in paid.items() if amount > 0}
    if len(paid) > 2:
        return f"{_range(list(paid.values()), form)}{unit} for each of {len(paid)} arms"
    return " and ".join(f"{form(amount)}{unit} for {arm}" for arm, amount in paid.items())


def _range(values: Sequence[float], form: Callable[[float], str]) -> str:
    ends = dict.fromkeys((form(min(values)), form(max(values))))
    return " to ".join(ends)


def _unfinished(comparison: Mapping[str, Any]) -> str:
    missing, odd = (
        len(comparison["missing"]),
        len({(item["arm"], item["seed"]) for item in comparison["incomparable"]}),
    )
    counts = [f"{missing} run{'s'[: missing > 1]} without an evaluation"] * (missing > 0) + [
        f"{odd} left out as incomparable"
    ] * (odd > 0)
    return f" ({', '.join(counts)})" if counts else ""


def left_out(comparison: Mapping[str, Any], most: int = 8) -> list[str]:
    """A line for each run or pair that entered no comparison, and why; `most` of them, and how many
    more compare.json holds.
    """
    places = [
        (
            item["arm"] if item["seed"] is None else f"{item['arm']}/seed{item['seed']}",
            item["reason"],
        )
        for item in comparison["incomparable"]
    ]
    lines = [f"left out: {place}: {reason}" for place, reason in places]
    more = len(lines) - most
    return lines[:most] + [f"left out: {more} more, in compare.json"] * (more > 0)


def table(comparison: Mapping[str, Any]) -> Group:
    """Tables to print in 80 columns: the arms with their cost, their differences from the control,
    problems newly solved and lost.
    """
    more = [_second_table(comparison)] if comparison.get("second") else []
    more += [_boundary_table(comparison["boundary"])] if comparison["boundary"] else []
    more += [_target_table(comparison)] if comparison["target"] else []
    more += (
        [_best_table(comparison, best)]
        if len(comparison["arms"]) > 2 and (best := _best(comparison))
        else []
    )
    return Group(_arms_table(comparison), _differences_table(comparison), *more)


def _arms_table(comparison: Mapping[str, Any]) -> Table:
    metrics = shown_metrics(comparison)
    out = Table(
        box=box.SIMPLE_HEAD,
        title="Arms: mean and 95% interval, cost a run",
        title_justify="left",
        padding=(0, 1),
    )
    out.add_column("arm", overflow="fold")
    costs = [name for name, paid in _paid(comparison).items() if paid]
    for name in [*metrics, *costs]:
        out.add_column(
            Text(name.replace("/", "/\n", 1)), justify="right", vertical="top", overflow="fold"
        )
    if comparison["base"]:
        out.add_row(
            "base", *(_number(comparison["base"].get(m)) for m in metrics), *[""] * len(costs)
        )
    for arm, summary in comparison["arms"].items():
        cost = summary["cost"]
        every = {
            "tokens": short(cost["generated_tokens"]),
            "critic": short(cost["critic_tokens"]),
            "usd": f"{cost['usd']:.2f}",
        }
        every["min"] = f"{cost['wall_seconds'] / 60:.1f}"
        cells = (
            Text(f"{m['mean']:.2f}\n{bracket(m['ci95'])}")
            if (m := summary["metrics"].get(name))
            else Text("-")
            for name in metrics
        )
        out.add_row(Text(arm), *cells, *(every[name] for name in costs))
    return out


def _second_table(comparison: Mapping[str, Any]) -> Table:
    metrics, second = shown_metrics(comparison), comparison["second"]
    out = Table(
        box=box.SIMPLE_HEAD,
        title=Text(f"The same problems asked by the template {second['template']}"),
        title_justify="left",
        padding=(0, 1),
    )
    out.add_column("arm", overflow="fold")
    for name in metrics:
        out.add_column(
            Text(name.replace("/", "/\n", 1)), justify="right", vertical="top", overflow="fold"
        )
    if second["base"]:
        out.add_row("base", *(_number(second["base"].get(m)) for m in metrics))
    for arm, summary in second["arms"].items():
        cells = (
            Text(f"{m['mean']:.2f}\n{bracket(m['ci95'])}")
            if (m := summary["metrics"].get(name))
            else Text("-")
            for name in metrics
        )
        out.add_row(Text(arm), *cells)
    return out


def _paid(comparison: Mapping[str, Any]) -> dict[str, bool]:
    """Cost columns, and whether any arm has something in them."""
    costs = [arm["cost"] for arm in comparison["arms"].values()]
    paid = {
        "critic": any(cost["critic_tokens"] for cost in costs),
        "usd": any(cost["usd"] for cost in costs),
    }
    return {"tokens": True, **paid, "min": True}


def _differences_table(comparison: Mapping[str, Any]) -> Table:
    title = f"Differences from {comparison['control']}, paired on problems and seeds"
    out = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", padding=(0, 1))
    for name in ("arm", "metric", "difference", "95% interval", "seeds", "problems"):
        out.add_column(
            name, justify="left" if name in ("arm", "metric") else "right", overflow="fold"
        )
    shown = shown_metrics(comparison)
    for c in (c for c in comparison["comparisons"] if c["metric"] in shown):
        cells = (
            c["arm"],
            c["metric"],
            signed(c["difference"]),
            bracket(c["ci95"]),
            str(len(c["seeds"])),
            str(c["problems"]),
        )
        out.add_row(*map(Text, cells), style="bold" if c["metric"] == comparison["primary"] else "")
    return out


def _best(comparison: Mapping[str, Any]) -> str | None:
    """The arm with the highest mean of the primary metric; None where several have it."""
    means = {
        arm: of["metrics"][comparison["primary"]]["mean"]
        for arm, of in comparison["arms"].items()
        if comparison["primary"] in of["metrics"]
    }
    highest = [arm for arm, mean in means.items() if mean == max(means.values())]
    return highest[0] if len(highest) == 1 else None


def _best_table(comparison: Mapping[str, Any], best: str) -> Table:
    """What the best arm's gain is worth: an arm that does as well without what it has explains the
    gain away.
    """
    primary = comparison["primary"]
    title = Text(f"{best}, best on {primary} (chosen after the fact), minus every other arm")
    out = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1))
    for name in ("minus", "difference", "95% interval", "seeds"):
        out.add_column(name, justify="left" if name == "minus" else "right")
    for pair in (p for p in comparison["pairs"] if best in (p["arm"], p["control"])):
        sign = 1 if pair["arm"] == best else -1
        interval = sorted(sign * end for end in pair["ci95"]) if pair["ci95"] else None
        out.add_row(
            Text(pair["control"] if sign > 0 else pair["arm"]),
            signed(sign * pair["difference"]),
            bracket(interval),
            str(len(pair["seeds"])),
        )
    return out


def _boundary_table(boundary: Mapping[str, Mapping[str, float]]) -> Table:
    title = "Against the base: problems with a right sample that had none, and the reverse, a run"
    out = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", padding=(0, 1))
    for name in ("arm", "newly solved", "newly lost", "problems"):
        out.add_column(name, justify="left" if name == "arm" else "right")
    for arm, row in boundary.items():
        name = "base again (noise)" if arm == "base again" else arm
        out.add_row(
            Text(name), *(f"{row[key]:.1f}" for key in ("solved", "lost")), f"{row['problems']:.0f}"
        )
    return out


def _target_table(comparison: Mapping[str, Any]) -> Table:
    spent = MEASURES[comparison["measure"]]
    title = f"{spent[0].upper()}{spent[1:]} until {comparison['primary']} reached {comparison['target']:g} on validation problems"
    out = Table(box=box.SIMPLE_HEAD, title=Text(title), title_justify="left", padding=(0, 1))
    for name in ("arm", "seeds that did", "spent (geometric mean)", "95% interval"):
        out.add_column(name, justify="left" if name == "arm" else "right")
    for arm, summary in comparison["arms"].items():
        found = summary["to_target"]
        interval = f"[{', '.join(map(short, found['ci95']))}]" if found["ci95"] else "-"
        out.add_row(
            Text(arm),
            f"{found['reached']} of {len(found['per_seed'])}",
            short(found["mean"]) if found["mean"] else "-",
            interval,
        )
    return out


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
