"""`pipelines/warm_start.py` on a tiny policy: it learns the world's examples, and one that was
killed ends where one that was not does.
"""

import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from waiting import ended, exit_code, wait_until

from critique_rl.experiment import processes
from critique_rl.policy import load_policy

SCRIPT = Path(__file__).parents[2] / "pipelines" / "warm_start.py"


def start(policy, out):
    # 112 updates: the first checkpoint is written after 50, and the second after 100.
    words = ["--model", policy, "--world", "chain", "--sequences", "896"]
    words += ["--learning-rate", "1e-3", "--out", str(out)]
    # Forked as runs are, because imports would take most of the time.
    process = processes.context().Process(target=script, args=(words, log_of(out)))
    process.start()
    return process


def script(words, log):
    """In the new process: what `python pipelines/warm_start.py <words>` does."""
    for descriptor in (1, 2):
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), descriptor)
    sys.argv = [str(SCRIPT), *words]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def log_of(out):
    return out.with_suffix(".log")


def weights(folder):
    return torch.cat([p.flatten() for p in load_policy(str(folder))[0].state_dict().values()])


@pytest.mark.processes
def test_a_warm_start_that_was_killed_ends_as_one_that_was_not(tiny_policy, tmp_path):
    uninterrupted, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(tiny_policy, uninterrupted)
    assert ended(process, "the whole one") == 0, log_of(uninterrupted).read_text()
    process = start(tiny_policy, killed)
    state = killed / "checkpoints" / "checkpoint-50" / "trainer_state.json"
    try:
        there_or_over = lambda: state.exists() or exit_code(process) is not None  # noqa: E731
        wait_until(there_or_over, str(state), every=0.001)
    finally:
        process.kill()
    process.join()
    assert not (killed / "model.safetensors").exists(), "it ended before it could be killed"
    process = start(tiny_policy, killed)
    assert ended(process, "the one that goes on") == 0, log_of(killed).read_text()
    assert torch.equal(weights(uninterrupted), weights(killed))
    assert not torch.equal(weights(uninterrupted), weights(tiny_policy))
    assert not (killed / "checkpoints").exists()
