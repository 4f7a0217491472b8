"""Where numbers come from: the runs' config.yaml, what differs between arms, decoding settings,
versions and machines, and what a reader must know first.

Left out: anything a run did not write down itself. A folder without a config.yaml is said to have
none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from critique_rl.analysis.formats import spent_alike
from critique_rl.analysis.learning_curves import STATUSES
from critique_rl.analysis.page.plots import Rows
from critique_rl.config.run_folder import RunFolder

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
)
"""Keys that differ between runs of one arm, or that have their own place on the page."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
LONGEST_CONFIG = 8000
"""Characters of a config.yaml that are shown."""


@dataclass(frozen=True)
class Configs:
    """config.yaml of each arm, by seed: as text, and flat ("trl.learning_rate": 1e-4)."""

    texts: Mapping[str, Mapping[int, str]]
    flat: Mapping[str, Mapping[int, Mapping[str, Any]]]

    def first(self, arm: str) -> Mapping[str, Any]:
        return next(iter(self.flat.get(arm, {}).values()), {})

    def text(self, arm: str) -> str:
        """The first seed's, as written, without what is beyond `LONGEST_CONFIG`."""
        text = next(iter(self.texts.get(arm, {}).values()), "")
        return (
            text
            if len(text) <= LONGEST_CONFIG
            else f"{text[:LONGEST_CONFIG]}\n(cut here: {len(text) - LONGEST_CONFIG} characters more)"
        )

    @property
    def arms(self) -> list[str]:
        return [arm for arm, of in self.texts.items() if of]

    def section(self, name: str) -> list[str]:
        """The different values of a mapping such as `versions`, each in words with the runs that
        have it, where there is more than one.
        """
        found: dict[str, list[str]] = {}
        for arm, of in self.flat.items():
            for seed, flat in of.items():
                words = ", ".join(
                    f"{key.partition('.')[2]} {value}"
                    for key, value in flat.items()
                    if key.startswith(f"{name}.")
                )
                found.setdefault(words, []).append(f"{arm} seed {seed}")
        found.pop("", None)
        return (
            list(found)
            if len(found) < 2
            else [f"{words} ({_listed(runs)})" for words, runs in found.items()]
        )

    def differing(self) -> list[tuple[str, list[str]]]:
        """(key, a value for each of `arms`) of every key that is not the same in all arms."""
        flats = [self.first(arm) for arm in self.arms]
        keys = dict.fromkeys(key for flat in flats for key in flat if not _about_the_run(key))
        return [
            (key, [_words(flat.get(key)) for flat in flats])
            for key in keys
            if len({_words(flat.get(key)) for flat in flats}) > 1
        ]

    def deviations(self) -> dict[str, list[str]]:
        """Of each arm with a preset what its file sets otherwise."""
        found = {
            arm: {
                key: value for key, value in self.first(arm).items() if key.startswith("deviates.")
            }
            for arm in self.arms
        }
        return {
            arm: [f"{key.removeprefix('deviates.')}: {_words(value)}" for key, value in of.items()]
            for arm, of in found.items()
            if of
        }

    def shared(self, keys: Iterable[str]) -> list[tuple[str, str]]:
        """(key, value) of those that all arms have alike."""
        flats = [self.first(arm) for arm in self.arms]
        return [
            (key, _words(flats[0][key]))
            for key in keys
            if flats and key in flats[0] and len({_words(flat.get(key)) for flat in flats}) == 1
        ]

    def uneven(self) -> list[str]:
        """Arms whose seeds were not trained alike, in words."""
        found = []
        for arm, of in self.flat.items():
            keys = dict.fromkeys(
                key for flat in of.values() for key in flat if not _about_the_run(key)
            )
            odd = [key for key in keys if len({_words(flat.get(key)) for flat in of.values()}) > 1]
            found += [
                f"The seeds of {arm} were not trained alike: they differ in {_listed(odd)}."
            ] * bool(odd)
        return found


DECODING = (
    "evaluation.split",
    "evaluation.problems",
    "evaluation.samples",
    "evaluation.temperature",
    "evaluation.top_p",
    "evaluation.ks",
)
DECODING += (
    "evaluation.curve_every",
    "evaluation.curve_problems",
    "evaluation.curve_samples",
    "trl.max_completion_length",
    "trl.temperature",
    "trl.top_p",
)
DECODING += ("evaluation.best_by", "trl.num_generations")
"""What was sampled, and how."""


def read_configs(runs: Mapping[str, Mapping[int, RunFolder]]) -> Configs:
    """Every config.yaml there is; one that is no YAML mapping counts as text only."""
    files = {
        arm: {seed: run.config for seed, run in of.items() if run.config.exists()}
        for arm, of in runs.items()
    }
    texts = {
        arm: {seed: file.read_text(encoding="utf-8", errors="replace") for seed, file in of.items()}
        for arm, of in files.items()
    }
    return Configs(
        texts,
        {
            arm: {seed: _flat(_parsed(text)) for seed, text in of.items()}
            for arm, of in texts.items()
        },
    )


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        found = yaml.load(text, LOADER)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, Mapping) else {}


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        inner = value if isinstance(value, Mapping) else None
        flat |= (
            _flat(inner, f"{prefix}{key}.")
            if inner
            else {f"{prefix}{key}": None if inner is not None else value}
        )
    return flat


