"""Critique-augmented GRPO on TRL: put any critic into the loop, and find out, at equal tokens and dollars, whether it broke your plateau.

"Critic" means a model or rule that writes critiques in words, never PPO's value model. Reading order: `types`, `objective`, `trainer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from critique_rl.trainer.critique_grpo import CritiqueGRPOConfig, CritiqueGRPOTrainer

__all__ = ["CritiqueGRPOConfig", "CritiqueGRPOTrainer"]
__version__ = "0.1.0"


def __getattr__(name: str):
    # Lazy: TRL takes seconds to import, and `critique-rl --help` needs none of it.
    if name in __all__:
        from critique_rl.trainer import critique_grpo as trainer

        return getattr(trainer, name)
    raise AttributeError(f"module 'critique_rl' has no attribute {name!r}")
