"""The teacher: the policy itself, its moving average or the base, reading more than the student
does. Weights, contexts and the prompts it reads.

Kept weights are copies of the trainable parameters alone (with LoRA: of the adapter), put in place
of the policy's for the teacher's forward pass (`lend_weights`). Where FSDP2 shards the policy, they
are sharded as it is from their first use on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from critique_rl.prompts import render
from critique_rl.trainer.fsdp_weights import full_tensor, lend_weights, reshard, shard_like
from critique_rl.trainer.rollout.refine import in_place_of_question
from critique_rl.types import Attempt, Critique

FILE = "teacher.safetensors"


class Teacher:
    """Weights the teacher reads with: "live" (the policy's), "ema" (theta' <- (1 - rate) theta' +
    rate theta) or "base" (those at construction).
    """

    def __init__(self, model: nn.Module, kind: str, rate: float = 0.0):
        self.kind, self.rate = kind, rate
        self.adapter_off = kind == "base" and hasattr(model, "disable_adapter")
        copies = kind == "ema" or (kind == "base" and not self.adapter_off)
        trained = (
            {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
            if copies
            else {}
        )
        # An average in bfloat16 would lose small updates to rounding.
        self.kept = {
            name: p.to(torch.float32 if kind == "ema" else p.dtype, copy=True)
            for name, p in trained.items()
        }

    def restart(self, model: nn.Module) -> None:
        """A moving average begins again from the policy as it is; nothing for other kinds."""
        if self.kind == "ema":
            reshard(model)
            self.kept = {
                name: p.detach().to(torch.float32, copy=True)
                for name, p in model.named_parameters()
                if name in self.kept
            }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """One step of the moving average; nothing for other kinds."""
        if self.kind != "ema":
            return
        reshard(model)
        for name, parameter in model.named_parameters():
            if name in self.kept:
                self.kept[name] = shard_like(self.kept[name], parameter).lerp_(
                    parameter.detach().float(), self.rate
                )

    @contextmanager
    def weights(self, model: nn.Module) -> Iterator[None]:
        """Within the block `model` has the teacher's weights. For forward passes without gradients
        only.
        """
        if not self.kept:
            with model.disable_adapter() if self.adapter_off else nullcontext():
                yield
            return
        reshard(model)
        self.kept |= {
            name: shard_like(self.kept[name], parameter)
            for name, parameter in model.named_parameters()
            if name in self.kept
        }
        with lend_weights(model, self.kept):
            yield

    def save(self, folder: Path, write: bool = True) -> None:
        """EMA weights into a checkpoint, on every rank, of which one writes. The base's are those
        of the policy a resumed run is given again.
        """
        if self.kind != "ema":
            return
        kept = {name: full_tensor(value).contiguous() for name, value in self.kept.items()}
        if write:
            save_file(kept, folder / FILE)

    def load(self, folder: Path) -> None:
        if self.kind != "ema":
            return
        path = folder / FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: the checkpoint has no EMA teacher; it was written by a run without distill_teacher 'ema'. Start anew"
            )
        self.kept = load_file(path)


def teacher_prompt(
    prompt: Any,
    attempt: Attempt,
    critique: Critique | None,
    sibling: str,
    context: str,
    column: str,
    template: str,
) -> Any | None:
    """What the teacher reads for one rollout, in the prompt's own format; None where there is
    nothing to add to the question.

    `sibling` is a right answer of the same group ("" for none). "sibling_or_critique" is SDPO's
    order: feedback only where no sibling is right.
    """
    words = critique.text if critique is not None and critique.status == "ok" else ""
    demonstration = str(attempt.row.get(column) or "")
    chosen = {
        "critique": ("", words),
        "sibling": (sibling, ""),
        "sibling_or_critique": (sibling, "" if sibling else words),
        "demonstration": (demonstration, ""),
    }[context]
    if not any(chosen):
        return None
    solution, critique_text = chosen
    return in_place_of_question(
        prompt,
        lambda question: render(
            template,
            question=question,
            attempt=attempt.text,
            critique=critique_text,
            solution=solution,
        ),
    )


def right_sibling(attempts: Sequence[Attempt], index: int, group_size: int) -> str:
    """The text of the first right rollout of the same group other than the one at `index`, else ""."""
    start = index - index % group_size
    others = (i for i in range(start, min(start + group_size, len(attempts))) if i != index)
    return next((attempts[i].text for i in others if attempts[i].verdict.outcome == "right"), "")
