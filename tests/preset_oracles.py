"""The loss of each preset in plain numpy, written from the formulas of the papers and of the
released code; nothing here comes from the package.

Axes: B rows of the generation batch, in groups of `GROUP`; T tokens of a completion; V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
GROUP = 8


@dataclass(frozen=True)
class Facts:
    """What a loss is made of. Log-probs are natural logarithms; padding is False in `mask`."""

    tokens: Array
    """(B, T) token ids."""
    mask: Array
    """(B, T) bool."""
    student: Array
    """(B, T, V) log-probs of the policy under the plain question."""
    detached: Array
    """(B, T, V) the same for all that gradients do not pass."""
    old: Array
    """(B, T) log-probs of the tokens when they were sampled."""
    teacher: Array
    """(B, T, V) log-probs of the teacher, on rows that are taught."""
    contrast: Array
    """(B, T, V) its log-probs under the critique of the other problem."""
    taught: Array
    """(B,) bool: rows for which the teacher has something to read."""
    right: Array
    """(B,) bool."""
    refined: Array
    """(B,) bool: refinements and expert traces; all other rows are rollouts."""
    limit: int
    """The constant max_completion_length."""

    @property
    def rollouts(self) -> Array:
        return ~self.refined

    @property
    def completions(self) -> list[list[int]]:
        """Tokens without padding."""
        return [row[real].tolist() for row, real in zip(self.tokens, self.mask, strict=True)]

    @property
    def logps(self) -> Array:
        return self.at_tokens(self.student)

    @property
    def advantage(self) -> Array:
        """(B, T): log pi_T - log pi_old, 0 on rows without a teacher."""
        gap = self.at_tokens(self.teacher) - self.old
        return np.where(self.taught[:, None], gap, 0.0)

    def at_tokens(self, logps: Array) -> Array:
        """(B, T) of (B, T, V)."""
        return np.take_along_axis(logps, self.tokens[..., None], -1)[..., 0]


# ---- means and advantages ------------------------------------------------------------------------


def token_mean(facts: Facts, values: Array, rows: Array, divided: Array | None = None) -> float:
    """The sum over the tokens of `rows`, divided by those of `divided` (the same rows)."""
    counted = facts.mask & rows[:, None]
    over = facts.mask & (rows if divided is None else divided)[:, None]
    return values[counted].sum() / over.sum()


def row_mean(facts: Facts, values: Array, rows: Array) -> float:
    """The mean over the tokens of a row, then over `rows`."""
    means = [values[row][facts.mask[row]].mean() for row in np.flatnonzero(rows)]
    return float(np.mean(means))


def constant_mean(facts: Facts, values: Array, rows: Array, number: int) -> float:
    """Dr. GRPO's: the sum over the tokens of `rows`, over `number` completions of full length."""
    return values[facts.mask & rows[:, None]].sum() / (number * facts.limit)


def group_advantages(facts: Facts, over: Array | None = None, std: bool = False) -> Array:
    """R - mean, over the rows of `over` of the group (all of them), or that / (std + 1e-4)."""
    advantages = np.zeros(len(facts.right))
    for start in range(0, len(advantages), GROUP):
        rows = np.arange(start, start + GROUP)
        rewards = facts.right[rows].astype(float)
        counted = rewards if over is None else rewards[over[rows]]
        advantages[rows] = rewards - counted.mean()
        if std:
            advantages[rows] /= counted.std(ddof=1) + 1e-4
    return advantages


def ppo(facts: Facts, advantages: Array, low: float = 0.2, high: float = 0.2) -> Array:
    """(B, T): -min(r A, clip(r) A) with r = pi / pi_old; advantages are (B,) or (B, T)."""
    if advantages.ndim == 1:
        advantages = advantages[:, None]
    ratio = np.exp(facts.logps - facts.old)
    return -np.minimum(ratio * advantages, np.clip(ratio, 1 - low, 1 + high) * advantages)


def unclipped(facts: Facts, advantages: Array) -> Array:
    """(B, T): -r A."""
    return -np.exp(facts.logps - facts.old) * advantages[:, None]


def shaped(facts: Facts, advantages: Array) -> Array:
    """(B, T): -f(p) A with f(p) = p / (p + .1)."""
    p = np.exp(facts.logps)
    return -p / (p + 0.1) * advantages[:, None]


def entropies(logps: Array) -> Array:
    """(B, T) of log-probs (B, T, V)."""
    return -(np.exp(logps) * logps).sum(-1)


# ---- divergences ---------------------------------------------------------------------------------


def kl(p: Array, q: Array) -> Array:
    """What each entry of the vocabulary adds to KL(P || Q), from log-probs (B, T, V)."""
    return np.exp(p) * (p - q)


