"""`objective.divergence` from hidden states, a slice of tokens at a time. Logits of shape (tokens,
vocabulary) never exist, neither the student's nor the teacher's.

Gradients are taken slice by slice in the forward pass; the backward pass only scales them. Peak
memory beyond the inputs is about fifteen tensors of one slice's size and one gradient of the head,
for any number of tokens. Left out: tiles of the vocabulary.

Axes: N tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from critique_rl.objective import logps_divergence

# On a CPU larger slices are faster, but the allocator keeps more of them
# (tests/benchmarks/sliced_memory.py).
SLICE_ELEMENTS = 1 << 20
"""Logits per slice: 4 MiB in float32."""


@dataclass(frozen=True)
class Head:
    """The layer from hidden states to logits.

    Its projection and its soft cap are apart, because gradients are taken with respect to the
    projection.
    """

    weight: Tensor
    """(V, H)."""
    bias: Tensor | None = None
    """(V,); None for most models."""
    softcap: float | None = None
    """Final soft cap of models that have one: softcap * tanh(logits / softcap)."""

    @property
    def precision(self) -> torch.dtype:
        """Of projections and all that is made of them: float32, or the weight's own float64."""
        return torch.promote_types(self.weight.dtype, torch.float32)

    def project(self, hidden_NH: Tensor) -> Tensor:
        """Projections (N, V) in `precision`, before the soft cap."""
        projected_NV = F.linear(hidden_NH.to(self.weight.dtype), self.weight, self.bias)
        return projected_NV.to(self.precision)

    def finish(self, projected_NV: Tensor, temperature: float) -> Tensor:
        """Logits (N, V) at this temperature."""
        logits_NV = projected_NV
        if self.softcap:
            logits_NV = self.softcap * torch.tanh(projected_NV / self.softcap)
        if temperature != 1.0:
            logits_NV = logits_NV / temperature
        return logits_NV

    def logps(self, projected_NV: Tensor, temperature: float) -> Tensor:
        """Log-probs (N, V) at this temperature."""
        return torch.log_softmax(self.finish(projected_NV, temperature), -1)

    def detach(self) -> Head:
        """The same head without gradients."""
        bias = None if self.bias is None else self.bias.detach()
        return Head(self.weight.detach(), bias, self.softcap)


@dataclass(frozen=True)
class Divergence:
    """Settings of `objective.divergence`. Logits are divided by the temperature."""

    alpha: float
    top_k: int | None = None
    tail: bool = True
    temperature: float = 1.0
    entry_clip: float | None = None

    def __call__(self, student_logps: Tensor, teacher_logps: Tensor) -> Tensor:
        """Divergence (N,) of log-probs (N, V)."""
        return logps_divergence(
            student_logps, teacher_logps, self.alpha, self.top_k, self.tail, self.entry_clip
        )


