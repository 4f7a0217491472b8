"""One eval.json, read and checked, and the values of its metrics per problem."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from critique_rl.analysis.comparison import COSTS, Cost, MetricValues
from critique_rl.analysis.records import read_record
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import (
    CHECKSUM,
    EVALUATE,
    EVALUATIONS,
    LOGGED,
    REWRITE,
    DamagedFile,
    check_checksum,
    checksum_of,
    read_json,
    read_jsonl,
    read_yaml,
)
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.verifier_settings import with_verdict_settings
from critique_rl.metrics import EVALUATION_METRICS, SHARES, exact_pass_at_k, pass_at_k, shares

BASE = "base"
"""The arm's name in an evaluation of the policy before training."""
EVALUATE_BASE = "delete the folder base and evaluate it again"
POOLED = "pooled"
"""Key of a protocol whose problems are sums over other problems in each run, as of an audit of
training rollouts: seeds alone are drawn anew.
"""
PROTOCOL = (
    "task",
    "template",
    "prompts",
    "split",
    "samples",
    "temperature",
    "top_p",
    "max_new_tokens",
    "sampler",
    "versions",
)
"""The keys of eval.json that two evaluations must share to be compared."""
REASONS = "unscored_reasons"
"""Key of eval.json: reasons of unscored samples, where there are any."""
METRIC = re.compile(rf"(?:(pass|exact)@(\d+)|({'|'.join(SHARES)}))/(.+)")
"""Names of the metrics that every problem has a value of."""
PASS = "pass"
"""Estimated from samples."""
EXACT = "exact"
"""From the chance of a true answer."""
NO_NOISE = 1_000_000
"""Tries behind a value that no sampling blurs."""
ALL_FAMILIES = "all"
"""The family name of a metric over all problems."""


@dataclass(frozen=True)
class JudgedProblem:
    """Counts of one problem's samples."""

    family: str
    judged: int
    """Samples that the verifier could judge: the n of pass@k."""
    right: int
    """Right ones among them: the c of pass@k."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """`metrics.shares` of the problem."""
    chance: float | None = None
    """Of a true answer; None where `evaluation.exact` was off."""


Vote = tuple[float, bool]
"""(share of the samples that gave the commonest answer, whether that answer is right)."""
Problems = Mapping[str, JudgedProblem]
"""Problem's id -> counts."""


@dataclass(frozen=True)
class Evaluation:
    """One eval.json."""

    protocol: Mapping[str, Any]
    """The file's values of the keys in `PROTOCOL`."""
    problems: Problems
    metrics: MetricValues
    cost: Cost
    unscored: int
    """Samples that no verifier could judge."""
    samples: int = 0
    """Samples that were taken: judged and unscored."""
    timeouts: int = 0
    """Judged ones that are wrong because judging them took too long twice."""
    votes: Sequence[Vote] = ()
    """One per problem that holds an agreement."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why samples could not be judged -> how many; {} in files of earlier versions."""
    second: Evaluation | None = None
    """The same problems under `evaluation.second_template`."""

    def values(self, metric: str) -> dict[str, float]:
        """The metric of every problem that has it.

        Args:
            metric: pass@<k>/<family>, exact@<k>/<family> or <share>/<family>, where the family
                "all" takes every problem; or one of `metrics.EVALUATION_METRICS`.

        Returns:
            Problem's id -> value. A metric of the complete evaluation has one value, under "".
        """
        if metric in EVALUATION_METRICS:
            value = self.metrics.get(metric)
            if value is None:
                return {}
            return {"": value}
        name, k, family = parse_metric(metric)
        problems = self._family_problems(family)
        if name in SHARES:
            return _share_values(problems, name)
        if name == EXACT:
            return _exact_values(problems, k)
        return _pass_values(problems, k)

    def _family_problems(self, family: str) -> Problems:
        if family == ALL_FAMILIES:
            return self.problems
        problems = {}
        for problem_id, problem in self.problems.items():
            if problem.family == family:
                problems[problem_id] = problem
        return problems


Runs = dict[int, Evaluation]
"""One arm's evaluations by seed."""
ArmRuns = Mapping[str, Runs]
"""Arm -> its evaluations."""


