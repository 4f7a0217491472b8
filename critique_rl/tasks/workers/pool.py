"""Many calls of one function in a few warm workers, under one deadline.

A call that was lost, by its own deadline or with its process, is tried again after all others,
alone in a fresh process. Nothing that a call does holds others up for longer than a restart.

    answered                              -> its value
    timed out twice                       -> NoAnswer("timeout")
    lost to a dead process                -> NoAnswer("crash"), NoAnswer("memory")
    lost to a program that breaks its protocol (`program`)
                                          -> NoAnswer("no JSON line"), NoAnswer("wrong id")
    not answered when the time was over   -> NoAnswer("step deadline")
    no process could be started           -> NoAnswer("start")
    the function raised                   -> NoAnswer("error <class>"), without a second try

First tries come first, all of them: most answers need milliseconds, and would else wait behind the
few that hang. Second tries follow, at most one per core and with no other call beside it, or the
machine and not the answer would be slow. This order is the quickest too: first tries may share
cores, second tries may not, so to run both at once would leave either of them fewer. Only where
the step's time is about to run out do both go on at once, with equal shares of the seconds.
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

from critique_rl.tasks.killable_process import MEMORY, NoAnswer, Worker, stop_all, wait_for_any
from critique_rl.tasks.workers.program import NO_LINE, WRONG_ID
from critique_rl.tasks.workers.settings import TRIES, check_settings

logger = logging.getLogger(__name__)
SPREAD_SECONDS = 0.2
"""Seconds of a batch after which further processes are started: most batches need none."""
LOOK_SECONDS = 0.05
"""The longest wait between two looks at the clock."""
STEP_SECONDS = 120.0
STEP_DEADLINES = 24
LONGEST_STEP = 1200.0
"""Seconds to which a default step grows with its answers. Other ranks wait for it, and
torch.distributed gives a rank up after 1800 s by TRL's default.
"""
STEP_MARGIN = 1.5
"""How much longer hanging answers may take than they would on an idle machine."""
START_GUESS = 2.0
"""Seconds of a process's start where none was measured."""
PIECES_SHARE = 0.5
"""Of the time that is left: the part that calls with a single try may take. What they are asked for
(pieces of critiques) comes before the answers that are judged last.
"""
FAILED_STARTS = 3
"""Processes of a batch that may fail to start."""
LOST = ("timeout", "crash", "memory", NO_LINE, WRONG_ID)
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
    """Wall seconds per batch, or for all batches within a `step`; None: as `seconds_for` says."""
    workers: int | None = None
    """The most processes; None: `default_workers`."""
    memory: int = MEMORY
    """Bytes that each process may hold."""
    calls: int = 0
    """Calls so far."""
    lost: int = 0
    """Calls without a value."""
    restarts: int = 0
    """Processes that were lost to a call, or stopped for it."""

    def __post_init__(self) -> None:
        """Check the numbers. Raises ConfigError for one that is out of its range."""
        check_settings(
            {
                "deadline": self.deadline,
                "step_deadline": self.step_deadline,
                "workers": self.workers,
                "memory_gb": self.memory / (1 << 30),
            }
        )
        self._reset()

    def _reset(self) -> None:
        self._lock = RLock()
        self._workers: list[Worker] = []
        self._step: _Step | None = None
        # Of the slowest start of a process.
        self._start_seconds = 0.0

    def __getstate__(self) -> dict[str, Any]:
        # A copy in another process starts processes of its own; locks cannot be pickled.
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def start(self) -> None:
        """Start the first process.

        Raises:
            ValueError: With the child's message, where the function cannot be loaded.
        """
        with self._lock:
            start = time.monotonic()
            self._some_worker().start()
            self._note_start(time.monotonic() - start)

    def stop(self) -> None:
        """Kill all processes; the next call starts others."""
        with self._lock:
            stop_all(self._workers)

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
        if self._step is not None:
            yield
            return
        self._step = _Step()
        try:
            yield
        finally:
            self._step = None

    def ask(self, question: Mapping[str, Any]) -> Any:
        """Call the function once, with a second try.

        Raises:
            NoAnswer: As in the module's table.
        """
        [answer] = self.ask_all([question])
        if isinstance(answer, NoAnswer):
            raise answer
        return answer

    def ask_all(self, questions: Sequence[Mapping[str, Any]], tries: int = TRIES) -> list[Answer]:
        """Call the function with each question.

        Args:
            questions: JSON objects.
            tries: How often a call that is lost is made.

        Returns:
            A value or a `NoAnswer` for each, in order, within the deadline.
        """
        with self._lock:
            start = time.monotonic()
            step = self._step or _Step()
            end = start + self._left_of(step, len(questions), tries)
            batch = _Batch(self, questions, tries, end)
            try:
                batch.run()
            except BaseException:
                # Ctrl-C: processes work on answers that nobody will read.
                self.stop()
                raise
            answers = batch.answers
            self.calls += len(questions)
            self.lost += sum(isinstance(answer, NoAnswer) for answer in answers)
            # All of it counts: many calls that are slow but in time take as long as a few that
            # hang.
            step.used += time.monotonic() - start
            return answers

    def _left_of(self, step: _Step, questions: int, tries: int) -> float:
        """Seconds that a batch may take."""
        if tries > 1:
            step.answers += questions
            step.pieces_end = None
            return self.seconds_for(step.answers) - step.used
        # Alone it has no others to leave time for.
        if step is not self._step:
            return self.step_seconds
        if step.pieces_end is None:
            left = self.seconds_for(step.answers) - step.used
            step.pieces_end = step.used + PIECES_SHARE * left
        return step.pieces_end - step.used

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
    def step_memory(self) -> dict[bytes, Any]:
        """What a caller may remember until the open step ends; without one, nothing."""
        return {} if self._step is None else self._step.memory

    def _note_start(self, seconds: float) -> None:
        self._start_seconds = max(self._start_seconds, seconds)

    @property
    def step_seconds(self) -> float:
        """Seconds of a step of few answers."""
        return self.seconds_for(0)

    def seconds_for(self, answers: int) -> float:
        """Seconds of a step of so many answers.

        The default grows with them until each could hang in both tries: with less, answers that
        hang would end unscored, which costs them less than a wrong answer.
        """
        if self.step_deadline is not None:
            return self.step_deadline
        least = max(STEP_SECONDS, STEP_DEADLINES * self.deadline)
        tries_at_once = self.most_workers, self.most_second_tries
        rounds = sum(answers / at_once for at_once in tries_at_once)
        return max(least, min(LONGEST_STEP, STEP_MARGIN * rounds * self.try_seconds))

    @property
    def try_seconds(self) -> float:
        """Seconds that a call takes which hangs, with the start of the next process."""
        return self.deadline + (self._start_seconds or START_GUESS)

    @property
    def most_second_tries(self) -> int:
        """The most calls that are tried again at once."""
        return min(self.most_workers, rank_cores())

    @property
    def most_workers(self) -> int:
        """The most processes."""
        return self.workers or default_workers()


