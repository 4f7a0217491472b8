"""The methods paragraph: what was compared, how it was trained, judged and analysed.

Every sentence comes from the comparison or from its `Setup`. What neither holds is left out, or is
said to be unknown where a reader would ask. Left out: whether something was decided before the
runs, for no run folder can show that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from critique_rl.analysis.comparison import Comparison, Sweep, SweepArm
from critique_rl.analysis.evaluations import ALL_FAMILIES, METRIC
from critique_rl.analysis.formats import plural, short, two_decimals
from critique_rl.analysis.page.reader_warnings import accepted_sentences
from critique_rl.analysis.paper.setup import ArmSetup, EvaluationSetup, Setting, Setup
from critique_rl.analysis.paper.tables import latex_notes
from critique_rl.analysis.paper.words import listed, lost_arms
from critique_rl.analysis.table import escape_latex, escape_markdown
from critique_rl.analysis.verdict import verdict
from critique_rl.metrics import EVALUATION_METRICS

MINUS = re.compile(r"(?<![\w.])-(?=\d)")
"""The sign of a negative number in a sentence."""


def methods_sentences(comparison: Comparison, setup: Setup) -> list[str]:
    """The paragraph, sentence by sentence, in plain text."""
    return [
        *_arms(comparison),
        *_task(setup),
        *_methods_of_arms(comparison, setup),
        *_training(comparison, setup),
        *_sweep(comparison.sweep, setup.tuning),
        *_evaluation(comparison, setup),
        *_intervals(comparison, setup),
        *_versions(setup),
        f"Result: {verdict(comparison)}",
        *_exceptions(comparison),
        *setup.notes,
    ]


def methods_latex(comparison: Comparison, setup: Setup) -> str:
    """The paragraph in LaTeX, a sentence per line."""
    lines = []
    for sentence in methods_sentences(comparison, setup):
        escaped = escape_latex(sentence)
        lines.append(MINUS.sub("$-$", escaped))
    text = "\n".join(lines) + "\n"
    return latex_notes(text, ("fontenc",)) + text


def methods_markdown(comparison: Comparison, setup: Setup) -> str:
    """The paragraph in Markdown, a sentence per line."""
    lines = [escape_markdown(sentence) for sentence in methods_sentences(comparison, setup)]
    return "\n".join(lines) + "\n"


# ---- arms, task, methods -------------------------------------------------------------------------


def _arms(comparison: Comparison) -> list[str]:
    arms = [*comparison.arms, *lost_arms(comparison)]
    return [
        f"We compare {plural(len(arms), 'arm')} ({listed(arms)}).",
        f"The control is {comparison.control}, and the primary metric is {comparison.primary}.",
    ]


def _task(setup: Setup) -> list[str]:
    task = "The task is not recorded."
    if setup.task:
        task = f"The task is {setup.task}."
    policy = "The policy before training is not recorded."
    if setup.policy:
        policy = f"Training starts from the policy {setup.policy}."
    return [task, policy]


def _methods_of_arms(comparison: Comparison, setup: Setup) -> list[str]:
    sentences = []
    alike: dict[ArmSetup, list[str]] = {}
    unknown = []
    for arm in [*comparison.arms, *lost_arms(comparison)]:
        if arm in setup.arms:
            alike.setdefault(setup.arms[arm], []).append(arm)
        else:
            unknown.append(arm)
    for method, arms in alike.items():
        sentences += _method(method, arms)
    if unknown:
        sentences.append(f"The training method is not recorded of: {listed(unknown)}.")
    return sentences


def _method(method: ArmSetup, arms: Sequence[str]) -> list[str]:
    name = f"Arm {arms[0]} uses"
    if len(arms) > 1:
        name = f"Arms {listed(arms)} use"
    if not method.preset:
        return [f"{name} no preset of a published method."]
    if not method.source:
        return [f"{name} the preset {method.preset}, whose source is not known."]
    sentences = [f"{name} the preset {method.preset}. Its source: {method.source}."]
    if method.differences:
        sentences.append(f"Stated differences of {method.preset}: {method.differences}")
    if method.changed_since:
        sentences.append(
            f"The options of {method.preset} have changed since these runs, so its source and "
            "differences may be other ones."
        )
    if method.deviates:
        settings = "; ".join(method.deviates)
        sentences.append(f"Settings that replace those of {method.preset}: {settings}.")
    return sentences


# ---- training ------------------------------------------------------------------------------------


def _training(comparison: Comparison, setup: Setup) -> list[str]:
    sentences = []
    if setup.shared:
        sentences.append(f"All arms share these settings: {_settings(setup.shared)}.")
    if setup.differing:
        sentences.append(f"These settings differ between arms: {'; '.join(setup.differing)}.")
    sentences += setup.uneven
    sentences.append(_seeds(comparison))
    sentences.append(setup.budget or "The budget of a run is not recorded.")
    spent = _spending(comparison)
    if spent:
        sentences.append(spent)
    return sentences


def _settings(settings: Iterable[Setting]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings)


def _seeds(comparison: Comparison) -> str:
    seeds = ", ".join(str(seed) for seed in comparison.seeds)
    if len(comparison.seeds) == 1:
        return f"There is one training seed ({seeds})."
    return f"There are {len(comparison.seeds)} training seeds ({seeds})."


def _spending(comparison: Comparison) -> str:
    """Mean spending of a run per arm, of what was counted at all."""
    parts = []
    for arm, summary in comparison.arms.items():
        cost = summary.cost
        amounts = []
        for amount, unit in (
            (cost.generated_tokens, "generated tokens"),
            (cost.total_tokens, "tokens in all"),
            (cost.critic_tokens, "critic tokens"),
        ):
            if amount > 0:
                amounts.append(f"{short(amount)} {unit}")
        if cost.usd > 0:
            amounts.append(f"{cost.usd:.2f} US dollars")
        if amounts:
            parts.append(f"{arm} {', '.join(amounts)}")
    if not parts:
        return ""
    return f"Mean spending per run: {'; '.join(parts)}."


def _sweep(sweep: Sweep | None, tuning: str) -> list[str]:
    if sweep is None and tuning:
        return [tuning]
    if sweep is None:
        return ["No search over settings is recorded; tuning by hand would leave no trace."]
    trial = []
    if sweep.seeds:
        seeds = ", ".join(str(seed) for seed in sweep.seeds)
        trial.append(f"seeds {seeds}")
    if sweep.budget_share is not None:
        trial.append(f"{sweep.budget_share:.0%} of the budget")
    by = f"{sweep.metric} on validation problems"
    sentences = [f"Before training, {sweep.key} was chosen for every arm by {by}."]
    if trial:
        sentences.append(f"Each trial had {listed(trial)}.")
    for arm, choice in sweep.arms.items():
        sentences.append(_choice(arm, choice))
    return sentences


def _choice(arm: str, choice: SweepArm) -> str:
    tried = []
    for value, result in choice.tried.items():
        words = "no result" if result is None else two_decimals(result)
        tried.append(f"{value} gave {words}")
    sentence = f"Tried for {arm}: {', '.join(tried)}; chosen: {choice.chosen:g}"
    if choice.at_edge:
        sentence += ", at the end of the list, so a better value may lie beyond it"
    if choice.unstable:
        sentence += f"; unlike seeds at {', '.join(choice.unstable)}"
    return f"{sentence}."


# ---- evaluation ----------------------------------------------------------------------------------


def _evaluation(comparison: Comparison, setup: Setup) -> list[str]:
    sentences = []
    evaluation = setup.evaluation
    if evaluation.families or evaluation.split:
        sentences.append(f"Policies are judged on {_problems(evaluation)}.")
    else:
        sentences.append(setup.judged or "The held-out problems are not recorded.")
    if evaluation.settings:
        sentences.append(f"Evaluations have {_settings(evaluation.settings)}.")
    if setup.curves:
        sentences.append(setup.curves)
    if comparison.second is not None:
        sentences.append(
            f"The same problems were also asked by the template {comparison.second.template}."
        )
    sentences += _lost_answers(comparison)
    return sentences


def _problems(evaluation: EvaluationSetup) -> str:
    counts = []
    for family, count in evaluation.families.items():
        counts.append(f"{count} of family {family}")
    words = plural(sum(evaluation.families.values()), "held-out problem")
    if not counts:
        words = "held-out problems"
    if evaluation.split:
        words += f" of the {evaluation.split} split"
    if counts:
        words += f" ({', '.join(counts)})"
    return words


def _lost_answers(comparison: Comparison) -> list[str]:
    sentences = []
    unscored = {arm: summary.unscored for arm, summary in comparison.arms.items()}
    timeouts = {}
    for arm, summary in comparison.arms.items():
        timeouts[arm] = summary.timeouts or 0
    for counts, words in (
        (unscored, "Answers that could not be judged count neither as right nor as wrong"),
        (timeouts, "Answers that took the verifier too long twice count as wrong"),
    ):
        parts = [f"{arm} {count}" for arm, count in counts.items() if count]
        if parts:
            sentences.append(f"{words}: {', '.join(parts)}.")
    return sentences


# ---- analysis ------------------------------------------------------------------------------------


def _intervals(comparison: Comparison, setup: Setup) -> list[str]:
    sentences = [setup.intervals or default_intervals(comparison)]
    if any(pair.p is not None for pair in comparison.comparisons):
        sentences.append("p-values are of the exact two-sided sign-flip test over seeds.")
    if any(pair.together is not None for pair in comparison.pairs):
        sentences.append(
            "The intervals of all pairs of arms hold at once (max-t, or Bonferroni where pairs "
            "have unlike seeds or problems)."
        )
    if len(comparison.arms) > 2:
        sentences.append("Differences from the control are not corrected for several arms.")
    return sentences


def default_intervals(comparison: Comparison) -> str:
    """How this package makes the intervals of the primary metric, as sentences."""
    primary = comparison.primary
    if primary in EVALUATION_METRICS:
        return "Intervals are 95% t intervals over seeds; differences are paired on seeds."
    if not METRIC.fullmatch(primary):
        return "How intervals were made is not recorded."
    covers = "new problems and new seeds"
    if len(comparison.seeds) == 1:
        covers = "new problems, and say nothing of other seeds"
    sentences = (
        f"Differences are paired on problems and seeds, and 95% intervals cover {covers}. The "
        "variance is that of a crossed model of seeds and problems. Intervals of an arm's share "
        "are exact binomial ones with the effective number of answers (Korn and Graubard 1998). "
        "Those of differences take, at each end, the wider of a t interval and MOVER (Zou and "
        "Donner 2008)."
    )
    if primary.endswith(f"/{ALL_FAMILIES}"):
        sentences += " Families count alike, whatever their number of problems."
    return sentences


def _versions(setup: Setup) -> list[str]:
    sentences = ["Package versions are not recorded."]
    if setup.versions:
        sentences = [f"Package versions: {'; '.join(setup.versions)}."]
    if setup.machines:
        sentences.append(f"Machines: {'; '.join(setup.machines)}.")
    return sentences


def _exceptions(comparison: Comparison) -> list[str]:
    """Runs that are missing or left out, and what changed in the middle of one."""
    sentences = []
    missing: dict[str, list[str]] = {}
    for run in comparison.missing:
        missing.setdefault(run.arm, []).append(str(run.seed))
    if missing:
        parts = []
        for arm, seeds in missing.items():
            noun = "seed" if len(seeds) == 1 else "seeds"
            parts.append(f"{arm} {noun} {', '.join(seeds)}")
        sentences.append(f"Runs without an evaluation, in no number: {'; '.join(parts)}.")
    else:
        sentences.append("No run of these arms and seeds lacks an evaluation.")
    for item, number in _left_out(comparison).items():
        arm, seed, reason = item
        place = arm if seed is None else f"{arm} seed {seed}"
        again = f" ({number} times)" if number > 1 else ""
        sentences.append(f"Left out as incomparable: {place}: {reason}{again}.")
    return [*sentences, *accepted_sentences(comparison)]


def _left_out(comparison: Comparison) -> Mapping[tuple[str, int | None, str], int]:
    items = []
    for item in comparison.incomparable:
        reason = item.reason.rstrip(".")
        items.append((item.arm, item.seed, reason))
    return Counter(items)
