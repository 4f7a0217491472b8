"""One response of a chat server, which may hold anything, read as text and token counts."""

from __future__ import annotations

import json
import re
from typing import Any

from critique_rl.critic.contract import without_thinking
from critique_rl.types import Usage

CUT_REASONS = ("length", "max_tokens", "model_length", "max_output_tokens")
"""Finish reasons of an answer that met its bound, in lower case: OpenAI's, and those that servers
of other kinds pass on (Gemini's MAX_TOKENS, Anthropic's, Mistral's, the Responses interface's).
"""
FILTER_REASONS = (
    "content_filter",
    "safety",
    "recitation",
    "blocklist",
    "prohibited_content",
    "spii",
    "refusal",
)
"""Finish reasons of an answer that a filter ended, in lower case. Its text may stop anywhere."""


class BadResponse(ValueError):
    """A response without a usable answer.

    Args:
        message: what is wrong with it.
        usage: the tokens it reported, which were billed; None if it reported none.
        code: error code in its body. Some servers send errors with status 200.

    Attributes:
        status_code: the code as an HTTP status from 400 to 599, None if it is none.
    """

    def __init__(self, message: str, usage: Usage | None = None, code: object = None) -> None:
        super().__init__(f"bad response: {message}")
        self.usage = usage
        self.code = code
        self.status_code: int | None = None
        if re.fullmatch(r"[45]\d\d", str(code)):
            self.status_code = int(str(code))


def parse_response(body: bytes) -> tuple[str, str, Usage | None]:
    """Parse the body of a chat completion.

    Args:
        body: the response as it came.

    Returns:
        The text without thoughts, the finish reason, and the reported usage (None without one).
        The reason is "length" for `CUT_REASONS`, "content_filter" for `FILTER_REASONS`, and else
        the server's.

    Raises:
        BadResponse: it holds no answer.
    """
    try:
        # "-sig" drops a byte order mark, at which json stops.
        answer = json.loads(body.decode("utf-8-sig", errors="replace"))
    except ValueError as error:
        raise BadResponse("no JSON") from error
    if not isinstance(answer, dict):
        answer = {}
    usage = parse_usage(answer.get("usage"))
    choices = answer.get("choices")
    if not choices and answer.get("error"):
        raise _error_in_body(answer["error"], usage)
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadResponse("no choices", usage)
    choice = choices[0]
    message = choice.get("message")
    if not isinstance(message, dict):
        raise BadResponse("no message", usage)
    text = _join_parts(message.get("content"))
    if text is not None and not isinstance(text, str):
        raise BadResponse(f"content is a {type(text).__name__}", usage)
    if text and usage is not None and not usage.completion_tokens:
        # Some servers report zeros, and no text takes 0 tokens.
        usage = None
    return without_thinking(text or ""), _finish_reason(choice.get("finish_reason")), usage


def _finish_reason(reason: Any) -> str:
    """A server's finish reason in OpenAI's word, where it has one."""
    # Proxies spell an enumeration's member with its class: "FinishReason.MAX_TOKENS".
    word = str(reason).rpartition(".")[2].strip().lower()
    if word in CUT_REASONS:
        return "length"
    if word in FILTER_REASONS:
        return "content_filter"
    return str(reason)


def _error_in_body(error: Any, usage: Usage | None) -> BadResponse:
    """An error that came with status 200, in the server's words."""
    fields = error if isinstance(error, dict) else {"message": error}
    words = [str(fields[name]) for name in ("code", "message") if fields.get(name)]
    return BadResponse(": ".join(words) or "an error", usage, fields.get("code"))


def _join_parts(content: Any) -> Any:
    """The text parts of a content in parts, joined; any other content unchanged."""
    if not isinstance(content, list):
        return content
    if not all(isinstance(part, dict) for part in content):
        return content
    texts = []
    for part in content:
        # Mistral's reasoning models send their thoughts as parts of another type.
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
    return "".join(texts)


def parse_usage(counts: Any) -> Usage | None:
    """Token counts as the server bills them, without a price; None if they cannot be read.

    A total above prompt + completion holds thoughts that some servers leave out of the completion.
    They are billed as completion tokens, so the difference counts as such.
    """
    if not isinstance(counts, dict):
        return None
    prompt = _token_count(counts.get("prompt_tokens"))
    completion = _token_count(counts.get("completion_tokens"))
    if prompt is None or completion is None:
        return None
    total = _token_count(counts.get("total_tokens"))
    if total is not None:
        completion = max(completion, total - prompt)
    details = counts.get("prompt_tokens_details")
    cached = _token_count(details.get("cached_tokens")) if isinstance(details, dict) else 0
    # A server that reports more cached tokens than prompt tokens would get a negative price.
    return Usage(prompt, completion, cached_prompt_tokens=min(cached or 0, prompt))


def _token_count(value: Any) -> int | None:
    # JSON's true is an int in Python.
    if isinstance(value, bool):
        return None
    if not isinstance(value, int):
        return None
    if value < 0:
        return None
    return value
