"""`objective.divergence` from hidden states, a slice of tokens at a time. Logits of shape (tokens,
vocabulary) never exist, neither the student's nor the teacher's.

Gradients are taken slice by slice in the forward pass; the backward pass only scales them. The
heads' products are made for a slice, all that follows for blocks of its rows. Peak memory beyond
the inputs is two tensors of a slice's size, some of a block's, and one gradient of the head, for
any number of tokens. Left out: tiles of the vocabulary.

Axes: N tokens, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from critique_rl.trainer.divergence_gradient import Slope, clipped_slope, full_slope, kept_slope

SLICE_TOKENS = 128
"""Tokens per slice at least: a product of fewer takes as long as the head takes to be read."""
SLICE_ELEMENTS = 1 << 22
"""Logits per slice where the vocabulary is small: 16 MiB in float32."""
CPU_BLOCK_ELEMENTS = 1 << 18
"""Logits per block of a slice's rows on a CPU: 1 MiB in float32, which a core's cache holds."""
BLOCK_ELEMENTS = 1 << 22
"""The same on other devices, where many small blocks would wait for their launches."""


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
    scale: float = 1.0
    """Factor of the projection, before the soft cap, of models that scale their logits."""

    @property
    def precision(self) -> torch.dtype:
        """Of projections and all that is made of them: float32, or the weight's own float64."""
        return torch.promote_types(self.weight.dtype, torch.float32)

    def project(self, hidden_NH: Tensor, out_NV: Tensor) -> Tensor:
        """Projections (N, V) before the soft cap, put into `out_NV`, which is in `precision`."""
        hidden_NH = hidden_NH.to(self.weight.dtype)
        if self.weight.dtype != self.precision:
            return out_NV.copy_(F.linear(hidden_NH, self.weight, self.bias))
        torch.mm(hidden_NH, self.weight.T, out=out_NV)
        if self.bias is not None:
            out_NV += self.bias
        return out_NV

    def finish(self, projected_NV: Tensor, temperature: float) -> Tensor:
        """Logits (N, V) at this temperature."""
        logits_NV = projected_NV
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap:
            logits_NV = self.softcap * torch.tanh(logits_NV / self.softcap)
        if temperature != 1.0:
            logits_NV = logits_NV / temperature
        return logits_NV

    def slope(self, gradient_NV: Tensor, projected_NV: Tensor, temperature: float) -> Tensor:
        """Gradients (N, V) with respect to projections, from those with respect to `finish`."""
        if temperature != 1.0:
            gradient_NV = gradient_NV / temperature
        if self.softcap:
            capped_NV = torch.tanh(projected_NV * self.scale / self.softcap)
            gradient_NV = gradient_NV * (1 - capped_NV.square())
        if self.scale != 1.0:
            gradient_NV = gradient_NV * self.scale
        return gradient_NV

    def cut(self, rows: int) -> Head:
        """The first `rows` rows of the vocabulary, all of them if it has no more."""
        if len(self.weight) <= rows:
            return self
        bias = None if self.bias is None else self.bias[:rows]
        return Head(self.weight[:rows], bias, self.softcap, self.scale)

    def detach(self) -> Head:
        """The same head without gradients."""
        bias = None if self.bias is None else self.bias.detach()
        return Head(self.weight.detach(), bias, self.softcap, self.scale)


@dataclass(frozen=True)
class Divergence:
    """Settings of `objective.divergence`. Logits are divided by the temperature."""

    alpha: float
    top_k: int | None = None
    tail: bool = True
    temperature: float = 1.0
    entry_clip: float | None = None

    def slope(self, student_logits_NV: Tensor, teacher_logits_NV: Tensor, label_N: Tensor) -> Slope:
        """Divergences (N,) and gradients (N, V), of logits that the temperature has divided."""
        logits = (student_logits_NV, teacher_logits_NV)
        if self.top_k is not None and self.top_k < student_logits_NV.shape[1]:
            return kept_slope(*logits, label_N, self.alpha, self.top_k, self.tail, self.entry_clip)
        if self.entry_clip is not None:
            return clipped_slope(*logits, label_N, self.alpha, self.entry_clip)
        return full_slope(*logits, label_N, self.alpha)


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
    logps_N = hidden_BTH.new_zeros(len(hidden_NH), dtype=head.precision)
    buffer_NV = _slice_buffer(hidden_NH, head)
    for part in _slices(len(hidden_NH), len(buffer_NV)):
        size = part.stop - part.start
        projected_NV = head.project(hidden_NH[part], buffer_NV[:size])
        for block, rows in _blocks(part, projected_NV):
            logits_NV = head.finish(projected_NV[block], temperature)
            picked_N = _pick_labels(logits_NV, label_N[rows])
            logps_N[rows] = picked_N - logits_NV.logsumexp(-1)
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
        student_buffer_NV = _slice_buffer(hidden_NH, student)
        teacher_buffer_NV = _slice_buffer(hidden_NH, teacher)
        for part in _slices(tokens, len(student_buffer_NV)):
            size = part.stop - part.start
            teacher_NV = teacher.project(teacher_hidden_NH[part], teacher_buffer_NV[:size])
            student_NV = student.project(hidden_NH[part], student_buffer_NV[:size])
            for block, rows in _blocks(part, student_NV):
                slope = measure.slope(
                    student.finish(student_NV[block], measure.temperature),
                    teacher.finish(teacher_NV[block], measure.temperature),
                    label_N[rows],
                )
                value_N[rows] = slope.divergence_N
                student_logps_N[rows] = slope.student_logps_N
                teacher_logps_N[rows] = slope.teacher_logps_N
                weighted_NV = slope.gradient_NV.mul_(weight_N[rows].unsqueeze(1))
                # The gradient takes the place of the projections, which nobody reads again.
                student_NV[block] = student.slope(
                    weighted_NV, student_NV[block], measure.temperature
                )
            if hidden_grad is not None:
                hidden_grad_NH = student_NV.to(weight_VH.dtype) @ student.weight
                hidden_grad[part] = hidden_grad_NH.to(hidden_NH.dtype)
            if weight_grad is not None:
                weight_grad.addmm_(student_NV.T, hidden_NH[part].to(precision))
            if bias_grad is not None:
                bias_grad += student_NV.sum(0)
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


def _slice_buffer(hidden_NH: Tensor, head: Head) -> Tensor:
    """Room (n, V) for the projections of a slice of hidden states (N, H); n <= N, at least 1."""
    vocabulary = head.weight.shape[0]
    most = max(SLICE_TOKENS, SLICE_ELEMENTS // vocabulary)
    tokens = min(most, len(hidden_NH))
    return hidden_NH.new_empty(tokens, vocabulary, dtype=head.precision)


def _slices(tokens: int, step: int) -> Iterator[slice]:
    """Slices of at most `step` tokens."""
    for start in range(0, tokens, max(1, step)):
        yield slice(start, min(start + step, tokens))


def _blocks(part: slice, projected_NV: Tensor) -> Iterator[tuple[slice, slice]]:
    """Blocks of a slice (N, V): the rows of each in the slice, and among all tokens."""
    elements = CPU_BLOCK_ELEMENTS if projected_NV.device.type == "cpu" else BLOCK_ELEMENTS
    step = max(1, elements // projected_NV.shape[1])
    for block in _slices(len(projected_NV), step):
        first = part.start + block.start
        last = part.start + block.stop
        yield block, slice(first, last)


def _pick_labels(values_NV: Tensor, label_N: Tensor) -> Tensor:
    """Each row's value at its label, (N,)."""
    return values_NV.gather(-1, label_N.unsqueeze(-1)).squeeze(-1)
