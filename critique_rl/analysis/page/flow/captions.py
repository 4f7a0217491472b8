"""Captions of the figures: each alone tells a stranger what is drawn and how it was measured."""

from __future__ import annotations

from collections.abc import Sequence

from critique_rl.analysis.evaluations import ALL_FAMILIES
from critique_rl.analysis.flow.classes import BASE_WRONG, REST, RIGHT
from critique_rl.analysis.flow.series import FEWEST_EFFECTIVE, Flow, Series
from critique_rl.analysis.flow.trajectories import Trajectories, Trajectory

FEW_PANELS = 4
"""Panels up to which the caption also tells each one's change."""
LISTED = (
    "Each of the policy's completions of a held-out problem belongs to one of five classes. From "
    "the bottom: right; the base's own wrong answers, which are those among {samples} samples of "
    "the policy before training; near misses{near_miss}; other wrong answers that the task lists; "
    "the rest, which no list names."
)
ESTIMATED = (
    "Each of the policy's completions of a held-out problem belongs to one of five classes. From "
    "the bottom: right; wrong with an answer that the policy before training gave among {samples} "
    "samples, the base's own wrong answers; near misses{near_miss}; wrong with any other "
    "answer; the rest, which has no answer that can be read."
)
STACKED = (
    "The areas are the probability of each class, over the tokens generated in training. They are "
    "stacked and add up to 1. At 0 stands the policy before training, and the numbers on the right "
    "are the masses at the end."
)
EXACT = "Masses are exact: the probabilities of all listed completions are summed."
WEIGHTED = (
    "Masses are estimates from samples with importance weights. Where a problem has fewer than "
    f"{FEWEST_EFFECTIVE} effective samples, the panel says “cannot show”. Only those wrong answers "
    "of the policy before training are known that its samples hold. The others count as other "
    "answers after training: that class looks too large, and the base's own too small."
)
ARROWS = (
    "Each arrow is one held-out problem, from the policy before training (its tail) to the end. "
    "To the right: the mass of the base's own wrong answers. Upwards: the mass of right ones. "
    "Both add up to at most 1, so no arrow crosses the diagonal. An arrow along the diagonal "
    "moved mass from the error to the right answer. One along the floor moved it from the error "
    "to something else. A dot is a problem that hardly moved."
)
BARS = (
    "Each bar is one term of the loss: how much its share of an update changed the log of a "
    "class's mass, in nats, to first order. Bars to the right raise the class, bars to the left "
    "lower it. A log tells of ratios alone: a mass of 1e-9 has as long a bar as one of .1, and "
    "the areas tell how large it is. Bars are means over accounted updates and seeds. A term has a "
    "bar per third of training, and the bars of a third add up to its mean update. All panels of a "
    "class have one scale."
)


def area_caption(flow: Flow, drawn: Trajectories) -> str:
    """The caption of the stacked areas.

    Args:
        flow: Scored series; {} where all masses are from logs.
        drawn: Family -> arm -> what the panels show.
    """
    series = _any_series(flow)
    sentences = [_classes_words(series), STACKED, counts_words(drawn)]
    if series is not None:
        sentences.append(_method_words(series, drawn))
    sentences += _live_words(drawn)
    if len(_all(drawn)) <= FEW_PANELS:
        sentences += _change_words(drawn)
    return " ".join(sentences)


def _change_words(drawn: Trajectories) -> list[str]:
    """A sentence per panel: what became of the base's wrong answers."""
    sentences = []
    for family, arms in drawn.items():
        for arm, trajectory in arms.items():
            if trajectory.shown[-1]:
                first = trajectory.masses[0]
                last = trajectory.masses[-1]
                sentence = (
                    f"{arm} on {family}: the base's own wrong answers went from "
                    f"{first[BASE_WRONG]:z.2f} to {last[BASE_WRONG]:z.2f}, right ones from "
                    f"{first[RIGHT]:z.2f} to {last[RIGHT]:z.2f}."
                )
                sentences.append(sentence)
    return sentences


def _any_series(flow: Flow) -> Series | None:
    for runs in flow.values():
        for series in runs.values():
            return series
    return None


def _classes_words(series: Series | None) -> str:
    if series is None:
        # Masses that are logged while training are of listed completions alone.
        return LISTED.format(samples="the", near_miss="")
    near_miss = ""
    if series.near_miss:
        near_miss = f" ({series.near_miss})"
    if not series.listed:
        near_miss = near_miss or ", which this task does not define"
        return ESTIMATED.format(samples=series.samples, near_miss=near_miss)
    return LISTED.format(samples=series.samples, near_miss=near_miss)


def _method_words(series: Series, drawn: Trajectories) -> str:
    if not series.listed:
        return WEIGHTED
    most = 0.0
    for trajectory in _all(drawn):
        for masses in trajectory.masses:
            most = max(most, masses[REST])
    return f"{EXACT} The rest holds at most {most:.3f} of the probability in any panel."


def _all(drawn: Trajectories) -> list[Trajectory]:
    trajectories: list[Trajectory] = []
    for arms in drawn.values():
        trajectories += arms.values()
    return trajectories


def counts_words(drawn: Trajectories) -> str:
    """How many problems and seeds stand behind the values."""
    problems = []
    for family, arms in drawn.items():
        counts = set()
        for trajectory in arms.values():
            if trajectory.problems is not None:
                counts.add(trajectory.problems)
        if counts:
            problems.append(f"{_range(counts)} of {family}")
    seeds = _range({item.seeds for item in _all(drawn)})
    mean = f"{seeds} seeds"
    if seeds == "1":
        mean = "a single seed"
    if problems:
        return f"Values are means over held-out problems ({', '.join(problems)}) and {mean}."
    return f"Values are means over held-out problems and {mean}."


def _range(numbers: set[int]) -> str:
    low = min(numbers)
    high = max(numbers)
    if low == high:
        return str(low)
    return f"{low} to {high}"


def _live_words(drawn: Trajectories) -> list[str]:
    live: dict[str, None] = {}
    for arms in drawn.values():
        for arm, trajectory in arms.items():
            if trajectory.live:
                live[arm] = None
    if not live:
        return []
    sentence = (
        f"Drawn from what was logged while training: {', '.join(live)}. There fewer completions "
        "are listed per problem, so the rest is larger. Their first point is not the base."
    )
    return [sentence]


def bar_caption(accounted: Sequence[str]) -> str:
    """The caption of the bars.

    Args:
        accounted: What the runs' `flow.account` says: families, or "all".
    """
    families = []
    for name in dict.fromkeys(accounted):
        if name == ALL_FAMILIES:
            families.append("all families")
        elif name:
            families.append(name)
    if not families:
        return BARS
    return f"{BARS} Masses are of the held-out problems of {', '.join(families)}."


def arrow_caption(drawn: Trajectories) -> str:
    """The caption of the arrows; argument as above."""
    return f"{ARROWS} {counts_words(drawn)}"


def not_drawn_words(families: Sequence[str]) -> str:
    """The families beyond those of a figure; "" for none."""
    if not families:
        return ""
    return f"Not drawn: {', '.join(families)}."
