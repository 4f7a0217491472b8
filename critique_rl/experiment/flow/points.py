"""Masses of a pipeline's runs: of the policy before training, of snapshots, of the last policy.

Every run folder keeps its own (`flow.json`), so a stopped `critique-rl flow` goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from critique_rl.analysis.flow.classes import CLASSES
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import DELETE, EVALUATE, read_json, write_json
from critique_rl.config.resolved_run import to_dict
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.schema import FlowConfig, Pipeline, RunConfig
from critique_rl.experiment.build import load_start_policy, load_weights, move_to_device
from critique_rl.experiment.evaluate import training_sampling
from critique_rl.experiment.flow.masses import (
    Masses,
    listed_masses,
    log_probs,
    weighted_masses,
)
from critique_rl.experiment.flow.probes import (
    ProbeSet,
    build_probes,
    judge_samples,
    probes_from_json,
)
from critique_rl.experiment.flow.snapshots import Snapshot, read_snapshots
from critique_rl.hashing import text_checksum
from critique_rl.sampling.sample import sample
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task

SEED = 64
"""Of the samples, the same for every pipeline."""
FEW_PROMPTS = 16
"""Training prompts of a task whose held-out problems alone are read."""
Progress = Callable[[str], None]
"""Called with a line of words."""


@dataclass(frozen=True)
class FlowJob:
    """One run whose masses are asked."""

    config: RunConfig
    folder: RunFolder
    probes: Path
    """The file of its probes."""


def prepare(pipeline: Pipeline, folder: PipelineFolder, tell: Progress) -> list[FlowJob]:
    """Make the probes that the pipeline's finished runs need.

    Args:
        pipeline: The experiment.
        folder: Its results.
        tell: Called with a line per policy.

    Returns:
        One job per finished run.

    Raises:
        ConfigError: No run is finished.
    """
    jobs = []
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            run = folder.run(arm, seed)
            if run.finished:
                jobs.append(FlowJob(config, run, probes_path(config, folder)))
    if not jobs:
        raise ConfigError(f"no finished run in {folder.path}; train them: critique-rl run")
    for path in dict.fromkeys(job.probes for job in jobs):
        if not path.exists():
            tell("sampling the policy before training, for its own wrong answers")
            config = next(job.config for job in jobs if job.probes == path)
            write_json(path, make_probes(config))
    return jobs


def flow_config(config: RunConfig) -> FlowConfig:
    """The run's `flow:` section, or the defaults."""
    return config.flow or FlowConfig()


def probes_path(config: RunConfig, folder: PipelineFolder) -> Path:
    """The file of the probes that a run's masses are asked of."""
    flow = flow_config(config)
    data = to_dict(config)
    settings = {
        "task": {key: data["task"][key] for key in ("name", "options", "verifier")},
        "policy": data["policy"],
        "split": config.evaluation.split,
        "problems": flow.problems,
        "samples": flow.samples,
        "sampling": asdict(training_sampling(config)),
    }
    digest = text_checksum(json.dumps(settings, sort_keys=True, default=str))[:12]
    return folder.probes / f"probes-{digest}.json"


def make_probes(config: RunConfig) -> dict[str, Any]:
    """Probes of a run's held-out problems, and the masses of its policy before training."""
    flow = flow_config(config)
    task = _task(config)
    model, tokenizer = load_start_policy(config)
    move_to_device(model)
    sampling = training_sampling(config)
    rows = task.held_out(config.evaluation.split, flow.problems)
    probes = build_probes(model, tokenizer, task, rows, sampling, flow.samples, SEED)
    data = probes.to_json()
    if probes.listed:
        return {**data, "base": point_of(listed_masses(model, probes), 0, 0)}
    base_logps = {}
    for problem in probes.problems:
        prompts = [problem.prompt_ids] * len(problem.probes)
        completions = [probe.ids for probe in problem.probes]
        logps = log_probs(model, prompts, completions, probes.temperature)
        base_logps[problem.id] = logps.tolist()
    masses = _base_masses(probes)
    return {**data, "base_logps": base_logps, "base": point_of(masses, 0, 0)}


