"""One HTML page on a finished (or half-finished) pipeline, readable without a network, in the order
in which a sceptic asks.

This file gathers. `templates/` holds all markup; the other modules of this room compute what it
shows. A content security policy allows the page's style and script by their hashes, and nothing
else. Left out: anything that imports torch or TRL, for a report must open on a laptop with the run
folder alone. Whatever a run folder lacks becomes a sentence on the page, never an error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_rl.analysis.boundary import BASE_AGAIN
from critique_rl.analysis.comparison import Comparison, CritiqueCounts, Difference, Ends
from critique_rl.analysis.critiques.counts import critique_counts
from critique_rl.analysis.critiques.turns import TurnCounts, turn_counts
from critique_rl.analysis.evaluations import ALL_FAMILIES
from critique_rl.analysis.exports import write_exports
from critique_rl.analysis.flow.series import read_flow, runs_without_probes
from critique_rl.analysis.flow.term_means import PHASES
from critique_rl.analysis.formats import MEASURES, shown_metrics
from critique_rl.analysis.learning_curves import (
    Rows,
    SeedRuns,
    Step,
    completions_curve,
    steps,
    with_rates,
)
from critique_rl.analysis.page import plots
from critique_rl.analysis.page.configs import DECODING, read_configs
from critique_rl.analysis.page.curve_charts import (
    AXES,
    all_steps,
    curve_charts,
    plain_chart,
    used_axes,
)
from critique_rl.analysis.page.environment import TEMPLATES, environment
from critique_rl.analysis.page.evaluation_charts import pass_charts, reliability_charts
from critique_rl.analysis.page.flow import areas, arrows
from critique_rl.analysis.page.flow.section import flow_section
from critique_rl.analysis.page.plots import Chart
from critique_rl.analysis.page.reader_warnings import reader_warnings
from critique_rl.analysis.page.transcripts import sample
from critique_rl.analysis.verdict import verdict
from critique_rl.config.durable_files import write_text
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.costs import KINDS

PANELS = 8
"""Learning curves of a page; a task can have a hundred families."""
RATES = {
    "refine/rescue_rate": "rescue rate: refinements that are right",
    "critique/leak_rate": "leak rate: critiques that give the answer away",
    "critique/failure_rate": "failure rate: critiques asked for that never came",
}


@dataclass(frozen=True)
class Whisker:
    """A difference and its interval on a shared axis, in percent of its width."""

    low: float
    middle: float
    high: float
    zero: float


@dataclass(frozen=True)
class Gain:
    """The effect of an arm on a family."""

    difference: float
    """Its pass@1 minus the control's."""
    ci95: Ends | None
    word: str
    """The interval in a word: "gained", "lost" or "unclear"."""


DrawnDifference = tuple[Difference, Whisker | None]
"""A difference, and its interval as drawn; None where it has no interval."""


@dataclass(frozen=True)
class Differences:
    """The page's tables of differences."""

    primary: list[DrawnDifference]
    """Every arm minus the control, on the primary metric."""
    others: list[DrawnDifference]
    """Every arm minus the control, on the other metrics."""
    pairs: list[DrawnDifference]
    """Pairs of arms without the control, on the primary metric."""


@dataclass(frozen=True)
class Curves:
    """The page's curves over spending."""

    axes: Mapping[str, str]
    """Logged metric -> name of the axes along which anything is drawn."""
    learning: list[Chart]
    rates: list[Chart]
    not_drawn: list[str]
    """Metrics of learning curves beyond `PANELS`."""


