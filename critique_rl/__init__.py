"""Critique-augmented GRPO on TRL.

Put any critic into the loop, and find out, at equal tokens and dollars, whether it broke your
plateau. A critic is a model or a rule that writes critiques in words, never PPO's value model.

Reading order: `types`, `objective`, `trainer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from critique_rl._lazy import lazy

if TYPE_CHECKING:
    from critique_rl.analysis.compare import compare
    from critique_rl.analysis.report import write_report
    from critique_rl.config.schema import TaskConfig
    from critique_rl.critic.build import build_critic
    from critique_rl.policy import load_policy
    from critique_rl.tasks.isolated_verifiers import build_verifier
    from critique_rl.tasks.load import load_task
    from critique_rl.tasks.rewards import VerifierReward
    from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
    from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
    from critique_rl.trainer.plateau import PlateauCallback, PlateauRule
    from critique_rl.types import Attempt, Critique, Refinement, Usage, Verdict

__all__ = [
    "Attempt",
    "Critique",
    "CritiqueGRPOConfig",
    "CritiqueGRPOTrainer",
    "PlateauCallback",
    "PlateauRule",
    "Refinement",
    "TaskConfig",
    "Usage",
    "Verdict",
    "VerifierReward",
    "build_critic",
    "build_verifier",
    "compare",
    "load_policy",
    "load_task",
    "write_report",
]
__version__ = "0.1.0"

__getattr__ = lazy(
    __name__,
    {
        "CritiqueGRPOTrainer": "critique_rl.trainer.critique_grpo",
        "CritiqueGRPOConfig": "critique_rl.trainer.critique_grpo_config",
        "PlateauCallback": "critique_rl.trainer.plateau",
        "PlateauRule": "critique_rl.trainer.plateau",
        "Attempt": "critique_rl.types",
        "Verdict": "critique_rl.types",
        "Critique": "critique_rl.types",
        "Refinement": "critique_rl.types",
        "Usage": "critique_rl.types",
        "build_critic": "critique_rl.critic.build",
        "build_verifier": "critique_rl.tasks.isolated_verifiers",
        "load_policy": "critique_rl.policy",
        "load_task": "critique_rl.tasks.load",
        "TaskConfig": "critique_rl.config.schema",
        "VerifierReward": "critique_rl.tasks.rewards",
        "compare": "critique_rl.analysis.compare",
        "write_report": "critique_rl.analysis.report",
    },
)
