"""`critique-rl judge`: verdicts of a file's rows, alone on stdout where JSON is asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from critique_rl.cli.entry import main
from critique_rl.cli.judge import read_judged_rows

pytestmark = pytest.mark.processes
HERE = Path(__file__).parents[1]
ROWS = [
    {"completion": "Answer: 1 1/2", "answer": "1.5"},
    {"completion": "Answer: 5", "answer": "-5"},
    {"completion": "Answer: 5:30", "answer": "30"},
]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def judged(capsys, *words: str) -> list[dict]:
    assert main(["judge", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_is_a_list_in_the_rows_order_alone_on_stdout(capsys) -> None:
    assert main(["judge", write("a.jsonl", ROWS), "--json"]) == 0
    output, errors = capsys.readouterr()
    assert json.loads(output) == [
        {"outcome": "right", "answer": "1 1/2", "reason": ""},
        {"outcome": "wrong", "answer": "5", "reason": ""},
        {"outcome": "unreadable", "answer": None, "reason": "no number of a known form"},
    ]
    assert "verifier: last_number, as init would choose" in errors


def test_the_table_has_each_row_and_a_summary(capsys) -> None:
    assert main(["judge", write("a.jsonl", ROWS), "--verifier", "last_number"]) == 0
    output, errors = capsys.readouterr()
    assert "unreadable" in output
    assert "last_number: 3 rows; 1 right, 1 wrong, 1 unreadable" in output
    assert errors == ""


@pytest.mark.parametrize(
    ("rows", "verifier"),
    [
        ([{"completion": "\\boxed{Rome}", "answer": "Rome"}], "boxed_answer"),
        ([{"completion": "(B)", "answer": "B"}], "choice"),
        ([{"completion": "\\boxed{x}", "answer": "x^2"}], "math"),
    ],
)
def test_the_answers_choose_the_verifier(rows, verifier, capsys) -> None:
    assert main(["judge", write("a.jsonl", rows), "--json"]) == 0
    assert f"verifier: {verifier}, as init would choose" in capsys.readouterr().err


def test_rows_that_lack_something_are_unscored_with_a_reason(capsys) -> None:
    rows = [
        {"completion": None, "answer": "5"},
        {"completion": "5", "answer": None},
        {"completion": [{"role": "assistant", "content": "it is 5"}], "answer": "5"},
    ]
    reasons = [(row["outcome"], row["reason"]) for row in judged(capsys, write("a.jsonl", rows))]
    assert reasons == [("unscored", "no completion"), ("unscored", "no gold answer"), ("right", "")]


def test_csv_is_read_as_the_data_loader_reads_it(capsys) -> None:
    Path("a.csv").write_text("completion,answer\n\\boxed{007},007\n\\boxed{7},007\n")
    assert [row["outcome"] for row in judged(capsys, "a.csv")] == ["right", "unreadable"]


def test_a_function_of_the_users_own_judges_a_file() -> None:
    rows = [{"completion": "7", "answer": "7"}, {"completion": "8", "answer": "7"}]
    file = Path(write("a.jsonl", rows)).resolve()
    words = ["judge", str(file), "--verifier", "user_verifiers:same", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "critique_rl", *words],
        cwd=HERE,
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert [row["outcome"] for row in json.loads(done.stdout)] == ["right", "wrong"]


@pytest.mark.parametrize(
    ("rows", "words", "message"),
    [
        ([{"text": "5", "answer": "5"}], [], "no column 'completion'; known: answer, text"),
        ([{"completion": "5", "gold": "5"}], [], "no column 'answer'"),
        (ROWS, ["--verifier", "last_nubmer"], "did you mean 'last_number'"),
        (ROWS, ["--verifier", "no_such_module:f"], "no module 'no_such_module'"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_sentence(rows, words, message, capsys) -> None:
    assert main(["judge", write("a.jsonl", rows), "--json", *words]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert message in errors
    assert "task.verifier" not in errors


def test_a_file_that_is_not_there_is_refused(capsys) -> None:
    assert main(["judge", "no.jsonl"]) == 2
    assert "no file no.jsonl" in capsys.readouterr().err


def test_answers_are_read_as_a_run_reads_them(tmp_path) -> None:
    rows = [
        {"completion": "so 42", "answer": "6*7\n#### 42"},
        {"completion": "7"},
        {"completion": "1e20", "answer": 12345678901234567890},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_judged_rows(str(path))
    assert [row["answer"] for row in read] == ["42", None, "12345678901234567890"]


@pytest.mark.processes
def test_programs_are_judged_by_the_tests_of_their_rows(tmp_path, capsys) -> None:
    path = tmp_path / "programs.jsonl"
    rows = [
        {"completion": "```python\ndef f(x): return x + 1\n```", "tests": ["assert f(1) == 2"]},
        {"completion": "```python\ndef f(x): return x\n```", "tests": ["assert f(1) == 2"]},
        {"completion": "No.", "tests": ["assert f(1) == 2"]},
        {"completion": None, "tests": ["assert f(1) == 2"]},
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    for option in ([], ["--verifier", "tests"]):
        assert main(["judge", str(path), "--json", *option]) == 0
        records = json.loads(capsys.readouterr().out)
        outcomes = [record["outcome"] for record in records]
        assert outcomes == ["right", "wrong", "unreadable", "unscored"]
        assert records[1]["reason"] == "f(1) gave 1, expected 2"


def test_tests_are_asked_for_where_rows_have_none(tmp_path, capsys) -> None:
    path = tmp_path / "programs.jsonl"
    path.write_text(json.dumps({"completion": "a", "answer": "b"}))
    assert main(["judge", str(path), "--verifier", "tests", "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert record["outcome"] == "unscored"
    assert "no tests in the column 'tests'" in record["reason"]
