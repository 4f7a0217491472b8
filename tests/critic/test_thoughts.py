"""Thoughts are no critique: whatever marks them, and whoever wrote them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bigram_policies import UNPARSED, Kind, save_policy
from degenerate_texts import THOUGHT_MARKS
from hypothesis import given
from hypothesis import strategies as st
from thought_corpus import AMBIGUOUS, CUT, LOOK, NESTED, OPENED_BY_TEMPLATE, ORDINARY, PAIRS

from critique_rl.critic.chat import LocalChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import Reply, without_thinking
from critique_rl.critic.thoughts import Cleaned, clean_answer, opened_mark
from critique_rl.types import Attempt, Critique, Verdict

QUESTION = [{"role": "user", "content": "5 q1"}]


@pytest.mark.parametrize(("opening", "closing"), THOUGHT_MARKS.items())
def test_thoughts_between_any_marks_are_removed_and_cut_ones_leave_nothing(opening, closing):
    assert without_thinking(f"{opening}It is 42.{closing}\nLook again.") == "Look again."
    assert without_thinking(f"It is 42.{closing}\n\nLook again.") == "Look again."
    assert without_thinking(f"{opening}\nIt is 42.") == ""
    assert without_thinking(f"{opening}It is 4") == ""
    assert without_thinking(f"  {opening}a{closing}") == ""


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<|channel|>analysis<|message|>42<|end|><|start|>assistant<|channel|>final", ""),
        ("<|channel|>commentary to=x <|constrain|>json<|message|>{}<|call|>", ""),
        ("<|start|>assistant<|channel|>final<|message|>Look.<|return|>", "Look."),
        ("<|channel|>final <|constrain|>json<|message|>Look.<|end|>", "Look."),
        ("analysisWe need 42.assistantfinalLook.", "Look."),
        ("analysisWe need 42.", ""),
        ("The analysis is right.", "The analysis is right."),
        ("<|begin_of_solution|>Look.<|end_of_solution|>", "Look."),
        ("Here is my thought process: 42. Here is my response: Look.", "Look."),
        ("<think>a<think>b</think>c</think>d", "d"),
        ("Look. <think>a <reasoning>42</reasoning> b</think> Again.", "Look.  Again."),
        # Is the rest a thought without an end, or the text that the tag is about?
        ("Sure. <think>It is 42", ""),
        ("Sure. <|begin_of_thought|> It is 42", ""),
        ("Close the <think> tag, then <b>bold</b>.", "Close the <think> tag, then <b>bold</b>."),
        # Two halves of a mark meet where the thought was.
        ("<thi<think>x</think>nk>42", ""),
    ],
)
def test_what_is_an_answer_beside_thoughts(text, left) -> None:
    assert without_thinking(text) == left


# ---- thoughts and critiques that speak of them ---------------------------------------------------

CRITIQUE = st.text(
    st.characters(
        exclude_characters="<>[]`~&%\\|\uff1c\uff1e\u25c1\u25b7", exclude_categories=["Cs"]
    )
)


def critique_of(text: str, reason: str = "") -> Critique:
    class OneAnswer:
        def answer(self, conversations):
            return [Reply(text, reason=reason)]

    attempt = Attempt("q", "a", Verdict("wrong"), {})
    [critique] = ChatCritic(OneAnswer()).critique([attempt])
    return critique


@pytest.mark.parametrize(("opening", "closing"), PAIRS)
def test_thoughts_of_every_family_are_removed_and_cut_ones_refused(opening, closing) -> None:
    assert clean_answer(f"{opening}HIDDEN is 42.{closing}{LOOK}") == Cleaned(LOOK)
    assert clean_answer(f"{opening}\nHIDDEN is 42.\n{closing}\n\n{LOOK}") == Cleaned(LOOK)
    critique = critique_of(f"{opening}HIDDEN is", "length")
    assert (critique.text, critique.status, critique.reason) == ("", "failed", "length")
    if "final" in closing.lower() or "Here is" in closing:
        # Words of prose, which begin thoughts at the start of an answer alone.
        return
    for before in ("Sure. ", "Sure.\n", "Sure, "):
        assert clean_answer(f"{before}{opening}HIDDEN is", True) == Cleaned("", "length")
        assert clean_answer(f"{before}{opening}HIDDEN is") == Cleaned("", "unclear_thoughts")


@pytest.mark.parametrize("closing", OPENED_BY_TEMPLATE)
def test_thoughts_that_the_prompt_has_opened_are_removed(closing) -> None:
    assert clean_answer(f"HIDDEN is 42.{closing}{LOOK}") == Cleaned(LOOK)
    assert clean_answer(f"HIDDEN is 42.\n{closing}\n\n{LOOK}") == Cleaned(LOOK)


@pytest.mark.parametrize("text", CUT)
def test_an_answer_that_is_cut_within_a_thought_is_refused_as_cut(text) -> None:
    critique = critique_of(text, "length")
    assert (critique.text, critique.status, critique.reason) == ("", "failed", "length")


@pytest.mark.parametrize("text", NESTED)
def test_thoughts_in_thoughts_and_between_texts_leave_nothing(text) -> None:
    cleaned = clean_answer(text)
    assert "HIDDEN" not in cleaned.text
    assert cleaned.text or cleaned.reason == "unclear_thoughts"


@pytest.mark.parametrize("text", ORDINARY)
def test_a_critique_that_speaks_of_marks_comes_out_as_it_is(text) -> None:
    assert clean_answer(text) == Cleaned(text)
    assert critique_of(text).text == text


@pytest.mark.parametrize("text", AMBIGUOUS)
def test_an_answer_that_needs_a_guess_is_refused_with_a_reason_of_its_own(text) -> None:
    critique = critique_of(text)
    assert (critique.text, critique.status, critique.reason) == ("", "failed", "unclear_thoughts")


def test_the_corpus_is_as_large_as_it_says() -> None:
    assert len(PAIRS) >= 60
    assert len(ORDINARY) >= 60
    assert len(AMBIGUOUS) < 10


@given(CRITIQUE)
def test_property_a_text_without_marks_comes_out_as_it_is(text: str) -> None:
    text = "Line " + text
    assert clean_answer(text) == Cleaned(text.strip())


ANYWHERE = [pair for pair in PAIRS if "Here" not in pair[0] and "final" not in pair[1]]
"""Pairs that are marks in any place. Words of prose are marks at the start of an answer alone."""


@given(st.lists(st.sampled_from((*ANYWHERE, *ORDINARY)), max_size=3), st.booleans())
def test_property_thoughts_before_critiques_never_reach_one(parts, is_cut: bool) -> None:
    texts = [part if isinstance(part, str) else "HIDDEN.".join(part) for part in parts]
    cleaned = clean_answer("\n\n".join(texts), is_cut)
    assert "HIDDEN" not in cleaned.text
    assert clean_answer(cleaned.text, is_cut).text == cleaned.text


# ---- models in this process ----------------------------------------------------------------------


def chat_of(kind: Kind, folder: Path, **settings: Any) -> LocalChat:
    return LocalChat(str(save_policy(kind, folder)), temperature=0.0, **settings)


def test_a_local_model_whose_marks_are_special_tokens_gives_its_answer_alone(tmp_path) -> None:
    """It says "The result is 5 <think> 9 </think>", and rewards read "The result is 5 9"."""
    chat = chat_of(UNPARSED, tmp_path)
    [reply] = chat.answer([QUESTION])
    assert (reply.text, reply.status, reply.reason) == ("The result is 5", "ok", "")
    assert reply.usage.completion_tokens == 8
    # Cut behind "<think>" and behind "9".
    for tokens in (5, 6):
        chat = replace(chat, max_tokens=tokens)
        [reply] = chat.answer([QUESTION])
        assert (reply.text, reply.reason) == ("The result is 5", "length")


def test_a_local_model_whose_template_opens_the_thoughts_is_cut_while_it_thinks(tmp_path) -> None:
    """It goes on with "9 </think>", of which cut after "9" no mark is left."""
    chat = chat_of(replace(UNPARSED, opens_thoughts=True), tmp_path, max_tokens=1)
    [reply] = chat.answer([QUESTION])
    assert (reply.text, reply.status, reply.reason) == ("", "failed", "length")
    chat = replace(chat, max_tokens=8)
    [reply] = chat.answer([QUESTION])
    assert (reply.text, reply.status, reply.reason) == ("", "failed", "empty")


def test_a_prompt_opens_thoughts_at_its_end_only() -> None:
    assert opened_mark("<|im_start|>assistant\n<think>\n") == "<think>"
    assert opened_mark("<think>\n\n</think>\n\n") == ""
    assert opened_mark("What does <think> mean? assistant:") == ""
    assert opened_mark("assistant<|channel|>analysis<|message|>").endswith("<|message|>")
