"""Files are read as they are written; what is not of its format is named with its line."""

from __future__ import annotations

import bz2
import gzip
import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.tasks.data_source import DataOptions, read_dataset
from critique_rl.tasks.rows.cells import WrittenNumber, cell_text, plain
from critique_rl.tasks.rows.written import parse_json
from critique_rl.tasks.user_data import load_user_data


@pytest.fixture(autouse=True)
def dataset_cache(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def lines(answers: list[str]) -> str:
    """JSON lines with the answers as they are given here."""
    return "".join(f'{{"question": "q{i}?", "answer": {a}}}\n' for i, a in enumerate(answers))


def golds(path: Path) -> dict[str, str]:
    """question -> gold answer, of all splits."""
    data = load_user_data(DataOptions(str(path)))
    return {row["question"]: row["answer"] for rows in data.splits.values() for row in rows}


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("token", "gold"),
    [
        ('"2021-05-01"', "2021-05-01"),
        ('"2021-05-01T10:00:00Z"', "2021-05-01T10:00:00Z"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("-9223372036854775809", "-9223372036854775809"),
        ("9" * 5000, "9" * 5000),
        ("3", "3"),
        ("2.50", "2.50"),
        ("1e3", "1e3"),
        ("1.7976931348623157e309", "1.7976931348623157e309"),
        ('"007"', "007"),
        ('"None"', "None"),
        ('"NA"', "NA"),
        ('"null"', "null"),
        ('"nan"', "nan"),
        ("true", "true"),
        ("false", "false"),
        ("0", "0"),
        ("-0", "-0"),
        ('" 18 "', "18"),
        ('"1/2"', "1/2"),
    ],
)
def test_an_answer_of_json_is_the_text_of_the_file(tmp_path, token, gold) -> None:
    others = [token, "1", '"a"', "2.5", '"2021-01-01"']
    found = golds(written(tmp_path / "a.jsonl", lines(others * 8)))
    assert found["q0?"] == gold
    assert [found[f"q{i}?"] for i in range(1, 5)] == ["1", "a", "2.5", "2021-01-01"]


def test_empty_cells_are_left_out_and_words_that_look_empty_are_not(tmp_path) -> None:
    words = ["None", "NA", "N/A", "null", "nan", "NaN", "", "-", "true", "18", "1.50", "007"]
    text = "question,answer\n" + "".join(f"q{i}?,{word}\n" for i, word in enumerate(words * 4))
    path = tmp_path / "a.csv"
    rows = [line for line in text.splitlines() if line]
    data = load_user_data(DataOptions(str(written(path, "\n".join(rows)))))
    assert data.left_out == {"no answer": 4}
    found = golds(path)
    assert [found.get(f"q{i}?") for i in range(12)] == [word or None for word in words]
    empty = ["null", "NaN", '""', '"  "', "1"]
    json_data = load_user_data(DataOptions(str(written(tmp_path / "b.jsonl", lines(empty * 9)))))
    assert json_data.left_out == {"no answer": 36}


def test_an_int_column_with_an_empty_cell_keeps_its_ints(tmp_path) -> None:
    answers = [None if i % 7 == 0 else i for i in range(40)]
    frame = pd.DataFrame({"question": [f"q{i}?" for i in range(40)], "answer": answers})
    frame.to_csv(tmp_path / "floats.csv", index=False)
    frame.to_parquet(tmp_path / "floats.parquet")
    frame.astype({"answer": "Int64"}).to_parquet(tmp_path / "ints.parquet")
    for name in ("floats.parquet", "ints.parquet"):
        found = golds(tmp_path / name)
        assert found["q18?"] == "18"
        assert len(found) == 34
    # pandas wrote 18.0 into this file, so that is what it has.
    assert golds(tmp_path / "floats.csv")["q18?"] == "18.0"


def test_typed_columns_are_written_as_people_do(tmp_path) -> None:
    columns = {
        "day": pa.array([f"2021-05-0{1 + i % 9}" for i in range(40)]).cast(pa.timestamp("ns")),
        "moment": pa.array([f"2021-05-01 13:{i:02}" for i in range(40)]).cast(pa.timestamp("us")),
        "date": pa.array([date(2021, 5, 1)] * 40),
        "price": pa.array([Decimal("1.50")] * 40),
        "single": pa.array([0.1] * 40, pa.float32()),
        "double": pa.array([2.5, 3.0] * 20),
        "flag": pa.array([True] * 40),
        "large": pa.array([2**63] * 40, pa.uint64()),
    }
    questions = [f"q{i}?" for i in range(40)]
    pq.write_table(pa.table({"question": questions, **columns}), tmp_path / "a.parquet")
    rows = {}
    for name in columns:
        data = load_user_data(DataOptions(str(tmp_path / "a.parquet"), answer=name))
        every = [row for split in data.splits.values() for row in split]
        rows[name] = next(row["answer"] for row in every if row["question"] == "q1?")
    assert rows == {
        "day": "2021-05-02",
        "moment": "2021-05-01T13:01:00",
        "date": "2021-05-01",
        "price": "1.50",
        "single": "0.1",
        "double": "3",
        "flag": "true",
        "large": "9223372036854775808",
    }


def test_cells_that_nobody_reads_become_what_json_can_hold() -> None:
    value = {
        "a": [parse_json("1"), parse_json("2.0"), parse_json("12345678901234567890")],
        1: date(2021, 5, 1),
        "b": (b"text", b"\xff\x00", float("nan"), float("inf")),
        "c": parse_json("1e999"),
        "d": time(10, 30),
    }
    assert plain(value) == {
        "a": [1, 2.0, 12345678901234567890],
        "1": "2021-05-01",
        "b": ["text", "ff00", None, "inf"],
        "c": "1e999",
        "d": "10:30:00",
    }
    assert isinstance(plain(WrittenNumber("2.0")), float)
    assert isinstance(plain(WrittenNumber("2")), int)
    assert cell_text(np.float64(0.5), "x") == "0.5"
    assert cell_text(datetime(2021, 5, 1, tzinfo=UTC), "x") == "2021-05-01"


ROWS = [{"question": f"q{i}, or not?", "answer": f"0{i}"} for i in range(30)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "question,answer\n" + "".join(f'"{row["question"]}",{row["answer"]}\n' for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES.encode()),
        ("a.ndjson", LINES.encode()),
        ("a.json", LINES.encode()),
        ("a.jsonl", LINES.replace("\n", "\r\n\r\n").encode()),
        ("a.json", json.dumps(ROWS).encode()),
        ("a.jsonl", json.dumps(ROWS, indent=2).encode()),
        ("a.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("a.json", json.dumps({"version": 1, "data": ROWS}, indent=1).encode()),
        ("a.json", json.dumps({"test": [{"question": "x"}], "train": ROWS}).encode()),
        ("a.json", json.dumps({key: [row[key] for row in ROWS] for key in ROWS[0]}).encode()),
        ("a.csv", CSV.encode()),
        ("a.csv", CSV.encode("utf-8-sig")),
        ("a.jsonl", LINES.encode("utf-8-sig")),
        ("a.csv", CSV.replace("\n", "\r\n").encode()),
        ("a.csv", CSV.replace('",0', '";0').replace("question,", "question;").encode()),
        ("a.tsv", CSV.replace('",0', '"\t0').replace("question,", "question\t").encode()),
        ("a.csv", CSV.replace("?", '?""').replace("not", "\nnot").encode()),
        ("a.jsonl.gz", gzip.compress(LINES.encode())),
        ("a.csv.gz", gzip.compress(CSV.encode())),
        ("a.csv.bz2", bz2.compress(CSV.encode())),
    ],
)
def test_forms_of_files(tmp_path, name, content) -> None:
    (tmp_path / name).write_bytes(content)
    found = golds(tmp_path / name)
    assert len(found) == 30
    assert sorted(found.values()) == sorted(row["answer"] for row in ROWS)


def test_folders_with_splits_and_subsets_are_read_as_written(tmp_path) -> None:
    for subset in ("one", "two"):
        (tmp_path / subset).mkdir()
        for split in ("train", "test"):
            rows = [{"question": f"{subset}{split}{i}", "answer": "2021-05-01"} for i in range(30)]
            text = "".join(json.dumps(row) + "\n" for row in rows)
            written(tmp_path / subset / f"{split}.jsonl", text)
    configs = "".join(
        f"- config_name: {subset}\n  data_files:\n"
        + "".join(f"  - {{split: {s}, path: {subset}/{s}.jsonl}}\n" for s in ("train", "test"))
        for subset in ("one", "two")
    )
    written(tmp_path / "README.md", f"---\nconfigs:\n{configs}---\n")
    folder = str(tmp_path)
    data = load_user_data(DataOptions(folder, test=folder, subset="two"))
    [first, *_] = data.splits["test"]
    assert first["answer"] == "2021-05-01"
    assert {row["question"][:7] for row in data.splits["test"]} == {"twotest"}
    with pytest.raises(ConfigError, match=r"cannot read .*validation"):
        read_dataset(folder, "validation", "two")
    plain_folder = tmp_path / "codes"
    plain_folder.mkdir()
    written(plain_folder / "train.csv", CSV)
    assert "07" in golds(plain_folder).values()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"question": "a", "answer": 1}\n{"question": ', "line 2 is no JSON"),
        ("a.jsonl", '{"question": "a", "answer": 1}\n[1, 2]\n', "line 2: got .*expected an object"),
        ("a.jsonl", '{"question" "a"}\n{"question": "b"}\n', "line 1 is no JSON"),
        ("a.json", '[{"question": "a"', "it is no JSON"),
        ("a.json", "[1, 2]", "expected a list of objects"),
        ("a.json", '{"a": [1, 2], "b": [1]}', "different lengths"),
        ("a.json", '{"x": [{"q": 1}], "y": [{"q": 1}]}', "expected a list of objects"),
        ("a.csv", "question,answer\nWhat is 2,000 + 1?,2001\n", "line 2: got 3 cells, expected 2"),
        ("a.csv", 'question,answer\n"What?,1\nWho?,2\n', "line 3: unexpected end of data"),
        ("a.csv", 'question,answer\n"a" b,1\n', "write the quote twice"),
        ("a.csv", "", "it holds nothing"),
        ("a.csv", "question,answer\n", "it holds nothing"),
        ("a.jsonl", "\n\n", "it holds nothing"),
    ],
)
def test_what_is_not_of_its_format_is_refused_with_its_place(tmp_path, name, text, message) -> None:
    path = written(tmp_path / name, text)
    with pytest.raises(ConfigError, match=message):
        read_dataset(str(path))


