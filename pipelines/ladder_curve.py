"""What a critique is worth in samples: tokens to the target of a scalar arm over those of a
critique arm, against the base's chance of a right completion.

    critique-rl run pipelines/ladder.yaml --jobs 2
    critique-rl flow pipelines/ladder.yaml --jobs 2
    python pipelines/ladder_curve.py pipelines/ladder.yaml --svg runs/ladder.svg

Arms come in pairs `scalar-<rung>` and `critique-<rung>`. A run that never reached the target is
censored: it needs more than it spent. Three figures follow.

- Each rung: the geometric mean of the ratio over seeds, paired, with a t interval. Where a scalar
  run is censored, the least ratio that its spending allows, without an interval.
- Each scalar run on its way: the metric on validation problems at 1, 4 and 16 times `--unit`
  tokens, and the highest value with its place. A run that reached the target stopped there.
- All rungs: log ratio = a + b log chance + noise, by maximum likelihood with censoring (a Tobit
  model). Intervals of b and of the chance where the ratio is 1 are by profile likelihood. Rungs of
  one seed share no run, but each rung's base is one base: the interval is over runs, not bases.

The figure needs matplotlib, which the extra tasks installs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import optimize, stats

from critique_rl.analysis.evaluations import parse_metric
from critique_rl.analysis.flow.classes import RIGHT
from critique_rl.analysis.flow.series import read_flow
from critique_rl.analysis.learning_curves import SPENT, Curve, curve, steps
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.intervals import crossed_interval

SCALAR = "scalar-"
CRITIQUE = "critique-"


@dataclass(frozen=True)
class Run:
    """What one run spent."""

    tokens: float
    """Until the target; where that is censored, in all."""
    censored: bool
    curve: Curve
    """Generated tokens and the metric on validation problems."""

    def at(self, tokens: float) -> str:
        """The metric at the last point up to so many tokens, as text."""
        x, y = self.curve
        if tokens > x[-1]:
            return "stopped" if not self.censored else f"{y[-1]:.2f}"
        before = np.flatnonzero(x <= tokens)
        return f"{y[before[-1]]:.2f}" if len(before) else "-"


@dataclass(frozen=True)
class Pair:
    """The two runs of a rung and a seed."""

    chance: float
    """The base's mean chance of a right completion, over problems."""
    scalar: Run
    critique: Run

    @property
    def log_ratio(self) -> float:
        """log10 of scalar over critique; a lower bound where the scalar run is censored."""
        return math.log10(self.scalar.tokens / self.critique.tokens)


@dataclass(frozen=True)
class Line:
    """log10 ratio = intercept + slope * log10 chance."""

    slope: float
    slope95: tuple[float, float]
    crossing: float
    """log10 of the chance at which the ratio is 1."""
    crossing95: tuple[float, float]

    def ratio_at(self, log_chance: float) -> float:
        """The ratio at a log10 of the chance."""
        return 10 ** (self.slope * (log_chance - self.crossing))


def read_rungs(pipeline_file: str, out: str) -> tuple[list[list[Pair]], float]:
    """Pairs by rung, from the smallest chance up, and the target.

    Raises:
        SystemExit: a file is missing, or a critique arm is censored.
    """
    pipeline = load_pipeline(Path(pipeline_file))
    folder = PipelineFolder(Path(out) / Path(pipeline_file).stem)
    compared = json.loads((folder.path / "compare.json").read_text())
    flow = read_flow(folder, list(pipeline.arms), pipeline.seeds)
    _, _, family = parse_metric(compared["primary"])
    rungs = []
    for arm in pipeline.arms:
        if not arm.startswith(SCALAR):
            continue
        other = CRITIQUE + arm.removeprefix(SCALAR)
        pairs = []
        for seed in pipeline.seeds:
            if seed not in flow.get(arm, {}):
                raise SystemExit(f"no masses of {arm}, seed {seed}: run critique-rl flow first")
            series = flow[arm][seed]
            chance = series.points[0].means(series.families, family)[RIGHT]
            runs = []
            for name in (arm, other):
                runs.append(read_run(compared, folder, name, seed))
            scalar, critique = runs
            if critique.censored:
                raise SystemExit(f"{other}, seed {seed} did not reach the target: no ratio follows")
            pairs.append(Pair(chance, scalar, critique))
        rungs.append(pairs)
    rungs.sort(key=lambda pairs: pairs[0].chance)
    return rungs, compared["target"]


