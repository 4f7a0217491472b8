"""How calls fail: which failures may pass, which concern every call, and the reasons they count as.

    transient     another request may succeed: the network, 408, 409, 425, 429, 5xx, a bad response
    permanent     any other refusal; it fails at once, with the server's words
    for all       a permanent one that every call would meet: the key, the model, the address, quota

Errors are read by their attributes `status_code`, `code` and `type`, which the SDK's errors and
`BadResponse` share: some servers send an error with status 200.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Mapping
from typing import TYPE_CHECKING

from critique_rl.config.secrets import without_key_at_end
from critique_rl.config.terminal import without_controls
from critique_rl.critic.api.response import BadResponse, OtherModel, error_words, words_of_text

if TYPE_CHECKING:
    from openai import APIStatusError

TRANSIENT_STATUSES = (408, 409, 425, 429)
"""Refusals worth another request, besides every 5xx."""
FOR_ALL_STATUSES = (301, 302, 303, 307, 308, 401, 403, 404)
"""Refusals that every call would meet: redirects, of the key, of the model or address."""
NO_CREDIT = 402
"""OpenRouter's status for an empty account, and with a Retry-After for too many calls at a time."""
NO_QUOTA = "insufficient_quota"
"""Code of a 429 that means that the account is used up, not that calls come too fast."""
TOO_LONG = "prompt_too_long"
"""Reason of a prompt that exceeds the context of the server's model."""
TOO_LONG_STATUSES = (400, 413, 422)
TOO_LONG_WORDS = re.compile(
    r"context[_ ]length|context[_ ](window|size)|maximum context|max_model_len"
    r"|(prompt|input|request|tokens?)\b.{0,40}\b(too long|too large|exceeds?)",
    re.IGNORECASE | re.DOTALL,
)
"""As vLLM, llama.cpp, SGLang, OpenAI and Anthropic refuse such a prompt; no code is shared by all.
"""
FILTERED = re.compile(r"content_filter|content management policy|ContentPolicyViolation")
"""As Azure refuses a prompt that its filter has read, and LiteLLM, which drops the code."""
UNSUPPORTED_STATUSES = (400, 422)
UNSUPPORTED_WORDS = re.compile(
    r"(un|not |n't )support|unrecogni[sz]ed|unexpected|deprecated|not (permitted|allowed)"
    r"|at the same time",
    re.IGNORECASE,
)
"""As OpenAI, Azure, Anthropic and servers with strict schemas refuse a setting."""
SETTINGS = re.compile(r"\b(max_completion_tokens|max_tokens|temperature|top_p|seed)\b")
"""Settings that the client sends by itself, as servers name them."""
SETTING_HINTS = {
    "max_tokens": "set max_tokens: null and extra_body: {max_completion_tokens: ...}",
    "max_completion_tokens": "set max_tokens, and no max_completion_tokens in extra_body",
    "temperature": "set temperature: null",
    "top_p": "set top_p: null",
    "seed": "set seed: null",
}
"""Setting that a server does not take -> what to write in the pipeline."""
MAX_WORDS = 160
"""Characters of a server's own words that a reason quotes."""
MAX_SPACES = 20
"""Characters that are read for each of them: a page of HTML begins with much space."""


class NotSent(Exception):
    """A request was not sent; the message is the reason."""


def is_transient(error: BaseException) -> bool:
    """Whether another request may succeed."""
    # Imported here, as in each function of this module that names openai's classes: it takes about
    # a second, and the settings of an endpoint are read without it.
    from httpx2 import RequestError
    from openai import APIConnectionError

    status = getattr(error, "status_code", None)
    if status == NO_CREDIT:
        return _names_a_wait(error)
    if status is not None:
        # A used-up account answers 429 like a busy server, and no wait fills it.
        return (status in TRANSIENT_STATUSES or status >= 500) and not _is_used_up(error)
    return isinstance(error, APIConnectionError | RequestError | TimeoutError | BadResponse)


def concerns_all_calls(error: BaseException | None) -> bool:
    """Whether every other call would meet the same refusal."""
    status = getattr(error, "status_code", None)
    if status == NO_CREDIT:
        return not _names_a_wait(error)
    if _is_flagged_prompt(error):
        return False
    return status in FOR_ALL_STATUSES or _is_used_up(error)


def _names_a_wait(error: BaseException | None) -> bool:
    """Whether a refusal tells when to come back."""
    response = getattr(error, "response", None)
    if response is None:
        return False
    return "retry-after" in response.headers


