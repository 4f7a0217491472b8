"""Critics of the user's own, named as `target: module:name`: a class, or a function of one attempt.

    def my_critic(attempt: Attempt) -> str | Critique | None           None: nothing to say, counted as skipped
    class MyCritic: critique(attempts) -> list of the same, in order

An error at one attempt is that attempt's failure, counted with its reason. The code runs in this
process, since it may hold a model, so it cannot be killed: at the deadline its attempts fail as
"timeout" and training goes on, and while it still hangs later ones fail at once.
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
from critique_rl.prompts import clean, is_blank
from critique_rl.types import Attempt, Critique

Said = str | Critique | None


@dataclass
class UserCritic:
    """Calls the user's code within a deadline and reads what it returns."""

    function: Callable[[Sequence[Attempt]], Sequence[Said]]
    is_answer: IsAnswer = lambda piece, row: False
    name: str = "python"
    deadline: float = 300.0
    """Seconds for all attempts of a generation."""
    on_leak: OnLeak = "keep"
    """A critique that gives the answer away is kept, redacted, or dropped. All of these are
    counted.
    """
    _running: Future | None = field(default=None, repr=False)

    def critique(self, attempts: Sequence[Attempt]) -> list[Critique]:
        start = time.monotonic()
        said = self._said(list(attempts)) if attempts else []
        seconds = (time.monotonic() - start) / max(1, len(attempts))
        return [
            self._read(one, attempt, seconds) for one, attempt in zip(said, attempts, strict=True)
        ]

    def _said(self, attempts: list[Attempt]) -> list[Said | Exception]:
        if self._running is not None and not self._running.done():
            return [TimeoutError()] * len(attempts)
        self._running = Future()
        Thread(
            target=_settle,
            args=(self._running, self.function, attempts),
            name="critique_rl.user_critic",
            daemon=True,
        ).start()
        try:
            return self._running.result(self.deadline)
        except TimeoutError:
            return [TimeoutError()] * len(attempts)

    def _read(self, said: Said | Exception, attempt: Attempt, seconds: float) -> Critique:
        match said:
            case Critique():
                critique = self._checked(said, seconds)
            case str():
                critique = self._checked(Critique(said, self.name), seconds)
            case None:
                critique = Critique("", self.name, "skipped", "nothing_to_say")
            case TimeoutError():
                critique = Critique("", self.name, "failed", "timeout")
            case Exception():
                critique = Critique("", self.name, "failed", f"error {type(said).__name__}")
            case _:
                critique = Critique("", self.name, "failed", f"bad reply: {type(said).__name__}")
        return handle_leak(critique, attempt, self.is_answer, self.on_leak)

    def _checked(self, said: Critique, seconds: float) -> Critique:
        """What the user's code built, or why it is no critique: whatever it holds, it must not end
        the run, nor refine as if nothing had been said.
        """
        if reason := invalid_field(said):
            return Critique("", self.name, "failed", f"bad reply: {reason}")
        usage = replace(said.usage, seconds=said.usage.seconds or seconds)
        if said.status != "ok":
            return replace(
                said, critic=self.name, text="", reason=said.reason or said.status, usage=usage
            )
        if is_blank(said.text):
            return Critique("", self.name, "failed", "empty", usage=usage)
        return replace(said, critic=self.name, text=clean(said.text).strip(), usage=usage)


def _settle(outcome: Future, function: Callable, attempts: list[Attempt]) -> None:
    try:
        outcome.set_result(_one_each(function, attempts))
    except (
        BaseException
    ) as error:  # SystemExit in a thread would leave the future, and the step, waiting
        outcome.set_result([RuntimeError(str(error))] * len(attempts))


def _one_each(function: Callable, attempts: list[Attempt]) -> list[Said | Exception]:
    """All in one call. Where that raises, each alone, so that one bad attempt costs no other its
    critique.
    """
    try:
        said = list(function(attempts))
    except Exception as error:
        if len(attempts) == 1:
            return [error]
        return [_one_each(function, [attempt])[0] for attempt in attempts]
    if len(said) != len(attempts):
        return [ValueError()] * len(attempts)
    return said


def build_user_critic(
    target: str, options: Mapping[str, Any], is_answer: IsAnswer, **settings: Any
) -> UserCritic:
    """The critic that `target` names. ValueError for what is neither a class with `critique` nor a
    function of one attempt.
    """
    found = load_target(target)
    if inspect.isclass(found):
        found = found(**options)
        if not callable(getattr(found, "critique", None)):
            raise ValueError(f"target {target!r}: the class has no method critique(attempts)")
        return UserCritic(found.critique, is_answer, **settings)
    if not callable(found):
        raise ValueError(
            f"target {target!r} is a {type(found).__name__}, expected a class, or a function of one attempt"
        )
    return UserCritic(
        lambda attempts: [_alone(found, attempt, options) for attempt in attempts],
        is_answer,
        **settings,
    )


def _alone(function: Callable, attempt: Attempt, options: Mapping[str, Any]) -> Said | Exception:
    try:
        return function(attempt, **options)
    except Exception as error:
        return error
