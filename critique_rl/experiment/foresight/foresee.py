"""Looks at every arm of a pipeline before it trains."""

from __future__ import annotations

from collections.abc import Mapping

from critique_rl.config.schema import RunConfig
from critique_rl.experiment.foresight.findings import ArmsByFinding, Finding
from critique_rl.experiment.foresight.lengths import Lengths
from critique_rl.experiment.foresight.settings import (
    check_budget,
    check_key,
    check_precision,
    check_vllm_sampling,
)


def foresee(arms: Mapping[str, RunConfig], download: bool = True) -> ArmsByFinding:
    """Look at every arm.

    Args:
        arms: settings that `preflight.check_arms` lets pass.
        download: whether the tokenizer and the configuration of a policy may come from the Hub.

    Returns:
        Findings in the order of the arms. One that several arms share stands there once.
    """
    lengths = Lengths(download)
    arms_of: dict[Finding, tuple[str, ...]] = {}
    for arm, config in arms.items():
        findings = [
            *check_key(config),
            *lengths.check(config),
            *check_vllm_sampling(config),
            *check_budget(config),
            *check_precision(config),
        ]
        for finding in findings:
            arms_of[finding] = (*arms_of.get(finding, ()), arm)
    return arms_of
