"""Which reward functions say that a rollout is right."""

from __future__ import annotations

import pytest
import torch

from critique_rl import VerifierReward, build_verifier
from critique_rl.rewards import group_wise, random_reward, rlcr, truthrl
from critique_rl.trainer.alarms import contradiction
from critique_rl.trainer.rollout.success import (
    SuccessRule,
    count_success,
    find_success,
    refuse_ignored_rewards,
    refuse_unknown_success,
)
from critique_rl.types import Verdict

NAN = float("nan")
VERIFIER = VerifierReward(build_verifier("last_number"))


def accuracy(completions, **columns):
    return [1.0] * len(completions)


def penalty(completions, **columns):
    return [-0.1] * len(completions)


@group_wise
def shortest(completions, **columns):
    return [0.0] * len(completions)


def places(*functions, wanted=None) -> tuple[int, ...]:
    return find_success(functions, [function.__name__ for function in functions], wanted)


def test_the_only_verifier_says_it_else_the_only_function_else_nobody() -> None:
    assert places(penalty, VERIFIER) == (1,)
    assert places(accuracy) == (0,)
    assert places(accuracy, penalty) == ()
    assert places(VERIFIER, rlcr(), penalty) == ()
    # one that compares a group cannot say it
    assert places(shortest, accuracy) == (1,)
    assert places(shortest) == ()


def test_the_user_names_it() -> None:
    assert places(penalty, VERIFIER, accuracy, wanted="accuracy") == (2,)
    assert places(penalty, accuracy, wanted=["accuracy", "penalty"]) == (1, 0)


@pytest.mark.parametrize(
    ("functions", "wanted", "message"),
    [
        ([accuracy, penalty], "acc", "got 'acc', but the reward functions are accuracy, penalty"),
        ([accuracy, accuracy], "accuracy", "2 reward functions are called 'accuracy'"),
        ([accuracy, shortest], "shortest", "'shortest' compares the rows of a group"),
    ],
)
def test_a_name_that_says_nothing_is_refused(functions, wanted, message) -> None:
    with pytest.raises(ValueError, match=f"success_reward: {message}"):
        places(*functions, wanted=wanted)


def test_nobody_says_it_is_refused_with_the_argument_to_write() -> None:
    names = ["accuracy", "penalty"]
    with pytest.raises(
        ValueError,
        match=(
            r"a critic needs to know .* 2 reward functions: accuracy, penalty\. Name .*: "
            r"CritiqueGRPOConfig\(success_reward='accuracy'\)"
        ),
    ):
        refuse_unknown_success((), [accuracy, penalty], names, ["a critic"])
    with pytest.raises(ValueError, match="shortest compares the rows of a group; add a reward"):
        refuse_unknown_success((), [shortest], ["shortest"], ["a critic"])
    refuse_unknown_success((), [accuracy, penalty], names, [])
    refuse_unknown_success((0,), [accuracy, penalty], names, ["a critic"])


def outcomes(rule: SuccessRule, functions, rows) -> list[str]:
    return [verdict.outcome for verdict in rule.verdicts(functions, torch.tensor(rows))]


def test_other_rewards_and_their_weights_change_no_verdict() -> None:
    rows = [[1.0, -0.9], [0.0, 2.0], [NAN, 1.0], [1.0, NAN]]
    rule = SuccessRule((0,))
    assert outcomes(rule, [accuracy, penalty], rows) == ["right", "wrong", "unscored", "right"]


def test_a_reward_of_just_the_threshold_is_right_in_single_precision() -> None:
    # .7 in float32 is .69999999
    assert outcomes(SuccessRule((0,), 0.7), [accuracy], [[0.7], [0.6999]]) == ["right", "wrong"]


def test_of_several_functions_each_that_scored_the_row_must_say_right() -> None:
    rows = [[1.0, NAN], [NAN, 1.0], [NAN, 0.0], [1.0, 0.0], [1.0, 1.0], [NAN, NAN]]
    expected = ["right", "right", "wrong", "wrong", "right", "unscored"]
    assert outcomes(SuccessRule((0, 1)), [accuracy, penalty], rows) == expected


def test_a_verifier_gives_its_own_verdicts() -> None:
    VERIFIER(completions=["it is 4", "no idea", "5"], answer=["4"] * 3)
    rewards = [[-0.5, 1.0], [0.0, 0.0], [0.0, 0.0]]
    rule = SuccessRule((1,))
    assert outcomes(rule, [penalty, VERIFIER], rewards) == ["right", "unreadable", "wrong"]


@pytest.mark.parametrize(
    ("functions", "where", "weights", "message"),
    [
        ([accuracy, penalty], (0,), [1.0, 0.5], "would ignore the reward penalty of weight 0.5"),
        ([rlcr(), VERIFIER], (1,), [1.0, 0.0], "would ignore the reward rlcr of weight 1"),
        ([rlcr()], (0,), [1.0], "would ignore that the reward rlcr pays something else"),
    ],
)
def test_signed_credit_refuses_rewards_it_would_not_read(
    functions, where, weights, message
) -> None:
    names = [function.__name__ for function in functions]
    with pytest.raises(ValueError, match=f"credit signed: .*{message}"):
        refuse_ignored_rewards(where, functions, names, weights)


@pytest.mark.parametrize(
    ("functions", "weights"),
    [([VERIFIER], [1.0]), ([accuracy, penalty], [1.0, 0.0]), ([truthrl()], [1.0])],
)
def test_signed_credit_takes_rewards_of_right_and_failed(functions, weights) -> None:
    names = [function.__name__ for function in functions]
    refuse_ignored_rewards((0,), functions, names, weights)


# ---- the alarm -----------------------------------------------------------------------------------


def said(functions, rows, failed: list[bool], place: int = 0):
    names = [function.__name__ for function in functions]
    verdicts = [Verdict("wrong" if is_failed else "right") for is_failed in failed]
    rule = SuccessRule((place,))
    counts = count_success(rule, functions, names, torch.tensor(rows), verdicts)
    return contradiction(counts, names)


def test_a_reward_of_0_and_1_contradicts_that_all_failed_or_none() -> None:
    half = [[0.9, float(i % 2)] for i in range(40)]
    clash = said([penalty, accuracy], half, [True] * 40)
    assert (clash.share, clash.reward, clash.zeros) == (1.0, "accuracy", 0.5)
    assert said([penalty, accuracy], half, [False] * 40).share == 0.0
    # 37 of 40 are 92.5 %: nothing is suspected
    assert said([penalty, accuracy], half, [i < 37 for i in range(40)]) is None
    # the reward agrees
    assert said([penalty, accuracy], [[0.9, 0.0]] * 40, [True] * 40) is None
    # no reward of 0 and 1
    assert said([penalty, accuracy], [[0.9, 0.5], [0.9, 1.0]] * 20, [True] * 40) is None
    # with a threshold that its 1 does not reach, the function contradicts itself
    assert said([accuracy], [[float(i % 2)] for i in range(40)], [True] * 40).zeros == 0.5


def test_controls_that_pay_for_something_else_on_purpose_contradict_nothing() -> None:
    rows = [[float(i % 2), 0.0] for i in range(40)]
    other = VerifierReward(VERIFIER.verifier, lambda verdict: 0.0, "other")
    for control in (random_reward(0.5), other, shortest):
        assert said([control, VERIFIER], rows, [True] * 40, place=1) is None
    stranger = VerifierReward(build_verifier("boxed_answer"), name="stranger")
    assert said([stranger, VERIFIER], rows, [True] * 40, place=1).reward == "stranger"
