"""Masses of a pipeline's runs: of the policy before training, of snapshots, of the last policy.

Every run folder keeps its own (`flow.json`), so a stopped `critique-rl flow` goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import DELETE, EVALUATE, read_json, write_json
from critique_rl.config.resolved_run import to_dict
from critique_rl.config.run_folder import PipelineFolder, RunFolder
from critique_rl.config.schema import FlowConfig, Pipeline, RunConfig
from critique_rl.experiment.build import (
    load_start_policy,
    load_trained,
    load_weights,
    move_to_device,
)
from critique_rl.experiment.evaluate import training_sampling
from critique_rl.experiment.flow.masses import (
    Masses,
    listed_masses,
    problem_log_probs,
    sampled_shares,
    weighted_masses,
)
from critique_rl.experiment.flow.probes import (
    Probe,
    ProbedProblem,
    build_probes,
    judge_samples,
    probes_from_json,
    refuse_cut,
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
    seed: int
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
        ConfigError: No run is finished, or an arm's rollouts are not samples of the softmax.
    """
    jobs = []
    for arm, config in pipeline.arms.items():
        refuse_cut(training_sampling(config))
        path = probes_path(config, folder)
        for seed in pipeline.seeds:
            run = folder.run(arm, seed)
            if run.finished:
                jobs.append(FlowJob(config, seed, run, path))
    if not jobs:
        raise ConfigError(f"no finished run in {folder.path}; train them: critique-rl run")
    for job in jobs:
        if not job.probes.exists():
            tell("sampling the policy before training, for its own wrong answers")
            write_json(job.probes, make_probes(job.config))
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
    if flow.masses == "sampled":
        # Left out otherwise: probes of folders written before there was a choice keep their names.
        settings["masses"] = flow.masses
    digest = text_checksum(json.dumps(settings, sort_keys=True, default=str))[:12]
    return folder.probes / f"probes-{digest}.json"


def make_probes(config: RunConfig) -> dict[str, Any]:
    """Probes of a run's held-out problems, and the masses of its policy before training.

    Returns:
        {"probes": a ProbeSet as plain data, "base": its point, "base_logps": {problem's id:
        log-probs of its probes}, the last where probes are sampled}.
    """
    flow = flow_config(config)
    task = _task(config)
    model, tokenizer = load_start_policy(config)
    move_to_device(model)
    sampling = training_sampling(config)
    rows = task.held_out(config.evaluation.split, flow.problems)
    listed = flow.masses == "listed"
    probes = build_probes(model, tokenizer, task, rows, sampling, flow.samples, SEED, listed)
    data = {"probes": probes.to_json()}
    if probes.listed:
        return {**data, "base": point_of(listed_masses(model, probes), 0, 0)}
    logps = {}
    for problem in probes.problems:
        scored = problem_log_probs(model, problem, problem.probes, probes.temperature)
        logps[problem.id] = scored.tolist()
    return {**data, "base": point_of(sampled_shares(probes), 0, 0), "base_logps": logps}


def _task(config: RunConfig) -> Task:
    return load_task(replace(config.task, size=FEW_PROMPTS), 0)


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
    missing = [snapshot for snapshot in _snapshots(job) if snapshot.step not in points]
    if not missing:
        return 0
    scorer = Scorer(job)
    for snapshot in missing:
        masses = scorer.masses(snapshot.path)
        points[snapshot.step] = point_of(masses, snapshot.step, snapshot.generated_tokens)
        ordered = [points[step] for step in sorted(points)]
        write_json(job.folder.flow, {"probes": job.probes.name, "points": ordered})
    return len(missing)


def _snapshots(job: FlowJob) -> list[Snapshot]:
    """The weights of a run on the way, and the last ones."""
    evaluation = read_json(job.folder.evaluation, EVALUATE)
    cost = evaluation["cost"]
    # The policy that was judged may be the best on the way.
    best = evaluation.get("best", cost | {"step": cost["steps"]})
    step = int(best["step"])
    last = Snapshot(job.folder.model, step, int(cost["generated_tokens"]))
    earlier = [item for item in read_snapshots(job.folder, job.seed) if item.step < step]
    return [*earlier, last]


class Scorer:
    """Masses of the policies of one run."""

    def __init__(self, job: FlowJob):
        data = read_json(job.probes, DELETE)
        self.config = job.config
        self.folder = job.folder
        self.probes = probes_from_json(data["probes"])
        self.base_logps: dict[str, list[float]] = data.get("base_logps", {})
        self.task = _task(job.config)
        self.base: Any = None
        if not self.probes.listed:
            self.base, _ = load_start_policy(job.config)
            move_to_device(self.base)

    def masses(self, weights: Path) -> Masses:
        """The masses of a policy.

        Args:
            weights: The folder of its weights.
        """
        if weights == self.folder.model:
            evaluation = read_json(self.folder.evaluation, EVALUATE)
            model, tokenizer = load_trained(self.config, self.folder, evaluation)
        else:
            # An absolute path, which no Hub id can be taken for.
            model, tokenizer = load_weights(self.config, str(weights.resolve()))
        move_to_device(model)
        if self.probes.listed:
            return listed_masses(model, self.probes)
        return self._sampled_masses(model, tokenizer)

    def _sampled_masses(self, model: Any, tokenizer: Any) -> Masses:
        """Masses from the base's samples and as many of this policy, weighted."""
        flow = flow_config(self.config)
        rows = self.task.held_out(self.config.evaluation.split, flow.problems)
        prompts = [row["prompt"] for row in rows for _ in range(flow.samples)]
        sampling = training_sampling(self.config)
        answers = sample(model, tokenizer, prompts, sampling, SEED + 1)
        masses = {}
        sizes = {}
        for i, row in enumerate(rows):
            problem = self.probes.problems[i]
            answers_of_row = answers[i * flow.samples : (i + 1) * flow.samples]
            later = judge_samples(self.task, row, answers_of_row, problem.wrong_answers)
            result = self._weigh(model, problem, later)
            masses[problem.id], sizes[problem.id] = result
        return Masses(masses, sizes)

    def _weigh(
        self, model: Any, problem: ProbedProblem, later: Sequence[Probe]
    ) -> tuple[dict[str, float], float]:
        """Masses of one problem from the base's probes and `later` ones, and the sample size."""
        temperature = self.probes.temperature
        probes = [*problem.probes, *later]
        logps = problem_log_probs(model, problem, probes, temperature)
        before = torch.tensor(self.base_logps[problem.id])
        after = problem_log_probs(self.base, problem, later, temperature)
        base_logps = torch.cat([before, after.cpu()])
        kinds = [probe.kind for probe in probes]
        return weighted_masses(kinds, base_logps, logps.cpu(), len(problem.probes))
