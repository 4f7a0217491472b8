"""A rollout with a sampler and a scorer made of lists: no model, no trainer."""

from __future__ import annotations

import torch
from tiny_trainers import SETTINGS

from critique_rl import CritiqueGRPOConfig
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.trainer.rollout.scoring import Judged
from critique_rl.trainer.rollout.two_phase import TwoPhaseRollout
from critique_rl.types import Critique, Verdict


class ListSampler:
    """Samples the next texts of a list; a token is the code of a character."""

    prompt_limit = 100
    special_tokens = ()

    def __init__(self, *texts: str):
        self.texts = iter(texts)
        self.asked: list[list[str]] = []

    def sample(self, prompts: list[str], num_generations: int = 1) -> Sampled:
        self.asked.append(list(prompts))
        texts = [next(self.texts) for _ in prompts]
        return Sampled(
            self.prompt_ids(prompts), [self.completion_ids("", text) for text in texts], None, texts
        )

    def sample_uneven(self, prompts: list[str], spare: str) -> Sampled:
        return self.sample(prompts)

    def prompt_ids(self, prompts: list[str]) -> list[list[int]]:
        return [[ord(letter) for letter in prompt] for prompt in prompts]

    def completion_ids(self, prompt: str, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def truncated(self, completion_ids: list[list[int]]) -> list[bool]:
        return [ids[-1:] == [ord("~")] for ids in completion_ids]

    def quote(self, prompt: str, ids: list[int]) -> Sampled:
        return Sampled(self.prompt_ids([prompt]), [ids], None, ["".join(map(chr, ids))])


class PlusScorer:
    """Answers with a + are right."""

    def __init__(self) -> None:
        self.judged_rows: list[int] = []
        self.reordered: list[tuple[list[int], int]] = []

    def judge(self, rows: list[dict], sampled: Sampled) -> Judged:
        assert len(rows) == len(sampled.completions)
        self.judged_rows.append(len(rows))
        values = [float("+" in text) for text in sampled.texts]
        verdicts = [Verdict("right" if value else "wrong") for value in values]
        return Judged(torch.tensor(values).unsqueeze(1), values, verdicts)

    def judge_nothing(self) -> Judged:
        return Judged(torch.empty(0, 1), [], [])

    def reorder_extra_columns(self, order: list[int], scored: int, copies: int) -> None:
        self.reordered.append((order, scored))


class Critic:
    name = "critic"

    def critique(self, attempts):
        return [Critique("a sign lost", self.name) for _ in attempts]


ROWS = [{"prompt": question, "solution": "x+y"} for question in ("q", "r") for _ in range(3)]
PROMPTS = [row["prompt"] for row in ROWS]


def rollout_of(sampler, critic=None, processes=1, **settings) -> tuple[TwoPhaseRollout, PlusScorer]:
    settings = {
        **SETTINGS,
        "num_generations": 3,
        "per_device_train_batch_size": 6,
        "refine_template": "lab/refine",
        **settings,
    }
    scorer = PlusScorer()
    args = CritiqueGRPOConfig("x", **settings)
    return TwoPhaseRollout(args, sampler, scorer, critic, processes), scorer
