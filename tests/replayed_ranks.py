"""Training on fixed completions and critiques, so that any number of ranks takes the same steps:
what test_ranks compares between world sizes.

The one thing that is replaced is the sampling seam: a completion is a function of its prompt and of
its number among the prompts that are alike, and every question is asked in one step only. So an
entry of this table is (step, prompt, slot), whichever rank asks. Generations differ in what fails:

    0   some rollouts of every group
    1   none in the second half of the groups
    2   all in the first half; some in the second, whose critic is down
    3   nothing anywhere
    4   some; others are unscored

On two ranks the second half of the groups is rank 1's. Run by torchrun or as one process: python
tests/replayed_ranks.py POLICY OUT VARIANT...
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
from collections import Counter, defaultdict
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tiny_trainers import SETTINGS
from transformers import AutoModelForCausalLM, AutoTokenizer
from waiting import SECONDS

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.tasks.messages import question_of
from critique_rl.trainer import trl_seams
from critique_rl.trainer.fsdp_weights import full_tensor
from critique_rl.trainer.rollout import two_phase
from critique_rl.trainer.rollout.sampled import Sampled
from critique_rl.types import Attempt, Critique

GROUPS, SIZE, STEPS = 8, 4, 5
"""Groups of a generation over all ranks, rows of a group, generations; each is trained on twice."""
ROWS = 8
"""Of a micro batch, on any number of ranks."""
BASE = {
    **SETTINGS,
    "num_generations": SIZE,
    "per_device_train_batch_size": ROWS,
    "num_iterations": 2,
    "max_steps": 2 * STEPS,
    "learning_rate": 1e-3,
    "grad_norm_steps": 1,
    "shuffle_dataset": False,
    "ddp_timeout": SECONDS,
    "refine_template": "lab/refine",
    "distill_template": "lab/teacher",
}
MIXED = {
    "refine_ratio": "nll",
    "distill_weight": 100.0,
    "distill_top_k": 5,
    "distill_target": "both",
    "refine_own_weight": 0.1,
}
"""So small a policy hardly hears what is in its context: the distill term is weighted so that its
gradient counts beside the others.
"""
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {
        **MIXED,
        "loss_type": "dapo",
        "distill_teacher": "base",
        "refine_anchor_weight": 0.1,
        "distill_prefix": True,
        "scale_rewards": "none",
    },
    "ema": {
        **MIXED,
        "loss_type": "dr_grpo",
        "distill_teacher": "ema",
        "distill_ema": 0.3,
        "refine_ratio": "shaped",
        "refine_normalizer": "rollouts",
        "scalar_normalizer": "subset",
        "beta": 0.04,
    },
    "lora": {
        **MIXED,
        "loss_type": "grpo",
        "distill_teacher": "ema",
        "distill_ema": 0.3,
        "distill_alpha": 1.0,
        "distill_normalizer": "rollouts",
        "refine_ratio": "importance",
        "refine_slots": 2,
        "learning_rate": 1e-2,
    },
    "turns": {
        **MIXED,
        "loss_type": "dapo",
        "distill_teacher": "base",
        "refine_turns": 3,
        "refine_slots": 2,
    },
    "alone": {
        "loss_type": "dapo",
        "distill_weight": 100.0,
        "distill_top_k": 5,
        "distill_teacher": "base",
        "refine_slots": 0,
        "positive_weight": 0.0,
        "negative_weight": 0.0,
    },
    "opd": {
        "loss_type": "dapo",
        "distill_weight": 1.0,
        "distill_mode": "advantage",
        "distill_teacher": "ema",
        "distill_ema": 0.3,
        "refine_slots": 0,
    },
    "rlcsd": {
        "loss_type": "dapo",
        "distill_weight": 10.0,
        "distill_mode": "advantage",
        "distill_contrast": "shuffled",
        "distill_teacher": "base",
        "refine_slots": 0,
    },
}
VARIANTS["other"] = {**VARIANTS["base"], "distill_teacher": "other"}
SERVED = {**VARIANTS["opd"], "distill_weight": 10.0, "distill_mode": "sampled"}
ELSEWHERE = {
    "served": {**SERVED, "distill_teacher": "served"},
    "in_process": {**SERVED, "distill_teacher": "other"},
}
"""Variants that need a server, whose address is in TEACHER_URL."""
REFINED = {
    "refined": {
        "loss_type": "dapo",
        "refine_ratio": "nll",
        "refine_own_weight": 0.1,
        "scale_rewards": "none",
    },
    "refined_lora": {
        "loss_type": "grpo",
        "refine_ratio": "importance",
        "refine_slots": 2,
        "learning_rate": 1e-2,
    },
}
"""No divergence: also under sharding that gives no gradient of the head."""
LORA = LoraConfig(
    r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj"], task_type="CAUSAL_LM"
)
QUESTION = re.compile(r"^q(\d+)\.(\d+)")


def dataset() -> Dataset:
    """In order: the groups of step 0, of step 1, ..."""
    return Dataset.from_list(
        [
            {"prompt": [{"role": "user", "content": f"q{step}.{group}"}]}
            for step in range(STEPS)
            for group in range(GROUPS)
        ]
    )


def place(text: str) -> tuple[int, bool]:
    """(step, whether the group is in the second half) of a question, or of a prompt that begins
    with one.
    """
    step, group = map(int, QUESTION.match(text).groups())
    return step, group >= GROUPS // 2


def completion(prompt: str, slot: int) -> str:
    """The table: right answers begin with +, unscored ones with ?."""
    step, second = place(prompt)
    draw = random.Random(f"{prompt}/{slot}")
    refined = "\n" in prompt
    right = draw.random() < 0.5
    if not refined:
        right = {1: second or right, 2: second and right, 3: True}.get(step, right)
    unscored = step == 4 and not refined and slot == 0 and not second and draw.random() < 0.5
    body = "".join(draw.choice("0123456789ab") for _ in range(draw.randrange(6)))
    return ("?" if unscored else "+" if right else "-") + body


def replay(trainer, prompts: list[Any], num_generations: int = 1) -> Sampled:
    """In place of `trl_seams.sample`."""
    slots: Counter = Counter()
    texts = []
    for prompt in prompts:
        asked = question_of(prompt)
        texts.append(completion(asked, slots[asked]))
        slots[asked] += 1
    ids = [trainer.sampler.completion_ids(prompts[0], text) for text in texts]
    return Sampled(
        trl_seams.prompt_ids(trainer, prompts),
        ids,
        None,
        [[{"role": "assistant", "content": text}] for text in texts],
    )


def judged(completions, **columns) -> list[float | None]:
    return [{"+": 1.0, "-": 0.0, "?": None}[c[0]["content"][0]] for c in completions]


class Replayed:
    """A critic that says the same about the same attempt, and is down for the second half of step
    2.
    """

    name = "replayed"

    def critique(self, attempts: list[Attempt]) -> list[Critique]:
        return [self._one(attempt) for attempt in attempts]

    def _one(self, attempt: Attempt) -> Critique:
        if place(attempt.question) == (2, True):
            return Critique("", self.name, "failed", "timeout")
        return Critique(
            "".join(random.Random(attempt.text).choice("abc ") for _ in range(6)), self.name
        )


class Measured(CritiqueGRPOTrainer):
    """Takes each term's gradient over the whole optimizer step and all ranks, where the trainer
    logs that of a micro batch.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.parts: dict[str, torch.Tensor] = {}
        self.norms: dict[str, list[float]] = defaultdict(list)

    def log_gradient_norms(self, model, terms) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        for name, term in ((name, term) for name, term in terms.items() if term.requires_grad):
            gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
            flat = torch.cat(
                [
                    (torch.zeros_like(p) if g is None else g).flatten()
                    for g, p in zip(gradients, parameters, strict=True)
                ]
            )
            self.parts[name] = self.parts.get(name, 0) + flat
        if self.accelerator.sync_gradients:
            for name, part in self.parts.items():
                self.norms[name].append(
                    self.accelerator.reduce(part, reduction="mean").norm().item()
                )
            self.parts = {}


