"""How often the plateau detector is right, on synthetic series: 128 problems of different
difficulty, 4 samples, 20 looks.

    python tests/benchmarks/plateau_series.py --series 1000        (4 minutes)

A false alarm is a plateau found while the true gain over a window is still min_gain or more. AR(1)
noise (coefficient .5, standard deviation as given, about that of the sampling noise) moves all
problems at once.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from critique_rl.trainer.plateau import PlateauDetector, PlateauRule

LOOKS = 20
PROBLEMS = 128
SAMPLES = 4
RULE = PlateauRule()
TIME = np.arange(LOOKS)
CURVES = {
    "rises by 1 x min_gain a window": 0.2 + RULE.min_gain * TIME / RULE.window,
    "rises by 2 x min_gain a window": 0.1 + 2 * RULE.min_gain * TIME / RULE.window,
    "saturates, time constant 2 looks": 0.2 + 0.5 * (1 - np.exp(-TIME / 2)),
    "saturates, time constant 4 looks": 0.2 + 0.5 * (1 - np.exp(-TIME / 4)),
    "flat at .3": np.full(LOOKS, 0.3),
    "flat at .5": np.full(LOOKS, 0.5),
    "all zero": np.zeros(LOOKS),
    "flat at .05, takes off at look 16": 0.05 + 0.6 / (1 + np.exp(-(TIME - 16) / 0.5)),
    "solved": np.full(LOOKS, 0.98),
}


def autoregressive(rng: np.random.Generator, deviation: float, phi: float = 0.5) -> np.ndarray:
    noise = np.zeros(LOOKS)
    noise[0] = rng.normal() * deviation
    for i in range(1, LOOKS):
        noise[i] = phi * noise[i - 1] + rng.normal() * deviation * np.sqrt(1 - phi**2)
    return noise


def ability(mean: np.ndarray, difficulty: np.ndarray) -> np.ndarray:
    """What the policy's ability must be for its mean chance over the problems to be `mean`, by
    bisection.
    """
    low, high = np.full(mean.shape, -20.0), np.full(mean.shape, 20.0)
    for _ in range(40):
        middle = (low + high) / 2
        short = (1 / (1 + np.exp(-(middle[:, None] + difficulty)))).mean(1) < mean
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return middle


def series(rng: np.random.Generator, curve: np.ndarray, deviation: float) -> np.ndarray:
    """Rates (looks, problems)."""
    noise = autoregressive(rng, deviation) if deviation else 0
    mean = np.clip(curve + noise, 0, 1)
    difficulty = rng.normal(size=PROBLEMS) * 1.5
    chance = 1 / (1 + np.exp(-(ability(mean, difficulty)[:, None] + difficulty)))
    return rng.binomial(SAMPLES, np.where(mean[:, None] == 0, 0, chance)) / SAMPLES


def outcome(rates: np.ndarray) -> PlateauDetector:
    detector = PlateauDetector(RULE)
    for look in rates:
        detector.look(look, SAMPLES)
    return detector


def measure(name: str, deviation: float, count: int, seed: int = 0) -> dict:
    """Shares of `count` series of one kind."""
    rng = np.random.default_rng([seed, int(1000 * deviation), len(name)])
    curve = CURVES[name]
    window = RULE.window
    # The look, counted from 1, from which on the true gain over a window is under min_gain.
    flat = next(
        (
            k
            for k in range(window + 1, LOOKS + 1)
            if curve[k - 1] - curve[k - 1 - window] < RULE.min_gain - 1e-9
        ),
        LOOKS + 1,
    )
    outcomes = [outcome(series(rng, curve, deviation)) for _ in range(count)]
    stuck = np.array([detector.stuck_at or LOOKS + 1 for detector in outcomes])
    return {
        "series": name,
        "AR(1)": deviation,
        "false alarms": float((stuck < flat).mean()),
        "stuck within three windows": float((stuck <= 3 * window + 1).mean()),
        "stuck": float((stuck <= LOOKS).mean()),
        "median look": float(np.median(stuck[stuck <= LOOKS])) if (stuck <= LOOKS).any() else None,
        "took off": float(np.mean([detector.took_off_at is not None for detector in outcomes])),
        "solved": float(np.mean([detector.status == "solved" for detector in outcomes])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--series", type=int, default=1000)
    arguments = parser.parse_args()
    for name in CURVES:
        deviations = (0.0, 0.02) if name != "all zero" else (0.0,)
        for deviation in deviations:
            print(json.dumps(measure(name, deviation, arguments.series)), flush=True)


if __name__ == "__main__":
    main()