def sliced_divergence(
    student_hidden_NH: Tensor,
    student: Head,
    teacher_hidden_NH: Tensor,
    teacher: Head,
    weight_N: Tensor,
    label_N: Tensor,
    measure: Divergence,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The weighted divergence of student and teacher, with gradients of the student's side.

    Args:
        student_hidden_NH: Hidden states (N, H).
        student: The student's head.
        teacher_hidden_NH: Hidden states (N, H') under the teacher's prompt.
        teacher: The teacher's head; the vocabulary is the student's.
        weight_N: Weight of each token's divergence.
        label_N: Sampled token ids.
        measure: Which divergence.

    Returns:
        sum(weight_N * divergence), a scalar with its gradient; then, detached, the divergence (N,)
        and the log-probs (N,) of `label_N` under student and teacher.
    """
    assert len(student_hidden_NH) == len(teacher_hidden_NH) == len(weight_N) == len(label_N)
    return _Sliced.apply(
        student_hidden_NH,
        # Autograd sees only tensors that are arguments themselves, not those inside a Head.
        student.weight,
        student.bias,
        student,
        teacher_hidden_NH.detach(),
        teacher.detach(),
        weight_N.detach(),
        label_N,
        measure,
    )


@torch.no_grad()
def sliced_logps(hidden_BTH: Tensor, head: Head, label_BT: Tensor, temperature: float) -> Tensor:
    """Log-probs (B, T) of the labels in the head's precision, without gradient."""
    hidden_NH = hidden_BTH.flatten(0, 1)
    label_N = label_BT.flatten()
    step = _slice_tokens(head.weight)
    logps_N = hidden_BTH.new_zeros(len(hidden_NH), dtype=head.precision)
    for start in range(0, len(hidden_NH), step):
        part = slice(start, start + step)
        logits_NV = head.finish(head.project(hidden_NH[part]), temperature)
        logps_N[part] = _pick_labels(logits_NV, label_N[part]) - torch.logsumexp(logits_NV, -1)
    return logps_N.view_as(label_BT)


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH,
        weight_VH,
        bias_V,
        student: Head,
        teacher_hidden_NH,
        teacher: Head,
        weight_N,
        label_N,
        measure: Divergence,
    ):
        student = student.detach()
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        hidden_grad = torch.empty_like(hidden_NH) if needs_hidden else None
        # In bfloat16 a sum over many slices stops growing at 256 times one share.
        precision = student.precision
        weight_grad = torch.zeros_like(weight_VH, dtype=precision) if needs_weight else None
        bias_grad = torch.zeros_like(bias_V, dtype=precision) if needs_bias else None
        tokens = len(hidden_NH)
        value_N = torch.zeros(tokens, device=hidden_NH.device, dtype=precision)
        student_logps_N = torch.zeros_like(value_N)
        teacher_logps_N = torch.zeros_like(value_N)
        step = _slice_tokens(weight_VH)
        for start in range(0, tokens, step):
            part = slice(start, start + step)
            projected_NV = teacher.project(teacher_hidden_NH[part])
            teacher_logps_NV = teacher.logps(projected_NV, measure.temperature)
            projected_NV = student.project(hidden_NH[part]).requires_grad_()
            with torch.enable_grad():
                student_logps_NV = student.logps(projected_NV, measure.temperature)
                divergence_N = measure(student_logps_NV, teacher_logps_NV)
                weighted_sum = (divergence_N * weight_N[part]).sum()
                (grad_NV,) = torch.autograd.grad(weighted_sum, projected_NV)
            value_N[part] = divergence_N.detach()
            student_logps_N[part] = _pick_labels(student_logps_NV.detach(), label_N[part])
            teacher_logps_N[part] = _pick_labels(teacher_logps_NV, label_N[part])
            if hidden_grad is not None:
                hidden_grad_NH = grad_NV.to(weight_VH.dtype) @ student.weight
                hidden_grad[part] = hidden_grad_NH.to(hidden_NH.dtype)
            if weight_grad is not None:
                weight_grad.addmm_(grad_NV.T, hidden_NH[part].to(precision))
            if bias_grad is not None:
                bias_grad += grad_NV.sum(0)
        ctx.save_for_backward(hidden_grad, weight_grad, bias_grad)
        bias_dtype = weight_VH.dtype if bias_V is None else bias_V.dtype
        ctx.dtypes = (hidden_NH.dtype, weight_VH.dtype, bias_dtype)
        ctx.mark_non_differentiable(value_N, student_logps_N, teacher_logps_N)
        return (value_N * weight_N).sum(), value_N, student_logps_N, teacher_logps_N

    @staticmethod
    def backward(ctx: Any, upstream, *_: Any):
        gradients: list[Tensor | None] = []
        for saved, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True):
            if saved is None:
                gradients.append(None)
                continue
            # A new tensor for each pass, because autograd copies a gradient that ctx still holds,
            # and (V, H) is large. It frees the saved one after the last pass.
            scaled = torch.empty_like(saved, dtype=dtype)
            gradients.append(torch.mul(saved, upstream, out=scaled))
        # One per argument of forward; those after the bias have none.
        return (*gradients, None, None, None, None, None, None)


def _slice_tokens(weight_VH: Tensor) -> int:
    """Tokens per slice, a scalar of at least 1."""
    return max(1, SLICE_ELEMENTS // weight_VH.shape[0])


def _pick_labels(values_NV: Tensor, label_N: Tensor) -> Tensor:
    """Each row's value at its label, (N,)."""
    return values_NV.gather(-1, label_N.unsqueeze(-1)).squeeze(-1)
