"""A row is the same in training and in evaluation: same keys, same values, same types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from critique_rl.cli.entry import main
from critique_rl.tasks.data_source import DataOptions
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.tasks.rows.training_set import training_set
from critique_rl.tasks.user_data import load_user_data
from critique_rl.types import Verdict

VALUES = {
    "mixed": ["hard", 1, 2.5, None, True, "1"],
    "whole_and_half": [1, 2.5, 3, 4, 5, 6],
    "objects": [{"y": "b"}, {"x": 1}, {"x": {"z": []}}, {}, None, {"y": None}],
    "lists": [[1, "a"], [], [None], [[1]], [1.0], [{"a": 1}]],
    "large": [2**70, -(2**70), 0, 1, 2, 3],
    "numeric_texts": ["1", "007", "null", "true", '{"a": 1}', ""],
    "floats": [0.1, 1e300, 5e-324, 5.495038734744293e-24, -0.0, 1e22],
    "days": ["2021-05-01", "2021-05-02", "2021-05-03", "x", None, "2021-05-01T00:00:00"],
    "same_objects": [{"a": [1], "b": "x"}] * 6,
    "empty": [None] * 6,
    "tests": [["assert f(1)", "assert f(2)"], ["assert f(3)"], [], ["a"], ["b"], ["c"]],
}


def rows_of(values: dict[str, list]) -> list[dict]:
    return [{name: column[i] for name, column in values.items()} for i in range(6)]


@pytest.mark.parametrize("name", VALUES)
def test_every_value_comes_back_from_trls_data_set(name) -> None:
    rows = rows_of({"prompt": [[{"role": "user", "content": f"{i}?"}] for i in range(6)]})
    rows = [{**row, name: VALUES[name][i]} for i, row in enumerate(rows)]
    dataset = training_set(rows)
    for i, row in enumerate(rows):
        assert json.dumps(dataset[i], sort_keys=True) == json.dumps(row, sort_keys=True)


def test_a_row_that_lacks_a_column_has_none_there() -> None:
    assert training_set([{"a": 1}, {"a": 2, "b": "x"}])[0] == {"a": 1, "b": None}


def test_columns_that_only_some_files_have_are_in_all_rows(tmp_path) -> None:
    for name, extra in (("train", {"note": 1}), ("test", {"level": "x"})):
        rows = [{"question": f"{name}{i}?", "answer": i, **extra} for i in range(30)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
    options = DataOptions(str(tmp_path / "train.jsonl"), test=str(tmp_path / "test.jsonl"))
    splits = load_user_data(options).splits
    assert splits["train"][0].keys() == splits["test"][0].keys()
    assert splits["train"][0]["level"] is None


def test_a_reward_hands_its_verifier_the_row_and_nothing_of_trls() -> None:
    seen = []

    def verifier(text, row):
        seen.append(row)
        return Verdict("right")

    columns = {"answer": ["1", "2"], "tests": [["a"], []]}
    arguments = {"completion_ids": [[1], [2]], "trainer_state": None, "environments": [None, None]}
    prompts = ["a?", "b?"]
    VerifierReward(verifier)(["x", "y"], prompts=prompts, **columns, **arguments)
    assert seen == [
        {"prompt": "a?", "answer": "1", "tests": ["a"]},
        {"prompt": "b?", "answer": "2", "tests": []},
    ]


@pytest.mark.processes
@pytest.mark.parametrize("target", ["note_row", "note_columns"])
def test_a_verifier_reads_the_same_row_in_training_and_in_evaluation(
    tmp_path, monkeypatch, tiny_policy, target
) -> None:
    monkeypatch.chdir(tmp_path)
    values = {name: column * 10 for name, column in VALUES.items()}
    lines = []
    for i in range(60):
        cells = {name: column[i] for name, column in values.items()}
        lines.append(json.dumps({"question": f"{i} A+1", "answer": i, **cells}) + "\n")
    Path("a.jsonl").write_text("".join(lines))
    pipeline = {
        "task": {
            "name": "data",
            "options": {"train": "a.jsonl"},
            "verifier": {"kind": "python", "target": f"user_verifiers:{target}", "deadline": 300},
        },
        "policy": {"model": tiny_policy},
        "trl": {
            "num_generations": 2,
            "per_device_train_batch_size": 32,
            "max_completion_length": 4,
        },
        "budget": {"optimizer_steps": 3},
        "evaluation": {"problems": 9, "samples": 1, "ks": [1], "curve_every": 0},
        "arms": {"scalar": {}},
    }
    Path("p.yaml").write_text(yaml.safe_dump(pipeline))
    assert main(["train", "p.yaml", "--arm", "scalar", "--seed", "0"]) == 0
    data = load_user_data(DataOptions("a.jsonl"))
    by_id = {row["id"]: row for rows in data.splits.values() for row in rows}
    seen = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    for row in seen:
        expected = dict(by_id[row["id"]])
        if target == "note_columns":
            # A reward function of TRL gets the prompt under TRL's name, and token ids if there are.
            row.pop("completion_ids")
            expected["prompts"] = expected.pop("prompt")
        assert json.dumps(row, sort_keys=True) == json.dumps(expected, sort_keys=True)
    splits = {name: {row["id"] for row in rows} for name, rows in data.splits.items()}
    ids = {row["id"] for row in seen}
    assert len(ids & splits["train"]) > 20
    assert ids & splits["test"]