def test_repeated_and_empty_names_of_columns_end_no_run(tmp_path) -> None:
    text = ",question,answer,note,note\n" + "".join(f"{i},q{i}?,{i},a,b\n" for i in range(20))
    source = read_dataset(str(written(tmp_path / "a.csv", text)))
    assert source.column_names == ["Unnamed: 0", "question", "answer", "note", "note.1"]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "feature"])
def test_pictures_are_refused(tmp_path, kind) -> None:
    questions = [f"q{i}?" for i in range(20)]
    answers = ["1"] * 20
    path = tmp_path / f"a.{kind.replace('feature', 'parquet')}"
    if kind == "jsonl":
        written(path, '{"question": "q", "answer": 1, "image": "a.png"}\n' * 20)
    elif kind == "parquet":
        pictures = [{"bytes": b"x", "path": "p"}] * 20
        table = pa.table({"question": questions, "answer": answers, "images": pictures})
        pq.write_table(table, path)
    else:
        from datasets import Dataset, Features, Image, Value

        features = Features({"question": Value("string"), "answer": Value("string"), "x": Image()})
        columns = {"question": questions, "answer": answers, "x": [None] * 20}
        Dataset.from_dict(columns, features=features).to_parquet(path)
    with pytest.raises(ConfigError, match="questions are asked as text"):
        load_user_data(DataOptions(str(path)))


