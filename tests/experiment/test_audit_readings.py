"""What logs of real trainers do to their readers: gaps, names, copies, other spellings."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from critique_rl.analysis.paper.methods import methods_markdown
from critique_rl.cli.audit import name_runs
from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit.audit import Audit, audit
from critique_rl.experiment.audit.findings import CLEAR, FOUND, UNKNOWN_STATUS
from critique_rl.experiment.audit.mapping import LogMapping
from critique_rl.intervals.quantiles import t_quantile

Row = dict[str, Any]


def judged(folder: Path, mapping: LogMapping | None = None, **options) -> Audit:
    """An audit of the runs a and b, with two seeds each where they are there."""
    words = sorted(str(path) for path in folder.iterdir() if path.is_dir())
    return audit(name_runs(words), mapping or LogMapping(), **options)


def status(result: Audit, check: str) -> str:
    [finding] = [finding for finding in result.findings if finding.check == check]
    return finding.status


def difference(result: Audit) -> float:
    [pair] = [each for each in result.comparison.comparisons if each.metric == "pass@1/all"]
    return pair.difference


def level(result: Audit, arm: str) -> float:
    return result.comparison.arms[arm].metrics["pass@1/all"].mean


def lines(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(right: float, seed: int, problems: int = 40, answers: int = 4, **extra) -> list[Row]:
    """Answers with a chance of being right."""
    rng = np.random.default_rng(seed)
    rows = []
    for problem in range(problems):
        for _ in range(answers):
            text = f"so {rng.integers(10**9)}"
            score = float(rng.random() < right)
            rows.append({"input": f"q {problem}", "output": text, "score": score, **extra})
    return rows


def two_arms(folder: Path, name: str, low: float = 0.3, high: float = 0.6, **extra) -> None:
    """One file of that name per run."""
    for arm, right in (("a", low), ("b", high)):
        for seed in (0, 1):
            lines(folder / f"{arm}-seed{seed}" / name, rows_of(right, seed, **extra))


def share(rows: list[Row]) -> float:
    return sum(row["score"] for row in rows) / len(rows)


# ---- columns -------------------------------------------------------------------------------------


def test_a_reward_that_is_missing_in_the_first_row_is_still_one(tmp_path) -> None:
    for arm, right in (("a", 0.2), ("b", 0.7)):
        table = [
            {
                "prompt": f"q {i}",
                "completion": f"w {i} {arm}",
                "accuracy": float("nan") if i == 0 else float(i % 10 < 10 * right),
                "format": float(i % 10 >= 10 * right),
                "step": 1,
            }
            for i in range(50)
        ]
        folder = tmp_path / f"{arm}-seed0"
        folder.mkdir()
        pq.write_table(pa.Table.from_pylist(table), folder / "completions_00001.parquet")
    with pytest.raises(ConfigError, match="several columns that may be the reward"):
        judged(tmp_path)
    result = judged(tmp_path, LogMapping(columns={"reward": "accuracy"}))
    assert difference(result) == pytest.approx(0.5, abs=0.02)


def test_columns_that_come_later_count(tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        for seed in (0, 1):
            train = rows_of(right, seed, problems=80, step=1)
            test = rows_of(right, seed, step=2, split="test")
            for row in test:
                row["input"] = f"held out {row['input']}"
            test[-1] |= {"critique": "No, the answer is 77.", "gts": "77"}
            lines(tmp_path / f"{arm}-seed{seed}" / "log.jsonl", [*train, *test])
    result = judged(tmp_path)
    assert result.estimand.kind == "held-out"
    assert status(result, "leaks") == FOUND


@pytest.mark.parametrize("value", ["True", "true", "1"])
def test_cells_of_csv_say_what_is_held_out(value: str, tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        folder = tmp_path / f"{arm}-seed0"
        folder.mkdir()
        with (folder / "log.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["step", "is_eval", "prompt", "completion", "reward"])
            for row in rows_of(right, 0):
                writer.writerow([1, "False", f"t {row['input']}", row["output"], 0.0])
                writer.writerow([1, value, row["input"], row["output"], row["score"]])
    result = judged(tmp_path)
    assert result.estimand.kind == "held-out"
    assert level(result, "a") == pytest.approx(share(rows_of(0.3, 0)))
    assert status(result, "overlap") == CLEAR


@pytest.mark.parametrize("name", ["evaluations.jsonl", "dev.jsonl", "held-out/3.jsonl"])
def test_names_of_held_out_files(name: str, tmp_path) -> None:
    two_arms(tmp_path, name)
    assert judged(tmp_path).estimand.kind == "held-out"


@pytest.mark.parametrize("name", ["latest.jsonl", "rollouts_unit_test_env/1.jsonl", "values.jsonl"])
def test_names_that_only_look_like_it(name: str, tmp_path) -> None:
    two_arms(tmp_path, name)
    assert judged(tmp_path).estimand.kind == "training"


def test_a_file_that_is_named_alone_is_training_whatever_its_name(tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        lines(tmp_path / f"{arm}-test.jsonl", rows_of(right, 0))
    result = audit(name_runs([str(path) for path in tmp_path.iterdir()]), LogMapping())
    assert result.estimand.kind == "training"


@pytest.mark.parametrize(
    "name", ["val_5.jsonl", "val-5.jsonl", "step_5/val.jsonl", "validation/5.jsonl"]
)
def test_steps_stand_in_names(name: str, tmp_path) -> None:
    two_arms(tmp_path, name)
    two_arms(tmp_path, name.replace("5", "10"), low=0.4, high=0.9)
    result = judged(tmp_path)
    assert any("answers of step 10 count" in note for note in result.notes)
    rows = [*rows_of(0.4, 0), *rows_of(0.4, 1)]
    assert level(result, "a") == pytest.approx(share(rows))


def test_a_runs_own_folder_names_no_step(tmp_path) -> None:
    for arm, run in (("a", "50519885"), ("b", "8d8aecd4")):
        lines(tmp_path / arm / run / "rows.jsonl", rows_of(0.5, 0))
    runs = name_runs([f"{path.parent.name}={path}" for path in tmp_path.glob("*/*")])
    result = audit(runs, LogMapping())
    assert sum("answers of no named step count" in note for note in result.notes) == 2
    assert result.estimand.says.startswith("right answers in logs without steps")


METADATA = {
    "env_id": "wiki-search",
    "model": "policy",
    "rollouts_per_example": 1,
    "sampling_args": {"max_tokens": 1024},
    "avg_reward": 0.5,
}


@pytest.mark.parametrize(("tokens", "expected"), [(1024, CLEAR), (512, FOUND)])
def test_an_evaluation_of_verifiers_is_held_out_and_has_settings(
    tokens: int, expected: str, tmp_path
) -> None:
    """`vf-eval` writes outputs/evals/<env>--<model>/<id>/results.jsonl and metadata.json."""
    two_arms(tmp_path, "results.jsonl")
    for folder in tmp_path.iterdir():
        settings = {**METADATA, "model": folder.name}
        if folder.name.startswith("b"):
            settings["sampling_args"] = {"max_tokens": tokens}
        (folder / "metadata.json").write_text(json.dumps(settings))
    result = judged(tmp_path)
    assert result.estimand.kind == "held-out"
    assert status(result, "settings") == expected
    assert not any("no logs of answers" in note for note in result.notes)


def test_a_metadata_file_of_another_program_says_nothing(tmp_path) -> None:
    two_arms(tmp_path, "results.jsonl")
    for folder in tmp_path.iterdir():
        (folder / "metadata.json").write_text(json.dumps({"learning_rate": folder.name}))
    result = judged(tmp_path)
    assert result.estimand.kind == "training"
    assert status(result, "settings") == UNKNOWN_STATUS


def test_ids_are_one_whatever_their_type(tmp_path) -> None:
    for arm, kind in (("a", int), ("b", float)):
        for seed in (0, 1):
            rows = rows_of(0.5, seed)
            for row in rows:
                row["problem_id"] = kind(row["input"].split()[1])
            lines(tmp_path / f"{arm}-seed{seed}" / "eval.jsonl", rows)
    assert judged(tmp_path).comparison.comparisons[0].problems == 40


def test_prompts_are_whole_conversations(tmp_path) -> None:
    for arm in ("a", "b"):
        rows = []
        for i, row in enumerate(rows_of(0.5, 0)):
            question = {"role": "user", "content": row["input"]}
            again = {"role": "user", "content": "Are you sure?"}
            rows.append(row | {"input": [question, again], "step": i % 3})
        lines(tmp_path / f"{arm}-seed0" / "eval" / "1.jsonl", rows)
    assert judged(tmp_path).comparison.comparisons[0].problems > 10


def test_true_and_false_are_rewards(tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        rows = [row | {"score": bool(row["score"])} for row in rows_of(right, 0)]
        lines(tmp_path / f"{arm}-seed0" / "eval.jsonl", rows)
    assert level(judged(tmp_path), "b") == pytest.approx(share(rows_of(0.6, 0)))


@pytest.mark.parametrize("rewards", [(0.0, 0.1), (0.1, 0.1), (0.0, 0.5)])
def test_a_bonus_for_the_format_is_not_right(rewards: tuple[float, float], tmp_path) -> None:
    for arm in ("a", "b"):
        rows = [row | {"score": rewards[int(row["score"])]} for row in rows_of(0.5, 0)]
        lines(tmp_path / f"{arm}-seed0" / "eval.jsonl", rows)
    with pytest.raises(ConfigError, match=r"right: 0\.5"):
        judged(tmp_path)


def test_rewards_of_training_do_not_block_a_verdict_on_held_out_answers(tmp_path) -> None:
    two_arms(tmp_path, "eval/1.jsonl")
    for arm in ("a", "b"):
        for seed in (0, 1):
            rows = [row | {"score": row["score"] + 0.1} for row in rows_of(0.5, seed)]
            lines(tmp_path / f"{arm}-seed{seed}" / "rollouts" / "1.jsonl", rows)
    assert difference(judged(tmp_path)) > 0.1


# ---- files ---------------------------------------------------------------------------------------


def test_files_of_other_things_are_skipped_and_counted(tmp_path) -> None:
    two_arms(tmp_path, "rollouts/1.jsonl")
    for folder in tmp_path.iterdir():
        lines(folder / "metrics.jsonl", [{"step": 1, "loss": 0.3, "grad_norm": 1.0, "lr": 1e-5}])
        lines(folder / "data" / "test.jsonl", [{"question": "q 1", "answer": "2", "level": 1}])
        (folder / "prompts.json").write_text('["a", "b"]')
        (folder / "empty.parquet").write_text("")
        (folder / "model").mkdir()
        (folder / "model" / "trainer_state.json").write_text('{"log_history": [], "step": 3}')
    result = judged(tmp_path)
    assert result.estimand.kind == "training"
    assert any("5 files are no logs of answers" in note for note in result.notes)


def test_a_slim_log_without_texts_is_read_by_its_ids(tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        rows: list[Row] = [{"event": "evaluation_started", "policy_version": 1, "requested": 40}]
        for row in rows_of(right, 0):
            rows.append({"task_id": row["input"], "judge_score": row["score"], "policy_version": 1})
        lines(tmp_path / f"{arm}-seed0" / "evaluations.jsonl", rows)
    result = judged(tmp_path)
    assert result.estimand.kind == "held-out"
    assert level(result, "a") == pytest.approx(share(rows_of(0.3, 0)))


def test_links_are_followed_once(tmp_path) -> None:
    two_arms(tmp_path, "real/1.jsonl")
    for folder in tmp_path.iterdir():
        os.symlink(folder / "real", folder / "validation")
        os.symlink(folder, folder / "loop")
    result = judged(tmp_path)
    assert status(result, "duplicates") == CLEAR
    assert any("in 1 files" in note for note in result.notes)


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (
            ["grpo-beta0.04-seed0", "grpo-beta0.0-seed0"],
            [("grpo-beta0.04", 0), ("grpo-beta0.0", 0)],
        ),
        (["qwen2.5-grpo-seed1.jsonl"], [("qwen2.5-grpo", 1)]),
        (["grpo.seed3.jsonl"], [("grpo", 3)]),
        (["seed1/sdpo", "seed2/sdpo"], [("sdpo", 1), ("sdpo", 2)]),
    ],
)
def test_arms_and_seeds_of_names(paths: list[str], expected: list[tuple[str, int]]) -> None:
    assert [(run.arm, run.seed) for run in name_runs(paths)] == expected


def test_a_complete_name_is_the_control_before_a_part(tmp_path) -> None:
    for arm in ("critique-grpo", "grpo"):
        lines(tmp_path / f"{arm}-seed0" / "eval.jsonl", rows_of(0.5, 0))
    assert judged(tmp_path).comparison.control == "grpo"


def test_any_k_up_to_the_number_of_answers_can_be_asked_for(tmp_path) -> None:
    two_arms(tmp_path, "eval.jsonl")
    metrics = judged(tmp_path, primary="pass@3/all").comparison.arms["a"].metrics
    assert {"pass@1/all", "pass@3/all", "pass@4/all"} <= set(metrics)


def test_the_last_steps_are_steps_and_not_logged_ones(tmp_path) -> None:
    for arm, every in (("a", 1), ("b", 10)):
        rows = []
        for step in range(0, 101, every):
            rows += rows_of(step / 100, step, problems=10, step=step)
        lines(tmp_path / f"{arm}-seed0" / "log.jsonl", rows)
    result = judged(tmp_path, last_steps=10)
    # The mean of .91 to 1 against 1 alone.
    assert 0 <= difference(result) < 0.1


def trackio_project(path: Path, runs: dict[str, tuple[str, list[Row]]]) -> None:
    """A project's file as trackio 0.43 writes it: id -> (name, rows of one table)."""
    with closing(sqlite3.connect(path)) as project:
        project.execute(
            "CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, "
            "timestamp TEXT NOT NULL, run_name TEXT NOT NULL, step INTEGER NOT NULL, "
            "metrics TEXT NOT NULL, log_id TEXT, space_id TEXT)"
        )
        insert = "INSERT INTO metrics (run_id, timestamp, run_name, step, metrics) VALUES "
        for run_id, (name, rows) in runs.items():
            # Metrics may be bytes, and hold numbers beside the table.
            table = {"reward": 0.5, "completions": {"_type": "trackio.table", "_value": rows}}
            values = (run_id, "2026", name, 3, json.dumps(table).encode())
            project.execute(f"{insert} (?, ?, ?, ?, ?)", values)
        project.commit()


