"""The chance of a true answer: a sum over its listed spellings, 0 for one that does not fit."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch

from critique_rl.config.schema import TaskConfig
from critique_rl.experiment.flow import chances as chances_module
from critique_rl.experiment.flow.chances import true_chances
from critique_rl.lab import tiers
from critique_rl.metrics import exact_pass_at_k
from critique_rl.policy import load_policy
from critique_rl.sampling.settings import Sampling
from critique_rl.sampling.tokens import prompt_ids
from critique_rl.tasks.load import load_task

SAMPLING = Sampling(max_new_tokens=48)


@pytest.fixture(scope="module")
def world():
    """(model, tokenizer, task, rows) of lab/tiers."""
    task = load_task(TaskConfig("lab/tiers", size=8), 0)
    model, tokenizer = load_policy("lab/tiers")
    return model, tokenizer, task, task.held_out("test", 3)


def log_chance(model, prompt, answer) -> float:
    """The log-probability of an answer's tokens, one after the other."""
    tokens = torch.tensor([[*prompt, *answer]])
    with torch.no_grad():
        logps = model(tokens).logits[0].double().log_softmax(-1)
    total = 0.0
    for place, token in enumerate(answer):
        total += logps[len(prompt) + place - 1, token].item()
    return total


def test_the_chance_is_that_of_the_working_without_a_wrong_guess(world) -> None:
    model, tokenizer, task, rows = world
    chances = true_chances(model, tokenizer, task, rows, SAMPLING)
    prompts = prompt_ids(tokenizer, [row["prompt"] for row in rows])
    for row, prompt, chance in zip(rows, prompts, chances, strict=True):
        problem = tiers.parse_problem(row["question"])
        working, _, _ = tiers.format_working(problem, problem.truth, 70).partition("@")
        answer = tokenizer(working + "@", add_special_tokens=False)["input_ids"]
        expected = math.exp(log_chance(model, prompt, answer))
        assert chance == pytest.approx(expected, rel=1e-4)


def test_an_answer_longer_than_the_cap_has_no_chance(world) -> None:
    short = replace(SAMPLING, max_new_tokens=8)
    assert set(true_chances(*world, short)) == {0.0}


def test_a_policy_with_several_spellings_has_no_chances(world, monkeypatch) -> None:
    # The rule itself is tested beside the probes.
    monkeypatch.setattr(chances_module, "is_spelled_once", lambda *_: False)
    assert true_chances(*world, SAMPLING) is None


def test_a_policy_that_writes_no_listed_answer_has_small_chances_not_none(world) -> None:
    model, tokenizer, task, rows = world
    broken = copy.deepcopy(model)
    torch.manual_seed(0)
    for weights in broken.parameters():
        torch.nn.init.normal_(weights, std=0.02)
    chances = true_chances(broken, tokenizer, task, rows, SAMPLING)
    assert chances is not None
    assert max(chances) < 1e-6


def test_exact_pass_at_k_keeps_small_chances() -> None:
    assert exact_pass_at_k(1.0, 4) == 1.0
    assert exact_pass_at_k(0.5, 2) == pytest.approx(0.75)
    assert exact_pass_at_k(1e-18, 256) == pytest.approx(256e-18)
