"""GRPOTrainer under the mixed objective: rollouts in two phases, refinements, distillation,
presets, exact resume. The room of TRL.
"""

from critique_rl._lazy import lazy

__getattr__ = lazy(
    __name__,
    {
        "CritiqueGRPOTrainer": "critique_rl.trainer.critique_grpo",
        "CritiqueGRPOConfig": "critique_rl.trainer.critique_grpo_config",
        "ResumableGRPOTrainer": "critique_rl.trainer.resume",
        "PlateauCallback": "critique_rl.trainer.plateau",
        "PlateauDetector": "critique_rl.trainer.plateau",
        "PlateauRule": "critique_rl.trainer.plateau",
    },
)
