"""How the cost of a step grows, beside the law that predicts it: `OMP_NUM_THREADS=1 python
tests/benchmarks/step_growth.py [--rounds 4] [--steps 3]`, on an idle machine.

A Llama of the lab's size with fresh weights, whose completions all have the longest length, so that
every rollout fails. One thing changes at a time, from 64 rows in groups of 8, 48 tokens and a
vocabulary of 2,048. A law is a straight line through the two smaller points (of 1 / group size for
groups): the third point is measured beside what the line says of it. Settings take turns in random
order; a figure is the median over rounds of seconds per step, and of the ratio to the first point
in the same round.

    stock      TRL's GRPOTrainer
    refined    one refinement per group, critiques of every failed group by a rule
    distilled  the same, and distillation of failed rollouts (top 100, the base as teacher)

The critic's latency is that of `hidden_critic.py`'s server: x1, x4 and x16 of `--latency`, with
`critique_staleness` 0 and 1. The laws are a + x, and the longer of x and b.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace

import hidden_critic
import step_cost
import torch
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic.build import build_critic
from critique_rl.lab.base import Recipe, build_model
from critique_rl.policy import load_policy
from critique_rl.tasks.rewards import VerifierReward


@dataclass(frozen=True)
class Setting:
    """What a step's cost may depend on."""

    group: int = 8
    rows: int = 64
    completion: int = 48
    vocabulary: int = 2048


POINTS = {
    "group": (4, 8, 16),
    "rows": (32, 64, 128),
    "completion": (24, 48, 96),
    "vocabulary": (512, 2048, 8192),
}
METHODS = {"stock": {}, "refined": step_cost.CHEAP, "distilled": step_cost.DISTILLED}
LATENCIES = (1, 4, 16)


def seconds_per_step(setting: Setting, method: str, steps: int) -> float:
    """Wall seconds of a step, the first left out."""
    torch.manual_seed(0)
    _, tokenizer = load_policy("lab")
    model = build_model(Recipe(), setting.vocabulary)
    options = {
        **step_cost.SHARED,
        **METHODS[method],
        "num_generations": setting.group,
        "per_device_train_batch_size": setting.rows,
        "max_completion_length": setting.completion,
        "max_steps": steps + 1,
        "generation_kwargs": {"min_new_tokens": setting.completion},
    }
    clock = hidden_critic.Clock()
    with tempfile.TemporaryDirectory() as folder:
        reward = VerifierReward(step_cost.TASK.verifier)
        if method == "stock":
            trainer = GRPOTrainer(
                model,
                reward,
                GRPOConfig(folder, **options),
                step_cost.DATA,
                processing_class=tokenizer,
            )
        else:
            trainer = CritiqueGRPOTrainer(
                model,
                reward,
                CritiqueGRPOConfig(folder, **options),
                step_cost.DATA,
                processing_class=tokenizer,
                critic=build_critic({"kind": "oracle"}, step_cost.TASK),
            )
        trainer.add_callback(clock)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return (clock.times[-1] - clock.times[1]) / steps


def line_through(points: list[tuple[float, float]], x: float) -> float:
    """The value at x of the straight line through two points."""
    (x1, y1), (x2, y2) = points
    return y1 + (y2 - y1) * (x - x1) / (x2 - x1)


def measure(rounds: int, steps: int) -> dict[tuple[str, int, str], list[float]]:
    """(what changes, its value, method) -> seconds per step in each round."""
    jobs = []
    for name, values in POINTS.items():
        for value in values:
            for method in METHODS:
                jobs.append((name, value, method))
    seconds: dict[tuple[str, int, str], list[float]] = {job: [] for job in jobs}
    order = random.Random(0)
    for number in range(rounds):
        for job in order.sample(jobs, len(jobs)):
            name, value, method = job
            taken = seconds_per_step(replace(Setting(), **{name: value}), method, steps)
            seconds[job].append(taken)
        print(f"round {number + 1} of {rounds}", flush=True)
    return seconds


def print_growth(seconds: dict[tuple[str, int, str], list[float]]) -> None:
    """The table: seconds at each point, the third beside the line through the other two."""
    print("| what | method | values | seconds per step | third / first | by the line |")
    print("|---|---|---|---|---|---|")
    for name, values in POINTS.items():
        for method in METHODS:
            rows = [seconds[(name, value, method)] for value in values]
            medians = [statistics.median(row) for row in rows]
            ratios = [c / a for a, c in zip(rows[0], rows[2], strict=True)]
            places = [1 / value if name == "group" else float(value) for value in values]
            known = [(places[0], medians[0]), (places[1], medians[1])]
            predicted = line_through(known, places[2]) / medians[0]
            cells = (
                name,
                method,
                ", ".join(str(value) for value in values),
                ", ".join(f"{value:.2f}" for value in medians),
                f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]",
                f"{predicted:.2f}",
            )
            print(f"| {' | '.join(cells)} |")


def print_latency(rounds: int, steps: int, latency: float) -> None:
    """The table of a critic's latency: a step that waits, and one that does not."""
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    seconds = context.Value("d", 0.0)
    process = context.Process(target=hidden_critic.serve, args=(port, seconds), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.1)
    alone = hidden_critic.seconds_per_step(port.value, 0, steps)
    alone_hidden = hidden_critic.seconds_per_step(port.value, 1, steps)
    print(f"without latency: {alone:.2f} s waiting, {alone_hidden:.2f} s hidden")
    print("| latency | waiting | a + x | hidden | the longer of x and b |")
    print("|---|---|---|---|---|")
    for factor in LATENCIES:
        seconds.value = factor * latency
        pairs = []
        for _ in range(rounds):
            waiting = hidden_critic.seconds_per_step(port.value, 0, steps)
            hidden = hidden_critic.seconds_per_step(port.value, 1, steps)
            pairs.append((waiting, hidden))
        waiting = statistics.median(pair[0] for pair in pairs)
        hidden = statistics.median(pair[1] for pair in pairs)
        longer = max(seconds.value, alone_hidden)
        print(
            f"| {seconds.value:.2f} s | {waiting:.2f} s | {alone + seconds.value:.2f} s | "
            f"{hidden:.2f} s | {longer:.2f} s |",
            flush=True,
        )
    process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds per call at x1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print_growth(measure(arguments.rounds, arguments.steps))
    print_latency(arguments.rounds, arguments.steps, arguments.latency)


if __name__ == "__main__":
    main()
