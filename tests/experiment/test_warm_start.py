"""`pipelines/warm_start.py` on the lab's own base: it learns the world's examples, and one that was
killed ends where one that was not does.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from waiting import ended, exit_code, wait_until

from critique_rl.policy import load_policy

SCRIPT = Path(__file__).parents[2] / "pipelines" / "warm_start.py"


def start(out):
    # 80 updates: the checkpoint is written after 50, and thirty are left to do again.
    words = ["--model", "lab", "--world", "chain", "--sequences", "640"]
    words += ["--learning-rate", "1e-3", "--out", str(out)]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def weights(folder):
    return torch.cat([p.flatten() for p in load_policy(str(folder))[0].state_dict().values()])


@pytest.mark.processes
def test_a_warm_start_that_was_killed_ends_as_one_that_was_not(tmp_path):
    uninterrupted, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(uninterrupted)
    assert ended(process, "the whole one") == 0, process.stderr.read()
    process = start(killed)
    state = killed / "checkpoints" / "checkpoint-50" / "trainer_state.json"
    try:
        there_or_over = lambda: state.exists() or exit_code(process) is not None  # noqa: E731
        wait_until(there_or_over, str(state), every=0.001)
    finally:
        process.kill()
    process.wait()
    assert not (killed / "model.safetensors").exists(), "it ended before it could be killed"
    process = start(killed)
    assert ended(process, "the one that goes on") == 0, process.stderr.read()
    assert torch.equal(weights(uninterrupted), weights(killed))
    assert not torch.equal(weights(uninterrupted), weights("lab"))
    assert not (killed / "checkpoints").exists()
