"""How the runs were set, from their config.yaml: differences between arms, deviations from presets,
decoding, versions and machines.

Left out: anything that a run did not write down itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from critique_rl.analysis.learning_curves import SeedRuns

ABOUT_THE_RUN = (
    "schema",
    "run_id",
    "arm",
    "seed",
    "trl.seed",
    "command",
    "versions",
    "machine",
    "deviates",
    "keep_steps",
    "inputs.data",
    "inputs.data/train",
    "accepted_changes",
)
"""Keys that differ between runs of one arm, or that have their own place on the page."""
DECODING = (
    "evaluation.split",
    "evaluation.problems",
    "evaluation.samples",
    "evaluation.temperature",
    "evaluation.top_p",
    "evaluation.ks",
    "evaluation.curve_every",
    "evaluation.curve_problems",
    "evaluation.curve_samples",
    "trl.max_completion_length",
    "trl.temperature",
    "trl.top_p",
    "evaluation.best_by",
    "trl.num_generations",
)
"""Keys of sampling while training and of evaluations."""
# libyaml's loader reads the same language much faster, where PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LONGEST_CONFIG = 8000
"""Characters of a config.yaml that are shown."""
LONGEST_VALUE = 160
"""Characters of one value that are shown."""

FlatConfig = dict[str, Any]
"""A config.yaml as one mapping: {"trl.learning_rate": 1e-4}."""
SeedTexts = dict[int, str]
"""Seed -> config.yaml as written."""
SeedConfigs = dict[int, FlatConfig]
"""Seed -> config.yaml."""


@dataclass(frozen=True)
class Configs:
    """config.yaml of each arm, by seed."""

    texts: Mapping[str, SeedTexts]
    flat: Mapping[str, SeedConfigs]

    @property
    def arms(self) -> list[str]:
        """Arms with a config.yaml."""
        return [arm for arm, texts in self.texts.items() if texts]

    def first(self, arm: str) -> FlatConfig:
        """The arm's first seed; empty where no seed has a config.yaml."""
        seeds = self.flat.get(arm, {})
        return next(iter(seeds.values()), {})

    def text(self, arm: str) -> str:
        """The arm's first seed as written, up to `LONGEST_CONFIG`."""
        seeds = self.texts.get(arm, {})
        text = next(iter(seeds.values()), "")
        more = len(text) - LONGEST_CONFIG
        if more <= 0:
            return text
        return f"{text[:LONGEST_CONFIG]}\n(cut here: {more} characters more)"

    def section(self, name: str) -> list[str]:
        """The different values of a section such as `versions`, in words.

        Returns:
            One entry where all runs agree; else one per value, with the runs that have it.
        """
        runs: dict[str, list[str]] = {}
        for arm, seeds in self.flat.items():
            for seed, flat in seeds.items():
                words = _section_words(flat, name)
                if words:
                    names = runs.setdefault(words, [])
                    names.append(f"{arm} seed {seed}")
        if len(runs) < 2:
            return list(runs)
        entries = []
        for words, names in runs.items():
            listed = list_some(names)
            entries.append(f"{words} ({listed})")
        return entries

    def differing(self) -> list[tuple[str, list[str]]]:
        """(key, a value for each of `arms`) of every key that is not the same in all arms."""
        flats = [self.first(arm) for arm in self.arms]
        rows = []
        for key in _shared_keys(flats):
            # Arms read other prompts by design.
            if key.startswith("inputs."):
                continue
            values = [_words(flat.get(key)) for flat in flats]
            if len(set(values)) > 1:
                rows.append((key, values))
        return rows

    def deviations(self) -> dict[str, list[str]]:
        """Arm -> the keys that its file sets otherwise than its preset; only arms that deviate."""
        deviations: dict[str, list[str]] = {}
        for arm in self.arms:
            for key, value in self.first(arm).items():
                if key.startswith("deviates."):
                    name = key.removeprefix("deviates.")
                    listed = deviations.setdefault(arm, [])
                    listed.append(f"{name}: {_words(value)}")
        return deviations

    def shared(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        """The settings that are the same in all arms.

        Args:
            keys: the settings asked for, in the order of the result.

        Returns:
            (key, value in words) of each.
        """
        flats = [self.first(arm) for arm in self.arms]
        rows = []
        for key in keys:
            values = {_words(flat.get(key)) for flat in flats}
            same = len(values) == 1
            if same and key in flats[0]:
                rows.append((key, values.pop()))
        return rows

    def uneven(self) -> list[str]:
        """A sentence for each arm whose seeds were not trained alike."""
        sentences = []
        for arm, seeds in self.flat.items():
            flats = list(seeds.values())
            odd = []
            for key in _shared_keys(flats):
                values = {_words(flat.get(key)) for flat in flats}
                if len(values) > 1:
                    odd.append(key)
            if odd:
                keys = list_some(odd)
                sentences.append(
                    f"The seeds of {arm} were not trained alike: they differ in {keys}."
                )
        return sentences


def _section_words(flat: FlatConfig, name: str) -> str:
    prefix = f"{name}."
    parts = [
        f"{key.removeprefix(prefix)} {value}"
        for key, value in flat.items()
        if key.startswith(prefix)
    ]
    return ", ".join(parts)


def _shared_keys(flats: Sequence[FlatConfig]) -> list[str]:
    """Keys of all configurations that a reader compares, in the order of the files."""
    keys: dict[str, None] = {}
    for flat in flats:
        for key in flat:
            if not _is_about_the_run(key):
                keys[key] = None
    return list(keys)


def _is_about_the_run(key: str) -> bool:
    # Both keys and sections are listed: "seed", and "versions" for versions.trl.
    return any(f"{key}.".startswith(f"{name}.") for name in ABOUT_THE_RUN)


def read_configs(runs: Mapping[str, SeedRuns]) -> Configs:
    """Read every config.yaml there is.

    Args:
        runs: run folders by arm and seed.

    Returns:
        A file that is no YAML mapping counts as text only.
    """
    texts: dict[str, SeedTexts] = {}
    flat: dict[str, SeedConfigs] = {}
    for arm, seeds in runs.items():
        texts[arm] = {}
        flat[arm] = {}
        for seed, run in seeds.items():
            if run.config.exists():
                text = _read_text(run.config)
                data = _parse(text)
                texts[arm][seed] = text
                flat[arm][seed] = _flatten(data)
    return Configs(texts, flat)


def _read_text(path: Path) -> str:
    """The file as far as it can be read; what it cannot show, the page does not need."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        return f"{path.name} cannot be read: {error.strerror}"


def _parse(text: str) -> Mapping[str, Any]:
    try:
        # A subclass of yaml's safe loader: no tag of a file can construct an object.
        data = yaml.load(text, LOADER)
        # A file can hold itself, which `_flatten` would follow for ever.
        json.dumps(data, default=str)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return {}
    if isinstance(data, Mapping):
        return data
    return {}


def _flatten(data: Mapping[str, Any], prefix: str = "") -> FlatConfig:
    flat: FlatConfig = {}
    for name, value in data.items():
        key = f"{prefix}{name}"
        if not isinstance(value, Mapping):
            flat[key] = value
        elif value:
            flat |= _flatten(value, f"{key}.")
        else:
            # An empty section is shown like an absent one, but keeps its key.
            flat[key] = None
    return flat


def _words(value: Any) -> str:
    if value is None or value == "":
        return "-"
    words = value
    if not isinstance(value, str):
        words = json.dumps(value, default=str)
    if len(words) > LONGEST_VALUE:
        words = f"{words[:LONGEST_VALUE]}..."
    return str(words)


def list_some(names: Sequence[str], most: int = 6) -> str:
    """Names in words.

    Args:
        names: in the order of the list.
        most: names that are listed; of the others, the number is said.
    """
    listed = ", ".join(names[:most])
    more = len(names) - most
    if more <= 0:
        return listed
    return f"{listed} and {more} more"
