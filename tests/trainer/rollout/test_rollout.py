"""The rollout by itself, with a sampler and a scorer made of lists: no model, no trainer."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import FrozenInstanceError, fields

import pytest
from listed_rollouts import PROMPTS, ROWS, Critic, ListSampler, rollout_of

from critique_rl.trainer.rollout import generation
from critique_rl.trainer.rollout.generation import Generation


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
