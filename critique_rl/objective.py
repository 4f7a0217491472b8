"""The mixed objective as pure tensor functions.

    L = L_scalar + refine_weight * L_refine + distill_weight * L_distill

All trained tokens are scored under the question q alone.

- scalar: rollouts y_i, each weighed by its advantage or its signed credit. `group_advantages`,
  `signed_credit`, `weighted_advantages`, `unlikely_advantages`.
- refine: chosen refinements y'_j, each token weighed by the policy's probability p(y'_j | q).
  `shaped_ratio`, `refine_loss`.
- distill: y_i or y'_j, each token compared with a teacher that also reads a critique or a solution.
  `divergence`, `sampled_divergence`, `importance_weight`, `prefix_weight`.

Axes are suffixes: _B rows of the batch, _T completion tokens, _V vocabulary, _K kept tokens, _G
groups, _N rows of one group; `...` stands for any leading axes. Log-probs are natural logarithms.

Left out: the clipped surrogate of the scalar term, which is TRL's own code, and the normalisers,
which need all ranks and belong to the trainer. For vocabularies whose logits do not fit into
memory, `trainer.sliced_divergence` takes the same divergences slice by slice.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ---- credit: the advantage of each row in the scalar term ----------------------------------------


def group_advantages(
    rewards: Tensor,
    group_size: int,
    baseline: str = "group",
    scale: str = "none",
    counted: Tensor | None = None,
) -> Tensor:
    """Advantages of rewards in consecutive groups: A = (R - mean) / (std + 1e-4).

    GRPO (arXiv 2402.03300, section 4.1.2) uses mean and std; Dr. GRPO (arXiv 2503.20783, section
    3.2) only the mean. Which rows are `counted` decides the baseline of a refinement. A group of
    seven failed rollouts and one right refinement has rewards [0] * 7 + [1]:

    - all rows counted, Critique-GRPO's union (arXiv 2506.03106, section 4.2): [-.125] * 7 + [.875];
    - rollouts counted, LUFFY's code (arXiv 2504.14945): [0] * 7 + [1].

    Args:
        rewards: (B,), group after group. NaN: the row was not judged.
        group_size: rows per group, N; B is a multiple of it.
        baseline: "group" subtracts the group mean, "none" subtracts nothing.
        scale: "std" divides by the group's std (ddof 1) + 1e-4 as TRL does, "none" by nothing.
        counted: (B,) bool, the rows that mean and std are taken over; None: all. NaN rewards never
            count.

    Returns:
        (B,) advantages; 0 for NaN rewards.
    """
    number = rewards.numel()
    assert number % group_size == 0, f"{number} rewards do not split into groups of {group_size}"
    rewards_GN = rewards.view(-1, group_size)
    counted_GN = ~rewards_GN.isnan()
    if counted is not None:
        assert counted.shape == rewards.shape, (counted.shape, rewards.shape)
        counted_GN = counted_GN & counted.view(-1, group_size)
    # A group without a counted row has mean 0 and std 0: its rows keep their raw reward.
    number_G1 = counted_GN.sum(1, keepdim=True)
    counted_rewards_GN = rewards_GN.masked_fill(~counted_GN, 0)
    mean_G1 = counted_rewards_GN.sum(1, keepdim=True) / number_G1.clamp(min=1)
    advantages_GN = rewards_GN - mean_G1 if baseline == "group" else rewards_GN
    if scale == "std":
        deviations_GN = (rewards_GN - mean_G1).masked_fill(~counted_GN, 0)
        squares_G1 = deviations_GN.pow(2).sum(1, keepdim=True)
        variance_G1 = squares_G1 / (number_G1 - 1).clamp(min=1)
        # TRL's constant: a group whose rewards are all alike has std 0.
        advantages_GN = advantages_GN / (variance_G1.sqrt() + 1e-4)
    return advantages_GN.nan_to_num(nan=0.0).view(-1)


def signed_credit(
    rewards: Tensor, positive_weight: float = 1.0, negative_weight: float = 1.0
) -> Tensor:
    """Credit without a baseline: a right answer earns +positive_weight, a wrong -negative_weight.

    arXiv 2506.01347: PSR is (1, 0) and NSR is (0, 1), section 2; W-REINFORCE is (.1, 1), section 5.

    Args:
        rewards: any shape; above 0 is right, else wrong, NaN is not judged.
        positive_weight: weight of right answers, the paper's lambda.
        negative_weight: weight of wrong answers.

    Returns:
        The credit, in the shape of `rewards`; 0 for NaN.
    """
    credit = torch.where(rewards > 0, positive_weight, -negative_weight)
    if rewards.is_floating_point():
        # `where` over two Python numbers gives float32, whatever the rewards are.
        credit = credit.to(rewards.dtype)
    return credit.masked_fill(rewards.isnan(), 0.0)


def weighted_advantages(
    advantages: Tensor, positive_weight: float, negative_weight: float
) -> Tensor:
    """Scale positive and negative advantages apart.

    Args:
        advantages: any shape.
        positive_weight: factor of advantages above 0.
        negative_weight: factor of the others.

    Returns:
        The scaled advantages, in the same shape.
    """
    weights = torch.where(advantages > 0, positive_weight, negative_weight)
    return advantages * weights


def unlikely_advantages(
    logps_BT: Tensor,
    mask_BT: Tensor,
    share: float,
    advantage: float,
    entropies_BT: Tensor | None = None,
) -> Tensor:
    """Token advantages on the least likely tokens of each row: OPSA (arXiv 2608.31046).

    A row of N tokens has K = max(1, floor(share N)) of them, those of lowest log-prob. Each gets
    the fixed `advantage` (section 3.2), or with entropies (Eq. 4 and 5, of which these are the sum)

        A_t = advantage (1 + (H_t - H_min) / (H_max - H_min)),    min and max over those K

    and N / K times that: the row's mean over N tokens is then the paper's mean over the K.

    Args:
        logps_BT: log p of the sampled tokens.
        mask_BT: 1 at completion tokens, 0 at padding; any dtype.
        share: share of a row's tokens.
        advantage: the advantage.
        entropies_BT: entropy of the policy at each token; None: the fixed form.

    Returns:
        (B, T) advantages, 0 on all other tokens, without gradient.
    """
    assert mask_BT.shape == logps_BT.shape, (mask_BT.shape, logps_BT.shape)
    real_BT = mask_BT.bool()
    length_B1 = real_BT.sum(1, keepdim=True)
    count_B1 = (share * length_B1).floor().clamp(min=1)
    # Stable: of equally likely tokens the first ones are taken, on every device.
    order_BT = logps_BT.detach().masked_fill(~real_BT, torch.inf).argsort(dim=1, stable=True)
    rank_BT = order_BT.argsort(1)
    taken_BT = (rank_BT < count_B1) & real_BT
    strength_BT = torch.ones_like(logps_BT)
    if entropies_BT is not None:
        entropies_BT = entropies_BT.detach()
        lowest_B1 = entropies_BT.masked_fill(~taken_BT, torch.inf).amin(1, keepdim=True)
        highest_B1 = entropies_BT.masked_fill(~taken_BT, -torch.inf).amax(1, keepdim=True)
        spread_B1 = highest_B1 - lowest_B1
        place_BT = (entropies_BT - lowest_B1) / spread_B1
        # Of equal entropies, as of a single token, all are the highest: as the paper's code has it.
        strength_BT = 1 + place_BT.masked_fill(spread_B1 <= 0, 1.0)
    scale_B1 = advantage * length_B1 / count_B1
    return (scale_B1 * strength_BT).masked_fill(~taken_BT, 0.0)


# ---- refine: second attempts as demonstrations under the plain question --------------------------


def shaped_ratio(logps: Tensor, gamma: float) -> Tensor:
    """Policy shaping f(p) = p / (p + gamma): LUFFY (arXiv 2504.14945), Eq. 5.

    Critique-GRPO (arXiv 2506.03106, section 4.3) uses it with gamma = .1 on refinements. Its slope
    df / dlog p = gamma p / (p + gamma)^2 peaks at p = gamma. Learning therefore goes to tokens that
    the policy would hardly have written itself.

    Args:
        logps: log p of the sampled tokens, any shape.
        gamma: the probability that learns most, above 0.

    Returns:
        f(p) in the same shape, from 0 to 1 / (1 + gamma).
    """
    # sigmoid(log p - log gamma) is p / (p + gamma), and stays exact where p underflows.
    gamma_tensor = torch.as_tensor(gamma, dtype=logps.dtype, device=logps.device)
    return torch.sigmoid(logps - torch.log(gamma_tensor))


def refine_loss(
    logps_BT: Tensor,
    old_logps_BT: Tensor,
    credit_B: Tensor,
    mask_BT: Tensor,
    ratio: str,
    gamma: float = 0.1,
    clip: tuple[float, float] | None = None,
    floor: float | None = None,
) -> Tensor:
    """Sum of the refine term over the tokens of refinements; the caller divides by its normaliser.

    Per token, with A the row's credit, p the policy now and p_old before this generation's updates:

    | ratio | loss | source |
    |---|---|---|
    | "shaped" | -A p / (p + gamma) | Critique-GRPO (arXiv 2506.03106), section 4.2; LUFFY |
    | "importance" | -A p / p_old | RLTF-SD (arXiv 2602.02482) |
    | "nll" | -A log p | RAFT (arXiv 2304.06767) |

    Both probabilities are of the refinement under the question alone, though it was sampled with
    attempt and critique in the prompt. This is how the critique's content enters the policy.

    Args:
        logps_BT: log p.
        old_logps_BT: log p_old, without gradient.
        credit_B: A; rows with credit 0 do not train.
        mask_BT: 1 at the tokens of refinements, 0 elsewhere; any dtype.
        ratio: "shaped", "importance" or "nll".
        gamma: of the shaped ratio.
        clip: (low, high) for PPO's min(r A, clip(r, 1 - low, 1 + high) A); not applied to "nll".
            A wrong refinement's shaped ratio then has no gradient where p < gamma (1 - low) / low.
        floor: tokens whose old log-prob is below it do not train (RLTF-SD: -5).

    Returns:
        The loss, a scalar.
    """
    assert ratio in ("shaped", "importance", "nll"), f"unknown ratio {ratio!r}"
    assert old_logps_BT.shape == logps_BT.shape, (old_logps_BT.shape, logps_BT.shape)
    assert mask_BT.shape == logps_BT.shape, (mask_BT.shape, logps_BT.shape)
    assert credit_B.shape == logps_BT.shape[:1], (credit_B.shape, logps_BT.shape)
    credit_B1 = credit_B.unsqueeze(1)
    # Rows without credit drop out here: their ratio may overflow, and inf * 0 is NaN.
    trained_BT = mask_BT.bool() & (credit_B1 != 0)
    if floor is not None:
        trained_BT = trained_BT & (old_logps_BT >= floor)
    if ratio == "nll":
        trained_logps_BT = logps_BT.masked_fill(~trained_BT, 0.0)
        return -(trained_logps_BT * credit_B1).sum()
    if ratio == "shaped":
        ratio_BT = shaped_ratio(logps_BT, gamma)
    else:
        log_ratio_BT = logps_BT - old_logps_BT
        log_ratio_BT = log_ratio_BT.masked_fill(~trained_BT, 0.0)
        # Beyond e^20 a ratio overflows, and under the clip its gradient would be inf * 0.
        ratio_BT = torch.exp(log_ratio_BT.clamp(-20.0, 20.0))
    surrogate_BT = ratio_BT * credit_B1
    if clip is not None:
        low, high = clip
        clipped_BT = ratio_BT.clamp(1 - low, 1 + high) * credit_B1
        surrogate_BT = torch.minimum(surrogate_BT, clipped_BT)
    return -surrogate_BT.masked_fill(~trained_BT, 0.0).sum()


# ---- distill: divergence to a teacher that has more context --------------------------------------


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    alpha: float,
    top_k: int | None = None,
    tail: bool = True,
    entry_clip: float | None = None,
) -> Tensor:
    """Divergence of student S from teacher T, token by token: SDPO (arXiv 2601.20802), Eq. 1.

    The teacher is the policy (or its average, or its base) with more context, such as a critique.
    `alpha` chooses the divergence as in TRL's SDPO:

    - 0: KL(T || S), forward;
    - 1: KL(S || T), reverse;
    - between: (1 - alpha) KL(S || M) + alpha KL(T || M), with M = (1 - alpha) S + alpha T; .5 is
      the Jensen-Shannon divergence.

    Gradients reach both sides: detach the teacher's logits to train the student alone.

    Args:
        student_logits: (..., T, V).
        teacher_logits: (..., T, V).
        alpha: 0 to 1. The family is discontinuous: near 0 and 1 it is almost 0, at 0 and 1 a KL.
        top_k: compare only the student's K likeliest tokens per position; None: all V.
        tail: with `top_k`, put the other tokens in one bucket; False: renormalise over the K.
        entry_clip: the largest share of one vocabulary entry; see `mixture_divergence`.

    Returns:
        (..., T) divergences in nats, from 0; under `entry_clip` they may be negative.
    """
    assert student_logits.shape == teacher_logits.shape, (
        student_logits.shape,
        teacher_logits.shape,
    )
    student_logps = torch.log_softmax(student_logits, -1)
    teacher_logps = torch.log_softmax(teacher_logits, -1)
    return logps_divergence(student_logps, teacher_logps, alpha, top_k, tail, entry_clip)


def logps_divergence(
    student_logps: Tensor,
    teacher_logps: Tensor,
    alpha: float,
    top_k: int | None = None,
    tail: bool = True,
    entry_clip: float | None = None,
) -> Tensor:
    """`divergence` from log-probs.

    Args:
        student_logps: (..., V), normalised.
        teacher_logps: (..., V), normalised.
        alpha: as in `divergence`.
        top_k: as in `divergence`.
        tail: as in `divergence`.
        entry_clip: as in `divergence`.

    Returns:
        (...) divergences in nats.
    """
    vocabulary = student_logps.shape[-1]
    if top_k is not None and top_k < vocabulary:
        # Both sides are read at the student's tokens, as TRL's SDPO does: with different tokens per
        # side the buckets would not match.
        index = student_logps.topk(top_k, dim=-1).indices
        restrict = with_tail if tail else _renormalise
        student_logps = restrict(student_logps, index)
        teacher_logps = restrict(teacher_logps, index)
    return mixture_divergence(student_logps, teacher_logps, alpha, entry_clip)


def with_tail(logps: Tensor, index: Tensor) -> Tensor:
    """Log-probs of some tokens and, as a last bucket, of all others together.

    Args:
        logps: (..., V), normalised.
        index: (..., K) the kept tokens, K < V.

    Returns:
        (..., K + 1) log-probs, normalised.
    """
    # The rest is summed up, not taken from 1 as in TRL's SDPO. In float32, 1 - p holds nothing of a
    # rest under 1e-7. There the student is surest of an error, and must not lose its gradient.
    kept = logps.gather(-1, index)
    others = logps.scatter(-1, index, -1e30)
    # If all others are masked tokens (-inf), the bucket is empty: bounded, so that no KL is NaN.
    bucket = torch.logsumexp(others, -1, keepdim=True).clamp(min=-1e4)
    return torch.cat([kept, bucket], -1)


def _renormalise(logps: Tensor, index: Tensor) -> Tensor:
    """Log-probs of shape (..., V) at `index` (..., K), normalised over those K."""
    kept = logps.gather(-1, index)
    return torch.log_softmax(kept, -1)


def mixture_divergence(
    student_logps: Tensor, teacher_logps: Tensor, alpha: float, entry_clip: float | None = None
) -> Tensor:
    """The formula of `divergence` on distributions over the same outcomes.

    With an `entry_clip` each outcome v adds min(l_v, entry_clip), where l_v is its summand, for
    alpha 0: p_T(v) (log p_T(v) - log p_S(v)). This is OPSD's pointwise clip (arXiv 2601.18734,
    section 3.2). The bucket of other tokens is one outcome. A summand may be negative, so where
    large ones are cut the sum may be too.

    Args:
        student_logps: (..., K), normalised.
        teacher_logps: (..., K), normalised.
        alpha: as in `divergence`.
        entry_clip: above 0; None: no clip.

    Returns:
        (...) divergences in nats.
    """
    assert student_logps.shape == teacher_logps.shape, (student_logps.shape, teacher_logps.shape)
    # At the ends the mixture formula is 0 everywhere, so TRL takes the plain KL there.
    if alpha == 0.0:
        summands = _kl_summands(teacher_logps, student_logps)
    elif alpha == 1.0:
        summands = _kl_summands(student_logps, teacher_logps)
    else:
        weight = torch.tensor(alpha, dtype=student_logps.dtype, device=student_logps.device)
        student_part = student_logps + torch.log1p(-weight)
        teacher_part = teacher_logps + torch.log(weight)
        mixture_logps = torch.logaddexp(student_part, teacher_part)
        student_summands = _kl_summands(student_logps, mixture_logps)
        teacher_summands = _kl_summands(teacher_logps, mixture_logps)
        if entry_clip is None:
            student_sum = student_summands.sum(-1)
            teacher_sum = teacher_summands.sum(-1)
            return (1 - alpha) * student_sum + alpha * teacher_sum
        summands = (1 - alpha) * student_summands + alpha * teacher_summands
    if entry_clip is not None:
        summands = summands.clamp(max=entry_clip)
    return summands.sum(-1)


def _kl_summands(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    """What each outcome adds to KL(P || Q), from log-probs and in their shape (..., K)."""
    return p_logps.exp() * (p_logps - q_logps)


def sampled_divergence(student_logps: Tensor, teacher_logps: Tensor) -> Tensor:
    """Policy-gradient form of KL(S || T) on the student's own tokens: sg(log S - log T) log S.

    It needs one log-prob per token, not V. OPD (OpenClaw-RL, arXiv 2603.10165, section 4.2) is its
    negative, the advantage log T - log S. SDPO's sampled-token form is the same, with alpha = 1.

    Args:
        student_logps: log S of the sampled tokens, any shape.
        teacher_logps: log T of the same tokens, same shape.

    Returns:
        The loss per token, same shape. Its gradient, not its value, is that of the divergence.
    """
    # In expectation over the student's samples this is the gradient of the reverse KL. On tokens
    # that another distribution wrote it is not: six random cases had cosines of .47 to .88 to it.
    return (student_logps - teacher_logps).detach() * student_logps


def importance_weight(logps: Tensor, old_logps: Tensor, limit: float | None) -> Tensor:
    """SDPO's weight on each token's loss (arXiv 2601.20802): min(p / p_old, limit), detached.

    Args:
        logps: log p of the sampled tokens, any shape.
        old_logps: log p_old when they were sampled, same shape.
        limit: the largest weight (the paper: 2); None switches the weight off.

    Returns:
        The weights, same shape, without gradient; 1 everywhere if `limit` is None.
    """
    if limit is None:
        return torch.ones_like(logps)
    # The bound of 20 is that of SDPO's code, which TRL copied and tests compare with.
    log_ratio = (logps - old_logps).detach().clamp(-20.0, 20.0)
    return torch.exp(log_ratio).clamp(max=limit)


def prefix_weight(student_logps_BT: Tensor, teacher_logps_BT: Tensor) -> Tensor:
    """How far a token's prefix is one that the teacher would have written, detached.

        w_t = min(1, prod over s < t of p_T(y_s) / p_S(y_s))

    Without the min, this importance weight turns an expectation over the student's samples into one
    over the teacher's. It fits a teacher that knows from the critique how to avoid the first error.
    Once the prefix holds an error that the teacher would not make, the critique no longer informs
    the teacher, so later tokens weigh less.

    Args:
        student_logps_BT: log p_S of the student's tokens; 0 at padding.
        teacher_logps_BT: log p_T of the same tokens; 0 at padding.

    Returns:
        (B, T) weights from 0 to 1, without gradient.
    """
    shapes = (student_logps_BT.shape, teacher_logps_BT.shape)
    assert shapes[0] == shapes[1], shapes
    log_ratio_BT = (teacher_logps_BT - student_logps_BT).detach()
    # The token's own ratio is taken out again: only the prefix before it counts.
    prefix_BT = log_ratio_BT.cumsum(1) - log_ratio_BT
    return torch.exp(prefix_BT.clamp(max=0.0))