def jsd(student: Array, teacher: Array) -> Array:
    """(B, T): the Jensen-Shannon divergence."""
    mixture = np.log((np.exp(student) + np.exp(teacher)) / 2)
    return (kl(student, mixture) + kl(teacher, mixture)).sum(-1) / 2


def on_top(facts: Facts, k: int, tail: bool) -> tuple[Array, Array]:
    """Log-probs (B, T, k or k + 1) of student and teacher on the student's k likeliest tokens."""
    index = np.argsort(-facts.detached, axis=-1)[..., :k]
    sides = []
    for logps in (facts.student, facts.teacher):
        kept = np.exp(np.take_along_axis(logps, index, -1))
        total = kept.sum(-1, keepdims=True)
        kept = np.concatenate([kept, 1 - total], -1) if tail else kept / total
        # There is no distribution on padding, nor on rows without a teacher.
        read = facts.mask & facts.taught[:, None]
        sides.append(np.log(np.where(read[..., None], kept, 1.0)))
    return sides[0], sides[1]


def importance(facts: Facts) -> Array:
    """(B, T): min(pi / pi_old, 2), detached."""
    return np.minimum(np.exp(facts.at_tokens(facts.detached) - facts.old), 2.0)


def prefixes(facts: Facts) -> Array:
    """(B, T): min(1, prod over the tokens before of pi_T / pi), detached."""
    gap = facts.at_tokens(facts.teacher) - facts.at_tokens(facts.detached)
    gap = np.where(facts.mask & facts.taught[:, None], gap, 0.0)
    before = np.concatenate([np.zeros((len(gap), 1)), np.cumsum(gap, 1)[:, :-1]], 1)
    return np.minimum(1.0, np.exp(before))


# ---- scalar --------------------------------------------------------------------------------------


def grpo(facts: Facts) -> float:
    losses = ppo(facts, group_advantages(facts, std=True))
    return row_mean(facts, losses, facts.rollouts)


def dr_grpo(facts: Facts) -> float:
    losses = ppo(facts, group_advantages(facts))
    return constant_mean(facts, losses, facts.rollouts, len(facts.right))


def psr(facts: Facts) -> float:
    return token_mean(facts, ppo(facts, np.ones(len(facts.right))), facts.right)


def nsr(facts: Facts) -> float:
    return token_mean(facts, ppo(facts, -np.ones(len(facts.right))), ~facts.right)


def w_reinforce(facts: Facts) -> float:
    return token_mean(facts, ppo(facts, np.where(facts.right, 0.1, -1.0)), facts.rollouts)


