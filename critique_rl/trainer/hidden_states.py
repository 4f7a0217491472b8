"""Forward passes for the terms with a teacher: the rows they read, hidden states, and the head.

From hidden states and head a divergence makes its logits a slice at a time. `PolicyPasses` is the
only place where these terms read the trainer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedType
from torch import Tensor, nn
from trl import GRPOTrainer

from critique_rl.sampling.attention import causal_model
from critique_rl.trainer import trl_seams
from critique_rl.trainer.fsdp_weights import full_tensor, reshard
from critique_rl.trainer.sliced_divergence import Head
from critique_rl.trainer.trl_seams import TrlBatch

HEAD_TOLERANCE = 1e-2
"""Gap of log-probs, relative to the largest one, between a model and its hidden states by its head:
above what half precision makes.
"""

SLICE_POSITIONS = 1_024
"""Most positions that pass forward together without a gradient, on a CPU: its cache holds them."""
SLICE_POSITIONS_GPU = 16_384
"""The same on a GPU, which wants more at once (not measured)."""
SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)
"""Kinds of run in which no rank has all weights."""


class PolicyPasses:
    """Forward passes of the policy in training, and sums over the ranks that make them."""

    def __init__(self, trainer: GRPOTrainer):
        self.trainer = trainer

    @property
    def model(self) -> Any:
        """The policy without the wrappers of DDP; with those of PEFT, and sharded if it is."""
        return trl_seams.policy_of(self.trainer)

    @property
    def is_main_rank(self) -> bool:
        return self.trainer.accelerator.is_main_process

    @property
    def slice_positions(self) -> float:
        """Most positions that pass forward together where no gradient is taken."""
        accelerator = self.trainer.accelerator
        # There a forward pass is a collective, so all ranks make one.
        if accelerator.distributed_type in SHARDED:
            return math.inf
        return SLICE_POSITIONS if accelerator.device.type == "cpu" else SLICE_POSITIONS_GPU

    @property
    def temperature(self) -> float:
        return self.trainer.temperature

    def autocast(self) -> AbstractContextManager[None]:
        """The precision in which a training step makes its forward passes."""
        return self.trainer.accelerator.autocast()

    def token_logps(self, model: nn.Module, ids: Tensor, attention: Tensor, length: int) -> Tensor:
        """Log-probs (B, T) of the last T = `length` tokens of (B, positions), with gradient."""
        return trl_seams.token_logps(self.trainer, model, ids, attention, length)

    def sum_over_ranks(self, tensor: Tensor) -> Tensor:
        """The sum of tensors of one shape, of any shape. A collective."""
        return self.trainer.accelerator.reduce(tensor, reduction="sum")

    def log_mean(self, name: str, total: Tensor, count: Tensor) -> None:
        """Log the mean of a metric over all ranks from two scalars, a sum and its number of
        summands. A collective.
        """
        trl_seams.mean_metric(self.trainer, name, total, count)


def head_of(model: nn.Module) -> Head:
    """The language-model head as it is now, unsharded."""
    causal = causal_model(model)
    # What FSDP2 has gathered itself it frees, or fills with other weights, later on.
    reshard(causal)
    head = causal.get_output_embeddings()
    weight = full_tensor(head.weight)
    bias = getattr(head, "bias", None)
    if bias is not None:
        bias = full_tensor(bias)
    settings = causal.config.get_text_config()
    softcap = getattr(settings, "final_logit_softcapping", None)
    return Head(weight, bias, softcap, _logit_scale(settings))


@torch.no_grad()
def head_gap(head: Head, hidden_NH: Tensor, logits_NV: Tensor) -> float:
    """The largest difference between log-probs from a head and from a model's own logits, over the
    largest log-prob's size: about 0 but for architectures that do more with their logits.

    Args:
        head: the model's.
        hidden_NH: its last hidden states (N, H).
        logits_NV: its logits (N, V) for them.
    """
    logits_NV = logits_NV.to(head.precision)
    projected_NV = head.project(hidden_NH, torch.empty_like(logits_NV))
    ours_NV = torch.log_softmax(head.finish(projected_NV, 1.0), -1)
    theirs_NV = torch.log_softmax(logits_NV, -1)
    gap = (ours_NV - theirs_NV).abs().max() / theirs_NV.abs().max()
    return gap.item()


def _logit_scale(settings: Any) -> float:
    """The factor by which an architecture multiplies its head's projection; 1 for most.

    TRL's fused head reads the same settings (`trl.trainer.utils.add_fused_lm_head`).
    """
    # Cohere; Muse Glimmer; Falcon-H1.
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        scale = getattr(settings, name, None)
        if scale is not None:
            return float(scale)
    scaling = getattr(settings, "logits_scaling", None)
    if scaling is None:
        return 1.0
    if settings.model_type == "hyperclovax":
        return float(scaling)
    # Granite and MiniCPM3 divide by it.
    return 1 / float(scaling)


@contextmanager
def last_hidden_states(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within the block the last hidden states of every forward pass are put into a list.

    Yields:
        The list; each element has the shape (rows, positions, hidden).
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        seen.append(output.last_hidden_state)

    handle = causal_model(model).base_model.register_forward_hook(keep)
    try:
        yield seen
    finally:
        handle.remove()


# ---- rows of a term ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TermRows:
    """The rows of a micro batch that one term reads, B in number."""

    inputs: TrlBatch
    """The micro batch, with the keys of `Distillation.prepare`."""
    places: Tensor
    """(B,) in the micro batch."""
    trained: Tensor
    """(B, T), 0 on tokens that the term does not train."""

    def column(self, key: str) -> Tensor:
        """These rows of a key of the micro batch, of shape (B, ...)."""
        return self.inputs[key][self.places]

    @property
    def completion_ids(self) -> Tensor:
        """(B, T) token ids."""
        return self.column("completion_ids")

    @property
    def completion_mask(self) -> Tensor:
        """(B, T), 0 on padding."""
        return self.column("completion_mask")

    @property
    def length(self) -> int:
        """T, positions of completions."""
        return self.inputs["completion_ids"].shape[1]

    def predicting(self, hidden: Tensor) -> Tensor:
        """Of hidden states (B, positions, H) those (B, T, H) that predict the completion."""
        # The state at a position predicts the token after it.
        return hidden[:, -self.length - 1 : -1]

    def with_context(self, name: str = "context") -> tuple[Tensor, Tensor]:
        """Contexts followed by completions.

        Args:
            name: which context, "context" or "contrast".

        Returns:
            Token ids and attention, both (B, positions), without columns that are padding in every
            one of these rows.
        """
        context_ids = self.column(f"{name}_ids")
        context_mask = self.column(f"{name}_mask")
        start = int(context_mask.any(0).float().argmax())
        context_ids = context_ids[:, start:]
        context_mask = context_mask[:, start:]
        ids = torch.cat([context_ids, self.completion_ids], 1)
        attention = torch.cat([context_mask, self.completion_mask], 1)
        return ids, attention

    def slices(self, attention: Tensor, most: float) -> Iterator[RowSlice]:
        """These rows in slices of similar length, so that few positions are padding.

        Args:
            attention: (B, positions) of `with_context`.
            most: positions of a slice, padding included; a longer row is a slice of its own.
        """
        contexts = attention[:, : -self.length].sum(1).tolist()
        completions = self.completion_mask.sum(1).tolist()
        # Stable, so that a run that goes on after a stop cuts the same slices.
        order = sorted(range(len(contexts)), key=lambda i: contexts[i] + completions[i])
        first = attention.shape[1] - self.length
        taken: list[int] = []
        context = completion = 0
        for i in order:
            longest = max(context, contexts[i]) + max(completion, completions[i])
            if taken and longest * (len(taken) + 1) > most:
                yield RowSlice(taken, first - context, first, completion)
                taken = []
                context = completion = 0
            taken.append(i)
            context = max(context, contexts[i])
            completion = max(completion, completions[i])
        yield RowSlice(taken, first - context, first, completion)


@dataclass(frozen=True)
class RowSlice:
    """Rows of a term that pass forward together, and the columns in which one is no padding."""

    rows: list[int]
    """Numbers among the term's rows."""
    start: int
    """First column."""
    first: int
    """Column of the completions' first token."""
    length: int
    """Columns of completions."""

    def cut(self, column: Tensor) -> Tensor:
        """This slice, (R, C), of all rows and columns, (B, positions)."""
        return column[self.rows, self.start : self.first + self.length]

    def predicting(self, hidden: Tensor) -> Tensor:
        """Of the slice's hidden states (R, C, H) those (R, T, H) that predict completions."""
        before = self.first - self.start - 1
        return hidden[:, before : before + self.length]


def term_rows(inputs: TrlBatch, key: str) -> TermRows:
    """The rows of a micro batch that a term trains on, or its first row, to train nothing.

    Every rank makes the same number of forward passes, so a term reads one row at least.

    Args:
        inputs: a micro batch of TRL's, with the keys of `Distillation.prepare`.
        key: of the term's mask (B,).
    """
    chosen = inputs[key]
    places = chosen.nonzero().flatten()
    if not len(places):
        places = torch.zeros(1, dtype=torch.long, device=chosen.device)
    trained = inputs["completion_mask"][places] * chosen[places].unsqueeze(1)
    return TermRows(inputs, places, trained)
