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
import yaml
from waiting import SECONDS, gone, wait_until, within

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.schema import PolicyConfig, RunConfig, TaskConfig
from critique_rl.experiment.preflight import setting_refusals
from critique_rl.experiment.resume.changes import input_changes
from critique_rl.experiment.resume.inputs import code_inputs
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


@pytest.fixture
def in_folder(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


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
    "crash": ("unscored", "verifier: crash"),
    "timeout": ("wrong", "verifier: timeout"),
    "nan": ("unscored", "reward: got NaN, expected a number from 0 to 1"),
    "inf": ("unscored", "reward: got Infinity, expected a number from 0 to 1"),
    "over": ("unscored", "reward: got 1.5, expected a number from 0 to 1"),
    "under": ("unscored", "reward: got -0.1, expected a number from 0 to 1"),
    "true": ("unscored", "reward: got true, expected a number from 0 to 1"),
    "text": ("unscored", 'reward: got "1.0", expected a number from 0 to 1'),
    "null": ("unscored", "reward: got null, expected a number from 0 to 1"),
    "nothing": ("unscored", "reply: got no reward, unscored or unreadable, but nothing more"),
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
    assert (counts["unscored/reward"], counts["unscored/reply"]) == (7, 3)
    # Its own words are no losses.
    assert (counts["unscored/crash"], counts["timeout"]) == (0, 0)


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
        ({"argv": ["x"], "threshold": 50}, "threshold: got 50, expected a number above 0"),
        ({"argv": ["x"], "deadlin": 5}, "did you mean 'deadline'"),
        ({"argv": ["x"], "deadline": 5, "step_deadline": 6}, "expected at least 10"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_verifier({"kind": "command", **options})


def test_a_program_that_is_never_ready_is_given_up(monkeypatch, capsys) -> None:
    monkeypatch.setattr("critique_rl.tasks.workers.program.SLOW_START", 0.1)
    monkeypatch.setattr("critique_rl.tasks.workers.program.READY_SECONDS", 0.3)
    program = Program([PYTHON, "-c", "import sys; sys.stdin.read()"], 1 << 30)
    with pytest.raises(CommandFailed, match=r'no line {"ready": true} in 0.3 seconds'):
        program.wait_until_ready()
    assert capsys.readouterr().err.count("waiting for the line") == 1
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
    assert "called none of 8 gold answers right, but wrong" in warning
    silent = "import sys; print('{\"ready\": true}'); sys.stdin.read()"
    deaf = build_verifier(
        {"kind": "command", "argv": [PYTHON, "-c", silent], "deadline": 0.2, "step_deadline": 2}
    )
    with pytest.raises(ConfigError, match=r"judged none of 8 gold answers \(.*timeout"):
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


# ---- the recipes ---------------------------------------------------------------------------------


def test_part_of_a_score_of_reasoning_gym_is_no_right_answer() -> None:
    recipe = str(TESTS.parent / "pipelines" / "workers" / "gym_scores.py")
    done = subprocess.run([PYTHON, recipe, "chain_sum", "2"], capture_output=True, text=True)
    row, other = [json.loads(line) for line in done.stdout.splitlines()]
    argv = [PYTHON, recipe, "chain_sum"]
    options = {"threshold": 1.0, "deadline": SECONDS, "workers": 1}
    verifier = build_verifier({"kind": "command", "argv": argv, **options})
    assert verifier.check_gold_answers([row, other]) == ""
    gold = row["answer"]
    texts = [f"so\nAnswer: {gold}\n", f"Answer: {gold}.0 {gold}", "Answer:", gold]
    verdicts = verifier.judge_all(texts, [row] * 4)
    verifier.worker.stop()
    outcomes = [verdict.outcome for verdict in verdicts]
    assert outcomes == ["right", "wrong", "wrong", "unreadable"]
    assert 0 < verdicts[1].details["reward"] < 1


# ---- commands of ours, and the identity of a run -------------------------------------------------


def written(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def pipeline_of(argv: list[str], **options) -> str:
    """A pipeline file on questions whose answer is "right"."""
    rows = [{"question": f"{i}?", "answer": "right", "length": 5} for i in range(60)]
    task = {
        "name": "data",
        "options": {"train": written("rows.jsonl", rows)},
        "verifier": {"kind": "command", "argv": argv, **options},
    }
    data = {
        "task": task,
        "policy": {"model": "lab"},
        "budget": {"optimizer_steps": 2},
        "seeds": [0],
        "primary": "pass@1/all",
        "arms": {"scalar": {}},
    }
    Path("p.yaml").write_text(yaml.safe_dump(data))
    return "p.yaml"


def test_judge_takes_the_verifier_of_a_pipeline_file(in_folder, capsys) -> None:
    texts = ["right", "half", "die", "reward"]
    rows = [{"completion": text, "answer": "x"} for text in texts]
    path = pipeline_of([PYTHON, JUDGE], threshold=0.75, deadline=SECONDS)
    assert main(["judge", written("a.jsonl", rows), "--verifier", path, "--json"]) == 0
    output, errors = capsys.readouterr()
    verdicts = [(verdict["outcome"], verdict["reason"]) for verdict in json.loads(output)]
    assert verdicts == [("right", ""), ("wrong", ""), ("unscored", "crash"), ("right", "")]
    assert "note: 2 times a process was lost or stopped" in errors
    Path("p.yaml").write_text(Path("p.yaml").read_text().replace(JUDGE, "no_such.py"))
    assert main(["judge", "a.jsonl", "--verifier", path]) == 2
    assert "--verifier: command: the program ended with exit code 2" in capsys.readouterr().err


def test_init_writes_a_pipeline_whose_answers_a_program_judges(in_folder, capsys) -> None:
    rows = [{"question": f"{i}?", "answer": "right", "length": 5} for i in range(60)]
    data = written("rows.jsonl", rows)
    command = f"{PYTHON} '{JUDGE}'"
    assert main(["init", data, "--model", "lab", "--judge", command]) == 0
    assert "your program calls gold answers right" in capsys.readouterr().out
    verifier = load_pipeline(Path("pipeline.yaml")).arms["scalar"].task.verifier
    assert verifier == {"kind": "command", "argv": [PYTHON, JUDGE]}
    words = ["init", data, "--model", "lab", "--out", "b.yaml", "--judge", "/no/such"]
    assert main(words) == 0
    assert "WARNING: task.verifier: command: argv '/no/such'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([PYTHON, JUDGE], ""),
        (["/no/such"], "argv '/no/such' cannot be started"),
        ([PYTHON, "-c", "print('{\"ready\": true}'); input(); print('hm')"], "judged none of"),
    ],
)
def test_a_program_that_cannot_judge_is_refused_before_the_first_run(
    argv, message, in_folder
) -> None:
    pipeline = load_pipeline(Path(pipeline_of(argv, deadline=SECONDS)))
    refusals = setting_refusals(pipeline)
    assert len(refusals) == (message != "")
    assert message in "".join(refusals)


def test_a_changed_program_is_another_input_of_a_run(in_folder) -> None:
    folder = Path("judges")
    folder.mkdir()
    (folder / "judge.py").write_text("import json\nfrom rules import rule\nimport sub.deep\n")
    (folder / "rules.py").write_text("rule = 1\n")
    (folder / "unused.py").write_text("")
    (folder / "sub").mkdir()
    (folder / "sub" / "deep.py").write_text("")
    Path("data.bin").write_bytes(b"1")
    argv = ["no_such_program", "judges/judge.py", "--data", "data.bin", "-c", "x" * 5000]
    verifier = {"kind": "command", "argv": argv}
    config = RunConfig(TaskConfig("data", verifier=verifier), PolicyConfig("lab"))
    before = code_inputs(config)
    named = {"judges/judge.py", "judges/rules.py", "judges/sub/deep.py", "data.bin"}
    assert set(before) == {f"code/{name}" for name in named}
    (folder / "rules.py").write_text("rule = 2\n")
    [change] = input_changes({"inputs": before}, code_inputs(config))
    assert change.startswith("code/judges/rules.py ")
    # A function in a file is recorded too.
    target = {"kind": "python", "target": "judges/judge.py:judge"}
    config = RunConfig(TaskConfig("data", verifier=target), PolicyConfig("lab"))
    assert "code/judges/rules.py" in code_inputs(config)
