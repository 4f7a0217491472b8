"""Has learning stopped? A test on the evaluation series, paired per problem, and a callback for
anybody's GRPO run.

At each look the same problems are judged again. Over the last `span` windows of looks a line is
fitted to each problem's own series (so that what problems differ in cancels); the mean slope is the
gain a window, and the series has stalled if a gain as large as `min_gain` is refuted:

    gain + t * SE < min_gain,        one-sided, at alpha / (looks - 2 windows): Bonferroni over the tests that are planned
    SE^2 = var(gains of problems) / P + s^2 c' R c,    R_ij = phi^|i - j|

The first part is the noise of samples and problems. It does not see what moves all problems at
once, so the second is estimated from the residuals of the mean series beyond the first part, as
noise with autocorrelation phi = .55, with Satterthwaite's degrees of freedom; a t test on the mean
series alone would have to pay those few degrees for the sampling noise too. A series that never
varies gets the variance of one more right and one more wrong sample. The null is a rise, not
flatness: a flat-looking series with wide errors is no plateau. The first test is after two windows:
one alone leaves four looks or so to tell common noise from a trend, and most false alarms came from
there.

Measured (tests/test_plateau.py has it in short): `python tests/benchmarks/plateau_series.py`,
figures in runs/README.md.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from transformers import TrainerCallback

from critique_rl.config.checks import suggest
from critique_rl.metrics import t_quantile

Status = Literal["rising", "stuck", "solved", "took_off"]


@dataclass(frozen=True)
class PlateauRule:
    """What counts as a plateau of a series in [0, 1]."""

    window: int = 6
    """Looks a window."""
    min_gain: float = 0.05
    """A smaller rise over a window is none."""
    looks: int = 20
    """Planned looks; `alpha` is shared out over those after the first two windows."""
    alpha: float = 0.05
    """Chance of a false alarm on a series that rises by `min_gain` a window throughout."""
    solved: float = 0.95
    """A mean as high as this over the last window is not stuck, it is done."""
    span: int = 3
    """Windows a line is fitted over at most."""
    phi: float = 0.55
    """Assumed autocorrelation, from look to look, of what moves all problems at once."""

    def __post_init__(self):
        if self.window < 2 or self.looks <= 2 * self.window or self.span < 2:
            raise ValueError(
                f"plateau: got window {self.window}, looks {self.looks}, span {self.span}; expected window >= 2, looks > 2 windows, span >= 2"
            )
        between = {name: getattr(self, name) for name in ("min_gain", "alpha", "solved")}
        if not all(0 < value < 1 for value in between.values()):
            raise ValueError(
                f"plateau: got {', '.join(f'{name} {value}' for name, value in between.items())}; expected each between 0 and 1"
            )

    @property
    def level(self) -> float:
        """Chance of a false alarm at one look."""
        return self.alpha / (self.looks - 2 * self.window)


@dataclass(frozen=True)
class Gain:
    """The rise of the mean a window, and its standard error and degrees of freedom."""

    gain: float
    error: float
    df: float

    def bound(self, level: float) -> float:
        """The one-sided upper bound of the gain at 1 - level; -bound of the negated gain is the
        lower one.
        """
        return self.gain + t_quantile(1 - level, self.df) * self.error


@functools.cache
def _line(m: int, window: int, phi: float) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    """For m looks: weights of the gain (m,), residual maker (m, m), tr(MR), Satterthwaite's df and
    c'Rc.
    """
    time = np.arange(m) - (m - 1) / 2
    c = time / (time @ time) * window
    X = np.stack([np.ones(m), time], 1)
    M = np.eye(m) - X @ np.linalg.pinv(X)
    R = phi ** np.abs(np.subtract.outer(np.arange(m), np.arange(m)))
    MR = M @ R
    return c, M, np.trace(MR), np.trace(MR) ** 2 / np.trace(MR @ MR), c @ R @ c


def gain_per_window(rates: np.ndarray, rule: PlateauRule, samples: float = 1.0) -> Gain:
    """Rates (looks, problems) of right answers -> the gain a window. `samples` a rate is over
    matter only where nothing varies.
    """
    m, problems = rates.shape
    c, M, trace, df, common_share = _line(m, rule.window, rule.phi)
    mean, gains = rates.mean(1), c @ rates
    residuals = M @ mean
    sampling = gains.var(ddof=1) / problems if problems > 1 else 0.0
    # The mean series' residuals hold the sampling noise too, (m - 2) times its variance at one
    # look.
    common = max(0.0, residuals @ residuals - (m - 2) * sampling / (c @ c)) / trace
    variance = sampling + common * common_share
    if variance < 1e-12:
        rate = (rates.mean() * rates.size * samples + 1) / (rates.size * samples + 2)
        variance = rate * (1 - rate) / (problems * samples) * (c @ c)
    return Gain(float(mean @ c), float(np.sqrt(variance)), df)


@dataclass
class PlateauDetector:
    """Looks at a series one at a time. `status` is "rising" until it is "solved" or "stuck"; a
    stuck one that rises after all "took_off".
    """

    rule: PlateauRule = PlateauRule()
    series: list[list[float]] = field(default_factory=list)
    samples: float = 1.0
    status: Status = "rising"
    stuck_at: int | None = None
    """The look, counted from 1, at which the plateau was found."""
    took_off_at: int | None = None

    def look(self, rates: Sequence[float] | float, samples: float = 1.0) -> Status:
        """Add one look: each problem's rate of right answers, in the same order each time (or one
        number for the whole).
        """
        rates = np.atleast_1d(np.asarray(rates, dtype=float))
        if not np.isfinite(rates).all():
            raise ValueError(
                f"plateau: {(~np.isfinite(rates)).sum()} of {rates.size} rates are not finite; leave problems without an answer out of all looks"
            )
        if self.series and len(self.series[0]) != rates.size:
            raise ValueError(
                f"plateau: got {rates.size} problems, expected the {len(self.series[0])} of the first look: the test is paired"
            )
        self.series.append(rates.tolist())
        self.samples = samples
        self._judge()
        return self.status

    def _judge(self) -> None:
        rule, looks = self.rule, len(self.series)
        if looks <= 2 * rule.window:
            return
        recent = np.array(self.series[-(rule.span * rule.window + 1) :])
        if self.status == "rising":
            if recent[-rule.window :].mean() >= rule.solved:
                self.status = "solved"
            elif gain_per_window(recent, rule, self.samples).bound(rule.level) < rule.min_gain:
                self.status, self.stuck_at = "stuck", looks
        elif self.status == "stuck" and looks >= self.stuck_at + 2 and self._rose():
            self.status, self.took_off_at = "took_off", looks

    def _rose(self) -> bool:
        """True where the last two looks lie above the plateau's last window by more than noise and
        at least `min_gain`.
        """
        rule = self.rule
        before, after = (
            np.array(self.series[self.stuck_at - rule.window : self.stuck_at]),
            np.array(self.series[-2:]),
        )
        rise = after.mean(0) - before.mean(0)
        spread = before.mean(1).var(ddof=1) * (1 / len(before) + 1 / len(after)) + (
            rise.var(ddof=1) / rise.size if rise.size > 1 else 0.0
        )
        return bool(
            rise.mean() >= rule.min_gain
            and rise.mean()
            > t_quantile(1 - rule.level, max(rise.size - 1, rule.window - 1)) * np.sqrt(spread)
        )

    def state_dict(self) -> dict[str, Any]:
        return {
            "series": self.series,
            "samples": self.samples,
            "status": self.status,
            "stuck_at": self.stuck_at,
            "took_off_at": self.took_off_at,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class PlateauCallback(TrainerCallback):
    """Watches one evaluation metric of any Trainer (such as `eval_reward` of a GRPOTrainer) and
    calls `on_plateau(step)` once it is stuck.

    The metric is one number in [0, 1] a look, the mean of `answers` answers: nothing is paired, so
    it takes longer than `PlateauDetector` on problems. Changes nothing in the run; a value that is
    not finite or not in [0, 1] is no look, and is warned of. A resumed run looks again at what its
    log holds.
    """

    def __init__(
        self,
        metric: str,
        answers: int,
        rule: PlateauRule = PlateauRule(),
        on_plateau: Callable[[int], None] | None = None,
    ):
        self.metric, self.answers, self.rule, self.on_plateau, self.detector = (
            metric,
            answers,
            rule,
            on_plateau,
            PlateauDetector(rule),
        )
        self.seen: set[str] = set()

    def on_train_begin(self, args, state, control, **kwargs):
        self.detector = PlateauDetector(self.rule)
        for row in state.log_history:
            self._look(row)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        before = self.detector.status
        self._look(metrics or {})
        if self.detector.status == "stuck" != before and self.on_plateau is not None:
            self.on_plateau(state.global_step)

    def _look(self, metrics: Mapping[str, Any]) -> None:
        self.seen |= metrics.keys()
        value = metrics.get(self.metric)
        if value is None:
            return
        if not 0 <= value <= 1:
            warnings.warn(
                f"plateau: {self.metric} is {value}, expected a rate from 0 to 1; this look is left out",
                stacklevel=2,
            )
            return
        self.detector.look(float(value), self.answers)

    def on_train_end(self, args, state, control, **kwargs):
        evaluated = {name for name in self.seen if name.startswith("eval")}
        if evaluated and self.metric not in self.seen:
            warnings.warn(
                f"plateau: no metric {self.metric!r} came; {suggest(self.metric, evaluated)}",
                stacklevel=2,
            )
