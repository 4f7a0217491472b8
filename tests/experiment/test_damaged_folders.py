"""Whatever is damaged in a run folder: comparing, reporting and going on give the right result or
one sentence.

    CRITIQUE_RL_CASES=10000 python -m pytest tests/experiment/test_damaged_folders.py
"""

from __future__ import annotations

import json
import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import run_folders
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_campaign import without_times

from critique_rl.analysis.evaluations import read_base
from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl, with_checksum, write_json, write_yaml
from critique_rl.config.folder_checksums import folder_checksums
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.run_identity import RunIdentity
from critique_rl.experiment.build import load_trained
from critique_rl.experiment.resume.changes import EVERYWHERE, accepted_changes, input_changes
from critique_rl.experiment.resume.start import bring_back, check_tables, whole_checkpoint
from critique_rl.experiment.same_config import check_same_config, config_changes, read_config
from critique_rl.trainer.checkpoint import seal

FEW = int(os.environ.get("CRITIQUE_RL_CASES", "10"))
"""Commands take longer than functions."""
SHARES = st.floats(0, 1, exclude_max=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of the results, a folder to damage, what compare.json says, the runs' rows)."""
    folder = tmp_path_factory.mktemp("made")
    path, results = run_folders.make(folder)
    assert main(["compare", str(path), "--out", str(folder / "runs")]) == 0
    assert main(["report", str(path), "--out", str(folder / "runs")]) == 0
    rows = read_jsonl(results.run("critique", 1).metrics)
    return folder, tmp_path_factory.mktemp("damaged") / "copy", rows


def compare(folder) -> dict | None:
    """compare.json as the command writes it; None where it refuses."""
    words = [str(folder / "small.yaml"), "--out", str(folder / "runs")]
    results = PipelineFolder(folder / "runs" / "small")
    if results.comparison.is_file():
        results.comparison.unlink()
    statuses = {main(["compare", *words]), main(["report", *words])}
    assert statuses <= {0, 1, 2}
    if statuses != {0}:
        return None
    return json.loads(results.comparison.read_text())


@settings(max_examples=FEW)
@given(SHARES, st.sampled_from(list(run_folders.DAMAGES)), SHARES)
def test_a_damaged_results_folder_is_compared_rightly_or_refused(made, which, damage, share):
    original, folder, _ = made
    results = run_folders.copy(original, folder)
    wanted = json.loads(results.comparison.read_text())
    kinds = ("config.yaml", "eval.json", "metrics.jsonl", ".parquet", "compare.json")
    files = [path for path in run_folders.files(results.path) if path.name.endswith(kinds)]
    path = files[int(which * len(files))]
    run_folders.DAMAGES[damage](path, share)
    got = compare(folder)
    if got is not None and damage in run_folders.BYTES:
        assert without_times(got) == without_times(wanted)


def sentences(capsys) -> list[str]:
    err = capsys.readouterr().err
    assert "Traceback" not in err
    return [line for line in err.splitlines() if line.startswith("critique-rl: ")]


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_a_finished_run_without_settings_or_metrics_is_refused(made, capsys, name) -> None:
    original, folder, _ = made
    results = run_folders.copy(original, folder)
    (results.run("critique", 0).path / name).unlink()
    assert compare(folder) is None
    assert all(f"{name} is" in words and "missing" in words for words in sentences(capsys))


def test_the_folder_of_another_run_is_refused_whatever_is_accepted(made) -> None:
    original, folder, _ = made
    config = load_pipeline(original / "small.yaml", []).arms["critique"]
    for arm, seed in (("critique", 1), ("scalar", 0)):
        results = run_folders.copy(original, folder)
        run = results.run("critique", 0)
        shutil.rmtree(run.path)
        shutil.copytree(results.run(arm, seed).path, run.path)
        with pytest.raises(ConfigError, match=f"it is of arm '{arm}' with seed {seed}"):
            check_same_config(run, config, 0, accepts_changes=True)


def test_a_checkpoint_or_a_table_of_another_run_is_not_gone_on_from(made) -> None:
    original, folder, _ = made
    results = run_folders.copy(original, folder)
    run = results.run("critique", 1)
    seal(run.checkpoints / "checkpoint-4", {"kept_steps": [], "run": {"arm": "scalar", "seed": 1}})
    identity = RunIdentity("critique", 1, "0123456789ab")
    assert whole_checkpoint(run, identity).name == "checkpoint-2"
    assert (run.checkpoints / "damaged-checkpoint-4").is_dir()
    table = pa.table({"step": [2]}).replace_schema_metadata(
        {"run": json.dumps(RunIdentity("critique", 0).to_json())}
    )
    pq.write_table(table, run.rollouts / "step00002-rank0.parquet")
    with pytest.raises(ConfigError, match="it is of arm 'critique' with seed 0"):
        check_tables(run, run.checkpoints / "checkpoint-2", identity)
    check_tables(run, None, identity)


def test_what_lies_where_a_run_will_write_is_seen_before_it_trains(made) -> None:
    original, folder, _ = made
    config = load_pipeline(original / "small.yaml", []).arms["critique"]
    for name, words in (("eval.json", "is no file"), ("model", "is a link to nowhere")):
        run = run_folders.copy(original, folder).run("critique", 1)
        if name == "model":
            run.model.symlink_to("nowhere")
        else:
            run.evaluation.mkdir()
        with pytest.raises(ConfigError, match=words):
            check_same_config(run, config, 1)
    run = run_folders.copy(original, folder).run("critique", 1)
    (run.checkpoints / "checkpoint-3").write_text("mine")
    assert whole_checkpoint(run).name == "checkpoint-4"
    assert (run.checkpoints / "damaged-checkpoint-3").read_text() == "mine"


def test_the_two_evaluations_of_the_base_are_told_apart(made) -> None:
    original, folder, _ = made
    results = run_folders.copy(original, folder)
    first = json.loads(results.base.evaluation.read_text())
    again = with_checksum({**first, "samples": 5})
    checksums = {"base": first["checksum"], "again": again["checksum"]}
    write_yaml(results.base.config, {"evaluations": checksums})
    write_json(results.base_again.evaluation, again)
    assert read_base(results).protocol["samples"] == 4
    assert read_base(results, again=True).protocol["samples"] == 5
    write_json(results.base.evaluation, again)
    write_json(results.base_again.evaluation, first)
    for is_again in (False, True):
        with pytest.raises(ConfigError, match=r"is not the evaluation that .* names"):
            read_base(results, is_again)


def test_weights_that_the_run_did_not_leave_are_not_evaluated(tiny_policy, tmp_path) -> None:
    config = parse_pipeline("p", run_folders.PIPELINE).arms["scalar"]
    run = RunFolder(tmp_path)
    shutil.copytree(tiny_policy, run.model)
    evaluation = {"model_files": folder_checksums(run.model)}
    (run.model / "README.md").write_text("words of the user")
    load_trained(config, run, evaluation)
    weights = run.model / "model.safetensors"
    content = weights.read_bytes()
    for damaged in (content[:-1] + b"x", b"\xff" + content[1:]):
        weights.write_bytes(damaged)
        with pytest.raises(ConfigError, match=r"model\.safetensors has another checksum"):
            load_trained(config, run, evaluation)
    # An earlier version kept no checksums.
    with pytest.raises(ConfigError, match="is damaged"):
        load_trained(config, run, {})


@pytest.mark.parametrize(
    "override",
    [
        "trl.temperature=1.0",
        "trl.steps_per_generation=1",
        "trl.dataloader_pin_memory=false",
        "method.refine_weight=1.0",
        "method.refine_template=lab/refine",
        "critic.reworded=false",
    ],
)
def test_a_default_that_is_written_out_changes_nothing(made, override) -> None:
    original, *_ = made
    run = PipelineFolder(original / "runs" / "small").run("critique", 1)
    key, _, value = override.partition("=")
    for text, changed in ((value, []), ("true" if value == "false" else "0.5", [key])):
        words = f"arms.critique.{key}={text}"
        config = load_pipeline(original / "small.yaml", [words]).arms["critique"]
        wanted = [] if "pin_memory" in key else changed
        assert [change.key for change in config_changes(run, config, 1)] == wanted


def test_an_input_that_was_edited_alone_or_lost_is_a_change() -> None:
    now = dict.fromkeys(EVERYWHERE, "1")
    stored = {"inputs": now, "versions": {"torch": "1", "python": "1"}}
    assert input_changes(stored, now) == []
    edited = {**stored, "inputs": {**now, "torch": "2"}}
    assert input_changes(edited, now) == ["torch 2, now 1"]
    lost = {name: value for name, value in now.items() if name != "tokenizers"}
    assert input_changes({**stored, "inputs": lost}, now) == ["tokenizers absent, now 1"]
    assert input_changes({**stored, "inputs": {**now, "ranks": 1}}, now) == ["ranks 1, now '1'"]


def test_a_config_that_was_cut_inside_its_inputs_is_damaged(made) -> None:
    original, folder, _ = made
    run = run_folders.copy(original, folder).run("critique", 1)
    text = run.config.read_text()
    run.config.write_text(text[: text.index("  prompts/")])
    with pytest.raises(ConfigError, match="versions is no section, or is lost"):
        read_config(run)


@given(SHARES, st.sampled_from(list(run_folders.DAMAGES)), SHARES)
def test_a_damaged_stopped_run_goes_on_from_what_is_whole_or_is_refused(made, which, damage, share):
    original, folder, rows = made
    results = run_folders.copy(original, folder)
    run = results.run("critique", 1)
    files = run_folders.files(run.path)
    path = files[int(which * len(files))]
    run_folders.DAMAGES[damage](path, share)
    config = load_pipeline(folder / "small.yaml", []).arms["critique"]
    try:
        check_same_config(run, config, 1)
        checkpoint = whole_checkpoint(run)
        accepted_changes(run, config, 1, dict(run_folders.INPUTS), checkpoint, False)
        bring_back(run, checkpoint)
    except (ConfigError, OSError) as error:
        # `train` names misplaced files in a sentence.
        assert str(run.path) in str(error)
        return
    step = int(checkpoint.name[11:]) if checkpoint else 0
    assert step in (2, 4)
    assert (step == 4) or "checkpoint-4" in str(path)
    for name in ("model.safetensors", "optimizer.pt", "trainer_state.json"):
        kept = original / checkpoint.relative_to(folder) / name
        assert (checkpoint / name).read_bytes() == kept.read_bytes()
    got = [{**row, "seconds": 0} for row in read_jsonl(run.metrics)]
    assert got == [{**row, "seconds": 0} for row in rows[:step]]
    assert len(list(run.rollouts.glob("*.parquet"))) in (step, step - 1)
    shutil.rmtree(folder)
