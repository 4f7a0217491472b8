"""Many calls of one function in a few warm workers, under one deadline.

A call that was lost, by its own deadline or with its process, is tried again after all others,
alone in a fresh process. Nothing that a call does holds others up for longer than a restart.

    answered                              -> its value
    timed out twice                       -> NoAnswer("timeout")
    lost to a dead process                -> NoAnswer("crash"), NoAnswer("memory")
    not answered when the time was over   -> NoAnswer("step deadline")
    no process could be started           -> NoAnswer("start")
    the function raised                   -> NoAnswer("error <class>"), without a second try
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import RLock
from typing import Any

from critique_rl.tasks.killable_process import MEMORY, NoAnswer, Worker, wait_for_any

logger = logging.getLogger(__name__)
SPREAD_SECONDS = 0.2
"""Seconds of a batch after which further processes are started: most batches need none."""
LOOK_SECONDS = 0.05
"""The longest wait between two looks at the clock."""
STEP_SECONDS = 120.0
STEP_DEADLINES = 24
FAILED_STARTS = 3
"""Processes of a batch that may fail to start."""
LOST = ("timeout", "crash", "memory")
"""Codes of calls that are tried again."""
UNJUDGED = (*LOST, "step deadline", "start")
"""Codes of calls that were not answered."""
Answer = Any
"""A value as JSON, or a `NoAnswer`."""


def rank_cores() -> int:
    """The cores of this process, shared among the ranks of a machine; at least 1."""
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    if ranks.isdecimal() and int(ranks):
        cores //= int(ranks)
    return max(1, cores)


def default_workers() -> int:
    """Two per core, at most 4: what hangs often sleeps, and then costs no core."""
    return min(4, 2 * rank_cores())


@dataclass(eq=False)
class Pool:
    """A function in a few processes; the first is started by `start`, others where they help."""

    target: str
    """As in `Worker`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """As in `Worker`."""
    deadline: float = 5.0
    """Wall seconds per call."""
    step_deadline: float | None = None
    """Wall seconds per batch, or for all batches within a `step`; None: `STEP_SECONDS`, or
    `STEP_DEADLINES` times the deadline if that is more.
    """
    workers: int | None = None
    """The most processes; None: `default_workers`."""
    memory: int = MEMORY
    """Bytes that each process may hold."""
    calls: int = 0
    """Calls so far."""
    lost: int = 0
    """Calls without a value."""

    def __post_init__(self) -> None:
        self._lock = RLock()
        self._workers: list[Worker] = []
        # Seconds left of the step that is open.
        self._left: float | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process starts processes of its own; locks cannot be pickled.
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def start(self) -> None:
        """Start the first process.

        Raises:
            ValueError: With the child's message, where the function cannot be loaded.
        """
        with self._lock:
            self._some_worker().start()

    def stop(self) -> None:
        """Kill all processes; the next call starts others."""
        with self._lock:
            for worker in self._workers:
                worker.stop()

    @property
    def process_numbers(self) -> list[int]:
        """Numbers of the processes that run."""
        return [
            worker.process_number
            for worker in self._workers
            if worker.is_running and worker.process_number is not None
        ]

    @contextmanager
    def step(self) -> Iterator[None]:
        """Within the block all calls share one `step_deadline`; inside another step, that one's."""
        if self._left is not None:
            yield
            return
        self._left = self.step_seconds
        try:
            yield
        finally:
            self._left = None

    @property
    def is_in_step(self) -> bool:
        """Whether a step is open."""
        return self._left is not None

    def ask(self, question: Mapping[str, Any]) -> Any:
        """Call the function once, with a second try.

        Raises:
            NoAnswer: As in the module's table.
        """
        [answer] = self.ask_all([question])
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def ask_all(self, questions: Sequence[Mapping[str, Any]], tries: int = 2) -> list[Answer]:
        """Call the function with each question.

        Args:
            questions: JSON objects.
            tries: How often a call that is lost is made.

        Returns:
            A value or a `NoAnswer` for each, in order, within the deadline.
        """
        with self._lock:
            start = time.monotonic()
            seconds = self.step_seconds if self._left is None else self._left
            batch = _Batch(self, questions, tries, start + seconds)
            try:
                batch.run()
            except BaseException:
                # Ctrl-C: processes work on answers that nobody will read.
                self.stop()
                raise
            answers = batch.answers
            self.calls += len(questions)
            lost = sum(isinstance(answer, NoAnswer) for answer in answers)
            self.lost += lost
            # What one try costs is bounded elsewhere, unless it is lost.
            if self._left is not None and (tries > 1 or lost):
                self._left = max(0.0, self._left - (time.monotonic() - start))
            return answers

    def _some_worker(self) -> Worker:
        """The first worker; its settings are those of the pool now."""
        if not self._workers:
            self._add_worker()
        self._update(self._workers[0])
        return self._workers[0]

    def _add_worker(self) -> Worker:
        worker = Worker(self.target, self.options)
        self._update(worker)
        self._workers.append(worker)
        return worker

    def _update(self, worker: Worker) -> None:
        worker.deadline = self.deadline
        worker.memory = self.memory

    @property
    def step_seconds(self) -> float:
        """Seconds of a step."""
        if self.step_deadline is None:
            return max(STEP_SECONDS, STEP_DEADLINES * self.deadline)
        return self.step_deadline

    @property
    def most_workers(self) -> int:
        """The most processes."""
        return self.workers or default_workers()


