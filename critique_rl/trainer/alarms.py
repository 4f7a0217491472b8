"""Alarms for collapses that users report, each with a remedy: entropy, log-probs of refinements,
completion length, failures that a reward contradicts, and answers that the verifier lost. An alarm
is given once and changes nothing in the run.

Those of `RULES` compare the moving mean of a logged metric with its mean at the start of the run.
The reports: Critique-GRPO issues 2 and 6, SDPO issue 25.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import TrainerCallback

from critique_rl.tasks.judging import LOST_PREFIX, lost_sentences
from critique_rl.trainer.rollout.metric_names import MetricNames

logger = logging.getLogger(__name__)
WINDOW = 10
"""Logged values in the first mean and in the moving mean."""
FEW, MOST = 0.05, 0.95
"""Shares of failed rollouts between which nothing is suspected."""
FAILED = "failed_rollouts"
"""Name of the alarm on failures that a reward contradicts."""


@dataclass(frozen=True)
class Rule:
    """An alarm: the metric's moving mean has left [low, high] times its first mean."""

    metric: str
    """As TRL logs it."""
    low: float
    """Least factor that gives no alarm."""
    high: float
    """Largest factor that gives no alarm."""
    least: float
    """Means that both lie under this, in absolute value, give no alarm: twenty times nothing is
    nothing. In the metric's unit.
    """
    remedy: str
    """Options to change, for the warning."""


RULES = (
    Rule(
        "entropy",
        low=0.1,
        high=3.0,
        least=0.05,
        remedy="entropy left its range: lower learning_rate or refine_weight, use refine_ratio "
        "importance with refine_floor -5, or entropy_coef (TRL) where it fell",
    ),
    # Log-probs are negative: a factor above 1 means that refinements became less likely. Low is 0
    # because refinements that become more likely are no fault.
    Rule(
        "refine/logps",
        low=0.0,
        high=2.0,
        least=0.5,
        remedy="refinements drift away from what the policy would write itself: use refine_ratio "
        "importance with refine_floor -5, refine_clip, fewer refine_slots, or refine_own_weight",
    ),
    # SDPO's paper reports completions 3.2 times shorter, so under distillation this one may be
    # harmless.
    Rule(
        "completions/mean_length",
        low=0.33,
        high=2.0,
        least=1.0,
        remedy="completions changed length: look at rollouts/, set mask_truncated_completions, or "
        "loss_type dr_grpo against growth; a shrinking length under distillation is known of SDPO",
    ),
)


def alarm(rule: Rule, values: Sequence[float]) -> float | None:
    """The factor by which the moving mean of `values` left the rule's range of the first mean.

    Returns:
        Last mean / first mean; None if it is in the range, or if there are not yet two windows.
    """
    if len(values) < 2 * WINDOW:
        return None
    first = sum(values[:WINDOW]) / WINDOW
    last = sum(values[-WINDOW:]) / WINDOW
    if max(abs(first), abs(last)) < rule.least or first == 0:
        return None
    factor = last / first
    if rule.low <= factor <= rule.high:
        return None
    return factor


@dataclass(frozen=True)
class Contradiction:
    """A step in which nearly all rollouts count as failed, or nearly none, and a reward of 0 and 1
    says otherwise.
    """

    share: float
    """Share of the rollouts that count as failed."""
    reward: str
    """Name of the reward."""
    zeros: float
    """Share of the rollouts that it gives 0."""


def contradiction(total: Mapping[str, float], rewards: Sequence[str]) -> Contradiction | None:
    """Compare the share of failed rollouts with rewards of 0 and 1.

    Args:
        total: counters of `success.count_success` over all ranks.
        rewards: names of the reward functions.

    Returns:
        The first reward that says otherwise by .05 or more; None if there is none.
    """
    judged = total.get("success/judged", 0)
    if not judged:
        return None
    share = total.get("success/failed", 0) / judged
    for reward in rewards:
        scored = total.get(f"success/scored/{reward}", 0)
        if not scored or total.get(f"success/graded/{reward}", 0):
            continue
        zeros = total.get(f"success/zeros/{reward}", 0) / scored
        is_otherwise = (share > MOST > zeros) or (share < FEW < zeros)
        if is_otherwise and abs(share - zeros) >= FEW:
            return Contradiction(share, reward, zeros)
    return None


