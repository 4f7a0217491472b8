"""One step's judging takes its deadline at most: slow pieces, hanging answers, equal ones; and what
its numbers may be.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
import user_verifiers
from waiting import within

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.leaks import handle_leak
from critique_rl.tasks.isolated_verifiers import MathVerifier, build_verifier, user_verifier
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.tasks.workers.pool import LONGEST_STEP, STEP_SECONDS, Pool, _Batch
from critique_rl.types import Attempt, Critique, Verdict

pytestmark = pytest.mark.processes
HERE = Path(__file__).parents[2]
TARGET = "user_verifiers:hostile"
SLOW = "slow"
"""What makes `user_verifiers.hostile` answer after a tenth of a second."""


@pytest.fixture(scope="module", autouse=True)
def beside_the_tests():
    """`user_verifiers` is found as a user's module is, in the working folder."""
    before = Path.cwd()
    os.chdir(HERE)
    yield
    os.chdir(before)


def test_pieces_that_are_slow_but_in_time_end_with_the_step() -> None:
    verifier = build_verifier(
        {"kind": "python", "target": TARGET, "deadline": 0.9, "step_deadline": 2}
    )
    pool = verifier.worker
    with within("a step of slow pieces", seconds=20), pool.step():
        start = time.monotonic()
        reasons = [verifier.try_once(SLOW, {"piece": place}).reason for place in range(200)]
        seconds = time.monotonic() - start
        # Half of the step is left to the answers that the critiques lead to.
        assert verifier("print", {}).outcome == "right"
    pool.stop()
    judged = reasons.count("")
    assert 1 <= judged <= 10
    assert reasons == [""] * judged + ["step deadline"] * (200 - judged)
    assert seconds < 2


@pytest.mark.parametrize("on_leak", ["keep", "redact", "drop"])
def test_a_critique_that_nobody_could_read_is_never_passed_on_as_clean(on_leak) -> None:
    verifier = build_verifier({"kind": "python", "target": TARGET, "deadline": 0.3})
    pool = verifier.worker
    pool.step_deadline = 0.0
    task = Task("t", [], lambda split, size: [], verifier)
    attempt = Attempt("q", "1", Verdict("wrong"), {"answer": "7"})
    with pool.step():
        handled = handle_leak(Critique("so 7", "c"), attempt, task.is_answer, on_leak)
    pool.stop()
    assert handled.notes == ("leaks_unread",)
    expected = ("ok", "", "so 7") if on_leak == "keep" else ("skipped", "leaks_unread", "")
    assert (handled.status, handled.reason, handled.text) == expected


def test_equal_answers_to_equal_rows_share_one_judgement() -> None:
    verifier = build_verifier({"kind": "python", "target": TARGET, "deadline": 0.3})
    texts = ["sleep"] * 30 + ["print"] * 34
    verdicts = verifier.judge_all(texts, [{"answer": "7"}] * 64)
    assert [(v.outcome, v.reason) for v in verdicts] == [("wrong", "timeout")] * 30 + [
        ("right", "")
    ] * 34
    assert verifier.worker.calls == 2
    verifier.judge_all(["print"] * 3, [{"place": place} for place in range(3)])
    assert verifier.worker.calls == 5
    with verifier.worker.step():
        # Two reward functions ask for the same verdicts, and a critique's piece may equal one.
        for _ in range(2):
            assert verifier("raise", {}).reason == "error KeyError"
        assert verifier.try_once("raise", {}).reason == "error KeyError"
        assert verifier.worker.calls == 6
    verifier("raise", {})
    assert verifier.worker.calls == 7
    verifier.worker.stop()


def test_a_default_step_is_long_enough_for_answers_that_all_hang() -> None:
    pool = Pool(TARGET, workers=4)
    assert pool.seconds_for(0) == STEP_SECONDS
    for answers in (32, 64, 128):
        at_once = 4, pool.most_second_tries
        least = sum(math.ceil(answers / count) * pool.deadline for count in at_once)
        assert min(least, LONGEST_STEP) < pool.seconds_for(answers) <= LONGEST_STEP
    pool.step_deadline = 30.0
    assert pool.seconds_for(64) == 30


def test_second_tries_wait_for_first_ones_until_time_presses() -> None:
    pool = Pool(TARGET, workers=4)
    batch = _Batch(pool, [{}] * 9, tries=2, end=100.0)
    batch.first.clear()
    batch.first.extend([7, 8])
    batch.again.extend(range(6))
    # Six tries of seven seconds need 42 s even on one core.
    batch._look_at_the_clock(now=10.0)
    assert batch._next_queue() is batch.first
    batch._look_at_the_clock(now=99.0)
    batch.first_seconds = 5.0
    assert batch._next_queue() is batch.again
    batch.again_seconds = 5.0
    assert batch._next_queue() is batch.first


NO_NUMBERS = (math.nan, math.inf, -math.inf, -1, 0, True, "5", [5], 1e30, 10**400)
BAD = [
    *[(name, value) for name in ("deadline", "step_deadline", "memory_gb") for value in NO_NUMBERS],
    *[("workers", value) for value in (*NO_NUMBERS, 1.5, 10**9)],
    *[("threshold", value) for value in (math.nan, math.inf, True, "5", None, 10**400)],
    ("deadline", None),
    ("memory_gb", None),
    # Of the default deadline of 5, two do not fit.
    ("step_deadline", 9.9),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_numbers_are_refused_in_python_as_in_a_pipeline(name, value) -> None:
    section = {"kind": "python", "target": "user_verifiers:same", name: value}
    builders = [
        lambda: build_verifier(section),
        lambda: user_verifier(user_verifiers.same, **{name: value}),
        lambda: load_task(TaskConfig("lab/chain", size=3, verifier=section), 0),
    ]
    if name != "threshold":
        builders.append(lambda: MathVerifier(**{name: value}))
    messages = set()
    for build in builders:
        with pytest.raises(ConfigError) as refusal:
            build()
        messages.add(str(refusal.value))
    [message] = messages
    assert message.startswith(f"task.verifier.{name}: got ")
    assert "expected" in message
    assert len(message) < 300


def test_a_step_of_two_deadlines_is_taken() -> None:
    verifier = MathVerifier(deadline=0.5, step_deadline=1)
    assert verifier.worker.step_seconds == 1
