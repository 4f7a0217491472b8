"""Ranges of the numbers of a pipeline's sections, and what no value anywhere in it may be.

Left out: numbers of `trl:` and `method:` (`trainer`), and those of a critic (`critic.build`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from critique_rl.config.checks import ConfigError
from critique_rl.config.yaml_text import find_in

MOST_SEED = 2**32 - 1
"""The largest seed that NumPy takes, which every run seeds too."""
MOST_COUNT = 10**9
SPLITS = ("test", "validation")
LOST_CHARACTER = re.compile("[\x00\ud800-\udfff]")
"""A NUL, which ends a path, and half of a character, which no file can hold."""


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`, both included unless `above` says otherwise."""

    least: float
    most: float = math.inf
    above: bool = False
    """`least` itself is left out."""

    def holds(self, number: float) -> bool:
        """Whether a number is finite and in the range. NaN is in none."""
        if is_unbounded(number) or number > self.most:
            return False
        if self.above:
            return number > self.least
        return number >= self.least

    def words(self) -> str:
        """The range as an error says it."""
        start = f"above {self.least:g}" if self.above else f"from {self.least:g}"
        if self.most == math.inf:
            return f"a number {start}"
        return f"a number {start} to {self.most:.10g}"


COUNT = Range(1, MOST_COUNT)
SECTION_RANGES: Mapping[str, Mapping[str, Range]] = {
    "task": {"size": COUNT},
    "evaluation": {
        "problems": COUNT,
        "samples": COUNT,
        "temperature": Range(0),
        "top_p": Range(0, 1, above=True),
        "curve_every": Range(0, MOST_COUNT),
        "curve_problems": Range(0, MOST_COUNT),
        "curve_samples": Range(0, MOST_COUNT),
    },
    "flow": {
        "problems": COUNT,
        "samples": COUNT,
        "snapshots": Range(0, 1000),
        "every": Range(0, MOST_COUNT),
        "probes": COUNT,
    },
    "tracking": {"critiques_every": Range(0, MOST_COUNT), "critiques": COUNT, "characters": COUNT},
    "prices": {"prompt": Range(0), "completion": Range(0), "training": Range(0)},
}
"""Section -> key -> its range. Amounts of a budget are checked elsewhere: only one may be given."""

MASSES = ("listed", "sampled")
"""Values of `flow.masses`."""
REASONS = {"task.size": "; with less the training set is empty"}
"""Key -> the end of its error."""


def check_values(data: Mapping[str, Any]) -> None:
    """Check every value of a pipeline, wherever it stands.

    Args:
        data: The pipeline as read from YAML.

    Raises:
        ConfigError: A number that is not finite or has too many digits, or a text that no file can
            hold.
    """
    for place, value in find_in(data, is_unbounded):
        section = place.split(".")
        # Their own checks know more of these numbers.
        if isinstance(value, float) and ("trl" in section or "method" in section):
            continue
        number = repr(value) if isinstance(value, float) else "a number over 2**63"
        raise ConfigError(f"{place}: got {number}, expected a finite number")
    for place, _ in find_in(data, _is_lost):
        raise ConfigError(
            f"{place}: the text holds a NUL or half of a character, which no file can hold; "
            "write it anew"
        )


def is_unbounded(value: Any) -> bool:
    """Whether a value is a number that is not finite, or that no library takes as one."""
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and abs(value) >= 2**63


def _is_lost(value: Any) -> bool:
    return isinstance(value, str) and LOST_CHARACTER.search(value) is not None


def check_ranges(config: Any, where: str) -> None:
    """Check the numbers of a resolved arm's sections.

    Args:
        config: The arm, a RunConfig.
        where: The arm, with which messages begin.

    Raises:
        ConfigError: A number out of its range.
    """
    for section, ranges in SECTION_RANGES.items():
        content = getattr(config, section)
        if content is None:
            continue
        for key, allowed in ranges.items():
            value = getattr(content, key)
            if not allowed.holds(value):
                reason = REASONS.get(f"{section}.{key}", "")
                raise ConfigError(
                    f"{where}, {section}.{key}: got {value!r}, expected {allowed.words()}{reason}"
                )
    if config.flow is not None and config.flow.snapshots == 1:
        raise ConfigError(
            f"{where}, flow.snapshots: got 1, expected 0, or 2 or more: both ends are points"
        )
    if config.flow is not None and config.flow.masses not in MASSES:
        raise ConfigError(
            f"{where}, flow.masses: got {config.flow.masses!r}, expected {' or '.join(MASSES)}"
        )
    _check_evaluation(config.evaluation, f"{where}, evaluation")
    _check_families(config.task.families, f"{where}, task.families")


