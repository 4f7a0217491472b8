"""What is left of a gain at a share of the critic's tokens, and what a newly solved problem costs.

    critique-rl run pipelines/frontier.yaml --jobs 2
    python pipelines/frontier_curve.py pipelines/frontier.yaml --svg runs/results/frontier.svg

Arms with one `critic:` section are one critic at several shares (`critique_share`); its *full* arm
is the one with the share 1. Three things are read from the evaluations, once all runs have one:

- Critic tokens of each arm and its critic's dollars, as shares of its full arm's, and the primary
  metric minus the control's.
- The same metric minus the full arm's, by two one-sided tests (Schuirmann 1987): equal if the 90 %
  interval lies within the margin, different if the 95 % interval lies outside.
- The metric of what the rule chose minus that of what lots drew, at each share that has both.
- Newly solved problems: those with a right sample that had none before training, over all families.
  Dollars are those of policy and critic together.

A critic's quality is the share of its full arm's refinements that were right, which grows as the
policy learns to refine on its own; `--rescues` takes what `critique-rl critics` measures before.
The figure needs matplotlib, which the extra tasks installs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from critique_rl.analysis.claims.claim import Finding, Test, judge
from critique_rl.analysis.claims.rules import (
    EQUIVALENCE_LEVEL,
    REFUTED,
    REPRODUCED,
    UNDECIDED,
    WITHIN,
)
from critique_rl.analysis.compare import compare, read_runs
from critique_rl.analysis.comparison import Comparison, Difference
from critique_rl.analysis.evaluations import ArmRuns
from critique_rl.analysis.metric_intervals import arm_contrast
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import EVALUATE, read_json
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import RunConfig

MARGIN = 0.05
"""Largest difference of the primary metric that counts as none."""
VERDICTS = {REPRODUCED: "equal", REFUTED: "different", UNDECIDED: "undecided"}
RULES = {"ranked": "o", "random": "s", "reuse": "^", "full": "D"}
"""How failures are chosen -> marker."""
LINE = ("ranked", "full")
"""Those that a line goes through."""
COLOURS = ("#0b5cad", "#b3261e", "#2e7d32")
"""One per critic."""


@dataclass(frozen=True)
class Arm:
    """One arm with a critic."""

    name: str
    full: str
    """The arm of the same critic that is asked about every failure."""
    rule: str
    """Of `RULES`."""
    token_share: float
    """Critic tokens over those of the full arm."""
    usd_share: float | None
    """The same of the critic's dollars; None where it has no prices."""
    critic_tokens: float
    """Mean over runs."""
    gain: Difference
    """The primary metric minus the control's."""
    to_full: Finding | None
    """The primary metric minus the full arm's; None for that arm itself."""
    narrow: tuple[float, float] | None
    """90% interval of the same."""


@dataclass(frozen=True)
class Choice:
    """What the rule chose minus what was drawn by lot, of one critic at one share."""

    ranked: str
    random: str
    difference: Finding


@dataclass(frozen=True)
class Price:
    """What a newly solved problem costs in one arm, as means over runs; None: none was solved."""

    name: str
    solved: float
    critic_tokens: float | None
    usd: float | None


def choice_of(config: RunConfig) -> tuple[float, str]:
    """The share of failures that the critic is asked about, and the rule of the choice."""
    share = float(config.method.get("critique_share", 1.0))
    if config.method.get("critique_reuse"):
        return share, "reuse"
    if share == 1:
        return share, "full"
    explore = float(config.method.get("critique_explore", 0.0))
    return share, "random" if explore == 1 else "ranked"


def full_arms(arms: dict[str, RunConfig]) -> dict[str, str]:
    """Arm with a critic -> the arm that asks the same critic about every failure.

    Raises:
        SystemExit: a critic has no such arm.
    """
    full_by_critic = {}
    for name, config in arms.items():
        _, rule = choice_of(config)
        if rule == "full":
            full_by_critic.setdefault(json.dumps(config.critic, sort_keys=True), name)
    full_of = {}
    for name, config in arms.items():
        if config.critic["kind"] == "none":
            continue
        critic = json.dumps(config.critic, sort_keys=True)
        if critic not in full_by_critic:
            raise SystemExit(f"{name}: no arm asks its critic about all failures; add one")
        full_of[name] = full_by_critic[critic]
    return full_of


