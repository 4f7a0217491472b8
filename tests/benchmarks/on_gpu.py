"""What a GPU does that a CPU cannot show: bf16, flash attention, vLLM beside the policy.

    python tests/benchmarks/on_gpu.py          # a table for cluster.md; "not run" without a GPU
    python tests/benchmarks/on_gpu.py --cpu    # a tiny float32 policy, to try the script itself

A random Qwen2 of 0.5B weights, vocabulary 151,936, takes a few steps of 32 rows of 256 tokens. Each
row of the table is a trainer: seconds per step (the mean after the first), peak memory of the
device, both over stock TRL's, and how far the log-probs of the sampler are from those of the
trainer. The last part samples 8 completions and scores them again.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
from tiny_trainers import dataset, even
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
    TrainerCallback,
)
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.lab.base import build_tokenizer
from critique_rl.types import Attempt, Critique

STEPS = 6
GIB = 2**30
DIFFERENCES = ("sampling/sampling_logp_difference/mean", "sampling/sampling_logp_difference/max")
"""TRL's metrics of a sampler that gives its log-probs."""


@dataclass(frozen=True)
class Size:
    """The policy, and the work of a step."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    rows: int
    tokens: int


LARGE = Size(vocabulary=151_936, hidden=896, layers=24, heads=14, rows=32, tokens=256)
SMALL = Size(vocabulary=1_000, hidden=32, layers=2, heads=2, rows=8, tokens=16)


@dataclass(frozen=True)
class Measured:
    """One trainer."""

    seconds: float
    """Per step, the first one left out."""
    memory: float
    """Peak of the device in bytes; 0 on a CPU."""
    apart: str
    """Mean and largest difference of log-probs between sampler and trainer; "" without any."""


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


class Words:
    """A critic that answers at once: the cost of its words is the policy's alone."""

    name = "words"

    def critique(self, attempts: list[Attempt]) -> list[Critique]:
        return [Critique("the second step is wrong; do it again", self.name) for _ in attempts]


def save_policy(folder: Path, size: Size) -> None:
    """Write a random policy, which no hub is needed for."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    tokenizer = build_tokenizer()
    config.eos_token_id = tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    config.bos_token_id = None
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def measure(
    policy: Path, size: Size, is_ours: bool, attention: str = "sdpa", **options: Any
) -> Measured:
    """Train a few steps.

    Args:
        policy: Folder of the policy before training.
        size: Rows and tokens of a step.
        is_ours: Whether it is our trainer, with a critic.
        attention: The policy's `attn_implementation`.
        **options: Of the trainer's arguments.
    """
    gc.collect()
    has_gpu = torch.cuda.is_available()
    dtype = torch.bfloat16 if attention.startswith("flash") else torch.float32
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=dtype, attn_implementation=attention)
    kind = CritiqueGRPOTrainer if is_ours else GRPOTrainer
    arguments = CritiqueGRPOConfig if is_ours else GRPOConfig
    ours: dict[str, Any] = {}
    if is_ours:
        options = {"refine_template": "lab/refine", "distill_template": "lab/teacher", **options}
        ours["critic"] = Words()
    clock = Clock()
    with TemporaryDirectory() as folder:
        settings = arguments(
            folder,
            per_device_train_batch_size=size.rows,
            num_generations=8,
            max_completion_length=size.tokens,
            max_steps=STEPS,
            logging_steps=1,
            bf16=has_gpu,
            use_cpu=not has_gpu,
            gradient_checkpointing=False,
            learning_rate=1e-5,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(policy)
        trainer = kind(
            model,
            even,
            settings,
            train_dataset=dataset(),
            processing_class=tokenizer,
            callbacks=[clock],
            **ours,
        )
        if has_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    memory = torch.cuda.max_memory_allocated() if has_gpu else 0
    seconds = (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)
    log = [row for row in trainer.state.log_history if DIFFERENCES[0] in row]
    apart = ""
    if log:
        mean = sum(row[DIFFERENCES[0]] for row in log) / len(log)
        largest = max(row[DIFFERENCES[1]] for row in log)
        apart = f"{mean:.1e}, {largest:.1e}"
    return Measured(seconds, memory, apart)


def missing(name: str, module: str) -> str:
    """Why a row is not run; "" where its package is there."""
    if find_spec(module) is None:
        return f"not run: {name} is not installed"
    return ""


def rows(policy: Path, size: Size) -> list[str]:
    """The table's lines."""
    distil = {"distill_weight": 1.0, "distill_alpha": 0.5, "distill_target": "rollouts"}
    vllm = {"use_vllm": True, "vllm_mode": "colocate", "vllm_gpu_memory_utilization": 0.3}
    exact = {**distil, "distill_mode": "full", "refine_slots": 0}
    trainers: list[tuple[str, str, dict[str, Any]]] = [
        ("stock TRL", "", {"is_ours": False}),
        ("one refinement per group", "", {"is_ours": True}),
        ("exact JSD to a teacher with the critique", "", {"is_ours": True, **exact}),
        (
            "stock TRL, flash attention 2",
            missing("flash-attn", "flash_attn"),
            {"is_ours": False, "attention": "flash_attention_2"},
        ),
        ("stock TRL, vLLM beside it", missing("vLLM", "vllm"), {"is_ours": False, **vllm}),
        ("one refinement, vLLM beside it", missing("vLLM", "vllm"), {"is_ours": True, **vllm}),
    ]
    lines = []
    stock: Measured | None = None
    for name, why_not, options in trainers:
        if why_not:
            lines.append(f"| {name} | {why_not} | | | | |")
            continue
        # One part that fails says so, and leaves the others their rows.
        try:
            result = measure(policy, size, **options)
        except Exception as error:
            words = " ".join(str(error).split())[:200]
            lines.append(f"| {name} | failed: {type(error).__name__}: {words} | | | | |")
            continue
        stock = stock or result
        memory = ("", "")
        if stock.memory:
            memory = (f"{result.memory / GIB:.1f}", f"{result.memory / stock.memory:.2f}")
        lines.append(
            f"| {name} | {result.seconds:.2f} | {result.seconds / stock.seconds:.2f} | "
            f"{memory[0]} | {memory[1]} | {result.apart} |"
        )
    return lines


