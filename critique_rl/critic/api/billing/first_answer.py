"""The first request of a capped run goes alone, until its answer shows what the server bills.

Before that nothing is known but max_tokens, and 64 requests to a server that ignores it would all
be out before the first bill comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from critique_rl.critic.api.step import Call

POLL_SECONDS = 0.05
STEP_SHARE = 0.25
"""Part of a step that its calls wait for a first answer at most: a server that hangs must not hold
up all of them.
"""


@asynccontextmanager
async def alone_until_first_answer(call: Call) -> AsyncIterator[None]:
    """Hold back all requests but one until the ledger has its first bill.

    Args:
        call: without a cap on tokens or dollars it never waits.
    """
    step = call.step
    if not step.endpoint.bounds_answers:
        yield
        return
    seconds = min(step.endpoint.attempt_deadline, STEP_SHARE * step.endpoint.step_deadline)
    clock = asyncio.get_running_loop()
    end = clock.time() + seconds
    turn = None
    while not step.ledger.has_report and clock.time() < end:
        turn = step.limits.first_turn()
        if turn is not None:
            break
        await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        if turn is not None:
            turn.release()
