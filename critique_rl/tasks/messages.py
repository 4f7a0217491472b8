"""Messages of prompts and completions: their text, the question that is asked, and which prompts a
critic can be given. No other module reads the content of a message.

A prompt is a text, or a conversation whose messages hold a text or a list of text parts. Messages
may follow the question: a tool's result, or the start of an answer. They stay where they are when
the question is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def content_text(content: Any) -> str:
    """The text of a message's content: a text, or the text parts of a list, joined."""
    if content is None:
        return ""
    if isinstance(content, list | tuple):
        return "".join(_part_text(part) for part in content)
    return str(content)


def _part_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and part.get("type", "text") == "text":
        return content_text(part.get("text"))
    return ""


def text_of(completion: Any) -> str:
    """The text of a completion in either of TRL's formats: a string, or a list of messages.

    A tool's result is not the policy's text, so it is left out.
    """
    if isinstance(completion, str):
        return completion
    contents = []
    for message in completion:
        if message.get("role") != "tool":
            contents.append(content_text(message.get("content")))
    return "".join(contents)


# ---- the question of a prompt --------------------------------------------------------------------


def question_of(prompt: Any) -> str:
    """The question: a plain prompt itself, or the last user message of a conversation; "" if there
    is none.
    """
    if isinstance(prompt, str):
        return prompt
    place = _question_place(prompt)
    if place is None:
        return ""
    return content_text(prompt[place].get("content"))


def replace_question(prompt: Any, rewrite: Callable[[str], str]) -> Any:
    """`prompt` with `rewrite(question)` in the place of its question (`question_of`). All other
    messages stay.

    Raises:
        ValueError: a conversation without a user message.
    """
    text = rewrite(question_of(prompt))
    if isinstance(prompt, str):
        return text
    place = _question_place(prompt)
    if place is None:
        raise ValueError(f"prompt: {prompt_fault(prompt)}")
    message = prompt[place]
    content: Any = text
    # A chat template may read parts only.
    if isinstance(message.get("content"), list | tuple):
        content = [{"type": "text", "text": text}]
    return [*prompt[:place], {**message, "content": content}, *prompt[place + 1 :]]


def conversation_text(prompt: Any, question: str) -> str:
    """What a critic reads as the question.

    Where nothing but the question was said, it is `question`. A conversation with other turns is
    written down turn by turn. System messages are left out.

    Args:
        prompt: the prompt of the attempt, None if unknown.
        question: its question.
    """
    if prompt is None or isinstance(prompt, str):
        return question
    turns = [message for message in prompt if message.get("role") != "system"]
    if len(turns) < 2:
        return question
    lines = []
    for message in turns:
        text = content_text(message.get("content"))
        lines.append(f"{message.get('role')}: {text}")
        for call in message.get("tool_calls") or ():
            function = call.get("function", call)
            lines.append(f"{function.get('name')}({function.get('arguments')})")
    return "\n".join(lines)


def ends_with_assistant(prompt: Any) -> bool:
    """Whether a conversation ends with the start of an answer."""
    return not isinstance(prompt, str) and prompt[-1].get("role") == "assistant"


def has_parts(prompt: Any) -> bool:
    """Whether a message of a conversation holds a list of parts."""
    if isinstance(prompt, str):
        return False
    return any(isinstance(message.get("content"), list | tuple) for message in prompt)


def _question_place(prompt: Any) -> int | None:
    """The place of the last user message."""
    for place in reversed(range(len(prompt))):
        if prompt[place].get("role") == "user":
            return place
    return None


# ---- prompts that cannot be critiqued ------------------------------------------------------------


def prompt_fault(prompt: Any) -> str:
    """Why nobody can critique answers to this prompt, as got and expected; "" if it can be done."""
    if isinstance(prompt, str):
        return ""
    if not isinstance(prompt, list) or not prompt:
        return f"got {str(prompt)[:60]!r}, expected a text or a list of messages"
    for message in prompt:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return f"got the message {str(message)[:60]!r}, expected a role and a content"
        fault = _content_fault(message.get("content"))
        if fault:
            return fault
    if _question_place(prompt) is None:
        roles = ", ".join(message["role"] for message in prompt)
        return f"got messages of {roles}, expected one of the user's, which can be asked again"
    return ""


def _content_fault(content: Any) -> str:
    if content is None or isinstance(content, str):
        return ""
    if not isinstance(content, list):
        return f"got the content {str(content)[:60]!r}, expected a text or a list of text parts"
    for part in content:
        kind = None
        if isinstance(part, Mapping):
            kind = part.get("type")
        if kind != "text":
            shown = kind or str(part)[:60]
            return f"got a part {shown!r}, expected parts of type 'text': a critic reads text only"
    return ""
