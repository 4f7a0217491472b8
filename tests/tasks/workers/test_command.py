"""Verifiers by command: every reply is a verdict on its own question or a counted loss, and no
program outlives its run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from waiting import SECONDS, gone, wait_until, within

from critique_rl.config.checks import ConfigError
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.judging import count_lost
from critique_rl.tasks.workers.program import CommandFailed, Program

pytestmark = pytest.mark.processes
TESTS = Path(__file__).parents[2]
JUDGE = str(TESTS / "command_judge.py")
PYTHON = sys.executable


def built(*words: object, **options):
    argv = [PYTHON, JUDGE, *map(str, words)]
    return build_verifier({"kind": "command", "argv": argv, "deadline": SECONDS, **options})


@pytest.fixture(scope="module")
def verifier():
    verifier = built(workers=1)
    yield verifier
    verifier.worker.stop()


def judged(verifier, texts, **columns):
    # Rows that differ, or equal texts would share a judgement.
    rows = [{"place": place, **columns} for place in range(len(texts))]
    return verifier.judge_all(texts, rows)


REPLIES = {
    "right": ("right", ""),
    "half": ("right", ""),
    "little": ("wrong", ""),
    "wrong": ("wrong", "7, expected 8"),
    "unreadable": ("unreadable", "no box"),
    "unreadable 0": ("unreadable", ""),
    "cannot judge": ("unscored", "no gold answer: row 7"),
    "no reason": ("unscored", "no reason given"),
    "nan": ("unscored", "reward: got NaN, expected a number from 0 to 1"),
    "inf": ("unscored", "reward: got Infinity, expected a number from 0 to 1"),
    "over": ("unscored", "reward: got 1.5, expected a number from 0 to 1"),
    "under": ("unscored", "reward: got -0.1, expected a number from 0 to 1"),
    "true": ("unscored", "reward: got true, expected a number from 0 to 1"),
    "text": ("unscored", 'reward: got "1.0", expected a number from 0 to 1'),
    "null": ("unscored", "reward: got null, expected a number from 0 to 1"),
    "nothing": ("unscored", "reward: got null, expected a number from 0 to 1"),
    "both": ("unscored", "reply: got unscored with a reward, or with unreadable"),
    "unreadable 1": ("unscored", "reply: got unreadable with the reward 1"),
}


def test_every_reply_to_the_right_question_is_a_verdict(verifier) -> None:
    verdicts = judged(verifier, list(REPLIES))
    outcomes = [(verdict.outcome, verdict.reason) for verdict in verdicts]
    assert dict(zip(REPLIES, outcomes, strict=True)) == REPLIES
    assert verifier.worker.restarts == 0
    assert (verdicts[1].details, verdicts[3].answer) == ({"reward": 0.5}, "7")
    counts = count_lost(verdicts)
    assert (counts["unscored/reward"], counts["unscored/reply"]) == (8, 2)


def test_the_threshold_says_which_part_of_a_score_is_right() -> None:
    strict = built(threshold=1.0)
    assert [verdict.outcome for verdict in judged(strict, ["half", "right"])] == ["wrong", "right"]
    strict.worker.stop()


LOSSES = {
    "die": "crash",
    "half an answer": "crash",
    "noise": "no JSON line",
    "object": "no JSON line",
    "bytes": "no JSON line",
    "deep": "no JSON line",
    "endless line": "no JSON line",
    "other id": "wrong id",
    "earlier id": "wrong id",
    "id as text": "wrong id",
    "id true": "wrong id",
}


def test_what_loses_its_program_twice_is_unscored_and_holds_no_other_up(capsys) -> None:
    verifier = built(workers=2)
    texts = []
    for text in LOSSES:
        texts += ["right", text, "wrong"]
    with within("all losses"):
        verdicts = judged(verifier, texts)
    verifier.worker.stop()
    outcomes = [(verdict.outcome, verdict.reason) for verdict in verdicts]
    assert outcomes[1::3] == [("unscored", code) for code in LOSSES.values()]
    assert {outcome for outcome, _ in outcomes[0::3]} == {"right"}
    assert {outcome for outcome, _ in outcomes[2::3]} == {"wrong"}
    assert (verifier.worker.lost, verifier.worker.restarts) == (len(LOSSES), 2 * len(LOSSES))
    assert count_lost(verdicts)["unscored/no JSON line"] == 5
    errors = capsys.readouterr().err
    assert "ended with exit code 3 (last words) while it judged" in errors
    assert "stdout is for answers alone, so send prints to stderr" in errors


def test_an_answer_is_kept_though_its_program_dies_and_the_next_is_asked_again(tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    verifier = built(log, workers=1)
    texts = ["right", "answer, then die", "wrong", "double", "wrong", "die once", "late double"]
    texts += ["wrong"]
    verdicts = judged(verifier, texts, note=str(tmp_path / "seen"))
    verifier.worker.stop()
    outcomes = [verdict.outcome for verdict in verdicts]
    # The first of two replies counts; the second is no reward of the next question.
    assert outcomes == ["right", "right", "wrong", "right", "wrong", "right", "right", "wrong"]
    asked = Counter(json.loads(line)[2] for line in log.read_text().splitlines())
    # Only what was open when its program was lost is judged a second time. The last one is open
    # when the late reply comes; whether the program has judged it by then is chance.
    assert asked.pop(7) <= 2
    assert asked == {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 2, 6: 1}
    assert verifier.worker.lost == 0


def test_what_hangs_is_killed_with_all_that_it_started(tmp_path) -> None:
    verifier = built(deadline=0.5, step_deadline=60)
    note = tmp_path / "child"
    hanging, following = judged(verifier, ["child", "right"], note=str(note))
    verifier.worker.stop()
    assert (hanging.outcome, hanging.reason) == ("wrong", "timeout")
    assert following.outcome == "right"
    wait_until(lambda: gone(int(note.read_text())), "the program's child to end")


def test_a_program_that_holds_too_much_memory_is_killed() -> None:
    verifier = built(memory_gb=0.2, workers=1)
    lost, following = judged(verifier, ["memory", "right"])
    verifier.worker.stop()
    assert (lost.outcome, lost.reason) == ("unscored", "memory")
    assert following.outcome == "right"


def test_long_texts_and_odd_characters_arrive_whole(verifier) -> None:
    texts = ["length " + "é" * 999_000, "\ud800 \U0001f600 \u2028 \0 \r\n", "stderr"]
    rows = [{"length": len(text)} for text in texts]
    with within("a megabyte each way"):
        verdicts = verifier.judge_all(texts, rows)
    assert [verdict.outcome for verdict in verdicts] == ["right"] * 3


def test_thousands_of_questions_are_each_judged_once(tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    verifier = built(log)
    count = 3000
    with within("all questions"):
        verdicts = judged(verifier, ["right", "wrong", "little"] * (count // 3))
    verifier.worker.stop()
    assert [verdict.outcome for verdict in verdicts] == ["right", "wrong", "wrong"] * (count // 3)
    places = [json.loads(line)[2] for line in log.read_text().splitlines()]
    assert sorted(places) == list(range(count))


def test_a_program_that_was_killed_between_steps_loses_nothing(tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    verifier = built(log, workers=1)
    assert judged(verifier, ["right"])[0].outcome == "right"
    [number, _, _] = json.loads(log.read_text())
    os.kill(number, signal.SIGKILL)
    assert [verdict.outcome for verdict in judged(verifier, ["wrong", "right"])] == [
        "wrong",
        "right",
    ]
    verifier.worker.stop()


# ---- the start, and the end ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/no/such/program"], "argv '/no/such/program' cannot be started: No such file"),
        (["no_such_program"], "argv 'no_such_program' cannot be started: No such file"),
        ([PYTHON, "-c", "import nope"], r"exit code 1 \(ModuleNotFoundError: No module named 'no"),
        ([PYTHON, "-c", "print('Hello')"], "got the line 'Hello', expected .* prints to stderr"),
        ([PYTHON, "-c", "print('{}')"], "got the line '{}', expected"),
        ([PYTHON, "-c", "import os; os.kill(os.getpid(), 9)"], "was killed by signal 9 before"),
    ],
)
def test_a_program_that_does_not_start_is_refused_with_its_last_words(argv, message) -> None:
    with pytest.raises(ConfigError, match=f"^task.verifier: command: .*{message}"):
        build_verifier({"kind": "command", "argv": argv})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "argv: got None, expected a list of texts"),
        ({"argv": "python judge.py"}, "argv: got 'python judge.py', expected a list"),
        ({"argv": []}, r"argv: got \[\]"),
        ({"argv": ["python", 3]}, "put a number in quotes"),
        ({"argv": ["x"], "threshold": "1"}, "threshold: got '1'"),
        ({"argv": ["x"], "deadlin": 5}, "did you mean 'deadline'"),
        ({"argv": ["x"], "deadline": 5, "step_deadline": 6}, "expected at least 10"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_verifier({"kind": "command", **options})


def test_a_program_that_is_never_ready_is_given_up(monkeypatch) -> None:
    monkeypatch.setattr("critique_rl.tasks.workers.program.READY_SECONDS", 0.3)
    program = Program([PYTHON, "-c", "import sys; sys.stdin.read()"], 1 << 30)
    with pytest.raises(CommandFailed, match=r'no line {"ready": true} in 0.3 seconds'):
        program.wait_until_ready()
    # It ends with its stdin.
    program.process.stdin.close()
    assert program.process.wait(SECONDS) == 0


def test_the_program_has_its_own_packages() -> None:
    code = (
        "import json, os, sys; print('{\"ready\": true}'); q = json.loads(input())\n"
        "r = {n: os.environ.get(n) for n in ('PYTHONPATH', 'PYTHONUNBUFFERED')}\n"
        "print(json.dumps({'id': q['id'], 'reward': 0, 'reason': json.dumps(r)}))"
    )
    verifier = build_verifier({"kind": "command", "argv": [PYTHON, "-c", code]})
    verdict = verifier("x", {})
    verifier.worker.stop()
    assert json.loads(verdict.reason) == {"PYTHONPATH": None, "PYTHONUNBUFFERED": "1"}


def test_a_program_that_judges_nothing_is_refused_before_training(verifier, tmp_path) -> None:
    rows = [{"answer": "right"}, {"answer": "wrong"}]
    assert verifier.check_gold_answers(rows) == ""
    # Other forms of it are no words of the program's, so it calls them right.
    code = (
        "import json, sys; print('{\"ready\": true}')\n"
        "for line in sys.stdin: print(json.dumps({'id': json.loads(line)['id'], 'reward': 0}))"
    )
    always_wrong = build_verifier({"kind": "command", "argv": [PYTHON, "-c", code]})
    warning = always_wrong.check_gold_answers(rows)
    always_wrong.worker.stop()
    assert "called none of 6 gold answers right, but wrong" in warning
    silent = "import sys; print('{\"ready\": true}'); sys.stdin.read()"
    deaf = build_verifier(
        {"kind": "command", "argv": [PYTHON, "-c", silent], "deadline": 0.2, "step_deadline": 2}
    )
    with pytest.raises(ConfigError, match=r"judged none of 6 gold answers \(.*timeout"):
        deaf.check_gold_answers(rows)
    deaf.worker.stop()


@pytest.mark.parametrize("text", ["right", "hang"])
def test_no_program_outlives_a_run_that_was_killed(text, tmp_path) -> None:
    log = tmp_path / "log.jsonl"
    section = {"kind": "command", "argv": [PYTHON, JUDGE, str(log)], "deadline": SECONDS}
    code = (
        "import time\nfrom critique_rl.tasks.isolated_verifiers import build_verifier\n"
        f"v = build_verifier({section!r})\nv({text!r}, {{}})\ntime.sleep(3600)"
    )
    run = subprocess.Popen([PYTHON, "-c", code], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: log.exists() and log.read_text(), "the question to be asked")
        [number, _, _] = json.loads(log.read_text())
        assert not gone(number)
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: gone(number), "the program to end")
