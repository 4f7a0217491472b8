"""Training of a base policy: next-token prediction in plain torch, with a progress bar.

Recipes and examples are in `lab.base` and `lab.<world>_base`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from critique_rl.lab import base, code_base, critic_base, facts, facts_base, tiers_base
from critique_rl.lab.base import BLOCK, Example, Recipe, batches, build_model, build_tokenizer


@dataclass(frozen=True)
class World:
    """The parts of a base that differ between worlds."""

    recipe: Recipe
    """The default recipe."""
    example: Example
    """Draws one training example."""
    phrases: tuple[str, ...] = ()
    """Texts that are one token each."""
    prepare: Callable[[LlamaForCausalLM, PreTrainedTokenizerFast], None] | None = None
    """Changes a fresh model; None: it stays random."""


def world_by_name(name: str) -> World:
    """The world of "chain", "legs", "tiers", "facts" or "code", or the "critic" of chain.

    Raises ImportError if "legs" lacks its package.
    """
    if name == "legs":
        from critique_rl.lab import legs, legs_base

        return World(legs_base.RECIPE, legs_base.example, legs.phrases())
    if name == "tiers":
        return World(tiers_base.RECIPE, tiers_base.example)
    if name == "critic":
        return World(critic_base.RECIPE, critic_base.example)
    if name == "facts":
        return World(facts_base.RECIPE, facts_base.example, facts.PHRASES)
    if name == "code":
        phrases = code_base.phrases()
        return World(code_base.RECIPE, code_base.example, phrases, code_base.start_from_values)
    return World(Recipe(), base.example)


def learning_rate(step: int, steps: int, peak: float, warmup: int = 50) -> float:
    """The learning rate of a step: linear warm-up, then linear decay to zero."""
    rise = (step + 1) / warmup
    fall = (steps - step) / (steps - warmup)
    return peak * min(1.0, rise, fall)


def build(recipe: Recipe, folder: Path, world: World, start: Path | None = None) -> float:
    """Train a world's base and save model and tokenizer.

    Args:
        recipe: settings, in place of the world's own.
        folder: where to save.
        world: examples and phrases.
        start: folder of a base to train further; None: random weights.

    Returns:
        The running mean of the loss at the end, in nats per token.
    """
    tokenizer = build_tokenizer(world.phrases)
    if start:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    else:
        model = build_model(recipe, len(tokenizer))
        if world.prepare:
            world.prepare(model, tokenizer)
    # `batches` draws complete blocks, so the last block counts in full.
    blocks = math.ceil(recipe.sequences / (BLOCK * recipe.batch_size))
    steps = BLOCK * blocks
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=0.01, betas=(0.9, 0.98)
    )
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters:,} parameters, {steps} steps")
    loss_mean = 0.0
    with _progress() as progress:
        task = progress.add_task("build", total=steps, loss=0.0)
        for step, batch in enumerate(batches(recipe, tokenizer, world.example)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, steps, recipe.learning_rate)
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            loss_mean = 0.98 * loss_mean + 0.02 * loss.item() if step else loss.item()
            progress.update(task, advance=1, loss=loss_mean)
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return loss_mean


def _progress() -> Progress:
    return Progress(
        TextColumn("lab base"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
