"""The text of messages, the question of a prompt, and prompts that no critic can be given."""

from __future__ import annotations

import pytest

from critique_rl.tasks.messages import (
    conversation_text,
    prompt_fault,
    question_of,
    replace_question,
    text_of,
)


def message(role: str, content, **others) -> dict:
    return {"role": role, "content": content, **others}


def parts(*texts: str) -> list[dict]:
    return [{"type": "text", "text": text} for text in texts]


CALL = [{"type": "function", "function": {"name": "add", "arguments": {"a": 3}}}]
SYSTEM, ASKED = message("system", "Be brief."), message("user", "3+4")
PREFILL = message("assistant", "So x =")
TOOL_TURNS = [message("assistant", None, tool_calls=CALL), message("tool", "7", name="add")]
TURNS = [message("user", "1+1"), message("assistant", "2"), message("user", "and 3+4?")]


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("abc", "abc"),
        ([message("assistant", "abc")], "abc"),
        ([message("assistant", parts("ab", "c"))], "abc"),
        ([message("assistant", None, tool_calls=CALL)], ""),
        ([{"role": "assistant", "tool_calls": CALL}], ""),
        # what a tool says is no answer of the policy
        ([*TOOL_TURNS, message("assistant", "it is 7")], "it is 7"),
    ],
)
def test_the_text_of_a_completion(completion, text) -> None:
    assert text_of(completion) == text


@pytest.mark.parametrize(
    ("prompt", "question"),
    [
        ("3+4", "3+4"),
        ([SYSTEM, ASKED], "3+4"),
        ([SYSTEM, message("user", parts("3", "+4"))], "3+4"),
        ([ASKED, PREFILL], "3+4"),
        ([ASKED, *TOOL_TURNS], "3+4"),
        (TURNS, "and 3+4?"),
        ([SYSTEM], ""),
    ],
)
def test_the_question_of_a_prompt(prompt, question) -> None:
    assert question_of(prompt) == question


@pytest.mark.parametrize("before", [[], [SYSTEM], TURNS[:2], [SYSTEM, *TURNS[:2]]])
@pytest.mark.parametrize("after", [[], [PREFILL], TOOL_TURNS])
def test_a_question_is_asked_again_in_its_place_and_all_other_messages_stay(before, after) -> None:
    prompt = [*before, ASKED, *after]
    again = replace_question(prompt, lambda question: f"again: {question}")
    assert again == [*before, message("user", "again: 3+4"), *after]
    # the prompt that is trained on is another object, and as it was
    assert prompt == [*before, message("user", "3+4"), *after]


def test_a_question_in_parts_is_asked_again_in_a_part() -> None:
    prompt = [message("system", parts("Be brief.")), message("user", parts("3", "+4"), name="Ann")]
    again = replace_question(prompt, str.upper)
    assert again == [prompt[0], message("user", parts("3+4"), name="Ann")]


def test_nothing_to_ask_again_is_an_error() -> None:
    with pytest.raises(ValueError, match="got messages of system, expected one of the user's"):
        replace_question([SYSTEM], str)


def test_a_critic_reads_the_turns_around_a_question() -> None:
    assert conversation_text("3+4", "3+4") == "3+4"
    assert conversation_text(None, "3+4") == "3+4"
    assert conversation_text([SYSTEM, ASKED], "3+4") == "3+4"
    assert conversation_text(TURNS, "and 3+4?") == "user: 1+1\nassistant: 2\nuser: and 3+4?"
    assert conversation_text([SYSTEM, ASKED, *TOOL_TURNS], "3+4") == (
        "user: 3+4\nassistant: \nadd({'a': 3})\ntool: 7"
    )


@pytest.mark.parametrize(
    ("prompt", "fault"),
    [
        ("", ""),
        ([SYSTEM, *TURNS, PREFILL], ""),
        ([ASKED, *TOOL_TURNS], ""),
        ([message("user", parts("3+4"))], ""),
        ([message("user", [{"type": "image"}, *parts("What?")])], "got a part 'image', expected"),
        (
            [message("system", [{"type": "audio", "audio": "a.wav"}]), ASKED],
            "got a part 'audio', expected parts of type 'text': a critic reads text only",
        ),
        ([message("user", ["3+4"])], "got a part '3+4', expected"),
        ([message("user", {"text": "3+4"})], "got the content \"{'text': '3+4'}\", expected"),
        ([SYSTEM], "got messages of system, expected one of the user's"),
        ([PREFILL], "got messages of assistant, expected one of the user's"),
        ([], "got '[]', expected a text or a list of messages"),
        (None, "got 'None', expected"),
        (7, "got '7', expected"),
        ([{"content": "3+4"}], "expected a role and a content"),
        (["3+4"], "expected a role and a content"),
    ],
)
def test_what_a_critic_can_be_given(prompt, fault) -> None:
    found = prompt_fault(prompt)
    assert found.startswith(fault) or fault in found
    assert bool(found) == bool(fault)
