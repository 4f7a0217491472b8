"""Settings that lie beside a log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

EVALUATION = "metadata.json"
"""Beside results.jsonl of `vf-eval`, the evaluation of the package verifiers."""
SETTINGS_FILES = ("config.yaml", "config.yml", "config.json", "args.json", EVALUATION)
MODEL_KEYS = {"model_type", "architectures"}
"""Keys of a model's own config.json, which says nothing of the training."""

EVALUATION_KEYS = {"env_id", "rollouts_per_example"}
"""Keys of vf-eval's metadata.json; other programs write files of that name too."""
OUTCOMES = ("model", "base_url", "time_ms", "avg_reward", "avg_metrics")
"""Its keys that are no settings: the policy that was judged, and what came out."""


def read_settings(path: Path) -> dict[str, Any]:
    """Settings beside a log, flat ("optim.lr"); {} where there are none, or none can be read."""
    import yaml

    folder = path if path.is_dir() else path.parent
    for name in SETTINGS_FILES:
        file = folder / name
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8")
            if name.endswith("json"):
                raw = json.loads(text)
            else:
                raw = yaml.safe_load(text)
        except (ValueError, OSError, RecursionError, yaml.YAMLError):
            continue
        if name == EVALUATION:
            raw = _evaluation_settings(raw)
        if isinstance(raw, Mapping) and not MODEL_KEYS & raw.keys():
            return dict(_flat(raw))
    return {}


def is_vf_eval(folder: Path) -> bool:
    """Whether a folder's answers are an evaluation by verifiers' `vf-eval`, not training."""
    try:
        raw = json.loads((folder / EVALUATION).read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError):
        return False
    return _evaluation_settings(raw) is not None


def _evaluation_settings(raw: Any) -> dict[str, Any] | None:
    """The settings of vf-eval's metadata.json; None for another program's file."""
    if not isinstance(raw, Mapping) or not raw.keys() >= EVALUATION_KEYS:
        return None
    return {key: value for key, value in raw.items() if key not in OUTCOMES}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        inner = value
        is_wandb = isinstance(value, Mapping) and "value" in value
        if is_wandb and set(value) <= {"value", "desc"}:
            # wandb's config.yaml has {"value": ...} under each key.
            inner = value["value"]
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner


def plain(value: Any) -> Any:
    """A setting to compare by: numbers as numbers, since YAML reads 1e-5 as a text."""
    if isinstance(value, bool) or value is None:
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)
