"""Divergences of two distributions and their gradients, both in closed form.

Autograd through `objective.divergence` walks about thirty tensors of the logits' size. Here each
is a few passes over them, which `sliced_divergence` makes a block of rows at a time.

Axes: N tokens, V vocabulary, K kept tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from critique_rl.objective import mixture_divergence, with_tail


class Slope(NamedTuple):
    """What one block of tokens adds."""

    divergence_N: Tensor
    """(N,) in nats."""
    gradient_NV: Tensor
    """(N, V): of each divergence with respect to the student's logits."""
    student_logps_N: Tensor
    """(N,) log-probs of the labels."""
    teacher_logps_N: Tensor
    """(N,) of the same under the teacher."""


@torch.no_grad()
def full_slope(
    student_logits_NV: Tensor, teacher_logits_NV: Tensor, label_N: Tensor, alpha: float
) -> Slope:
    """The divergence over the complete vocabulary, without a clip of entries.

    With S, T and M the probabilities of student, teacher and mixture, and z the student's logits:

        alpha 0:  D = KL(T || S),  dD/dz = S - T
        alpha 1:  D = KL(S || T),  dD/dz = S (log S - log T - D)
        between:  dD/dz = (1 - alpha) S (log S - log M - KL(S || M))

    Args:
        student_logits_NV: the student's.
        teacher_logits_NV: the teacher's.
        label_N: token ids.
        alpha: as in `objective.divergence`.
    """
    student_logps = torch.log_softmax(student_logits_NV, -1)
    teacher_logps = torch.log_softmax(teacher_logits_NV, -1)
    labels = (_at(student_logps, label_N), _at(teacher_logps, label_N))
    if alpha == 0.0:
        teacher = teacher_logps.exp()
        divergence_N = _dot(teacher, teacher_logps.sub_(student_logps))
        return Slope(divergence_N, student_logps.exp_().sub_(teacher), *labels)
    if alpha == 1.0:
        log_ratio = teacher_logps.neg_().add_(student_logps)
        student = student_logps.exp_()
        divergence_N = _dot(student, log_ratio)
        gradient = log_ratio.sub_(divergence_N.unsqueeze(1)).mul_(student)
        return Slope(divergence_N, gradient, *labels)
    student = student_logps.exp()
    teacher = teacher_logps.exp()
    mixture = teacher.mul(alpha)
    mixture.add_(student, alpha=1 - alpha)
    # Where both round to 0 their logarithms must stay finite: 0 times infinity is no number.
    least = torch.finfo(mixture.dtype).tiny
    mixture_logps = mixture.clamp_(min=least).log_()
    log_ratio = student_logps.sub_(mixture_logps)
    student_kl = _dot(student, log_ratio)
    teacher_kl = _dot(teacher, teacher_logps.sub_(mixture_logps))
    divergence_N = (1 - alpha) * student_kl + alpha * teacher_kl
    gradient = log_ratio.sub_(student_kl.unsqueeze(1))
    gradient.mul_(student)
    gradient.mul_(1 - alpha)
    return Slope(divergence_N, gradient, *labels)


@torch.no_grad()
def kept_slope(
    student_logits_NV: Tensor,
    teacher_logits_NV: Tensor,
    label_N: Tensor,
    alpha: float,
    top_k: int,
    tail: bool,
    entry_clip: float | None,
) -> Slope:
    """The divergence over the student's K likeliest tokens, and with `tail` a bucket of the others.

    Autograd sees the K or K + 1 outcomes alone. A token of the bucket gets of the bucket's gradient
    what it has of its probability.

    Args:
        student_logits_NV: the student's.
        teacher_logits_NV: the teacher's.
        label_N: token ids.
        alpha: as in `objective.divergence`.
        top_k: K, under V.
        tail: as in `objective.divergence`.
        entry_clip: as in `objective.divergence`.
    """
    index = student_logits_NV.topk(top_k, dim=-1).indices
    if tail:
        student_kept = with_tail(student_logits_NV, index)
        teacher_kept = with_tail(teacher_logits_NV, index)
        student_total = torch.logsumexp(student_kept, -1)
        teacher_total = torch.logsumexp(teacher_kept, -1)
    else:
        student_kept = student_logits_NV.gather(-1, index)
        teacher_kept = teacher_logits_NV.gather(-1, index)
        student_total = torch.logsumexp(student_logits_NV, -1)
        teacher_total = torch.logsumexp(teacher_logits_NV, -1)
    divergence_N, kept_gradient = _slope_of(student_kept, teacher_kept, alpha, entry_clip)
    if tail:
        shares = student_logits_NV - student_kept[:, -1:]
        gradient = shares.exp_().mul_(kept_gradient[:, -1:])
    else:
        gradient = torch.zeros_like(student_logits_NV)
    gradient.scatter_(-1, index, kept_gradient[:, :top_k])
    student_labels = _at(student_logits_NV, label_N) - student_total
    teacher_labels = _at(teacher_logits_NV, label_N) - teacher_total
    return Slope(divergence_N, gradient, student_labels, teacher_labels)


@torch.no_grad()
def clipped_slope(
    student_logits_NV: Tensor,
    teacher_logits_NV: Tensor,
    label_N: Tensor,
    alpha: float,
    entry_clip: float,
) -> Slope:
    """The divergence over the complete vocabulary with a clip of entries, by autograd.

    Args:
        student_logits_NV: the student's.
        teacher_logits_NV: the teacher's.
        label_N: token ids.
        alpha: as in `objective.divergence`.
        entry_clip: as in `objective.divergence`.
    """
    divergence_N, gradient = _slope_of(student_logits_NV, teacher_logits_NV, alpha, entry_clip)
    student_total = torch.logsumexp(student_logits_NV, -1)
    teacher_total = torch.logsumexp(teacher_logits_NV, -1)
    student_labels = _at(student_logits_NV, label_N) - student_total
    teacher_labels = _at(teacher_logits_NV, label_N) - teacher_total
    return Slope(divergence_N, gradient, student_labels, teacher_labels)


def _slope_of(
    student: Tensor, teacher: Tensor, alpha: float, entry_clip: float | None
) -> tuple[Tensor, Tensor]:
    """Divergences (N,) of logits (N, K), and their gradients (N, K) by autograd."""
    leaf = student.detach().requires_grad_()
    with torch.enable_grad():
        student_logps = torch.log_softmax(leaf, -1)
        teacher_logps = torch.log_softmax(teacher, -1)
        divergence_N = mixture_divergence(student_logps, teacher_logps, alpha, entry_clip)
        (gradient,) = torch.autograd.grad(divergence_N.sum(), leaf)
    return divergence_N.detach(), gradient


def _dot(left_NV: Tensor, right_NV: Tensor) -> Tensor:
    """Sums (N,) of products."""
    return (left_NV * right_NV).sum(-1)


def _at(values_NV: Tensor, label_N: Tensor) -> Tensor:
    """Each row's value at its label, (N,)."""
    return values_NV.gather(-1, label_N.unsqueeze(-1)).squeeze(-1)
