"""Real runs in real trackers: trackio and TensorBoard."""

import json
import os
import shutil
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import cli, write_pipeline

from critique_rl.config.durable_files import read_yaml
from critique_rl.config.run_folder import PipelineFolder

pytestmark = [pytest.mark.trains, pytest.mark.processes]
TRL = {
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 12,
    "learning_rate": 1e-3,
    "save_steps": 1,
    "report_to": ["trackio", "tensorboard"],
}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, tiny_policy):
    """(folder of the pipeline, its rows in trackio): both arms, the critique arm continued after
    its last checkpoint was lost.
    """
    folder = tmp_path_factory.mktemp("tracked")
    tracking = {"critiques_every": 2, "critiques": 3}
    path = write_pipeline(folder, tiny_policy, trl=TRL, tracking=tracking)
    words = ("run", path, "--jobs", "2", "--out", folder / "runs")
    first = cli(*words)
    assert first.returncode in (0, 1), first.stderr
    results = PipelineFolder(folder / "runs" / "small")
    run = results.run("critique", 0)
    run.evaluation.unlink()
    shutil.rmtree(run.checkpoints / "checkpoint-3")
    again = cli(*words)
    assert run.finished, again.stderr
    with sqlite3.connect(Path(os.environ["TRACKIO_DIR"], "small.db")) as database:
        query = "select run_id, run_name, step, metrics from metrics order by id"
        rows = [(*row[:3], json.loads(row[3])) for row in database.execute(query)]
        configs = dict(database.execute("select run_name, config from configs"))
    return results, rows, configs


def test_a_run_is_named_after_its_arm_seed_and_id_and_grouped_by_its_arm(tracked) -> None:
    results, _, configs = tracked
    groups = {name: json.loads(config)["_Group"] for name, config in configs.items()}
    expected = {}
    for arm in ("scalar", "critique"):
        run_id = read_yaml(results.run(arm, 0).config)["run_id"]
        expected[f"{arm}-seed0-{run_id[:6]}"] = arm
    assert groups == expected


def test_a_continued_run_is_one_run_whose_steps_are_those_of_the_optimizer(tracked) -> None:
    _, rows, _ = tracked
    ids = defaultdict(set)
    losses = defaultdict(list)
    for run_id, name, step, metrics in rows:
        arm = name.split("-")[0]
        ids[arm].add(run_id)
        if "train/loss" in metrics:
            losses[arm].append((step, metrics["train/loss"]))
    assert {arm: len(runs) for arm, runs in ids.items()} == {"scalar": 1, "critique": 1}
    assert [step for step, _ in losses["scalar"]] == [1, 2, 3]
    assert [step for step, _ in losses["critique"]] == [1, 2, 3, 3]
    # The step that was trained again came out the same.
    assert losses["critique"][2] == losses["critique"][3]


def test_critiques_are_a_table_of_few_rows_every_few_steps(tracked) -> None:
    _, rows, _ = tracked
    tables = {}
    for _, name, step, metrics in rows:
        if "critiques" in metrics:
            tables[name.split("-")[0], step] = metrics["critiques"]["_value"]
    assert set(tables) == {("critique", 1), ("critique", 2)}
    for table in tables.values():
        assert 1 <= len(table) <= 3
        assert all(row["critic"] == "oracle" and row["critique"] for row in table)


def test_tensorboard_has_a_folder_per_arm_and_the_critiques_as_text(tracked) -> None:
    results, _, _ = tracked
    names = sorted(path.name for path in results.tensorboard.iterdir())
    assert names == ["critique", "scalar"]
    events = EventAccumulator(str(results.tensorboard / "critique" / "seed0"))
    events.Reload()
    assert "train/reward" in events.Tags()["scalars"]
    assert "critiques/text_summary" in events.Tags()["tensors"]


def test_a_log_has_lines_of_progress_and_no_table_of_metrics(tracked) -> None:
    results, _, _ = tracked
    text = results.run("scalar", 0).log.read_text()
    assert "step 1: 1 of 3 steps (33%)" in text
    assert "step 3: 3 of 3 steps (100%)" in text
    assert "'grad_norm'" not in text
