"""Alarms for what users report as collapse, each with a remedy: entropy, log-probs of refinements,
length. They say so once and change nothing.

Each watches a moving mean of one logged metric against that metric's own mean at the start of the
run (Critique-GRPO issues 2 and 6, SDPO issue 25).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import TrainerCallback

logger = logging.getLogger(__name__)
WINDOW = 10
"""Logged values in the first and in the moving mean."""


@dataclass(frozen=True)
class Rule:
    """An alarm: the metric's moving mean left [low, high] times its first mean; `least` keeps
    ratios of tiny means quiet.
    """

    metric: str
    low: float
    high: float
    least: float
    remedy: str


RULES = (
    Rule("entropy", 0.1, 3.0, 0.05, "entropy left its range: lower learning_rate or refine_weight, use refine_ratio importance with refine_floor -5, "
         "or entropy_coef (TRL) where it fell"),
    Rule("refine/logps", 0.0, 2.0, 0.5, "refinements drift away from what the policy would write itself: use refine_ratio importance with refine_floor -5, "
         "refine_clip, fewer refine_slots, or refine_own_weight"),
    Rule("completions/mean_length", 0.33, 2.0, 1.0, "completions changed length: look at rollouts/, set mask_truncated_completions, or loss_type dr_grpo "
         "against growth; a shrinking length under distillation is known of SDPO"),
)  # fmt: skip


def alarm(rule: Rule, values: Sequence[float]) -> float | None:
    """The factor by which the moving mean of `values` left the rule's range of the first mean; None
    while it has not (or too few values are in).
    """
    if len(values) < 2 * WINDOW:
        return None
    first, last = (sum(part) / WINDOW for part in (values[:WINDOW], values[-WINDOW:]))
    if max(abs(first), abs(last)) < rule.least or first == 0:
        return None
    factor = last / first
    return None if rule.low <= factor <= rule.high else factor


class CollapseAlarm(TrainerCallback):
    """Watches the trainer's logs; each alarm is given once a run."""

    def __init__(self):
        self.values: dict[str, list[float]] = defaultdict(list)
        self.given: set[str] = set()

    def state_dict(self) -> dict:
        return {"values": dict(self.values), "given": sorted(self.given)}

    def load_state_dict(self, state: dict) -> None:
        self.values, self.given = defaultdict(list, state["values"]), set(state["given"])

    def on_log(self, args, state, control, logs=None, **kwargs):
        for rule in RULES:
            # TRL logs None for a metric that was NaN throughout.
            if not logs or logs.get(rule.metric) is None or rule.metric in self.given:
                continue
            self.values[rule.metric].append(float(logs[rule.metric]))
            factor = alarm(rule, self.values[rule.metric])
            if factor is not None:
                self.given.add(rule.metric)
                logs[f"alarm/{rule.metric}"] = factor
                logger.warning(
                    "step %s: %s is %.2f times its first %s values' mean; %s",
                    state.global_step,
                    rule.metric,
                    factor,
                    WINDOW,
                    rule.remedy,
                )