class _Batch:
    """The calls of one `ask_all`."""

    def __init__(self, pool: Pool, questions: Sequence[Mapping[str, Any]], tries: int, end: float):
        self.pool = pool
        self.questions = questions
        self.tries = tries
        self.end = end
        self.answers: list[Answer] = [None] * len(questions)
        self.first = deque(range(len(questions)))
        self.again = deque[int]()
        self.losses: dict[int, list[str]] = {}
        # Workers that work on a call, by place of the question; None: one that starts.
        self.busy: dict[Worker, int | None] = {}
        # When each call was sent; seconds of first tries since `half_time`, and of second tries.
        self.sent: dict[int, float] = {}
        self.first_seconds = self.again_seconds = 0.0
        self.failed_starts = 0
        self.cores = rank_cores()
        self.spread = self.half_time = self.end

    def run(self) -> None:
        """Fill `answers`."""
        start = time.monotonic()
        self.spread = start + SPREAD_SECONDS
        self.half_time = (start + self.end) / 2
        while self.first or self.again or self._is_working():
            now = time.monotonic()
            is_without_worker = self.failed_starts >= FAILED_STARTS and not self._is_working()
            if now >= self.end or is_without_worker:
                break
            self._hand_out(now)
            wait = min(LOOK_SECONDS, max(0.0, self.end - now))
            ready = wait_for_any(self.busy, wait)
            now = time.monotonic()
            for worker in list(self.busy):
                if worker in ready or worker.is_due(now):
                    self._look_at(worker)
        self._give_up()

    def _is_working(self) -> bool:
        """Whether a worker works on a call."""
        return any(place is not None for place in self.busy.values())

    # ---- questions to workers --------------------------------------------------------------------

    def _waiting(self) -> int:
        """Questions that may be asked now, and for which no worker is starting."""
        starting = sum(place is None for place in self.busy.values())
        return len(self.first) + min(len(self.again), self._free_cores()) - starting

    def _free_cores(self) -> int:
        """Second tries that may begin: each has a core to itself, or it would be slow again."""
        running = sum(place in self.losses for place in self.busy.values())
        return max(0, self.cores - running)

    def _hand_out(self, now: float) -> None:
        """Give questions to idle workers; start workers where questions wait."""
        for worker in self.pool._workers:
            if worker not in self.busy and self._waiting() > 0:
                self._hand_to(worker, now)
        most = self.pool.most_workers if now >= self.spread else 1
        while self._waiting() > 0 and len(self.pool._workers) < most:
            self._launch(self.pool._add_worker())

    def _hand_to(self, worker: Worker, now: float) -> None:
        """Give an idle worker the next question, or start it where it must be fresh."""
        self.pool._update(worker)
        queue = self._next_queue(now)
        if not worker.is_running or (queue is self.again and worker.answered):
            self._launch(worker)
        elif not worker.is_loaded:
            # It was started by a batch that ended before.
            self.busy[worker] = None
        else:
            place = queue.popleft()
            if queue is self.again:
                # Ahead of time, or all workers would take a second try at once.
                self.again_seconds += self.pool.deadline
            self.sent[place] = now
            worker.send(self.questions[place], self.pool.deadline)
            self.busy[worker] = place

    def _next_queue(self, now: float) -> deque[int]:
        """First tries first. In the second half of the time second tries get as many seconds, or
        many hanging answers would leave no time to find out that they hang again.
        """
        is_their_turn = now >= self.half_time and self.first_seconds > self.again_seconds
        if not self.first or (is_their_turn and self.again and self._free_cores()):
            return self.again
        return self.first

    def _launch(self, worker: Worker) -> None:
        try:
            worker.launch()
        # The system starts no further process.
        except OSError:
            self.failed_starts += 1
            time.sleep(LOOK_SECONDS)
            return
        self.busy[worker] = None

    # ---- answers from workers --------------------------------------------------------------------

    def _look_at(self, worker: Worker) -> None:
        """Take a worker's reply, if there is one."""
        try:
            reply = worker.receive()
        except NoAnswer as failure:
            reply = {"error": str(failure)}
        if reply is None:
            return
        place = self.busy.pop(worker)
        if place is None:
            self.failed_starts += 1
            if "error" in reply:
                worker.stop()
                logger.warning("%s: a worker did not start: %s", worker.target, reply["error"])
            else:
                self.failed_starts = 0
            return
        now = time.monotonic()
        if place not in self.losses:
            self.first_seconds += max(0.0, now - max(self.sent[place], self.half_time))
        code = reply.get("error")
        if code is None:
            self.answers[place] = reply["value"]
        elif code in LOST:
            # One that ran out of memory may still run.
            worker.stop()
            self._lose(place, code)
        else:
            self.answers[place] = NoAnswer(code)

    def _lose(self, place: int, code: str) -> None:
        """Note a loss: the call is made again, or its code is the answer."""
        losses = self.losses.setdefault(place, [])
        losses.append(code)
        if len(losses) < self.tries:
            self.again.append(place)
            return
        # Twice too slow is a property of the answer; anything else may be the machine's.
        others = [loss for loss in losses if loss != "timeout"]
        self.answers[place] = NoAnswer(others[-1] if others else "timeout")

    def _give_up(self) -> None:
        """Stop what works in vain, and give calls without an answer their code."""
        code = "start" if self.failed_starts >= FAILED_STARTS else "step deadline"
        left = [*self.first, *self.again]
        for worker, place in self.busy.items():
            # One that starts is as useful for the next batch.
            if place is not None:
                worker.stop()
                left.append(place)
        for place in left:
            self.answers[place] = NoAnswer(code)
