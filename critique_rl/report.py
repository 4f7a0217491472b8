"""One HTML page on a finished (or half-finished) pipeline, readable without a network: verdict, tables, curves, three transcripts, configurations.

This file gathers and computes coordinates; `templates/report.html.jinja` holds all markup, the SVG included, and is rendered with autoescape on, as
every transcript is text a model wrote. Left out: matplotlib (slow to import, its SVG follows no dark mode) and anything that imports torch or TRL: a
report must open on a laptop with the run folder alone. What a run folder lacks becomes a sentence on the page, never an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import pyarrow.parquet as pq
import yaml

from critique_rl.compare import bracket, short, shown_metrics, signed, verdict
from critique_rl.curves import Curve, curve, mean_curve, steps
from critique_rl.runs import PipelineFolder, RunFolder, write_text

FILES_SEARCHED = 60
"""Rollout files read, newest first, in search of the three transcripts: a long run has thousands."""


@dataclass(frozen=True)
class Line:
    """One polyline in SVG coordinates. `arm` is the index that colours it; `mean` draws it thick."""

    arm: int
    points: str
    title: str
    mean: bool


@dataclass(frozen=True)
class Panel:
    """One small plot in SVG coordinates: ticks are (position, label), `base` the height of the untrained policy's line, or None."""

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    arms: Sequence[int]
    base: float | None = None
    width: int = 424
    height: int = 250
    left: int = 44
    right: int = 404
    top: int = 12
    bottom: int = 208


@dataclass(frozen=True)
class Transcript:
    """A rollout with what became of it: `candidate` is the row of its refinement, or None."""

    title: str
    where: str
    rollout: Mapping[str, Any]
    candidate: Mapping[str, Any] | None


@dataclass(frozen=True)
class Whisker:
    """A difference and its interval on a shared axis, in percent of its width."""

    low: float
    middle: float
    high: float
    zero: float


def write_report(folder: PipelineFolder, comparison: Mapping[str, Any]) -> Path:
    """Write report.html into the pipeline's folder from `compare.compare`'s result and the runs beside it; return its path."""
    arms = list(dict.fromkeys([*comparison["arms"], *(item["arm"] for item in comparison["missing"])]))
    runs = {arm: {seed: folder.run(arm, seed) for seed in comparison["seeds"]} for arm in arms}
    rows = {arm: {seed: steps(run) for seed, run in of.items()} for arm, of in runs.items()}
    configs = {arm: text for arm in arms if (text := _config(runs[arm].values()))}
    shown = _critic_arm(comparison, arms)
    page = _template().render(
        name=folder.path.name,
        verdict=verdict(comparison),
        comparison=comparison,
        arms=arms,
        metrics=shown_metrics(comparison),
        whiskers=_whiskers(comparison["comparisons"]),
        learning=_learning_panels(rows, comparison["base"] or {}),
        rescue=_panels(rows, ["refine/rescue_rate"], ["rescue rate"], {}),
        transcript_arm=shown,
        transcripts=_transcripts(runs.get(shown, {})),
        configs=configs,
        versions=_versions(configs.values()),
    )
    write_text(folder.report, page)
    return folder.report


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"short": short, "bracket": bracket, "signed": signed}
    return environment.get_template("report.html.jinja")


def _critic_arm(comparison: Mapping[str, Any], arms: Sequence[str]) -> str:
    """The arm whose transcripts are shown: the last one that is not the control, as pipelines list the method under test after its controls."""
    others = [arm for arm in arms if arm != comparison["control"]]
    return others[-1] if others else comparison["control"]


def _config(runs: Iterable[RunFolder]) -> str:
    """The first config.yaml among an arm's seeds, as written."""
    return next((run.config.read_text() for run in runs if run.config.exists()), "")


def _versions(configs: Iterable[str]) -> str:
    """The versions the runs were trained with, as their configurations record them; several where arms differ."""
    recorded = [(yaml.safe_load(text) or {}).get("versions") or {} for text in configs]
    return "; ".join(dict.fromkeys(", ".join(f"{package} {number}" for package, number in of.items()) for of in recorded if of))


def _whiskers(pairs: Sequence[Mapping[str, Any]]) -> list[Whisker | None]:
    """Every comparison's interval on one axis that holds them all and 0."""
    ends = [end for pair in pairs for end in (*(pair["ci95"] or ()), pair["difference"])]
    low, high = min([0.0, *ends]), max([0.0, *ends])
    pad = 0.04 * (high - low) or 1.0

    def at(value: float) -> float:
        return round(100 * (value - low + pad) / (high - low + 2 * pad), 2)

    return [Whisker(at(p["ci95"][0]), at(p["difference"]), at(p["ci95"][1]), at(0)) if p["ci95"] else None for p in pairs]


