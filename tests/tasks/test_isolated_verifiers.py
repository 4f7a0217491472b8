"""Verifiers in a killable process: right and wrong as Math-Verify sees them, and nothing that
hangs, crashes or eats memory does more than go unscored.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hanging_inputs import HANGING
from waiting import SECONDS, gone, of_group, ticks, wait_until, within

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.isolated_verifiers import MathVerifier, WorkerVerifier, build_verifier
from critique_rl.tasks.load import load_task
from critique_rl.tasks.verifiers import choice

pytestmark = pytest.mark.processes
HERE = Path(__file__).parents[1]
SOME = (
    "Math-Verify 65",
    "Math-Verify 59, sympy 28112",
    "a tower",
    "factorials of factorials",
    "an integral",
    "nested braces",
    "a million digits",
)
"""All of them in benchmarks/hanging_verifier.py, which takes a minute."""


@pytest.fixture(scope="module")
def mathematics():
    verifier = build_verifier({"kind": "math", "deadline": SECONDS})
    yield verifier
    verifier.worker.stop()


@pytest.fixture(scope="module", autouse=True)
def beside_the_tests():
    """`user_verifiers` is found as a user's module is, in the working folder."""
    before = Path.cwd()
    os.chdir(HERE)
    yield
    os.chdir(before)


@pytest.mark.parametrize(
    ("text", "gold", "outcome"),
    [
        (r"so \boxed{\frac{1}{2}}", "0.5", "right"),
        (r"\boxed{0.5}", r"\frac{1}{2}", "right"),
        (r"It is $x^2+2x+1$.", "(x+1)^2", "right"),
        (r"\boxed{\{1, 2\}}", r"\{2, 1\}", "right"),
        (r"\boxed{3} no, \boxed{1,000}", "1000", "right"),
        (r"\boxed{\sqrt{8}}", r"2\sqrt{2}", "right"),
        (r"\boxed{3}", "4", "wrong"),
        (r"\boxed{(0, 1)}", "[0, 1]", "wrong"),
        ("I do not know.", "4", "unreadable"),
        (r"\boxed{4}", "", "unscored"),
        ("The final answer is 7", "7", "right"),
    ],
)
def test_mathematics_is_compared_by_value(mathematics, text, gold, outcome) -> None:
    assert mathematics(text, {"answer": gold}).outcome == outcome


def test_what_hangs_math_verify_is_unscored_within_the_deadline() -> None:
    verifier = MathVerifier(deadline=0.5)
    try:
        for name in SOME:
            text = HANGING[name]
            verifier.worker.start()
            with within(name):
                # Of a number our own rules would say at once that nothing is worked out.
                verdict = verifier(text, {"answer": "\\sqrt{5}"})
            assert verdict.outcome == "unscored", f"{name}: {verdict}"
            assert verdict.reason in ("timeout", "error OverflowError"), f"{name}: {verdict}"
        verifier.worker.deadline = SECONDS  # what hangs has been killed; what does not has its time
        assert verifier.worker.lost == len(SOME)
        assert verifier(r"\boxed{5}", {"answer": "5"}).outcome == "right"
    finally:
        verifier.worker.stop()


def test_a_repeated_answer_is_judged_once(mathematics) -> None:
    before = mathematics.worker.calls
    for working in ("a", "b", "c"):
        assert (
            mathematics(rf"{working}, so \boxed{{\frac{{6}}{{7}}}}", {"answer": "6/7"}).outcome
            == "right"
        )
    assert mathematics.worker.calls == before + 1


@pytest.mark.parametrize(
    ("function", "text", "prompt", "outcome"),
    [
        ("same", "7", "q", "right"),
        ("same", "8", "q", "wrong"),
        ("share", "half", "q", "right"),
        ("share", "little", "q", "wrong"),
        ("share", "nan", "q", "unscored"),
        ("share", "none", "q", "unscored"),
        ("verdict", "7", "q", "abstained"),
        ("trl", "7", [{"role": "user", "content": "q"}], "right"),
        ("trl", "8", [{"role": "user", "content": "q"}], "wrong"),
        ("plain_trl", "7", "q", "right"),
        ("words", "7", "q", "unscored"),
    ],
)
def test_a_function_of_the_users_own_judges(function, text, prompt, outcome) -> None:
    target = f"user_verifiers:{function}"
    verifier = build_verifier({"kind": "python", "target": target, "deadline": SECONDS})
    verdict = verifier(text, {"answer": "7", "prompt": prompt, "when": Path("not json")})
    verifier.worker.stop()
    assert verdict.outcome == outcome
    assert verdict.confidence == (0.25 if function == "verdict" else None)
    case = function if function == "words" else text
    reasons = {"words": "error TypeError", "nan": "nan", "none": "none"}
    assert verdict.reason == reasons.get(case, verdict.reason)