def test_tables_of_trackio(tmp_path) -> None:
    project = tmp_path / "p.db"
    runs = {}
    for i, (arm, right) in enumerate((("a", 0.3), ("b", 0.6))):
        rows = []
        for row in rows_of(right, 0):
            rows.append({"prompt": row["input"], "completion": row["output"], "f": row["score"]})
        runs[f"id{i}"] = (arm, rows)
    trackio_project(project, runs)
    words = [f"a:0={project}/a", f"b:0={project}/id1"]
    result = audit(name_runs(words), LogMapping())
    expected = share(rows_of(0.6, 0)) - share(rows_of(0.3, 0))
    assert difference(result) == pytest.approx(expected)
    assert any("steps 3 to 3" in note for note in result.notes)


def test_runs_of_trackio_that_are_not_there_or_share_a_name(tmp_path) -> None:
    project = tmp_path / "p.db"
    trackio_project(project, {"id0": ("a", []), "id1": ("a", [])})
    with pytest.raises(ConfigError, match="2 runs of that name, expected an id: id0, id1"):
        audit(name_runs([f"a={project}/a", f"b={project}/id1"]), LogMapping())
    with pytest.raises(ConfigError, match="no such run, expected one of a"):
        audit(name_runs([f"a={project}/c", f"b={project}/id1"]), LogMapping())
    project.write_text("no project")
    with pytest.raises(ConfigError, match="no project of trackio"):
        audit(name_runs([f"a={project}/c", f"b={project}/id1"]), LogMapping())


