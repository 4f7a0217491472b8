"""Whole checkpoints, exact resume, and what stops a run: real processes, real signals, a real full
disk.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import ranks
import torch
import yaml
from tiny_runs import SMALL, cli, write_pipeline
from tiny_trainers import even, trainer_of
from waiting import ended, wait_for_steps

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment import processes
from critique_rl.trainer.checkpoint import (
    STATE,
    last_sealed,
    newest_whole,
    remove_unsealed,
    rotate,
    seal,
    sealed_checkpoints,
    set_aside,
)
from critique_rl.trainer.resume import Diverged

SAVING = {"save_strategy": "steps", "save_steps": 1, "learning_rate": 1e-3}
NO_CURVE = {**SMALL["evaluation"], "curve_every": 0}


def checkpoints(folder: Path, *steps: int) -> None:
    for step in steps:
        (folder / f"checkpoint-{step}").mkdir(parents=True)
        seal(folder / f"checkpoint-{step}", {})


def test_a_half_written_checkpoint_is_never_picked_and_goes(tmp_path) -> None:
    checkpoints(tmp_path, 5, 10)
    (tmp_path / "checkpoint-15").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert last_sealed(tmp_path) == tmp_path / "checkpoint-10"
    remove_unsealed(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint-10",
        "checkpoint-5",
        "checkpoint-best",
    }
    assert last_sealed(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("limit", "left"), [(1, [20]), (2, [10, 20]), (None, [5, 10, 20]), (0, [5, 10, 20])]
)
def test_rotation_keeps_the_newest_by_step(tmp_path, limit, left) -> None:
    checkpoints(tmp_path, 5, 10, 20)
    rotate(tmp_path, limit)
    assert [int(path.name[11:]) for path in sealed_checkpoints(tmp_path)] == left
    checkpoints(tmp_path, 30)
    rotate(tmp_path, 1, kept=[tmp_path / f"checkpoint-{left[0]}"])
    assert [int(path.name[11:]) for path in sealed_checkpoints(tmp_path)] == [left[0], 30]


DAMAGES = {
    "a flipped bit": lambda folder: flip(folder / "weights"),
    "a file cut short": lambda folder: (folder / "weights").write_bytes(b"0"),
    "an empty file": lambda folder: (folder / "weights").write_bytes(b""),
    "a missing file": lambda folder: (folder / "weights").unlink(),
    "a further file": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "a folder for a file": lambda folder: replaced(folder / "weights").mkdir(),
    "a broken link": lambda folder: replaced(folder / "weights").symlink_to("nowhere"),
    "a pipe for a file": lambda folder: os.mkfifo(replaced(folder / "weights")),
    "a seal of nothing": lambda folder: (folder / STATE).write_text("{}"),
    "a seal without checksums": lambda folder: (folder / STATE).write_text('{"kept_steps": []}'),
    "half a seal": lambda folder: (folder / STATE).write_text((folder / STATE).read_text()[:30]),
    "a seal of zeros": lambda folder: (folder / STATE).write_bytes(b"\0" * 99),
    "a folder for a seal": lambda folder: replaced(folder / STATE).mkdir(),
    "another checkpoint's seal": lambda folder: (folder / STATE).write_bytes(
        (folder.parent / "checkpoint-5" / STATE).read_bytes()
    ),
    "another count in the seal": lambda folder: (folder / STATE).write_text(
        (folder / STATE).read_text().replace("10.5", "11.5")
    ),
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def replaced(path: Path) -> Path:
    path.unlink()
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_seen_and_the_one_before_it_taken(tmp_path, damage) -> None:
    for step in (5, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(os.urandom(5000))
        seal(folder, {"kept_steps": [], "tokens": step + 0.5})
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-10", {})
    DAMAGES[damage](tmp_path / "checkpoint-10")
    newest, damaged = newest_whole(tmp_path)
    assert newest == tmp_path / "checkpoint-5"
    assert list(damaged) == [tmp_path / "checkpoint-10"]
    aside = set_aside(tmp_path / "checkpoint-10")
    assert aside.name == "damaged-checkpoint-10"
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-5", {})


def test_litter_of_a_file_system_is_no_damage(tmp_path) -> None:
    checkpoints(tmp_path, 5)
    (tmp_path / "checkpoint-5" / ".nfs0001").write_text("")
    assert newest_whole(tmp_path) == (tmp_path / "checkpoint-5", {})


@pytest.mark.processes
@pytest.mark.parametrize(
    ("kills", "options"),
    [("2", ["--turns", "1"]), ("1", ["--turns", "3"]), ("1", ["--staleness", "1"])],
)
def test_fifty_kills_in_short(tmp_path, kills, options) -> None:
    """The whole form: python tests/kill_and_resume.py --kills 50 (figures in runs/README.md)."""
    words = ["--kills", kills, "--steps", "20", "--seed", "1", *options]
    ranks.run(tmp_path, [("kill_and_resume", words)], world=1)
    assert f"{kills} of {kills} equal" in (tmp_path / "rank0.log").read_text()


def test_a_trainer_continues_exactly_in_any_epoch_and_with_metrics_not_logged_yet(
    tiny_policy, tmp_path
) -> None:
    settings = {**SAVING, "max_steps": 11, "logging_steps": 2, "steps_per_generation": 1}

    def build(folder):
        return trainer_of(
            CritiqueGRPOTrainer, CritiqueGRPOConfig, tiny_policy, folder, even, settings=settings
        )

    first = build(tmp_path)
    first.train()
    wanted = [
        {k: v for k, v in row.items() if k in ("reward", "entropy", "loss", "step")}
        for row in first.state.log_history[:-1]
    ]
    # 16 rows, 2 prompts a step: checkpoint 9 is in the second epoch, and halfway between two logged
    # steps
    again = build(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))
    got = [
        {k: v for k, v in row.items() if k in ("reward", "entropy", "step")}
        for row in again.state.log_history[:-1]
    ]
    assert [row["step"] for row in got] == [2, 4, 6, 8, 10]
    assert got == [{k: v for k, v in row.items() if k != "loss"} for row in wanted]
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            again.model.state_dict().values(), first.model.state_dict().values(), strict=True
        )
    )


def test_a_checkpoint_waits_until_the_generation_is_used_up(tiny_policy, tmp_path) -> None:
    settings = {
        **SAVING,
        "save_steps": 3,
        "max_steps": 12,
        "num_iterations": 2,
        "steps_per_generation": 2,
        "gradient_accumulation_steps": 1,
    }
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        even,
        settings={**settings, "per_device_train_batch_size": 4},
    )
    trainer.train()
    assert [int(path.name[11:]) for path in sealed_checkpoints(tmp_path)] == [4, 8, 12]


def test_true_resumes_from_the_newest_whole_checkpoint(tiny_policy, tmp_path) -> None:
    trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        even,
        settings={**SAVING, "max_steps": 3},
    ).train()
    (tmp_path / "checkpoint-3" / STATE).unlink()
    again = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        even,
        settings={**SAVING, "max_steps": 4},
    )
    again.train(resume_from_checkpoint=True)
    assert (again.state.global_step, [row["step"] for row in again.state.log_history[:4]]) == (
        4,
        [1, 2, 3, 4],
    )
    fresh = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path / "none",
        even,
        settings=SAVING,
    )
    with pytest.raises(ValueError, match="no complete checkpoint"):
        fresh.train(resume_from_checkpoint=True)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_saves(tiny_policy, tmp_path) -> None:
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        even,
        settings={**SAVING, "max_steps": 5, "learning_rate": 1e38},
    )
    with pytest.raises(Diverged, match=r"step \d: .*not finite"):
        trainer.train()
    for path in sealed_checkpoints(tmp_path):
        from safetensors.torch import load_file

        assert all(
            torch.isfinite(value).all() for value in load_file(path / "model.safetensors").values()
        )


@pytest.mark.processes
def test_the_command_says_what_survives_a_loss_that_is_not_finite(tiny_policy, tmp_path) -> None:
    path = write_pipeline(tmp_path, tiny_policy, evaluation=NO_CURVE)
    done = cli(
        "train",
        path,
        "--arm",
        "critique",
        "--seed",
        0,
        "--out",
        tmp_path / "runs",
        "trl.learning_rate=1.0e+38",
        "trl.save_steps=1",
    )
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr[-2000:]
    assert "not finite" in done.stderr
    assert "survive the metrics of" in done.stderr


@pytest.mark.processes
def test_a_second_process_on_the_same_folder_is_refused_and_the_first_goes_on(
    tiny_policy, tmp_path
) -> None:
    path = write_pipeline(
        tmp_path, tiny_policy, budget={"optimizer_steps": 40}, evaluation=NO_CURVE
    )
    out = tmp_path / "runs"
    run = PipelineFolder(out / "small").run("critique", 0)
    train = ("train", path, "--arm", "critique", "--seed", 0, "--out", out)
    first = processes.start([str(word) for word in train], tmp_path / "log")
    wait_for_steps(run, 1, first)
    # Stopped, so that it has not ended before a slow machine has started the second.
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second = cli(*train)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert (second.returncode, "another process is training here" in second.stderr) == (2, True), (
        second.stderr[-1000:]
    )
    assert ended(first, "the first process") == 0, (tmp_path / "log").read_text()[-2000:]
    assert [row["step"] for row in read_jsonl(run.metrics)] == list(range(1, 41))


@pytest.mark.processes
def test_a_folder_of_another_layout_is_refused(tiny_policy, tmp_path) -> None:
    path = write_pipeline(tmp_path, tiny_policy)
    out = tmp_path / "runs"
    run = PipelineFolder(out / "small").run("critique", 0)
    run.path.mkdir(parents=True)
    run.config.write_text(yaml.safe_dump({"schema": 99}))
    done = cli("train", path, "--arm", "critique", "--seed", 0, "--out", out)
    assert (done.returncode, "has layout 99, this version reads 1" in done.stderr) == (2, True)


def test_trackers_get_the_same_run_id_when_a_run_continues(tmp_path, monkeypatch) -> None:
    from critique_rl.config.durable_files import write_yaml
    from critique_rl.config.run_folder import RunFolder
    from critique_rl.experiment.train import _run_id

    for name in ("WANDB_RUN_ID", "WANDB_RESUME", "SWANLAB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    folder = RunFolder(tmp_path)
    run_id = _run_id(folder)
    write_yaml(folder.config, {"run_id": run_id})
    assert _run_id(folder) == run_id == os.environ["WANDB_RUN_ID"]
    assert os.environ["WANDB_RESUME"] == "allow"


@pytest.mark.processes
def test_a_run_falls_back_exactly_and_takes_changes_only_where_told(tiny_policy, tmp_path) -> None:
    trl = {**SMALL["trl"], "save_steps": 2}
    arms = {"critique": {"preset": "grpo", "critic": {"kind": "ground_truth"}}}
    changes = {"trl": trl, "budget": {"optimizer_steps": 4}, "evaluation": NO_CURVE, "arms": arms}
    path = write_pipeline(tmp_path, tiny_policy, **changes)
    out = tmp_path / "runs"
    run = PipelineFolder(out / "small").run("critique", 0)
    train = ("train", path, "--arm", "critique", "--seed", 0, "--out", out)
    assert cli(*train).returncode == 0

    def left() -> tuple[bytes, list[dict]]:
        rows = [
            {name: value for name, value in row.items() if not name.endswith(("seconds", "_time"))}
            for row in read_jsonl(run.metrics)
        ]
        return (run.model / "model.safetensors").read_bytes(), rows

    wanted = left()
    assert [item.name for item in sealed_checkpoints(run.checkpoints)] == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    run.evaluation.unlink()
    flip(run.checkpoints / "checkpoint-4" / "optimizer.pt")
    done = cli(*train)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "checkpoint-4 is damaged (optimizer.pt has another checksum)" in done.stderr
    assert "goes on from checkpoint-2" in done.stderr
    assert left() == wanted

    run.evaluation.unlink()
    stored = yaml.safe_load(run.config.read_text())
    stored["inputs"]["preset grpo"] = stored["inputs"]["prompts/lab/refine"] = "0" * 32
    run.config.write_text(yaml.safe_dump(stored))
    refused = cli(*train)
    assert refused.returncode == 2
    assert "cannot go on as the same run: preset grpo 00000000, now" in refused.stderr
    assert "; prompts/lab/refine 00000000, now" in refused.stderr
    assert cli(*train, "--accept-changes").returncode == 0
    assert cli("report", path, "--out", out).returncode == 0
    [accepted] = json.loads((out / "small" / "compare.json").read_text())["accepted_changes"]
    assert (accepted["arm"], accepted["seed"], accepted["step"]) == ("critique", 0, 4)
    for name in ("report.md", "report.html"):
        assert "critique seed 0 from step 4: preset grpo" in (out / "small" / name).read_text()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True
    ).returncode:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.processes
def test_a_full_disk_stops_the_run_and_the_same_command_continues_once_there_is_room(
    tiny_policy, tmp_path, small_disk
) -> None:
    path = write_pipeline(
        tmp_path, tiny_policy, budget={"optimizer_steps": 12}, evaluation=NO_CURVE
    )
    train = (
        "train",
        path,
        "--arm",
        "scalar",
        "--seed",
        0,
        "--out",
        small_disk,
        "trl.save_steps=2",
        "trl.save_total_limit=2",
    )
    (small_disk / "other").write_bytes(b"0" * 2_400_000)
    full = cli(*train)
    assert (full.returncode, "Traceback" in full.stderr) == (1, False), full.stderr[-3000:]
    assert "could not write" in full.stderr
    assert "the same command continues" in full.stderr
    (small_disk / "other").unlink()
    done = cli(*train)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [
        row["step"]
        for row in read_jsonl(PipelineFolder(small_disk / "small").run("scalar", 0).metrics)
    ] == list(range(1, 13))
