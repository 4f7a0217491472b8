"""Masses of a pipeline's runs, read from their folders: means by family, problem by problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from critique_rl.analysis.flow.classes import CLASSES, RIGHT
from critique_rl.config.durable_files import DELETE, DamagedFile, read_json
from critique_rl.config.run_folder import PipelineFolder, RunFolder

FEWEST_EFFECTIVE = 10
"""Effective samples under which an estimated mass cannot be shown."""
ProblemMasses = Mapping[str, Mapping[str, float]]
"""Problem's id -> class -> mass."""


@dataclass(frozen=True)
class Point:
    """Masses of one policy of a run."""

    step: int
    generated_tokens: int
    problems: ProblemMasses
    sample_size: Mapping[str, float]
    """Problem's id -> effective sample size; empty where masses are exact."""

    def masses_of(self, families: Mapping[str, str], family: str, kind: str) -> list[float]:
        """The mass of a class on each problem of a family.

        Args:
            families: Problem's id -> family.
            family: The family.
            kind: One of `CLASSES`.
        """
        masses = []
        for problem, by_class in self.problems.items():
            if families[problem] == family:
                masses.append(by_class[kind])
        return masses

    def means(self, families: Mapping[str, str], family: str) -> dict[str, float]:
        """Mean masses of a family's problems, by class; arguments as above."""
        means = {}
        for kind in CLASSES:
            masses = self.masses_of(families, family, kind)
            means[kind] = sum(masses) / len(masses)
        return means

    def log10_right(self, families: Mapping[str, str], family: str) -> float | None:
        """Mean over a family's problems of log10 of the mass of right completions.

        None where a mass is 0 or estimated: nothing right was found, which is no chance of 0.
        """
        masses = self.masses_of(families, family, RIGHT)
        if self.sample_size or min(masses) <= 0:
            return None
        logs = [math.log10(mass) for mass in masses]
        return sum(logs) / len(logs)

    def smallest_sample(self, families: Mapping[str, str], family: str) -> float:
        """The least effective sample size of a family; infinite where masses are exact."""
        smallest = math.inf
        for problem, size in self.sample_size.items():
            if families[problem] == family:
                smallest = min(smallest, size)
        return smallest


@dataclass(frozen=True)
class Series:
    """The points of one run, the policy before training first."""

    points: tuple[Point, ...]
    families: Mapping[str, str]
    """Problem's id -> family."""
    listed: bool = True
    """Whether completions are listed, and masses are exact; else they are estimated."""
    samples: int = 64
    """Samples of the base per problem, among which are its own wrong answers."""
    near_miss: str = ""
    """The rule of a near miss in words; "" where there is none."""


Flow = dict[str, dict[int, Series]]
"""Arm -> seed -> series."""


def families_of(runs: Mapping[int, Series]) -> list[str]:
    """The families of an arm's problems, in their order."""
    series = next(iter(runs.values()))
    return list(dict.fromkeys(series.families.values()))


def smallest_sample(runs: Mapping[int, Series], family: str) -> float:
    """The least effective sample size behind the last masses of an arm.

    Args:
        runs: Seed -> series.
        family: One of its problems' families.
    """
    sizes = []
    for series in runs.values():
        size = series.points[-1].smallest_sample(series.families, family)
        sizes.append(size)
    return min(sizes)


def read_flow(folder: PipelineFolder, arms: Sequence[str], seeds: Sequence[int]) -> Flow:
    """The series of all runs that have one; {} where `critique-rl flow` never ran.

    Args:
        folder: Results of the pipeline.
        arms: Names of its arms.
        seeds: Its seeds.

    Raises:
        DamagedFile: A file is not what `critique-rl flow` writes.
    """
    flow: Flow = {}
    for arm in arms:
        for seed in seeds:
            series = _read_series(folder, folder.run(arm, seed))
            if series is not None:
                flow.setdefault(arm, {})[seed] = series
    return flow


def runs_without_probes(
    folder: PipelineFolder, arms: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    """A sentence per run that has masses, and whose probes are gone; arguments as above."""
    sentences = []
    for arm in arms:
        for seed in seeds:
            stored = read_json(folder.run(arm, seed).flow)
            name = stored.get("probes", "")
            if stored and not (folder.probes / str(name)).is_file():
                sentence = (
                    f"The masses of {arm}, seed {seed}, are left out: {folder.probes.name}/{name} "
                    "is missing. Give critique-rl flow again."
                )
                sentences.append(sentence)
    return sentences


def _read_series(folder: PipelineFolder, run: RunFolder) -> Series | None:
    """The series of a run; None where it has none, or its probes are gone.

    Raises:
        DamagedFile: A file is not what `critique-rl flow` writes.
    """
    stored = read_json(run.flow)
    if not stored:
        return None
    path = folder.probes / str(stored.get("probes", ""))
    if not path.is_file():
        return None
    probes = read_json(path)
    try:
        return _series(probes, stored)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"with {path.name}, it lacks or misplaces {error}"
        raise DamagedFile(run.flow, problem, DELETE) from error


def _series(probes: Mapping[str, Any], stored: Mapping[str, Any]) -> Series:
    probe_set = probes["probes"]
    families = {}
    for problem in probe_set["problems"]:
        name = problem["id"]
        families[name] = problem["family"]
    points = []
    for item in (probes["base"], *stored["points"]):
        point = _point(item, families)
        points.append(point)
    return Series(
        points=tuple(points),
        families=families,
        listed=probe_set["listed"],
        samples=probe_set["samples"],
        near_miss=probe_set["near_miss"],
    )


def _point(item: Mapping[str, Any], families: Mapping[str, str]) -> Point:
    """One point; every problem and class is looked at here, as later code takes all for granted."""
    problems = {}
    for name in families:
        by_class = item["problems"][name]
        masses = {}
        for kind in CLASSES:
            masses[kind] = float(by_class[kind])
        problems[name] = masses
    return Point(
        step=item["step"],
        generated_tokens=item["generated_tokens"],
        problems=problems,
        sample_size=item.get("sample_size", {}),
    )


def as_json(flow: Flow) -> dict[str, Any]:
    """Masses averaged over problems.

    Returns:
        {"arms": {arm: {seed: [{"step", "generated_tokens", "families": {family: {class: mass}},
        "log10_right": {family: number or null}}]}}, "base": {...}}. "base" is the point before
        training of the first arm. Where arms start from other policies, "bases" has it by arm.
        Estimated points also have "sample_size", the least effective sample size of each family;
        under 10 a mass cannot be shown.
    """
    arms: dict[str, Any] = {}
    bases: dict[str, Any] = {}
    for arm, runs in flow.items():
        arms[arm] = {}
        for seed, series in runs.items():
            points = [_point_json(point, series.families) for point in series.points]
            bases.setdefault(arm, points[0])
            arms[arm][str(seed)] = points[1:]
    base: dict[str, Any] = next(iter(bases.values()), {})
    data = {"arms": arms, "base": base}
    if any(other != base for other in bases.values()):
        data["bases"] = bases
    return data


def _point_json(point: Point, families: Mapping[str, str]) -> dict[str, Any]:
    masses = {}
    logs = {}
    sizes = {}
    for family in dict.fromkeys(families.values()):
        masses[family] = point.means(families, family)
        logs[family] = point.log10_right(families, family)
        sizes[family] = point.smallest_sample(families, family)
    data = {
        "step": point.step,
        "generated_tokens": point.generated_tokens,
        "families": masses,
        "log10_right": logs,
    }
    if point.sample_size:
        data["sample_size"] = sizes
    return data