def sampled_again(policy: Path, size: Size, dtype: torch.dtype) -> str:
    """How far the log-probs of `generate`'s passes are from one pass over the text.

    Args:
        policy: Folder of the policy.
        size: How many tokens are sampled.
        dtype: Of the weights.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=dtype).to(device).eval()
    prompt = torch.arange(5, 21, device=device).repeat(8, 1)
    torch.manual_seed(0)
    made = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=True,
        max_new_tokens=size.tokens,
        min_new_tokens=size.tokens,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = made.sequences[:, prompt.shape[1] :]
    sampled = torch.stack(made.logits, dim=1).float().log_softmax(-1)
    with torch.no_grad():
        logits = model(made.sequences).logits[:, prompt.shape[1] - 1 : -1]
    again = logits.float().log_softmax(-1)
    chosen = ids.unsqueeze(-1)
    gaps = (sampled.gather(-1, chosen) - again.gather(-1, chosen)).abs()
    return f"{gaps.mean():.1e}, {gaps.max():.1e}"


def main() -> int:
    """Print versions and the table; 0 always: a machine without a GPU is no fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="a tiny policy, to try the script")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.cpu:
        print("not run: no GPU here. --cpu tries the script with a tiny policy")
        return 0
    size = SMALL if arguments.cpu else LARGE
    device = "CPU"
    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    versions = []
    for name in ("torch", "transformers", "trl", "vllm", "flash-attn"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    print(f"{device}; {', '.join(versions)}\n")
    with TemporaryDirectory() as temporary:
        policy = Path(temporary)
        save_policy(policy, size)
        print(
            "| trainer | seconds per step | over stock | peak GiB | over stock | log-probs apart |"
        )
        print("|---|---|---|---|---|---|", flush=True)
        for line in rows(policy, size):
            print(line, flush=True)
        print("\nlog-probs of generate against one pass, mean and largest:")
        for dtype in (torch.float32, torch.bfloat16):
            print(f"- {dtype}: {sampled_again(policy, size, dtype)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