def write_report(
    folder: PipelineFolder,
    comparison: Comparison,
    external: Mapping[str, str] | None = None,
    commands: Sequence[str] | None = None,
) -> Path:
    """Write report.html and the exports beside it.

    Args:
        folder: the pipeline's runs.
        comparison: the result of `compare.compare`.
        external: name -> output folder of a plain TRL run, drawn in a panel of its own.
        commands: the commands that made the runs and the page.

    Returns:
        The path of the page.

    Raises:
        ConfigError: a completions file of an external run cannot be read.
    """
    runs = _run_folders(folder, comparison)
    rows: dict[str, dict[int, list[Step]]] = {}
    for arm, seeds in runs.items():
        rows[arm] = {}
        for seed, run in seeds.items():
            rows[arm][seed] = with_rates(steps(run))
    configs = read_configs(runs)
    flow = read_flow(folder, list(runs), comparison.seeds)
    accounted = [str(configs.first(arm).get("flow.account") or "") for arm in configs.arms]
    warnings = reader_warnings(comparison, rows, configs)
    warnings += runs_without_probes(folder, list(runs), comparison.seeds)
    _, _, primary_family = comparison.primary.partition("/")
    page = _render(
        name=folder.path.name,
        verdict=verdict(comparison),
        target_measure=MEASURES[comparison.measure],
        warnings=warnings,
        comparison=comparison,
        arms=list(runs),
        metrics=shown_metrics(comparison),
        differences=_differences(comparison),
        gains=_gains(comparison),
        noise=(comparison.boundary or {}).get(BASE_AGAIN),
        flow=flow_section(flow, rows, primary_family, accounted),
        flow_boxes={"areas": areas.BOX, "arrows": arrows.BOX},
        flow_phases=PHASES,
        curves=_curves(rows, comparison),
        pass_charts=pass_charts(comparison),
        reliability=reliability_charts(comparison),
        critiques=_asked_critiques(comparison, rows),
        turns=_turns(rows),
        unrecorded=[arm for arm, counts in comparison.critiques.items() if counts is None],
        external=_external_charts(external or {}),
        sample=sample(runs),
        configs=configs,
        decoding=configs.shared(DECODING),
        commands=commands or _default_commands(folder),
    )
    write_text(folder.report, page)
    write_exports(folder, comparison, flow)
    return folder.report


def _asked_critiques(comparison: Comparison, rows: Rows) -> dict[str, CritiqueCounts]:
    """Arm -> its critiques, of arms that asked for one or refined an attempt.

    Args:
        comparison: has the counts of evaluated arms.
        rows: metrics.jsonl by arm and seed, for the arms that are not evaluated yet.
    """
    asked = {}
    for arm, seeds in rows.items():
        if arm in comparison.arms:
            counts = comparison.arms[arm].critiques
        else:
            counts = critique_counts([row for logged in seeds.values() for row in logged])
        if counts is not None and (counts.asked or counts.refinements):
            asked[arm] = counts
    return asked


def _turns(rows: Rows) -> dict[str, list[TurnCounts]]:
    """Arm -> its turns of refinement, of arms with several."""
    turns = {}
    for arm, seeds in rows.items():
        logged: list[Step] = []
        for steps_of_seed in seeds.values():
            logged += steps_of_seed
        counted = turn_counts(logged)
        if counted:
            turns[arm] = counted
    return turns


def _run_folders(folder: PipelineFolder, comparison: Comparison) -> dict[str, SeedRuns]:
    """Arm -> run folders by seed, of evaluated arms and then of missing ones."""
    missing = [run.arm for run in comparison.missing]
    runs: dict[str, SeedRuns] = {}
    for arm in (*comparison.arms, *missing):
        runs[arm] = {seed: folder.run(arm, seed) for seed in comparison.seeds}
    return runs


def _default_commands(folder: PipelineFolder) -> list[str]:
    path = f"pipelines/{folder.path.name}.yaml"
    return [f"critique-rl {word} {path}" for word in ("run", "compare", "report")]


def _render(**values: Any) -> str:
    templates = environment()
    style = templates.get_template("report.css.jinja").render(
        arms=len(values["arms"]), axes=len(values["curves"].axes), flow=values["flow"]
    )
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    # Both stand in the page unescaped, so neither may close its element.
    assert "</" not in style + script, "style or script holds a closing tag"
    policy = (
        f"default-src 'none'; style-src '{_csp_hash(style)}'; script-src '{_csp_hash(script)}'; "
        f"base-uri 'none'; form-action 'none'"
    )
    template = templates.get_template("report.html.jinja")
    return template.render(style=style, script=script, policy=policy, plots=plots, **values)