def _check_evaluation(evaluation: Any, where: str) -> None:
    """Raises ConfigError for an unknown split, or a list of k that gives no pass@k."""
    if evaluation.split not in SPLITS:
        raise ConfigError(
            f"{where}.split: got {evaluation.split!r}, expected {' or '.join(SPLITS)}"
        )
    ks = evaluation.ks
    # The type of its numbers is checked where the section is read.
    are_counts = all(COUNT.holds(k) for k in ks)
    are_different = len(set(ks)) == len(ks)
    if not ks or not are_different or not are_counts:
        raise ConfigError(
            f"{where}.ks: got {list(ks)!r}, "
            "expected a list of different whole numbers from 1, such as [1, 4]"
        )
    has_points = evaluation.curve_problems >= 1 and evaluation.curve_samples >= 1
    if evaluation.curve_every and not has_points:
        raise ConfigError(
            f"{where}.curve_every: got {evaluation.curve_every} with "
            f"{evaluation.curve_problems} problems and {evaluation.curve_samples} samples; "
            "set evaluation.curve_problems and curve_samples to 1 or more, or curve_every to 0"
        )
    for metric, value in evaluation.stop_above.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not str(metric).startswith("pass@1/") or not is_number or not 0 < value <= 1:
            raise ConfigError(
                f"{where}.stop_above: got {{{metric}: {value!r}}}, expected a pass@1 of the "
                "learning curve and a share, such as {pass@1/plateau: 0.5}"
            )
    if evaluation.stop_above and not evaluation.curve_every:
        raise ConfigError(
            f"{where}.stop_above: read on the learning curve; set evaluation.curve_every"
        )
    if evaluation.exact and not evaluation.temperature:
        raise ConfigError(
            f"{where}.exact: got temperature 0, and greedy answers have no chances; "
            "set temperature above 0, or exact to false"
        )
    if min(ks) > evaluation.samples:
        raise ConfigError(
            f"{where}.ks: got {list(ks)!r} with {evaluation.samples} samples a problem, "
            "and pass@k needs k samples; add a smaller k, or raise evaluation.samples"
        )


def _check_families(families: Mapping[str, Any], where: str) -> None:
    """Raises ConfigError for shares that are no numbers, negative, or all 0."""
    shares = list(families.values())
    for share in shares:
        is_number = isinstance(share, int | float) and not isinstance(share, bool)
        if not is_number or not Range(0).holds(share):
            raise ConfigError(
                f"{where}: got the share {share!r}, expected a number from 0, such as 0.5"
            )
    if shares and not sum(shares):
        raise ConfigError(f"{where}: got shares of 0 alone, expected one above 0")


def check_seeds(seeds: Any, where: str) -> None:
    """Check a list of seeds.

    Args:
        seeds: As read from YAML, or a tuple.
        where: The key, with which the message begins.

    Raises:
        ConfigError: Anything but different whole numbers in the range that every library takes.
    """
    fits = isinstance(seeds, list | tuple) and len(seeds) > 0
    if fits:
        fits = all(is_seed(seed) for seed in seeds)
    if fits:
        fits = len(set(seeds)) == len(seeds)
    if not fits:
        raise ConfigError(
            f"{where}: got {_listed(seeds)!r}, expected a list of different whole numbers "
            f"from 0 to {MOST_SEED}, such as [0, 1, 2]"
        )


def _listed(seeds: Any) -> Any:
    """A tuple as the list that a file has."""
    if isinstance(seeds, tuple):
        return list(seeds)
    return seeds


def is_seed(value: Any) -> bool:
    """Whether a value is a seed."""
    # bool is a subclass of int, and YAML reads `yes` and `on` as True.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_SEED
