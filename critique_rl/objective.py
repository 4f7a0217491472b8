"""The mixed objective as pure tensor functions; axes as suffixes: _B rows, _T completion tokens, _V
vocabulary, _N any tokens, _H hidden.

    L = L_scalar + refine_weight * L_refine + distill_weight * L_distill

L_scalar is TRL's own clipped surrogate (so it is not here); its credit is, as are the refine term
and the divergences of the distillation term. The same divergences in slices, for vocabularies whose
logits do not fit, are in `sliced`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# ---- credit: what each row of the scalar term earns ----------------------------------------------


def group_advantages(
    rewards: Tensor,
    group_size: int,
    baseline: str = "group",
    scale: str = "none",
    counted: Tensor | None = None,
) -> Tensor:
    """Advantages of rewards (B,) in consecutive groups: minus the group mean (`baseline="group"`)
    or not ("none"), over std + 1e-4 ("std") or not ("none").

    Mean and std (ddof 1) are over the rows `counted` (B,) bool, default all. With refinements
    counted it is Critique-GRPO's union baseline (section 4.2): [0]*7+[1] -> [-.125]*7+[.875]; with
    rollouts alone LUFFY's (arXiv 2504.14945): [0]*7+[1]. NaN rewards are never counted and earn 0.
    """
    assert rewards.numel() % group_size == 0, (
        f"{rewards.numel()} rewards do not split into groups of {group_size}"
    )
    groups = rewards.view(-1, group_size)
    counted = ~groups.isnan() if counted is None else counted.view(-1, group_size) & ~groups.isnan()
    number = counted.sum(1, keepdim=True)
    mean = groups.masked_fill(~counted, 0).sum(1, keepdim=True) / number.clamp(min=1)
    centred = groups - mean if baseline == "group" else groups
    if scale == "std":
        deviations = (groups - mean).masked_fill(~counted, 0)
        centred = centred / (
            (deviations.pow(2).sum(1, keepdim=True) / (number - 1).clamp(min=1)).sqrt() + 1e-4
        )
    return centred.nan_to_num(nan=0.0).view(-1)


def signed_credit(
    rewards: Tensor, positive_weight: float = 1.0, negative_weight: float = 1.0
) -> Tensor:
    """Raw credit without a baseline: reward 1 -> +positive_weight, reward 0 -> -negative_weight,
    NaN -> 0. Any shape.

    PSR is (1, 0), NSR (0, 1), W-REINFORCE (.1, 1): arXiv 2506.01347, section 2 and Eq. of section
    5.
    """
    signed = torch.where(rewards > 0, positive_weight, -negative_weight)
    return (signed.to(rewards.dtype) if rewards.is_floating_point() else signed).masked_fill(
        rewards.isnan(), 0.0
    )


def weighted_advantages(
    advantages: Tensor, positive_weight: float, negative_weight: float
) -> Tensor:
    """Scale positive and negative advantages apart, any shape."""
    return advantages * torch.where(advantages > 0, positive_weight, negative_weight)


# ---- refine: right second attempts as demonstrations under the plain question --------------------


def shaped_ratio(logps: Tensor, gamma: float) -> Tensor:
    """Policy shaping f(p) = p / (p + gamma), elementwise on log-probabilities of any shape.

    LUFFY (arXiv 2504.14945), Eq. 5; Critique-GRPO (arXiv 2506.03106), section 4.3, gamma = .1. d f
    / d log p = gamma p / (p + gamma)^2 peaks at p = gamma: learning goes to tokens the policy would
    hardly have written itself.
    """
    # sigmoid(log p - log gamma) is p / (p + gamma), and stays exact where p underflows.
    return torch.sigmoid(
        logps - torch.log(torch.as_tensor(gamma, dtype=logps.dtype, device=logps.device))
    )


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
    """Sum over refinement tokens of the refine term, a scalar; the caller divides by its
    normaliser.

    Both log-probs are of the refinement under the question alone, `old` before this generation's
    updates. `ratio`: "shaped" -credit * p / (p + gamma) (Critique-GRPO, LUFFY); "importance"
    -credit * p / p_old (RLTF-SD, arXiv 2602.02482); "nll" -credit * log p (RAFT, arXiv 2304.06767).
    `clip` (low, high): min(r A, clip(r, 1 - low, 1 + high) A), which on the shaped ratio gives a
    wrong refinement no gradient where p < gamma (1 - low) / low. `floor`: tokens with old log-prob
    under it are masked.
    """
    credit = credit_B.unsqueeze(1)
    # Rows without credit drop out here: their ratio may overflow, and inf * 0 is NaN.
    mask_BT = mask_BT * (credit != 0)
    if floor is not None:
        mask_BT = mask_BT * (old_logps_BT >= floor)
    if ratio == "nll":
        return -(logps_BT.masked_fill(mask_BT == 0, 0.0) * credit * mask_BT).sum()
    # Beyond e^20 a ratio overflows, and under the clip its gradient would be inf * 0.
    log_ratio = (logps_BT - old_logps_BT).masked_fill(mask_BT == 0, 0.0).clamp(-20.0, 20.0)
    score = shaped_ratio(logps_BT, gamma) if ratio == "shaped" else torch.exp(log_ratio)
    surrogate = score * credit
    if clip is not None:
        surrogate = torch.minimum(surrogate, score.clamp(1 - clip[0], 1 + clip[1]) * credit)
    return -(surrogate * mask_BT).sum()


# ---- distill: divergence to a teacher that has more context --------------------------------------


def divergence(
    student_logits: Tensor,
    teacher_logits: Tensor,
    alpha: float,
    top_k: int | None = None,
    tail: bool = True,
) -> Tensor:
    """Divergence of student and teacher from logits (..., T, V) -> (..., T); gradients reach the
    student alone if the teacher's are detached.

    `alpha` as in TRL: 0 = KL(T||S), 1 = KL(S||T), between (1 - a) KL(S||M) + a KL(T||M) with M = (1
    - a) S + a T (SDPO, arXiv 2601.20802). `top_k` restricts both to the student's k likeliest
    tokens, with one bucket for the rest (`tail`) or renormalised.
    """
    return logps_divergence(
        torch.log_softmax(student_logits, -1),
        torch.log_softmax(teacher_logits, -1),
        alpha,
        top_k,
        tail,
    )


def logps_divergence(
    student: Tensor, teacher: Tensor, alpha: float, top_k: int | None = None, tail: bool = True
) -> Tensor:
    """`divergence` from log-probs (..., T, V)."""
    if top_k is not None and top_k < student.shape[-1]:
        index = student.topk(top_k, dim=-1).indices
        if tail:
            student, teacher = with_tail(student, index), with_tail(teacher, index)
        else:
            student, teacher = (
                torch.log_softmax(logps.gather(-1, index), -1) for logps in (student, teacher)
            )
    return mixture_divergence(student, teacher, alpha)


def with_tail(logps: Tensor, index: Tensor) -> Tensor:
    """Log-probs (..., V) -> those at `index` (..., K) and, last, the log of what the others hold:
    (..., K + 1), K < V. Sums to 1.

    The rest is summed up, not taken from 1: in float32 1 - p holds nothing of a rest under 1e-7,
    and it is where the student is surest of an error that the gradient must not vanish. (TRL's SDPO
    takes it from 1, so the two part there.)
    """
    rest = logps.scatter(-1, index, -1e30)
    # A rest of masked tokens only (-inf) is none: bounded, so that no KL is NaN.
    return torch.cat(
        [logps.gather(-1, index), torch.logsumexp(rest, -1, keepdim=True).clamp(min=-1e4)], -1
    )


def mixture_divergence(student_logps: Tensor, teacher_logps: Tensor, alpha: float) -> Tensor:
    """`divergence` on log-probs (..., K) -> (...)."""
    if alpha == 0.0:
        return _kl(teacher_logps, student_logps)
    if alpha == 1.0:
        return _kl(student_logps, teacher_logps)
    weight = torch.tensor(alpha, dtype=student_logps.dtype, device=student_logps.device)
    mixture = torch.logaddexp(
        student_logps + torch.log1p(-weight), teacher_logps + torch.log(weight)
    )
    return (1 - alpha) * _kl(student_logps, mixture) + alpha * _kl(teacher_logps, mixture)


def _kl(p_logps: Tensor, q_logps: Tensor) -> Tensor:
    return (p_logps.exp() * (p_logps - q_logps)).sum(-1)


def sampled_divergence(student_logps: Tensor, teacher_logps: Tensor) -> Tensor:
    """Policy-gradient form of KL(S||T) on the student's own tokens: (log S - log T).detach() * log
    S, elementwise.

    Its gradient is that of the reverse KL in expectation over the student's samples only; on tokens
    another distribution wrote it is not (OPD's advantage log T - log S: OpenClaw-RL, arXiv
    2603.10165, section 4.2; SDPO's sampled-token form, where alpha must be 1).
    """
    return (student_logps - teacher_logps).detach() * student_logps


def importance_weight(logps: Tensor, old_logps: Tensor, limit: float | None) -> Tensor:
    """min(p / p_old, limit), detached, elementwise: SDPO's weight on each token's loss. `limit`
    None: 1 everywhere.
    """
    if limit is None:
        return torch.ones_like(logps)
    return torch.exp((logps - old_logps).detach().clamp(-20.0, 20.0)).clamp(max=limit)


def prefix_weight(student_logps_BT: Tensor, teacher_logps_BT: Tensor) -> Tensor:
    """min(1, prod over s < t of p_T(y_s) / p_S(y_s)), (B, T), detached: how far the prefix is still
    one that the teacher would have written.

    With it (unclamped) the expectation over the student's samples of the divergences is that over
    the teacher's own. A teacher that was told what is wrong with an answer knows the way around the
    first fault; what it says after a fault it would not have made, it was told nothing about.
    """
    log_ratio = (teacher_logps_BT - student_logps_BT).detach()
    return torch.exp((log_ratio.cumsum(1) - log_ratio).clamp(max=0.0))
