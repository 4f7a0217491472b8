"""n samples a problem -> verdicts -> unbiased pass@k per family. The same code judges the base,
every arm and every point of a learning curve.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.config.schema import RunConfig, TaskConfig
from critique_rl.metrics import (
    SHARES,
    auroc,
    brier_score,
    expected_calibration_error,
    pass_at_k,
    shares,
    truthfulness,
)
from critique_rl.prompts import render
from critique_rl.sampling import Sampling, render_prompt, sample
from critique_rl.tasks.task import Task
from critique_rl.types import Verdict, Verifier

PACKAGES = ("torch", "transformers", "trl")
"""Whose versions can change what is sampled."""


def judge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    verifier: Verifier,
    samples: int,
    sampling: Sampling,
    seed: int = 0,
    abstains: bool = False,
) -> dict[str, Any]:
    """`samples` answers to every row, judged: {"problems": [{id, family, n, right, unscored,
    agreement, agreed_right}], "evaluation_tokens": ...}.

    n leaves unscored answers out. `agreement` is the share of the n that gave the commonest answer,
    `agreed_right` whether that answer is right. Where answers abstain (or may: `abstains`) or state
    a confidence there are `abstained` (how many did) and `stated` ([confidence, 1 right or 0] of
    each that did).
    """
    prompts = [row["prompt"] for row in rows for _ in range(samples)]
    answers = sample(model, tokenizer, prompts, sampling, seed)
    verdicts = [verifier(answer.text, rows[answer.prompt // samples]) for answer in answers]
    problems = [
        _tally(row, verdicts[i * samples : (i + 1) * samples], abstains)
        for i, row in enumerate(rows)
    ]
    return {"problems": problems, "evaluation_tokens": sum(answer.tokens for answer in answers)}


def _tally(
    row: dict[str, Any], verdicts: Sequence[Verdict], abstains: bool = False
) -> dict[str, Any]:
    judged = [verdict for verdict in verdicts if verdict.outcome != "unscored"]
    right = sum(verdict.outcome == "right" for verdict in judged)
    counts = {"n": len(judged), "right": right, "unscored": len(verdicts) - len(judged)}
    return {
        "id": row["id"],
        "family": row["family"],
        **counts,
        **_agreement(judged),
        **_self_assessment(judged, abstains),
    }


def _self_assessment(judged: Sequence[Verdict], abstains: bool) -> dict[str, Any]:
    """What answers say of themselves; {} for tasks that ask for neither."""
    abstained = sum(verdict.outcome == "abstained" for verdict in judged)
    stated = [
        [verdict.confidence, int(verdict.outcome == "right")]
        for verdict in judged
        if verdict.confidence is not None
    ]
    return ({"abstained": abstained} if abstained or abstains else {}) | (
        {"stated": stated} if stated else {}
    )


def _agreement(judged: Sequence[Verdict]) -> dict[str, Any]:
    """Self-consistency as a confidence (Wang et al. 2023, arXiv 2203.11171): how many agree on the
    commonest answer, and whether it is right.
    """
    votes = Counter(verdict.answer for verdict in judged if verdict.answer is not None)
    if not votes:
        return {"agreement": None, "agreed_right": None}
    answer, count = votes.most_common(1)[0]
    return {
        "agreement": count / len(judged),
        "agreed_right": any(v.outcome == "right" for v in judged if v.answer == answer),
    }


def _by_family(problems: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for problem in problems:
        families[problem["family"]].append(problem)
    return families


def share_metrics(problems: Sequence[dict[str, Any]]) -> dict[str, float]:
    """{"<share>/<family>": mean over problems} for `metrics.SHARES`, and "/all" over the families'
    means, where every family has it.
    """
    families, metrics = _by_family(problems), {}
    found = {
        family: [shares(p["n"], p["right"], p.get("abstained"), p["agreement"]) for p in members]
        for family, members in families.items()
    }
    for name in SHARES:
        values = {
            family: [row[name] for row in rows if name in row] for family, rows in found.items()
        }
        means = {family: float(np.mean(of)) for family, of in values.items() if of}
        metrics |= {f"{name}/{family}": mean for family, mean in means.items()}
        if means and len(means) == len(families):
            metrics[f"{name}/all"] = float(np.mean(list(means.values())))
    return metrics


def pass_metrics(problems: Sequence[dict[str, Any]], ks: Sequence[int]) -> dict[str, float]:
    """{"pass@<k>/<family>": mean over problems}, and "/all" over the families' means; ks larger
    than n are left out.
    """
    families, metrics = _by_family(problems), {}
    for k in ks:
        values = {family: _mean_pass(members, k) for family, members in families.items()}
        metrics |= {
            f"pass@{k}/{family}": value for family, value in values.items() if not np.isnan(value)
        }
        if values and not any(np.isnan(value) for value in values.values()):
            metrics[f"pass@{k}/all"] = float(np.mean(list(values.values())))
    return metrics


def self_metrics(problems: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Calibration of stated confidences ("ece", "brier", "auroc") and truthfulness ("truthfulness",
    "hallucination", "abstention"), where a task has them.
    """
    stated = [pair for problem in problems for pair in problem.get("stated", ())]
    found = {}
    if stated:
        confidence, right = zip(*stated, strict=True)
        values = {
            "ece": expected_calibration_error(confidence, right),
            "brier": brier_score(confidence, right),
            "auroc": auroc(confidence, right),
        }
        found |= {name: value for name, value in values.items() if not np.isnan(value)}
    total, right, abstained = (
        sum(problem.get(key, 0) for problem in problems) for key in ("n", "right", "abstained")
    )
    if any("abstained" in problem for problem in problems):
        outcomes = (
            ["right"] * right + ["abstained"] * abstained + ["wrong"] * (total - right - abstained)
        )
        found |= {
            name: value for name, value in truthfulness(outcomes).items() if name != "accuracy"
        }
    return found


