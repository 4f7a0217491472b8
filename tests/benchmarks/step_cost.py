"""The cost of a training step beside stock TRL and a plain loop: `python
tests/benchmarks/step_cost.py [--rounds 10] [--steps 5]`, some minutes.

All variants train the lab's base on `lab/chain` in one process, each in a thread of its own, and
take turns after every step, in random order: a machine that slows down for a while slows all of
them. A figure is the processor time of the threads' `--steps` steps of 64 rows, with one torch
thread, over that of the stock trainer, or of the plain loop, in the same round. Intervals are t
intervals of the mean logarithm over rounds. Every 50th step takes the account of gradient norms,
as the default has it. The learning rate is 0, so that all sample from the same policy.

    stock      TRL's GRPOTrainer
    ours       CritiqueGRPOTrainer without a critic
    cheap      one refinement per group (refine_slots = refine_candidates = 1), critiques of every
               failed group, no distillation
    distilled  the same, and distillation of failed rollouts and the refinement (top 100, the base
               as teacher)
    next       cheap, with refinements in the next batch's `generate` call (refine_with_next)
    next+      distilled, the same way
    loop       sampling by the same `generate`, log-probs, one backward pass, AdamW, nothing else

Positions are counted at the policy's forward passes that train or score (sampling left out),
padding included.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
)

import torch
from datasets import Dataset
from scipy.stats import t as student
from transformers import TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.policy import load_policy
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward

ROWS, GROUP, LONGEST = 64, 8, 48
TASK = load_task(
    TaskConfig("lab/chain", size=512, families={"plateau": 3, "learnable": 5, "no-trap": 2}), seed=0
)
DATA = Dataset.from_list([dict(row) for row in TASK.train])
SHARED = {
    "num_generations": GROUP,
    "per_device_train_batch_size": ROWS,
    "max_completion_length": LONGEST,
    "learning_rate": 0.0,
    "bf16": False,
    "gradient_checkpointing": False,
    "use_cpu": True,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 100,
    "disable_tqdm": True,
}
CHEAP = {
    "refine_slots": 1,
    "refine_candidates": 1,
    "refine_ratio": "nll",
    "critique_when": "rollout_failed",
    "refine_template": "lab/refine",
}
DISTILLED = {
    **CHEAP,
    "distill_weight": 1.0,
    "distill_mode": "topk",
    "distill_top_k": 100,
    "distill_target": "both",
    "distill_teacher": "base",
    "distill_template": "lab/teacher",
}


def trainer_of(kind: type, config: type, folder: str, steps: int, critic: bool = False, **options):
    model, tokenizer = load_policy("lab")
    arguments = config(folder, **{**SHARED, "max_steps": steps, **options})
    extra = {"critic": build_critic({"kind": "oracle"}, TASK)} if critic else {}
    return kind(
        model, VerifierReward(TASK.verifier), arguments, DATA, processing_class=tokenizer, **extra
    )


NEXT = {"critique_staleness": 1, "refine_with_next": True}
VARIANTS: dict[str, Callable] = {
    "stock": lambda folder, steps: trainer_of(GRPOTrainer, GRPOConfig, folder, steps),
    "ours": lambda folder, steps: trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, folder, steps
    ),
    "cheap": lambda folder, steps: trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, folder, steps, True, **CHEAP
    ),
    "distilled": lambda folder, steps: trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, folder, steps, True, **DISTILLED
    ),
    "next": lambda folder, steps: trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, folder, steps, True, **CHEAP, **NEXT
    ),
    "next+": lambda folder, steps: trainer_of(
        CritiqueGRPOTrainer, CritiqueGRPOConfig, folder, steps, True, **DISTILLED, **NEXT
    ),
}


class Loop:
    """Policy gradient with group advantages in plain torch, on the same rows and settings."""

    def __init__(self, steps: int):
        self.steps = steps
        (self.model, self.tokenizer) = load_policy("lab")
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0)
        self.random = random.Random(0)

    def train(self, after_step: Callable[[], None]) -> None:
        for _ in range(self.steps):
            self.step()
            after_step()

    def step(self) -> None:
        rows = [row for row in self.random.sample(TASK.train, ROWS // GROUP) for _ in range(GROUP)]
        texts = [
            self.tokenizer.apply_chat_template(
                row["prompt"], add_generation_prompt=True, tokenize=False
            )
            for row in rows
        ]
        inputs = self.tokenizer(
            texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
        )
        with torch.no_grad():
            ids = self.model.generate(
                **inputs,
                max_new_tokens=LONGEST,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                temperature=1.0,
            )
        prompt = inputs["input_ids"].shape[1]
        written = ids[:, prompt:]
        ended = (written == self.tokenizer.eos_token_id).cumsum(1)
        mask = ((ended == 0) | ((ended == 1) & (written == self.tokenizer.eos_token_id))).float()
        answers = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        right = [
            float(TASK.verifier(answer, row).outcome == "right")
            for answer, row in zip(answers, rows, strict=True)
        ]
        rewards = torch.tensor(right).view(-1, GROUP)
        advantages = (
            (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
        ).view(-1, 1)
        attention = torch.cat([inputs["attention_mask"], mask.long()], 1)
        logits = self.model(input_ids=ids, attention_mask=attention).logits[:, prompt - 1 : -1]
        logps = torch.log_softmax(logits, -1).gather(2, written.unsqueeze(2)).squeeze(2)
        loss = -(torch.exp(logps - logps.detach()) * advantages * mask).sum() / mask.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


class Thread:
    """One variant's training, a step at a time."""

    def __init__(self, train: Callable[[Callable[[], None]], None]):
        self.seconds: list[float] = []
        """Processor seconds of each step, the first among them."""
        self.may_go = threading.Semaphore(0)
        self.has_stopped = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._train, args=(train,), daemon=True)
        self.thread.start()

    def step(self) -> None:
        """Take one step, while all others wait."""
        self.may_go.release()
        self.has_stopped.acquire()

    def end(self) -> None:
        """Let it return."""
        self.may_go.release()
        self.thread.join()

    def _train(self, train: Callable[[Callable[[], None]], None]) -> None:
        self.may_go.acquire()
        self.began = time.thread_time()
        train(self._after_step)

    def _after_step(self) -> None:
        self.seconds.append(time.thread_time() - self.began)
        self.has_stopped.release()
        self.may_go.acquire()
        self.began = time.thread_time()


