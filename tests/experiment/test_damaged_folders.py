"""Whatever is damaged in a run folder: comparing, reporting and going on give the right result or
one sentence.

    CRITIQUE_RL_CASES=10000 python -m pytest tests/experiment/test_damaged_folders.py
"""

from __future__ import annotations

import json
import os
import shutil

import pytest
import run_folders
from hypothesis import given, settings
from hypothesis import strategies as st
from kill_campaign import without_times

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.resume.changes import accepted_changes
from critique_rl.experiment.resume.start import bring_back, whole_checkpoint
from critique_rl.experiment.same_config import check_same_config

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
