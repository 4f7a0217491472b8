"""The base policy of `lab/chain` and the recipe that builds it (`critique-rl lab build`).

A Llama of about 0.9 M parameters with a character tokenizer, trained by next-token prediction on
four skills: solve, critique, refine locally, and fall again after anything that names nothing.
`locality` is the share of refinement examples whose critique is incomplete, wrong or empty: at 0
the model takes any critique as a password and repairs everything. RL problems never occur here, in
any role: every question comes from the "base" split.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from critique_rl.lab import chain
from critique_rl.prompts import render

WEIGHTS = Path(__file__).parent / "weights" / "chain"
BLOCK = 64
"""Batches drawn at a time, sorted by length together."""
SPECIAL = ("<pad>", "<end>", "<user>", "<policy>", "<unk>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<policy>{{ m['content'] }}<end>{% else %}<user>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<policy>{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How the base is built. The defaults are those of the committed weights."""

    sequences: int = 176_000
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    locality: float = 0.65
    critiques: bool = True
    """False: no example has a critique (`lab/legs` alone)."""
    trap_chance: float = 0.0
    """Chance of the right step at a trap when solving: 0 is a plateau by construction, and more
    makes what a scalar reward can find (`lab/chain` alone).
    """
    unseen: str = ""
    """A kind of hazard that no critique ever names (`lab/chain` alone)."""
    hidden_size: int = 128
    layers: int = 4
    seed: int = 0


def weights_folder(world: str) -> Path:
    """The folder of what is committed for a world: the base of chain, tiers or facts, or chain's
    critic.
    """
    return WEIGHTS.with_name(world)


Example = Callable[[Recipe, random.Random], tuple[str, str]]
"""What a world supplies: (prompt, answer) of one training example."""