class AfterStep(TrainerCallback):
    """Calls a function after each step."""

    def __init__(self, call: Callable[[], None]):
        self.call = call

    def on_step_end(self, *_, **__) -> None:
        self.call()


def thread_of(name: str, steps: int) -> Thread:
    """A variant's training of so many steps."""

    def train(after_step: Callable[[], None]) -> None:
        if name == "loop":
            Loop(steps).train(after_step)
            return
        with tempfile.TemporaryDirectory() as folder:
            trainer = VARIANTS[name](folder, steps)
            trainer.add_callback(AfterStep(after_step))
            trainer.train()

    return Thread(train)


def interval(logarithms: list[float]) -> tuple[float, float, float]:
    mean = statistics.mean(logarithms)
    n = len(logarithms)
    half = student.ppf(0.975, n - 1) * statistics.stdev(logarithms) / math.sqrt(n)
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def positions(name: str, steps: int) -> tuple[float, float]:
    """(positions that passed forward outside of sampling, those with gradient), each over tokens
    trained on.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = VARIANTS[name](folder, steps)
        seen = {"forward": 0, "backward": 0}
        trained = 0

        def count(module, inputs, options) -> None:
            ids = options.get("input_ids", inputs[0] if inputs else None)
            if not options.get("use_cache") and ids is not None and ids.shape[1] > 1:
                seen["forward"] += ids.numel()
                seen["backward"] += ids.numel() * torch.is_grad_enabled()

        trainer.model.base_model.register_forward_pre_hook(count, with_kwargs=True)
        compute = trainer._compute_loss

        def loss(model, batch):
            nonlocal trained
            trained += batch["completion_mask"].sum().item()
            return compute(model, batch)

        trainer._compute_loss = loss
        trainer.train()
    return seen["forward"] / trained, seen["backward"] / trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [*VARIANTS, "loop"]
    # The first step also builds the trainer, and is in no round.
    steps = arguments.rounds * arguments.steps + 1
    threads = {name: thread_of(name, steps) for name in names}
    order = random.Random(0)
    for _ in range(steps):
        for name in order.sample(names, len(names)):
            threads[name].step()
    seconds: dict[str, list[float]] = {}
    for name, thread in threads.items():
        thread.end()
        seconds[name] = []
        for first in range(1, steps, arguments.steps):
            seconds[name].append(sum(thread.seconds[first : first + arguments.steps]))
    print(
        (
            f"{arguments.rounds} rounds of {arguments.steps} steps of {ROWS} rows; processor "
            "seconds a step, median: "
        ),
        end="",
    )
    print(
        ", ".join(
            f"{name} {statistics.median(values) / arguments.steps:.2f}"
            for name, values in seconds.items()
        )
    )
    for name, over in (
        ("ours", "stock"),
        ("cheap", "stock"),
        ("distilled", "stock"),
        ("next", "stock"),
        ("next+", "stock"),
        ("stock", "loop"),
        ("ours", "loop"),
        ("cheap", "loop"),
    ):
        mean, low, high = interval(
            [math.log(a / b) for a, b in zip(seconds[name], seconds[over], strict=True)]
        )
        print(f"{name} / {over}: {mean:.3f} [{low:.3f}, {high:.3f}]")
    base = positions("stock", arguments.steps)
    for name in VARIANTS:
        forward, backward = positions(name, arguments.steps)
        over = f"over stock {forward / base[0]:.3f}, {backward / base[1]:.3f}"
        print(
            f"positions a trained token, {name}: forward {forward:.2f}, backward "
            f"{backward:.2f}; {over}"
        )


if __name__ == "__main__":
    main()
