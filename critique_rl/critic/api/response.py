"""One answer of a chat model, and how it is read from what a server sent, which may be anything."""

from __future__ import annotations

import json
import re
from typing import Any

from critique_rl.critic.contract import without_thinking
from critique_rl.types import Usage


class BadResponse(ValueError):
    """A server's answer that is none. Its usage, where it could be read, was spent. `code` and
    `status_code` are of an error sent with status 200.
    """

    def __init__(self, message: str, usage: Usage | None = None, code: object = None):
        super().__init__(f"bad response: {message}")
        self.usage, self.code = usage, code
        self.status_code = int(str(code)) if re.fullmatch(r"[45]\d\d", str(code)) else None


def read(body: bytes) -> tuple[str, str, Usage | None]:
    """(text without thoughts, finish reason, usage or None where the server reports none) of a
    server's answer; BadResponse for what is none.

    Text that took no tokens is not counted text: some servers report zeros.
    """
    try:
        answer = json.loads(body.decode("utf-8-sig", errors="replace"))
    except ValueError as error:
        raise BadResponse("no JSON") from error
    usage = read_usage(answer.get("usage")) if isinstance(answer, dict) else None
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not choices and isinstance(answer, dict) and answer.get("error"):
        raise _refusal(answer["error"], usage)
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadResponse("no choices", usage)
    message = choices[0].get("message")
    if not isinstance(message, dict):
        raise BadResponse("no message", usage)
    text = _joined(message.get("content"))
    if text is not None and not isinstance(text, str):
        raise BadResponse(f"content is a {type(text).__name__}", usage)
    usage = None if text and usage is not None and not usage.completion_tokens else usage
    return without_thinking(text or ""), str(choices[0].get("finish_reason")), usage


def _refusal(error: Any, usage: Usage | None) -> BadResponse:
    """An error in a body with status 200, in the server's words."""
    said = error if isinstance(error, dict) else {"message": error}
    return BadResponse(
        ": ".join(str(said[name]) for name in ("code", "message") if said.get(name)) or "an error",
        usage,
        said.get("code"),
    )


def _joined(content: Any) -> Any:
    """The text of a content in parts, of which some are thoughts; any other content as it is."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    return "".join(
        part["text"]
        for part in content
        if part.get("type") == "text" and isinstance(part.get("text"), str)
    )


def read_usage(counts: Any) -> Usage | None:
    """Tokens as the server counted them, without a price; None where it did not count."""
    if not isinstance(counts, dict):
        return None
    details = counts.get("prompt_tokens_details")
    found = (
        counts.get("prompt_tokens"),
        counts.get("completion_tokens"),
        details.get("cached_tokens") if isinstance(details, dict) else 0,
    )
    prompt, completion, cached = (
        n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else None for n in found
    )
    if prompt is None or completion is None:
        return None
    return Usage(prompt, completion, cached_prompt_tokens=min(cached or 0, prompt))