def read_run(compared: dict, folder: PipelineFolder, arm: str, seed: int) -> Run:
    """Tokens to the target, or all that were spent."""
    reached = compared["arms"][arm]["to_target"]["per_seed"][str(seed)]
    points = curve(steps(folder.run(arm, seed)), f"eval/{compared['primary']}", SPENT)
    if reached is not None:
        return Run(reached, False, points)
    evaluation = json.loads(folder.run(arm, seed).evaluation.read_text())
    return Run(evaluation["cost"]["generated_tokens"], True, points)


# ---- the line ------------------------------------------------------------------------------------


def fit(pairs: Sequence[Pair]) -> Line:
    """Maximum likelihood; a censored ratio counts with the chance of being larger."""
    x = np.log10([pair.chance for pair in pairs])
    y = np.array([pair.log_ratio for pair in pairs])
    censored = np.array([pair.scalar.censored for pair in pairs])

    def loss(slope: float, crossing: float, log_scale: float) -> float:
        scale = math.exp(log_scale)
        residual = (y - slope * (x - crossing)) / scale
        seen = stats.norm.logpdf(residual) - log_scale
        larger = stats.norm.logsf(residual)
        return -np.where(censored, larger, seen).sum()

    start = np.array([-0.2, -1.0, math.log(0.2)])
    best = minimum(lambda values: loss(*values), start)
    slope, crossing, log_scale = best.x
    allowed = best.fun + stats.chi2.ppf(0.95, 1) / 2

    def of_slope(value: float) -> float:
        return minimum(lambda rest: loss(value, *rest), best.x[1:]).fun - allowed

    def of_crossing(value: float) -> float:
        rest = np.array([slope, log_scale])
        return minimum(lambda rest: loss(rest[0], value, rest[1]), rest).fun - allowed

    return Line(slope, ends(of_slope, slope), crossing, ends(of_crossing, crossing))


def minimum(loss: Callable, start: np.ndarray):
    """The minimum of a smooth function of few values."""
    options = {"maxiter": 10_000, "xatol": 1e-8, "fatol": 1e-10}
    return optimize.minimize(loss, start, method="Nelder-Mead", options=options)


def ends(excess: Callable[[float], float], middle: float) -> tuple[float, float]:
    """Where a function that is negative at `middle` crosses 0 on either side."""
    found = []
    for direction in (-1.0, 1.0):
        step = 0.05
        while excess(middle + direction * step) < 0:
            step *= 1.5
        end = optimize.brentq(excess, middle, middle + direction * step, xtol=1e-4)
        found.append(end)
    return found[0], found[1]


# ---- table and figure ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Ratio:
    """Of one rung."""

    chance: float
    mean: float
    """Geometric mean; where a scalar run is censored, of the least ratios."""
    ci95: tuple[float, float] | None
    censored: int


def ratio_of(pairs: Sequence[Pair]) -> Ratio:
    """Geometric mean over seeds, and its interval where every run reached the target."""
    censored = sum(pair.scalar.censored for pair in pairs)
    logs = np.array([[pair.log_ratio] for pair in pairs])
    interval = crossed_interval(logs)
    ci95 = None
    if not censored:
        ci95 = (10**interval.low, 10**interval.high)
    return Ratio(pairs[0].chance, 10**interval.mean, ci95, censored)


def tokens_of(runs: Sequence[Run]) -> str:
    """Tokens of each seed in thousands, with > where they are censored."""
    words = []
    for run in runs:
        sign = ">" if run.censored else ""
        words.append(f"{sign}{run.tokens / 1000:.0f}")
    return ", ".join(words)


def print_table(rungs: Sequence[Sequence[Pair]], target: float, line: Line) -> None:
    """A Markdown table, and the line in words."""
    print(f"Generated tokens (thousands, per seed) until {target:g}:\n")
    print("| the base's chance | scalar | critique | ratio | 95% interval |")
    print("|---|---|---|---|---|")
    for pairs in rungs:
        ratio = ratio_of(pairs)
        sign = ">" if ratio.censored else ""
        interval = f"- ({ratio.censored} of {len(pairs)} censored)"
        if ratio.ci95:
            interval = "[{:.2g}, {:.2g}]".format(*ratio.ci95)
        scalar = tokens_of([pair.scalar for pair in pairs])
        critique = tokens_of([pair.critique for pair in pairs])
        cells = [f"{ratio.chance:.1e}", scalar, critique, f"{sign}{ratio.mean:.2g}", interval]
        print("| " + " | ".join(cells) + " |")
    low, high = line.slope95
    print(
        f"\nThe ratio goes with the chance to the power {line.slope:.2f} [{low:.2f}, {high:.2f}]."
    )
    low, high = (10**end for end in line.crossing95)
    print(f"It is 1 at a chance of {10**line.crossing:.2g} [{low:.2g}, {high:.2g}].")