def test_a_function_that_hangs_or_crashes_is_unscored_and_the_next_is_answered() -> None:
    verifier = build_verifier({"kind": "python", "target": "user_verifiers:hostile", "deadline": 1})
    verifier.worker.memory = 120 << 20
    reasons = {}
    hanging = ("loop", "sleep", "big number", "own alarm")
    others = ("raise", "exit", "kill", "segfault", "recursion", "memory", "print", "not json")
    for text in hanging + others:
        verifier.worker.deadline = 1 if text in hanging else SECONDS
        verifier.worker.start()
        with within(text):
            verdict = verifier(text, {})
        reasons[text] = verdict.reason if verdict.outcome == "unscored" else verdict.outcome
    verifier.worker.stop()
    assert reasons == {
        **dict.fromkeys(hanging, "timeout"),
        "raise": "error KeyError",
        "exit": "error SystemExit",
        "kill": "crash",
        "segfault": "crash",
        "recursion": "error RecursionError",
        "memory": "memory",
        "print": "right",
        "not json": "error TypeError",
    }
    assert (verifier.worker.calls, verifier.worker.lost) == (12, 11)


def test_what_the_function_started_is_killed_with_it() -> None:
    verifier = build_verifier({"kind": "python", "target": "user_verifiers:hostile", "deadline": 1})
    group = verifier.worker._process.pid
    assert verifier("child", {}).reason == "timeout"
    wait_until(lambda: not of_group(group), f"group {group} to end")


def test_threads_take_turns_and_a_fork_starts_a_worker_of_its_own() -> None:
    target = "user_verifiers:same"
    verifier = build_verifier({"kind": "python", "target": target, "deadline": SECONDS})
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(
            pool.map(lambda i: verifier(str(i), {"answer": str(i % 2)}).outcome, range(40))
        )
    assert verdicts == ["right", "right"] + ["wrong"] * 38
    parent_worker = verifier.worker._process.pid
    child = os.fork()
    if child == 0:
        fine = (
            verifier("7", {"answer": "7"}).outcome == "right"
            and verifier.worker._process.pid != parent_worker
        )
        verifier.worker.stop()
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert verifier("7", {"answer": "7"}).outcome == "right"
    assert verifier.worker._process.pid == parent_worker
    verifier.worker.stop()


@pytest.mark.parametrize("text", ["print", "loop"])
def test_no_worker_outlives_a_parent_that_was_killed(text) -> None:
    """A worker that waits for a question, and one that works on one."""
    code = (
        "from critique_rl.tasks.isolated_verifiers import build_verifier\n"
        "target = 'user_verifiers:hostile'\n"
        "v = build_verifier({'kind': 'python', 'target': target, 'deadline': 3})\n"
        f"print(v.worker._process.pid, flush=True)\nv({text!r}, {{}})\n"
        "print('answered', flush=True)\nimport time; time.sleep(3600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        worker = int(parent.stdout.readline())
        at_rest = ticks(worker)
        if text == "print":
            assert parent.stdout.readline() == "answered\n"
        else:
            wait_until(lambda: ticks(worker) > at_rest + 5, "the worker to loop")
        assert not gone(worker)
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: gone(worker), "the worker to end")


def test_a_worker_ends_with_its_process() -> None:
    code = (
        "from critique_rl.tasks.isolated_verifiers import build_verifier\n"
        # Kept by a name until the end: without one it goes at once, at the end of its pipe.
        "verifier = build_verifier({'kind': 'python', 'target': 'user_verifiers:same'})\n"
        "print(verifier.worker._process.pid)"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    worker = int(done.stdout)
    wait_until(lambda: gone(worker), "the worker to end")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("maths", "unknown kind maths; did you mean 'math'"),
        ({"kind": "math", "deadlin": 3}, "did you mean 'deadline'"),
        ({"kind": "math", "deadline": 0}, "deadline: got 0, expected seconds"),
        ({"kind": "python"}, "expected module:function"),
        ({"kind": "python", "target": "user_verifiers"}, "expected module:name"),
        ({"kind": "python", "target": "no_such_module:f"}, "no module 'no_such_module'"),
        ({"kind": "python", "target": "user_verifiers:no_such"}, "has no 'no_such'; it has "),
        ({"kind": "python", "target": "user_verifiers:number"}, "is a int, expected a function"),
        ({"kind": "python", "target": "user_verifiers:one_argument"}, r"expected \(text, row\)"),
    ],
)
def test_a_mistake_in_the_verifier_section_is_named_before_training(spec, message) -> None:
    with pytest.raises(ConfigError, match=message):
        load_task(TaskConfig("lab/chain", size=3, verifier=spec), 0)


def test_a_task_is_judged_by_the_verifier_that_the_pipeline_names() -> None:
    verifier = {"kind": "python", "target": "user_verifiers:same", "deadline": SECONDS}
    task = load_task(TaskConfig("lab/chain", size=3, verifier=verifier), 0)
    assert isinstance(task.verifier, WorkerVerifier)
    assert task.verifier("13", {"answer": "13"}).outcome == "right"
    task.verifier.worker.stop()
    assert load_task(TaskConfig("lab/chain", size=3, verifier="choice"), 0).verifier is choice