# ---- checks --------------------------------------------------------------------------------------


def test_answers_that_were_not_judged_are_told(tmp_path) -> None:
    two_arms(tmp_path, "eval.jsonl")
    path = tmp_path / "b-seed0" / "eval.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[::3]:
        row["score"] = None
    lines(path, rows)
    assert status(judged(tmp_path), "judged") == FOUND


def test_a_gap_in_tokens_is_no_zero(tmp_path) -> None:
    two_arms(tmp_path, "rollouts/1.jsonl", response_length=100)
    path = tmp_path / "b-seed0" / "rollouts" / "1.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[3]["response_length"] = None
    lines(path, rows)
    result = judged(tmp_path)
    assert status(result, "budgets") == CLEAR
    assert "at a cost that is not known" in result.sentence


def test_other_evaluation_steps_are_found(tmp_path) -> None:
    two_arms(tmp_path, "rollouts/1.jsonl", step=10)
    two_arms(tmp_path, "eval/5.jsonl")
    two_arms(tmp_path, "eval/10.jsonl")
    assert status(judged(tmp_path), "checkpoints") == CLEAR
    (tmp_path / "b-seed0" / "eval" / "10.jsonl").unlink()
    assert status(judged(tmp_path), "checkpoints") == FOUND
    for folder in tmp_path.iterdir():
        (folder / "eval" / "10.jsonl").unlink(missing_ok=True)
        lines(folder / "eval" / "0.jsonl", rows_of(0.5, 0))
    assert status(judged(tmp_path), "checkpoints") == FOUND