def _task(config: RunConfig) -> Task:
    return load_task(replace(config.task, size=FEW_PROMPTS), 0)


def _base_masses(probes: ProbeSet) -> Masses:
    """Masses of the policy that the probes were sampled from: their shares."""
    problems = {}
    sizes = {}
    for problem in probes.problems:
        masses = dict.fromkeys(CLASSES, 0.0)
        for probe in problem.probes:
            masses[probe.kind] += 1 / len(problem.probes)
        problems[problem.id] = masses
        sizes[problem.id] = float(len(problem.probes))
    return Masses(problems, sizes)


def point_of(masses: Masses, step: int, tokens: int) -> dict[str, Any]:
    """One point of a series as plain data."""
    point = {"step": step, "generated_tokens": tokens, "problems": masses.problems}
    if masses.sample_size:
        return {**point, "sample_size": masses.sample_size}
    return point


def score_run(job: FlowJob) -> int:
    """Write the masses of one run, those that it lacks; returns how many points were new."""
    stored = read_json(job.folder.flow)
    points = {}
    if stored.get("probes") == job.probes.name:
        points = {point["step"]: point for point in stored["points"]}
    snapshots = _snapshots(job)
    missing = [snapshot for snapshot in snapshots if snapshot.step not in points]
    if not missing:
        return 0
    data = read_json(job.probes, DELETE)
    probes = probes_from_json(data)
    task = _task(job.config)
    for snapshot in missing:
        model, tokenizer = load_weights(job.config, str(snapshot.path.resolve()))
        move_to_device(model)
        if probes.listed:
            masses = listed_masses(model, probes)
        else:
            masses = _sampled_masses(job.config, model, tokenizer, task, probes, data["base_logps"])
        points[snapshot.step] = point_of(masses, snapshot.step, snapshot.generated_tokens)
        ordered = [points[step] for step in sorted(points)]
        write_json(job.folder.flow, {"probes": job.probes.name, "points": ordered})
    return len(missing)


def _snapshots(job: FlowJob) -> list[Snapshot]:
    """The weights of a run on the way, and the last ones."""
    evaluation = read_json(job.folder.evaluation, EVALUATE)
    cost = evaluation["cost"]
    # The policy that was judged may be the best on the way.
    step = int(evaluation.get("best", {}).get("step", cost["steps"]))
    tokens = int(cost["generated_tokens"])
    last = Snapshot(job.folder.model, step, tokens)
    earlier = [item for item in read_snapshots(job.folder) if item.step < step]
    return [*earlier, last]


def _sampled_masses(
    config: RunConfig,
    model: Any,
    tokenizer: Any,
    task: Task,
    probes: ProbeSet,
    base_logps: dict[str, Sequence[float]],
) -> Masses:
    """Masses from the base's samples and as many of this policy, weighted."""
    import torch

    flow = flow_config(config)
    rows = task.held_out(config.evaluation.split, flow.problems)
    prompts = [row["prompt"] for row in rows for _ in range(flow.samples)]
    answers = sample(model, tokenizer, prompts, training_sampling(config), SEED + 1)
    base, _ = load_start_policy(config)
    move_to_device(base)
    masses = {}
    sizes = {}
    for i, (row, problem) in enumerate(zip(rows, probes.problems, strict=True)):
        own = judge_samples(
            task,
            row,
            answers[i * flow.samples : (i + 1) * flow.samples],
            problem.wrong_answers,
        )
        every = [*problem.probes, *own]
        ids = [probe.ids for probe in every]
        now = log_probs(model, [problem.prompt_ids] * len(ids), ids, probes.temperature)
        own_ids = [probe.ids for probe in own]
        own_base = log_probs(
            base, [problem.prompt_ids] * len(own_ids), own_ids, probes.temperature
        )
        before = torch.cat([torch.tensor(base_logps[problem.id]), own_base.cpu()])
        kinds = [probe.kind for probe in every]
        masses[problem.id], sizes[problem.id] = weighted_masses(
            kinds, before, now.cpu(), len(problem.probes)
        )
    return Masses(masses, sizes)
