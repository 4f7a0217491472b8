"""Critics in a user's code, named as `target: module:name`: a class, or a function of one attempt.

    def my_critic(attempt: Attempt) -> str | Critique | None
    class MyCritic: critique(attempts) -> list of the same, in order

None means: nothing to say, counted as skipped. An error at one attempt is that attempt's failure,
counted with its reason. The code runs in this process, since it may hold a model.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from threading import Thread
from typing import Any

from critique_rl.config.user_code import load_target
from critique_rl.critic.contract import invalid_field
from critique_rl.critic.leaks import IsAnswer, OnLeak, handle_leak
from critique_rl.critic.thoughts import clean_answer
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG, clean, is_blank
from critique_rl.types import Attempt, Critique

Answer = str | Critique | None
"""A value that user code may return for one attempt."""
Outcome = Answer | Exception
"""An answer, or the error in its place. User code may return any other object too."""


@dataclass
class UserCritic:
    """Calls a user's code within a deadline and reads what it returns."""

    function: Callable[[Sequence[Attempt]], Sequence[Outcome]]
    """Attempts -> answers, one each, in order."""
    is_answer: IsAnswer = lambda piece, row: False
    """The task's verifier, which finds leaks."""
    name: str = "python"
    deadline: float = 300.0
    """Seconds for all attempts of a generation."""
    on_leak: OnLeak = "keep"
    """A critique that gives the answer away is kept, redacted, or dropped. Each of them is counted.
    """
    _running: Future[tuple[list[Outcome], float]] | None = field(default=None, repr=False)

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        """One critique per attempt, in order. Never raises for an error of the user's code."""
        wait = self.begin(attempts)
        return wait()

    def begin(self, attempts: Sequence[Attempt]) -> Callable[[], list[Critique]]:
        """Call the user's code in the background.

        Returns:
            A function that waits for what `critique` returns.
        """
        if not attempts:
            return list
        wait = self._begin_call(list(attempts))
        return lambda: self._read_all(attempts, *wait())

    def _read_all(
        self, attempts: Sequence[Attempt], outcomes: list[Outcome], call_seconds: float
    ) -> list[Critique]:
        """The critiques that the outcomes of one call amount to, one per attempt."""
        seconds = call_seconds / len(attempts)
        critiques = []
        for outcome, attempt in zip(outcomes, attempts, strict=True):
            critique = self._read(outcome, seconds)
            critiques.append(handle_leak(critique, attempt, self.is_answer, self.on_leak))
        return critiques

    def _begin_call(self, attempts: list[Attempt]) -> Callable[[], tuple[list[Outcome], float]]:
        """Start the call; the function that waits returns its outcomes and its seconds."""
        start = time.monotonic()
        timeouts: list[Outcome] = [TimeoutError() for _ in attempts]
        # A thread cannot be killed. While an earlier call still hangs, later ones fail at once, so
        # that threads do not pile up.
        if self._running is not None and not self._running.done():
            return lambda: (timeouts, 0.0)
        running: Future[tuple[list[Outcome], float]] = Future()
        self._running = running
        Thread(
            target=_settle,
            args=(running, self.function, attempts),
            name="critique_rl.user_critic",
            daemon=True,
        ).start()

        def wait() -> tuple[list[Outcome], float]:
            seconds_left = max(0.0, start + self.deadline - time.monotonic())
            try:
                return running.result(seconds_left)
            except TimeoutError:
                return timeouts, self.deadline

        return wait

    def _read(self, outcome: Outcome, seconds: float) -> Critique:
        match outcome:
            case Critique():
                return self._check(outcome, seconds)
            case str():
                return self._check(Critique(outcome, self.name), seconds)
            case None:
                return Critique("", self.name, "skipped", "nothing_to_say")
            case TimeoutError():
                return self._failure("timeout")
            case Exception():
                return self._failure(f"error {type(outcome).__name__}")
            case _:
                return self._failure(f"bad reply: {type(outcome).__name__}")

    def _check(self, critique: Critique, seconds: float) -> Critique:
        """The critique under this critic's name, or a failure if it is invalid or has no text."""
        invalid = invalid_field(critique)
        if invalid:
            return self._failure(f"bad reply: {invalid}")
        usage = replace(critique.usage, seconds=critique.usage.seconds or seconds)
        critique = replace(critique, critic=self.name, usage=usage)
        if critique.status != "ok":
            return replace(critique, text="", reason=critique.reason or critique.status)
        if len(critique.text) > LONGEST_TEXT:
            return Critique("", self.name, "failed", TOO_LONG, usage=usage)
        # The code may ask a reasoning model and hand on what it says.
        cleaned = clean_answer(clean(critique.text))
        # A row refined with a text that nobody sees would be the kind `retry` by another name.
        if is_blank(cleaned.text):
            return Critique("", self.name, "failed", cleaned.reason or "empty", usage=usage)
        return replace(critique, text=cleaned.text)

    def _failure(self, reason: str) -> Critique:
        return Critique("", self.name, "failed", reason)


def _settle(
    future: Future[tuple[list[Outcome], float]],
    function: Callable[[Sequence[Attempt]], Sequence[Outcome]],
    attempts: list[Attempt],
) -> None:
    """Give the future the outcomes and the seconds they took, whatever the user's code does."""
    start = time.monotonic()
    try:
        outcomes = _call_all(function, attempts)
    except BaseException as error:
        # SystemExit in a thread would leave the future, and the step, waiting.
        outcomes = [RuntimeError(str(error)) for _ in attempts]
    future.set_result((outcomes, time.monotonic() - start))


def _call_all(
    function: Callable[[Sequence[Attempt]], Sequence[Outcome]], attempts: list[Attempt]
) -> list[Outcome]:
    """Call the user's code with all attempts. If that raises, with each alone."""
    try:
        outcomes = list(function(attempts))
    except Exception as error:
        if len(attempts) == 1:
            return [error]
        # One bad attempt must not cost the others their critiques.
        return [_call_all(function, [attempt])[0] for attempt in attempts]
    if len(outcomes) != len(attempts):
        # Nobody can tell which attempt has no critique.
        return [ValueError() for _ in attempts]
    return outcomes


def build_user_critic(
    target: str, options: Mapping[str, Any], is_answer: IsAnswer, **settings: Any
) -> UserCritic:
    """Build the critic that a target names.

    Args:
        target: "module:name" of a class with `critique`, or of a function of one attempt.
        options: arguments of the class, or of the function beside the attempt.
        is_answer: the task's verifier.
        settings: further fields of `UserCritic`.

    Raises:
        ValueError: the target names nothing, or neither such a class nor a function.
        TypeError: the class does not take the options.
        ImportError: the module cannot be imported.
    """
    user_object = load_target(target)
    if inspect.isclass(user_object):
        instance: Any = user_object(**options)
        if not callable(getattr(instance, "critique", None)):
            raise ValueError(f"target {target!r}: the class has no method critique(attempts)")
        return UserCritic(instance.critique, is_answer, **settings)
    if not callable(user_object):
        raise ValueError(
            f"target {target!r} is a {type(user_object).__name__}, "
            "expected a class, or a function of one attempt"
        )

    def call_each(attempts: Sequence[Attempt]) -> list[Outcome]:
        return [_call_one(user_object, attempt, options) for attempt in attempts]

    return UserCritic(call_each, is_answer, **settings)


def _call_one(
    function: Callable[..., Answer], attempt: Attempt, options: Mapping[str, Any]
) -> Outcome:
    try:
        return function(attempt, **options)
    except Exception as error:
        return error