def _is_flagged_prompt(error: BaseException | None) -> bool:
    """Whether a refusal is a filter's, about one prompt: OpenRouter answers 403 to such a one."""
    body = getattr(error, "body", None)
    if not isinstance(body, Mapping):
        return False
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        return False
    return "flagged_input" in metadata


def _is_used_up(error: BaseException | None) -> bool:
    return NO_QUOTA in (getattr(error, "code", None), getattr(error, "type", None))


def is_filtered(error: BaseException) -> bool:
    """Whether a refusal is of a filter that has read the prompt."""
    code = getattr(error, "code", None)
    return FILTERED.search(f"{code} {error}") is not None


def is_endpoint_alive(error: Exception | None, step_over: bool) -> bool | None:
    """Read the outcome of a call as a sign of the endpoint's health, for the circuit breaker.

    Args:
        error: how the call failed; None if it did not.
        step_over: the step's time is used up.

    Returns:
        True if the endpoint answered, False if it is down, None if the outcome tells nothing: not
        sent, asked to wait, or cut off by the end of the step.
    """
    status = getattr(error, "status_code", None)
    if status is not None:
        return None if status in TRANSIENT_STATUSES else status < 500
    if error is None or isinstance(error, OtherModel):
        return True
    if step_over or not is_transient(error):
        return None
    return False


def failure_reason(error: Exception, key: str = "", step_over: bool = False) -> str:
    """A short reason for a failure, in the server's words if it sent some.

    Args:
        error: the failure.
        key: the API key, which the server's words may quote. It is taken out.
        step_over: the step's time is used up, so a timeout is the step's.
    """
    from httpx2 import ConnectTimeout, RequestError
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error.__cause__, ConnectTimeout):
        # Nothing took the connection: the address is wrong, or a firewall drops what is sent.
        return "connection"
    match error:
        case TimeoutError() | APITimeoutError():
            if step_over:
                return "step deadline"
            return "timeout"
        case APIStatusError():
            words = _server_words(error, key)
            return f"{_refusal_kind(error, words)}: {_shorten(words, key)}"
        case APIConnectionError() | RequestError():
            return "connection"
        case BadResponse():
            return _shorten(error, key)
        case NotSent():
            return str(error)
        case sqlite3.Error():
            return f"storage: {error}"
    return f"error: {type(error).__name__}"


def _refusal_kind(error: APIStatusError, words: str) -> str:
    """What a refusal is about, as far as its status and its words tell."""
    if is_too_long(error, words):
        return TOO_LONG
    hint = setting_hint(error, words)
    if hint:
        return f"http {error.status_code}: {hint}"
    return f"http {error.status_code}"


def is_too_long(error: APIStatusError, words: str) -> bool:
    """Whether a refusal, in the server's words, is about a prompt over the model's context."""
    if error.status_code not in TOO_LONG_STATUSES:
        return False
    return TOO_LONG_WORDS.search(f"{error.code} {words}") is not None


def setting_hint(error: APIStatusError, words: str) -> str:
    """What to write in the pipeline where a server refuses one of the client's settings.

    Args:
        error: the refusal.
        words: the server's words.

    Returns:
        The hint; "" where the refusal is about something else.
    """
    if error.status_code not in UNSUPPORTED_STATUSES:
        return ""
    if not UNSUPPORTED_WORDS.search(words):
        return ""
    # The words may name a second one: "'max_tokens' is not supported. Use 'max_completion_tokens'".
    named = SETTINGS.search(f"{error.param} {words}")
    if named is None:
        return ""
    return SETTING_HINTS[named.group()]


def _server_words(error: APIStatusError, key: str) -> str:
    redirect = error.response.next_request
    if redirect is not None:
        # Without its user, query and fragment, which may hold a token.
        plain = redirect.url.copy_with(userinfo=b"", query=None, fragment=None)
        address = str(plain).removesuffix("/completions").removesuffix("/chat")
        return f"it redirects, which is not followed; set base_url to {address}"
    words = error_words(error.body)
    if isinstance(error.body, str):
        # Perhaps not sent to its end, which may lie within a key.
        words = without_key_at_end(words_of_text(error.body), key)
    words = words.strip() or "it gave no reason"
    if _is_used_up(error):
        return f"{NO_QUOTA}: {words}"
    return words


def _shorten(words: object, key: str) -> str:
    # The key goes first: a cut through the key would leave a part of it.
    text = without_controls(without_key_at_end(str(words), key))
    return " ".join(text[: MAX_SPACES * MAX_WORDS].split())[:MAX_WORDS]