def unlikely(facts: Facts, advantage_of: Callable[[Array], Array]) -> float:
    """OPSA on the max(1, floor(.2 N)) least likely of a row's N tokens; their mean, then of rows.

    Args:
        facts: the batch.
        advantage_of: entropies of those tokens -> their advantages.
    """
    means = []
    for row, mask in enumerate(facts.mask):
        length = int(mask.sum())
        count = max(1, length // 5)
        chosen = np.argsort(facts.old[row, :length], kind="stable")[:count]
        entropy = entropies(facts.detached[row, chosen])
        ratio = np.exp(facts.logps[row, chosen] - facts.old[row, chosen])
        advantage = advantage_of(entropy)
        clipped = np.clip(ratio, 0.8, 1.2) * advantage
        means.append(-np.minimum(ratio * advantage, clipped).mean())
    return float(np.mean(means))


def opsa(facts: Facts) -> float:
    return unlikely(facts, lambda entropy: np.full(len(entropy), -0.5))


def rising(entropy: Array) -> Array:
    spread = entropy.max() - entropy.min()
    # Of a single token the entropy is the highest.
    place = (entropy - entropy.min()) / spread if spread > 0 else np.ones(len(entropy))
    return -0.5 - place / 2


def opsa_entropy(facts: Facts) -> float:
    return unlikely(facts, rising)


# ---- refine --------------------------------------------------------------------------------------


def critique_grpo(facts: Facts) -> float:
    """(1/n) sum over rollouts + (1/k) sum over refinements, k of each group, with k = 1.

    Over groups n counts all rollouts, and k the reserved rows of a group without a refinement too.
    """
    advantages = group_advantages(facts)
    p = np.exp(facts.logps)
    ratio = p / (p + 0.1)
    surrogate = ratio * advantages[:, None]
    clipped = np.clip(ratio, 0.8, 1.2) * advantages[:, None]
    on_policy = constant_mean(facts, ppo(facts, advantages), facts.rollouts, facts.rollouts.sum())
    losses = -np.minimum(surrogate, clipped)
    return on_policy + constant_mean(facts, losses, facts.refined, len(facts.right) // GROUP)


def critique_grpo_as_released(facts: Facts) -> float:
    advantages = group_advantages(facts, std=True)
    number = facts.rollouts.sum()
    on_policy = constant_mean(facts, unclipped(facts, advantages), facts.rollouts, number)
    return on_policy + constant_mean(facts, shaped(facts, advantages), facts.refined, number)


def luffy(facts: Facts) -> float:
    advantages = group_advantages(facts, over=facts.rollouts)
    number = facts.rollouts.sum()
    on_policy = constant_mean(facts, unclipped(facts, advantages), facts.rollouts, number)
    off_policy = constant_mean(facts, shaped(facts, advantages), facts.refined, number)
    bonus = entropies(facts.student)[facts.mask].mean()
    return on_policy + off_policy - 0.001 * bonus


def rltf_sd(facts: Facts) -> float:
    advantages = group_advantages(facts, over=facts.rollouts)
    losses = ppo(facts, advantages)
    second = np.where(facts.old >= -5.0, losses, 0.0)
    first_term = token_mean(facts, losses, facts.rollouts)
    return first_term + 0.1 * token_mean(facts, second, facts.refined, facts.rollouts)


def raft_refine(facts: Facts) -> float:
    return token_mean(facts, -facts.logps, facts.refined & facts.right, facts.refined)


# ---- distill -------------------------------------------------------------------------------------


def opd(facts: Facts) -> float:
    return token_mean(facts, ppo(facts, facts.advantage, 0.2, 0.28), facts.taught)


def opd_as_released(facts: Facts) -> float:
    return row_mean(facts, ppo(facts, facts.advantage), facts.taught)


def signed(facts: Facts) -> Array:
    """(B, T): r + log pi_T - log pi_old."""
    return np.where(facts.right, 1.0, -1.0)[:, None] + facts.advantage


def openclaw_combined(facts: Facts) -> float:
    return token_mean(facts, ppo(facts, signed(facts), 0.2, 0.28), facts.rollouts)


def openclaw_combined_as_released(facts: Facts) -> float:
    return row_mean(facts, ppo(facts, signed(facts), 0.2, 0.28), facts.rollouts)


def rlcsd(facts: Facts) -> float:
    gap = facts.at_tokens(facts.teacher) - facts.at_tokens(facts.contrast)
    return token_mean(facts, ppo(facts, gap, 0.2, 0.28), facts.taught)


def sdpo(facts: Facts) -> float:
    losses = importance(facts) * jsd(*on_top(facts, 100, tail=True))
    return token_mean(facts, losses, facts.taught)


def sdpo_rich_feedback(facts: Facts) -> float:
    student, teacher = on_top(facts, 20, tail=True)
    losses = importance(facts) * kl(student, teacher).sum(-1)
    return token_mean(facts, losses, facts.taught)


def sdft(facts: Facts) -> float:
    return token_mean(facts, kl(facts.student, facts.teacher).sum(-1), facts.taught)


def sdft_as_released(facts: Facts) -> float:
    return row_mean(facts, kl(facts.teacher, facts.student).sum(-1), facts.taught)


def sdft_trl(facts: Facts) -> float:
    losses = importance(facts) * jsd(*on_top(facts, 100, tail=False))
    return token_mean(facts, losses, facts.taught)


def opsd(facts: Facts) -> float:
    losses = np.minimum(kl(facts.teacher, facts.student), 0.05).sum(-1)
    return row_mean(facts, losses, facts.taught)


def opsd_v1(facts: Facts) -> float:
    return token_mean(facts, jsd(facts.student, facts.teacher), facts.taught)


def distil(facts: Facts) -> float:
    """The cross-entropy, less the teacher's entropy, which no gradient passes."""
    cross = -(np.exp(facts.teacher) * facts.student).sum(-1)
    return token_mean(facts, cross - entropies(facts.teacher), facts.taught)


def mixed(facts: Facts) -> float:
    """This project's; the last row of each group is reserved, and only right refinements train."""
    scalar = token_mean(facts, ppo(facts, group_advantages(facts)), facts.rollouts)
    reserved = np.arange(len(facts.right)) % GROUP == GROUP - 1
    refine = token_mean(facts, -facts.logps, facts.refined & facts.right, reserved)
    student, teacher = on_top(facts, 100, tail=True)
    losses = prefixes(facts) * kl(teacher, student).sum(-1)
    distill = token_mean(facts, losses, facts.taught, facts.rollouts | facts.taught)
    return scalar + refine + distill


FORMULAS: dict[str, Callable[[Facts], float]] = {
    formula.__name__: formula
    for formula in (
        grpo,
        dr_grpo,
        psr,
        nsr,
        w_reinforce,
        opsa,
        opsa_entropy,
        critique_grpo,
        critique_grpo_as_released,
        luffy,
        rltf_sd,
        raft_refine,
        opd,
        opd_as_released,
        openclaw_combined,
        openclaw_combined_as_released,
        rlcsd,
        sdpo,
        sdpo_rich_feedback,
        sdft,
        sdft_as_released,
        sdft_trl,
        opsd,
        opsd_v1,
        distil,
        mixed,
    )
}
