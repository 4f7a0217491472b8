"""The teacher: the policy itself, its moving average, the base, or another model. It reads more
than the student.

Here are its weights, and the prompt that it reads for each row of a batch. Kept weights are copies
of the trainable parameters alone (with LoRA: of the adapter). They take the place of the policy's
for the teacher's forward pass (`fsdp_weights.lend_weights`). If FSDP2 shards the policy, they are
sharded like it from their first use on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from critique_rl.hashing import uniform
from critique_rl.prompts import render
from critique_rl.tasks.messages import replace_question
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.fsdp_weights import full_tensor, lend_weights, reshard, shard_like
from critique_rl.trainer.rollout.generation import Generation, is_right
from critique_rl.trainer.rollout.refine import refine_prompt
from critique_rl.types import Attempt, Critique

FILE = "teacher.safetensors"
SHIFTING_INITS = ("pissa", "olora", "corda")
"""Values of peft's `init_lora_weights` that take the adapter out of the weights which it is added
to: both together are the original model, and the weights alone are not.
"""
SAMPLED = 16
"""Numbers that `weight_sample` takes from either end of a weight."""


class Teacher:
    """Weights that the teacher reads with."""

    def __init__(
        self, model: nn.Module, kind: str, rate: float = 0.0, other: nn.Module | None = None
    ):
        """Copy the weights of `model`, if this kind keeps any.

        Args:
            model: the policy at the start.
            kind: "live" (the policy's weights), "ema" (theta' <- (1 - rate) theta' + rate theta),
                "base" (those at the start) or "other", which keeps none.
            rate: of the moving average.
            other: another model, which reads in the policy's place.
        """
        self.kind = kind
        self.rate = rate
        self.other = other
        # With an adapter the base is the model without it, and nothing has to be kept. Where the
        # adapter was taken out of the weights, the base is both together at the start.
        has_adapter = hasattr(model, "disable_adapter")
        self.adapter_off = kind == "base" and has_adapter and not shifting_inits(model)
        self.kept: dict[str, Tensor] = {}
        if kind == "ema" or (kind == "base" and not self.adapter_off):
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.kept[name] = self._copy(parameter)

    def restart(self, model: nn.Module) -> None:
        """Begin a moving average again from the policy as it is; nothing for other kinds."""
        if self.kind != "ema":
            return
        reshard(model)
        for name, parameter in model.named_parameters():
            if name in self.kept:
                self.kept[name] = self._copy(parameter)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step of the moving average; nothing for other kinds."""
        if self.kind != "ema":
            return
        reshard(model)
        for name, parameter in model.named_parameters():
            if name in self.kept:
                average = shard_like(self.kept[name], parameter)
                now = parameter.detach().to(average.dtype)
                self.kept[name] = average.lerp_(now, self.rate)

    @contextmanager
    def weights(self, model: Any) -> Iterator[Any]:
        """Within the block a model has the teacher's weights: `model`, or the other one. For
        forward passes without gradients only.

        Yields:
            The model that reads.
        """
        if self.other is not None:
            yield self.other
            return
        if self.adapter_off:
            with model.disable_adapter():
                yield model
            return
        if not self.kept:
            yield model
            return
        reshard(model)
        for name, parameter in model.named_parameters():
            if name in self.kept:
                self.kept[name] = shard_like(self.kept[name], parameter)
        with lend_weights(model, self.kept):
            yield model

    def save(self, folder: Path, write: bool = True) -> None:
        """Save a moving average into a checkpoint, called on every rank, of which one writes.

        Nothing for other kinds: a resumed run is given the base again, as its policy at the start.
        """
        if self.kind != "ema":
            return
        # A collective where the weights are sharded, so it comes before the question who writes.
        full = {}
        for name, value in self.kept.items():
            full[name] = full_tensor(value).contiguous()
        if write:
            save_file(full, folder / FILE)

    def load(self, folder: Path) -> None:
        """Load a moving average from a checkpoint; nothing for other kinds.

        Raises:
            FileNotFoundError: the checkpoint has none.
        """
        if self.kind != "ema":
            return
        path = folder / FILE
        if not path.exists():
            raise FileNotFoundError(
                f"{path}: the checkpoint has no EMA teacher; it was written by a run without "
                "distill_teacher 'ema'. Start anew"
            )
        self.kept = load_file(path)

    def _copy(self, parameter: nn.Parameter) -> Tensor:
        """A copy (same shape) to keep."""
        dtype = parameter.dtype
        if self.kind == "ema":
            # An average in bfloat16 would lose small updates to rounding.
            dtype = torch.promote_types(dtype, torch.float32)
        return parameter.detach().to(dtype, copy=True)


# ---- adapters that change the weights under them ------------------------------------------------


def shifting_inits(model: nn.Module) -> list[str]:
    """Initialisations of the model's adapters that are among `SHIFTING_INITS`."""
    configs = getattr(model, "peft_config", {})
    inits = [str(getattr(config, "init_lora_weights", "")) for config in configs.values()]
    return [init for init in inits if init.lower().startswith(SHIFTING_INITS)]


def weight_sample(model: nn.Module) -> dict[str, Tensor]:
    """Numbers (N,) from both ends of each weight, by its name without an adapter."""
    base: Any = model
    if hasattr(model, "peft_config"):
        base = base.get_base_model()
    sample = {}
    for name, parameter in base.named_parameters():
        # Sharded weights lie elsewhere.
        if parameter.numel() and not parameter.is_meta:
            flat = parameter.detach().flatten()
            plain_name = name.replace(".base_layer.", ".")
            ends = torch.cat([flat[:SAMPLED], flat[-SAMPLED:]])
            sample[plain_name] = ends.float().cpu()
    return sample


def changed_weights(before: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Names of the weights that differ from a `weight_sample` (N,) each, taken earlier."""
    changed = []
    for name, now in weight_sample(model).items():
        then = before.get(name)
        if then is None or then.shape != now.shape:
            continue
        # A cast to bfloat16 is no change.
        if not torch.allclose(then, now, rtol=1e-2, atol=1e-6):
            changed.append(name)
    return changed


# ---- prompts -------------------------------------------------------------------------------------


def teacher_prompts(batch: Generation, args: CritiqueGRPOConfig) -> list[Any | None]:
    """The prompt under which each row's completion is read again, None for rows without one.

    For a chosen refinement it is the prompt that it was sampled from. For a rollout it is its
    question with more context, if rollouts are distilled.
    """
    refinements = {number: refinement for _, number, refinement in batch.refinements}
    reads_rollouts = args.distill_weight and args.distill_target != "refinements"
    prompts: list[Any | None] = []
    for row, number in enumerate(batch.order):
        prompt = None
        if row in batch.refined and number in refinements:
            refinement = refinements[number]
            prompt = refine_prompt(
                refinement.attempt.row["prompt"],
                refinement.attempt,
                refinement.critique,
                args.refine_template,
            )
        elif number < len(batch.attempts) and reads_rollouts:
            sibling = right_sibling(batch.attempts, number, batch.group_rollouts)
            critique = batch.critiques.get(number)
            prompt = teacher_prompt(batch.attempts[number], critique, sibling, args)
        prompts.append(prompt)
    return prompts


class CritiquedProblem(NamedTuple):
    """A critique that was written in this step, on any rank, and what it was written about."""

    question: str
    family: Any
    critique: Critique


def critiqued_problems(batch: Generation) -> list[CritiquedProblem]:
    """The critiques of one rank's batch that have words, in the order of their attempts."""
    problems = []
    for number, critique in batch.critiques.items():
        attempt = batch.attempts[number]
        if critique.status == "ok" and critique.text:
            family = attempt.row.get("family")
            problems.append(CritiquedProblem(attempt.question, family, critique))
    return problems


def contrast_prompts(
    batch: Generation, pool: Sequence[CritiquedProblem], args: CritiqueGRPOConfig
) -> list[Any | None]:
    """Of each critiqued rollout's row the teacher's prompt with the critique of another problem in
    place of its own; None for all other rows, and where `other_critique` finds none.
    """
    prompts: list[Any | None] = []
    for number in batch.order:
        prompt = None
        if number in batch.critiques:
            attempt = batch.attempts[number]
            other = other_critique(pool, attempt, batch.critiques[number].text)
            prompt = teacher_prompt(attempt, other, "", args)
        prompts.append(prompt)
    return prompts


def other_critique(
    pool: Sequence[CritiquedProblem], attempt: Attempt, words: str
) -> Critique | None:
    """A critique of another problem that the same critic wrote in the same step.

    As for the critic `shuffled`, the problem is of the same family, and its critique in other
    words. The draw is a hash, so a continued run draws the same, on any number of ranks. Taken from
    the step it costs no call, has the critic's own style, and needs no oracle.

    Args:
        pool: the critiques of all ranks.
        attempt: the attempt whose critique it is to be contrasted with.
        words: that critique.

    Returns:
        The critique; None where no other problem was critiqued.
    """
    family = attempt.row.get("family")
    others = []
    for problem in pool:
        is_other = problem.question != attempt.question and problem.family == family
        if is_other and problem.critique.text != words:
            others.append(problem.critique)
    if not others:
        return None
    draw = uniform(f"contrast/{attempt.question}/{attempt.text}")
    place = int(draw * len(others))
    return others[place]


def teacher_prompt(
    attempt: Attempt, critique: Critique | None, sibling: str, args: CritiqueGRPOConfig
) -> Any | None:
    """The teacher's prompt for one rollout; None where there is nothing to add to the question.

    `distill_context` "question" adds nothing: it is the prompt of a failed rollout as it is. Those
    are the rows that other contexts have a critique for, so the arms differ in the context alone.

    Args:
        attempt: the rollout. Its prompt gives the format.
        critique: its critique, if it has one.
        sibling: a right answer of the same group, "" for none.
        args: settings of the run. `distill_context` "sibling_or_critique" is the order of SDPO:
            feedback only where no sibling is right.
    """
    context = args.distill_context
    if context == "question":
        return attempt.row["prompt"] if attempt.verdict.failed else None
    solution = ""
    critique_text = ""
    if context == "demonstration":
        solution = str(attempt.row.get(args.distill_column) or "")
    elif context in ("sibling", "sibling_or_critique"):
        solution = sibling
    reads_critique = context == "critique" or (context == "sibling_or_critique" and not sibling)
    if reads_critique and critique is not None and critique.status == "ok":
        critique_text = critique.text
    if not solution and not critique_text:
        return None
    return replace_question(
        attempt.row["prompt"],
        lambda question: render(
            args.distill_template,
            question=question,
            attempt=attempt.text,
            critique=critique_text,
            solution=solution,
        ),
    )


def right_sibling(attempts: Sequence[Attempt], index: int, group_size: int) -> str:
    """The text of the first right rollout of the group of `index` other than that one, else ""."""
    start = index - index % group_size
    for i in range(start, min(start + group_size, len(attempts))):
        if i != index and is_right(attempts[i].verdict):
            return attempts[i].text
    return ""
