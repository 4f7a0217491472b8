"""The audit: logs in, a verdict and findings out.

    logs -> verdicts of answers -> estimand -> evaluations -> `Comparison`, as `compare` makes it
                                                           -> findings (`faults`)

Left out: what a log does not hold. A check that cannot be made says so, and passes nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from critique_rl.analysis.comparability import select_comparable
from critique_rl.analysis.compare import arm_summary, metric_names
from critique_rl.analysis.comparison import Comparison, MissingRun
from critique_rl.analysis.comparison_tables import TERMINAL, arms_table, differences_table
from critique_rl.analysis.differences import all_pairs, differences_from
from critique_rl.analysis.evaluations import METRIC, Runs
from critique_rl.analysis.paper.setup import Setup
from critique_rl.analysis.table import Table
from critique_rl.analysis.verdict import left_out, verdict
from critique_rl.config.checks import ConfigError
from critique_rl.experiment.audit.estimand import (
    TRAINING,
    Estimand,
    RunEvaluation,
    choose_estimand,
    evaluate_logs,
    judge_rewards,
)
from critique_rl.experiment.audit.faults import find_faults
from critique_rl.experiment.audit.findings import FOUND, UNKNOWN_STATUS, Audited, Finding
from critique_rl.experiment.audit.logs import LogReader
from critique_rl.experiment.audit.mapping import LogMapping, check_arms
from critique_rl.experiment.audit.values import UNKNOWN

LAST_STEPS = 10
PRIMARY = "pass@1/all"
CONTROL_WORDS = ("control", "baseline", "scalar", "grpo", "base")


@dataclass(frozen=True)
class RunPath:
    """A run, and where its log lies."""

    arm: str
    seed: int
    path: Path


@dataclass(frozen=True)
class Audit:
    """A verdict, and what is missing or unfair."""

    estimand: Estimand
    comparison: Comparison
    findings: list[Finding]
    notes: list[str]
    """What was read, and what was left out."""

    @property
    def sentence(self) -> str:
        """The verdict, which names its estimand."""
        return f"On {self.estimand.says}: {verdict(self.comparison)}"

    def to_json(self) -> dict[str, Any]:
        """What audit.json holds."""
        return {
            "verdict": self.sentence,
            "estimand": asdict(self.estimand),
            "findings": [asdict(finding) for finding in self.findings],
            "notes": self.notes,
            "comparison": self.comparison.to_json(),
        }

    def setup(self) -> Setup:
        """What a methods paragraph can say of runs that others made."""
        faults = []
        tuning = ""
        for finding in self.findings:
            if finding.check == "tried" and finding.status != UNKNOWN_STATUS:
                tuning = f"As the mapping file says, {finding.says}."
            if finding.status != FOUND:
                continue
            faults.append(f"{finding.check} ({finding.says})")
        notes = ["The runs were made by other programs, and judged from their logs alone."]
        if faults:
            listed = "; ".join(faults)
            notes.append(f"The audit found: {listed}.")
        judged = f"Policies are judged by {self.estimand.says}."
        return Setup(judged=judged, tuning=tuning, notes=tuple(notes))

    def tables(self) -> list[Table]:
        """Arms, differences from the control, and findings."""
        rows = []
        bold = []
        for i, finding in enumerate(self.findings):
            lines = [finding.says]
            if finding.status == FOUND:
                bold.append(i)
                for place in finding.places:
                    lines.append(f"- {place}")
            says = "\n".join(lines)
            rows.append([finding.check, finding.status, says])
        return [
            # Columns of costs that no log holds would be zeros.
            arms_table(self.comparison, replace(TERMINAL, always_shown=())),
            differences_table(self.comparison, TERMINAL),
            Table("What is missing or unfair", ["check", "", "what was seen"], rows, "lll", bold),
        ]

    def lines(self) -> list[str]:
        """The verdict, the runs that were left out, and the notes."""
        return [self.sentence, *left_out(self.comparison), *self.notes]


def audit(
    runs: Sequence[RunPath],
    mapping: LogMapping,
    control: str | None = None,
    primary: str = PRIMARY,
    last_steps: int = LAST_STEPS,
) -> Audit:
    """Read the logs of runs and judge them.

    Args:
        runs: at least two arms.
        mapping: names of columns, and what logs do not hold.
        control: the arm that all others are compared with; None: by the arms' names.
        primary: the metric, such as pass@1/all or pass@4/math.
        last_steps: steps of training whose rollouts count where no held-out answers are logged.

    Raises:
        ConfigError: a log cannot be read, or two arms cannot be compared.
    """
    arms = list(dict.fromkeys(run.arm for run in runs))
    if control is None:
        control = guess_control(arms)
    if control not in arms:
        raise ConfigError(f"got the control {control!r}, expected one of {', '.join(arms)}")
    if len(arms) < 2:
        raise ConfigError(
            f"got one arm ({arms[0]}), expected two or more to compare: name them, such as "
            "scalar:0=logs/a critique:0=logs/b"
        )
    check_arms(mapping, arms)
    _check_paths(runs)
    read = []
    for run in runs:
        reader = LogReader(run.arm, run.seed, mapping)
        read.append(reader.read(run.path))
    logs, rule = judge_rewards(read, mapping.right)
    estimand = choose_estimand(logs, last_steps)
    evaluations = evaluate_logs(logs, estimand, last_steps, _asked_k(primary))
    _check_metric(evaluations, primary)
    comparison = _compare(runs, evaluations, arms, control, primary)
    audited = Audited(logs, evaluations, estimand, mapping)
    notes = _notes(evaluations, estimand)
    for log in logs:
        if not any(run.log is log for run in evaluations):
            notes.append(f"{log.name}: left out, since it has no answers that count")
    if rule:
        notes.insert(0, rule)
    return Audit(estimand, comparison, find_faults(audited), notes)


def _check_paths(runs: Sequence[RunPath]) -> None:
    """Refuse one log under two names: it would pass for two seeds, or for two arms.

    Raises:
        ConfigError: as told.
    """
    known: dict[Path, RunPath] = {}
    for run in runs:
        path = run.path.resolve()
        other = known.setdefault(path, run)
        if other is not run:
            raise ConfigError(
                f"{run.path}: got it as {other.arm} with seed {other.seed} and as {run.arm} with "
                f"seed {run.seed}, expected another log for each run"
            )


def guess_control(arms: Sequence[str]) -> str:
    """The arm that is named like a control, else the first; a complete name before a part."""
    for word in CONTROL_WORDS:
        for arm in arms:
            if word == arm.lower():
                return arm
    for word in CONTROL_WORDS:
        for arm in arms:
            if word in arm.lower():
                return arm
    return arms[0]


def _asked_k(primary: str) -> int:
    match = METRIC.fullmatch(primary)
    if match is None or match[2] is None:
        return 1
    return int(match[2])


def _check_metric(evaluations: Sequence[RunEvaluation], primary: str) -> None:
    """Refuse a metric that the logs do not hold.

    Raises:
        ConfigError: as told, with those that they hold.
    """
    known: dict[str, None] = {}
    unjudged = 0
    for run in evaluations:
        known |= dict.fromkeys(run.evaluation.metrics)
        unjudged += run.evaluation.unscored
    if not known:
        raise ConfigError(f"got {unjudged} answers, none with a reward or a verdict that is known")
    if primary not in known:
        listed = ", ".join(known)
        raise ConfigError(f"--metric: got {primary!r}, expected one of {listed}")


def _compare(
    runs: Sequence[RunPath],
    evaluations: Sequence[RunEvaluation],
    arms: Sequence[str],
    control: str,
    primary: str,
) -> Comparison:
    by_arm: dict[str, Runs] = {arm: {} for arm in arms}
    for run in evaluations:
        log = run.log
        by_arm[log.arm][log.seed] = run.evaluation
    missing = []
    for named in runs:
        if named.seed not in by_arm[named.arm]:
            missing.append(MissingRun(named.arm, named.seed))
    comparable = select_comparable(by_arm, control, None)
    metrics = metric_names(comparable.evaluations, primary)
    comparisons, unpaired = differences_from(control, comparable.runs, metrics)
    summaries = {}
    for arm, of_arm in comparable.runs.items():
        if of_arm:
            summaries[arm] = arm_summary(of_arm, None, metrics, None, None)
    return Comparison(
        control=control,
        primary=primary,
        seeds=tuple(sorted({run.seed for run in runs})),
        arms=summaries,
        base=None,
        comparisons=tuple(comparisons),
        pairs=tuple(all_pairs(comparable.runs, primary)),
        boundary=None,
        missing=tuple(missing),
        incomparable=(*comparable.left_out, *unpaired),
    )


def _notes(evaluations: Sequence[RunEvaluation], estimand: Estimand) -> list[str]:
    """What was read, and what was left out, a few lines per run."""
    notes = []
    for run in evaluations:
        log = run.log
        taken = f"step {run.step}"
        if estimand.kind == TRAINING:
            first = run.answers.step_N.min()
            taken = f"steps {first} to {run.step}"
        if run.step == UNKNOWN:
            taken = "no named step"
        reward = log.columns.get("reward")
        right = log.columns.get("right", reward)
        notes.append(
            f"{log.name}: {len(run.answers)} answers of {taken} count, right by {right!r}; read: "
            f"{len(log.train)} training and {len(log.evaluation)} held-out ones in "
            f"{len(log.files)} files"
        )
        part = log.evaluation if estimand.kind != TRAINING else log.train
        stepless = int((part.step_N == UNKNOWN).sum())
        if run.step != UNKNOWN and stepless:
            notes.append(f"{log.name}: {stepless} answers without a step left out")
        if log.left_out:
            notes.append(f"{log.name}: {log.left_out} refinements and traces left out")
        if log.skipped:
            notes.append(f"{log.name}: {log.skipped} rows hold neither an answer nor a verdict")
        if log.unread:
            shown = ", ".join(log.unread[:3])
            number = len(log.unread)
            notes.append(f"{log.name}: {number} files are no logs of answers ({shown})")
    return notes
