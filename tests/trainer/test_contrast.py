"""RLCSD's contrast: a token's advantage is its log-ratio under two critiques, against plain forward
passes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from datasets import Dataset
from known_critics import DATA, QUESTIONS, Turns, Words, WordsPerProblem, generated
from lab_trainers import (
    completion_tokens,
    context_tokens,
    critique_trainer,
    logps_of,
    move_weights,
    prompt_tokens,
    same_gradient,
)
from transformers import AutoModelForCausalLM

from critique_rl import CritiqueGRPOConfig
from critique_rl.trainer.presets import preset
from critique_rl.trainer.teachers.teacher import CritiquedProblem, other_critique
from critique_rl.types import Attempt, Critique, Verdict

ROLLOUTS = [1.0, 0.0, 0.0, 0.0] + [0.0] * 4
"""All but the first of eight rollouts failed, four of each question."""
OWN = [QUESTIONS[0]] * 4 + [QUESTIONS[1]] * 4
OTHER = [QUESTIONS[1]] * 4 + [QUESTIONS[0]] * 4


def contrast_trainer(policy: str, folder, critic, data=DATA, **settings):
    return critique_trainer(
        policy, folder, Turns(ROLLOUTS), critic, data=data, **{**preset("rlcsd"), **settings}
    )


def teacher_prompt(trainer, question: str, critiqued: str) -> list[int]:
    return prompt_tokens(trainer, f"{question}\n> {critiqued[::-1]}")


def contrast_tokens(output: dict, row: int) -> list[int]:
    return output["contrast_ids"][row][output["contrast_mask"][row].bool()].tolist()


def test_each_failed_rollout_is_read_under_its_own_critique_and_anothers(
    tiny_policy, tmp_path
) -> None:
    trainer = contrast_trainer(tiny_policy, tmp_path, WordsPerProblem())
    output = generated(trainer)
    rows = list(range(1, 8))
    assert output["distill_mask"].nonzero().flatten().tolist() == rows
    read = 0
    for row in rows:
        prompts = [teacher_prompt(trainer, OWN[row], words[row]) for words in (OWN, OTHER)]
        assert [context_tokens(output, row), contrast_tokens(output, row)] == prompts
        read += sum(map(len, prompts)) + 2 * len(completion_tokens(output, row))
    # both passes of the teacher are paid for
    assert trainer.tokens["tokens/teacher"] == read
    assert "distill/no_contrast" not in trainer._metrics["train"]


@pytest.mark.parametrize("teacher", ["live", "base"])
def test_the_loss_and_its_gradient_are_those_of_the_formula(tiny_policy, tmp_path, teacher) -> None:
    trainer = contrast_trainer(tiny_policy, tmp_path, WordsPerProblem(), distill_teacher=teacher)
    output = generated(trainer)
    move_weights(trainer)
    reader = trainer.model
    if teacher == "base":
        reader = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    total = torch.zeros(())
    surrogate = torch.zeros(())
    tokens = 0
    for row in range(1, 8):
        completion = completion_tokens(output, row)
        with torch.no_grad():
            right, wrong = (
                logps_of(reader, teacher_prompt(trainer, OWN[row], words[row]), completion)
                for words in (OWN, OTHER)
            )
        advantage = right - wrong
        logps = logps_of(trainer.model, prompt_tokens(trainer, OWN[row]), completion)
        # at a ratio of 1 the clip is open: the loss is -A, its gradient -A times that of log p
        total = total - advantage.sum()
        surrogate = surrogate - (advantage * logps).sum()
        tokens += len(completion)
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx(total.item() / tokens, rel=1e-4, abs=1e-6)
    same_gradient(loss, (surrogate / tokens).float(), trainer.model)


def test_equal_critiques_give_an_advantage_of_exactly_nothing(tiny_policy, tmp_path) -> None:
    trainer = contrast_trainer(tiny_policy, tmp_path, WordsPerProblem())
    output = generated(trainer)
    same = {f"contrast_{part}": output[f"context_{part}"] for part in ("ids", "mask")}
    old = torch.zeros(output["completion_ids"].shape)
    assert trainer.distillation.token_advantages(output, old).abs().max() > 0
    taught = trainer.distillation.token_advantages({**output, **same}, old)
    assert torch.equal(taught, torch.zeros_like(taught))
    loss = trainer._compute_loss(trainer.model, {**output, **same})
    gradients = torch.autograd.grad(loss, list(trainer.model.parameters()))
    assert loss.item() == 0
    assert all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)


@pytest.mark.parametrize(
    ("critic", "families"),
    [
        # one text for all problems is no other critique
        (Words(), ["plateau", "plateau"]),
        # and a problem of another family is another control
        (WordsPerProblem(), ["plateau", "learnable"]),
    ],
)
def test_a_rollout_without_another_critique_trains_nothing_and_is_counted(
    tiny_policy, tmp_path, critic, families
) -> None:
    rows = [
        {**row, "family": family}
        for row, family in zip(DATA.select(range(2)), families, strict=True)
    ]
    trainer = contrast_trainer(tiny_policy, tmp_path, critic, data=Dataset.from_list(rows * 4))
    output = generated(trainer, rows)
    assert not output["distill_mask"].any()
    metrics = trainer._metrics["train"]
    assert metrics["distill/no_contrast"] == [7]
    assert trainer.tokens["tokens/teacher"] == 0
    assert trainer._compute_loss(trainer.model, output).item() == 0


@pytest.mark.parametrize("settings", [{"distill_mode": "topk"}, {"distill_context": "sibling"}])
def test_a_contrast_that_no_term_could_read_is_refused(settings) -> None:
    with pytest.raises(ValueError, match="distill_contrast shuffled: got distill_mode"):
        CritiqueGRPOConfig.from_preset("rlcsd", "x", bf16=False, use_cpu=True, **settings)


def test_the_contrast_comes_from_any_rank_and_is_drawn_alike_each_time() -> None:
    attempt = Attempt("1+1", "3", Verdict("wrong"), {"family": "plateau"})
    pool = [
        CritiquedProblem("1+1", "plateau", Critique("own problem", "c")),
        CritiquedProblem("2+2", "plateau", Critique("own words", "c")),
        CritiquedProblem("3+3", "learnable", Critique("another family", "c")),
        *(CritiquedProblem(f"{i}+{i}", "plateau", Critique(f"of {i}", "c")) for i in (4, 5, 6)),
    ]
    drawn = set()
    for text in "abcdefghijkl":
        again = [other_critique(pool, replace(attempt, text=text), "own words") for _ in range(2)]
        assert again[0] is again[1]
        drawn.add(again[0].text)
    assert drawn == {"of 4", "of 5", "of 6"}
    assert other_critique(pool[:3], attempt, "own words") is None
