"""Asynchronous work for synchronous callers, which may sit inside a running loop themselves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any

CLOSING_SECONDS = 5.0
"""Longest wait for a loop to close once its work is done. It takes milliseconds."""


def start_in_thread(coroutine: Coroutine[Any, Any, None], seconds: float) -> Callable[[], None]:
    """Start a coroutine in a new event loop and thread.

    Args:
        coroutine: the work. It returns its results through objects that it was given.
        seconds: the longest time for it, from now on.

    Returns:
        A function that waits for its end. It raises TimeoutError if the work did not end in time,
        whose thread is left behind then; and KeyboardInterrupt at Ctrl-C, which cancels the work.
    """
    end = time.monotonic() + seconds
    # A loop that lives for one call leaves nothing for a process forked between two calls.
    outcome: Future[None] = Future()
    loop = asyncio.new_event_loop()

    async def settle() -> None:
        try:
            await coroutine
        except Exception as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    def work() -> None:
        with suppress(asyncio.CancelledError), asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(settle())

    def cancel_tasks() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()

    # A daemon, so that a coroutine that blocks its loop does not keep the process alive.
    thread = Thread(target=work, name="critique_rl.loop", daemon=True)
    thread.start()

    def wait() -> None:
        seconds_left = max(0.0, end - time.monotonic())
        try:
            # The bound is on this thread: a timeout inside the loop would not run while it is
            # blocked.
            outcome.result(seconds_left)
        except KeyboardInterrupt:
            # The loop may have closed between the wait and this line.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(cancel_tasks)
            raise
        # The loop closes its connections after the outcome is set. A daemon thread that still does
        # so while the interpreter ends can abort the process.
        thread.join(CLOSING_SECONDS)

    return wait