def _share_values(problems: Problems, share: str) -> dict[str, float]:
    values = {}
    for problem_id, problem in problems.items():
        if share in problem.shares:
            values[problem_id] = problem.shares[share]
    return values


def _pass_values(problems: Problems, k: int) -> dict[str, float]:
    names = []
    judged = []
    right = []
    for problem_id, problem in problems.items():
        # A problem with fewer than k judged samples has no pass@k. It drops out, for a value
        # estimated from fewer samples would be another metric.
        if problem.judged >= k:
            names.append(problem_id)
            judged.append(problem.judged)
            right.append(problem.right)
    values_P = np.asarray(pass_at_k(judged, right, k))
    return dict(zip(names, values_P.tolist(), strict=True))


def _exact_values(problems: Problems, k: int) -> dict[str, float]:
    values = {}
    for problem_id, problem in problems.items():
        if problem.chance is not None:
            values[problem_id] = exact_pass_at_k(problem.chance, k)
    return values


def tries_behind(metric: str, samples: int) -> float:
    """Tries behind each problem's value: n samples hold n / k separate tries at pass@k.

    Args:
        metric: one that every problem has a value of.
        samples: answers per problem.
    """
    name, k, _ = parse_metric(metric)
    if name == EXACT:
        return NO_NOISE
    return samples / max(k, 1)


def parse_metric(metric: str) -> tuple[str, int, str]:
    """Split a metric's name.

    Returns:
        ("pass" or "exact", k, family), or (share, 0, family).

    Raises:
        ValueError: the name is not one that every problem has a value of.
    """
    match = METRIC.fullmatch(metric)
    if match is None:
        raise ValueError(
            f"got metric {metric!r}, expected pass@<k>/<family>, exact@<k>/<family> or "
            "<share>/<family>"
        )
    name, k, share, family = match.groups()
    if share:
        return share, 0, family
    return name, int(k), family


def read_evaluation(path: Path, arm: str, seed: int | None = None) -> Evaluation:
    """Parse and check the eval.json of an arm and a seed.

    Raises:
        ConfigError: the file is damaged, holds counts or costs that cannot be true, or belongs to
            another arm or seed.
    """
    try:
        raw = read_json(path, EVALUATE)
        check_checksum(path, raw, EVALUATE)
        if (raw["arm"], raw["seed"]) != (arm, seed):
            raise ValueError(
                f"it is of arm {raw['arm']!r} with seed {raw['seed']}, and lies where that of "
                f"{arm!r} with seed {seed} belongs"
            )
        evaluation = _parse_evaluation(raw)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # str() of a KeyError is the bare key.
        problem = f"no {error}" if isinstance(error, KeyError) else error
        if isinstance(error, DamagedFile):
            problem = error.problem
        raise ConfigError(
            f"{path} is no evaluation: {problem}; expected what `critique-rl evaluate` writes: "
            f"delete it and evaluate again"
        ) from error
    _check_logged(path, raw)
    return evaluation


def read_base(folder: PipelineFolder, again: bool = False) -> Evaluation:
    """The evaluation of the policy before training.

    Args:
        folder: The pipeline's results.
        again: The second one, with other samples.

    Raises:
        ConfigError: As `read_evaluation` does; or config.yaml of the base names another evaluation
            in this place.
    """
    run = folder.base_again if again else folder.base
    evaluation = read_evaluation(run.evaluation, BASE)
    known = _base_checksums(folder).get(run.path.name)
    if known is not None and known != read_json(run.evaluation, EVALUATE).get(CHECKSUM):
        raise ConfigError(
            f"{run.evaluation} is not the evaluation that {folder.base.config} names in its "
            f"place; put it back, or {EVALUATE_BASE}"
        )
    return evaluation


def _base_checksums(folder: PipelineFolder) -> Mapping[str, Any]:
    """Folder of each evaluation of the base -> its checksum; {} where the base's config.yaml has
    none, or cannot be read, which is `run`'s to refuse.
    """
    checksums = None
    if folder.base.config.exists():
        with suppress(DamagedFile):
            checksums = read_yaml(folder.base.config).get(EVALUATIONS)
    return checksums if isinstance(checksums, dict) else {}


