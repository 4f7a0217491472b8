"""How often intervals hold the truth: python tests/benchmarks/interval_coverage.py [--draws 400]

Each line draws seeds and problems anew. The chance of a right answer is a beta variable over
problems (its mean is the rate, its concentration says how alike problems are), a seed moves its
logit by a normal variable, and every problem has 8 answers. *before* is the crossed t interval,
*now* `intervals.share_interval` or `share_contrast_interval`. Behind each coverage stands the mean
width. The parts:

    shares       one arm, rates .001 to .999
    differences  two arms on the same problems, among them changes of a few problems in a hundred
    seeds        a seed takes off with chance .1 or .2; now in two parts: the chance, the level
                 among two seeds or more that took off
    collapses    a seed collapses with chance .1 or .2: likewise, the level of those that did not
    many         3 and 5 seeds on 200, 300 and 600 problems, seeds with a sd of .3
    edges        two seeds, and seeds whose logits differ by .8, at rates .05 and .5
    families     pass@1/all over three families of 60 problems, of one arm and of a difference
    masses       a mass that falls from a base's .99 on 48 problems, as in `critique-rl flow`; exact
    normal       values that are normal over seeds and problems, as in tests/test_metrics.py

The part families takes a fifth of the draws. With 400 draws a coverage of .95 has a standard
error of .011. Two minutes at 400 draws.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.special import expit, logit

from critique_rl.analysis.comparison import Cost
from critique_rl.analysis.evaluations import NO_NOISE, Evaluation, JudgedProblem
from critique_rl.analysis.metric_intervals import arm_contrast
from critique_rl.intervals import (
    Interval,
    crossed_interval,
    share_contrast_interval,
    share_interval,
    split_seeds,
)
from critique_rl.intervals.seeds import TAKE_OFF

ANSWERS = 8
TRUTH_PROBLEMS = 200_000
SEEDS = (3, 5, 10)


@dataclass
class Tally:
    """Intervals of one kind: how many there were, held the truth, and their width."""

    number: int = 0
    held: int = 0
    width: float = 0.0

    def add(self, interval: Interval, truth: float) -> None:
        self.number += 1
        self.held += interval.low <= truth <= interval.high
        self.width += interval.high - interval.low

    def __str__(self) -> str:
        if not self.number:
            return "-"
        return f"{self.held / self.number:.3f} ({self.width / self.number:.3f})"


def over_seeds(logits: np.ndarray, sd: float) -> float:
    """The mean chance over problems and normal seeds, by Gauss-Hermite quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(15)
    parts = [expit(logits + sd * node).mean() for node in nodes]
    return float(np.dot(parts, weights) / weights.sum())


def chances(rng: np.random.Generator, rate: float, concentration: float, number: int) -> np.ndarray:
    """Logits of a right answer of some problems."""
    drawn = np.full(number, rate)
    if math.isfinite(concentration):
        drawn = rng.beta(rate * concentration, (1 - rate) * concentration, number)
    return logit(np.clip(drawn, 1e-12, 1 - 1e-12))


def answers(rng: np.random.Generator, logits_SP: np.ndarray) -> np.ndarray:
    """Shares of right answers."""
    return rng.binomial(ANSWERS, expit(logits_SP)) / ANSWERS


