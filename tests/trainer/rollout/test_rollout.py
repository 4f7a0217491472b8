"""The rollout by itself, with a sampler and a scorer made of lists: no model, no trainer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError, fields

import pytest
import torch
from tiny_trainers import SETTINGS

from critique_rl import CritiqueGRPOConfig
from critique_rl.trainer.rollout import generation
from critique_rl.trainer.rollout.generation import Generation
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


def test_failed_rollouts_are_refined_and_a_right_refinement_takes_the_reserved_row() -> None:
    # Group q: both rollouts fail, and the second refinement is right. Group r: nothing fails.
    sampler = ListSampler("a", "b", "c+", "d+", "e", "f+", "g")
    rollout, scorer = rollout_of(sampler, Critic())
    batch = rollout.run(PROMPTS, ROWS)
    assert sampler.asked[0] == ["q", "q", "r", "r"]
    assert sampler.asked[1] == ["q\na\n> a sign lost", "q\nb\n> a sign lost", "r"]
    assert sorted(batch.critiques) == [0, 1]
    # Numbers: rollouts 0 to 3, refinements 4 and 5, the plain sample of group r is 6.
    assert batch.order == [0, 1, 5, 2, 3, 6]
    assert (batch.refined, batch.off_policy) == ([2], [])
    assert [verdict.outcome for verdict in batch.verdicts] == [
        "wrong",
        "wrong",
        "right",
        "right",
        "right",
        "wrong",
    ]
    assert batch.rewards.flatten().tolist() == [batch.values[number] for number in batch.order]
    assert batch.columns["prompt_ids"] == [[ord(prompt)] for prompt in PROMPTS]
    texts = ["".join(map(chr, ids)) for ids in batch.columns["completion_ids"]]
    assert texts == ["a", "b", "f+", "c+", "d+", "g"]
    assert [each.refinement.chosen for each in batch.refinements] == [False, True]
    assert [(each.group, each.number, each.role) for each in batch.plain] == [(1, 6, "rollout")]
    assert scorer.reordered == [(batch.order, 7)]
    # 1 + 1 + 2 + 2 characters of rollouts and 1 of the plain sample; 1 + 2 of refinements
    assert (batch.counts["tokens/rollout"], batch.counts["tokens/refinement"]) == (7, 3)


def test_expert_traces_need_no_critic_and_are_sampled_by_nobody() -> None:
    sampler = ListSampler("a", "b", "c", "d")
    rollout, _ = rollout_of(sampler, refine_column="solution")
    batch = rollout.run(PROMPTS, ROWS)
    assert sampler.asked == [["q", "q", "r", "r"], []]
    assert batch.order == [0, 1, 4, 2, 3, 5]
    assert batch.refined == [2, 5]
    assert [each.role for each in batch.plain] == ["expert", "expert"]
    assert batch.counts["tokens/expert"] == 6


def test_on_several_ranks_each_judges_as_many_rows_whatever_failed() -> None:
    for texts in (("a", "b", "c", "d", *"efgh"), ("a+", "b+", "c+", "d+", *"ef")):
        rollout, scorer = rollout_of(ListSampler(*texts), Critic(), processes=2)
        batch = rollout.run(PROMPTS, ROWS)
        # 4 rollouts, then 2 candidates for each of 2 groups, or copies in their place
        assert scorer.judged_rows == [4, 4]
        assert len(batch.values) == len(texts)


def test_a_batch_cannot_be_changed_by_those_who_read_it() -> None:
    batch = Generation()
    with pytest.raises(FrozenInstanceError):
        batch.refined = [1]


def test_the_table_of_stations_names_every_field_of_a_generation() -> None:
    named = re.findall(r"^\| (\w+) +\|", generation.__doc__, re.MULTILINE)
    assert Counter(named) == Counter(["field", *(field.name for field in fields(Generation))])
