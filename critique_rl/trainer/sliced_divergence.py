"""`objective.divergence` from hidden states, a slice of tokens at a time: no (tokens, vocabulary)
logits of student or teacher ever exist whole.

The gradient is taken slice by slice in the forward pass, so the backward pass only scales it. Peak
memory beyond the inputs is some fifteen tensors of one slice's size and one gradient of the head,
whatever the number of tokens. Left out: tiles of the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from critique_rl.objective import logps_divergence

SLICE_ELEMENTS = 1 << 20
"""Logits a slice, 4 MiB in float32. On a CPU larger slices are faster, but what the allocator keeps
of them grows (tests/benchmarks/sliced_memory.py).
"""


@dataclass(frozen=True)
class Head:
    """What turns hidden states into logits: weight (V, H), bias (V,) or None, and the final soft
    cap of models that have one.
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    def project(self, hidden_NH: Tensor) -> Tensor:
        """(N, V) before the soft cap, float32."""
        return F.linear(hidden_NH.to(self.weight.dtype), self.weight, self.bias).float()

    def finish(self, projected_NV: Tensor, temperature: float) -> Tensor:
        """(N, V) logits at this temperature."""
        capped = (
            self.softcap * torch.tanh(projected_NV / self.softcap) if self.softcap else projected_NV
        )
        return capped if temperature == 1.0 else capped / temperature

    def detach(self) -> Head:
        return Head(
            self.weight.detach(), None if self.bias is None else self.bias.detach(), self.softcap
        )


@dataclass(frozen=True)
class Divergence:
    """Which divergence: alpha, top_k and tail as in `objective.divergence`; logits are divided by
    the temperature.
    """

    alpha: float
    top_k: int | None = None
    tail: bool = True
    temperature: float = 1.0

    def __call__(self, student_logps: Tensor, teacher_logps: Tensor) -> Tensor:
        return logps_divergence(student_logps, teacher_logps, self.alpha, self.top_k, self.tail)


def sliced_divergence(
    student_hidden_NH: Tensor,
    student: Head,
    teacher_hidden_NH: Tensor,
    teacher: Head,
    weight_N: Tensor,
    label_N: Tensor,
    measure: Divergence,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(sum of weight_N * divergence with its gradient, divergence (N,), logps (N,) of `label_N`,
    the student's and the teacher's); the last three detached.
    """
    fixed = (teacher_hidden_NH.detach(), teacher.detach(), weight_N.detach(), label_N, measure)
    return _Sliced.apply(student_hidden_NH, student.weight, student.bias, student, *fixed)


@torch.no_grad()
def sliced_logps(hidden_BTH: Tensor, head: Head, label_BT: Tensor, temperature: float) -> Tensor:
    """Log-probs (B, T) of the labels, without gradient."""
    hidden_NH, label_N = hidden_BTH.flatten(0, 1), label_BT.flatten()
    step = max(1, SLICE_ELEMENTS // head.weight.shape[0])
    parts = []
    for start in range(0, len(hidden_NH), step):
        logits = head.finish(head.project(hidden_NH[start : start + step]), temperature)
        parts.append(_picked(logits, label_N[start : start + step]) - torch.logsumexp(logits, -1))
    return torch.cat([hidden_BTH.new_zeros(0, dtype=torch.float32), *parts]).view_as(label_BT)


class _Sliced(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden,
        weight,
        bias,
        student: Head,
        teacher_hidden,
        teacher: Head,
        weight_N,
        label_N,
        measure: Divergence,
    ):
        student, needs = student.detach(), ctx.needs_input_grad[:3]
        hidden_grad = torch.empty_like(hidden) if needs[0] else None
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if needs[1] else None
        bias_grad = torch.zeros_like(bias, dtype=torch.float32) if needs[2] else None
        values, logps, teacher_logps = (
            torch.zeros(len(hidden), device=hidden.device) for _ in range(3)
        )
        step = max(1, SLICE_ELEMENTS // weight.shape[0])
        for start in range(0, len(hidden), step):
            part = slice(start, start + step)
            theirs = torch.log_softmax(
                teacher.finish(teacher.project(teacher_hidden[part]), measure.temperature), -1
            )
            projected = student.project(hidden[part]).requires_grad_()
            with torch.enable_grad():
                ours = torch.log_softmax(student.finish(projected, measure.temperature), -1)
                each = measure(ours, theirs)
                (gradient,) = torch.autograd.grad((each * weight_N[part]).sum(), projected)
            values[part] = each.detach()
            logps[part], teacher_logps[part] = (
                _picked(ours.detach(), label_N[part]),
                _picked(theirs, label_N[part]),
            )
            if hidden_grad is not None:
                hidden_grad[part] = (gradient.to(weight.dtype) @ student.weight).to(hidden.dtype)
            if weight_grad is not None:
                weight_grad.addmm_(gradient.T, hidden[part].float())
            if bias_grad is not None:
                bias_grad += gradient.sum(0)
        ctx.save_for_backward(hidden_grad, weight_grad, bias_grad)
        ctx.dtypes = tuple(
            tensor.dtype for tensor in (hidden, weight, weight if bias is None else bias)
        )
        ctx.mark_non_differentiable(values, logps, teacher_logps)
        return (values * weight_N).sum(), values, logps, teacher_logps

    @staticmethod
    def backward(ctx: Any, upstream, *_: Any):
        # A new tensor for each pass, and the saved one freed by autograd after the last: autograd
        # copies a gradient that ctx still holds, and (V, H) is
        # large.
        scaled = (
            None if g is None else torch.mul(g, upstream, out=torch.empty_like(g, dtype=d))
            for g, d in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*scaled, None, None, None, None, None, None)


def _picked(logps_NV: Tensor, label_N: Tensor) -> Tensor:
    return logps_NV.gather(-1, label_N.unsqueeze(-1)).squeeze(-1)
