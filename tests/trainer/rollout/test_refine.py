"""Which rollouts are critiqued, what a refine prompt looks like, and which candidates fill the
reserved slots.
"""

from __future__ import annotations

import pytest

from critique_rl.tasks.messages import question_of
from critique_rl.trainer.rollout.refine import (
    choose_candidates,
    mentions_critique,
    refine_prompt,
    select_failed,
)
from critique_rl.types import Attempt, Critique, Verdict

R, W, U, N, A = (
    Verdict(outcome) for outcome in ("right", "wrong", "unreadable", "unscored", "abstained")
)


def test_failed_means_wrong_or_unreadable_never_unscored_or_abstained() -> None:
    assert select_failed([R, W, U, N, A, W], 6, "rollout_failed", 6) == [1, 2, 5]


def test_the_cheap_mode_asks_for_at_most_m_critiques_a_group() -> None:
    assert select_failed([W, W, W, R, W, W], 3, "rollout_failed", 1) == [0, 4]


def test_group_failed_asks_only_where_nothing_was_right() -> None:
    assert select_failed([W, R, W, W], 2, "group_failed", 2) == [2, 3]


def test_right_candidates_come_first_then_others_at_random_and_unscored_never() -> None:
    assert choose_candidates([W, R, W, R], 1, lambda n: 0) == [1]
    assert choose_candidates([W, N, W], 2, lambda n: n - 1) == [2, 0]
    assert choose_candidates([N, N], 1, lambda n: 0) == []


def test_a_refine_prompt_keeps_the_system_message_and_replaces_the_question() -> None:
    prompt = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 A-7"}]
    attempt = Attempt("3 A-7", "A-7=4\n#4", W)
    refined = refine_prompt(prompt, attempt, Critique("A sign lost", "oracle"), "lab/refine")
    assert refined[0] == prompt[0]
    assert refined[1]["content"] == "3 A-7\nA-7=4\n#4\n> A sign lost"
    assert question_of(prompt) == "3 A-7"


def test_template_syntax_and_braces_in_model_text_stay_text() -> None:
    attempt = Attempt("q", "{{ 7*7 }} {% include 'x' %} {0}", W)
    assert "{{ 7*7 }} {% include 'x' %} {0}" in refine_prompt(
        "q", attempt, Critique("{{ attempt }}", "api"), "lab/refine"
    )


@pytest.mark.parametrize(
    "text",
    [
        "As you noted, the sign was lost. 3-7=-4",
        "as the critique pointed out, step B is wrong",
        "Thanks for the hint! The answer is 5",
        "I apologize for my mistake.",
        "You are right, it is 12.",
        "In my previous attempt I forgot the carry.",
        "The feedback says the carry was lost.",
        "Like you said, 4+8=12",
        "As the feedback has suggested, carry the one.",
        "Based on your feedback I work step A again.",
        "This critique is right: -4+9=5",
        "You're right. A-7=-4",
        "My first answer lost a sign.",
        "Unlike your earlier solution, this one keeps the minus.",
        "Thank you for checking!\n#5",
        "As you correctly noted, the carry was lost.",
        "The above critique names step B.",
        "In the first attempt the sign was lost.",
        "As pointed out in the critique, -4+9=5",
    ],
)
def test_an_answer_that_speaks_of_the_critique_is_found(text) -> None:
    assert mentions_critique(text)


@pytest.mark.parametrize(
    "text",
    [
        "A-7=-4\nB+9=5\n#5",
        "The previous term is 3, so the next is 7.",
        "As you can see, x = 3.",
        "The critical point is at x = 2.",
        "The answer is right.",
        "As noted: x=3",
        "As noted above, f is even, so f(-2) = f(2).",
        "As mentioned in the problem, Ann has 3 apples.",
        "The first solution of the equation is x = 2, the second x = 3.",
        "The original solution holds 20% acid.",
        "As stated, the first term is 3 and the second is 7.",
        "The original number is 12; my first step adds 8.",
        "A critical value, a hint of symmetry, and 3 is right.",
        "",
    ],
)
def test_mathematics_is_not_taken_for_it(text) -> None:
    assert not mentions_critique(text)


def test_random_selection_draws_from_right_and_wrong_but_never_from_unscored() -> None:
    assert choose_candidates([R, W, N], 2, lambda n: n - 1, "random") == [1, 0]
    assert choose_candidates([R, W, N], 1, lambda n: n - 1, "random") == [1]
    # of 0, 1 and 3, each once: the draw is over those left, in order
    assert choose_candidates([W, R, N, R], 3, lambda n: 0, "random") == [0, 1, 3]
    assert choose_candidates([W, R, N, R], 2, lambda n: 1, "random") == [1, 3]
    # where the right come first the same draw is over the wrong alone
    assert choose_candidates([W, R, N, W], 2, lambda n: 1, "right_first") == [1, 3]
