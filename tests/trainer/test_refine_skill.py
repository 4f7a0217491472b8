"""Terms that keep the refine skill: likelihood of right refinements, and anchor to the base."""

from __future__ import annotations

import pytest
import torch
from known_critics import QUESTIONS, WORDS, Turns, Words, completion_text, generated
from lab_trainers import (
    OFF,
    completion_tokens,
    critique_trainer,
    logits_of,
    logps_of,
    move_weights,
    prompt_tokens,
    same_gradient,
)
from transformers import AutoModelForCausalLM


def test_the_own_term_is_the_nll_of_right_refinements_under_their_own_prompt(
    tiny_policy, tmp_path
) -> None:
    # the first group's refinement is right, the second's wrong
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 3 + [0.0] * 3),
        Words(),
        **OFF,
        refine_own_weight=2.0,
    )
    output = generated(trainer)
    assert output["own_mask"].tolist() == [False] * 3 + [True] + [False] * 4
    completion = completion_tokens(output, 3)
    prompt = prompt_tokens(
        trainer, f"{QUESTIONS[0]}\n{completion_text(trainer, output, 0)}\n> {WORDS}"
    )
    naive = -2 * logps_of(trainer.model, prompt, completion).mean()
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx(naive.item(), rel=1e-5)
    assert trainer._metrics["train"]["loss/own"] == [pytest.approx(naive.item(), rel=1e-5)]
    same_gradient(loss, naive.float(), trainer.model)
    # log-probs under the refine prompt minus those under the question
    with torch.no_grad():
        plain = (
            logps_of(trainer.model, prompt_tokens(trainer, QUESTIONS[0]), completion).mean().item()
        )
    assert trainer._metrics["train"]["refine/kl"] == [
        pytest.approx(-naive.item() / 2 - plain, abs=1e-4)
    ]


def test_the_anchor_is_nothing_at_the_base_and_the_kl_to_it_elsewhere(
    tiny_policy, tmp_path
) -> None:
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([0.0] * 6, [1.0] * 6), Words(), **OFF, refine_anchor_weight=1.0
    )
    output = generated(trainer)
    loss = trainer._compute_loss(trainer.model, output)
    loss.backward()
    assert abs(loss.item()) < 1e-6
    gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
    assert max(gradient.abs().max().item() for gradient in gradients) < 1e-6
    move_weights(trainer)
    base = AutoModelForCausalLM.from_pretrained(tiny_policy, dtype=torch.float32)
    total = 0.0
    tokens = 0
    for row, attempt in ((3, 0), (7, 4)):
        completion = completion_tokens(output, row)
        text = completion_text(trainer, output, attempt)
        prompt = prompt_tokens(trainer, f"{QUESTIONS[row // 4]}\n{text}\n> {WORDS}")
        with torch.no_grad():
            kept = torch.softmax(logits_of(base, prompt, completion), -1)
        logps = torch.log_softmax(logits_of(trainer.model, prompt, completion), -1)
        total = total + (kept * (kept.log() - logps)).sum()
        tokens += len(completion)
    loss = trainer._compute_loss(trainer.model, output)
    assert loss.item() == pytest.approx((total / tokens).item(), rel=1e-4)
    same_gradient(loss, (total / tokens).float(), trainer.model)


def test_both_are_finite_in_training_with_and_without_a_right_refinement(
    tiny_policy, tmp_path
) -> None:
    settings = {"refine_own_weight": 0.5, "refine_anchor_weight": 0.5, "max_steps": 2}
    trainer = critique_trainer(
        tiny_policy,
        tmp_path,
        Turns([0.0] * 6, [1.0] * 6, [0.0] * 6, [0.0] * 6),
        Words(),
        **settings,
    )
    trainer.train()
    first, second = (row["loss/own"] for row in trainer.state.log_history if "loss/own" in row)
    assert first > 0
    assert second == 0.0
