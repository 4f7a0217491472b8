"""One eval.json, read and checked, and the values of its metrics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from critique_rl.config.checks import ConfigError
from critique_rl.metrics import EVALUATION_METRICS, SHARES, pass_at_k, shares

PROTOCOL = (
    "task",
    "template",
    "prompts",
    "split",
    "samples",
    "temperature",
    "top_p",
    "max_new_tokens",
    "versions",
)
"""What two evaluations must share to be compared."""

COSTS = (
    "generated_tokens",
    "total_tokens",
    "flops",
    "critic_tokens",
    "usd",
    "wall_seconds",
    "steps",
)


@dataclass(frozen=True)
class Evaluation:
    """One eval.json. `counts` maps a problem's id to (family, judged samples n, right samples);
    `votes` are (agreement, right) of commonest answers.
    """

    protocol: Mapping[str, Any]
    counts: Mapping[str, tuple[str, int, int]]
    metrics: Mapping[str, float | None]
    cost: Mapping[str, float]
    unscored: int
    votes: Sequence[tuple[float, bool]] = ()
    shares: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """{problem's id: `metrics.shares`}."""
    second: Evaluation | None = None
    """The same problems under `evaluation.second_template`."""

    def values(self, metric: str) -> dict[str, float]:
        """pass@k, or the share, of every problem of the metric's family ("all": of any) that has
        it, by id; of another metric its one value, by "".
        """
        if metric in EVALUATION_METRICS:
            return {"": value} if (value := self.metrics.get(metric)) is not None else {}
        name, k, family = _parse(metric)
        if name in SHARES:
            return {
                i: of[name]
                for i, of in self.shares.items()
                if name in of and family in ("all", self.counts[i][0])
            }
        rows = {
            name: (n, right)
            for name, (of, n, right) in self.counts.items()
            if family in ("all", of) and n >= k
        }
        if not rows:
            return {}
        n, right = np.array(list(rows.values())).T
        return dict(zip(rows, pass_at_k(n, right, k).tolist(), strict=True))


Runs = dict[int, Evaluation]
"""One arm's evaluations by seed."""


def read_evaluation(path: Path, arm: str, seed: int | None = None) -> Evaluation:
    """Parse the eval.json of this arm and seed; a ConfigError says what is wrong with it."""
    try:
        raw = json.loads(path.read_text())
        if (raw["arm"], raw["seed"]) != (arm, seed):
            raise ValueError(
                f"it is of arm {raw['arm']!r} with seed {raw['seed']}, and lies where that of {arm!r} with seed {seed} belongs"
            )
        return _read(raw)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else error
        raise ConfigError(
            f"{path} is no evaluation: {problem}; expected what `critique-rl evaluate` writes: delete it and evaluate again"
        ) from error


def _read(raw: dict[str, Any]) -> Evaluation:
    counts = {p["id"]: (p["family"], int(p["n"]), int(p["right"])) for p in raw["problems"]}
    if len(counts) < len(raw["problems"]):
        raise ValueError("two problems share an id")
    if wrong := next((name for name, (_, n, right) in counts.items() if not 0 <= right <= n), None):
        raise ValueError(f"problem {wrong!r} has {counts[wrong][2]} right of {counts[wrong][1]}")
    if wrong := next(
        (
            p
            for p in raw["problems"]
            if p["n"] + p.get("unscored", 0) > raw.get("samples", math.inf)
        ),
        None,
    ):
        raise ValueError(
            f"problem {wrong['id']!r} has {wrong['n']} judged and {wrong.get('unscored', 0)} unscored of {raw['samples']} samples"
        )
    metrics = {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in raw["metrics"].items()
    }
    cost = {name: float((raw.get("cost") or {}).get(name) or 0) for name in COSTS}
    if wrong := next((name for name, value in cost.items() if not math.isfinite(value)), None):
        raise ValueError(f"cost {wrong} is {cost[wrong]}")
    unscored = sum(p.get("unscored", 0) for p in raw["problems"])
    votes = [
        (float(p["agreement"]), bool(p["agreed_right"]))
        for p in raw["problems"]
        if p.get("agreement") is not None
    ]
    abstains = any("abstained" in p for p in raw["problems"])
    of = {
        p["id"]: shares(
            p["n"], p["right"], p.get("abstained", 0) if abstains else None, p.get("agreement")
        )
        for p in raw["problems"]
    }
    second = _read({**raw, **raw["second"], "second": None}) if raw.get("second") else None
    return Evaluation(
        {key: raw.get(key) for key in PROTOCOL}, counts, metrics, cost, unscored, votes, of, second
    )


METRIC = re.compile(rf"(?:pass@(\d+)|({'|'.join(SHARES)}))/(.+)")
"""Names of metrics that every problem has a value of."""


def _parse(metric: str) -> tuple[str, int, str]:
    """("pass", k, family), or (share, 0, family)."""
    k, share, family = METRIC.fullmatch(metric).groups()
    return (share, 0, family) if share else ("pass", int(k), family)
