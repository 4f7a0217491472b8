"""Where the time of a command goes, by py-spy's samples: `pip install py-spy`, then `python
tests/benchmarks/where_time_goes.py [--rate 100] [-- run pipelines/quickstart.yaml --jobs 1]`.

The command is critique-rl's, in a temporary folder of results; its processes are sampled too. A
sample counts for the first phase of the table that is on its stack. A share is of all samples of
processes that were at work. Waiting is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

DEMO = ["run", "pipelines/quickstart.yaml", "--jobs", "1"]
PHASES = (
    ("imports", ("_find_and_load",)),
    ("evaluation of a policy: sampling", ("sample (critique_rl/sampling/sample.py",)),
    ("evaluation: the rest", ("curve_point", "final_evaluation", "evaluate_base")),
    ("masses while training", ("on_step_end (critique_rl/experiment/flow",)),
    ("checkpoints and final weights", ("_save_checkpoint", "save_model", "_finish (critique_rl")),
    ("rollouts: sampling", ("_generate_single_turn",)),
    ("refinements and critics: sampling", ("sample (critique_rl/trainer/trl_seams.py",)),
    ("rollouts: judged, critiques, packing", ("_generate_and_score_completions",)),
    ("loss, forward", ("compute_loss",)),
    ("loss, backward", ("Accelerator.backward", "backward (accelerate")),
    ("optimizer", ("_optimizer_step", "AdamW.step", "step (accelerate", "clip_grad_norm")),
    ("rest of a training", ("train (critique_rl/experiment/train.py",)),
)
"""A phase, and the parts of frames by which it is known."""
WAITS = ("wait (", "_wait_for_tstate_lock (", "select (", "poll (", "_recv (", "serve (")
"""Frames that a process waits in, though py-spy takes it to be at work."""


def recorded(command: list[str], rate: int) -> list[tuple[str, int]]:
    """Stacks and their numbers of samples, as py-spy writes them."""
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks.txt"
        watched = [sys.executable, "-m", "critique_rl", *command, "--out", f"{folder}/runs"]
        spy = ["py-spy", "record", "--subprocesses", "--format", "raw", "--rate", str(rate)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*spy, "--output", str(stacks), "--", *watched], check=True, env=environment)
        lines = stacks.read_text().splitlines()
    counts = []
    for line in lines:
        stack, count = line.rsplit(" ", 1)
        counts.append((stack, int(count)))
    return counts


def phase_of(stack: str) -> str:
    for phase, parts in PHASES:
        if any(part in stack for part in parts):
            return phase
    return "outside of these"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rate", type=int, default=100, help="samples per second")
    parser.add_argument("command", nargs="*", default=DEMO, help="of critique-rl")
    given = parser.parse_args()
    samples: Counter[str] = Counter()
    for stack, count in recorded(given.command, given.rate):
        if any(name in stack for name in WAITS):
            continue
        samples[phase_of(stack)] += count
    total = samples.total()
    print(f"critique-rl {' '.join(given.command)}: {total / given.rate:.0f} s of processes at work")
    for phase, count in samples.most_common():
        print(f"  {phase:40} {count / given.rate:7.1f} s  {count / total:6.1%}")


if __name__ == "__main__":
    main()