def read_arms(
    pipeline_file: str, out: str, margin: float
) -> tuple[list[Arm], list[Choice], Comparison]:
    """The arms with critics, choices by rule and by lot, and what was compared.

    Raises:
        ConfigError: the pipeline, or a run, cannot be read.
        SystemExit: a run is missing, or a full arm asked the critic about nothing.
    """
    pipeline = load_pipeline(Path(pipeline_file))
    folder = PipelineFolder(Path(out) / pipeline.name)
    names = list(pipeline.arms)
    runs = read_runs(folder, pipeline.control, names, pipeline.seeds).runs
    wanted = len(names) * len(pipeline.seeds)
    left_out = wanted - sum(len(runs.get(name, {})) for name in names)
    if left_out:
        raise SystemExit(
            f"{folder.path}: {left_out} of {wanted} runs are missing or not comparable, which "
            f"would mix seeds; critique-rl run {pipeline_file}"
        )
    compared = compare(
        folder, pipeline.control, pipeline.primary, names, list(pipeline.seeds), pipeline.target
    )
    gains = {}
    for difference in compared.comparisons:
        if difference.metric == compared.primary:
            gains[difference.arm] = difference
    arms = []
    usd = {}
    for name, config in pipeline.arms.items():
        usd[name] = critic_usd(folder, name, pipeline.seeds, config)
    for name, full in full_arms(dict(pipeline.arms)).items():
        if name not in gains or full not in compared.arms:
            raise SystemExit(f"{name}: not compared with {pipeline.control} yet; train it first")
        tokens = compared.arms[name].cost.critic_tokens
        full_tokens = compared.arms[full].cost.critic_tokens
        if not full_tokens:
            raise SystemExit(f"{full}: its critic has no tokens, so no share of them follows")
        _, rule = choice_of(pipeline.arms[name])
        to_full = narrow = None
        if name != full:
            to_full = _minus(name, full, compared.primary, margin, runs)
            narrow = _narrow(name, full, compared.primary, runs)
        share = tokens / full_tokens
        usd_share = usd[name] / usd[full] if usd[full] else None
        arms.append(Arm(name, full, rule, share, usd_share, tokens, gains[name], to_full, narrow))
    choices = []
    for ranked, random in choices_of(dict(pipeline.arms)):
        difference = _minus(ranked, random, compared.primary, margin, runs)
        choices.append(Choice(ranked, random, difference))
    return arms, choices, compared


def critic_usd(folder: PipelineFolder, name: str, seeds: Sequence[int], config: RunConfig) -> float:
    """Dollars of an arm's critic, a mean over runs: its tokens at the prices of its section."""
    prompt_price = float(config.critic.get("prompt_price") or 0)
    completion_price = float(config.critic.get("completion_price") or 0)
    usd = []
    for seed in seeds:
        tokens = read_json(folder.run(name, seed).evaluation, EVALUATE)["cost"].get("tokens", {})
        read = tokens.get("critic_prompt", 0) * prompt_price
        written = tokens.get("critic_completion", 0) * completion_price
        usd.append((read + written) / 1_000_000)
    return sum(usd) / len(usd)


def choices_of(arms: dict[str, RunConfig]) -> list[tuple[str, str]]:
    """Arms of one critic and share: that of the rule, and that of lots."""
    pairs = []
    for ranked, config in arms.items():
        share, rule = choice_of(config)
        if rule != "ranked" or config.critic["kind"] == "none":
            continue
        for random, other in arms.items():
            if choice_of(other) == (share, "random") and other.critic == config.critic:
                pairs.append((ranked, random))
    return pairs


def _minus(name: str, full: str, metric: str, margin: float, runs: ArmRuns) -> Finding:
    test = Test(metric=metric, contrast={name: 1, full: -1}, bound=WITHIN, number=margin)
    return judge(test, runs, None)


def _narrow(name: str, full: str, metric: str, runs: ArmRuns) -> tuple[float, float] | None:
    seeds = sorted(set(runs[name]) & set(runs[full]))
    evaluations = [[runs[arm][seed] for seed in seeds] for arm in (name, full)]
    contrast = arm_contrast(evaluations, (1, -1), metric, EQUIVALENCE_LEVEL)
    if contrast is None:
        return None
    return contrast.interval.low, contrast.interval.high


