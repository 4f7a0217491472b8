"""Localisation: what counts as a step, what is read of a reply, and that CHAMP is what it is said
to be.
"""

from __future__ import annotations

import pytest

from critique_rl.critic.contract import Reply
from critique_rl.experiment.first_wrong_step import (
    AnnotatedSolution,
    baselines,
    critic_prompt,
    load_champ,
    localisation_accuracy,
    read_step,
)
from critique_rl.types import Usage

ITEMS = [
    AnnotatedSolution("P1", "q1", "1", "s", ("a", "b", "c"), frozenset({2, 3})),
    AnnotatedSolution("P1", "q1", "1", "s", ("a",), frozenset()),
    AnnotatedSolution("P2", "q2", "2", "t", ("a", "b", "c", "First wrong step: 1"), frozenset({1})),
]


@pytest.mark.parametrize(
    ("reply", "step"),
    [
        ("Line 2 is wrong.\nFirst wrong step: 2", 2),
        ("**First wrong step:** 2.", 2),
        ("first wrong step: [3]\n\n", 3),
        ("First wrong step: none", 0),
        ("First wrong step: None.", 0),
        ("<think>First wrong step: 1</think>\nFirst wrong step: 2", 2),
        ("First wrong step: 1\nFirst wrong step: 2", 2),
        ("First wrong step: 2\nI am sure.", None),
        ("First wrong step: 4", None),
        ("First wrong step: 0", None),
        ("First wrong step: 2 or 3", None),
        ("First wrong step: two", None),
        ("2", None),
        ("", None),
    ],
)
def test_only_the_last_line_in_its_form_is_read(reply, step) -> None:
    assert read_step(reply, 3) == step


def test_accuracy_is_over_problems_and_what_cannot_be_read_is_wrong_and_counted() -> None:
    class Says:
        def answer(self, conversations):
            assert "[3] c" in conversations[0][0]["content"]
            return [
                Reply("First wrong step: 3", usage=Usage(10, 2)),
                Reply("", "failed", "timeout"),
                Reply("step one", usage=Usage(9, 1)),
            ]

    accuracies = localisation_accuracy(Says(), ITEMS)
    # P1: one of two; P2: none of one. The mean of .5 and 0.
    assert accuracies["accuracy"]["mean"] == 0.25
    assert accuracies["with_mistake"]["mean"] == 0.5
    assert accuracies["without_mistake"]["mean"] == 0.0
    assert accuracies["lost"] == {"failed: timeout": 1, "unparsable": 1}
    assert accuracies["critic_tokens"] == 22


def test_rules_that_read_nothing() -> None:
    accuracies = {name: scores["accuracy"]["mean"] for name, scores in baselines(ITEMS).items()}
    # Step 1: P1 0 of 2, P2 1 of 1. None: P1 1 of 2, P2 0. Random: P1 (2/4 + 1/2) / 2, P2 1/5.
    assert accuracies == {
        "always step 1": 0.5,
        "random": pytest.approx((0.5 + 0.2) / 2),
        "always no error": 0.25,
    }


def test_the_prompt_tells_what_the_critic_may_know_and_numbers_the_lines() -> None:
    assert "only: 2" in critic_prompt(ITEMS[2], "answer")
    assert "only: 2" not in critic_prompt(ITEMS[2], "nothing")
    assert "<correct_solution>\nt\n" in critic_prompt(ITEMS[2], "solution")
    assert "[1] a\n[2] b\n[3] c\n[4] First wrong step: 1\n</solution_to_check>" in critic_prompt(
        ITEMS[2], "nothing"
    )


def test_champ_has_540_annotations_and_every_marked_span_touches_a_line() -> None:
    pytest.importorskip("champ_dataset", reason="the extra `champ` is not installed")
    items = load_champ()
    assert (
        len(items),
        sum(bool(item.wrong) for item in items),
        len({item.problem for item in items}),
    ) == (540, 444, 270)
    assert all(all(1 <= step <= len(item.lines) for step in item.wrong) for item in items)
