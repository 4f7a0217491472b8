"""Reward functions for a GRPOTrainer, TRL's or ours; they live in `critique_rl.tasks.rewards`."""

from critique_rl.tasks.rewards import *  # noqa: F403
