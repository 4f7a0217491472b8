"""A multiple choice is asked with its choices, and its answer is a letter; or it is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.schema import TaskConfig
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.load import load_task
from critique_rl.tasks.row import Row
from critique_rl.tasks.user_data import load_user_data

COUNT = 40
BIRDS = ["dog", "hen", "cow", "ant"]


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def read(rows: list[dict], **options) -> dict[str, Row]:
    """id -> row, of all splits."""
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_user_data(DataOptions("a.jsonl", **options))
    return {row["id"]: row for split in data.splits.values() for row in split}


@pytest.mark.parametrize(
    ("columns", "answer"),
    [
        ({"choices": BIRDS}, 1),
        ({"choices": BIRDS}, "1"),
        ({"choices": BIRDS}, "B"),
        ({"choices": BIRDS}, "(B)"),
        ({"choices": BIRDS}, "hen"),
        ({"options": BIRDS}, "Hen"),
        ({"Choices": {"text": BIRDS, "label": ["A", "B", "C", "D"]}}, "B"),
        ({"choices": {"text": BIRDS, "label": ["1", "2", "3", "4"]}}, "2"),
        ({"options": dict(zip("ABCD", BIRDS, strict=True))}, "B"),
        ({"options": dict(zip("ABCD", BIRDS, strict=True))}, "hen"),
        ({"choices": [{"label": x, "text": t} for x, t in zip("ABCD", BIRDS, strict=True)]}, "B"),
        ({"options": ["A)dog", "B)hen", "C)cow", "D)ant"]}, "B"),
        ({"endings": BIRDS}, "1"),
        (dict(zip("ABCD", BIRDS, strict=True)), "B"),
        (dict(zip("ABCD", BIRDS, strict=True)), "hen"),
        (dict(zip(("opa", "opb", "opc", "opd"), BIRDS, strict=True)), 1),
        (dict(zip(("option_a", "option_b", "option_c", "option_d"), BIRDS, strict=True)), "b"),
        (dict(zip(("ending0", "ending1", "ending2", "ending3"), BIRDS, strict=True)), 1),
        (dict(zip(("option1", "option2", "option3", "option4"), BIRDS, strict=True)), "2"),
        (dict(zip(("choice 1", "choice 2", "choice 3", "choice 4"), BIRDS, strict=True)), "hen"),
    ],
)
def test_choices_are_asked_and_the_answer_is_a_letter(columns, answer) -> None:
    rows = read([{"question": f"Bird {i}?", **columns, "answer": answer} for i in range(COUNT)])
    assert len(rows) == COUNT
    row = rows["train/3"]
    assert row["answer"] == "B"
    assert row["question"] == "Bird 3?\n\nA. dog\nB. hen\nC. cow\nD. ant"
    assert row["prompt"] == [{"role": "user", "content": row["question"]}]


def test_places_from_1_are_known_by_the_last_one() -> None:
    rows = read(
        [{"question": f"{i}?", "choices": BIRDS, "answer": i % 4 + 1} for i in range(COUNT)]
    )
    assert [rows[f"train/{i}"]["answer"] for i in range(4)] == ["A", "B", "C", "D"]


def test_a_number_beside_texts_is_a_place_even_where_the_texts_are_numbers() -> None:
    rows = read([{"question": f"{i}?", "choices": ["1", "2", "0"], "answer": 1} for i in range(40)])
    assert rows["train/0"]["answer"] == "B"


def test_labels_may_differ_from_row_to_row_and_choices_may_be_fewer() -> None:
    first = {"question": "a?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answer": "2"}
    second = {"question": "b?", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}}
    rows = read(
        [{**first, "question": f"a{i}?"} for i in range(20)]
        + [{**second, "answer": "C", "question": f"b{i}?"} for i in range(20)]
    )
    assert (rows["train/0"]["answer"], rows["train/20"]["answer"]) == ("B", "C")
    columns = [
        {"question": f"{i}?", "A": "x", "B": "y", "C": None, "answer": "B"} for i in range(20)
    ]
    columns += [
        {"question": f"c{i}?", "A": "x", "B": "y", "C": "z", "answer": "C"} for i in range(20)
    ]
    rows = read(columns)
    assert rows["train/0"]["question"] == "0?\n\nA. x\nB. y"


@pytest.mark.parametrize(
    ("cell", "is_read"),
    [
        (str(BIRDS), True),
        (json.dumps(BIRDS), True),
        (str({"text": BIRDS, "label": list("ABCD")}), True),
        ("['dog' 'hen' 'cow' 'ant']", False),
        ("{'text': array(['dog'])}", False),
    ],
)
def test_lists_in_cells_of_csv(cell, is_read) -> None:
    with open("a.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "choices", "answer"])
        writer.writerows([f"Bird {i}?", cell, 1] for i in range(COUNT))
    if is_read:
        row = load_user_data(DataOptions("a.csv")).splits["train"][0]
        assert row["question"].endswith("\n\nA. dog\nB. hen\nC. cow\nD. ant")
        assert row["answer"] == "B"
    else:
        with pytest.raises(ConfigError, match=r"'choices': got .*expected a list of choices"):
            load_user_data(DataOptions("a.csv"))


def test_a_parquet_file_of_objects_and_one_of_lists(tmp_path) -> None:
    choices = [{"text": BIRDS, "label": list("ABCD")}] * COUNT
    questions = [f"{i}?" for i in range(COUNT)]
    table = pa.table({"question": questions, "choices": choices, "answerKey": ["B"] * COUNT})
    pq.write_table(table, "arc.parquet")
    data = load_user_data(DataOptions("arc.parquet", answer="answerKey"))
    assert {row["answer"] for row in data.splits["train"]} == {"B"}
    lists = pa.table({"question": questions, "choices": [BIRDS] * COUNT, "answer": [1] * COUNT})
    pq.write_table(lists, "mmlu.parquet")
    data = load_user_data(DataOptions("mmlu.parquet"))
    assert "\nB. hen\n" in data.splits["train"][0]["question"]


def test_rows_whose_answer_is_no_choice_are_left_out_and_counted() -> None:
    rows = [{"question": f"{i}?", "choices": BIRDS, "answer": "hen"} for i in range(COUNT)]
    rows[5]["answer"] = "cat"
    rows[6]["choices"] = [str(i) for i in range(11)]
    rows[7]["choices"] = ["hen"]
    read(rows)
    data = load_user_data(DataOptions("a.jsonl"))
    assert data.left_out == {
        "its answer is none of its choices": 1,
        "fewer than 2 choices, or more than 10": 2,
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"choices": ["x", "y"], "answer": "q"}, "choices holds choices, but answers such as 'q'"),
        ({"A": "x", "B": "y", "C": "z", "answer": "q"}, "column A, B, C holds choices"),
        ({"option_a": "x", "option_b": "y", "answer": "q"}, "column option_a, option_b holds"),
        ({"options": "a) x, b) y", "answer": "a"}, "column 'options': got .*list of choices"),
        ({"choices": [0, 1], "answer": 1}, None),
        ({"choices": [1, 2, 0], "answer": 1}, "can be the text or the place from 0"),
    ],
)
def test_choices_that_cannot_be_asked_are_refused_by_init_and_run(capsys, row, message) -> None:
    rows = [{"question": f"{i}?", **row} for i in range(COUNT)]
    if message is None:
        assert read(rows)["train/0"]["answer"] == "B"
        return
    with pytest.raises(ConfigError, match=message):
        read(rows)
    with pytest.raises(ConfigError, match=message):
        load_task(TaskConfig("data", options={"train": "a.jsonl"}, verifier="choice"), 0)
    assert main(["init", "a.jsonl"]) == 2
    assert "choices" in capsys.readouterr().err
    assert not Path("pipeline.yaml").exists()
    asked = read(rows, choices="none")
    assert asked["train/0"]["question"] == "0?"


def test_a_prompt_has_to_show_its_choices() -> None:
    rows = [{"prompt": f"Bird {i}?", "choices": BIRDS, "answer": 1} for i in range(COUNT)]
    with pytest.raises(
        ConfigError, match="asked as it is, and lacks the choices of column choices"
    ):
        read(rows)
    for row in rows:
        row["prompt"] += " (A) dog (B) hen (C) cow (D) ant"
    shown = read(rows)["train/0"]
    assert shown["prompt"] == "Bird 0? (A) dog (B) hen (C) cow (D) ant"
    assert shown["answer"] == "B"


def test_numbers_called_a_and_b_are_no_choices() -> None:
    rows = [{"question": f"{i} + 2?", "a": i, "b": 2, "answer": i + 2} for i in range(COUNT)]
    assert read(rows)["train/1"]["question"] == "1 + 2?"
    bits = [{"question": f"{i} xor?", "a": i % 2, "b": 1, "answer": 1} for i in range(COUNT)]
    assert read(bits)["train/1"]["question"] == "1 xor?"


@pytest.mark.parametrize("value", ["--fast", {"y": "b"}, {"x": 1, "speed": "high"}, 7, "", [], {}])
def test_other_columns_called_options_are_no_choices(value) -> None:
    rows = [{"question": f"{i}?", "options": value, "answer": 1} for i in range(COUNT)]
    row = read(rows)["train/1"]
    assert (row["question"], row["options"]) == ("1?", value)


def test_the_columns_may_be_named() -> None:
    rows = [{"question": f"{i}?", "x": "dog", "y": "hen", "answer": "hen"} for i in range(COUNT)]
    assert read(rows, choices="x, y")["train/0"]["question"] == "0?\n\nA. dog\nB. hen"
    with pytest.raises(ConfigError, match=r"no column 'question'"):
        read(rows, choices="question")
    for row in rows:
        row["note"] = "none"
    with pytest.raises(ConfigError, match="note holds no choices"):
        read(rows, choices="note")
    with pytest.raises(ConfigError, match=r"options\.choices: no column 'z'"):
        read(rows, choices="x, z")


def test_init_writes_a_pipeline_that_reads_letters(capsys) -> None:
    rows = [{"question": f"{i}?", "choices": BIRDS, "answer": i % 4} for i in range(COUNT)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["init", "a.jsonl"]) == 0
    task = load_pipeline(Path("pipeline.yaml")).arms["scalar"].task
    assert task.verifier == "choice"
    output = capsys.readouterr().out
    assert "  A. dog\n  B. hen\n  C. cow\n  D. ant\n  gold answer: " in output
    row = load_task(task, 0).train[0]
    assert row["prompt"][-1]["content"].endswith("A. dog\nB. hen\nC. cow\nD. ant")


def test_files_that_count_choices_from_other_numbers_are_refused(tmp_path) -> None:
    rows = [
        {"question": f"Question {i}?", "choices": ["w", "x", "y", "z"], "answer": 1 + i % 4}
        for i in range(40)
    ]
    train = tmp_path / "train.json"
    train.write_text(json.dumps(rows))
    test = tmp_path / "test.json"
    held_out = [{**row, "question": f"Test {row['question']}"} for row in rows if row["answer"] < 3]
    test.write_text(json.dumps(held_out))
    with pytest.raises(ConfigError, match="count from 0 in one file and from 1 in another"):
        load_user_data(DataOptions(train=str(train), test=str(test)))


def test_places_that_may_count_from_0_or_from_1_are_refused(tmp_path) -> None:
    rows = [
        {"question": f"Question {i}?", "choices": ["w", "x", "y", "z"], "answer": 1 + i % 3}
        for i in range(40)
    ]
    file = tmp_path / "train.json"
    file.write_text(json.dumps(rows))
    with pytest.raises(ConfigError, match="place from 0 or the place from 1"):
        load_user_data(DataOptions(train=str(file)))
