"""The table of docs/method.md: how each objective moves the log-probability of a right completion.

A policy is a softmax over ten completions. Expected gradients are taken by autograd.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

RIGHT = 3
GAMMA = 0.1
CHANCES = (1e-8, 1e-4, 0.1, 0.7)


def policy_logits(chance: float) -> Tensor:
    """Logits (10,) of a policy whose right completion has the given chance."""
    torch.manual_seed(0)
    wrong = torch.softmax(torch.randn(10).double(), 0)
    wrong[RIGHT] = 0
    probabilities = wrong / wrong.sum() * (1 - chance)
    probabilities[RIGHT] = chance
    return probabilities.log().requires_grad_()


def drift(logits: Tensor, objective: Tensor) -> float:
    """Change of log p(right) per rate of an ascent on the objective."""
    [ascent] = torch.autograd.grad(objective, logits)
    log_right = torch.log_softmax(logits, 0)[RIGHT]
    [slope] = torch.autograd.grad(log_right, logits)
    return (ascent * slope).sum().item()


def spread(chance: float, logits: Tensor) -> float:
    """S of the page."""
    probabilities = torch.softmax(logits, 0).detach()
    squares = probabilities.square().sum() - probabilities[RIGHT].square()
    return (1 - chance) ** 2 + squares.item()


@pytest.mark.parametrize("chance", CHANCES)
@pytest.mark.parametrize(("right", "wrong"), [(1, 0), (0, -1), (1, -1), (0.9, -0.1)])
def test_a_scalar_reward_moves_the_log_by_the_chance(chance, right, wrong) -> None:
    logits = policy_logits(chance)
    logps = torch.log_softmax(logits, 0)
    credit = torch.full((10,), float(wrong), dtype=torch.float64)
    credit[RIGHT] = right
    expected = (logps.exp().detach() * credit * logps).sum()
    # PSR, NSR, both, and a group's baseline: only the difference of the credits matters.
    by_hand = (right - wrong) * chance * spread(chance, logits)
    assert drift(logits, expected) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("chance", CHANCES)
def test_a_refinement_replaces_the_chance_by_its_own(chance) -> None:
    logits = policy_logits(chance)
    rescue = 0.6
    log_right = torch.log_softmax(logits, 0)[RIGHT]
    by_hand = rescue * spread(chance, logits)
    assert drift(logits, rescue * log_right) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("chance", CHANCES)
def test_the_shaped_ratio_is_of_the_order_of_the_chance_again(chance) -> None:
    logits = policy_logits(chance)
    right = torch.softmax(logits, 0)[RIGHT]
    slope = GAMMA * chance / (chance + GAMMA) ** 2
    by_hand = slope * spread(chance, logits)
    assert drift(logits, right / (right + GAMMA)) == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("chance", CHANCES)
def test_a_teacher_moves_the_log_by_its_own_chance(chance) -> None:
    logits = policy_logits(chance)
    teacher = torch.softmax(torch.arange(10.0).double(), 0)
    logps = torch.log_softmax(logits, 0)
    forward_kl = (teacher * (teacher.log() - logps)).sum()
    probabilities = logps.exp().detach()
    pulls = probabilities * (teacher - probabilities)
    by_hand = (1 - chance) * (teacher[RIGHT] - chance) - (pulls.sum() - pulls[RIGHT])
    assert drift(logits, -forward_kl) == pytest.approx(by_hand.item(), rel=1e-9)
