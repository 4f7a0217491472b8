"""One answer of a chat model, and how it is read from what a server sent, which may be anything."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from critique_rl.types import Usage

OPENS, CLOSES = r"(?:<think(?:ing)?\s*>|\[THINK\])", r"(?:</think(?:ing)?\s*>|\[/THINK\])"
"""How models mark their thoughts: Qwen and DeepSeek, some others, Mistral."""
NO_TEXT = ("empty", "length")
"""Reasons of answers that came, and hold nothing usable: the model's doing, not the server's."""


@dataclass(frozen=True)
class Reply:
    """One answer, or the reason why there is none. An answer cut at max_tokens is "ok" with the reason "length" where its text is usable."""

    text: str
    status: Literal["ok", "failed", "skipped"] = "ok"
    """failed: asked for and not got; skipped: never sent."""
    reason: str = ""
    """failed: "timeout", "step deadline", "connection", "empty", "length", "bad response: ...", "http 401: <the server's words>", "storage: ...".
    skipped: "budget", "rate limit", "circuit open", "step deadline", or the refusal after which nothing more was sent, as "not sent after http 401: ..."."""
    usage: Usage = field(default_factory=Usage)
    """Of all tries that came to an answer, as the server reported it; at its most (`estimated`) where it reported none. A try that ended without an answer
    counts in the ledger alone."""
    cached: bool = False
    """True where it was answered before, and paid for then."""


class CriticFailed(RuntimeError):
    """A critic that may not fail did (`on_failure: stop`). `replies` are what came until then, one a conversation."""

    def __init__(self, message: str, replies: Sequence[Reply] = ()):
        super().__init__(message)
        self.replies = list(replies)


class BadResponse(ValueError):
    """A server's answer that is none. Its usage, where it could be read, was spent. `code` and `status_code` are of an error sent with status 200."""

    def __init__(self, message: str, usage: Usage | None = None, code: object = None):
        super().__init__(f"bad response: {message}")
        self.usage, self.code = usage, code
        self.status_code = int(str(code)) if re.fullmatch(r"[45]\d\d", str(code)) else None


def without_thinking(text: str) -> str:
    """The text after a reasoning model's thoughts; "" where it was cut while thinking. Some templates open the thoughts in the prompt.

    Thoughts open at the start of a line; a mark that is only spoken of within one stays, and costs nothing of the text after it.
    """
    text = re.sub(rf"(?is){OPENS}.*?{CLOSES}", "", text)
    text = re.split(f"(?i){CLOSES}", text)[-1]
    return re.sub(rf"(?ism)^\s*{OPENS}.*", "", text).strip()


def read(body: bytes) -> tuple[str, str, Usage | None]:
    """(text without thoughts, finish reason, usage or None where the server reports none) of a server's answer; BadResponse for what is none.

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
    return BadResponse(": ".join(str(said[name]) for name in ("code", "message") if said.get(name)) or "an error", usage, said.get("code"))


def _joined(content: Any) -> Any:
    """The text of a content in parts, of which some are thoughts; any other content as it is."""
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        return content
    return "".join(part["text"] for part in content if part.get("type") == "text" and isinstance(part.get("text"), str))


def read_usage(counts: Any) -> Usage | None:
    """Tokens as the server counted them, without a price; None where it did not count."""
    if not isinstance(counts, dict):
        return None
    details = counts.get("prompt_tokens_details")
    found = (counts.get("prompt_tokens"), counts.get("completion_tokens"), details.get("cached_tokens") if isinstance(details, dict) else 0)
    prompt, completion, cached = (n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else None for n in found)
    if prompt is None or completion is None:
        return None
    return Usage(prompt, completion, cached_prompt_tokens=min(cached or 0, prompt))
