"""The spending of a run: tokens by owner, FLOPs, US dollars. Budgets and curves are over these.

    total tokens = sum of tokens over `OWNERS`

    FLOPs = parameters * (2 * tokens of forward passes + 6 * tokens trained)

    dollars = charges of critics and served teachers + tokens of the policy * `Prices`

The FLOPs are Kaplan et al. 2020 (arXiv 2001.08361), section 2.1, without the share of attention.
The tokens of evaluations are counted apart.

Left out: wall time, which is an axis but no budget, and the FLOPs of a critic or a teacher behind
an API, whose size is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

GENERATED = ("rollout", "refinement", "self_critique")
"""Owners of tokens that are sampled from the policy for training."""
READ = ("rollout_prompt", "refinement_prompt", "self_critique_prompt", "teacher")
"""Owners of tokens that the policy, or a teacher in this process, only reads."""
# "trained" and "scored" (old and reference log-probs) are no owners: they are further passes over
# tokens that have one. They cost FLOPs and add nothing to the total.
OWNERS = (
    *GENERATED,
    *READ,
    "critic_prompt",
    "critic_completion",
    "served_teacher",
    "expert",
    "expert_prompt",
)
KINDS = {
    "generated_tokens": "tokens/generated",
    "total_tokens": "tokens/total",
    "flops": "cost/flops",
    "usd": "cost/usd",
}
"""Kind of budget -> the metric that logs how much of it was spent. A budget of optimizer steps is
no spending and has no entry.
"""

Tokens = Mapping[str, float]
"""{"tokens/<owner>": count}"""


@dataclass(frozen=True)
class Prices:
    """Price of the policy's tokens in US dollars per million: the machine that it runs on.

    The prices of a critic are among the critic's options.
    """

    prompt: float = 0.0
    """Per million tokens that the policy or a teacher reads."""
    completion: float = 0.0
    """Per million sampled tokens."""
    training: float = 0.0
    """Per million trained tokens."""

    def __post_init__(self) -> None:
        """Check every price. Raises ValueError for one that is negative or no number."""
        prices = (self.prompt, self.completion, self.training)
        if not all(_is_price(price) for price in prices):
            raise ValueError(
                f"prices: got prompt, completion, training {prices}; "
                "expected numbers from 0, in US dollars per million tokens"
            )


def _is_price(value: object) -> bool:
    # A negative price would refund a budget in dollars; NaN is below no budget and above none.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value >= 0


def count(tokens: Tokens, *owners: str) -> int:
    """Tokens of these owners together."""
    return int(sum(tokens.get(f"tokens/{owner}", 0) for owner in owners))


def flops(tokens: Tokens, parameters: int, teacher_parameters: int | None = None) -> float:
    """Floating-point operations of the policy and its teachers.

    Args:
        tokens: tokens so far, by owner, with "trained" and "scored".
        parameters: parameters of the policy.
        teacher_parameters: parameters of the teacher; None: as many as the policy's.
    """
    if teacher_parameters is None:
        teacher_parameters = parameters
    taught = count(tokens, "teacher")
    forward = count(tokens, *GENERATED, *READ, "scored") - taught
    trained = count(tokens, "trained")
    # Per token and parameter: one multiplication and one addition forward, twice that backward.
    return float(parameters) * (2 * forward + 6 * trained) + 2.0 * teacher_parameters * taught


def policy_usd(tokens: Tokens, prices: Prices) -> float:
    """US dollars for the tokens of the policy and its teachers.

    Args:
        tokens: tokens so far, by owner, with "trained" and "scored".
        prices: US dollars per million tokens.
    """
    sampled = prices.completion * count(tokens, *GENERATED)
    read = prices.prompt * count(tokens, *READ, "scored")
    trained = prices.training * count(tokens, "trained")
    return sum((sampled, read, trained)) / 1e6


def costs(
    tokens: Tokens,
    critic_usd: float,
    parameters: int,
    prices: Prices,
    teacher_parameters: int | None = None,
) -> dict[str, float]:
    """Spending by kind of budget (`KINDS`).

    Args:
        tokens: tokens so far, by owner.
        critic_usd: US dollars that critics and served teachers charged so far.
        parameters: parameters of the policy.
        prices: prices of the policy's tokens.
        teacher_parameters: parameters of the teacher; None: as many as the policy's.
    """
    return {
        "generated_tokens": count(tokens, *GENERATED),
        "total_tokens": count(tokens, *OWNERS),
        "flops": flops(tokens, parameters, teacher_parameters),
        "usd": critic_usd + policy_usd(tokens, prices),
    }