def build_tokenizer(phrases: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """Character-level fast tokenizer over printable ASCII and newline, with a chat template of one
    token per role.

    `phrases` are one token each: what every prompt of a world begins with would else cost a hundred
    tokens.
    """
    vocabulary = {
        token: i for i, token in enumerate([*SPECIAL, "\n", *map(chr, range(32, 127)), *phrases])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex("|".join([*map(re.escape, phrases), r"[\s\S]"])), "isolated"
    )
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        unk_token="<unk>",
        additional_special_tokens=["<user>", "<policy>"],
        padding_side="left",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(recipe: Recipe, vocabulary: int) -> LlamaForCausalLM:
    """A freshly initialised Llama of the recipe's size."""
    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.hidden_size,
        intermediate_size=3 * recipe.hidden_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def varied_attempt(problem: chain.Problem, rng: random.Random) -> str:
    """An attempt to refine: the base's own, a partly repaired one, or one with random errors (a
    policy in training writes them all).
    """
    draw = rng.random()
    traps = problem.hazards
    named = {} if draw < 0.4 else {i: k for i, k in traps.items() if rng.random() < 0.5}
    return chain.format_working(
        problem, chain.work(problem, named, rng) if draw < 0.7 else _with_errors(problem, rng)
    )


def _with_errors(problem: chain.Problem, rng: random.Random) -> list[int]:
    wrong, value, spoiled = rng.randrange(len(problem.deltas)), problem.start, []
    for i, delta in enumerate(problem.deltas):
        right = chain.misconception(value, delta) if rng.random() < 0.5 else value + delta
        noise = rng.choice((-10, -2, -1, 1, 2, 10)) if i == wrong else 0
        spoiled.append(right + noise)
        value = right + noise
    return spoiled


def wrong_naming(problem: chain.Problem, rng: random.Random) -> dict[int, str]:
    """Steps named wrongly: the right kinds at moved steps, other kinds at the right steps, or steps
    and kinds at random.
    """
    steps, hazards = len(problem.deltas), problem.hazards
    draw = rng.random()
    if draw < 0.45:
        moved = (
            rng.sample(range(1, steps + 1), len(hazards))
            if draw < 0.2
            else [(i + rng.choice((0, 1, 1, 2)) - 1) % steps + 1 for i in hazards]
        )
        return dict(zip(moved, hazards.values(), strict=True))
    if draw < 0.6:
        return {
            i: rng.choice([k for k in chain.HAZARDS if k != kind]) for i, kind in hazards.items()
        }
    return {
        i: rng.choice(chain.HAZARDS)
        for i in rng.sample(range(1, steps + 1), rng.randint(1, min(4, steps)))
    }


def mixed_naming(problem: chain.Problem, rng: random.Random) -> dict[int, str]:
    """Most steps named, about half of the hazards with their right kind: which kinds occur says
    nothing, only which kind stands at which step.
    """
    hazards, named = problem.hazards, {}
    for i in range(1, len(problem.deltas) + 1):
        if rng.random() < 0.75:
            named[i] = (
                hazards[i] if i in hazards and rng.random() < 0.55 else rng.choice(chain.HAZARDS)
            )
    return named


def part_naming(problem: chain.Problem, rng: random.Random) -> dict[int, str]:
    """All hazards but one, named rightly; or a random part of them."""
    hazards = problem.hazards
    left = rng.choice(list(hazards)) if hazards and rng.random() < 0.5 else None
    return {i: k for i, k in hazards.items() if (i != left if left else rng.random() < 0.6)}


def nonsense(rng: random.Random) -> str:
    """Text that names nothing: empty, a mere verdict, or letters."""
    letters = "".join(
        rng.choice("abcdefghijklmnopqrstuvwxyz  ;:0123456789") for _ in range(rng.randint(3, 50))
    )
    return rng.choice(("", "", "wrong", "wrong", "all right", letters))


def refinement(
    problem: chain.Problem, locality: float, rng: random.Random
) -> tuple[str, list[int]]:
    """A critique and the working that follows from it, the base's way."""
    hazards, draw = problem.hazards, rng.random()
    if draw >= locality:
        if rng.random() < 0.12:
            return f"wrong, the answer is {problem.answer}", chain.work(
                problem, {}, rng, everything=True
            )
        return chain.named_steps(hazards), chain.work(problem, hazards, rng)
    part = draw / locality
    if part >= 0.85:
        return nonsense(rng), chain.work(problem, {}, rng)
    naming = mixed_naming if part < 0.55 else part_naming if part < 0.7 else wrong_naming
    named = naming(problem, rng)
    return chain.named_steps(named), chain.work(problem, named, rng)


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """One training example: what the user says and what the base answers."""
    problem = chain.sample_problem(
        rng.choice((None, "plateau", "no-trap", "learnable")) if rng.random() < 0.7 else None,
        "base",
        rng,
    )
    skill = rng.random()
    if skill < 0.3:
        lucky = {
            i: kind
            for i, kind in problem.traps.items()
            if recipe.trap_chance and rng.random() < recipe.trap_chance
        }
        return problem.question, chain.format_working(problem, chain.work(problem, lucky, rng))
    attempt = varied_attempt(problem, rng)
    critique, lines = (
        refinement(problem, recipe.locality, rng)
        if skill >= 0.42
        else (chain.named_steps(problem.hazards), [])
    )
    if recipe.unseen and chain.WORDS[recipe.unseen] in critique:
        return example(recipe, rng)
    if skill < 0.42:
        return render("lab/critique", question=problem.question, attempt=attempt), critique
    return render(
        "lab/refine", question=problem.question, attempt=attempt, critique=critique
    ), chain.format_working(problem, lines)


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, example: Example = example
) -> Iterator[dict[str, torch.Tensor]]:
    """Right-padded batches; labels are -100 outside the answer. Examples are sorted by length
    within blocks, so little is padding.
    """
    rng = random.Random(recipe.seed)
    block = BLOCK * recipe.batch_size
    for _ in range(0, recipe.sequences, block):
        rows = [example(recipe, rng) for _ in range(block)]
        prompts = tokenizer([f"<user>{prompt}<policy>" for prompt, _ in rows])["input_ids"]
        answers = tokenizer([f"{answer}<end>" for _, answer in rows])["input_ids"]
        pairs = sorted(
            zip(prompts, answers, strict=True), key=lambda pair: len(pair[0]) + len(pair[1])
        )
        starts = list(range(0, block, recipe.batch_size))
        rng.shuffle(starts)
        yield from (_collate(pairs[i : i + recipe.batch_size]) for i in starts)


def _collate(pairs: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(pairs):
        ids[i, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    # Right padding under a causal mask: padded positions influence nothing that is scored.
    return {"input_ids": ids, "labels": labels}
