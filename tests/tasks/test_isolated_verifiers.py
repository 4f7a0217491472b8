"""Verifiers in killable processes: right and wrong as Math-Verify sees them. What hangs again is
wrong, what crashes or was never judged is unscored, and neither holds the others up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import user_verifiers
from waiting import SECONDS, gone, of_group, ticks, wait_until, within

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.judging import one_deadline
from critique_rl.tasks.killable_process import LONGEST_OUTPUT
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.tasks.verifiers import choice
from critique_rl.tasks.workers.verifier import WorkerVerifier

pytestmark = pytest.mark.processes
HERE = Path(__file__).parents[1]


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
        ("same", "\ud800 \U0001f600 \u2028 \0", "q", "wrong"),
        ("share", "half", "q", "right"),
        ("share", "little", "q", "wrong"),
        ("share", "nan", "q", "unscored"),
        ("share", "none", "q", "unscored"),
        ("verdict", "7", "q", "abstained"),
        ("trl", "7", [{"role": "user", "content": "q"}], "right"),
        ("trl", "8", [{"role": "user", "content": "q"}], "wrong"),
        ("plain_trl", "7", "q", "right"),
        ("words", "7", "q", "unscored"),
        ("odd_outcome", "7", "q", "unscored"),
        ("odd_confidence", "7", "q", "unscored"),
        ("odd_confidence", "8", "q", "unscored"),
    ],
)
def test_a_function_of_the_users_own_judges(function, text, prompt, outcome) -> None:
    target = f"user_verifiers:{function}"
    verifier = build_verifier({"kind": "python", "target": target, "deadline": SECONDS})
    verdict = verifier(text, {"answer": "7", "prompt": prompt, "when": Path("not json")})
    verifier.worker.stop()
    assert verdict.outcome == outcome
    assert verdict.confidence == (0.25 if function == "verdict" else None)
    reasons = {
        "words": "error TypeError",
        "odd_outcome": "error UnknownOutcome",
        "odd_confidence": "error NoShare",
        "nan": "nan",
        "none": "none",
    }
    expected = reasons.get(function, reasons.get(text, verdict.reason))
    assert verdict.reason == expected


OUTCOMES = {
    "loop": ("wrong", "timeout"),
    "hold the interpreter": ("wrong", "timeout"),
    "own alarm": ("wrong", "timeout"),
    "endless flood": ("wrong", "timeout"),
    "raise": ("unscored", "error KeyError"),
    "own exception": ("unscored", "error Stop"),
    "recursion": ("unscored", "error RecursionError"),
    "not json": ("unscored", "error TypeError"),
    "exit at once": ("unscored", "crash"),
    "write to the pipes": ("unscored", "crash"),
    "memory": ("unscored", "memory"),
    "one large block": ("unscored", "memory"),
    "print": ("right", ""),
    "flood": ("right", ""),
    "fork": ("right", ""),
}
"""What `user_verifiers.hostile` does -> the verdict on it."""


def hostile(**options):
    return build_verifier({"kind": "python", "target": "user_verifiers:hostile", **options})


def judge_all(verifier, texts):
    # Rows that differ, or equal texts would share a judgement.
    verdicts = verifier.judge_all(texts, [{"place": place} for place in range(len(texts))])
    return [(verdict.outcome, verdict.reason) for verdict in verdicts]


def test_no_behaviour_of_a_function_holds_the_others_up(capsys) -> None:
    verifier = hostile(deadline=0.3, memory_gb=0.12, workers=4)
    hanging = [text for text, (_, reason) in OUTCOMES.items() if reason == "timeout"]
    others = [text for text in OUTCOMES if text not in hanging]
    with within("all behaviours"):
        outcomes = judge_all(verifier, hanging)
        # What hangs has been killed; what does not has its time on a busy machine.
        verifier.worker.deadline = SECONDS
        verifier.worker.stop()
        outcomes += judge_all(verifier, others)
    assert dict(zip(hanging + others, outcomes, strict=True)) == OUTCOMES
    assert (verifier.worker.calls, verifier.worker.lost) == (15, 12)
    verifier.worker.stop()
    # A flood is passed on up to a bound per process.
    assert len(capsys.readouterr().err) < 100 * LONGEST_OUTPUT


def test_a_reply_of_any_length_is_a_verdict_with_a_bound() -> None:
    verifier = hostile(deadline=SECONDS)
    verdict = verifier("long reason", {})
    assert (verdict.outcome, len(verdict.answer), len(verdict.reason)) == ("wrong", 10_000, 10_000)
    verifier.worker.stop()


def test_an_answer_that_was_slow_once_is_judged(tmp_path) -> None:
    target = "user_verifiers:slow_once"
    verifier = build_verifier({"kind": "python", "target": target, "deadline": 0.5})
    row = {"note": str(tmp_path / "seen")}
    verdicts = verifier.judge_all(["hang", "next"], [row, row])
    assert [verdict.outcome for verdict in verdicts] == ["right", "right"]
    verifier.worker.stop()


def test_what_is_not_judged_before_the_step_ends_is_unscored() -> None:
    verifier = hostile(deadline=SECONDS, workers=2)
    verifier.worker.step_deadline = 1
    with within("the step", seconds=20):
        verdicts = judge_all(verifier, ["print"] * 3 + ["sleep"] * 20)
    assert verdicts == [("right", "")] * 3 + [("unscored", "step deadline")] * 20
    assert judge_all(verifier, ["print"]) == [("right", "")]
    verifier.worker.stop()


def test_all_batches_of_a_step_share_its_deadline() -> None:
    reward = VerifierReward(hostile(deadline=SECONDS))
    reward.verifier.worker.step_deadline = 1
    with one_deadline([reward]):
        assert reward(["print", "sleep"]) == [1.0, None]
        # The refinements of that step.
        assert reward(["print", "sleep"], turn=[2, 2]) == [None, None]
        # What was judged in the step stays judged.
        assert reward(["print"]) == [1.0]
    assert reward(["print"]) == [1.0]
    reward.verifier.worker.stop()


def test_hanging_does_not_pay() -> None:
    reward = VerifierReward(hostile(deadline=0.5))
    assert reward(["sleep", "print", "exit at once"]) == [0.0, 1.0, None]
    reward.verifier.worker.stop()


@pytest.mark.parametrize("text", ["child", "daemon"])
def test_what_the_function_started_is_killed_with_it(text, tmp_path) -> None:
    verifier = hostile(deadline=0.5)
    [group] = verifier.worker.process_numbers
    note = tmp_path / "daemon"
    verdict = verifier.try_once(text, {"note": str(note)})
    assert verdict.reason == "timeout"
    wait_until(lambda: not of_group(group), f"group {group} to end")
    if text == "daemon":
        wait_until(lambda: gone(int(note.read_text())), "the daemon to end")


def test_a_function_itself_is_given_processes() -> None:
    verifier = build_verifier(user_verifiers.same)
    assert verifier("7", {"answer": "7"}).outcome == "right"
    verifier.worker.stop()
    file = build_verifier({"kind": "python", "target": f"{HERE}/user_verifiers.py:same"})
    assert file("7", {"answer": "8"}).outcome == "wrong"
    file.worker.stop()
    with pytest.raises(ConfigError, match="which another process cannot import"):
        build_verifier(lambda text, row: True)


def test_the_working_folder_hides_no_module_of_ours(tmp_path, monkeypatch) -> None:
    (tmp_path / "critique_rl").mkdir()
    (tmp_path / "critique_rl" / "__init__.py").write_text("raise ImportError('another one')")
    monkeypatch.chdir(tmp_path)
    verifier = build_verifier(user_verifiers.same)
    assert verifier("7", {"answer": "7"}).outcome == "right"
    verifier.worker.stop()


def test_a_row_that_is_no_json_is_unscored() -> None:
    verifier = build_verifier(user_verifiers.same)
    circle = {}
    circle["self"] = circle
    verdict = verifier("7", circle)
    assert (verdict.outcome, verdict.reason) == ("unscored", "row: it is no JSON (ValueError)")
    verifier.worker.stop()


def test_a_worker_that_ends_between_batches_is_replaced() -> None:
    verifier = build_verifier(user_verifiers.same)
    [number] = verifier.worker.process_numbers
    os.kill(number, signal.SIGKILL)
    assert verifier("7", {"answer": "7"}).outcome == "right"
    assert verifier.worker.process_numbers != [number]
    verifier.worker.stop()


def test_threads_take_turns_and_a_fork_starts_a_worker_of_its_own() -> None:
    target = "user_verifiers:same"
    verifier = build_verifier({"kind": "python", "target": target, "deadline": SECONDS})
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(
            pool.map(lambda i: verifier(str(i), {"answer": str(i % 2)}).outcome, range(40))
        )
    assert verdicts == ["right", "right"] + ["wrong"] * 38
    parent_workers = verifier.worker.process_numbers
    child = os.fork()
    if child == 0:
        fine = (
            verifier("7", {"answer": "7"}).outcome == "right"
            and verifier.worker.process_numbers != parent_workers
        )
        verifier.worker.stop()
        os._exit(0 if fine else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert verifier("7", {"answer": "7"}).outcome == "right"
    assert verifier.worker.process_numbers == parent_workers
    verifier.worker.stop()


@pytest.mark.parametrize("text", ["print", "loop", "hold the interpreter", "deaf"])
def test_no_worker_outlives_a_parent_that_was_killed(text) -> None:
    """A worker that waits for a question, and one that works on one."""
    code = (
        "from critique_rl.tasks.isolated_verifiers import build_verifier\n"
        "target = 'user_verifiers:hostile'\n"
        "v = build_verifier({'kind': 'python', 'target': target, 'deadline': 300})\n"
        f"print(*v.worker.process_numbers, flush=True)\nv({text!r}, {{}})\n"
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
        elif text != "deaf":
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
        "print(*verifier.worker.process_numbers)"
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
        (
            {"kind": "math", "step_deadline": float("nan")},
            "step_deadline: got nan, expected seconds",
        ),
        ({"kind": "math", "memory_gb": -1}, "memory_gb: got -1, expected gigabytes"),
        ({"kind": "math", "workers": 0}, "workers: got 0, expected a number of processes"),
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
