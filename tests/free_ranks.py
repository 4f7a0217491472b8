"""Ranks that sample for themselves: uneven failures and lengths, a critic that fails on one rank,
the policy as critic, a resumed run, vLLM's server protocol.

Called by test_ranks; each scenario leaves what this rank saw. By hand: torchrun --nproc_per_node 2
tests/free_ranks.py POLICY OUT SCENARIO...
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from replayed_ranks import gathered
from tiny_trainers import trainer_of
from trl.generation.vllm_generation import VLLMGeneration
from waiting import SECONDS

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.trainer import trl_seams
from critique_rl.trainer.fsdp_weights import full_tensor
from critique_rl.types import Critique

RANK = int(os.environ.get("RANK", 0))
SETTINGS = {
    "max_steps": 4,
    "gradient_accumulation_steps": 2,
    "num_iterations": 2,
    "ddp_timeout": SECONDS,
    "refine_template": "lab/refine",
    "distill_template": "lab/teacher",
    "distill_weight": 1.0,
    "distill_target": "both",
    "distill_teacher": "ema",
    "refine_own_weight": 0.1,
}


class Moody:
    """Every kind of outcome in turn on rank 0; on the others it is down."""

    name = "moody"

    def critique(self, attempts):
        fine = Critique("A is wrong", self.name)
        cached = Critique("A is wrong", self.name, cached=True)
        kinds = [
            fine,
            cached,
            Critique("", self.name, "failed", "timeout"),
            Critique("", self.name, "skipped", "budget"),
        ]
        return [kinds[i % 4] if RANK == 0 else kinds[2] for i in range(len(attempts))]


def trainer_with(policy: str, folder: Path, critic: Any, **settings: Any) -> CritiqueGRPOTrainer:
    """On rank 0 a third of the answers fail, on rank 1 none in the first generation and all after
    it; rank 1 samples 3 tokens at most, rank 0 8.
    """
    generations = []

    def by_rank(completions, **columns) -> list[float]:
        return [float(i % 3 > 0 if RANK == 0 else not generations) for i in range(len(completions))]

    settings = {**SETTINGS, **settings}
    trainer = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder,
        by_rank,
        settings=settings,
        critic=critic,
    )
    trainer.on_generation = lambda batch, advantages: generations.append(dict(batch.counts))
    trainer.generation_config.max_new_tokens = 3 if RANK else 8
    trainer.seen = generations
    return trainer


def record(trainer: CritiqueGRPOTrainer) -> dict[str, Any]:
    """The record that is compared between ranks."""
    log = [row for row in trainer.state.log_history if "loss" in row]
    with gathered(trainer):
        checksum = sum(
            full_tensor(parameter.detach()).double().sum().item()
            for parameter in trainer.model.parameters()
        )
    return {
        "log": log,
        "counts": trainer.seen,
        "tokens": dict(trainer.tokens),
        "checksum": checksum,
    }


def moody(policy: str, folder: Path) -> dict[str, Any]:
    trainer = trainer_with(policy, folder, Moody())
    trainer.train()
    return record(trainer)


def own_critic(policy: str, folder: Path) -> dict[str, Any]:
    trainer = trainer_with(
        policy, folder, ChatCritic(PolicyChat(), "lab/critique", "self"), refine_candidates=1
    )
    trainer.train()
    return record(trainer)


def shared(policy: str, folder: Path) -> dict[str, Any]:
    """Half of the failures are asked about, rank by rank; the policy is the critic."""
    critic = ChatCritic(PolicyChat(), "lab/critique", "self")
    trainer = trainer_with(policy, folder, critic, critique_share=0.5, critique_explore=0.5)
    trainer.train()
    return {**record(trainer), "share": trainer.critique_share.state_dict()}


def turns(policy: str, folder: Path) -> dict[str, Any]:
    """Rank 0 refines again what failed, while rank 1 has no refinement, or no failure at all."""
    trainer = trainer_with(policy, folder, Moody(), refine_turns=3)
    trainer.train()
    return record(trainer)


def own_turns(policy: str, folder: Path) -> dict[str, Any]:
    critic = ChatCritic(PolicyChat(), "lab/critique", "self")
    trainer = trainer_with(policy, folder, critic, refine_turns=3)
    trainer.train()
    return record(trainer)


def resumed(policy: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """A run with checkpoints, and one that goes on from the first of them."""
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole_run = trainer_with(policy, folder, Moody(), **saving, **settings)
    whole_run.train()
    again = trainer_with(policy, folder / "again", Moody(), **settings)
    again.seen.append({})  # its first generation is the other's second
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    pairs = zip(whole_run.model.parameters(), again.model.parameters(), strict=True)
    apart = max(
        (full_tensor(a.detach()) - full_tensor(b.detach())).abs().max().item() for a, b in pairs
    )
    kept = whole_run.distillation.teacher.kept, again.distillation.teacher.kept
    teachers = max(
        (full_tensor(kept[0][name]) - full_tensor(kept[1][name])).abs().max().item()
        for name in kept[0]
    )
    return {
        "weights_apart": apart,
        "teachers_apart": teachers,
        "tokens": [dict(whole_run.tokens), dict(again.tokens)],
        "turns": [turn_counts(trainer) for trainer in (whole_run, again)],
        "shares": [share_state(trainer) for trainer in (whole_run, again)],
    }


def refined(policy: str, folder: Path) -> dict[str, Any]:
    """As `moody`, without a divergence: also under sharding that gives no gradient of the head."""
    trainer = trainer_with(policy, folder, Moody(), distill_weight=0.0)
    trainer.train()
    return record(trainer)


def resumed_refined(policy: str, folder: Path) -> dict[str, Any]:
    """As `resumed`, without a divergence."""
    settings = {"distill_weight": 0.0, "save_strategy": "steps", "save_steps": 2}
    whole_run = trainer_with(policy, folder, Moody(), **settings)
    whole_run.train()
    before = weights_of(whole_run)
    again = trainer_with(policy, folder / "again", Moody(), **settings)
    again.seen.append({})  # its first generation is the other's second
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    after = weights_of(again)
    apart = [(before[name] - after[name]).abs().max().item() for name in before]
    tokens = [dict(whole_run.tokens), dict(again.tokens)]
    return {"weights_apart": max(apart), "tokens": tokens}


def refused(policy: str, folder: Path) -> dict[str, Any]:
    """What a trainer that distils says of the sharding; "" where it takes it."""
    try:
        trainer_with(policy, folder, Moody())
    except ValueError as error:
        return {"refused": str(error)}
    return {"refused": ""}


def weights_of(trainer: CritiqueGRPOTrainer) -> dict[str, torch.Tensor]:
    """Complete copies of all parameters."""
    with gathered(trainer):
        return {
            name: full_tensor(parameter.detach()).clone()
            for name, parameter in trainer.model.named_parameters()
        }


def share_state(trainer: CritiqueGRPOTrainer) -> dict[str, Any]:
    """What the choice of failures remembers; {} where there is none."""
    if trainer.critique_share is None:
        return {}
    return trainer.critique_share.state_dict()


def turn_counts(trainer: CritiqueGRPOTrainer) -> list[dict[str, float]]:
    """What was logged of the turns, from the second generation on."""
    return [
        {name: value for name, value in row.items() if name.startswith("refine/turn/")}
        for row in trainer.state.log_history
        if row["step"] > 2 and "loss" in row
    ]


def resumed_turns(policy: str, folder: Path) -> dict[str, Any]:
    return resumed(policy, folder, refine_turns=3, critique_share=0.9, critique_explore=0.5)


def resumed_stale(policy: str, folder: Path) -> dict[str, Any]:
    return resumed(policy, folder, critique_staleness=1)


class Server:
    """In place of a vLLM server: what it answers can be told from the prompt."""

    def generate(self, prompts, n, **sampling) -> dict[str, Any]:
        ids = [answer_to(prompt) for prompt in prompts for _ in range(n)]
        return {
            "prompt_ids": prompts,
            "completion_ids": ids,
            "logprobs": [[[-4.0]] * len(completion) for completion in ids],
        }


def answer_to(prompt: list[int]) -> list[int]:
    return [5 + sum(prompt) % 90, 5 + len(prompt) % 90, 1]


def vllm_server(policy: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """TRL's own client side, which gathers the prompts of all ranks and deals out completions, with
    a stand-in for the server.
    """
    trainer = trainer_with(policy, folder, Moody(), **settings)
    client = VLLMGeneration.__new__(VLLMGeneration)
    names = (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "max_completion_length",
        "accelerator",
    )
    client.__dict__ |= {name: getattr(trainer, name) for name in names}
    client.__dict__ |= {
        "mode": "server",
        "logprobs": 0,
        "structured_outputs_regex": None,
        "generation_kwargs": {},
        "enable_sleep_mode": False,
    }
    client.vllm_client = Server()
    client.sync_weights = lambda: None
    trainer.use_vllm = True
    trainer.vllm_generation = client
    trainer._last_loaded_step = -1
    wrong = []
    stock = trl_seams.sample

    def checked(*arguments):
        sampled = stock(*arguments)
        wrong.extend(
            i
            for i, prompt in enumerate(sampled.prompt_ids)
            if sampled.completion_ids[i] != answer_to(prompt)
        )
        return sampled

    trl_seams.sample = checked
    trainer.train()
    trl_seams.sample = stock
    return {**record(trainer), "wrong": len(wrong)}


def vllm_turns(policy: str, folder: Path) -> dict[str, Any]:
    return vllm_server(policy, folder, refine_turns=3)


def vllm_stale(policy: str, folder: Path) -> dict[str, Any]:
    return vllm_server(policy, folder, critique_staleness=1)


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        *(moody, own_critic, turns, own_turns, shared),
        *(resumed, resumed_turns, resumed_stale),
        *(refined, resumed_refined, refused),
        *(vllm_server, vllm_turns, vllm_stale),
    )
}


def main(policy: str, out: str, *scenarios: str) -> None:
    results = {name: SCENARIOS[name](policy, Path(out) / name) for name in scenarios}
    (Path(out) / f"free{RANK}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
