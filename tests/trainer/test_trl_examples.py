"""The GRPO examples of TRL's documentation, tools and images excepted: with our class they train as
with TRL's, and become critique-augmented by two lines.
"""

from __future__ import annotations

import asyncio
import math
import re

import pytest
from datasets import Dataset
from tiny_trainers import history, trainer_of
from trl import GRPOConfig, GRPOTrainer
from trl.rewards import accuracy_reward

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic.controls import RetryCritic

PLAIN = Dataset.from_list(
    [
        {"prompt": f"{i}+2", "ground_truth": str(i + 2), "task": ("math", "code")[i % 2]}
        for i in range(8)
    ]
)
CHAT = Dataset.from_list(
    [
        {"prompt": [{"role": "user", "content": f"{i}+2"}], "solution": rf"$\boxed{{{i + 2}}}$"}
        for i in range(8)
    ]
)


def longer_in_tokens(completion_ids, **kwargs):
    return [float(len(ids)) for ids in completion_ids]


def longer_in_characters(completions, **kwargs):
    return [float(len(completion)) for completion in completions]


def format_reward(completions, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    return [
        1.0 if re.match(r"^<think>.*?</think><answer>.*?</answer>$", content) else 0.0
        for content in contents
    ]


def reference_reward(completions, ground_truth, **kwargs):
    matches = [re.search(r"\\boxed\{(.*?)\}", completion) for completion in completions]
    return [
        1.0 if match and match.group(1) == truth else 0.0
        for match, truth in zip(matches, ground_truth, strict=True)
    ]


def math_reward(completions, task, **kwargs):
    return [
        (1.0 if len(c) % 2 else -1.0) if t == "math" else None
        for c, t in zip(completions, task, strict=True)
    ]


def code_reward(completions, task, **kwargs):
    return [
        (1.0 if "#" in c else -1.0) if t == "code" else None
        for c, t in zip(completions, task, strict=True)
    ]


async def slow_reward(completions, **kwargs):
    await asyncio.sleep(0.01)
    return [1.0 if "1" in completion else 0.0 for completion in completions]


EXAMPLES = {
    "quick start": (accuracy_reward, CHAT, {}),
    "longer completions": (longer_in_tokens, PLAIN, {}),
    "longer in characters": (longer_in_characters, PLAIN, {}),
    "a format": (format_reward, CHAT, {}),
    "a reference": (reference_reward, PLAIN, {}),
    "several tasks": ([math_reward, code_reward], PLAIN, {}),
    "asynchronous": (slow_reward, PLAIN, {}),
    "a weighted list": ([longer_in_tokens, slow_reward], PLAIN, {"reward_weights": [0.1, 1.0]}),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_trains_as_with_trl_and_two_lines_add_critiques(
    tiny_policy, tmp_path, name
) -> None:
    reward, data, settings = EXAMPLES[name]
    settings = {"max_steps": 2, **settings}
    trained = []
    for kind, config in ((GRPOTrainer, GRPOConfig), (CritiqueGRPOTrainer, CritiqueGRPOConfig)):
        trainer = trainer_of(
            kind, config, tiny_policy, tmp_path / kind.__name__, reward, data, settings=settings
        )
        trainer.train()
        trained.append(history(trainer))
    assert trained[0] == trained[1]
    # no reward of these examples reaches 50, so every rollout that was scored counts as failed
    critiqued = {**settings, "success_threshold": 50.0}
    if isinstance(reward, list):
        critiqued["success_reward"] = [function.__name__ for function in reward]
    augmented = trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path / "critic",
        reward,
        data,
        settings=critiqued,
        critic=RetryCritic(),
    )
    augmented.train()
    rows = [row for row in augmented.state.log_history if "loss" in row]
    assert len(rows) == 2
    assert all(math.isfinite(row["loss"]) and row["refine/candidates"] > 0 for row in rows)
