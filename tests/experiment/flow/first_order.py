"""Trainers and log-masses for tests of the account: a policy whose completions can be listed, and
the lab's.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from datasets import Dataset
from known_critics import Words
from tiny_models import of_letters
from torch import Tensor, nn
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.policy import load_policy
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.types import Verdict

LETTERS = ("<unk>", "<eos>", "a", "b", "c")
END, LENGTH = 1, 4
QUESTION = "a b"
CLASSES = ("right", "base_wrong", "other_wrong", "rest")
SHARED = {
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
    "logging_steps": 1,
    "grad_norm_steps": 0,
    "lr_scheduler_type": "constant",
    "refine_template": "lab/refine",
    "distill_template": "lab/teacher",
}


def verdict(text: str, row: dict) -> Verdict:
    """Right: exactly one a. Every b and c is a fault."""
    faults = tuple((place, place + 1) for place, letter in enumerate(text) if letter in "bc")
    right = text.count("a") == 1
    return Verdict("right" if right else "wrong", text, "" if right else "a", faults)


def letters_policy() -> tuple[GPT2LMHeadModel, PreTrainedTokenizerFast]:
    """A random policy of five tokens; all but a, b, c and the end is unknown to it."""
    return of_letters(LETTERS, positions=1024, seed=5)


def letters_trainer(folder: Path, preset: str = "mixed", **settings) -> CritiqueGRPOTrainer:
    """All terms of the preset `mixed`, on one question."""
    model, tokenizer = letters_policy()
    if settings.get("beta"):
        # TRL loads the reference policy from where the policy came from.
        model.save_pretrained(folder / "base")
        model = GPT2LMHeadModel.from_pretrained(folder / "base")
    options = {
        "num_generations": 8,
        "per_device_train_batch_size": 16,
        "max_completion_length": LENGTH,
        "learning_rate": 1e-3,
        "max_steps": 1,
        **SHARED,
        **settings,
    }
    rows = [{"prompt": [{"role": "user", "content": QUESTION}], "question": QUESTION}]
    return CritiqueGRPOTrainer(
        model,
        VerifierReward(verdict),
        CritiqueGRPOConfig.from_preset(preset, str(folder), **options),
        train_dataset=Dataset.from_list(rows * 16),
        processing_class=tokenizer,
        critic=Words(),
    )


def completions() -> list[tuple[int, ...]]:
    """All completions: they end with the end token, or at four tokens."""
    listed = []
    for length in range(1, LENGTH + 1):
        for tokens in itertools.product(range(len(LETTERS)), repeat=length):
            ended = END in tokens
            whole = tokens.index(END) == length - 1 if ended else length == LENGTH
            if whole:
                listed.append(tokens)
    return listed


def class_of(tokens: tuple[int, ...]) -> int:
    """Place of a completion's class in CLASSES."""
    text = [LETTERS[token] for token in tokens if token != END]
    if "<unk>" in text:
        return 3
    if text.count("a") == 1:
        return 0
    return 1 if "c" in text else 2


class Enumeration:
    """Log-masses of CLASSES by scoring every completion of the question."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        self.prompt = tokenizer(QUESTION)["input_ids"]
        listed = completions()
        padded = [tokens + (END,) * (LENGTH - len(tokens)) for tokens in listed]
        self.ids = torch.tensor([[*self.prompt, *tokens] for tokens in padded])
        lengths = torch.tensor([len(tokens) for tokens in listed])
        self.mask = torch.arange(LENGTH) < lengths.unsqueeze(1)
        self.classes = torch.tensor([class_of(tokens) for tokens in listed])

    def __call__(self, policy: nn.Module) -> Tensor:
        attention = torch.ones_like(self.ids)
        logits = policy(self.ids, attention_mask=attention).logits[:, len(self.prompt) - 1 : -1]
        labels = self.ids[:, len(self.prompt) :].unsqueeze(-1)
        logps = torch.log_softmax(logits.double(), -1).gather(-1, labels).squeeze(-1)
        totals = (logps * self.mask).sum(1)
        masses = [totals[self.classes == place].logsumexp(0) for place in range(len(CLASSES))]
        return torch.stack(masses)


def lab_trainer(
    folder: Path, preset: str = "mixed", probes: int = 20, **settings
) -> tuple[CritiqueGRPOTrainer, LabMasses]:
    """The lab's base with the oracle critic, and log-masses of some probes."""
    families = {"plateau": 3, "learnable": 5, "no-trap": 2}
    task = load_task(TaskConfig("lab/chain", size=64, families=families), seed=0)
    model, tokenizer = load_policy("lab")
    options = {
        "num_generations": 8,
        "per_device_train_batch_size": 16,
        "max_completion_length": 48,
        "learning_rate": 3e-4,
        "max_steps": 3,
        **SHARED,
        **settings,
    }
    trainer = CritiqueGRPOTrainer(
        model,
        VerifierReward(task.verifier),
        CritiqueGRPOConfig.from_preset(preset, str(folder), **options),
        train_dataset=Dataset.from_list([dict(row) for row in task.train]),
        processing_class=tokenizer,
        critic=build_critic({"kind": "oracle"}, task),
    )
    texts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        for row in task.train
    ]
    return trainer, LabMasses(tokenizer, texts, probes)


class LabMasses:
    """Log-masses of five classes of random prefixes of 40 tokens, which share out the probes."""

    def __init__(self, tokenizer, texts: list[str], probes: int, length: int = 40):
        generator = torch.Generator().manual_seed(0)
        prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        drawn = torch.randint(4, len(tokenizer), (probes, length), generator=generator)
        rows = [prompts[place % len(prompts)] for place in range(probes)]
        width = max(map(len, rows))
        pad = tokenizer.pad_token_id
        padded = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        self.ids = torch.cat([padded, drawn], 1)
        self.attention = torch.cat([real, torch.ones_like(drawn)], 1)
        self.length = length

    def __call__(self, policy: nn.Module) -> Iterator[Tensor]:
        for rows in torch.arange(len(self.ids)).tensor_split(5):
            ids = self.ids[rows]
            logits = policy(ids, attention_mask=self.attention[rows]).logits
            labels = ids[:, -self.length :].unsqueeze(-1)
            logps = torch.log_softmax(logits[:, -self.length - 1 : -1], -1).gather(-1, labels)
            yield logps.squeeze(-1).sum(1).logsumexp(0)
