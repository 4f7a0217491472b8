"""The objective against numbers worked by hand, and gradients against autograd."""

from __future__ import annotations

import math

import pytest
import torch

from critique_rl.objective import group_advantages, refine_loss, shaped_ratio, weighted_advantages


@pytest.mark.parametrize(
    ("p", "expected"),
    # d/d(log p) of p/(p+g) = g p / (p+g)^2, g = .1: p = .1 -> .01/.04 = .25; p = 1 -> .1/1.21 = .0826; p = .001 -> .0001/.010201 = .0098
    [(0.1, 0.25), (1.0, 0.1 / 1.21), (0.001, 0.0001 / 0.010201)],
)
def test_the_shaped_ratio_and_its_slope_are_as_published(p: float, expected: float) -> None:
    logps = torch.tensor(math.log(p), dtype=torch.float64, requires_grad=True)
    value = shaped_ratio(logps, 0.1)
    value.backward()
    assert value.item() == pytest.approx(p / (p + 0.1))
    assert logps.grad.item() == pytest.approx(expected)


def test_the_shaped_ratio_stays_finite_where_the_probability_underflows() -> None:
    logps = torch.tensor(-200.0, requires_grad=True)
    shaped_ratio(logps, 0.1).backward()
    assert logps.grad.item() == 0.0 or math.isfinite(logps.grad.item())


def test_the_union_baseline_gives_one_right_refinement_seven_eighths() -> None:
    rewards = torch.tensor([0.0] * 7 + [1.0])
    # mean 1/8: -.125 seven times, .875 once; std with ddof 1 is .35355, so through TRL -.3535 and 2.4742
    assert group_advantages(rewards, 8).tolist() == pytest.approx([-0.125] * 7 + [0.875])
    assert group_advantages(rewards, 8, scale="std").tolist() == pytest.approx([-0.3535] * 7 + [2.4742], abs=1e-4)
    assert group_advantages(rewards, 8, baseline="none").tolist() == [0.0] * 7 + [1.0]


def test_groups_do_not_mix_and_must_be_whole() -> None:
    # groups [1, 0] and [1, 1]: means .5 and 1
    assert group_advantages(torch.tensor([1.0, 0.0, 1.0, 1.0]), 2).tolist() == [0.5, -0.5, 0.0, 0.0]
    with pytest.raises(AssertionError, match="3 rewards"):
        group_advantages(torch.zeros(3), 2)


def test_weights_act_on_their_own_sign_only() -> None:
    assert weighted_advantages(torch.tensor([2.0, -2.0, 0.0]), 0.1, 3.0).tolist() == pytest.approx([0.2, -6.0, 0.0])


def test_the_refine_term_counts_only_masked_tokens_of_rows_with_credit() -> None:
    logps = torch.log(torch.tensor([[0.1, 0.1], [0.4, 0.4]]))
    mask = torch.tensor([[1, 0], [1, 1]])
    # shaped: f(.1) = .5, f(.4) = .8; credit .875 and 0: -(.875 * .5) = -.4375
    assert refine_loss(logps, torch.tensor([0.875, 0.0]), mask, "shaped", 0.1).item() == pytest.approx(-0.4375)
    # nll of row 1 alone: -2 log .4 = 1.8326
    assert refine_loss(logps, torch.tensor([0.0, 1.0]), mask, "nll", 0.1).item() == pytest.approx(1.8326, abs=1e-4)


def test_a_wrong_refinement_is_pushed_down_everywhere_but_boundedly() -> None:
    logps = torch.log(torch.tensor([[1e-6, 0.1, 0.9]])).requires_grad_()
    refine_loss(logps, torch.tensor([-0.5]), torch.ones(1, 3), "shaped", 0.1).backward()
    # the loss's slope is +.5 g p/(p+g)^2: positive (descent lowers p), at most .5 * .25
    assert (logps.grad > 0).all()
    assert logps.grad.max().item() <= 0.125 + 1e-6
