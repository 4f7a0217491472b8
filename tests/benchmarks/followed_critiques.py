"""Does a policy write the working that the oracle of word problems names, and does it work it out?

    python tests/benchmarks/followed_critiques.py pipelines/smollm2_words.yaml runs/words

Reads the failed rollouts of `critique-rl critics PIPELINE --problems 20 --attempts 80 --out
runs/words`, and refines them with the same seed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.critic.build import build_critic
from critique_rl.experiment.build import load_start_policy
from critique_rl.experiment.evaluate import training_sampling
from critique_rl.experiment.try_critics import REFINE_SEED, BenchSize, failed_rollouts
from critique_rl.prompts import special_tokens
from critique_rl.sampling.sample import sample
from critique_rl.tasks.load import load_task
from critique_rl.tasks.words.workings import derive_working
from critique_rl.trainer.rollout.refine import refine_prompt


def main() -> None:
    path = Path(sys.argv[1])
    pipeline = load_pipeline(path)
    config = pipeline.arms[pipeline.control]
    task = load_task(config.task, 0)
    model, tokenizer = load_start_policy(config)
    folder = PipelineFolder(Path(sys.argv[2]) / path.stem)
    size = BenchSize(problems=20, attempts=80)
    attempts = failed_rollouts(model, tokenizer, task, config, size, folder)
    specials = special_tokens(tokenizer)
    template = config.method["refine_template"]
    for kind in ("oracle", "retry"):
        critic = build_critic({"kind": kind}, task, 0)
        assert critic is not None
        pairs = zip(attempts, critic.critique(attempts), strict=True)
        prompts = [
            refine_prompt(attempt.row["prompt"], attempt, critique, template, specials)
            for attempt, critique in pairs
        ]
        answers = sample(model, tokenizer, prompts, training_sampling(config), REFINE_SEED)
        count = dict.fromkeys(("attempts", "had it before", "writes it", "right"), 0)
        for attempt, answer in zip(attempts, answers, strict=True):
            row = attempt.row
            last = derive_working(row["question"], row["answer"])[-1].expression
            count["attempts"] += 1
            count["had it before"] += last in attempt.text
            count["writes it"] += last in answer.text
            count["right"] += task.verifier(answer.text, row).outcome == "right"
        print(kind, count, flush=True)
        for attempt, answer in list(zip(attempts, answers, strict=True))[:6]:
            print("   ", repr(attempt.text), "->", repr(answer.text))


if __name__ == "__main__":
    main()
