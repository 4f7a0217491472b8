"""The base policy of `lab/chain` and the recipe that builds it (`critique-rl lab build`).

A Llama of about 0.9 M parameters with a character tokenizer, trained by next-token prediction on
four skills: solve, critique, refine locally, and fail again after words that name nothing. No
question of RL training or evaluation occurs in any role: all are of the "base" split.

The other worlds share the tokenizer, the model and the batches, and have examples of their own.
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
"""Batches that are drawn together and sorted by length."""
SPECIAL = ("<pad>", "<end>", "<user>", "<policy>", "<unk>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}"
    "<policy>{{ m['content'] }}<end>"
    "{% else %}<user>{{ m['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<policy>{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """Settings that a base is built with. The defaults are those of the committed chain base."""

    sequences: int = 176_000
    """Training examples, rounded up to complete blocks."""
    batch_size: int = 32
    """Examples per optimizer step."""
    learning_rate: float = 1.5e-3
    """Peak of the schedule."""
    locality: float = 0.65
    """Share of refinement examples whose critique is incomplete, wrong or empty. At 0 the model
    takes any critique as a password and repairs everything.
    """
    critiques: bool = True
    """False: no example has a critique (`lab/legs` alone)."""
    trap_chance: float = 0.0
    """Chance of the right step at a trap when solving (`lab/chain` alone). 0 is a plateau by
    construction; above 0 a scalar reward can find the right steps.
    """
    direct_share: float = 0.0
    """Share of examples that answer without steps (`lab/tiers` alone)."""
    unseen: str = ""
    """A kind of hazard that no critique ever names (`lab/chain` alone)."""
    hidden_size: int = 128
    """Width of the model."""
    layers: int = 4
    """Layers of the model."""
    seed: int = 0
    """Seed of the initial weights and of the examples."""


Example = Callable[[Recipe, random.Random], tuple[str, str]]
"""Draws one training example of a world: (prompt, answer)."""
TokenPair = tuple[list[int], list[int]]
"""Token ids of one example: (prompt, answer)."""
Batch = dict[str, torch.Tensor]
"""{"input_ids", "labels"}, each of shape (B, T)."""


def weights_folder(world: str) -> Path:
    """Folder of the committed weights of "chain", "facts", "code", "tiers", "tiers-worked" or
    "tiers-direct", or of chain's "critic".
    """
    return WEIGHTS.with_name(world)


# ---- tokenizer and model -------------------------------------------------------------------------


def build_tokenizer(phrases: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A fast character tokenizer over printable ASCII and newline.

    Its chat template has one token per role.

    Args:
        phrases: texts that are one token each. The common start of all prompts of a world would
            else cost a hundred tokens.
    """
    printable = [chr(code) for code in range(32, 127)]
    tokens = [*SPECIAL, "\n", *printable, *phrases]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.WordLevel(vocabulary, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    # Phrases come before the single characters: the first alternative that matches wins.
    alternatives = [re.escape(phrase) for phrase in phrases]
    alternatives.append(r"[\s\S]")
    pattern = Regex("|".join(alternatives))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
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
    """A freshly initialised Llama of the recipe's size for `vocabulary` tokens."""
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


# ---- attempts and critiques of chain's examples --------------------------------------------------


def varied_attempt(problem: chain.Problem, rng: random.Random) -> str:
    """An attempt to refine: the base's, a partly repaired one, or one with random errors."""
    # A policy in training writes attempts of all three kinds.
    draw = rng.random()
    named = {}
    if draw >= 0.4:
        named = _keep_some(problem.hazards, 0.5, rng)
    if draw < 0.7:
        results = chain.work(problem, named, rng)
    else:
        results = _work_with_errors(problem, rng)
    return chain.format_working(problem, results)


def _keep_some(hazards: chain.Naming, chance: float, rng: random.Random) -> chain.Naming:
    return {i: kind for i, kind in hazards.items() if rng.random() < chance}


def _work_with_errors(problem: chain.Problem, rng: random.Random) -> list[int]:
    """Results with the misconception at half of the traps, and one step off by 1, 2 or 10."""
    moved = rng.randrange(len(problem.deltas))
    value = problem.start
    results = []
    for i, delta in enumerate(problem.deltas):
        if rng.random() < 0.5:
            value = chain.misconception(value, delta)
        else:
            value += delta
        if i == moved:
            value += rng.choice((-10, -2, -1, 1, 2, 10))
        results.append(value)
    return results


def wrong_naming(problem: chain.Problem, rng: random.Random) -> chain.Naming:
    """Steps named wrongly: {step, counted from 1: kind}.

    The right kinds at moved steps, other kinds at the right steps, or steps and kinds at random.
    """
    hazards = problem.hazards
    kinds = hazards.values()
    length = len(problem.deltas)
    steps = range(1, length + 1)
    draw = rng.random()
    if draw < 0.2:
        moved = rng.sample(steps, len(hazards))
        return dict(zip(moved, kinds, strict=True))
    if draw < 0.45:
        moved = []
        for i in hazards:
            shift = rng.choice((0, 1, 1, 2))
            # Round the end of the chain; steps count from 1.
            index = (i - 1 + shift) % length
            moved.append(index + 1)
        return dict(zip(moved, kinds, strict=True))
    if draw < 0.6:
        return {i: _other_kind(kind, rng) for i, kind in hazards.items()}
    most = min(4, length)
    count = rng.randint(1, most)
    chosen = rng.sample(steps, count)
    return {i: rng.choice(chain.HAZARDS) for i in chosen}


def _other_kind(kind: str, rng: random.Random) -> str:
    others = [other for other in chain.HAZARDS if other != kind]
    return rng.choice(others)


def mixed_naming(problem: chain.Problem, rng: random.Random) -> chain.Naming:
    """Most steps named, about half of the hazards with their right kind.

    Which kinds occur then says nothing; only which kind stands at which step does.
    """
    hazards = problem.hazards
    steps = range(1, len(problem.deltas) + 1)
    named = {}
    for i in steps:
        if rng.random() >= 0.75:
            continue
        if i in hazards and rng.random() < 0.55:
            named[i] = hazards[i]
        else:
            named[i] = rng.choice(chain.HAZARDS)
    return named


def part_naming(problem: chain.Problem, rng: random.Random) -> chain.Naming:
    """All hazards but one, named rightly; or a random part of them."""
    hazards = problem.hazards
    if hazards and rng.random() < 0.5:
        left_out = rng.choice(list(hazards))
        return {i: kind for i, kind in hazards.items() if i != left_out}
    return _keep_some(hazards, 0.6, rng)


def nonsense(rng: random.Random) -> str:
    """Text that names nothing: empty, a mere verdict, or letters."""
    length = rng.randint(3, 50)
    alphabet = "abcdefghijklmnopqrstuvwxyz  ;:0123456789"
    letters = [rng.choice(alphabet) for _ in range(length)]
    text = "".join(letters)
    return rng.choice(("", "", "wrong", "wrong", "all right", text))


def refinement(
    problem: chain.Problem, locality: float, rng: random.Random
) -> tuple[str, list[int]]:
    """A critique, and the results of the working that follows from it."""
    hazards = problem.hazards
    draw = rng.random()
    if draw >= locality:
        if rng.random() < 0.12:
            critique = f"wrong, the answer is {problem.answer}"
            results = chain.work(problem, {}, rng, everything=True)
            return critique, results
        return _follow(problem, hazards, rng)
    part = draw / locality
    if part >= 0.85:
        critique = nonsense(rng)
        return critique, chain.work(problem, {}, rng)
    if part < 0.55:
        # Critiques that named wrong steps rescued .55 of attempts before mixed naming, .12 with it.
        named = mixed_naming(problem, rng)
    elif part < 0.7:
        named = part_naming(problem, rng)
    else:
        named = wrong_naming(problem, rng)
    return _follow(problem, named, rng)


def _follow(
    problem: chain.Problem, named: chain.Naming, rng: random.Random
) -> tuple[str, list[int]]:
    """A critique that names steps, and the results of working by it."""
    critique = chain.named_steps(named)
    results = chain.work(problem, named, rng)
    return critique, results


# ---- examples and batches ------------------------------------------------------------------------


def example(recipe: Recipe, rng: random.Random) -> tuple[str, str]:
    """Draw one training example of a skill.

    Returns:
        (text of the user, answer of the base).
    """
    family = None
    if rng.random() < 0.7:
        family = rng.choice((None, "plateau", "no-trap", "learnable"))
    problem = chain.sample_problem(family, "base", rng)
    skill = rng.random()
    if skill < 0.3:
        return problem.question, _solution(problem, recipe.trap_chance, rng)
    attempt = varied_attempt(problem, rng)
    is_critique = skill < 0.42
    if is_critique:
        critique = chain.named_steps(problem.hazards)
        results: list[int] = []
    else:
        critique, results = refinement(problem, recipe.locality, rng)
    if recipe.unseen:
        unseen_words = chain.WORDS[recipe.unseen]
        if unseen_words in critique:
            return example(recipe, rng)
    question = problem.question
    if is_critique:
        prompt = render("lab/critique", question=question, attempt=attempt)
        return prompt, critique
    prompt = render("lab/refine", question=question, attempt=attempt, critique=critique)
    answer = chain.format_working(problem, results)
    return prompt, answer


def _solution(problem: chain.Problem, trap_chance: float, rng: random.Random) -> str:
    lucky = {}
    # No draw at 0: the committed base was built without this draw.
    if trap_chance > 0:
        lucky = _keep_some(problem.traps, trap_chance, rng)
    results = chain.work(problem, lucky, rng)
    return chain.format_working(problem, results)


def batches(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, example: Example = example
) -> Iterator[Batch]:
    """Training batches of a world's examples.

    Args:
        recipe: number of sequences, batch size and seed.
        tokenizer: the world's tokenizer.
        example: draws one example.

    Returns:
        "input_ids" (B, T), padded on the right, and "labels" (B, T), -100 outside the answer.
    """
    rng = random.Random(recipe.seed)
    key = _length
    if recipe.direct_share > 0:
        # The loss is a mean over a batch's tokens. In batches of their own, short answers would
        # weigh more: the base then gives .57 of them for .35 of the examples.
        key = _prompt_length
    block = BLOCK * recipe.batch_size
    for _ in range(0, recipe.sequences, block):
        rows = [example(recipe, rng) for _ in range(block)]
        prompts = [f"<user>{prompt}<policy>" for prompt, _ in rows]
        answers = [f"{answer}<end>" for _, answer in rows]
        prompt_ids = tokenizer(prompts)["input_ids"]
        answer_ids = tokenizer(answers)["input_ids"]
        pairs = list(zip(prompt_ids, answer_ids, strict=True))
        # Sorted by length within a block, so that a batch holds little padding.
        pairs.sort(key=key)
        starts = list(range(0, block, recipe.batch_size))
        rng.shuffle(starts)
        for start in starts:
            end = start + recipe.batch_size
            yield _collate(pairs[start:end])


def _length(pair: TokenPair) -> int:
    prompt, answer = pair
    return len(prompt) + len(answer)


def _prompt_length(pair: TokenPair) -> int:
    prompt, _ = pair
    return len(prompt)


def _collate(pairs: list[TokenPair]) -> Batch:
    """The pairs as one batch, padded on the right to the longest."""
    lengths = [_length(pair) for pair in pairs]
    longest = max(lengths)
    ids_BT = torch.zeros(len(pairs), longest, dtype=torch.long)
    labels_BT = torch.full_like(ids_BT, -100)
    for i, (prompt, answer) in enumerate(pairs):
        start = len(prompt)
        end = start + len(answer)
        ids_BT[i, :end] = torch.tensor(prompt + answer)
        labels_BT[i, start:end] = torch.tensor(answer)
    # Right padding under a causal mask: padded positions influence nothing that is scored.
    return {"input_ids": ids_BT, "labels": labels_BT}
