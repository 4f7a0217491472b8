"""Run on two ranks by test_api_runs: an api critic. Arguments: policy folder, output folder,
base_url of a server, and of a broken one. By hand: torchrun --nproc_per_node 2
tests/two_ranks_api.py POLICY OUT URL BROKEN.

First both ranks fail everything and share slots and caps; then the critic may not fail, and rank 1,
which has nothing to ask, has to stop all the same.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import tiny_trainers as helpers
from waiting import SECONDS

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import CriticFailed


def trainer_with(
    policy: str, folder: Path, endpoint: Endpoint, reward: float
) -> CritiqueGRPOTrainer:
    settings = {"max_steps": 2, "refine_template": "lab/refine", "ddp_timeout": SECONDS}
    critic = ChatCritic(ApiChat(endpoint, folder / endpoint.on_failure), "lab/critique")
    constant = lambda completions, **kwargs: [reward] * len(completions)  # noqa: E731
    return helpers.trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        policy,
        folder / "out",
        constant,
        settings=settings,
        critic=critic,
    )


def main(policy: str, out: str, url: str, broken: str) -> None:
    folder = Path(out)
    rank = int(os.environ["RANK"])
    settings = {"concurrency": 2, "deadline": SECONDS / 2, "max_tokens": 8, "attempts": 1}
    endpoint = Endpoint(url, "m", caps=Caps(max_requests=15), **settings)
    trainer = trainer_with(policy, folder, endpoint, 0.0)
    trainer.train()
    result = {"log": [row for row in trainer.state.log_history if "loss" in row]}
    try:
        endpoint = Endpoint(broken, "m", on_failure="stop", attempts=1)
        trainer_with(policy, folder, endpoint, float(rank)).train()
    except CriticFailed as failure:
        result["stopped"] = str(failure)
    (folder / f"rank{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
