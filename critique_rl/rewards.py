"""Reward functions for a GRPOTrainer, from `critique_rl.tasks.rewards`."""

from critique_rl.tasks.rewards import *  # noqa: F403
