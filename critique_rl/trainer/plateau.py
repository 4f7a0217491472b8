"""Has learning stopped? A paired test on the evaluation series, and a callback for any GRPO run.

At each look the same problems are judged again. A line is fitted to each problem's rates over the
last `span` windows of looks; the mean slope is the gain per window. The series is stuck if a gain
as large as `min_gain` is refuted, one-sided, at alpha / (looks - 2 windows), Bonferroni's level:

    gain + t * SE < min_gain,    SE^2 = var(gains of P problems) / P + s^2 c' R c,
    R_ij = phi^|i - j|

The first part of SE^2 is the noise of samples and problems. The second is common noise, which moves
all problems at once. Its s^2 is estimated from residuals of the mean series, as noise with
autocorrelation phi; t has Satterthwaite's degrees of freedom. Left out: a t test on the mean series
alone, which would pay those few degrees of freedom for the sampling noise too.

The null is a rise, not flatness: a series that looks flat with wide errors is no plateau.
`python tests/benchmarks/plateau_series.py` measures the error rates (runs/results/long_runs.md has
the figures); tests/trainer/test_plateau.py does so in short.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from transformers import TrainerCallback

from critique_rl.config.checks import suggest
from critique_rl.intervals import t_quantile

Status = Literal["rising", "stuck", "solved", "took_off"]


@dataclass(frozen=True)
class PlateauRule:
    """When a series in [0, 1] counts as a plateau."""

    window: int = 6
    """Looks per window."""
    min_gain: float = 0.05
    """The least rise per window that still counts as learning."""
    looks: int = 20
    """Planned looks; `alpha` is shared out over those after the first two windows."""
    alpha: float = 0.05
    """Chance of a false alarm on a series that rises by `min_gain` per window throughout."""
    solved: float = 0.95
    """A mean as high as this over the last window is not stuck but solved."""
    span: int = 3
    """Most windows that a line is fitted over."""
    phi: float = 0.55
    """Assumed autocorrelation, from look to look, of the noise that moves all problems at once."""

    def __post_init__(self):
        """Check the rule.

        Raises:
            ValueError: a window, number of looks or span that leaves nothing to test, or a share
                that is not between 0 and 1.
        """
        if self.window < 2 or self.tests <= 0:
            raise ValueError(
                f"plateau: got window {self.window}, looks {self.looks}; "
                f"expected window >= 2, looks > 2 windows, which is {2 * self.window + 1} or more"
            )
        # A pipeline sets no span.
        if self.span < 2:
            raise ValueError(f"plateau: got span {self.span}, expected span >= 2")
        shares = {"min_gain": self.min_gain, "alpha": self.alpha, "solved": self.solved}
        in_range = [0 < share < 1 for share in shares.values()]
        if not all(in_range):
            pairs = [f"{name} {share}" for name, share in shares.items()]
            values = ", ".join(pairs)
            raise ValueError(f"plateau: got {values}; expected each between 0 and 1")

    @property
    def tests(self) -> int:
        """Planned tests: one per look after the first two windows."""
        # One window alone leaves about four looks to tell common noise from a trend, and most false
        # alarms came from there.
        untested = 2 * self.window
        return self.looks - untested

    @property
    def level(self) -> float:
        """Chance of a false alarm at one look."""
        return self.alpha / self.tests


@dataclass(frozen=True)
class Gain:
    """The rise of the mean per window, with its standard error and degrees of freedom."""

    gain: float
    error: float
    df: float

    def bound(self, level: float) -> float:
        """The one-sided upper bound of the gain at confidence 1 - level."""
        quantile = t_quantile(1 - level, self.df)
        return self.gain + quantile * self.error


class _LineFit(NamedTuple):
    """Least squares of a line through m looks, and what autocorrelated noise does to it."""

    gain_weights: np.ndarray
    """c (m,): c @ series is the gain per window."""
    residual_maker: np.ndarray
    """M (m, m): M @ series are the residuals."""
    residual_trace: float
    """tr(MR): the expected sum of squared residuals per unit of variance."""
    df: float
    """Satterthwaite's degrees of freedom, tr(MR)^2 / tr(MRMR)."""
    gain_variance: float
    """c'Rc: variance of the gain per unit of variance."""


