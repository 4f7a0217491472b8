"""The split goes by the question, and the user's own splits share none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.hashing import split_of
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.user_data import load_user_data


def written(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def sums(count: int, form: str = "What is {} + 1?") -> list[dict]:
    return [{"question": form.format(i), "answer": i + 1} for i in range(count)]


def split_of_ids(options: DataOptions) -> dict[str, str]:
    splits = load_user_data(options).splits
    return {row["id"]: split for split, rows in splits.items() for row in rows}


@pytest.mark.parametrize("form", ["what is {}+1", 'WHAT is "{} + 1"?!', "What is\u00a0{} +  1 ?"])
def test_system_lines_and_typing_move_no_question(tmp_path, form) -> None:
    path = written(tmp_path / "a.jsonl", sums(100))
    before = split_of_ids(DataOptions(path))
    assert split_of_ids(DataOptions(path, system="Be brief.")) == before
    assert split_of_ids(DataOptions(written(tmp_path / "b.jsonl", sums(100, form)))) == before
    chats = [
        {"prompt": [{"role": "user", "content": row["question"]}], "answer": row["answer"]}
        for row in sums(100)
    ]
    assert split_of_ids(DataOptions(written(tmp_path / "c.jsonl", chats))) == before


def test_near_repeats_fall_into_one_split_and_none_is_lost(tmp_path) -> None:
    rows = sums(100) + sums(100, "what is {}+1")
    splits = split_of_ids(DataOptions(written(tmp_path / "a.jsonl", rows)))
    assert len(splits) == 200
    assert all(splits[f"train/{i}"] == splits[f"train/{i + 100}"] for i in range(100))
    assert len(set(splits.values())) == 3


def test_evaluations_take_the_same_first_problems_under_another_system_line(tmp_path) -> None:
    path = written(tmp_path / "a.jsonl", sums(200))
    first = load_user_data(DataOptions(path)).held_out("test", 5)
    second = load_user_data(DataOptions(path, system="Be brief.")).held_out("test", 5)
    assert [row["id"] for row in first] == [row["id"] for row in second]


def test_files_that_share_near_repeats_are_refused_with_their_number_and_a_pair(tmp_path) -> None:
    train = written(tmp_path / "train.jsonl", sums(50))
    test = written(tmp_path / "test.jsonl", sums(7, "what is {}+1"))
    message = (
        r"7 questions stand in two splits .* such as 'What is 0 \+ 1\?' in train and "
        r"'what is 0\+1' in test; .*near_repeats: leave_out .* or keep"
    )
    with pytest.raises(ConfigError, match=message):
        load_user_data(DataOptions(train, test=test))
    left = load_user_data(DataOptions(train, test=test, near_repeats="leave_out"))
    assert left.left_out == {"asked in test in nearly the same words": 7}
    assert len(left.splits["test"]) == 7
    assert not {f"train/{i}" for i in range(7)} & {row["id"] for row in left.splits["train"]}
    kept = load_user_data(DataOptions(train, test=test, near_repeats="keep"))
    assert sum(map(len, kept.splits.values())) == 57


def test_a_system_message_of_its_own_makes_no_other_question(tmp_path) -> None:
    def chats(system: str) -> list[dict]:
        start = {"role": "system", "content": system}
        return [
            {"prompt": [start, {"role": "user", "content": f"{i}?"}], "answer": i}
            for i in range(30)
        ]

    train = written(tmp_path / "train.jsonl", chats("Be brief."))
    test = written(tmp_path / "test.jsonl", chats("Be kind.")[:3])
    with pytest.raises(ConfigError, match="3 questions stand in two splits"):
        load_user_data(DataOptions(train, validation=test))


def test_questions_with_other_numbers_are_no_repeats(tmp_path) -> None:
    train = written(
        tmp_path / "a.jsonl", [{"question": f"Round 3.{i}.", "answer": 3} for i in range(30)]
    )
    test = written(
        tmp_path / "b.jsonl", [{"question": f"Round 3{i}.", "answer": 3} for i in range(30)]
    )
    data = load_user_data(DataOptions(train, test=test))
    assert data.left_out == {}


def test_rule_1_splits_as_earlier_versions_did(tmp_path) -> None:
    path = written(tmp_path / "a.jsonl", sums(100))
    bounds = {"train": (0, 80), "validation": (80, 90), "test": (90, 100)}
    expected = {}
    for i, row in enumerate(sums(100)):
        prompt = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": row["question"]},
        ]
        expected[f"train/{i}"] = split_of(json.dumps(prompt), bounds)
    assert split_of_ids(DataOptions(path, system="Be brief.", split_rule=1)) == expected
    assert split_of_ids(DataOptions(path, system="Be brief.")) != expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"near_repeats": "drop"}, "near_repeats: got 'drop'; .*known: keep, leave_out, refuse"),
        ({"split_rule": 3}, "split_rule: got 3, expected 1 or 2"),
    ],
)
def test_other_values_are_refused(options, message) -> None:
    with pytest.raises(ConfigError, match=message):
        DataOptions("a.jsonl", **options)


def test_texts_beside_messages_are_refused(tmp_path) -> None:
    rows = [{"prompt": f"{i}?", "answer": i} for i in range(20)]
    rows += [{"prompt": [{"role": "user", "content": f"{i}!"}], "answer": i} for i in range(20)]
    with pytest.raises(ConfigError, match="got texts in some rows and messages in others"):
        load_user_data(DataOptions(written(tmp_path / "a.jsonl", rows)))


def test_rows_that_end_in_one_message_are_explained(tmp_path) -> None:
    end = {"role": "user", "content": "Answer with a number."}
    rows = [{"prompt": [{"role": "system", "content": f"{i}"}, end], "answer": i} for i in range(9)]
    data = load_user_data(DataOptions(written(tmp_path / "a.jsonl", rows)))
    assert len(data.splits["train"]) == 9
    message = r"no row is left for test .*last user message, and those for train have 1 different"
    with pytest.raises(ConfigError, match=message):
        data.held_out("test", 1)
