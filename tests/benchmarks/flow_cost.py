"""What masses cost on the lab: `python tests/benchmarks/flow_cost.py [--rounds 5]`, two minutes.

Processor seconds of one thread. First a checkpoint as `critique-rl flow` scores it: 200 held-out
problems of pipelines/flow.yaml with 64 completions each, those of the problem's list and, where it
is shorter, workings of other problems, which share no prefix. Then masses while training, 64
completions, beside a training step of the arm `grpo` in the same run. Memory: the peak of the
process after steps without masses, and after the masses.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"})

import torch
from transformers import TrainerCallback

from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import RunFolder
from critique_rl.experiment.build import build_trainer, load_start_policy
from critique_rl.experiment.evaluate import training_sampling
from critique_rl.experiment.flow.live import live_probes
from critique_rl.experiment.flow.masses import listed_masses
from critique_rl.experiment.flow.probes import ProbeSet, build_probes
from critique_rl.tasks.load import load_task

PROBLEMS, PROBES, STEPS = 200, 64, 12


def filled(probes: ProbeSet, problems: int, number: int) -> ProbeSet:
    """The first problems, each with that many completions."""
    everything = [probe for problem in probes.problems for probe in problem.probes]
    chosen = []
    for place, problem in enumerate(probes.problems[:problems]):
        start = place * number % (len(everything) - number)
        members = (*problem.probes, *everything[start : start + number])[:number]
        chosen.append(replace(problem, probes=members))
    return replace(probes, problems=tuple(chosen))


def median_seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


class StepTimes(TrainerCallback):
    """Processor seconds of each step."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.ends.append(time.process_time())


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    pipeline = load_pipeline(Path("pipelines/flow.yaml"), ["trl.max_steps=" + str(STEPS)])
    config = pipeline.arms["grpo"]
    task = load_task(config.task, 0)
    model, tokenizer = load_start_policy(config)
    model.eval()

    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, RunFolder(Path(folder)), task, 0)
        times = StepTimes()
        trainer.add_callback(times)
        trainer.train()
    steps = [later - earlier for earlier, later in zip(times.ends, times.ends[1:], strict=False)]
    step = statistics.median(steps)
    before = peak_mb()

    few = live_probes(config, task)
    live = median_seconds(lambda: listed_masses(model, few), rounds)
    number = sum(len(problem.probes) for problem in few.problems)
    print(
        f"while training: a step {step:.2f} s, masses of {number} completions {live:.3f} s; at "
        f"every tenth step {live / step / 10:.1%} of the steps' time"
    )
    print(f"peak memory {before:.0f} MB after training, {peak_mb() / before:.3f} of it with masses")

    rows = task.held_out(config.evaluation.split, PROBLEMS // 3 + 1)
    sampling = training_sampling(config)
    listed = build_probes(model, tokenizer, task, rows, sampling, PROBES, 0)
    probes = filled(listed, PROBLEMS, PROBES)
    seconds = median_seconds(lambda: listed_masses(model, probes), rounds)
    scored = sum(len(problem.probes) for problem in probes.problems)
    lists = replace(listed, problems=listed.problems[:PROBLEMS])
    of_lists = median_seconds(lambda: listed_masses(model, lists), rounds)
    kept = sum(len(problem.probes) for problem in lists.problems)
    print(
        f"a checkpoint: {PROBLEMS} problems, {scored} completions {seconds:.1f} s "
        f"({scored / seconds:.0f} per second); their lists alone, {kept}, {of_lists:.1f} s"
    )


if __name__ == "__main__":
    main()
