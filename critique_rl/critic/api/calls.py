"""All calls of one step: from conversations to replies, concurrently, within `step_deadline`.

    a step      all conversations of one `begin_all`
    a call      one conversation: up to `attempts` requests, and once more if its answer was cut
    a request   one HTTP request, reserved in the ledger before and settled after

Every conversation ends with a reply: an answer, or the reason why there is none. Failures that may
pass are retried (`retry`). Others fail at once with the server's words. After a refusal that all
calls would meet, the rest of the step is not sent (`step`).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from critique_rl.critic.api.cache import open_cache
from critique_rl.critic.api.client import open_client
from critique_rl.critic.api.conversation import answer_call
from critique_rl.critic.api.deadlines import CallDeadline, StepDeadline
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.api.limits import open_limits
from critique_rl.critic.api.loop import start_in_thread
from critique_rl.critic.api.scoring.question import Question, spelled
from critique_rl.critic.api.step import Call, Step
from critique_rl.critic.contract import CriticFailed, Reply


def begin_all(
    endpoint: Endpoint, folder: Path, conversations: Sequence[Question]
) -> Callable[[], list[Reply]]:
    """Send conversations, which are answered within `step_deadline` from now on.

    Args:
        endpoint: the server and its limits.
        folder: holds what ranks and restarts share: the ledger, the limits and the cache.
        conversations: equal ones get samples of their own. Texts to score take their place.

    Returns:
        A function that waits for one reply per conversation, in order. It raises CriticFailed if a
        file of `folder` cannot be used.
    """
    # The calls fill this list in place, so whatever is ready at the deadline is returned.
    replies = [Reply("", "failed", "step deadline")] * len(conversations)
    work = _answer_step(endpoint, folder, conversations, replies)
    wait = start_in_thread(work, endpoint.step_deadline)

    def wait_for_replies() -> list[Reply]:
        """Raises CriticFailed if a file cannot be used."""
        try:
            wait()
        except TimeoutError:
            pass  # the replies say so
        except sqlite3.Error as error:
            raise CriticFailed(f"the critic's files in {folder} cannot be used: {error}") from error
        # A copy: a thread left behind may still write to the list.
        return list(replies)

    return wait_for_replies


async def _answer_step(
    endpoint: Endpoint, folder: Path, conversations: Sequence[Question], replies: list[Reply]
) -> None:
    deadline = StepDeadline(endpoint.step_deadline)
    cache_path = _cache_path(endpoint, folder)
    with ExitStack() as files:
        ledger = files.enter_context(open_ledger(folder / "ledger.sqlite", endpoint.caps))
        limits = files.enter_context(open_limits(folder, endpoint))
        cache = files.enter_context(open_cache(cache_path)) if cache_path else None
        async with open_client(endpoint) as client, asyncio.TaskGroup() as tasks:
            turns = asyncio.Semaphore(endpoint.concurrency)
            step = Step(endpoint, client, cache, ledger, limits, turns, deadline)
            samples: Counter[str] = Counter()
            for i, question in enumerate(conversations):
                text = spelled(question)
                call_deadline = CallDeadline(endpoint.deadline, deadline)
                call = Call(step, question, samples[text], call_deadline)
                samples[text] += 1
                tasks.create_task(_put_reply(replies, i, call))


def _cache_path(endpoint: Endpoint, folder: Path) -> Path | None:
    if endpoint.cache is True:
        return folder / "cache.sqlite"
    if endpoint.cache:
        return Path(endpoint.cache).expanduser()
    return None


async def _put_reply(replies: list[Reply], i: int, call: Call) -> None:
    replies[i] = await answer_call(call)
