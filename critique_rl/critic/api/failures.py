"""How calls fail: which failures heal, how long to wait, what they say of the endpoint, and the
short reason each is counted under.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from critique_rl.critic.api.response import BadResponse

if TYPE_CHECKING:
    from openai import APIStatusError

HEALS = (408, 409, 425, 429)
"""Refusals worth another try, besides every 5xx."""
FOR_ALL = (301, 302, 303, 307, 308, 401, 403, 404)
"""Refusals that every other call would meet too: of the key, and of the model or address. A
redirect is one: texts go to `base_url` and nowhere else.
"""
NO_QUOTA = "insufficient_quota"
"""The code of a 429 that means that the account is used up, and not that calls come too fast."""
WORDS = 160
"""Characters of a server's own words that a reason may quote."""


class NotSent(Exception):
    """Why a request was not sent."""


def heals(error: BaseException) -> bool:
    """True for what another try may mend. False for a refused key or request, an account that is
    used up, and for what was not sent.
    """
    from httpx2 import RequestError
    from openai import APIConnectionError

    status = getattr(error, "status_code", None)
    if status is not None:
        return (status in HEALS or status >= 500) and not _used_up(error)
    return isinstance(error, APIConnectionError | RequestError | TimeoutError | BadResponse)


def for_all(error: BaseException | None) -> bool:
    """True for what every other call would meet too."""
    return getattr(error, "status_code", None) in FOR_ALL or _used_up(error)


def _used_up(error: BaseException | None) -> bool:
    return NO_QUOTA in (getattr(error, "code", None), getattr(error, "type", None))


def alive(error: Exception | None, over: bool) -> bool | None:
    """Whether the endpoint is up, by what became of a call; None where that says nothing: not sent,
    told to wait, or cut by the step's end (`over`).
    """
    status = getattr(error, "status_code", None)
    if status is not None:
        return None if status in HEALS else status < 500
    if error is None:
        return True
    return None if over or not heals(error) else False


def reason_of(error: Exception, key: str = "", over: bool = False) -> str:
    """A short reason that says what failed, in the server's words where it sent some, which may
    quote the key. `over`: the step's time is used up.
    """
    from httpx2 import RequestError
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    match error:
        case TimeoutError() | APITimeoutError():
            return "step deadline" if over else "timeout"
        case APIStatusError():
            return f"http {error.status_code}: {_short(_said(error), key)}"
        case APIConnectionError() | RequestError():
            return "connection"
        case BadResponse():
            return _short(error, key)
        case NotSent():
            return str(error)
        case sqlite3.Error():
            return f"storage: {error}"
    return f"error: {type(error).__name__}"


def _said(error: APIStatusError) -> str:
    there = error.response.next_request
    if there is not None:
        address = str(there.url).partition("?")[0].removesuffix("/chat/completions")
        return f"it redirects, which is not followed; set base_url to {address}"
    said = (
        error.body.get("message") if isinstance(error.body, dict) else error.body
    ) or error.message
    return f"{NO_QUOTA}: {said}" if _used_up(error) else str(said)


def _short(words: object, key: str) -> str:
    return " ".join(without_key(str(words), key).split())[:WORDS]


def without_key(text: str, key: str) -> str:
    """The text without the key. A key of under 8 characters stays: it is a placeholder such as
    "none" or "EMPTY", and a word that texts may use.
    """
    return text.replace(key, "***") if len(key) >= 8 else text