def print_readings(rungs: Sequence[Sequence[Pair]], unit: float) -> None:
    """The scalar arm at 1, 4 and 16 times the unit, seed by seed."""
    print(f"\nThe scalar arm on its way (1x is {unit:,.0f} generated tokens), per seed:\n")
    print("| the base's chance | 1x | 4x | 16x | highest, at thousands of tokens |")
    print("|---|---|---|---|---|")
    for pairs in rungs:
        cells = [f"{pairs[0].chance:.1e}"]
        for times in (1, 4, 16):
            cells.append(", ".join(pair.scalar.at(times * unit) for pair in pairs))
        highest = []
        for pair in pairs:
            x, y = pair.scalar.curve
            place = int(y.argmax())
            highest.append(f"{y[place]:.2f} at {x[place] / 1000:.0f}")
        cells.append(", ".join(highest))
        print("| " + " | ".join(cells) + " |")


def draw(rungs: Sequence[Sequence[Pair]], line: Line, path: Path) -> None:
    """The curve with intervals, censored runs as arrows, and the crossing point."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the file is the same each time.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "ladder"})
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.5, 4.2), layout="constrained")
    axes.axhline(1, color="#888", linewidth=0.8)
    grey = {"color": "#666", "markersize": 5, "markerfacecolor": "white", "linestyle": "none"}
    blue = {"color": "#0b5cad", "markersize": 6, "linestyle": "none"}
    for pairs in rungs:
        for pair in pairs:
            marker = "^" if pair.scalar.censored else "o"
            axes.plot(pair.chance, 10**pair.log_ratio, marker, **grey)
        ratio = ratio_of(pairs)
        if ratio.ci95:
            axes.vlines(ratio.chance, *ratio.ci95, color=blue["color"], linewidth=2)
            axes.plot(ratio.chance, ratio.mean, "s", **blue)
    for marker, style, words in (
        ("o", grey, "one seed"),
        ("^", grey, "one seed, or more: the scalar arm never got there"),
        ("s", blue, "mean of seeds, 95% interval"),
    ):
        axes.plot([], [], marker, **style, label=words)
    draw_line(axes, rungs, line)
    axes.legend(frameon=False, fontsize=9)
    crossing95 = [10**end for end in line.crossing95]
    axes.hlines(1, *crossing95, color="#b3261e", linewidth=3)
    axes.plot(10**line.crossing, 1, "D", color="#b3261e", markersize=7)
    axes.annotate(
        f"equal at a chance of {10**line.crossing:.2g}",
        (10**line.crossing, 1),
        xytext=(-8, -22),
        textcoords="offset points",
        ha="right",
        color="#b3261e",
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="the base's chance of a right completion (mean over problems)",
        ylabel="tokens to target: scalar / critique",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def draw_line(axes, rungs: Sequence[Sequence[Pair]], line: Line) -> None:
    """The fitted line: dashed where every scalar run is censored, and nothing but its slope says
    how far up it goes.
    """
    seen = []
    for pairs in rungs:
        if not all(pair.scalar.censored for pair in pairs):
            seen.append(math.log10(pairs[0].chance))
    lowest = math.log10(rungs[0][0].chance) - 0.3
    highest = max(seen[-1], line.crossing) + 0.3
    for start, end, style in ((lowest, seen[0], "--"), (seen[0], highest, "-")):
        heights = [line.ratio_at(place) for place in (start, end)]
        axes.plot([10**start, 10**end], heights, style, color="#0b5cad", linewidth=1)


def main() -> None:
    """Print the table, and draw the figure where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("pipeline", help="a YAML file with arms scalar-<rung>, critique-<rung>")
    parser.add_argument("--out", default="runs", help="where its results are (default: runs)")
    parser.add_argument("--unit", type=float, default=60_000, help="tokens of 1x (default: 60000)")
    parser.add_argument("--svg", type=Path, help="also draw the curve here")
    given = parser.parse_args()
    rungs, target = read_rungs(given.pipeline, given.out)
    pairs = []
    for of_rung in rungs:
        pairs += of_rung
    line = fit(pairs)
    print_table(rungs, target, line)
    print_readings(rungs, given.unit)
    if given.svg:
        draw(rungs, line, given.svg)


if __name__ == "__main__":
    main()