def test_a_last_evaluation_of_few_problems_is_found(tmp_path) -> None:
    two_arms(tmp_path, "eval/5.jsonl")
    two_arms(tmp_path, "eval/10.jsonl", problems=6)
    assert status(judged(tmp_path), "problems") == FOUND


def test_other_training_problems_are_found_beside_equal_held_out_ones(tmp_path) -> None:
    two_arms(tmp_path, "eval/5.jsonl")
    two_arms(tmp_path, "rollouts/5.jsonl")
    rows = [row | {"input": f"other {row['input']}"} for row in rows_of(0.5, 0)]
    lines(tmp_path / "b-seed0" / "rollouts" / "5.jsonl", rows)
    assert status(judged(tmp_path), "problems") == FOUND


def test_ids_that_both_parts_count_from_0_are_other_problems(tmp_path) -> None:
    for arm in ("a", "b"):
        for part in ("train", "eval"):
            rows = rows_of(0.5, 0)
            for row in rows:
                row["example_id"] = int(row["input"].split()[1])
                row["input"] = f"{part} {row['input']}"
            lines(tmp_path / f"{arm}-seed0" / "rollouts/step_1" / f"{part}_rollouts.jsonl", rows)
    result = judged(tmp_path)
    assert (status(result, "overlap"), status(result, "prompts")) == (CLEAR, CLEAR)