def _check_logged(path: Path, raw: Mapping[str, Any]) -> None:
    """Refuse metrics.jsonl beside an evaluation if it is not as it was when the run had finished.

    Raises:
        DamagedFile: It is another one, or a line is damaged.
    """
    metrics = path.with_name("metrics.jsonl")
    if LOGGED not in raw:
        return
    if not metrics.exists():
        # Curves, costs until a target and counts of critiques would silently be absent.
        raise DamagedFile(metrics, "it is missing", REWRITE)
    if checksum_of(read_jsonl(metrics)) != raw[LOGGED]:
        raise DamagedFile(metrics, "its rows are not those that the run left", REWRITE)


def _parse_evaluation(raw: Mapping[str, Any]) -> Evaluation:
    rows = raw["problems"]
    problems = _parse_problems(rows)
    _check_samples(rows, raw)
    votes = [
        (float(row["agreement"]), bool(row["agreed_right"]))
        for row in rows
        if row.get("agreement") is not None
    ]
    second = None
    if raw.get("second"):
        # The second part of a file has its own template, prompts, problems, metrics and reasons.
        # All else, such as samples and versions, is said once for both.
        second = _parse_evaluation({**raw, REASONS: {}, **raw["second"], "second": None})
    protocol = {key: raw.get(key) for key in PROTOCOL}
    return Evaluation(
        protocol={**protocol, "task": with_verdict_settings(protocol["task"])},
        problems=problems,
        metrics={name: _finite_or_none(value) for name, value in raw["metrics"].items()},
        cost=_parse_cost(raw.get("cost") or {}),
        unscored=sum(row.get("unscored", 0) for row in rows),
        samples=sum(row["n"] + row.get("unscored", 0) for row in rows),
        timeouts=sum(row.get("timeouts", 0) for row in rows),
        votes=votes,
        reasons={str(name): int(count) for name, count in raw.get(REASONS, {}).items()},
        second=second,
    )


def _parse_problems(rows: Sequence[Mapping[str, Any]]) -> dict[str, JudgedProblem]:
    """Counts by problem.

    Raises:
        ValueError: two problems share an id, or more samples are right than were judged.
    """
    # `abstained` stands in a file only where the task lets answers abstain. One problem that has it
    # says so of all: for the others it is 0, and not unknown.
    abstains = any("abstained" in row for row in rows)
    problems = {row["id"]: _parse_problem(row, abstains) for row in rows}
    if len(problems) < len(rows):
        raise ValueError("two problems share an id")
    for problem_id, problem in problems.items():
        if not 0 <= problem.right <= problem.judged:
            raise ValueError(
                f"problem {problem_id!r} has {problem.right} right of {problem.judged}"
            )
    return problems


def _parse_problem(row: Mapping[str, Any], abstains: bool) -> JudgedProblem:
    """One problem's counts.

    Raises:
        ValueError: its chance is none.
    """
    judged = int(row["n"])
    right = int(row["right"])
    abstained = row.get("abstained", 0) if abstains else None
    problem_shares = shares(judged, right, abstained, row.get("agreement"))
    chance = row.get("chance")
    if chance is not None and not 0 <= chance <= 1:
        raise ValueError(f"problem {row['id']!r} has a chance of {chance}")
    return JudgedProblem(row["family"], judged, right, problem_shares, chance)


def _check_samples(rows: Iterable[Mapping[str, Any]], raw: Mapping[str, Any]) -> None:
    """Refuse problems with more answers than samples were taken.

    Raises:
        ValueError: the problem, and its counts.
    """
    samples = raw.get("samples", math.inf)
    for row in rows:
        unscored = row.get("unscored", 0)
        if row["n"] + unscored > samples:
            raise ValueError(
                f"problem {row['id']!r} has {row['n']} judged and {unscored} unscored of "
                f"{samples} samples"
            )


def _finite_or_none(value: float | None) -> float | None:
    # JSON has no NaN: a metric that is one, such as auroc where all answers are right, is null in
    # compare.json.
    if value is None or not math.isfinite(value):
        return None
    return value


def _parse_cost(raw: Mapping[str, Any]) -> Cost:
    """The cost, with 0 for what a file leaves out.

    Raises:
        ValueError: an amount is not finite.
    """
    amounts = {name: float(raw.get(name) or 0) for name in COSTS}
    for name, amount in amounts.items():
        if not math.isfinite(amount):
            raise ValueError(f"cost {name} is {amount}")
    return read_record(Cost, amounts)