def trainer_of(policy: str, folder: Path, variant: str, world: int, rank: int) -> Measured:
    torch.manual_seed(
        rank
    )  # adapters start at random, and differ between ranks until DDP has them follow rank 0
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(policy)
    accumulation = GROUPS * SIZE // (ROWS * world)
    options = {**VARIANTS, **ELSEWHERE, **REFINED}[variant]
    settings = {**BASE, **options, "gradient_accumulation_steps": accumulation}
    if options.get("distill_teacher") == "other":
        settings["distill_teacher"] = {"model": policy}
    elif options.get("distill_teacher") == "served":
        settings["distill_teacher"] = {"base_url": os.environ["TEACHER_URL"], "model": "m"}
    lora = {"peft_config": LORA} if variant.endswith("lora") else {}
    args = CritiqueGRPOConfig(output_dir=str(folder / variant), **settings)
    return Measured(
        model,
        judged,
        args,
        dataset(),
        critic=Replayed(),
        teacher_folder=folder / "teacher",
        processing_class=tokenizer,
        **lora,
    )


def full_numel(parameter: torch.Tensor) -> int:
    """Numbers of a parameter that this rank holds."""
    local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return local.numel()


def gathered(trainer: Measured) -> AbstractContextManager[None]:
    """Within it ZeRO-3's parameters are complete on every rank."""
    if "DEEPSPEED_ON_CPU" not in os.environ:
        return nullcontext()
    import deepspeed_on_cpu

    return deepspeed_on_cpu.gathered(trainer)


def run(policy: str, folder: Path, variant: str, world: int, rank: int) -> dict[str, Any]:
    """Train one variant on this rank, as test_ranks compares it. Final weights go into a file."""
    trainer = trainer_of(policy, folder, variant, world, rank)
    batches: list[Counter] = []
    trainer.on_generation = lambda batch, advantages: batches.append(Counter(batch.counts))
    trainer.train()
    held = sum(full_numel(parameter) for parameter in trainer.model.parameters())
    with gathered(trainer):
        weights = {
            name: full_tensor(parameter.detach()).clone()
            for name, parameter in trainer.model.named_parameters()
        }
    if rank == 0:
        torch.save(weights, folder / f"{variant}.pt")
    log = [row for row in trainer.state.log_history if "loss" in row]
    return {
        "log": log,
        "norms": dict(trainer.norms),
        "counts": [dict(counts) for counts in batches],
        "tokens": dict(trainer.tokens),
        "engine": type(trainer.model_wrapped).__name__,
        "held": held / sum(weight.numel() for weight in weights.values()),
    }


def main(policy: str, out: str, *variants: str) -> None:
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    stock = trl_seams.sample, two_phase.draw_index
    trl_seams.sample = replay
    two_phase.draw_index = lambda n: 0
    results = {variant: run(policy, Path(out), variant, world, rank) for variant in variants}
    (Path(out) / f"replayed{rank}.json").write_text(json.dumps(results))
    trl_seams.sample, two_phase.draw_index = stock


if __name__ == "__main__":
    main(*sys.argv[1:])
