"""Which reward functions say that a rollout is right.

They are those named by `success_reward`; without a name the only `VerifierReward`, else the only
function that scores rows one by one. A weighted sum says nothing: with a penalty in it, right
rollouts would count as failed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from critique_rl.tasks.rewards import VerifierReward
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.types import Outcome, Verdict

NO_SUCCESS_REWARD = Verdict("unscored", reason="no success_reward")
"""The verdict where no reward function says what is right."""
SIGNS: dict[Outcome, tuple[float, ...]] = {
    "right": (1.0,),
    "wrong": (0.0, -1.0),
    "unreadable": (0.0, -1.0),
    "abstained": (0.0,),
}
"""Outcome -> rewards of a verdict that credit "signed" stands for."""


@dataclass(frozen=True)
class SuccessRule:
    """How a rollout's rewards become its verdict."""

    places: tuple[int, ...]
    """Places of the reward functions that say what is right; () if none does."""
    threshold: float = 1.0
    """A function without a verifier calls a rollout right from this reward on."""

    def verdicts(self, functions: Sequence[Any], rewards: Tensor) -> list[Verdict]:
        """Verdicts of rows that the functions have just scored.

        Args:
            functions: all reward functions.
            rewards: (B, F) of all functions, NaN where one returned None.

        Returns:
            One per row. With several functions a row is right if all that scored it say so.
        """
        if not self.places:
            return [NO_SUCCESS_REWARD] * len(rewards)
        columns = []
        for place in self.places:
            column = self._column(functions[place], rewards[:, place])
            columns.append(column)
        return [_join(row) for row in zip(*columns, strict=True)]

    def _column(self, function: Any, rewards: Tensor) -> list[Verdict]:
        """Verdicts by one function, from its rewards (B,)."""
        if isinstance(function, VerifierReward):
            # Those of its last call, which was on just these rows.
            assert len(function.verdicts) == len(rewards), (len(function.verdicts), len(rewards))
            return list(function.verdicts)
        # In the rewards' precision: .7 in float32 is less than Python's .7.
        least = torch.tensor(self.threshold, dtype=rewards.dtype, device=rewards.device)
        outcomes: list[Verdict] = []
        for is_nan, is_right in zip(
            rewards.isnan().tolist(), (rewards >= least).tolist(), strict=True
        ):
            if is_nan:
                outcomes.append(Verdict("unscored"))
            elif is_right:
                outcomes.append(Verdict("right"))
            else:
                outcomes.append(Verdict("wrong"))
        return outcomes


