"""One HTML page on a finished (or half-finished) pipeline, readable without a network: what a
sceptic asks, in the order of asking.

This file gathers; `plots` computes coordinates, `transcripts` picks rollouts, `provenance` reads
configurations, `exports` writes the tables for papers, and `templates/` holds all markup. It is
rendered with autoescape on, as every transcript is text a model wrote; a content security policy
allows the page's own style and script by their hashes and nothing else. Left out: anything that
imports torch or TRL: a report must open on a laptop with the run folder alone. What a run folder
lacks becomes a sentence on the page, never an error.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from critique_rl.analysis.page import plots
from critique_rl.analysis.exports import NOISE, write_exports
from critique_rl.analysis.formats import MEASURES, bracket, short, shown_metrics, signed
from critique_rl.analysis.learning_curves import completions_curve, steps, with_rates
from critique_rl.analysis.page.plots import Chart, Rows
from critique_rl.analysis.page.configs import DECODING, critique_counts, read_configs, warnings
from critique_rl.analysis.summary import verdict
from critique_rl.analysis.page.transcripts import sample
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
    """What an arm did to a family: its pass@1 minus the control's, and in one word what the
    interval says of it.
    """

    difference: float
    ci95: Sequence[float] | None
    word: str


def write_report(
    folder: PipelineFolder,
    comparison: Mapping[str, Any],
    external: Mapping[str, str] | None = None,
    commands: Sequence[str] | None = None,
) -> Path:
    """Write report.html, and the exports beside it, from `compare.compare`'s result and the runs;
    return the page's path.

    `external` maps names to folders with a plain TRL run's completions; `commands` are those that
    made the runs and the page.
    """
    arms = list(
        dict.fromkeys([*comparison["arms"], *(item["arm"] for item in comparison["missing"])])
    )
    runs = {arm: {seed: folder.run(arm, seed) for seed in comparison["seeds"]} for arm in arms}
    rows = {
        arm: {seed: with_rates(steps(run)) for seed, run in of.items()} for arm, of in runs.items()
    }
    configs = read_configs(runs)
    page = _render(
        name=folder.path.name,
        verdict=verdict(comparison),
        target_of=MEASURES[comparison.get("measure", "generated_tokens")],
        warnings=warnings(comparison, rows, configs),
        comparison=comparison,
        arms=arms,
        metrics=shown_metrics(comparison),
        differences=_differences(comparison),
        gains=_gains(comparison),
        noise=(comparison["boundary"] or {}).get(NOISE),
        **_curves(rows, comparison),
        pass_charts=plots.pass_charts(comparison),
        reliability=plots.reliability_charts(comparison),
        critiques=critique_counts(rows),
        external=_external(external or {}),
        sample=sample(runs),
        configs=configs,
        decoding=configs.shared(DECODING),
        commands=commands
        or [
            f"critique-rl {word} pipelines/{folder.path.name}.yaml"
            for word in ("run", "compare", "report")
        ],
    )
    write_text(folder.report, page)
    write_exports(folder, comparison)
    return folder.report


def _render(**values: Any) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": short,
        "bracket": bracket,
        "signed": signed,
        "look": plots.look,
        "label": plots.label,
    }
    style = environment.get_template("report.css.jinja").render(
        arms=len(values["arms"]), axes=len(values["axes"])
    )
    script = (Path(__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    assert "</" not in style + script, (
        "neither may close its own element: they stand in the page as they are"
    )
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    return environment.get_template("report.html.jinja").render(
        style=style, script=script, policy=policy, plots=plots, **values
    )


def _hash(text: str) -> str:
    """As a content security policy names an inline element's text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _curves(rows: Rows, comparison: Mapping[str, Any]) -> dict[str, Any]:
    """`axes` (those along which anything was spent), `learning` and `rates` (charts), `not_drawn`
    (names of learning curves beyond `PANELS`).
    """
    budget = KINDS[comparison.get("measure", "generated_tokens")]
    axes = sorted(
        plots.used_axes(rows), key=lambda axis: axis != budget
    )  # the first is shown before any is chosen
    keys = dict.fromkeys(
        key
        for of in rows.values()
        for logged in of.values()
        for row in logged
        for key in row
        if key.startswith("eval/pass@1/")
    )
    names = {
        key: key.removeprefix("eval/")
        for key in sorted(
            keys, key=lambda key: (key != f"eval/{comparison['primary']}", list(keys).index(key))
        )
    }
    shown = dict(list(names.items())[:PANELS])
    learning = plots.charts(rows, shown, axes, comparison["base"])
    rates = plots.charts(rows, RATES, axes)
    used = [axis for axis in axes if any(axis in chart.plots for chart in [*learning, *rates])]
    return {
        "axes": {key: plots.AXES[key] for key in used},
        "learning": learning,
        "rates": rates,
        "not_drawn": list(names.values())[PANELS:],
    }


def _external(folders: Mapping[str, str]) -> list[tuple[str, Chart | None]]:
    """(name, its curve or None where the folder has no completions), a plot of its own each."""
    found = ((name, completions_curve(Path(folder))) for name, folder in folders.items())
    return [
        (name, plots.plain_chart(name, curve) if len(curve[0]) else None) for name, curve in found
    ]


def _whiskers(pairs: Sequence[Mapping[str, Any]]) -> list[Whisker | None]:
    """Every comparison's interval on one axis that holds them all and 0."""
    at = plots.on_one_axis(
        [end for pair in pairs for end in (*(pair["ci95"] or ()), pair["difference"])]
    )
    return [
        Whisker(at(p["ci95"][0]), at(p["difference"]), at(p["ci95"][1]), at(0))
        if p["ci95"]
        else None
        for p in pairs
    ]


def _differences(
    comparison: Mapping[str, Any],
) -> dict[str, list[tuple[Mapping[str, Any], Whisker | None]]]:
    """Pairs with their whiskers: from the control on the "primary" metric, on "others", and "pairs"
    of all arms on the primary.
    """
    all_of, primary = comparison["comparisons"], comparison["primary"]
    drawn = list(zip(all_of, _whiskers(all_of), strict=True))
    pairs = comparison.get("pairs") or []
    between = [
        (pair, whisker)
        for pair, whisker in zip(pairs, _whiskers(pairs), strict=True)
        if comparison["control"] not in (pair["arm"], pair["control"])
    ]
    return {
        "primary": [d for d in drawn if d[0]["metric"] == primary],
        "others": [d for d in drawn if d[0]["metric"] != primary],
        "pairs": between,
    }


def _gains(comparison: Mapping[str, Any]) -> dict[str, dict[str, Gain]]:
    """{family: {arm: gain}} on pass@1, "all" left out, as it is no family."""
    found: dict[str, dict[str, Gain]] = {}
    for pair in comparison["comparisons"]:
        k, _, family = pair["metric"].partition("/")
        if k == "pass@1" and family != "all":
            found.setdefault(family, {})[pair["arm"]] = Gain(
                pair["difference"],
                pair["ci95"],
                _word(pair["ci95"] if len(pair["seeds"]) > 1 else None),
            )
    return found


def _word(ci95: Sequence[float] | None) -> str:
    if ci95 is None:
        return "unclear"
    return "gained" if ci95[0] > 0 else "lost" if ci95[1] < 0 else "unclear"