@functools.cache
def _line_fit(m: int, window: int, phi: float) -> _LineFit:
    """The fit for m looks, with shapes (m,) and (m, m)."""
    looks = np.arange(m)
    middle = (m - 1) / 2
    time = looks - middle
    slope_weights = time / (time @ time)
    c = slope_weights * window
    X = np.stack([np.ones(m), time], 1)
    hat = X @ np.linalg.pinv(X)
    M = np.eye(m) - hat
    distances = np.abs(np.subtract.outer(looks, looks))
    R = phi**distances
    MR = M @ R
    MRMR = MR @ MR
    trace = np.trace(MR)
    df = trace**2 / np.trace(MRMR)
    gain_variance = c @ R @ c
    return _LineFit(c, M, trace, df, float(gain_variance))


def _variance_of_mean(values: np.ndarray) -> float:
    """Estimated variance of the mean of values, shape (problems,); 0 for a single value."""
    if values.size == 1:
        return 0.0
    variance = values.var(ddof=1)
    return variance / values.size


def gain_per_window(rates: np.ndarray, rule: PlateauRule, samples: float = 1.0) -> Gain:
    """The gain per window with its error (see the module's formula).

    Args:
        rates: Rates of right answers, shape (looks, problems).
        rule: The window and phi.
        samples: Answers behind each rate. It matters only if no rate varies.
    """
    looks, problems = rates.shape
    fit = _line_fit(looks, rule.window, rule.phi)
    c = fit.gain_weights
    mean = rates.mean(1)
    gains = c @ rates
    residuals = fit.residual_maker @ mean
    sampling_variance = _variance_of_mean(gains)
    weight_squares = c @ c
    # The mean series' residuals hold sampling noise too: looks - 2 times its variance at one look.
    residual_df = looks - 2
    sampling_squares = residual_df * sampling_variance / weight_squares
    squares = residuals @ residuals
    common_squares = max(0.0, squares - sampling_squares)
    common_variance = common_squares / fit.residual_trace
    variance = sampling_variance + common_variance * fit.gain_variance
    if variance < 1e-12:
        # A series that never varies would have no error at all, so it gets the variance of a rate
        # with one more right and one more wrong answer.
        answers = rates.size * samples
        right = rates.mean() * rates.size * samples
        rate = (right + 1) / (answers + 2)
        answers_per_look = problems * samples
        look_variance = rate * (1 - rate) / answers_per_look
        variance = look_variance * weight_squares
    gain = float(mean @ c)
    error = float(np.sqrt(variance))
    return Gain(gain, error, fit.df)