def test_an_empty_picture_column_is_dropped(tmp_path) -> None:
    text = "".join(f'{{"question": "q{i}", "answer": 1, "image": null}}\n' for i in range(20))
    data = load_user_data(DataOptions(str(written(tmp_path / "a.jsonl", text))))
    assert "image" not in data.splits["train"][0]


def test_a_parquet_file_with_any_column_beside_is_read(tmp_path) -> None:
    columns = {
        "question": [f"q{i}?" for i in range(30)],
        "answer": ["1"] * 30,
        "map": pa.array([[("k", 1)]] * 30, pa.map_(pa.string(), pa.int64())),
        "bytes": [b"\xff"] * 30,
        "clock": pa.array([3600] * 30, pa.time32("s")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    row = load_user_data(DataOptions(str(tmp_path / "a.parquet"))).splits["train"][0]
    assert (row["map"], row["bytes"], row["clock"]) == ([["k", 1]], "ff", "01:00:00")


def test_half_a_character_is_left_out_and_counted(tmp_path) -> None:
    text = lines(['"1"'] * 30) + '{"question": "\\ud800?", "answer": "1"}\n'
    text += '{"question": "\\ud83d\\ude00?", "answer": "1", "note": "\\ud800"}\n'
    data = load_user_data(DataOptions(str(written(tmp_path / "a.jsonl", text))))
    assert data.left_out == {"half of a character (a lone surrogate)": 1}
    rows = {row["question"]: row for split in data.splits.values() for row in split}
    assert rows["\U0001f600?"]["note"] == "\ufffd"


def test_a_line_that_lacks_a_column_has_an_empty_cell_there(tmp_path) -> None:
    text = '{"answer": 1}\n{"question": "b"}\n'
    source = read_dataset(str(written(tmp_path / "a.jsonl", text)))
    assert list(source) == [{"answer": "1", "question": None}, {"answer": None, "question": "b"}]