@dataclass
class _Step:
    """What the batches of a step have taken of its time."""

    used: float = 0.0
    """Seconds."""
    answers: int = 0
    """Questions of batches with a second try."""
    memory: dict[bytes, Any] = field(default_factory=dict)
    """For callers: what they know of questions that were answered."""
    pieces_end: float | None = None
    """The `used` at which calls with a single try end; None where none was made since answers."""


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
        # When each call was sent, and each process started.
        self.sent: dict[int, float] = {}
        self.launched: dict[Worker, float] = {}
        # When time began to press; seconds of first tries since then, and of second tries.
        self.pressed: float | None = None
        self.first_seconds = self.again_seconds = 0.0
        self.failed_starts = 0
        self.second_tries = pool.most_second_tries
        self.spread = self.end

    def run(self) -> None:
        """Fill `answers`."""
        start = time.monotonic()
        self.spread = start + SPREAD_SECONDS
        while self.first or self.again or self._is_working():
            now = time.monotonic()
            is_without_worker = self.failed_starts >= FAILED_STARTS and not self._is_working()
            if now >= self.end or is_without_worker:
                break
            self._look_at_the_clock(now)
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

    def _look_at_the_clock(self, now: float) -> None:
        """Note whether the second tries that wait need all the time that is left."""
        rounds = len(self.again) / self.second_tries
        if self.pressed is None and rounds * self.pool.try_seconds >= self.end - now:
            self.pressed = now

    def _free_cores(self) -> int:
        """Second tries that may begin: each has a core to itself, or it would be slow again."""
        running = [place for place in self.busy.values() if place is not None]
        # Where time presses, first tries go on beside them.
        if self.pressed is not None:
            running = [place for place in running if place in self.losses]
        return max(0, self.second_tries - len(running))

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
        queue = self._next_queue()
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

    def _next_queue(self) -> deque[int]:
        """First tries first. Where time presses, second tries get as many seconds."""
        is_their_turn = self.pressed is not None and self.first_seconds > self.again_seconds
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
        self.launched[worker] = time.monotonic()
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
            self._note_start(worker, reply)
            return
        if place not in self.losses and self.pressed is not None:
            since = max(self.sent[place], self.pressed)
            self.first_seconds += max(0.0, time.monotonic() - since)
        code = reply.get("error")
        if code is None:
            self.answers[place] = reply["value"]
        elif code in LOST:
            # One that ran out of memory may still run.
            worker.stop()
            self._lose(place, code)
        else:
            self.answers[place] = NoAnswer(code)

    def _note_start(self, worker: Worker, reply: Mapping[str, Any]) -> None:
        """Note whether a process has started, and how long that took."""
        if "error" in reply:
            self.failed_starts += 1
            worker.stop()
            logger.warning("%s: a worker did not start: %s", worker.target, reply["error"])
            return
        self.failed_starts = 0
        if worker in self.launched:
            self.pool._note_start(time.monotonic() - self.launched[worker])

    def _lose(self, place: int, code: str) -> None:
        """Note a loss: the call is made again, or its code is the answer."""
        losses = self.losses.setdefault(place, [])
        losses.append(code)
        self.pool.restarts += 1
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
        # One that starts is as useful for the next batch.
        working = {worker: place for worker, place in self.busy.items() if place is not None}
        stop_all(working)
        left += working.values()
        for place in left:
            self.answers[place] = NoAnswer(code)
