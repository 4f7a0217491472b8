"""Every preset's loss, and its gradient, against plain numpy from the papers' formulas, in double.

The trainer is real, from dataset to loss. Given are the completions, the log-probs of before, the
policy's move since its start, and double precision where TRL's head rounds to single.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from known_critics import WordsPerProblem, generated
from preset_oracles import FORMULAS, GROUP, Facts
from tiny_models import of_letters
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast
from trl import GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.trainer.presets import PRESETS, preset

LETTERS = ["<unk>", "<eos>", *(chr(0x100 + place) for place in range(128))]
VOCABULARY, END, LIMIT = len(LETTERS), 1, 12
QUESTIONS = ("".join(LETTERS[5:9]), "".join(LETTERS[40:44]))
SOLUTIONS = ("".join(LETTERS[11:16]), "".join(LETTERS[20:25]))
SETTINGS = {
    "num_generations": GROUP,
    "per_device_train_batch_size": 2 * GROUP,
    "max_completion_length": LIMIT,
    "bf16": False,
    "use_cpu": True,
    "report_to": "none",
    "refine_template": "lab/refine",
    "distill_template": "lab/teacher",
}
REFINED = {
    "critique_grpo": 1,
    "critique_grpo_as_released": 1,
    "rltf_sd": 4,
    "raft_refine": 1,
    "mixed": 1,
    "luffy": 1,
}
"""Preset -> reserved rows of a group."""
DEMONSTRATED = ("sdft", "sdft_as_released", "sdft_trl", "opsd", "opsd_v1")
CRITIQUED = ("opd", "opd_as_released", "openclaw_combined", "openclaw_combined_as_released")
CRITIQUED = (*CRITIQUED, "rlcsd", "sdpo", "sdpo_rich_feedback", "distil")
RATES = {"sdpo": 0.05, "sdpo_rich_feedback": 0.01, "sdft": 0.01, "sdft_as_released": 0.01}
FROZEN = ("opd_as_released", "openclaw_combined_as_released", "sdft_trl", "opsd", "opsd_v1")
FROZEN = (*FROZEN, "mixed")
# Which rollouts of the two groups are right, the first letter saying so, and which candidates.
RIGHT = ((1, 0, 0, 1, 0, 1, 0, 0), (0, 0, 0, 0, 0, 0, 0, 0))
RIGHT_CANDIDATES = (0, 1)


# ---- a policy of 130 letters, what it writes, and how that is judged -----------------------------


def letters_policy() -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    model, tokenizer = of_letters(LETTERS, positions=64, seed=0)
    model = model.double()
    # Positions would count padding, which the numbers of this file are taken without.
    model.transformer.wpe.weight.data.zero_()
    return model, tokenizer


def ids_of(text: str) -> list[int]:
    return [LETTERS.index(letter) if letter in LETTERS else 0 for letter in text]


def text_of(ids: list[int]) -> str:
    return "".join(LETTERS[token] for token in ids if token > END)


def is_right(ids: list[int]) -> bool:
    return ids[0] % 2 == 0


def judged(completions, **columns) -> list[float]:
    """Right answers begin with a letter of even number."""
    return [float(is_right(ids_of(c[0]["content"]))) for c in completions]


def written(number: int, right: bool) -> list[int]:
    """The completion of this number: 5 to 12 letters, the last of which is the end if it is not
    the twelfth.
    """
    random = np.random.default_rng(number)
    ids = random.integers(2, VOCABULARY, int(random.integers(5, LIMIT + 1))).tolist()
    ids[0] += (ids[0] % 2 == 0) != right
    ids[0] = min(ids[0], VOCABULARY - 2 + (not right))
    if len(ids) < LIMIT:
        ids[-1] = END
    return ids


class Writer:
    """Stands for TRL's sampling: rollouts first, then what fills the reserved rows."""

    def __init__(self):
        self.calls = 0

    def __call__(self, prompt_ids, *rest):
        self.calls += 1
        completions = []
        rows = [0, 0]
        for place, prompt in enumerate(prompt_ids):
            group = int(prompt[:4] != ids_of(QUESTIONS[0]))
            right = bool(RIGHT[group][rows[group]])
            if self.calls == 2:
                right = bool(RIGHT_CANDIDATES[group])
            rows[group] += 1
            completions.append(written(100 * self.calls + place, right))
        return completions, None


