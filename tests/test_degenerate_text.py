"""No text can hold a step: degenerate texts of 44 kinds go through every reader of texts in a
process of their own, and arbitrary replies leave no thought behind.

Times and memory at 10^5 to 4 x 10^6 characters: benchmarks/degenerate_text.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from degenerate_texts import (
    ATTEMPT,
    READERS,
    ROW,
    SPECIALS,
    THOUGHT_MARKS,
    UNITS,
    OneReply,
    body,
    critique_of_reply,
    degenerate,
    measure,
    read_body,
)
from hypothesis import given
from hypothesis import strategies as st

from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import without_thinking
from critique_rl.critic.leaks import leak_spans
from critique_rl.critic.text_view import view_of
from critique_rl.critic.thought_marks import find_marks
from critique_rl.critic.thoughts import grade_closing, grade_opening
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG, neutralise
from critique_rl.tasks.answers.formulas import is_phrase
from critique_rl.tasks.rows.question_key import question_key
from critique_rl.tasks.verifiers import VERIFIERS
from critique_rl.types import Verdict

LENGTH = 20_000
SHARE = 9
"""Of every so many pairs of a reader and a kind one is run; the benchmark runs all of them."""
MOST_SECONDS = 60.0
"""For all pairs together, which take a few seconds: a square of the length takes minutes."""


def read_every_ninth_pair() -> None:
    for i, (name, read) in enumerate(READERS.items()):
        for j, kind in enumerate(UNITS):
            if (i + j) % SHARE == 0:
                try:
                    read(degenerate(kind, LENGTH))
                except Exception as error:
                    raise AssertionError(f"{name}, {kind}: {error!r}") from error


def test_no_reader_hangs_or_raises_at_any_kind_of_text() -> None:
    assert len(UNITS) >= 30
    seconds, _, error = measure(read_every_ninth_pair, MOST_SECONDS)
    assert error == "", error
    assert seconds < MOST_SECONDS


def test_what_took_the_square_of_the_length_is_read_at_200_000_characters() -> None:
    def read_all() -> None:
        without_thinking("\n" * 200_000)
        without_thinking(" \t\n" * 60_000)
        question_key("1" + ",111" * 50_000 + "1")
        question_key("a" + "\u0301\u0316" * 100_000)
        # 2^40 steps: each space belonged to one of two optional parts of the pattern.
        assert not is_phrase("A " * 40 + "1")

    _, _, error = measure(read_all, MOST_SECONDS)
    assert error == "", error


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_text_over_the_bound_is_unreadable_and_never_wrong(name) -> None:
    row = {**ROW, "answer": "B"} if name == "choice" else ROW
    text = "#42\\boxed{7}" * (LONGEST_TEXT // 8)
    verdict = VERIFIERS[name](text, row)
    assert (verdict.outcome, verdict.reason) == ("unreadable", TOO_LONG)
    # The row's fault comes first.
    assert VERIFIERS[name](text, {**ROW, "answer": ""}).outcome == "unscored"


def test_a_reply_over_the_bound_is_refused_with_that_reason() -> None:
    text = "a" * (LONGEST_TEXT + 1)
    critique = critique_of_reply(text)
    assert (critique.text, critique.status, critique.reason) == ("", "failed", TOO_LONG)
    assert read_body(body(text)) == f"bad response: {TOO_LONG}"
    assert without_thinking(text) == ""
    assert leak_spans(text, ATTEMPT, lambda piece, row: True) == ([], False)
    assert len(neutralise(text + "a" * 1000)) < LONGEST_TEXT + 100


# ---- arbitrary replies ---------------------------------------------------------------------------

PIECES = st.sampled_from(
    (
        *THOUGHT_MARKS,
        *THOUGHT_MARKS.values(),
        *UNITS.values(),
        "Look again.",
        "42",
        " ",
        "<thi",
        "nk>",
        "assistantfinal",
    )
)
REPLIES = st.one_of(st.text(max_size=200), st.lists(PIECES, max_size=12).map("".join))


@given(REPLIES)
def test_without_thinking_is_idempotent_and_leaves_no_thought(text: str) -> None:
    left = without_thinking(text)
    assert without_thinking(left) == left
    assert len(left) <= len(text)
    assert left == left.strip()
    view = view_of(left)
    for mark in find_marks(view):
        # Of a mark a critique may speak, in its place as a word or a quotation.
        grade = grade_opening if mark.role == "open" else grade_closing
        is_word = grade(view, mark.start, mark.end) in ("word", "mention")
        assert is_word or mark.role == "around" or mark.needs_opening


@given(REPLIES, st.sampled_from(("keep", "redact", "drop")))
def test_any_reply_becomes_a_critique_or_a_counted_failure(text: str, on_leak: str) -> None:
    critic = ChatCritic(OneReply(text), is_answer=answers_42, on_leak=on_leak)
    [critique] = critic.critique([ATTEMPT])
    assert critique.status in ("ok", "failed", "skipped")
    assert bool(critique.text.strip()) == (critique.status == "ok")
    assert bool(critique.reason) == (critique.status != "ok")
    answer = read_body(body(text))
    assert without_thinking(answer.text) == answer.text


def answers_42(piece: str, row: Mapping[str, object]) -> bool:
    return VERIFIERS["last_number"](piece, row).outcome == "right"


@given(REPLIES, st.sampled_from(sorted(VERIFIERS)))
def test_any_text_has_a_verdict(text: str, name: str) -> None:
    row = {**ROW, "answer": "B"} if name == "choice" else ROW
    assert isinstance(VERIFIERS[name](text, row), Verdict)


@given(st.text(max_size=60), st.lists(st.text(min_size=2, max_size=4), max_size=4))
def test_no_special_token_is_left_in_a_prompt(text: str, specials: list[str]) -> None:
    specials = [special for special in specials if " " not in special and special.isprintable()]
    left = neutralise(text + "".join(specials), (*specials, *SPECIALS))
    assert not any(special in left for special in specials)


def test_degenerate_texts_have_the_length_that_is_asked_for() -> None:
    assert {len(degenerate(kind, 1000)) for kind in UNITS} == {1000}
