"""The deadlines of a step and of a call, on the event loop's clock.

    step     all conversations of one `answer`, waits for slots and rates included: `step_deadline`
    call     one conversation with its retries and the waits between them: `deadline`
    request  one request: `attempt_deadline`, in `request`

Each layer also stops at the deadlines above it. `loop.start_in_thread` holds the last one: the
caller goes on at `step_deadline` even if a coroutine blocks the loop.
"""

from __future__ import annotations

import asyncio

CLOSING_SHARE = 0.1
MAX_CLOSING_SECONDS = 1.0
"""Part of `step_deadline` kept for closing connections: this share of it, this many seconds at
most.
"""


class StepDeadline:
    """The moment at which the last call of a step ends. Make it inside the running loop.

    Args:
        seconds: `step_deadline` of the endpoint.
    """

    def __init__(self, seconds: float) -> None:
        # Connections close inside the deadline. If they do not, their thread is left behind.
        closing = min(MAX_CLOSING_SECONDS, CLOSING_SHARE * seconds)
        self._end = _now() + seconds - closing

    def seconds_left(self) -> float:
        return max(0.0, self._end - _now())

    def timeout(self) -> asyncio.Timeout:
        """A context manager that raises TimeoutError at the deadline."""
        return asyncio.timeout_at(self._end)


class CallDeadline:
    """The deadline of one call.

    Args:
        seconds: `deadline` of the endpoint.
        step: the deadline of the step that the call belongs to.

    Attributes:
        timeout: context manager around the call. It raises TimeoutError at the deadline.
    """

    def __init__(self, seconds: float, step: StepDeadline) -> None:
        self._seconds = seconds
        self._step = step
        self.timeout = asyncio.timeout(None)

    def start(self) -> None:
        """Start the clock if it does not run yet."""
        if self.timeout.when() is None:
            self.timeout.reschedule(_now() + self._seconds)

    def seconds_left(self) -> float:
        """Seconds until the call must end. Before `start` only the step bounds it."""
        end = self.timeout.when()
        if end is None:
            return self._step.seconds_left()
        return min(self._step.seconds_left(), end - _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
