"""Thoughts are no critique: whatever marks them, and whoever wrote them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bigram_policies import UNPARSED, Kind, save_policy
from degenerate_texts import THOUGHT_MARKS

from critique_rl.critic.chat import LocalChat
from critique_rl.critic.contract import without_thinking
from critique_rl.critic.thoughts import opened_mark

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
        ("Sure. <think>It is 42", "Sure."),
        ("Sure. <|begin_of_thought|> It is 42", "Sure."),
        ("Close the <think> tag, then <b>bold</b>.", "Close the <think> tag, then <b>bold</b>."),
        # Two halves of a mark meet where the thought was.
        ("<thi<think>x</think>nk>42", ""),
    ],
)
def test_what_is_an_answer_beside_thoughts(text, left) -> None:
    assert without_thinking(text) == left


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
