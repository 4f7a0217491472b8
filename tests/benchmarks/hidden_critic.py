"""A step whose critic answers while the next batch is sampled, beside one that waits for it:
`python tests/benchmarks/hidden_critic.py [--rounds 6] [--steps 8]`, on an idle machine.

The lab's base on `lab/chain`, one refinement per group, and a real server on loopback, in a process
of its own. It answers every call after the same time, set anew in each round: that of a step
without its critic (sampling, refining, training). Both kinds of step take turns; a figure is the
ratio of their wall times within a round, with a t interval of the mean logarithm over rounds. The
first two steps of each run are left out: one starts, and one waits with either kind. The learning
rate is 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time

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

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.policy import load_policy
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward

FAMILIES = {"plateau": 3, "learnable": 5, "no-trap": 2}
TASK = load_task(TaskConfig("lab/chain", size=512, families=FAMILIES), seed=0)
DATA = Dataset.from_list([dict(row) for row in TASK.train])
LEFT_OUT = 2
"""First steps of a run that are not counted."""


# ---- a server that takes its time ----------------------------------------------------------------


async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, after = head.lower().partition(b"content-length:")
    await reader.readexactly(int(after.split()[0]))
    await asyncio.sleep(seconds.value)
    message = {"role": "assistant", "content": "A sign lost"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 50, "completion_tokens": 4}
    body = json.dumps({"model": "slow", "choices": [choice], "usage": usage}).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    await writer.drain()
    writer.close()


async def listen(port, seconds) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: reply(reader, writer, seconds), "127.0.0.1", 0
    )
    port.value = server.sockets[0].getsockname()[1]
    await server.serve_forever()


def serve(port, seconds) -> None:
    asyncio.run(listen(port, seconds))


# ---- steps ---------------------------------------------------------------------------------------


class Clock(TrainerCallback):
    """When each step began, and the last one ended."""

    def __init__(self):
        self.times: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs):
        self.times.append(time.perf_counter())

    def on_train_end(self, args, state, control, **kwargs):
        # Called before the trainer's own callback, which waits for the batch in flight.
        self.times.append(time.perf_counter())


def seconds_per_step(port: int, staleness: int, steps: int) -> float:
    """Mean seconds of a step."""
    torch.manual_seed(0)
    model, tokenizer = load_policy("lab")
    # Without a cache: equal questions come back in each run.
    spec = {"kind": "api", "base_url": f"http://127.0.0.1:{port}/v1", "model": "slow"}
    critic = build_critic({**spec, "concurrency": 64, "cache": False}, TASK)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        args = CritiqueGRPOConfig(
            folder,
            num_generations=8,
            per_device_train_batch_size=64,
            max_completion_length=48,
            max_steps=steps + LEFT_OUT,
            learning_rate=0.0,
            refine_template="lab/refine",
            refine_slots=1,
            refine_candidates=1,
            refine_ratio="nll",
            critique_staleness=staleness,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=100,
            disable_tqdm=True,
            grad_norm_steps=0,
        )
        trainer = CritiqueGRPOTrainer(
            model,
            VerifierReward(TASK.verifier),
            args,
            critic=critic,
            train_dataset=DATA,
            processing_class=tokenizer,
        )
        trainer.callback_handler.callbacks.insert(0, clock)
        trainer.train()
    seconds = clock.times[-1] - clock.times[LEFT_OUT]
    return seconds / steps


def ratio_words(ratios: list[float]) -> str:
    """The geometric mean of ratios, and its t interval."""
    logs = [math.log(ratio) for ratio in ratios]
    mean = statistics.mean(logs)
    half = student.ppf(0.975, len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - half), math.exp(mean + half)
    return f"{math.exp(mean):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5, 1.0, 2.0])
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    port = context.Value("i", 0)
    seconds = context.Value("d", 0.0)
    context.Process(target=serve, args=(port, seconds), daemon=True).start()
    while not port.value:
        time.sleep(0.05)
    without = seconds_per_step(port.value, 0, options.steps)
    print(f"a step with a critic that answers at once: {without:.2f} s", flush=True)
    print(
        "| critic's time / a step without it | a step without it | waiting | hidden "
        "| hidden / waiting | hidden / max(critic, step) |\n|" + "---|" * 6
    )
    for share in options.shares:
        seconds.value = 0.0
        rounds: list[tuple[float, float, float]] = []
        for _ in range(options.rounds):
            seconds.value = 0.0
            base = seconds_per_step(port.value, 0, options.steps)
            seconds.value = share * base
            waiting = seconds_per_step(port.value, 0, options.steps)
            hidden = seconds_per_step(port.value, 1, options.steps)
            rounds.append((base, waiting, hidden))
        base = statistics.median(row[0] for row in rounds)
        waiting = statistics.median(row[1] for row in rounds)
        hidden = statistics.median(row[2] for row in rounds)
        saved = ratio_words([row[2] / row[1] for row in rounds])
        bound = ratio_words([row[2] / (max(1.0, share) * row[0]) for row in rounds])
        times = f"{base:.2f} s | {waiting:.2f} s | {hidden:.2f} s"
        print(f"| {share:g} | {times} | {saved} | {bound} |", flush=True)


if __name__ == "__main__":
    main()
