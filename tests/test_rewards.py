"""Verdict -> reward: unscored is None, never 0, and the verdicts stay readable."""

from __future__ import annotations

from critique_rl.rewards import VerifierReward, text_of
from critique_rl.types import Verdict
from critique_rl.verifier import by_name


def test_each_outcome_has_its_reward_and_unscored_has_none() -> None:
    outcomes = ["right", "wrong", "unreadable", "abstained", "unscored"]
    reward = VerifierReward(lambda text, row: Verdict(row["outcome"]))
    assert reward(completions=["x"] * 5, outcome=outcomes, trainer_state=object()) == [1.0, 0.0, 0.0, 0.0, None]
    assert [verdict.outcome for verdict in reward.verdicts] == outcomes
    assert [verdict.failed for verdict in reward.verdicts] == [False, True, True, False, False]


def test_a_dataset_without_an_answer_column_is_unscored_not_wrong() -> None:
    reward = VerifierReward(by_name("hash_line"))
    assert reward(completions=["#3"], question=["1+2"]) == [None]


def test_text_is_read_from_both_of_trls_formats() -> None:
    assert text_of("abc") == text_of([{"role": "assistant", "content": "abc"}]) == "abc"
