"""Reserved rows: refinements that mention the critique, and expert traces."""

from __future__ import annotations

import math
from itertools import cycle

import pytest
import torch
from datasets import Dataset
from known_critics import DATA, SOLUTIONS, Turns, Words, completion_text, generated
from lab_trainers import completion_tokens, critique_trainer

from critique_rl.trainer import trl_seams
from critique_rl.trainer.rollout.sampled import Sampled


def second_says(monkeypatch, *texts: str) -> None:
    """Phase 2 samples these texts in turn."""
    sample = trl_seams.sample
    spoken_texts = cycle(texts)

    def scripted(trainer, prompts, num_generations=1):
        sampled = sample(trainer, prompts, num_generations)
        if num_generations > 1:
            return sampled
        spoken = [next(spoken_texts) for _ in prompts]
        ids = [trainer.sampler.completion_ids(prompts[0], text) for text in spoken]
        return Sampled(
            sampled.prompt_ids,
            ids,
            None,
            [[{"role": "assistant", "content": text}] for text in spoken],
        )

    monkeypatch.setattr(trl_seams, "sample", scripted)


@pytest.mark.parametrize(("mentions", "chosen"), [("keep", [3, 7]), ("drop", [])])
def test_a_refinement_that_speaks_of_the_critique_is_counted_and_on_request_dropped(
    tiny_policy, tmp_path, monkeypatch, mentions, chosen
) -> None:
    second_says(monkeypatch, "as you noted: 5")
    settings = {
        "refine_mentions": mentions,
        "distill_weight": 1.0,
        "distill_normalizer": "rollouts",
    }
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 6, [1.0] * 6), Words(), **settings
    )
    output = generated(trainer)
    batch = trainer.generation
    assert trainer._metrics["train"]["refine/mentions"] == [6]
    assert batch.refined == chosen
    assert [refinement.chosen for _, _, refinement in batch.refinements].count(True) == len(chosen)
    # neither the scalar nor the refine term trains on the slot of a dropped one
    assert output["advantages"][[3, 7]].tolist() == [0.0, 0.0]
    assert output["refine_credit"].nonzero().flatten().tolist() == chosen
    assert batch.off_policy == ([] if chosen else [3, 7])
    assert output["distill_tokens"] == output["completion_mask"][[0, 1, 2, 4, 5, 6]].sum()
    assert math.isfinite(trainer._compute_loss(trainer.model, output).item())


def test_another_candidate_takes_the_slot_of_a_dropped_one(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    second_says(monkeypatch, "as you noted: 5", "5", "6")
    # of each group's three candidates the first is right but speaks of the critique, the second is
    # right too
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0, 1.0, 0.0] * 2),
        Words(),
        refine_mentions="drop",
    )
    output = generated(trainer)
    assert trainer.generation.refined == [3, 7]
    assert [completion_text(trainer, output, row) for row in (3, 7)] == ["5", "5"]
    assert trainer._metrics["train"]["refine/mentions"] == [2]


def test_a_dropped_refinement_is_not_in_the_rollouts_baseline_nor_among_their_tokens(
    tiny_policy, tmp_path, monkeypatch
) -> None:
    second_says(monkeypatch, "as you noted: 5")
    settings = {"refine_mentions": "drop", "baseline": "rollouts", "scale_rewards": "none"}
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([1.0, 0.0, 0.0] * 2, [1.0] * 4), Words(), **settings
    )
    output = generated(trainer)
    # the mean of the three rollouts is 1/3, that of all four rows would be 1/2
    assert output["advantages"].tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3, 0.0] * 2)
    assert output["num_items_in_batch"] == output["completion_mask"][[0, 1, 2, 4, 5, 6]].sum()


def test_an_experts_trace_fills_the_slot_and_is_nobodys_sample(tiny_policy, tmp_path) -> None:
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0, 1.0]),
        refine_column="solution",
        max_completion_length=20,
    )
    output = generated(trainer)
    assert [completion_text(trainer, output, row) for row in (3, 7)] == list(SOLUTIONS)
    assert completion_tokens(output, 3)[-1] == trainer.processing_class.eos_token_id
    assert torch.equal(output["prompt_ids"][3], output["prompt_ids"][2])
    assert trainer.generation.refined == [3, 7]
    # TRL's default: [0, 0, 0, 1] minus 1/4, over std (ddof 1) .5 + 1e-4: .75 / .5001 = 1.4997, -.25
    # / .5001 = -.4999
    assert output["refine_credit"].tolist() == pytest.approx(
        [0, 0, 0, 1.4997, 0, 0, 0, 1.4997], abs=1e-4
    )
    assert output["advantages"].tolist() == pytest.approx(
        [-0.4999, -0.4999, -0.4999, 0] * 2, abs=1e-4
    )
    # 15 + 10 characters and two ends
    assert trainer.tokens["tokens/expert"] == 27
    rollouts = [0, 1, 2, 4, 5, 6]
    assert (
        trainer.tokens["tokens/rollout"]
        == trainer.generated_tokens
        == output["completion_mask"][rollouts].sum()
    )
    metrics = trainer._metrics["train"]
    assert metrics["refine/experts"] == metrics["refine/right_experts"] == [2]
    trainer._compute_loss(trainer.model, output).backward()
    assert metrics["loss/refine"][0] != 0


def test_traces_that_are_missing_or_too_long_are_counted_and_plain_samples_stand_in(
    tiny_policy, tmp_path
) -> None:
    rows = [
        {**row, "solution": solution}
        for row, solution in zip(DATA.select(range(2)), ("x" * 21, None), strict=True)
    ]
    data = Dataset.from_list(rows * 4)
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0, 1.0]),
        data=data,
        refine_column="solution",
        max_completion_length=20,
    )
    output = generated(trainer, rows)
    metrics = trainer._metrics["train"]
    assert metrics["refine/traces_too_long"] == metrics["refine/traces_missing"] == [1]
    assert "refine/experts" not in metrics
    assert trainer.generation.refined == trainer.generation.off_policy == []
    assert output["refine_credit"].abs().sum() == 0
    # plain samples are rollouts like any: [0, 0, 0, 1] gives the last the highest advantage, and
    # their tokens were generated
    assert output["advantages"][[3, 7]].tolist() == pytest.approx([1.4997, 1.4997], abs=1e-4)
    assert trainer.generated_tokens == output["completion_mask"].sum()


def test_with_two_slots_the_trace_takes_one_and_a_plain_sample_the_other(
    tiny_policy, tmp_path
) -> None:
    settings = {"refine_column": "solution", "refine_slots": 2, "max_completion_length": 20}
    trainer = critique_trainer(tiny_policy, tmp_path, Turns([0.0] * 4, [1.0] * 4), **settings)
    output = generated(trainer)
    assert trainer.generation.refined == [2, 6]
    assert [completion_text(trainer, output, row) for row in (2, 6)] == list(SOLUTIONS)
    assert output["advantages"][[3, 7]].min() > 0