def _join(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict from those of several functions on one row."""
    scored = [verdict for verdict in verdicts if verdict.outcome != "unscored"]
    if not scored:
        return verdicts[0]
    not_right = [verdict for verdict in scored if verdict.outcome != "right"]
    failed = [verdict for verdict in not_right if verdict.failed]
    return [*failed, *not_right, *scored][0]


# ---- which functions -----------------------------------------------------------------------------


def success_rule(
    functions: Sequence[Any],
    names: Sequence[str],
    weights: Sequence[float],
    args: CritiqueGRPOConfig,
    has_critic: bool,
) -> SuccessRule:
    """Which of a trainer's reward functions say what is right.

    Args:
        functions: all reward functions.
        names: their names, as TRL logs them.
        weights: their weights.
        args: settings of the run.
        has_critic: whether there is a critic.

    Raises:
        ValueError: none says it, and something asks; or credit "signed" would ignore a reward.
    """
    places = find_success(functions, names, args.success_reward)
    refuse_unknown_success(places, functions, names, args.verdict_readers(has_critic))
    if args.credit == "signed":
        refuse_ignored_rewards(places, functions, names, weights)
    return SuccessRule(places, args.success_threshold)


def find_success(
    functions: Sequence[Any], names: Sequence[str], wanted: str | Sequence[str] | None
) -> tuple[int, ...]:
    """Places of the reward functions that say what is right.

    Args:
        functions: all reward functions.
        names: their names, as TRL logs them.
        wanted: the option `success_reward`.

    Returns:
        () where several functions could say it and none is named.

    Raises:
        ValueError: a name that no function has, or several have, or one that compares a group.
    """
    per_row = [i for i, function in enumerate(functions) if not _is_group_wise(function)]
    if wanted is None:
        verifiers = [i for i in per_row if isinstance(functions[i], VerifierReward)]
        for candidates in (verifiers, per_row):
            if len(candidates) == 1:
                return (candidates[0],)
        return ()
    wanted_names = [wanted] if isinstance(wanted, str) else wanted
    return tuple(_find_one(name, names, per_row) for name in wanted_names)


def _find_one(name: str, names: Sequence[str], per_row: Sequence[int]) -> int:
    """Raises: ValueError: not exactly one function that scores rows one by one has the name."""
    places = [i for i, other in enumerate(names) if other == name]
    if len(places) > 1:
        raise ValueError(
            f"success_reward: {len(places)} reward functions are called {name!r}; "
            "give them different names (__name__)"
        )
    if not places:
        raise ValueError(
            f"success_reward: got {name!r}, but the reward functions are {', '.join(names)}"
        )
    if places[0] not in per_row:
        raise ValueError(
            f"success_reward: {name!r} compares the rows of a group, "
            "and cannot say whether one is right; name a function that scores rows one by one"
        )
    return places[0]


def _is_group_wise(function: Any) -> bool:
    return bool(getattr(function, "group_wise", False))


# ---- counters ------------------------------------------------------------------------------------


def count_success(
    rule: SuccessRule,
    functions: Sequence[Any],
    names: Sequence[str],
    rewards: Tensor,
    verdicts: Sequence[Verdict],
) -> Counter[str]:
    """Counters of failed rollouts, and of the rewards of 0 and 1 that could contradict them.

    Args:
        rule: which functions say what is right.
        functions: all reward functions.
        names: their names.
        rewards: (B, F) of some rollouts.
        verdicts: their verdicts.
    """
    counts: Counter[str] = Counter()
    for verdict in verdicts:
        counts["success/judged"] += verdict.outcome != "unscored"
        counts["success/failed"] += verdict.failed
    verifiers = [getattr(functions[place], "verifier", None) for place in rule.places]
    for i, (function, name) in enumerate(zip(functions, names, strict=True)):
        # Another reward of the same verdict pays what it pays on purpose, and chance says nothing.
        shares_verdict = i not in rule.places and getattr(function, "verifier", 0) in verifiers
        by_chance = getattr(function, "by_chance", False)
        if shares_verdict:
            continue
        if by_chance:
            continue
        if _is_group_wise(function):
            continue
        column = rewards[:, i]
        scored = column[~column.isnan()]
        zeros = int((scored == 0).sum())
        ones = int((scored == 1).sum())
        counts[f"success/scored/{name}"] += len(scored)
        counts[f"success/zeros/{name}"] += zeros
        counts[f"success/graded/{name}"] += len(scored) - zeros - ones
    return counts


# ---- what cannot work ----------------------------------------------------------------------------


def refuse_unknown_success(
    places: Sequence[int], functions: Sequence[Any], names: Sequence[str], readers: Sequence[str]
) -> None:
    """Refuse settings that ask which rollouts are right where no reward function says it.

    Args:
        places: from `find_success`.
        functions: all reward functions.
        names: their names.
        readers: what asks, in words such as "a critic".

    Raises:
        ValueError: it is asked, and nobody says it.
    """
    if places or not readers:
        return
    per_row = [names[i] for i, function in enumerate(functions) if not _is_group_wise(function)]
    if not per_row:
        raise ValueError(
            f"{readers[0]} needs to know which rollouts are right, and {', '.join(names)} compares "
            "the rows of a group; add a reward function that scores rows one by one"
        )
    raise ValueError(
        f"{readers[0]} needs to know which rollouts are right, and there are {len(per_row)} reward "
        f"functions: {', '.join(per_row)}. Name the one that says it: "
        f"CritiqueGRPOConfig(success_reward={per_row[0]!r})"
    )


def refuse_ignored_rewards(
    places: Sequence[int], functions: Sequence[Any], names: Sequence[str], weights: Sequence[float]
) -> None:
    """Refuse rewards that credit "signed" would not read: it pays 1 for right, -1 for failed.

    Args:
        places: from `find_success`.
        functions: all reward functions.
        names: their names.
        weights: their weights.

    Raises:
        ValueError: a reward has a weight and says something else than right or failed.
    """
    judges = ", ".join(names[i] for i in places)
    for i, (function, name) in enumerate(zip(functions, names, strict=True)):
        if not weights[i]:
            continue
        if i not in places:
            raise ValueError(
                f"credit signed: pays 1 for right and -1 for failed by {judges}, and would ignore "
                f"the reward {name} of weight {weights[i]:g}; set its weight to 0 in "
                "reward_weights, or use credit group"
            )
        if isinstance(function, VerifierReward) and not _is_signed(function.value):
            raise ValueError(
                f"credit signed: pays 1 for right and -1 for failed, and would ignore that the "
                f"reward {name} pays something else; use credit group, or the reward correct"
            )


def _is_signed(value: Callable[[Verdict], float | None]) -> bool:
    """Whether a verdict's reward is 1 for right, and 0 or -1 for failed."""
    return all(value(Verdict(outcome)) in rewards for outcome, rewards in SIGNS.items())