def prices_of(arms: Sequence[str], compared: Comparison) -> list[Price]:
    """What a newly solved problem costs in each arm.

    Raises:
        SystemExit: the policy before training was not evaluated.
    """
    if compared.boundary is None:
        raise SystemExit("no evaluation of the policy before training: which problems are new?")
    listed = []
    for name in arms:
        solved = compared.boundary[name].solved
        cost = compared.arms[name].cost
        if solved:
            listed.append(Price(name, solved, cost.critic_tokens / solved, cost.usd / solved))
        else:
            listed.append(Price(name, solved, None, None))
    return listed


# ---- tables and figure ---------------------------------------------------------------------------


def signed(value: float, ends: tuple[float, float] | None) -> str:
    """ "+.123 [+.052, +.194]"."""
    words = f"{value:+.3f}"
    if ends is not None:
        words += f" [{ends[0]:+.3f}, {ends[1]:+.3f}]"
    return words


def print_frontier(arms: Sequence[Arm], compared: Comparison, margin: float) -> None:
    """A Markdown table: tokens and gain of each arm, and whether it is equal to its full arm."""
    print(f"{compared.primary}, equal within {margin:g}:\n")
    print(
        "| arm | critic tokens | of the full arm's | of its dollars | "
        f"minus {compared.control}, 95 % | minus the full arm, 90 % | |"
    )
    print("|---|---|---|---|---|---|---|")
    for arm in arms:
        gain = signed(arm.gain.difference, arm.gain.ci95)
        dollars = "" if arm.usd_share is None else f"{arm.usd_share:.3f}"
        cells = [arm.name, f"{arm.critic_tokens:,.0f}", f"{arm.token_share:.3f}", dollars, gain]
        if arm.to_full is None or arm.to_full.interval is None:
            cells += ["", ""]
        else:
            verdict = VERDICTS.get(arm.to_full.verdict, arm.to_full.verdict)
            cells += [signed(arm.to_full.interval.mean, arm.narrow), verdict]
        print("| " + " | ".join(cells) + " |")


def print_choices(choices: Sequence[Choice]) -> None:
    """A Markdown table: arms of the rule minus arms of lots, if there are any."""
    if not choices:
        return
    print("\n| chosen by the rule, minus by lot | difference, 95 % |")
    print("|---|---|")
    for choice in choices:
        interval = choice.difference.interval
        words = "-"
        if interval is not None:
            words = signed(interval.mean, (interval.low, interval.high))
        print(f"| {choice.ranked} - {choice.random} | {words} |")


def print_prices(
    listed: Sequence[Price], arms: Sequence[Arm], rescues: Mapping[str, float]
) -> None:
    """A Markdown table: what a newly solved problem costs, by arm and critic."""
    print("\n| arm | its critic rescues | newly solved | critic tokens each | dollars each |")
    print("|---|---|---|---|---|")
    full = {arm.name: arm.full for arm in arms}
    for price in listed:
        rescue = rescues.get(full.get(price.name, ""))
        quality = "" if rescue is None else f"{rescue:.2f}"
        cells = [price.name, quality, f"{price.solved:.1f}"]
        for value, form in ((price.critic_tokens, ",.0f"), (price.usd, ".4f")):
            cells.append("-" if value is None else format(value, form))
        print("| " + " | ".join(cells) + " |")


def rescue_rates(
    arms: Sequence[Arm], compared: Comparison, given: Sequence[str]
) -> dict[str, float]:
    """The quality of each critic, by its full arm: as given, else right refinements of that arm.

    Raises:
        SystemExit: what was given is no such arm, or no share.
    """
    rates = {}
    for full in {arm.full for arm in arms}:
        counts = compared.arms[full].critiques
        if counts is not None:
            rates[full] = counts.shares[0]
    for words in given:
        full, _, number = words.partition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = math.nan
        if full not in {arm.full for arm in arms} or not 0 <= rate <= 1:
            raise SystemExit(f"--rescues: got {words}, expected a full arm and a share: full=0.87")
        rates[full] = rate
    return rates