def _mean_pass(problems: Sequence[dict[str, Any]], k: int) -> float:
    values = np.array(
        [pass_at_k(problem["n"], problem["right"], k) for problem in problems], dtype=float
    )
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def evaluate_policy(
    model, tokenizer, rows, task: Task, config: RunConfig, samples: int, seed: int = 0
) -> dict[str, Any]:
    """Judge a policy on rows with the run's decoding settings."""
    return judge(
        model,
        tokenizer,
        rows,
        task.evaluator or task.verifier,
        samples,
        sampling_of(config),
        seed,
        task.abstains,
    )


def second_verdicts(
    model,
    tokenizer,
    verifier: Verifier,
    prompts: Sequence[Any],
    rows: Sequence[Any],
    sampling: Sampling,
    seed: int,
) -> list[Verdict]:
    """Sample one second answer to each refine prompt and judge it as an answer to its row."""
    answers = sample(model, tokenizer, prompts, sampling, seed) if prompts else []
    return [verifier(answer.text, row) for answer, row in zip(answers, rows, strict=True)]


def sampling_of(config: RunConfig) -> Sampling:
    """The run's decoding settings."""
    evaluation = config.evaluation
    return Sampling(
        evaluation.temperature, evaluation.top_p, int(config.trl.get("max_completion_length", 256))
    )


def final_evaluation(
    model, tokenizer, task: Task, config: RunConfig, about: dict[str, Any], seed: int = 1
) -> dict[str, Any]:
    """The held-out evaluation as eval.json holds it; `seed` is of the samples, not of the problems."""
    evaluation, rows = (
        config.evaluation,
        task.held_out(config.evaluation.split, config.evaluation.problems),
    )

    def part(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        judged = evaluate_policy(model, tokenizer, rows, task, config, evaluation.samples, seed)
        about["cost"]["evaluation_tokens"] = (
            about["cost"].get("evaluation_tokens", 0) + judged["evaluation_tokens"]
        )
        problems = judged["problems"]
        metrics = {
            **pass_metrics(problems, evaluation.ks),
            **self_metrics(problems),
            **share_metrics(problems),
        }
        return {"prompts": _digest(tokenizer, rows), "problems": problems, "metrics": metrics}

    first, template = part(rows), evaluation.second_template
    second = (
        {"second": {"template": template, **part(_reworded(rows, template))}} if template else {}
    )
    return {
        **about,
        "split": evaluation.split,
        "samples": evaluation.samples,
        **asdict(sampling_of(config)),
        "task": asdict_task(config.task),
        **first,
        **second,
        "versions": versions(),
        "machine": machine(),
    }


def _reworded(rows: Sequence[dict[str, Any]], template: str) -> list[dict[str, Any]]:
    """The same problems, asked by a template of prompts/ that reads `question`."""
    return [
        {**row, "prompt": [{"role": "user", "content": render(template, question=row["question"])}]}
        for row in rows
    ]


def _digest(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict[str, Any]]) -> str:
    """A hash of the prompts as the policy reads them, chat template included: two evaluations with
    another one asked other questions.
    """
    prompts = (render_prompt(tokenizer, row["prompt"]) for row in rows)
    return hashlib.sha256("\0".join(prompts).encode()).hexdigest()[:16]


def asdict_task(task: TaskConfig) -> dict[str, Any]:
    """What names the problems and judges them: the task, its options and verifier, not how many are
    trained on.
    """
    return {
        "name": task.name,
        "options": dict(task.options),
        **({"verifier": task.verifier} if task.verifier else {}),
    }


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def machine() -> dict[str, Any]:
    """Where a run ran, without the machine's name."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
        "torch_threads": threads,
    }