def scored_in_double(
    trainer, model, ids, attention, length, batch_size=None, compute_entropy=False, *rest, **more
):
    """TRL's method without its fused head, which computes in single precision."""
    logits = model(input_ids=ids, attention_mask=attention).logits[:, -length - 1 : -1]
    logps = torch.log_softmax(logits / trainer.temperature, -1)
    entropies = -(logps.exp() * logps).sum(-1)
    picked = logps.gather(-1, ids[:, -length:].unsqueeze(-1)).squeeze(-1)
    return picked, entropies if compute_entropy else None, None


# ---- one batch, as the trainer has it and as arrays ----------------------------------------------


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """By name, each once: the head's are those of the embedding."""
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def random_step(weights: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """A step for each weight, by name; positions stay 0."""
    generator = torch.Generator().manual_seed(seed)
    steps = {}
    for name, weight in weights.items():
        step = torch.randn(weight.shape, generator=generator, dtype=torch.double)
        steps[name] = step * ("wpe" not in name)
    return steps


@dataclass
class Case:
    """One generation batch of a preset, or of a change of it, after which the policy has moved."""

    name: str
    folder: Path
    change: dict[str, Any] = field(default_factory=dict)
    known: Facts | None = None
    """The facts, where the change leaves them as they are."""

    def __post_init__(self):
        self.start = weights_of(letters_policy()[0])
        step = random_step(self.start, 1)
        self.now = {weight: self.start[weight] + 0.05 * step[weight] for weight in step}
        self.direction = random_step(self.start, 2)
        self.trainer = self.build_trainer()
        self.output = generated(self.trainer, self.trainer.train_dataset)
        self.facts = self.known or self.read_facts()
        assert np.array_equal(self.output["completion_ids"], self.facts.tokens)
        self.output["old_per_token_logps"] = torch.tensor(self.facts.old)
        self.trainer.model.load_state_dict(self.now, strict=False)
        if self.trainer.distillation is not None:
            self.trainer.distillation.teacher.update(self.trainer.policy)

    def build_trainer(self) -> CritiqueGRPOTrainer:
        model, tokenizer = letters_policy()
        rows = [
            {"prompt": [{"role": "user", "content": question}], "question": question, "solution": s}
            for question, s in zip(QUESTIONS, SOLUTIONS, strict=True)
        ]
        settings = {**SETTINGS, **preset(self.name), **self.change}
        trainer = CritiqueGRPOTrainer(
            model,
            judged,
            CritiqueGRPOConfig(str(self.folder), **settings),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            critic=WordsPerProblem() if self.name in (*REFINED, *CRITIQUED) else None,
        )
        trainer._generate_single_turn = Writer()
        return trainer

    def loss(self) -> Tensor:
        return self.trainer._compute_loss(self.trainer.model, self.output)

    @property
    def teacher_weights(self) -> dict[str, Tensor]:
        if self.name in FROZEN:
            return self.start
        if self.name in RATES:
            u = RATES[self.name]
            return {name: (1 - u) * self.start[name] + u * self.now[name] for name in self.now}
        return self.now

    def read_facts(self) -> Facts:
        mask = self.output["completion_mask"].numpy().astype(bool)
        tokens = self.output["completion_ids"].numpy()
        completions = [row[real].tolist() for row, real in zip(tokens, mask, strict=True)]
        right = np.array([is_right(ids) for ids in completions])
        student = scored(self.now, self.prompts(), completions)
        contexts, contrasts = self.contexts(completions, right)
        picked = np.take_along_axis(student, tokens[..., None], -1)[..., 0]
        change = 0.4 * np.random.default_rng(3).standard_normal(mask.shape)
        return Facts(
            tokens,
            mask,
            student,
            detached=student,
            old=np.where(mask, picked - change, 0.0),
            teacher=scored(self.teacher_weights, contexts, completions),
            contrast=scored(self.teacher_weights, contrasts, completions),
            taught=np.array([context is not None for context in contexts]),
            right=right,
            refined=self.refined(right),
            limit=LIMIT,
        )

    def prompts(self) -> list[str]:
        return [question for question in QUESTIONS for _ in range(GROUP)]

    def refined(self, right: np.ndarray) -> np.ndarray:
        """Of the reserved rows of a group as many as rollouts failed; in Critique-GRPO's paper none
        where a rollout is right.
        """
        slots = REFINED.get(self.name, 0)
        refined = np.zeros(len(right), bool)
        for start in (0, GROUP):
            first = start + GROUP - slots
            failed = int((~right[start:first]).sum())
            if self.name == "critique_grpo" and right[start:first].any():
                failed = 0
            refined[first : first + min(slots, failed)] = True
        return refined

    def contexts(self, completions: list, right: np.ndarray) -> tuple[list, list]:
        """Per row what the teacher reads, and the same with the other problem's critique."""
        contexts: list[str | None] = []
        contrasts: list[str | None] = []
        refined = self.refined(right)
        for row, question in enumerate(self.prompts()):
            critique = question[::-1]
            other = QUESTIONS[1 - row // GROUP]
            failed = not right[row] and not refined[row]
            group = range(row // GROUP * GROUP, row // GROUP * GROUP + GROUP)
            siblings = [i for i in group if right[i] and i != row]
            context = None
            if self.name in DEMONSTRATED:
                context = f"{question}\n{SOLUTIONS[row // GROUP]}\n> "
            elif self.name.startswith("sdpo") and siblings:
                context = f"{question}\n{text_of(completions[siblings[0]])}\n> "
            elif self.name == "mixed" and refined[row] and right[row]:
                attempt = next(i for i in group if not right[i])
                context = f"{question}\n{text_of(completions[attempt])}\n> {critique}"
            elif self.name in (*CRITIQUED, "mixed") and failed:
                context = f"{question}\n> {critique}"
            contexts.append(context)
            contrasts.append(f"{question}\n> {other[::-1]}" if self.name == "rlcsd" else None)
        return contexts, contrasts


def scored(weights: dict[str, Tensor], prompts: list[str | None], completions: list) -> np.ndarray:
    """(B, T, V) log-probs of completions under prompts, row by row, without padding."""
    model = letters_policy()[0].eval()
    model.load_state_dict(weights, strict=False)
    width = max(map(len, completions))
    logps = np.zeros((len(completions), width, VOCABULARY))
    for row, (prompt, ids) in enumerate(zip(prompts, completions, strict=True)):
        if prompt is None:
            continue
        read = ids_of(prompt)
        with torch.no_grad():
            logits = model(torch.tensor([read + ids])).logits[0, len(read) - 1 : -1].numpy()
        highest = logits.max(-1, keepdims=True)
        total = np.log(np.exp(logits - highest).sum(-1, keepdims=True))
        logps[row, : len(ids)] = logits - highest - total
    return logps


@pytest.fixture(autouse=True)
def _in_double(monkeypatch) -> None:
    monkeypatch.setattr(GRPOTrainer, "_get_per_token_logps_and_entropies", scored_in_double)


@pytest.fixture(scope="module")
def case_of(tmp_path_factory) -> Callable[[str], Case]:
    """A preset's case, made once."""
    return cache(lambda name: Case(name, tmp_path_factory.mktemp(name)))


# ---- losses, gradients, and that they could be wrong ---------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_loss_and_gradient_are_those_of_the_papers_formula(name, case_of) -> None:
    case = case_of(name)
    facts = case.facts
    loss = case.loss()
    expected = FORMULAS[name](facts)
    assert abs(expected) > 1e-3
    assert loss.item() == pytest.approx(expected, rel=1e-6, abs=0)
    loss.backward()
    slope = 0.0
    for weight, parameter in case.trainer.model.named_parameters():
        slope += (parameter.grad * case.direction[weight]).sum().item()
    sides = []
    for size in (1e-5, -1e-5):
        weights = {weight: case.now[weight] + size * case.direction[weight] for weight in case.now}
        student = scored(weights, case.prompts(), facts.completions)
        sides.append(FORMULAS[name](replace(facts, student=student)))
    assert slope == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_with_trls_head_in_single_precision_it_is_close(name, case_of, monkeypatch) -> None:
    case = case_of(name)
    monkeypatch.undo()
    assert case.loss().item() == pytest.approx(FORMULAS[name](case.facts), rel=1e-5)


SUBSET = [("positive_weight", 0.5), ("negative_weight", 0.5), ("scalar_normalizer", "rollouts")]
HINTED = [("distill_weight", 0.9), ("epsilon", 0.1), ("epsilon_high", 0.25)]
CHANGES: dict[str, list[tuple[str, Any]]] = {
    "grpo": [("loss_type", "dapo"), ("scale_rewards", "none")],
    "dr_grpo": [("loss_type", "grpo"), ("scale_rewards", "group")],
    "psr": [*SUBSET, ("loss_type", "dr_grpo"), ("credit", "group")],
    "nsr": [*SUBSET, ("loss_type", "grpo"), ("credit", "group")],
    "w_reinforce": [("positive_weight", 0.2), ("negative_weight", 0.9), ("credit", "group")],
    "opsa": [("unlikely_advantage", -0.4), ("unlikely_share", 0.3), ("loss_type", "dapo")],
    "opsa_entropy": [("unlikely_entropy", False), ("unlikely_advantage", -0.4)],
    "critique_grpo": [
        ("refine_gamma", 0.2),
        ("refine_ratio", "importance"),
        ("refine_normalizer", "slots"),
        ("scale_rewards", "group"),
    ],
    "critique_grpo_as_released": [
        ("clip", True),
        ("refine_clip", True),
        ("refine_gamma", 0.2),
        ("refine_normalizer", "slots"),
        ("scale_rewards", "none"),
    ],
    "luffy": [
        ("entropy_coef", 0.002),
        ("baseline", "union"),
        ("clip", True),
        ("refine_gamma", 0.2),
        ("refine_normalizer", "tokens"),
    ],
    "rltf_sd": [
        ("refine_floor", -4.0),
        ("refine_weight", 0.2),
        ("baseline", "union"),
        ("refine_ratio", "shaped"),
        ("refine_clip", False),
        ("refine_normalizer", "tokens"),
    ],
    "raft_refine": [("refine_ratio", "shaped"), ("refine_normalizer", "rollouts")],
    "opd": [*HINTED, ("distill_teacher", "base"), ("scalar_normalizer", "rollouts")],
    "opd_as_released": [*HINTED, ("distill_teacher", "live"), ("loss_type", "dapo")],
    "openclaw_combined": [*HINTED, *SUBSET[:2], ("distill_teacher", "base")],
    "openclaw_combined_as_released": [*HINTED, ("distill_teacher", "live"), ("loss_type", "dapo")],
    "rlcsd": [*HINTED, ("distill_contrast", "none")],
    "sdpo": [
        ("distill_alpha", 0.4),
        ("distill_top_k", 90),
        ("distill_tail", False),
        ("distill_ema", 0.06),
        ("distill_is_clip", 1.5),
        ("distill_context", "critique"),
    ],
    "sdpo_rich_feedback": [("distill_alpha", 0.5), ("distill_top_k", 30), ("distill_ema", 0.05)],
    "sdft": [("distill_alpha", 0.0), ("distill_ema", 0.05), ("distill_is_clip", 2.0)],
    "sdft_as_released": [
        ("distill_alpha", 1.0),
        ("distill_normalizer", "own"),
        ("distill_ema", 0.05),
    ],
    "sdft_trl": [
        ("distill_tail", True),
        ("distill_top_k", 90),
        ("distill_teacher", "live"),
        ("distill_is_clip", None),
    ],
    "opsd": [
        ("distill_entry_clip", None),
        ("distill_entry_clip", 0.06),
        ("distill_alpha", 0.5),
        ("distill_teacher", "live"),
        ("distill_normalizer", "own"),
    ],
    "opsd_v1": [("distill_alpha", 0.4), ("distill_teacher", "live"), ("distill_is_clip", 2.0)],
    "distil": [("distill_alpha", 1.0), ("distill_teacher", "base"), ("distill_is_clip", 2.0)],
    "mixed": [
        ("refine_ratio", "shaped"),
        ("distill_weight", 0.9),
        ("distill_top_k", 50),
        ("distill_tail", False),
        ("distill_alpha", 0.5),
        ("distill_teacher", "live"),
        ("distill_target", "rollouts"),
        ("distill_is_clip", 2.0),
        ("distill_normalizer", "own"),
        ("distill_prefix", False),
    ],
}
"""Preset -> options, each with a wrong value. What a single batch does not show is left out."""


ALL_CHANGES = [(name, *change) for name, changes in CHANGES.items() for change in changes]


@pytest.mark.parametrize(("name", "option", "value"), ALL_CHANGES)
def test_a_wrong_constant_is_noticed(name, option, value, case_of, tmp_path) -> None:
    facts = case_of(name).facts
    case = Case(name, tmp_path, {option: value}, facts)
    assert case.loss().item() != pytest.approx(FORMULAS[name](facts), rel=1e-4)


def test_every_preset_has_a_formula_and_wrong_constants() -> None:
    assert set(PRESETS) == set(FORMULAS) == set(CHANGES)