@dataclass
class PlateauDetector:
    """Looks at a series one at a time.

    `status` is "rising" until the series is "solved" or "stuck"; a stuck series that rises after
    all "took_off".
    """

    rule: PlateauRule = PlateauRule()
    series: list[list[float]] = field(default_factory=list)
    """Each look's rates, one per problem."""
    samples: float = 1.0
    """Answers behind each rate of the last look."""
    status: Status = "rising"
    stuck_at: int | None = None
    """The look, counted from 1, at which the plateau was found."""
    took_off_at: int | None = None
    """The look, counted from 1, at which the series had left its plateau."""

    def look(self, rates: Sequence[float] | float, samples: float = 1.0) -> Status:
        """Add one look and judge the series.

        Args:
            rates: Each problem's rate of right answers, in the same order at every look, or one
                number for all problems.
            samples: Answers behind each rate.

        Raises:
            ValueError: a rate is not finite, or the number of problems changed.
        """
        problem_rates = np.atleast_1d(np.asarray(rates, dtype=float))
        problems = problem_rates.size
        finite = np.isfinite(problem_rates)
        if not finite.all():
            missing = problems - finite.sum()
            raise ValueError(
                f"plateau: {missing} of {problems} rates are not finite; "
                "leave problems without an answer out of all looks"
            )
        expected = problems
        if self.series:
            expected = len(self.series[0])
        if problems != expected:
            raise ValueError(
                f"plateau: got {problems} problems, expected the {expected} of the "
                "first look: the test is paired"
            )
        self.series.append(problem_rates.tolist())
        self.samples = samples
        self._judge()
        return self.status

    def _judge(self) -> None:
        rule = self.rule
        looks = len(self.series)
        if looks <= 2 * rule.window:
            return
        if self.status == "rising":
            self._judge_rising()
        elif self.status == "stuck" and self._rose():
            self.status = "took_off"
            self.took_off_at = looks

    def _judge_rising(self) -> None:
        """Mark a rising series that is solved by now, or stuck."""
        rule = self.rule
        # The span's steps from look to look have one look more at their ends.
        fitted = rule.span * rule.window + 1
        recent = np.array(self.series[-fitted:])
        last_window = recent[-rule.window :]
        if last_window.mean() >= rule.solved:
            self.status = "solved"
            return
        gain = gain_per_window(recent, rule, self.samples)
        if gain.bound(rule.level) < rule.min_gain:
            self.status = "stuck"
            self.stuck_at = len(self.series)

    def _rose(self) -> bool:
        """Whether the last two looks lie above the plateau by `min_gain` and more than noise."""
        assert self.stuck_at is not None, "only a stuck series can take off"
        if len(self.series) < self.stuck_at + 2:
            return False
        rule = self.rule
        start = self.stuck_at - rule.window
        plateau = self.series[start : self.stuck_at]
        before = np.array(plateau, dtype=float)
        after = np.array(self.series[-2:], dtype=float)
        rises = after.mean(0) - before.mean(0)
        rise = rises.mean()
        # As in the gain: common noise, here from the plateau's looks, and the spread of problems.
        look_means = before.mean(1)
        look_variance = look_means.var(ddof=1)
        looks_share = 1 / len(before) + 1 / len(after)
        common_variance = look_variance * looks_share
        problem_variance = _variance_of_mean(rises)
        error = np.sqrt(common_variance + problem_variance)
        df = max(rises.size - 1, rule.window - 1)
        noise = t_quantile(1 - rule.level, df) * error
        return bool(rise >= rule.min_gain and rise > noise)

    def state_dict(self) -> dict[str, Any]:
        """Everything but the rule, as JSON."""
        names = ("series", "samples", "status", "stuck_at", "took_off_at")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        for name, value in state.items():
            setattr(self, name, value)


class PlateauCallback(TrainerCallback):
    """Watches one evaluation metric of any Trainer, such as `eval_reward` of a GRPOTrainer, and
    calls `on_plateau(step)` once it is stuck.

    It changes nothing in the run. A resumed run looks again at the rows of its log.

    Args:
        metric: A number in [0, 1] per evaluation. Other values are left out, with a warning.
        answers: How many answers the number is the mean of.
        rule: When the series is stuck. Nothing is paired, so it takes longer than
            `PlateauDetector` on problems.
        on_plateau: Called once, with the step.
    """

    def __init__(
        self,
        metric: str,
        answers: int,
        rule: PlateauRule = PlateauRule(),
        on_plateau: Callable[[int], None] | None = None,
    ):
        self.metric = metric
        self.answers = answers
        self.rule = rule
        self.on_plateau = on_plateau
        self.detector = PlateauDetector(rule)
        self.seen: set[str] = set()

    def on_train_begin(self, args, state, control, **kwargs):
        # transformers saves its log in checkpoints, so the series needs no state of its own.
        self.detector = PlateauDetector(self.rule)
        for row in state.log_history:
            self._look(row)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        before = self.detector.status
        self._look(metrics or {})
        after = self.detector.status
        became_stuck = after == "stuck" and before != "stuck"
        if became_stuck and self.on_plateau is not None:
            self.on_plateau(state.global_step)

    def _look(self, metrics: Mapping[str, Any]) -> None:
        self.seen |= metrics.keys()
        value = metrics.get(self.metric)
        if value is None:
            return
        # NaN fails this comparison too.
        if not 0 <= value <= 1:
            message = (
                f"plateau: {self.metric} is {value}, expected a rate from 0 to 1; "
                "this look is left out"
            )
            warnings.warn(message, stacklevel=2)
            return
        self.detector.look(float(value), self.answers)

    def on_train_end(self, args, state, control, **kwargs):
        # A misspelt metric never comes, and the callback would stay silent throughout the run.
        evaluated = {name for name in self.seen if name.startswith("eval")}
        if evaluated and self.metric not in self.seen:
            suggestion = suggest(self.metric, evaluated)
            message = f"plateau: no metric {self.metric!r} came; {suggestion}"
            warnings.warn(message, stacklevel=2)