def _about_the_run(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in ABOUT_THE_RUN)


def _words(value: Any) -> str:
    if value is None or value == "":
        return "-"
    words = value if isinstance(value, str) else json.dumps(value, default=str)
    return words if len(words) <= 160 else f"{words[:160]}..."


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def warnings(comparison: Mapping[str, Any], rows: Rows, configs: Configs) -> list[str]:
    """What is missing or cannot be compared, a sentence each; it stands above every number."""
    missing: dict[str, list[str]] = {}
    for item in comparison["missing"]:
        missing.setdefault(item["arm"], []).append(str(item["seed"]))
    listed = [
        f"{arm} seed{'s'[: len(seeds) > 1]} {', '.join(seeds)}" for arm, seeds in missing.items()
    ]
    found = [f"Not evaluated yet, so in no table: {'; '.join(listed)}."] if listed else []
    for item in comparison["incomparable"]:
        found.append(
            f"Left out: {item['arm']}{'' if item['seed'] is None else ' seed {}'.format(item['seed'])}: {item['reason']}"
        )
    if len(comparison["seeds"]) == 1:
        found.append(
            "One seed: intervals cover other problems of the same kind, and say nothing of other seeds."
        )
    unscored = [
        f"{name} {arm['unscored']}"
        for name, arm in comparison["arms"].items()
        if arm.get("unscored")
    ]
    found += (
        [
            f"Answers that could not be judged, and count neither as right nor as wrong: {', '.join(unscored)}."
        ]
        if unscored
        else []
    )
    if (
        comparison["arms"]
        and spent_alike([arm["cost"] for arm in comparison["arms"].values()]) is None
    ):
        found.append(
            "The arms spent unequally (more than 5% apart in every measure): differences at the end are not at equal cost; compare the curves."
        )
    if comparison["base"] is None:
        found.append(
            "The policy before training was not evaluated on these problems, so nothing says what training as such did."
        )
    found += configs.uneven()
    for name, what in (("versions", "versions of the libraries"), ("machine", "machines")):
        found += [f"Not all runs had the same {what}; they are listed under How this was made."] * (
            len(configs.section(name)) > 1
        )
    silent = [
        f"{arm} seed {seed}"
        for arm, of in rows.items()
        for seed, logged in of.items()
        if not logged and str(seed) not in missing.get(arm, ())
    ]
    return found + [f"No metrics.jsonl, so no curve: {_listed(silent)}."] * (
        bool(silent) and any(logged for of in rows.values() for logged in of.values())
    )


@dataclass(frozen=True)
class CritiqueCounts:
    """What became of the critiques of an arm, all seeds and steps together. Shares are None where
    their denominator is 0.
    """

    arm: str
    asked: int
    ok: int
    cached: int
    failed: int
    skipped: int
    leaked: int
    candidates: int
    right: int
    reasons: str

    @property
    def shares(self) -> tuple[float | None, float | None, float | None]:
        """(rescue, leak, failure) rate."""
        pairs = (
            (self.right, self.candidates),
            (self.leaked, self.ok + self.cached),
            (self.failed, self.asked),
        )
        return tuple(part / whole if whole else None for part, whole in pairs)


def critique_counts(rows: Rows) -> list[CritiqueCounts]:
    """Of every arm that asked for a critique or sampled a refinement, from the counts logged with
    each generation.
    """
    counted = [
        _counts(arm, [row for logged in of.values() for row in logged]) for arm, of in rows.items()
    ]
    return [of for of in counted if of.asked or of.candidates]


def _counts(arm: str, logged: Sequence[Mapping[str, Any]]) -> CritiqueCounts:
    def total(key: str) -> int:
        return round(sum(row.get(key) or 0 for row in logged))

    right = round(
        sum(
            (row.get("refine/rescue_rate") or 0) * (row.get("refine/candidates") or 0)
            for row in logged
        )
    )
    keys = dict.fromkeys(
        key
        for row in logged
        for key in row
        if key.startswith(("critique/failed/", "critique/skipped/"))
    )
    reasons = ", ".join(
        f"{key.removeprefix('critique/').replace('/', ': ', 1)} {total(key)}" for key in keys
    )
    counts = {status: total(f"critique/{status}") for status in STATUSES}
    more = {
        "leaked": total("critique/leaked"),
        "candidates": total("refine/candidates"),
        "right": right,
        "reasons": reasons,
    }
    return CritiqueCounts(arm, sum(counts.values()), **counts, **more)