@pytest.mark.parametrize("copy", ["eval/4_copy.jsonl", "eval/step_4.jsonl"])
def test_a_file_that_lies_there_twice_is_found(copy: str, tmp_path) -> None:
    two_arms(tmp_path, "eval/4.jsonl", answers=1, step=4)
    for folder in tmp_path.iterdir():
        (folder / copy).write_text((folder / "eval" / "4.jsonl").read_text())
    assert status(judged(tmp_path), "duplicates") == FOUND


def test_steps_that_were_sampled_anew_are_found(tmp_path) -> None:
    for step in range(1, 8):
        two_arms(tmp_path, f"rollouts/{step}.jsonl", step=step)
    assert status(judged(tmp_path), "duplicates") == CLEAR
    lines(tmp_path / "a-seed0" / "rollouts" / "resumed_5.jsonl", rows_of(0.5, 99, step=5))
    assert status(judged(tmp_path), "duplicates") == FOUND


def test_short_equal_answers_are_no_copies(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for arm in ("a", "b"):
        rows = []
        for problem in range(60):
            for _ in range(4 + problem % 2):
                letter = "ABCD"[rng.integers(4)]
                rows.append({"input": f"q {problem}", "output": letter, "score": 1.0})
        lines(tmp_path / f"{arm}-seed0" / "rollouts.jsonl", rows)
    assert status(judged(tmp_path), "duplicates") == CLEAR


@pytest.mark.parametrize("length", [lambda i: 100, lambda i: 1 + i % 3])
def test_lengths_without_a_limit_are_not_cut_off(length, tmp_path) -> None:
    for arm in ("a", "b"):
        rows = rows_of(0.3, 0)
        for i, row in enumerate(rows):
            row["response_length"] = length(i)
        lines(tmp_path / f"{arm}-seed0" / "rollouts.jsonl", rows)
    assert status(judged(tmp_path), "truncation") in (CLEAR, UNKNOWN_STATUS)


@pytest.mark.parametrize("reason", ["length", "MAX_TOKENS", {"type": "length", "length": 9}])
def test_reasons_of_ends(reason, tmp_path) -> None:
    two_arms(tmp_path, "rollouts.jsonl", finish_reason=reason)
    assert status(judged(tmp_path), "truncation") == FOUND


@pytest.mark.parametrize(
    ("first", "second", "check", "expected"),
    [
        ("lr: 1e-5", "lr: 1.0e-5", "settings", CLEAR),
        ("beta: 0", "beta: 0.0", "anchors", CLEAR),
        ("beta: 0", "beta: 0.01", "anchors", FOUND),
        ("lr: 1\nkl_log_dir: x", "lr: 1\nkl_log_dir: y", "anchors", UNKNOWN_STATUS),
        ("lr: 1\nhub_model_id: x", "lr: 1\nhub_model_id: y", "settings", CLEAR),
        ("lr: 1", "lr: 1\ncritic: {model: m, temperature: 1}", "settings", CLEAR),
        ("rollout: {n: 8}", "rollout: {n: 16}", "settings", FOUND),
        (
            "trainer: {total_training_steps: 8}",
            "trainer: {total_training_steps: 9}",
            "settings",
            FOUND,
        ),
        ("model_type: llama", "model_type: llama", "settings", UNKNOWN_STATUS),
    ],
)
def test_settings_that_lie_beside_logs(
    first: str, second: str, check: str, expected: str, tmp_path
) -> None:
    two_arms(tmp_path, "eval.jsonl")
    for folder in tmp_path.iterdir():
        text = first if folder.name.startswith("a") else second
        (folder / "config.yaml").write_text(text)
    assert status(judged(tmp_path), check) == expected


@pytest.mark.parametrize(
    ("critique", "gold", "expected"),
    [
        ("You made 2 errors: check the second sum.", "2", CLEAR),
        ("No, the answer is 2.", "2", FOUND),
        ("The right choice is B.", "B", FOUND),
        ("The capital is Paris.", "Paris", FOUND),
        ("It must be 42.", ["42"], FOUND),
        ("It must be 42.", '{"answer": "42"}', FOUND),
        ("It must be 42.", r"\boxed{42}", FOUND),
        ("Check your second sum.", "42", CLEAR),
    ],
)
def test_critiques_that_leak(critique: str, gold, expected: str, tmp_path) -> None:
    two_arms(tmp_path, "rollouts.jsonl", critique=critique, gts=gold)
    assert status(judged(tmp_path), "leaks") == expected


def test_without_critiques_their_checks_are_unknown(tmp_path) -> None:
    two_arms(tmp_path, "eval.jsonl")
    result = judged(tmp_path)
    assert (status(result, "leaks"), status(result, "controls")) == (UNKNOWN_STATUS,) * 2


def test_controls_are_words_of_names(tmp_path) -> None:
    for arm in ("against", "random-reward"):
        rows = rows_of(0.5, 0, critique="The second sum.", gts="77")
        lines(tmp_path / f"{arm}-seed0" / "rollouts.jsonl", rows)
    assert status(judged(tmp_path), "controls") == FOUND


def test_groups_without_rewards_are_not_dead(tmp_path) -> None:
    two_arms(tmp_path, "eval/1.jsonl")
    for folder in tmp_path.iterdir():
        rows = [row | {"score": None} for row in rows_of(0.5, 0)]
        lines(folder / "rollouts" / "1.jsonl", [*rows, *rows_of(0.5, 1, problems=2)])
    assert status(judged(tmp_path), "dead groups") == CLEAR


# ---- as a second tester showed -------------------------------------------------------------------


def test_pooled_answers_have_an_interval_over_seeds(tmp_path) -> None:
    """Seeds that drew other prompts: the pairs of seeds alone say how sure the difference is."""
    for arm, right in (("a", 0.5), ("b", 0.7)):
        for seed in range(5):
            rows = [{**row, "input": f"{seed} {row['input']}"} for row in rows_of(right, seed)]
            lines(tmp_path / f"{arm}-seed{seed}" / "rows.jsonl", rows)
    result = judged(tmp_path)
    [pair] = [each for each in result.comparison.comparisons if each.metric == "pass@1/all"]
    differences = list(pair.per_seed.values())
    half = t_quantile(0.975, 4) * np.std(differences, ddof=1) / np.sqrt(5)
    low, high = pair.ci95
    assert (low, high) == pytest.approx((pair.difference - half, pair.difference + half))
    assert high - low < 0.3
    assert "over 5 seeds" in result.sentence
    assert "problem" not in result.sentence.split("over 5 seeds")[1]


@pytest.mark.parametrize(
    "ids", [[f"{i}_{j}" for i in (1, 11) for j in range(10, 30)], [2**60 + i for i in range(40)]]
)
def test_ids_stay_apart_that_one_number_would_stand_for(ids, tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        rows = rows_of(right, 0, problems=len(ids), answers=1)
        named = [{**row, "problem_id": name} for row, name in zip(rows, ids, strict=True)]
        lines(tmp_path / f"{arm}-seed0" / "val_5.jsonl", named)
    result = judged(tmp_path)
    assert f"the same {len(ids)} held-out problems" in result.findings[1].says


def test_families_of_training_do_not_decide_about_held_out_answers(tmp_path) -> None:
    for arm, right in (("a", 0.3), ("b", 0.6)):
        rows = [{**row, "family": "big"} for row in rows_of(right, 0)]
        rows += [{**row, "input": "rare", "family": "rare"} for row in rows_of(1.0, 1, problems=1)]
        lines(tmp_path / f"{arm}-seed0" / "val_5.jsonl", rows)
        many = 20 if arm == "b" else 1
        train = [{**row, "family": str(i % many)} for i, row in enumerate(rows_of(0.5, 2))]
        lines(tmp_path / f"{arm}-seed0" / "step_5.jsonl", train)
    metrics = judged(tmp_path).comparison.arms["b"].metrics
    assert {"pass@1/big", "pass@1/rare"} <= metrics.keys()


def test_a_step_in_words_is_refused(tmp_path) -> None:
    two_arms(tmp_path, "val.jsonl", step="final")
    with pytest.raises(ConfigError, match=r"got the step 'final', expected a number"):
        judged(tmp_path)


def test_a_step_that_is_a_fraction_is_refused(tmp_path) -> None:
    two_arms(tmp_path, "val.jsonl", step=10.5)
    with pytest.raises(ConfigError, match=r"got the step 10.5, expected a whole number"):
        judged(tmp_path)


def test_evaluations_without_steps_are_called_so(tmp_path) -> None:
    two_arms(tmp_path, "val.jsonl")
    assert "all that are logged since no steps are" in judged(tmp_path).sentence


@pytest.mark.parametrize("word", ["greedy", "sample"])
def test_a_split_that_says_nothing_leaves_it_to_the_folder(word, tmp_path) -> None:
    two_arms(tmp_path, "validation/5.jsonl", mode=word)
    assert judged(tmp_path).estimand.kind == "held-out"


@pytest.mark.parametrize(("word", "expected"), [("yes", FOUND), ("no", CLEAR), ("?", "unknown")])
def test_marks_of_cut_answers_are_words_too(word, expected, tmp_path) -> None:
    two_arms(tmp_path, "val_5.jsonl", is_truncated=word)
    assert status(judged(tmp_path), "truncation") == expected


def test_a_problem_with_an_answer_more_is_found(tmp_path) -> None:
    two_arms(tmp_path, "val_5.jsonl")
    path = tmp_path / "a-seed0" / "val_5.jsonl"
    lines(path, [*rows_of(0.3, 0), {"input": "q 3", "output": "again", "score": 1.0}])
    assert status(judged(tmp_path), "samples") == FOUND


def test_a_run_without_an_evaluation_is_no_seed(tmp_path) -> None:
    two_arms(tmp_path, "val_5.jsonl")
    lines(tmp_path / "a-seed2" / "val_5.jsonl", rows_of(0.3, 2))
    lines(tmp_path / "b-seed2" / "step_5.jsonl", rows_of(0.6, 2))
    result = judged(tmp_path)
    assert status(result, "seeds") == FOUND
    assert any("b/seed2: left out" in note for note in result.notes)


@pytest.mark.parametrize(
    "prompt", [[{"role": ["user"], "content": "x"}], [{"role": {"a": 1}, "content": "x"}]]
)
def test_roles_that_are_no_words_are_read(prompt, tmp_path) -> None:
    two_arms(tmp_path, "val_5.jsonl", prompt=prompt)
    judged(tmp_path)


def test_a_methods_paragraph_says_nothing_against_the_audit(tmp_path) -> None:
    two_arms(tmp_path, "val_5.jsonl")
    result = judged(tmp_path, LogMapping(tried={"a": 1, "b": 6}))
    assert status(result, "tried") == FOUND
    text = methods_markdown(result.comparison, result.setup())
    assert "No search over settings" not in text
    assert "held-out problems are not recorded" not in text
    assert "judged by right answers to held-out problems" in text