def _csp_hash(text: str) -> str:
    """As a content security policy names an inline element's text."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _curves(rows: Rows, comparison: Comparison) -> Curves:
    budget = KINDS[comparison.measure]
    # The first axis is the one that is shown before the reader chooses any.
    axes = sorted(used_axes(rows), key=lambda axis: axis != budget)
    primary = f"eval/{comparison.primary}"
    keys = dict.fromkeys(key for step in all_steps(rows) for key in step)
    logged = [key for key in keys if key.startswith("eval/pass@1/")]
    # The sort is stable: behind the primary metric, the order of the log.
    logged.sort(key=lambda key: key != primary)
    names = {key: key.removeprefix("eval/") for key in logged}
    shown = {key: names[key] for key in logged[:PANELS]}
    learning = curve_charts(rows, shown, axes, comparison.base)
    rates = curve_charts(rows, RATES, axes)
    drawn = {axis for chart in (*learning, *rates) for axis in chart.plots}
    return Curves(
        axes={axis: AXES[axis] for axis in axes if axis in drawn},
        learning=learning,
        rates=rates,
        not_drawn=[names[key] for key in logged[PANELS:]],
    )


def _external_charts(folders: Mapping[str, str]) -> list[tuple[str, Chart | None]]:
    """(name, its chart or None where the folder has no completions).

    Raises:
        ConfigError: a completions file cannot be read.
    """
    charts: list[tuple[str, Chart | None]] = []
    for name, folder in folders.items():
        points = completions_curve(Path(folder))
        chart = plain_chart(name, points) if len(points[0]) else None
        charts.append((name, chart))
    return charts


def _draw(pairs: Sequence[Difference]) -> list[DrawnDifference]:
    """Every difference with its interval, on one axis that holds them all and 0."""
    values = []
    for pair in pairs:
        values += [pair.difference, *(pair.ci95 or ())]
    percent = plots.scale_to_percent(values)
    drawn: list[DrawnDifference] = []
    for pair in pairs:
        whisker = None
        if pair.ci95:
            low, high = pair.ci95
            whisker = Whisker(
                low=percent(low),
                middle=percent(pair.difference),
                high=percent(high),
                zero=percent(0),
            )
        drawn.append((pair, whisker))
    return drawn


def _differences(comparison: Comparison) -> Differences:
    control = comparison.control
    primary = []
    others = []
    # Drawn together, so that the whiskers of all metrics share one axis.
    for pair, whisker in _draw(comparison.comparisons):
        if pair.metric == comparison.primary:
            primary.append((pair, whisker))
        else:
            others.append((pair, whisker))
    pairs = [
        (pair, whisker)
        for pair, whisker in _draw(comparison.pairs)
        if control not in (pair.arm, pair.control)
    ]
    return Differences(primary, others, pairs)


def _gains(comparison: Comparison) -> dict[str, dict[str, Gain]]:
    """Family -> arm -> gain on pass@1."""
    gains: dict[str, dict[str, Gain]] = {}
    for pair in comparison.comparisons:
        metric, _, family = pair.metric.partition("/")
        if metric == "pass@1" and family != ALL_FAMILIES:
            gain = Gain(pair.difference, pair.ci95, _gain_word(pair))
            gains.setdefault(family, {})[pair.arm] = gain
    return gains


def _gain_word(pair: Difference) -> str:
    # On one seed the interval says nothing of other seeds, so no family is called gained or lost.
    if pair.ci95 is None or len(pair.seeds) == 1:
        return "unclear"
    low, high = pair.ci95
    if low > 0:
        return "gained"
    if high < 0:
        return "lost"
    return "unclear"
