"""Asynchronous work for callers that are not, and that may sit in a running loop themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any


def in_thread(coroutine: Coroutine[Any, Any, None], seconds: float) -> None:
    """Wait for a coroutine that runs in a loop and thread of its own. TimeoutError after `seconds`,
    whatever it does.

    The loop lives for one call, so a process forked between two calls inherits nothing. Ctrl-C
    cancels what is running and goes on up.
    """
    outcome: Future[None] = Future()
    loop = asyncio.new_event_loop()

    async def settle() -> None:
        try:
            outcome.set_result(await coroutine)
        except Exception as error:
            outcome.set_exception(error)

    def work() -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(settle())

    Thread(target=work, name="critique_rl.loop", daemon=True).start()
    try:
        outcome.result(seconds)
    except KeyboardInterrupt:
        with suppress(RuntimeError):  # the loop may have just closed
            loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
        raise
