"""Credit of rollouts and refinements through the trainer, by hand."""

from __future__ import annotations

import pytest
from known_critics import Turns, Words, generated
from lab_trainers import critique_trainer


@pytest.mark.parametrize(
    ("settings", "rollouts", "refinement"),
    [
        # rollouts 1, 0, 0 and a right refinement: the mean of four is 1/2, of three 1/3
        ({}, [0.5, -0.5, -0.5], 0.5),
        ({"baseline": "rollouts"}, [2 / 3, -1 / 3, -1 / 3], 2 / 3),
        ({"credit": "signed"}, [1.0, -1.0, -1.0], 1.0),
        # weights are the rollouts' own
        (
            {"credit": "signed", "positive_weight": 0.1, "negative_weight": 2.0},
            [0.1, -2.0, -2.0],
            1.0,
        ),
        ({"positive_weight": 0.0}, [0.0, -0.5, -0.5], 0.5),
        # nll weighs right refinements by 1
        ({"refine_ratio": "nll"}, [0.5, -0.5, -0.5], 1.0),
    ],
)
def test_credit_by_hand(tiny_policy, tmp_path, settings, rollouts, refinement) -> None:
    reward = Turns([1.0, 0.0, 0.0] * 2, [1.0] * 4)
    trainer = critique_trainer(
        tiny_policy, tmp_path, reward, Words(), **{"scale_rewards": "none", **settings}
    )
    output = generated(trainer)
    assert output["advantages"].tolist() == pytest.approx([*rollouts, 0.0] * 2, abs=1e-5)
    assert output["refine_credit"].tolist() == pytest.approx(
        [0.0, 0.0, 0.0, refinement] * 2, abs=1e-5
    )


def test_signed_credit_of_what_could_not_be_judged_is_nothing(tiny_policy, tmp_path) -> None:
    trainer = critique_trainer(
        tiny_policy, tmp_path, Turns([1.0, None, 0.0, 1.0] * 2), credit="signed"
    )
    assert generated(trainer)["advantages"].tolist() == [1.0, 0.0, -1.0, 1.0] * 2
