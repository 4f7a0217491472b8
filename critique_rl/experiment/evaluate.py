"""Judge a policy: n samples per problem, verdicts, and the evaluation as eval.json holds it.

The same code judges the base, every arm and every point of a learning curve. The metrics are
`evaluation_metrics`'s.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.config.schema import RunConfig, TaskConfig
from critique_rl.config.split_rule import stored_options
from critique_rl.experiment.evaluation_metrics import all_metrics, tally
from critique_rl.experiment.flow.chances import true_chances
from critique_rl.prompts import render
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling, record
from critique_rl.sampling.tokens import prompts_digest
from critique_rl.tasks.judging import (
    count_lost,
    judge_in_portions,
    lost_sentences,
    unscored_reasons,
)
from critique_rl.tasks.task import Task
from critique_rl.trainer.presets import preset
from critique_rl.trainer.rollout.sampling_options import rollout_sampling
from critique_rl.types import Verdict, Verifier

logger = logging.getLogger(__name__)
PACKAGES = ("torch", "transformers", "trl")
"""Whose versions can change what is sampled."""
Row = Mapping[str, Any]


def judge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping[str, Any]],
    verifier: Verifier,
    samples: int,
    sampling: Sampling,
    seed: int = 0,
    abstains: bool = False,
) -> dict[str, Any]:
    """Sample `samples` answers to every row and judge them.

    Args:
        model: The policy.
        tokenizer: Its tokenizer, with a chat template where prompts are conversations.
        rows: Problems with "prompt", "id", "family", and what the verifier reads.
        verifier: (answer, row) -> verdict.
        samples: Answers per row.
        sampling: Decoding settings.
        seed: Of the samples; the caller's random state is left as it was.
        abstains: True where answers may abstain.

    Returns:
        {"problems": [{id, family, n, right, unscored, agreement, agreed_right}],
        "evaluation_tokens": ..., "unscored_reasons": {reason: count}}. n leaves unscored answers
        out. `agreement` is the share of the n that gave the commonest answer, `agreed_right`
        whether that answer is right. Where answers abstain, or may, there is `abstained` (how many
        did). Where they state a confidence, there is `stated` ([confidence, 1 right or 0] of each
        that did).
    """
    prompts = [row["prompt"] for row in rows for _ in range(samples)]
    answers = sample(model, tokenizer, prompts, sampling, seed)
    texts = [answer.text for answer in answers]
    answered_rows = [rows[answer.prompt // samples] for answer in answers]
    verdicts = judge_in_portions(verifier, texts, answered_rows)
    reasons = unscored_reasons(verdicts)
    for sentence in lost_sentences(count_lost(verdicts)).values():
        logger.warning("evaluation: %s", sentence)
    problems = []
    for i, row in enumerate(rows):
        verdicts_of_row = verdicts[i * samples : (i + 1) * samples]
        problems.append(tally(row, verdicts_of_row, abstains))
    tokens = sum(answer.tokens for answer in answers)
    return {"problems": problems, "evaluation_tokens": tokens, "unscored_reasons": reasons}


def evaluate_policy(
    model,
    tokenizer,
    rows: Sequence[Row],
    task: Task,
    config: RunConfig,
    samples: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Judge a policy on rows of a task by the decoding settings of a run; see `judge`."""
    # Some tasks judge evaluations by a stricter rule than training.
    verifier = task.evaluator or task.verifier
    sampling = evaluation_sampling(config)
    return judge(model, tokenizer, rows, verifier, samples, sampling, seed, task.abstains)


def second_verdicts(
    model,
    tokenizer,
    verifier: Verifier,
    prompts: Sequence[Any],
    rows: Sequence[Any],
    sampling: Sampling,
    seed: int,
) -> list[Verdict]:
    """Sample one second answer per refine prompt and judge it as an answer to its row.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        verifier: (answer, row) -> verdict.
        prompts: Refine prompts.
        rows: The problem of each prompt.
        sampling: Decoding settings.
        seed: Of the samples.
    """
    if not prompts:
        return []
    answers = sample(model, tokenizer, prompts, sampling, seed)
    return judge_in_portions(verifier, [answer.text for answer in answers], rows)


def training_sampling(config: RunConfig) -> Sampling:
    """The decoding settings of a run's rollouts."""
    return rollout_sampling(rollout_options(config))


