"""Our preset `sdpo`, without critic or refinements, beside TRL's experimental SDPOTrainer: `python
tests/benchmarks/sdpo_cost.py [--rounds 5]`, five minutes.

A random Qwen2 (2 layers, hidden 128, vocabulary 32,000) on rows of 64 sampled tokens, half of which
a reward calls right, so that every group has a right sibling for the teacher to read. Both: JSD to
an EMA teacher on the student's 100 most likely tokens and a tail, importance clipped at 2, the
right sibling read after the question, the same prompts, learning rate 0, seeds and number of
tokens. TRL's distils right rollouts too, ours as the preset stands.

Each training is a process of its own; figures are processor seconds of the steps (one thread) and
the peak resident set over that before the first step.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS, LENGTH, ROWS, STEPS = 32_000, 64, 16, 4


def build(folder: str):
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = Tokenizer(
        WordLevel(
            {"<end>": 0, "<pad>": 1, **{f"w{i}": i for i in range(2, WORDS)}}, unk_token="<pad>"
        )
    )
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<pad>", padding_side="left"
    )
    torch.manual_seed(0)
    size = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = Qwen2Config(vocab_size=WORDS, eos_token_id=0, pad_token_id=1, **size)
    policy = str(Path(folder, "policy"))  # TRL's teacher is read from disk
    Qwen2ForCausalLM(config).save_pretrained(policy)
    tokenizer.save_pretrained(policy)
    return Qwen2ForCausalLM.from_pretrained(policy), tokenizer


def half(completion_ids, **kwargs) -> list[float]:
    return [float(ids[0] % 2) for ids in completion_ids]


def trainer_of(name: str, folder: str):
    from datasets import Dataset

    model, tokenizer = build(folder)
    data = Dataset.from_list(
        [{"prompt": " ".join(f"w{i * 31 + j}" for j in range(2, 18))} for i in range(256)]
    )
    shared = {
        "per_device_train_batch_size": ROWS,
        "num_generations": 8,
        "max_completion_length": LENGTH,
        "learning_rate": 0.0,
        "max_steps": STEPS,
        "seed": 1,
    }
    shared |= {
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if name == "trl":
        from trl.experimental.sdpo import SDPOConfig, SDPOTrainer

        loss = {
            "distillation_mode": "topk_logits",
            "distillation_topk": 100,
            "distillation_alpha": 0.5,
            "distillation_add_tail": True,
        }
        texts = {
            "reprompt_template": "{prompt}{solution}{feedback}",
            "solution_template": "\n{successful_previous_attempt}",
        }
        return SDPOTrainer(
            model=model,
            reward_funcs=half,
            args=SDPOConfig(folder, **shared, **loss, **texts),
            train_dataset=data,
            processing_class=tokenizer,
        )
    from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer

    only_siblings = {
        "distill_context": "sibling",
        "distill_template": "lab/teacher",
        "grad_norm_steps": 0,
    }
    arguments = CritiqueGRPOConfig.from_preset("sdpo", output_dir=folder, **shared, **only_siblings)
    return CritiqueGRPOTrainer(model, half, arguments, data, processing_class=tokenizer)


def measure(name: str) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(name, folder)
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        began = time.process_time()
        trainer.train()
        seconds = time.process_time() - began
    return {
        "seconds": seconds / STEPS,
        "mb": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident) / 1e6,
    }


def measured(name: str) -> dict[str, float]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [sys.executable, __file__, "--job", name], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{name} stopped with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(measure(arguments.job)))
        return
    order = random.Random(0)
    results = {"ours": [], "trl": []}
    for _ in range(arguments.rounds):
        for name in order.sample(list(results), 2):
            results[name].append(measured(name))
    for name, rounds in results.items():
        seconds, mb = (
            statistics.median(figures[key] for figures in rounds) for key in ("seconds", "mb")
        )
        print(f"{name}: {seconds:.2f} s a step, peak {mb:,.0f} MB")
    for key in ("seconds", "mb"):
        logarithms = [
            math.log(a[key] / b[key]) for a, b in zip(results["ours"], results["trl"], strict=True)
        ]
        mean = statistics.mean(logarithms)
        n = len(logarithms)
        if n < 2:
            print(f"ours / trl, {key}: {math.exp(mean):.3f} (one round)")
            continue
        from scipy.stats import t

        reach = t.ppf(0.975, n - 1) * statistics.stdev(logarithms) / math.sqrt(n)
        print(
            f"ours / trl, {key}: {math.exp(mean):.3f} [{math.exp(mean - reach):.3f}, "
            f"{math.exp(mean + reach):.3f}]"
        )


if __name__ == "__main__":
    main()
