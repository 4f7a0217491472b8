"""Calls of an endpoint: tries, waits, deadlines. asyncio is used here, in `loop` and in `limits`,
and nowhere else.

    a step     all conversations of one `answer`, together within `step_deadline`
    a call     one conversation, from its slot on within `deadline`: up to `attempts` tries, and once more where the answer was cut
    a try      one request within `attempt_deadline`, reserved in the ledger before and settled after

Every conversation ends with a reply: an answer, or why there is none. What may heal (the network,
408, 409, 425, 429, 5xx, a body that is no answer) is tried again after the wait the server asks
for, else after a random and growing one. What cannot heal fails at once with the server's words,
also where it says so in a body with status 200. After a 401, 403 or 404, a redirect (none is
followed) or a used-up quota, which all calls would meet, the rest of the step is not sent; nor
after three other refusals where nothing was answered (a 400 may be about one prompt). A body is
read up to `MOST_BYTES`.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from critique_rl.critic.api.cache import open_cache
from critique_rl.critic.api.client import _client
from critique_rl.critic.api.conversation import _put
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.api.limits import open_limits
from critique_rl.critic.api.loop import in_thread
from critique_rl.critic.api.step import Call, Step
from critique_rl.critic.contract import CriticFailed, Reply
from critique_rl.types import Message

CLOSING = 0.1
"""Share of `step_deadline`, but a second at most, that is left for connections to close; where they
do not, their thread is left behind.
"""


def answer_all(
    endpoint: Endpoint, folder: Path, conversations: Sequence[list[Message]]
) -> list[Reply]:
    """One reply to each conversation, in order, within `step_deadline`. `folder` holds what ranks
    and restarts share.

    CriticFailed where its files cannot be used.
    """
    replies = [Reply("", "failed", "step deadline")] * len(conversations)
    try:
        in_thread(_answer_all(endpoint, folder, conversations, replies), endpoint.step_deadline)
    except TimeoutError:
        pass  # the replies say so
    except sqlite3.Error as error:
        raise CriticFailed(f"the critic's files in {folder} cannot be used: {error}") from error
    return list(replies)


async def _answer_all(
    endpoint: Endpoint, folder: Path, conversations: Sequence[list[Message]], replies: list[Reply]
) -> None:
    end, seen = (
        asyncio.get_running_loop().time()
        + endpoint.step_deadline
        - min(1.0, CLOSING * endpoint.step_deadline),
        Counter(),
    )
    cache = (
        folder / "cache.sqlite"
        if endpoint.cache is True
        else Path(endpoint.cache).expanduser()
        if endpoint.cache
        else None
    )
    with ExitStack() as files:
        ledger, limits = (
            files.enter_context(open_ledger(folder / "ledger.sqlite", endpoint.caps)),
            files.enter_context(open_limits(folder, endpoint)),
        )
        kept = files.enter_context(open_cache(cache)) if cache else None
        async with _client(endpoint) as client, asyncio.TaskGroup() as tasks:
            step = Step(
                endpoint, client, kept, ledger, limits, asyncio.Semaphore(endpoint.concurrency), end
            )
            for i, messages in enumerate(conversations):
                text = json.dumps(messages)
                tasks.create_task(_put(replies, i, Call(step, messages, seen[text])))
                seen[text] += 1