def rollout_options(config: RunConfig) -> dict[str, Any]:
    """TRL's arguments of a run that are no defaults."""
    preset_options = preset(config.preset) if config.preset else {}
    return {**preset_options, **config.trl, **config.method}


def evaluation_sampling(config: RunConfig) -> Sampling:
    """The decoding settings of a run's evaluations: those of its rollouts, but for temperature and
    top_p.
    """
    sampling = training_sampling(config)
    further = dict(sampling.generation_kwargs)
    for name in ("temperature", "top_p"):
        further.pop(name, None)
    evaluation = config.evaluation
    return replace(
        sampling,
        temperature=evaluation.temperature,
        top_p=evaluation.top_p,
        generation_kwargs=further,
    )


def final_evaluation(
    model, tokenizer, task: Task, config: RunConfig, about: dict[str, Any], seed: int = 1
) -> dict[str, Any]:
    """The held-out evaluation as eval.json holds it.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        task: Its held-out problems and verifier.
        config: The run.
        about: Arm, seed and cost, to which the tokens of this evaluation are added.
        seed: Of the samples, not of the problems.
    """
    evaluation = config.evaluation
    rows = task.held_out(evaluation.split, evaluation.problems)
    sampling = evaluation_sampling(config)

    def judge_rows(rows: Sequence[Row]) -> dict[str, Any]:
        judged = evaluate_policy(model, tokenizer, rows, task, config, evaluation.samples, seed)
        if evaluation.exact:
            _add_chances(judged["problems"], true_chances(model, tokenizer, task, rows, sampling))
        prompts = [row["prompt"] for row in rows]
        tokens = about["cost"].get("evaluation_tokens", 0)
        about["cost"]["evaluation_tokens"] = tokens + judged["evaluation_tokens"]
        # Left out if empty: then the file is what it was before this key existed.
        reasons = {name: judged[name] for name in ("unscored_reasons",) if judged[name]}
        return {
            **reasons,
            "prompts": prompts_digest(tokenizer, prompts, sampling.chat_template_kwargs),
            "problems": judged["problems"],
            "metrics": all_metrics(judged["problems"], evaluation.ks),
        }

    results = judge_rows(rows)
    template = evaluation.second_template
    if template:
        results["second"] = {"template": template, **judge_rows(_reword(rows, template))}
    return {
        **about,
        "split": evaluation.split,
        "samples": evaluation.samples,
        **sampling_record(model, tokenizer, sampling),
        "task": task_settings(config.task),
        **results,
        "versions": versions(),
        "machine": machine(),
    }


def _add_chances(problems: Sequence[dict[str, Any]], chances: Sequence[float] | None) -> None:
    """Give each problem the chance of a true answer to it."""
    if chances is None:
        logger.warning(
            "evaluation.exact: left out, since this policy's tokenizer has several spellings of "
            "one answer, and a list holds one of them"
        )
        return
    for problem, chance in zip(problems, chances, strict=True):
        problem["chance"] = chance


def _reword(rows: Sequence[Row], template: str) -> list[dict[str, Any]]:
    """The same problems, asked by a template of prompts/ that reads `question`."""
    reworded = []
    for row in rows:
        message = {"role": "user", "content": render(template, question=row["question"])}
        reworded.append({**row, "prompt": [message]})
    return reworded


def sampling_record(model: Any, tokenizer: Any, sampling: Sampling) -> dict[str, Any]:
    """The decoding settings as eval.json holds them; `sampler` only where it says something."""
    about: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_new_tokens": sampling.max_new_tokens,
        "batch": sampling.batch,
    }
    sampler = record(tokenizer, model.generation_config, sampling)
    if sampler:
        about["sampler"] = sampler
    return about


def task_settings(task: TaskConfig) -> dict[str, Any]:
    """The settings that choose the held-out problems and judge them."""
    # How many problems are trained on changes no held-out one.
    options = stored_options(task.name, task.options)
    settings: dict[str, Any] = {"name": task.name, "options": options}
    if task.verifier:
        settings["verifier"] = task.verifier
    return settings


def versions() -> dict[str, str]:
    """Versions of Python and of `PACKAGES`."""
    packages = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), **packages}


def machine() -> dict[str, Any]:
    """The kind of machine a run ran on, without the machine's name."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "device": device,
        # Sums in float32 depend on how many threads share them.
        "torch_threads": torch.get_num_threads(),
    }