def shares(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    for rate in (0.001, 0.01, 0.1, 0.5, 0.99, 0.999):
        for concentration in (0.2, 2.0, math.inf):
            for sd in (0.0, 0.3):
                truth = over_seeds(chances(rng, rate, concentration, TRUTH_PROBLEMS), sd)
                for seeds in SEEDS:
                    before, now = Tally(), Tally()
                    for _ in range(draws):
                        logits_P = chances(rng, rate, concentration, 100)
                        values_SP = answers(rng, logits_P + sd * rng.normal(size=(seeds, 1)))
                        before.add(crossed_interval(values_SP), truth)
                        now.add(share_interval(values_SP, ANSWERS), truth)
                    words = f"rate {rate:g}, concentration {concentration:g}, seed sd {sd:g}"
                    yield f"{words}, {seeds} seeds", before, now


def differences(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    for rate in (0.0001, 0.01, 0.1, 0.5, 0.97):
        for words, shift, sd_problem, jumps in (
            ("no change", 0.0, 0.0, 0.0),
            ("problems move", 1.0, 1.0, 0.0),
            ("1 % of problems jump to .95", 0.0, 0.0, 0.01),
            ("5 % of problems jump to .95", 0.0, 0.0, 0.05),
        ):

            def moved(
                logits_P: np.ndarray, shift=shift, sd_problem=sd_problem, jumps=jumps
            ) -> np.ndarray:
                number = len(logits_P)
                arm_P = logits_P + shift + sd_problem * rng.normal(size=number)
                return np.where(rng.random(number) < jumps, logit(0.95), arm_P)

            logits_P = chances(rng, rate, 2.0, TRUTH_PROBLEMS)
            truth = over_seeds(moved(logits_P), 0.2) - over_seeds(logits_P, 0.2)
            for seeds in SEEDS:
                before, now = Tally(), Tally()
                for _ in range(draws):
                    logits_P = chances(rng, rate, 2.0, 100)
                    arm_P = moved(logits_P)
                    pair = []
                    for of_arm_P in (arm_P, logits_P):
                        luck_S1 = 0.2 * rng.normal(size=(seeds, 1))
                        pair.append(answers(rng, of_arm_P + luck_S1))
                    before.add(crossed_interval(pair[0] - pair[1]), truth)
                    now.add(share_contrast_interval((1, -1), pair, ANSWERS), truth)
                yield f"control {rate:g}, {words}, {seeds} seeds", before, now


def mixtures(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    low, high, spread = logit(0.02), logit(0.8), 0.3
    problems = rng.normal(size=TRUTH_PROBLEMS)
    level = over_seeds(high + problems, spread)
    start = float(expit(low + problems).mean())
    for chance in (0.1, 0.2):
        for seeds in SEEDS:
            before, of_chance, of_level = Tally(), Tally(), Tally()
            mean = chance * level + (1 - chance) * start
            for _ in range(draws):
                off_S1 = rng.random((seeds, 1)) < chance
                luck_S1 = np.where(off_S1, spread * rng.normal(size=(seeds, 1)), 0.0)
                logits_SP = np.where(off_S1, high, low) + luck_S1 + rng.normal(size=(1, 100))
                values_SP = answers(rng, logits_SP)
                before.add(crossed_interval(values_SP), mean)
                levels_S = values_SP.mean(axis=1)
                risen_SP = values_SP[levels_S >= start + TAKE_OFF]
                among = None
                if len(risen_SP):
                    among = share_interval(risen_SP, ANSWERS)
                split = split_seeds(levels_S.tolist(), start, among)
                of_chance.add(Interval(0.0, *split.share), chance)
                if split.among is not None and split.took_off > 1:
                    of_level.add(split.among, level)
            words = f"a seed takes off with chance {chance:g}, {seeds} seeds"
            yield f"{words}: the chance", before, of_chance
            yield f"{words}: the level ({of_level.number} draws)", Tally(), of_level


def collapses(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    low, high, spread = logit(0.02), logit(0.8), 0.3
    problems = rng.normal(size=TRUTH_PROBLEMS)
    level = over_seeds(high + problems, spread)
    floor = float(expit(low + problems).mean())
    for chance in (0.1, 0.2):
        for seeds in SEEDS:
            before, of_chance, of_level = Tally(), Tally(), Tally()
            mean = chance * floor + (1 - chance) * level
            for _ in range(draws):
                down_S1 = rng.random((seeds, 1)) < chance
                luck_S1 = np.where(down_S1, 0.0, spread * rng.normal(size=(seeds, 1)))
                logits_SP = np.where(down_S1, low, high) + luck_S1 + rng.normal(size=(1, 100))
                values_SP = answers(rng, logits_SP)
                before.add(crossed_interval(values_SP), mean)
                levels_S = values_SP.mean(axis=1)
                kept_SP = values_SP[levels_S > level - TAKE_OFF]
                kept = None
                if len(kept_SP):
                    kept = share_interval(kept_SP, ANSWERS)
                # Seeds of .3 in their logits end up to .1 under their level now and then: only a
                # collapse ends far under it.
                split = split_seeds(levels_S.tolist(), level, None, kept)
                of_chance.add(Interval(0.0, *split.collapse_share), chance)
                if split.kept is not None and seeds - split.collapsed > 1:
                    of_level.add(split.kept, level)
            words = f"a seed collapses with chance {chance:g}, {seeds} seeds"
            yield f"{words}: the chance", before, of_chance
            yield f"{words}: the level ({of_level.number} draws)", Tally(), of_level


def many(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    for problems in (200, 300, 600):
        for rate in (0.15, 0.3, 0.5):
            centre = logit(rate)
            truth = over_seeds(centre + 1.5 * rng.normal(size=TRUTH_PROBLEMS), 0.3)
            for seeds in (3, 5):
                before, now = Tally(), Tally()
                for _ in range(draws):
                    logits_P = centre + 1.5 * rng.normal(size=problems)
                    values_SP = answers(rng, logits_P + 0.3 * rng.normal(size=(seeds, 1)))
                    before.add(crossed_interval(values_SP), truth)
                    now.add(share_interval(values_SP, ANSWERS), truth)
                yield f"{problems} problems, logit {rate:g}, {seeds} seeds", before, now


def masses(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    for rate in (0.02, 0.3, 0.9, 0.985):
        for concentration in (0.2, 2.0):
            before_P = expit(chances(rng, 0.99, 2.0, TRUTH_PROBLEMS))
            truth = before_P.mean() - over_seeds(
                chances(rng, rate, concentration, TRUTH_PROBLEMS), 0.3
            )
            for seeds in SEEDS:
                before, now = Tally(), Tally()
                for _ in range(draws):
                    before_P = expit(chances(rng, 0.99, 2.0, 48))
                    before_SP = np.tile(before_P, (seeds, 1))
                    luck_S1 = 0.3 * rng.normal(size=(seeds, 1))
                    after_SP = expit(chances(rng, rate, concentration, 48) + luck_S1)
                    before.add(crossed_interval(before_SP - after_SP), truth)
                    pair = (before_SP, after_SP)
                    now.add(share_contrast_interval((1, -1), pair, NO_NOISE), truth)
                words = f".99 to {rate:g}, concentration {concentration:g}"
                yield f"{words}, {seeds} seeds", before, now


def normal(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    for sd_seed, sd_problem in ((0.05, 0.02), (0.02, 0.2), (0.001, 0.05)):
        for seeds in SEEDS:
            before, now = Tally(), Tally()
            for _ in range(draws):
                values_SP = 0.5 + sd_seed * rng.normal(size=(seeds, 1))
                values_SP = values_SP + sd_problem * rng.normal(size=(1, 100))
                values_SP = values_SP + 0.05 * rng.normal(size=(seeds, 100))
                values_SP = np.clip(values_SP, 0, 1)
                before.add(crossed_interval(values_SP), 0.5)
                now.add(share_interval(values_SP, ANSWERS), 0.5)
            yield (
                f"normal, seed sd {sd_seed:g}, problem sd {sd_problem:g}, {seeds} seeds",
                before,
                now,
            )


def edges(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    for seeds, sd in ((2, 0.1), (2, 0.3), (2, 0.6), (3, 0.8), (5, 0.8), (10, 0.8)):
        for rate in (0.05, 0.5):
            truth = over_seeds(chances(rng, rate, 20.0, TRUTH_PROBLEMS), sd)
            before, now = Tally(), Tally()
            for _ in range(draws):
                logits_P = chances(rng, rate, 20.0, 100)
                values_SP = answers(rng, logits_P + sd * rng.normal(size=(seeds, 1)))
                before.add(crossed_interval(values_SP), truth)
                now.add(share_interval(values_SP, ANSWERS), truth)
            yield f"{seeds} seeds, seed sd {sd:g}, rate {rate:g}", before, now


def families(rng: np.random.Generator, draws: int) -> Iterator[tuple[str, Tally, Tally]]:
    rates = {"plateau": 0.01, "learnable": 0.6, "no-trap": 0.98}
    gain, sd = 0.5, 0.3

    def evaluation(logits: dict[str, np.ndarray]) -> Evaluation:
        problems = {}
        for family, of_family_P in logits.items():
            for i, right in enumerate(rng.binomial(ANSWERS, expit(of_family_P)).tolist()):
                problems[f"{family}{i}"] = JudgedProblem(family, ANSWERS, right)
        return Evaluation({"samples": ANSWERS}, problems, {}, Cost(), 0)

    def arm(logits: dict[str, np.ndarray], shift: float, seeds: int) -> list[Evaluation]:
        lucks = sd * rng.normal(size=seeds) + shift
        return [evaluation({f: of + luck for f, of in logits.items()}) for luck in lucks]

    many = [chances(rng, rate, 2.0, TRUTH_PROBLEMS) for rate in rates.values()]
    level = float(np.mean([over_seeds(logits, sd) for logits in many]))
    better = float(np.mean([over_seeds(logits + gain, sd) for logits in many]))
    for seeds in SEEDS:
        tallies = [Tally() for _ in range(4)]
        for _ in range(draws // 5):
            logits = {name: chances(rng, rate, 2.0, 60) for name, rate in rates.items()}
            control, other = arm(logits, 0.0, seeds), arm(logits, gain, seeds)
            one = arm_contrast([control], (1,), "pass@1/all")
            two = arm_contrast([other, control], (1, -1), "pass@1/all")
            for place, contrast, truth in ((0, one, level), (2, two, better - level)):
                tallies[place].add(crossed_interval(contrast.values_SP), truth)
                tallies[place + 1].add(contrast.interval, truth)
        yield f"one arm, {seeds} seeds", tallies[0], tallies[1]
        yield f"difference, {seeds} seeds", tallies[2], tallies[3]


PARTS: dict[str, Callable] = {
    "shares": shares,
    "differences": differences,
    "seeds": mixtures,
    "collapses": collapses,
    "many": many,
    "masses": masses,
    "normal": normal,
    "families": families,
    "edges": edges,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=list(PARTS))
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    for part in given.parts:
        print(f"\n| {part} | before | now |\n|---|---|---|")
        held = []
        for words, before, now in PARTS[part](rng, given.draws):
            print(f"| {words} | {before} | {now} |", flush=True)
            if now.number:
                held.append(now.held / now.number)
        low = sum(share < 0.93 for share in held)
        print(f"\nnow: {low} of {len(held)} lines under .93, the lowest {min(held):.3f}")


if __name__ == "__main__":
    main()
