"""The rule of the split is stored with a run, and folders of earlier versions keep theirs."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import pytest
import yaml

from critique_rl.cli.arguments import load
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.resolved_run import base_config, run_defaults, to_dict, with_seed
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.split_rule import stored_options, with_stored_split
from critique_rl.experiment.campaigns.campaign import _is_base_due
from critique_rl.experiment.evaluate import task_settings
from critique_rl.experiment.same_config import check_folders

OPTIONS = {"train": "a.jsonl", "answer": "answer"}


def pipeline_of(options: dict, name: str = "data"):
    arms = {"scalar": {}, "retry": {"critic": {"kind": "retry"}}}
    task = {"name": name, "options": options}
    return parse_pipeline("p", {"task": task, "policy": {"model": "m"}, "arms": arms})


def old_folder(path: Path) -> PipelineFolder:
    """A folder as an earlier version wrote it: no rule anywhere."""
    folder = PipelineFolder(path / "p")
    pipeline = pipeline_of({**OPTIONS, "split_rule": 1})
    stored = to_dict(with_seed(pipeline.arms["scalar"], 0))
    assert stored["task"]["options"] == OPTIONS
    run = folder.run("scalar", 0)
    run.path.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"schema": 1, **stored}))
    folder.base.path.mkdir()
    base = base_config(pipeline.arms["scalar"])
    assert "split_rule" not in base["task"]["options"]
    folder.base.config.write_text(yaml.safe_dump(base))
    folder.base.evaluation.write_text("{}")
    return folder


def rules(pipeline) -> set:
    return {config.task.options.get("split_rule") for config in pipeline.arms.values()}


def test_an_old_folder_keeps_rule_1_in_all_arms(tmp_path) -> None:
    folder = old_folder(tmp_path)
    kept = with_stored_split(pipeline_of(OPTIONS), folder)
    assert rules(kept) == {1}
    check_folders(kept, folder)
    assert not _is_base_due(kept, folder)
    # An evaluation that is taken now is comparable with those of the folder.
    assert task_settings(kept.arms["retry"].task)["options"] == OPTIONS
    with pytest.raises(ConfigError, match="split_rule None, now 2"):
        check_folders(pipeline_of(OPTIONS), folder)


def test_a_new_folder_stores_rule_2_and_keeps_it(tmp_path) -> None:
    folder = PipelineFolder(tmp_path / "p")
    pipeline = with_stored_split(pipeline_of(OPTIONS), folder)
    stored = to_dict(with_seed(pipeline.arms["scalar"], 0))
    assert stored["task"]["options"]["split_rule"] == 2
    assert base_config(pipeline.arms["scalar"])["task"]["options"]["split_rule"] == 2
    assert task_settings(pipeline.arms["scalar"].task)["options"]["split_rule"] == 2
    run = folder.run("scalar", 0)
    run.path.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"schema": 1, **stored}))
    again = with_stored_split(pipeline_of(OPTIONS), folder)
    assert rules(again) == {2}
    check_folders(again, folder)


def test_a_rule_in_the_file_is_the_users(tmp_path) -> None:
    folder = old_folder(tmp_path)
    wanted = with_stored_split(pipeline_of({**OPTIONS, "split_rule": 2}), folder)
    assert rules(wanted) == {2}
    with pytest.raises(ConfigError, match="was started with other settings"):
        check_folders(wanted, folder)


def test_other_tasks_have_no_rule(tmp_path) -> None:
    pipeline = pipeline_of({}, "lab/chain")
    assert with_stored_split(pipeline, old_folder(tmp_path)) == pipeline
    assert to_dict(pipeline.arms["scalar"])["task"]["options"] == {}
    assert stored_options("lab/chain", {"a": 1}) == {"a": 1}
    assert run_defaults()["task"]["options"] == {}


def test_a_broken_config_is_left_to_the_check_that_names_it(tmp_path) -> None:
    folder = PipelineFolder(tmp_path / "p")
    run = folder.run("scalar", 0)
    run.path.mkdir(parents=True)
    run.config.write_text("{")
    assert with_stored_split(pipeline_of(OPTIONS), folder) == pipeline_of(OPTIONS)


def test_commands_read_the_rule_of_the_folder(tmp_path, monkeypatch) -> None:
    old_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    section = {"task": {"name": "data", "options": OPTIONS}, "policy": {"model": "m"}}
    Path("p.yaml").write_text(json.dumps(section))
    arguments = Namespace(pipeline=Path("p.yaml"), overrides=[], out=tmp_path)
    pipeline, _ = load(arguments)
    assert rules(pipeline) == {1}
