"""What an evaluation saves by reading each prompt once: `python tests/benchmarks/evaluation_cost.py
[--rounds 5]`, two minutes.

The lab's base answers 100 held-out problems per family of pipelines/flow.yaml, 8 times each, with
prompts read once per problem and once per answer, in turns. Processor seconds of one thread; the
ratio is within a round. The answers have to be the same ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})

import torch

from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.experiment.build import load_start_policy
from critique_rl.experiment.evaluate import evaluation_sampling
from critique_rl.sampling import sample as sampler
from critique_rl.tasks.load import load_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    config = load_pipeline(Path("pipelines/flow.yaml")).arms["grpo"]
    rows = load_task(config.task, 0).held_out("test", config.evaluation.problems)
    model, tokenizer = load_start_policy(config)
    sampling = evaluation_sampling(config)
    prompts = [row["prompt"] for row in rows for _ in range(config.evaluation.samples)]
    can_share = sampler.can_share
    ratios = []
    for number in range(rounds + 1):
        seconds = {}
        answers = {}
        for name, rule in (("each", lambda *_: False), ("once", can_share)):
            sampler.can_share = rule
            began = time.process_time()
            answers[name] = sampler.sample(model, tokenizer, prompts, sampling, seed=1)
            seconds[name] = time.process_time() - began
        assert answers["each"] == answers["once"]
        # The first round warms up.
        if number:
            ratios.append(seconds["once"] / seconds["each"])
    print(
        f"{len(prompts)} answers to {len(rows)} problems: {seconds['each']:.2f} s, and "
        f"{seconds['once']:.2f} s with prompts read once; ratio {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
