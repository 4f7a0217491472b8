"""What a run has spent: tokens by owner, FLOPs, US dollars. Budgets and curves are over these.

    total tokens = every owner's: what was sampled, its prompts, critics, teachers, expert traces; evaluations are counted apart
    FLOPs        = parameters * (2 * tokens that pass forward + 6 * tokens trained)        (Kaplan et al. 2020, section 2.1, without attention's share)
    dollars      = what critics charged + the policy's own tokens at `Prices`

`trained` and `scored` (old and reference log-probs) are passes over tokens that have an owner
already: they cost FLOPs and add nothing to the total. Left out: wall time, which is an axis and no
budget, and the FLOPs of a critic behind an API, whose size nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GENERATED = ("rollout", "refinement", "self_critique")
"""Owners of the tokens that are sampled from the policy for training."""
READ = ("rollout_prompt", "refinement_prompt", "self_critique_prompt", "teacher")
"""Owners of the tokens that the policy, or a teacher of its size, only reads."""
OWNERS = (*GENERATED, *READ, "critic_prompt", "critic_completion", "expert", "expert_prompt")
KINDS = {
    "generated_tokens": "tokens/generated",
    "total_tokens": "tokens/total",
    "flops": "cost/flops",
    "usd": "cost/usd",
}
"""What a budget can be of, besides optimizer steps, and the metric that tells how much of it was
spent.
"""

Tokens = Mapping[str, float]
"""{"tokens/<owner>": count}"""


@dataclass(frozen=True)
class Prices:
    """US dollars for a million tokens of the policy: what the machine it runs on costs. A critic's
    prices are among its own options.
    """

    prompt: float = 0.0
    """Read: prompts, and what a teacher reads."""
    completion: float = 0.0
    """Sampled."""
    training: float = 0.0
    """Trained on."""


def count(tokens: Tokens, *owners: str) -> int:
    """Tokens of these owners together."""
    return int(sum(tokens.get(f"tokens/{owner}", 0) for owner in owners))


def flops(tokens: Tokens, parameters: int) -> float:
    """Floating-point operations of the policy and its teachers so far."""
    return float(parameters) * (
        2 * count(tokens, *GENERATED, *READ, "scored") + 6 * count(tokens, "trained")
    )


def policy_usd(tokens: Tokens, prices: Prices) -> float:
    """US dollars for the policy's own tokens."""
    spent = (
        prices.completion * count(tokens, *GENERATED),
        prices.prompt * count(tokens, *READ, "scored"),
        prices.training * count(tokens, "trained"),
    )
    return sum(spent) / 1e6


def costs(tokens: Tokens, critic_usd: float, parameters: int, prices: Prices) -> dict[str, float]:
    """Everything a budget can be of, by `KINDS`."""
    return {
        "generated_tokens": count(tokens, *GENERATED),
        "total_tokens": count(tokens, *OWNERS),
        "flops": flops(tokens, parameters),
        "usd": critic_usd + policy_usd(tokens, prices),
    }