def _learning_panels(rows: Mapping[str, Mapping[int, list[dict[str, Any]]]], base: Mapping[str, float | None]) -> list[Panel]:
    """One panel for every pass@1 that was evaluated while training."""
    keys = dict.fromkeys(key for of in rows.values() for steps in of.values() for row in steps for key in row if key.startswith("eval/pass@1/"))
    names = [key.removeprefix("eval/") for key in keys]
    return _panels(rows, list(keys), names, base)


def _panels(
    rows: Mapping[str, Mapping[int, list[dict[str, Any]]]], keys: Sequence[str], titles: Sequence[str], base: Mapping[str, float | None]
) -> list[Panel]:
    """Panels with shared axes, so that they can be read against each other. Keys without a single point get none."""
    curves = {key: {arm: {seed: curve(logged, key) for seed, logged in of.items()} for arm, of in rows.items()} for key in keys}
    filled = [points for of in curves.values() for seeds in of.values() for points in seeds.values() if len(points[0])]
    if not filled:
        return []
    x_ticks = _ticks(max(x[-1] for x, _ in filled))
    y_ticks = _ticks(max(0.05, *(y.max() for _, y in filled), *(base.get(t) or 0 for t in titles)))
    drawn = [(key, title) for key, title in zip(keys, titles, strict=True) if any(len(c[0]) for of in curves[key].values() for c in of.values())]
    return [_panel(title, curves[key], x_ticks, y_ticks, base.get(title)) for key, title in drawn]


def _panel(title: str, curves: Mapping[str, Mapping[int, Curve]], x_ticks: Sequence[float], y_ticks: Sequence[float], base: float | None) -> Panel:
    def x_at(x: float) -> float:
        return round(Panel.left + (Panel.right - Panel.left) * x / x_ticks[-1], 1)

    def y_at(y: float) -> float:
        return round(Panel.bottom - (Panel.bottom - Panel.top) * y / y_ticks[-1], 1)

    lines = [line for index, arm in enumerate(curves) for line in _lines(index, arm, curves[arm], x_at, y_at)]
    lines.sort(key=lambda line: line.mean)  # means last, so that they lie on top
    x_labels = [(x_at(tick), short(tick)) for tick in x_ticks]
    y_labels = [(y_at(tick), f"{tick:g}") for tick in y_ticks]
    return Panel(title, lines, x_labels, y_labels, sorted({line.arm for line in lines}), None if base is None else y_at(base))


def _lines(index: int, arm: str, seeds: Mapping[int, Curve], x_at: Callable[[float], float], y_at: Callable[[float], float]) -> Iterator[Line]:
    """A thin line a seed and a thick one for their mean; a single seed is its own mean."""
    filled = {seed: curve for seed, curve in seeds.items() if len(curve[0])}

    def points(curve: Curve) -> str:
        return " ".join(f"{x_at(x)},{y_at(y)}" for x, y in zip(*curve, strict=True))

    if len(filled) > 1:
        yield from (Line(index, points(curve), f"{arm}, seed {seed}", False) for seed, curve in filled.items())
    if mean := mean_curve(list(filled.values())):
        yield Line(index, points(mean), f"{arm}, mean of {len(filled)} seed{'s'[: len(filled) > 1]}", True)


def _ticks(high: float) -> list[float]:
    """Round numbers from 0 to the first at or above `high`, 4 to 6 of them: steps of 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(high / 5)) if high > 0 else 1.0
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m * 5 >= high * (1 - 1e-9))
    return [round(i * step, 12) for i in range(math.ceil(high / step - 1e-9) + 1)]


def _transcripts(runs: Mapping[int, RunFolder]) -> list[Transcript]:
    """At most one each of: a failure its critique rescued, one it did not, one that got no critique. From the last steps, lowest seeds first."""
    files = [(file, seed) for seed, run in runs.items() for file in sorted(run.rollouts.glob("*.parquet"), reverse=True)]
    files.sort(key=lambda item: item[0].name, reverse=True)  # stable: newest step first, then lowest seed
    found: dict[str, Transcript] = {}
    for file, seed in islice(files, FILES_SEARCHED):
        for transcript in _read_transcripts(file, seed):
            found.setdefault(transcript.title, transcript)
        if len(found) == 3:
            break
    return sorted(found.values(), key=lambda transcript: transcript.title, reverse=True)


def _read_transcripts(file: Path, seed: int) -> Iterator[Transcript]:
    rows = pq.read_table(file).to_pylist()
    failed = {index: row for index, row in enumerate(rows) if row["role"] == "rollout" and row["outcome"] in ("wrong", "unreadable")}
    candidates = [row for row in rows if row["role"] == "candidate" and row["attempt"] in failed]
    for row in sorted(candidates, key=lambda row: not row["chosen"]):
        title = "Rescued" if row["outcome"] == "right" else "Not rescued"
        yield Transcript(title, f"seed {seed}, step {row['step']}", failed[row["attempt"]], row)
    for row in sorted(failed.values(), key=lambda row: row["critique_status"] == ""):
        if row["critique_status"] != "ok":
            yield Transcript("Left without a critique", f"seed {seed}, step {row['step']}", row, None)
