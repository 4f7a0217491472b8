"""Masses and accounts while training: they are logged, and change nothing of the training."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from safetensors.torch import load_file
from tiny_runs import cli, write_pipeline

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.analysis.page.flow.bars import bar_panels
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.experiment.flow import probes as probes_module
from critique_rl.experiment.flow.live import live_probes
from critique_rl.tasks.load import load_task

TRL = {
    "num_generations": 4,
    "per_device_train_batch_size": 8,
    "max_completion_length": 48,
    "learning_rate": 1e-3,
}
EVALUATION = {"problems": 4, "samples": 1, "ks": [1], "curve_every": 0}


def pipeline(folder: Path, flow: dict | None) -> Path:
    return write_pipeline(
        folder,
        "lab",
        preset="mixed",
        trl=TRL,
        evaluation=EVALUATION,
        budget={"optimizer_steps": 4},
        flow=flow,
        arms={"critique": {"critic": {"kind": "oracle"}}},
    )


def trained(folder: Path, flow: dict | None) -> Path:
    """The run folder of a pipeline that was run and, if it has snapshots, scored."""
    folder.mkdir()
    path = pipeline(folder, flow)
    done = cli("run", path, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder / "small" / "critique" / "seed0"


def rows(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.processes
@pytest.mark.trains
def test_masses_account_and_snapshots_change_nothing_of_the_training(tmp_path) -> None:
    flow = {
        "problems": 4,
        "samples": 8,
        "snapshots": 3,
        "every": 2,
        "probes": 24,
        "account": "plateau",
    }
    plain = trained(tmp_path / "plain", None)
    measured = trained(tmp_path / "measured", flow)
    ours = load_file(measured / "model" / "model.safetensors")
    for name, weights in load_file(plain / "model" / "model.safetensors").items():
        assert weights.equal(ours[name]), name
    logged = rows(measured)
    for row, other in zip(logged, rows(plain), strict=True):
        assert row["loss"] == other["loss"]
        assert row["reward"] == other["reward"]
    masses = [row for row in logged if "flow/plateau/right" in row]
    assert [row["step"] for row in masses] == [2, 4]
    for family in ("plateau", "learnable", "no-trap"):
        total = sum(masses[0][f"flow/{family}/{kind}"] for kind in CLASSES)
        assert total == pytest.approx(1, abs=1e-5)
    accounts = [row for row in logged if "flow/base_wrong/distill" in row]
    assert [row["step"] for row in accounts] == [1, 3]
    # Three points: the base, the snapshot in the middle, the last policy.
    words = ("flow", pipeline(tmp_path / "measured", flow), "--out", tmp_path / "measured")
    done = cli(*words, "--json")
    assert done.returncode == 0, done.stderr
    points = json.loads(done.stdout)["arms"]["critique"]["0"]
    assert [point["step"] for point in points] == [2, 4]
    again = cli(*words, "--json", "--svg", tmp_path / "flow.svg", "--family", "plateau")
    assert again.stdout == done.stdout
    unknown = cli(*words, "--svg", tmp_path / "flow.svg", "--family", "plateu")
    assert unknown.returncode == 2
    assert "no family 'plateu'" in unknown.stderr
    svg = ElementTree.parse(tmp_path / "flow.svg")
    titles = [item.text for item in svg.iter("{http://www.w3.org/2000/svg}title")]
    masses = points[-1]["families"]["plateau"]
    assert f"right {masses['right']:.3f}, base's wrong {masses['base_wrong']:.3f}" in titles[-1]
    # Weights that are not those that were saved make no point.
    [snapshot] = (measured / "snapshots").iterdir()
    (measured / "flow.json").unlink()
    weights = snapshot / "model.safetensors"
    weights.write_bytes((measured / "model" / "model.safetensors").read_bytes())
    refused = cli(*words)
    assert refused.returncode == 2
    assert "model.safetensors has another checksum" in " ".join(refused.stderr.split())
    # The page draws the same run, its account from the log.
    panels = bar_panels({"critique": {0: logged}})["critique"]
    assert [panel.title for panel in panels] == ["critique: right", "critique: base's wrong"]
    assert {bar.phase for bar in panels[0].bars} == {0, 1}


def test_live_probes_are_few_and_hold_every_problems_right_completion(tmp_path) -> None:
    loaded = load_pipeline(pipeline(tmp_path, {"problems": 4, "samples": 4, "probes": 24}), [])
    config = loaded.arms["critique"]
    probes = live_probes(config, load_task(config.task, 0))
    assert sum(len(problem.probes) for problem in probes.problems) <= 24
    for problem in probes.problems:
        assert [probe.kind for probe in problem.probes].count("right") == 1
    assert {problem.family for problem in probes.problems} == {"plateau", "learnable", "no-trap"}


def test_a_policy_without_one_spelling_has_no_live_masses(tmp_path, monkeypatch) -> None:
    # No committed tokenizer has merges.
    monkeypatch.setattr(probes_module, "is_spelled_once", lambda *_: False)
    loaded = load_pipeline(pipeline(tmp_path, {"every": 2, "problems": 1, "samples": 2}), [])
    config = loaded.arms["critique"]
    with pytest.raises(ConfigError, match="expected 0; take"):
        live_probes(config, load_task(config.task, 0))


@pytest.mark.processes
@pytest.mark.parametrize(
    ("flow", "words"),
    [
        ({"every": 1, "account": "nope"}, "flow.account: no family 'nope'"),
        ({"account": "plateau"}, "set flow.every"),
        ({"snapshots": 1}, "flow.snapshots: got 1"),
        ({"masses": "exact"}, "flow.masses: got 'exact', expected listed or sampled"),
        ({"every": -1}, "flow.every: got -1"),
        ({"problem": 3}, "problem"),
    ],
)
def test_sections_that_cannot_be_used_are_refused(tmp_path, flow, words) -> None:
    done = cli("plan", pipeline(tmp_path, flow))
    assert done.returncode == 2
    assert words in " ".join((done.stdout + done.stderr).split())
