"""Verdict -> reward: unscored is None, never 0; published rewards against their formulas; controls
that are what they claim.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.tasks.rewards import (
    MajorityVote,
    VerifierReward,
    build_reward,
    format_only,
    incorrect_only,
    random_reward,
    rlcr,
    rlcr_released,
    rlcr_released_value,
    rlcr_value,
    text_of,
    truthrl,
)
from critique_rl.tasks.verifiers import (
    boxed_answer,
    boxed_answer_evaluated,
    find_verifier,
    tagged_answer,
)
from critique_rl.types import UnknownOutcome, Verdict

OUTCOMES = ["right", "wrong", "unreadable", "abstained", "unscored"]


def by_outcome(text, row) -> Verdict:
    return Verdict(row["outcome"])


def tagged(answer: str, confidence: str) -> str:
    return (
        f"<think>so</think>\n<answer>{answer}</answer> <analysis>sure?</analysis>\n"
        f"<confidence>{confidence}</confidence>\n"
    )


def test_each_outcome_has_its_reward_and_unscored_has_none() -> None:
    reward = VerifierReward(by_outcome)
    assert reward(completions=["x"] * 5, outcome=OUTCOMES, trainer_state=object()) == [
        1.0,
        0.0,
        0.0,
        0.0,
        None,
    ]
    assert [verdict.outcome for verdict in reward.verdicts] == OUTCOMES
    assert [verdict.failed for verdict in reward.verdicts] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("reward", "values"),
    [
        (truthrl(by_outcome), [1.0, -1.0, -1.0, 0.0, None]),
        (format_only(by_outcome), [1.0, 1.0, 0.0, 1.0, None]),
        (incorrect_only(by_outcome), [0.0, 1.0, 0.0, 0.0, None]),
        (rlcr(by_outcome), [-1.0, -1.0, -1.0, -1.0, None]),  # no confidence is stated
        (rlcr_released(by_outcome), [0.0, 0.0, 0.0, 0.0, None]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rewards_by_outcome(reward, values) -> None:
    assert reward(completions=["x"] * 5, outcome=OUTCOMES) == values


@pytest.mark.parametrize("outcome", ["correct", "", None, True])
def test_an_outcome_that_no_reward_knows_is_refused_not_0(outcome) -> None:
    reward = VerifierReward(lambda text, row: Verdict(outcome))
    with pytest.raises(UnknownOutcome, match="expected one of right, wrong"):
        reward(["7"])


def test_a_dataset_without_an_answer_column_is_unscored_not_wrong() -> None:
    reward = VerifierReward(find_verifier("hash_line"))
    assert reward(completions=["#3"], question=["1+2"]) == [None]


def test_text_is_read_from_both_of_trls_formats() -> None:
    assert text_of("abc") == text_of([{"role": "assistant", "content": "abc"}]) == "abc"


@pytest.mark.parametrize(
    ("reward", "best"),
    [
        (rlcr_value, lambda p: p**2),
        (rlcr_released_value, lambda p: 0.5 + (p + 1 - p * (1 - p)) / 2),
    ],
)
def test_rlcrs_expected_reward_is_highest_where_the_confidence_is_the_probability(
    reward, best
) -> None:
    grid = [i / 100 for i in range(101)]
    for p in (0.0, 0.1, 0.35, 0.5, 0.8, 1.0):
        expected = [
            p * reward(Verdict("right", confidence=q))
            + (1 - p) * reward(Verdict("wrong", confidence=q))
            for q in grid
        ]
        assert grid[expected.index(max(expected))] == p
        assert max(expected) == pytest.approx(best(p))


def test_rlcrs_published_values_at_the_optimum() -> None:
    # paper: p^2; released, format included: .5 + .5 p + .5 (1 - p (1 - p)) = 1 + p^2 / 2
    for p in (0.0, 0.25, 0.7, 1.0):
        assert p - p * (1 - p) ** 2 - (1 - p) * p**2 == pytest.approx(p**2)
        assert 0.5 + 0.5 * p + 0.5 * (1 - p * (1 - p)) == pytest.approx(1 + p**2 / 2)


@pytest.mark.parametrize(
    ("text", "outcome", "confidence"),
    [
        (tagged("4", "0.8"), "right", 0.8),
        (tagged("5", ".25"), "wrong", 0.25),
        (tagged("4", "1"), "right", 1.0),
        (tagged("4", "1.2"), "unreadable", None),
        (tagged("4", "80%"), "unreadable", None),
        (tagged("4", "-0.1"), "unreadable", None),
        (tagged("4", "0.8") + "and so on", "unreadable", None),
        (tagged("4", "0.8").replace("</answer> ", "</answer> but "), "unreadable", None),
        (tagged("4", "0.8").replace("</think>", ""), "unreadable", None),
        ("4", "unreadable", None),
    ],
)
def test_the_tagged_format_is_read_whole_or_not_at_all(text, outcome, confidence) -> None:
    verdict = tagged_answer(text, {"answer": "4"})
    assert (verdict.outcome, verdict.confidence) == (outcome, confidence)


@pytest.mark.parametrize(
    ("text", "gold", "training", "evaluated"),
    [
        ("no box", "Paris", "unreadable", "unreadable"),
        (r"\boxed{The Paris!}", "paris", "right", "right"),
        (r"\boxed{I don't know}", "Paris", "abstained", "abstained"),
        (
            r"\boxed{I don't know}",
            "I don't know",
            "abstained",
            "abstained",
        ),  # abstaining comes before the match
        (r"\boxed{invalid question}", "Paris", "wrong", "wrong"),
        (
            r"\boxed{Invalid question.}",
            "invalid question",
            "wrong",
            "right",
        ),  # the trap: never rewarded in training
        (r"\boxed{Rome} no, \boxed{Paris}", "Paris", "right", "right"),  # the last box counts
        (r"\boxed{}", "Paris", "unreadable", "unreadable"),
    ],
)
def test_truthrls_checks_in_their_published_order(text, gold, training, evaluated) -> None:
    assert boxed_answer(text, {"answer": gold}).outcome == training
    assert boxed_answer_evaluated(text, {"answer": gold}).outcome == evaluated


def test_a_judge_is_asked_last_and_only_where_nothing_else_decided() -> None:
    asked = []

    def judge(answer, row) -> bool:
        asked.append(answer)
        return answer == "the city of light"

    texts = [
        r"\boxed{the city of light}",
        r"\boxed{Rome}",
        r"\boxed{Paris}",
        r"\boxed{I don't know}",
    ]
    outcomes = [boxed_answer(text, {"answer": "Paris"}, judge).outcome for text in texts]
    assert outcomes == ["right", "wrong", "right", "abstained"]
    assert asked == ["the city of light", "Rome"]


def test_ternary_tells_abstaining_from_erring_inside_a_group_and_binary_cannot() -> None:
    group = {"completions": ["x"] * 4, "outcome": ["wrong", "abstained", "wrong", "wrong"]}
    assert len(set(VerifierReward(by_outcome)(**group))) == 1
    assert truthrl(by_outcome)(**group) == [-1.0, 0.0, -1.0, -1.0]


def test_random_rewards_come_at_their_rate_whatever_the_answer_and_repeat_themselves() -> None:
    reward = random_reward(0.3, seed=5)
    prompts = ["q"] * 4000
    drawn = reward(prompts, prompts, trainer_state=SimpleNamespace(global_step=7))
    assert sum(drawn) / 4000 == pytest.approx(0.3, abs=0.03)
    assert drawn == reward(prompts, ["other"] * 4000, trainer_state=SimpleNamespace(global_step=7))
    assert drawn != reward(prompts, prompts, trainer_state=SimpleNamespace(global_step=8)), (
        "another step draws anew"
    )
    with pytest.raises(ValueError, match="from 0 to 1"):
        random_reward(1.5)


def test_the_majority_is_rewarded_right_or_not_group_by_group() -> None:
    reward = MajorityVote(find_verifier("hash_line"), 4)
    completions = ["#3", "#4", "#4", "what", "no", "none", "nothing", "#"]
    assert reward(completions, answer=["3"] * 8) == [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert reward.group_wise
    assert reward(["#1", "#1", "#2", "x"], answer=[None] * 4) == [None] * 4


def test_a_reward_section_names_its_kind_and_being_right_is_logged_beside_it() -> None:
    functions, weights = build_reward({"kind": "correct"}, by_outcome, 4)
    assert ([function.__name__ for function in functions], weights) == (["correct"], [1.0])
    functions, weights = build_reward({"kind": "random", "rate": 0.5}, by_outcome, 4)
    assert ([function.__name__ for function in functions], weights) == (
        ["random", "correct"],
        [1.0, 0.0],
    )


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"kind": "rclr"}, "did you mean 'rlcr'"),
        ({"kind": "random"}, "rate"),
        ({"kind": "random", "rate": 2}, "from 0 to 1"),
        ({"kind": "rlcr", "rate": 0.5}, "unknown key 'rate'"),
    ],
)
def test_a_mistake_in_the_reward_section_is_named(spec, words) -> None:
    with pytest.raises(ConfigError, match=words):
        build_reward(spec, by_outcome, 4)