def draw(
    arms: Sequence[Arm],
    listed: Sequence[Price],
    rescues: Mapping[str, float],
    compared: Comparison,
    margin: float,
    path: Path,
) -> None:
    """Gain against the share of critic tokens, beside dollars and tokens per newly solved problem,
    a colour per critic.
    """
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the file is the same each time.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "frontier"})
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(11, 4.2), layout="constrained", width_ratios=(2, 1, 1)
    )
    critics = list(dict.fromkeys(arm.full for arm in arms))
    colours = {full: COLOURS[i % len(COLOURS)] for i, full in enumerate(critics)}
    draw_gains(left, arms, colours, rescues, compared, margin)
    rules = {arm.name: (arm.rule, colours[arm.full]) for arm in arms}
    dollars = {price.name: price.usd for price in listed}
    tokens = {price.name: price.critic_tokens for price in listed}
    draw_prices(middle, dollars, rules, "dollars per newly\nsolved problem")
    draw_prices(right, tokens, rules, "critic tokens per newly\nsolved problem")
    right.set_yticklabels([])
    for axes in (left, middle, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def draw_gains(
    axes,
    arms: Sequence[Arm],
    colours: dict[str, str],
    rescues: Mapping[str, float],
    compared: Comparison,
    margin: float,
) -> None:
    """A marker with its interval per arm, a line through what the rule chose, and around each full
    arm the band in which an arm would count as equal to it.
    """
    for full, colour in colours.items():
        chosen = [arm for arm in arms if arm.full == full]
        for arm in chosen:
            gain = arm.gain
            # Beside the arm of the rule, which has as many tokens.
            at = arm.token_share * (1.06 if arm.rule == "random" else 1)
            if gain.ci95 is not None:
                axes.vlines(at, *gain.ci95, color=colour, linewidth=1)
            axes.plot(at, gain.difference, RULES[arm.rule], **marker_style(arm.rule, colour))
            if arm.name == full:
                band = (gain.difference - margin, gain.difference + margin)
                axes.axhspan(*band, color=colour, alpha=0.1, linewidth=0)
        line = sorted((arm.token_share, arm.gain.difference) for arm in chosen if arm.rule in LINE)
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=0.8)
        rescue = rescues.get(full)
        quality = "" if rescue is None else f": rescues {rescue:.2f}"
        axes.plot([], [], "D", color=colour, label=f"{full}{quality}")
    style = {"color": "#444", "linestyle": "none"}
    axes.plot([], [], RULES["ranked"], **style, label="chosen by the rule")
    axes.plot([], [], RULES["random"], **style, markerfacecolor="white", label="chosen by lot")
    axes.plot([], [], RULES["reuse"], **style, label="by the rule, copies of a text asked once")
    axes.axhline(0, color="#888", linewidth=0.8)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    axes.set(
        xscale="log",
        xlabel="critic tokens, as a share of the full arm's",
        ylabel=f"{compared.primary} minus {compared.control}",
    )
    ticks = (0.05, 0.1, 0.25, 0.5, 1)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def draw_prices(
    axes, prices: Mapping[str, float | None], rules: Mapping[str, tuple[str, str]], words: str
) -> None:
    """A marker per arm on a scale of powers of ten; none where it is 0 or no problem was solved."""
    from matplotlib import ticker

    names = list(prices)
    for place, name in enumerate(names):
        rule, colour = rules.get(name, ("full", "#666"))
        if prices[name]:
            axes.plot(prices[name], place, RULES[rule], **marker_style(rule, colour))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set(xscale="log", xlabel=words)
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.minorticks_off()
    axes.grid(axis="y", color="#eee")


def marker_style(rule: str, colour: str) -> dict[str, str]:
    """Hollow for a choice by lot."""
    return {
        "color": colour,
        "markerfacecolor": "white" if rule == "random" else colour,
        "linestyle": "none",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pipeline", nargs="?", default="pipelines/frontier.yaml")
    parser.add_argument("--out", default="runs")
    parser.add_argument("--margin", type=float, default=MARGIN, help="default: .05")
    parser.add_argument(
        "--rescues",
        nargs="*",
        default=[],
        metavar="ARM=SHARE",
        help="rescue rates of critics before training, by their full arms",
    )
    parser.add_argument("--svg", help="write the figure here")
    options = parser.parse_args()
    if not 0 < options.margin < math.inf:
        parser.error(f"--margin: got {options.margin:g}, expected a number above 0")
    try:
        arms, choices, compared = read_arms(options.pipeline, options.out, options.margin)
    except ConfigError as error:
        raise SystemExit(str(error)) from error
    names = [name for name in compared.arms if name in (compared.boundary or {})]
    listed = prices_of(names, compared)
    rescues = rescue_rates(arms, compared, options.rescues)
    print_frontier(arms, compared, options.margin)
    print_choices(choices)
    print_prices(listed, arms, rescues)
    if options.svg:
        svg = Path(options.svg)
        svg.parent.mkdir(parents=True, exist_ok=True)
        draw(arms, listed, rescues, compared, options.margin, svg)


if __name__ == "__main__":
    main()
