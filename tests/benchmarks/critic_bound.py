"""A step that waits for its critic: 64 calls of 2 seconds, 8 at a time. Would it pay to ask for the
first critiques while others still generate?

    OMP_NUM_THREADS=1 python tests/benchmarks/critic_bound.py

One generation of the lab's policy (8 plateau groups of 8 rollouts and 1 reserved row, every failed
rollout critiqued by a real server on loopback), timed by phase. Then what overlap would need: the
same rollouts sampled in chunks, whole groups each, beside one call; and from both, what a step with
overlap could take at best: the first chunk's sampling, then the slower of the rest and the calls.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from datasets import Dataset

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import build_critic
from critique_rl.policy import load_policy
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import VerifierReward
from critique_rl.trainer import trl_seams
from critique_rl.trainer.rollout import critiques

GROUPS, ROLLOUTS, CALL_SECONDS, CONCURRENCY = 8, 8, 2.0, 8


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    await reader.readexactly(length)
    await asyncio.sleep(CALL_SECONDS)
    message = {
        "index": 0,
        "message": {"role": "assistant", "content": "A sign lost"},
        "finish_reason": "stop",
    }
    body = json.dumps(
        {"choices": [message], "usage": {"prompt_tokens": 50, "completion_tokens": 4}}
    ).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    await writer.drain()
    writer.close()


@contextmanager
def server() -> Iterator[int]:
    """A server on loopback that takes `CALL_SECONDS` for every answer; its port."""
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(_reply, "127.0.0.1", 0))
    threading.Thread(target=loop.run_forever, daemon=True).start()
    yield listening.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(loop.stop)


def build(port: int, folder: str) -> CritiqueGRPOTrainer:
    task = load_task(TaskConfig("lab/chain", size=64, families={"plateau": 1}), 0)
    model, tokenizer = load_policy("lab")
    critic = build_critic(
        {
            "kind": "api",
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": "slow",
            "concurrency": CONCURRENCY,
            "step_deadline": 120,
        },
        task,
    )
    size = ROLLOUTS + 1
    args = CritiqueGRPOConfig(
        folder,
        num_generations=size,
        per_device_train_batch_size=GROUPS * size,
        max_completion_length=48,
        max_steps=1,
        refine_template="lab/refine",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        grad_norm_steps=0,
    )
    return CritiqueGRPOTrainer(
        model,
        VerifierReward(task.verifier),
        args,
        critic=critic,
        train_dataset=Dataset.from_list(task.train),
        processing_class=tokenizer,
    )


def timed(trainer: CritiqueGRPOTrainer, spent: Counter) -> None:
    """Add the seconds of sampling (first and second phase) and of the critic to `spent`."""
    sample = trl_seams.sample
    critique = critiques.CriticTurn.critique_failed
    calls = Counter()

    def sampling(*arguments, **options):
        start = time.perf_counter()
        phase = "generation" if not calls["sample"] else "refinement"
        calls["sample"] += 1
        result = sample(*arguments, **options)
        spent[phase] += time.perf_counter() - start
        return result

    def critiquing(*arguments, **options):
        start = time.perf_counter()
        result = critique(*arguments, **options)
        spent["calls"] += time.perf_counter() - start
        return result

    trl_seams.sample = sampling
    critiques.CriticTurn.critique_failed = critiquing
    start = time.perf_counter()
    trainer.train()
    spent["step"] = time.perf_counter() - start
    trl_seams.sample = sample
    critiques.CriticTurn.critique_failed = critique


def chunked(trainer: CritiqueGRPOTrainer, chunks: int) -> tuple[float, float]:
    """(seconds of the first chunk, of all) for the same rollouts sampled in `chunks` calls of whole
    groups; the median of five.
    """
    prompts = [
        row["prompt"] for row in list(trainer.train_dataset)[:GROUPS] for _ in range(ROLLOUTS)
    ]
    size = len(prompts) // chunks
    timings = []
    for _ in range(5):
        start = time.perf_counter()
        first = 0.0
        for i in range(0, len(prompts), size):
            trl_seams.sample(trainer, prompts[i : i + size], ROLLOUTS)
            first = first or time.perf_counter() - start
        timings.append((time.perf_counter() - start, first))
    seconds, first = sorted(timings)[2]
    return first, seconds


def main() -> None:
    with server() as port, tempfile.TemporaryDirectory() as folder:
        trainer = build(port, folder)
        spent = Counter()
        timed(trainer, spent)
        asked = trainer.state.log_history[0]["critique/ok"]
        bound = 1.1 * max(spent["generation"], spent["calls"]) + 2 + spent["refinement"]
        print(
            f"{asked:.0f} critiques; seconds: "
            + ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items())
        )
        print(
            f"generation + calls + refinement: {sum(spent.values()) - spent['step']:.2f}; "
            f"1.10 x max(generation, calls) + 2 s + refinement: {bound:.2f}\n"
        )
        print(
            "| chunks | first chunk | all | of one call | best step with overlap, seconds saved |\n"
            "|---|---|---|---|---|"
        )
        _, single = chunked(trainer, 1)
        for chunks in (1, 2, 4, 8):
            first, seconds = chunked(trainer, chunks)
            saved = single + spent["calls"] - (first + max(seconds - first, spent["calls"]))
            print(
                f"| {chunks} | {first:.2f} | {seconds:.2f} | {seconds / single:.2f} | "
                f"{saved:+.2f} |"
            )


if __name__ == "__main__":
    main()