class CollapseAlarm(TrainerCallback):
    """Watches the trainer's logs and gives each alarm once per run."""

    def __init__(self):
        self.values: dict[str, list[float]] = defaultdict(list)
        self.given: set[str] = set()
        # Of each of the last `WINDOW` generations.
        self.lost: list[dict[str, int]] = []
        self.names = MetricNames()

    def state_dict(self) -> dict:
        """Logged values, counters of lost answers, given alarms and names, as JSON."""
        return {
            "values": dict(self.values),
            "given": sorted(self.given),
            "lost": self.lost,
            "names": self.names.kept,
        }

    def load_state_dict(self, state: dict) -> None:
        """The inverse of `state_dict`."""
        self.values = defaultdict(list, state["values"])
        self.given = set(state["given"])
        # A checkpoint of an earlier version has neither.
        self.lost = list(state.get("lost", []))
        self.names.kept = dict(state.get("names", {}))

    def check_lost(self, total: Mapping[str, float], step: int) -> dict[str, float]:
        """Give the alarms on answers that the verifier lost, each once per run.

        Args:
            total: counters of `judging.count_lost` over all ranks, under `LOST_PREFIX`.
            step: the optimizer step.

        Returns:
            Metrics to log: the share of each loss whose alarm is given now.
        """
        counts = {
            name.removeprefix(LOST_PREFIX): int(count)
            for name, count in total.items()
            if name.startswith(LOST_PREFIX)
        }
        self.lost = [*self.lost, counts][-WINDOW:]
        recent: Counter[str] = Counter()
        for generation in self.lost:
            recent.update(generation)
        metrics = {}
        for kind, sentence in lost_sentences(recent).items():
            name = f"{LOST_PREFIX}{kind}"
            if name in self.given:
                continue
            self.given.add(name)
            lost = sum(count for key, count in recent.items() if key.startswith(kind))
            metrics[f"alarm/{name}"] = lost / recent["judged"]
            logger.warning("step %s: %s", step, sentence)
        return metrics

    def check_failed(
        self, total: Mapping[str, float], rewards: Sequence[str], step: int
    ) -> dict[str, float]:
        """Give the alarm on failures that a reward contradicts, once per run.

        Args:
            total: as of `contradiction`.
            rewards: names of the reward functions.
            step: the optimizer step.

        Returns:
            The metric to log, if the alarm is given now.
        """
        if FAILED in self.given:
            return {}
        clash = contradiction(total, rewards)
        if clash is None:
            return {}
        self.given.add(FAILED)
        logger.warning(
            "step %s: %.0f %% of the rollouts count as failed, but the reward %s is 0 for %.0f %% "
            "of them; see success_reward and success_threshold, or the verifier",
            step,
            100 * clash.share,
            clash.reward,
            100 * clash.zeros,
        )
        return {f"alarm/{FAILED}": clash.share}

    def on_log(self, args, state, control, logs=None, **kwargs):
        for rule in RULES:
            # TRL logs None for a metric that was NaN throughout.
            if not logs:
                continue
            if logs.get(rule.metric) is None:
                continue
            if rule.metric in self.given:
                continue
            self.values[rule.metric].append(float(logs[rule.metric]))
            factor = alarm(rule, self.values[rule.metric])
            if factor is None:
                continue
            self.given.add(rule.metric)
            # Written into the dict that other callbacks log after this one.
            logs[f"alarm/{rule.metric}"] = factor
            logger.warning(
                "step %s: %s is %.2f times its first %s values' mean; %s",
                state.global_step,
                rule.metric,
                factor,
                WINDOW,
                rule.remedy,
            )
