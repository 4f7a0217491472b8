"""Warnings that stand above every number of the page, a sentence each: runs that are missing or
cannot be compared, unequal cost, unlike settings.
"""

from __future__ import annotations

from collections.abc import Mapping

from critique_rl.analysis.comparison import ArmSummary, Comparison
from critique_rl.analysis.formats import spent_alike
from critique_rl.analysis.learning_curves import Rows
from critique_rl.analysis.page.configs import Configs, list_some
from critique_rl.analysis.page.curve_charts import all_steps
from critique_rl.metrics import ALARMING_LOSS


def reader_warnings(comparison: Comparison, rows: Rows, configs: Configs) -> list[str]:
    """The sentences, in the order in which the page shows them.

    Args:
        comparison: says which runs are missing or left out, and what was spent.
        rows: metrics.jsonl by arm and seed.
        configs: config.yaml by arm and seed.
    """
    return [
        *_about_runs(comparison),
        *_about_numbers(comparison),
        *_about_settings(configs),
        *_about_logs(comparison, rows),
    ]


def _about_runs(comparison: Comparison) -> list[str]:
    sentences = []
    missing = _missing_seeds(comparison)
    if missing:
        parts = []
        for arm, seeds in missing.items():
            noun = "seeds" if len(seeds) > 1 else "seed"
            parts.append(f"{arm} {noun} {', '.join(seeds)}")
        sentences.append(f"Not evaluated yet, so in no table: {'; '.join(parts)}.")
    for item in comparison.incomparable:
        place = item.arm
        if item.seed is not None:
            place += f" seed {item.seed}"
        sentences.append(f"Left out: {place}: {item.reason}")
    sentences += accepted_sentences(comparison)
    return sentences


def accepted_sentences(comparison: Comparison) -> list[str]:
    """A sentence for each change that was accepted in the middle of a run."""
    changes = comparison.accepted_changes or ()
    return [f"Changed in the middle of a run, and accepted: {change}." for change in changes]


def _missing_seeds(comparison: Comparison) -> dict[str, list[str]]:
    """Arm -> seeds without an evaluation."""
    missing: dict[str, list[str]] = {}
    for run in comparison.missing:
        missing.setdefault(run.arm, []).append(str(run.seed))
    return missing


def _about_numbers(comparison: Comparison) -> list[str]:
    sentences = []
    arms = comparison.arms
    if len(comparison.seeds) == 1:
        sentences.append(
            "One seed: intervals cover other problems of the same kind, and say nothing of other "
            "seeds."
        )
    unscored = {name: arm.unscored for name, arm in arms.items()}
    sentences += _about_lost(
        "Answers that could not be judged, and count neither as right nor as wrong", unscored, arms
    )
    timeouts = {name: arm.timeouts or 0 for name, arm in arms.items()}
    sentences += _about_lost(
        "Answers that took the verifier too long twice, and count as wrong", timeouts, arms
    )
    costs = [arm.cost for arm in arms.values()]
    if costs and spent_alike(costs) is None:
        sentences.append(
            "The arms spent unequally (more than 5% apart in every measure): differences at the "
            "end are not at equal cost; compare the curves."
        )
    if comparison.base is None:
        sentences.append(
            "The policy before training was not evaluated on these problems, so nothing says what "
            "training as such did."
        )
    return sentences


def _about_lost(words: str, counts: Mapping[str, int], arms: Mapping[str, ArmSummary]) -> list[str]:
    """The sentence on answers that the verifier lost; none where there are none."""
    parts = []
    many = []
    for name, count in counts.items():
        if not count:
            continue
        parts.append(f"{name} {count}")
        samples = arms[name].samples or 0
        if count > ALARMING_LOSS * samples > 0:
            many.append(f"{name} {count / samples:.0%}")
    if not parts:
        return []
    sentence = f"{words}: {', '.join(parts)}."
    if many:
        sentence += f" That is over {ALARMING_LOSS:.0%} of the answers of {', '.join(many)}."
    return [sentence]


def _about_settings(configs: Configs) -> list[str]:
    sentences = configs.uneven()
    for name, words in (("versions", "versions of the libraries"), ("machine", "machines")):
        if len(configs.section(name)) > 1:
            sentences.append(
                f"Not all runs had the same {words}; they are listed under How this was made."
            )
    return sentences


def _about_logs(comparison: Comparison, rows: Rows) -> list[str]:
    # Where no run has a log, the page says once that there are no curves.
    if not any(True for _ in all_steps(rows)):
        return []
    missing = _missing_seeds(comparison)
    silent = []
    for arm, seeds in rows.items():
        for seed, logged in seeds.items():
            # A run without an evaluation has been named already.
            if not logged and str(seed) not in missing.get(arm, []):
                silent.append(f"{arm} seed {seed}")
    if not silent:
        return []
    return [f"No metrics.jsonl, so no curve: {list_some(silent)}."]
