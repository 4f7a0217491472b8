"""Critics tried before the run: the share of the same failed rollouts that each rescues, beside
`retry`, and its cost.

- right: a question's share of failed rollouts whose refinement is right, averaged over questions
- rescued: share of questions with a right refinement of any of their failed rollouts

Differences from `retry` are paired by question, with a 95 % interval over questions. A rollout
without a critique counts as not right: a critic that fails half of the time is half as useful. Left
out: training. A critic that rescues nothing cannot help; one that does still has to be compared by
`critique-rl run`.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.durable_files import read_json, write_json
from critique_rl.config.resolved_run import run_defaults, to_dict
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import RunConfig
from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.contract import Critic, CriticFailed, Reply, read_answer
from critique_rl.critic.thoughts import sampled_answer
from critique_rl.experiment.evaluate import sampling_record, second_verdicts, training_sampling
from critique_rl.experiment.same_config import fill_defaults
from critique_rl.intervals import Interval, share_contrast_interval, share_interval
from critique_rl.prompts import special_tokens
from critique_rl.sampling.sample import prompt_lengths, sample
from critique_rl.sampling.settings import Sampling
from critique_rl.tasks.judging import judge_in_portions
from critique_rl.tasks.task import Row, Task
from critique_rl.trainer.rollout.refine import refine_prompt
from critique_rl.types import Attempt, Critique, Usage

RETRY = "retry"
BANK_SEED = 11
"""Seed of the failed rollouts."""
REFINE_SEED = 12
"""Seed of refinements, the same for every critic."""
NO_CONTEXT_LIMIT = 1 << 30
"""Tokens, for models whose config names no largest position."""
STEP = 64
"""Attempts that a critic is asked about at a time, about as many as in a step of training."""


@dataclass(frozen=True)
class BenchSize:
    """Which failed rollouts are critiqued."""

    problems: int = 50
    """Held-out questions per family."""
    samples: int = 4
    """Rollouts per question."""
    attempts: int = 200
    """Failed rollouts at most, spread over questions."""
    split: str = "validation"
    family: str = ""
    """One family of questions alone, such as the one that is a plateau; "": all."""


@dataclass(frozen=True)
class BenchResult:
    """One critic's results. Sequences over questions are in the bank's order."""

    critic: str
    right: Sequence[float]
    """Per question, the share of its failed rollouts with a right refinement."""
    rescued: Sequence[bool]
    """Per question, whether any of them has one."""
    reasons: Mapping[str, int]
    """Failures and skips by status and reason, notes by name."""
    leaked: int
    """Critiques that gave the answer away."""
    usage: Usage
    seconds: Sequence[float]
    """Of each call, or each attempt's share of one; empty for rules."""
    as_oracle: float | None = None
    """Share of the attempts on which the critic gives, word for word, the critique of the task's
    checker; None if the task has none.
    """


# ---- the bank ------------------------------------------------------------------------------------


def failed_rollouts(
    model, tokenizer, task: Task, config: RunConfig, size: BenchSize, folder: PipelineFolder
) -> list[Attempt]:
    """The bank of failed rollouts. It is sampled once for a policy, task and size, and then read
    from the run folder.

    Raises:
        ConfigError: no question is of the family, or no rollout failed.
    """
    settings = to_dict(config)
    sampling = training_sampling(config)
    about = {
        "size": asdict(size),
        "sampling": sampling_record(model, tokenizer, sampling),
        "task": settings["task"],
        "policy": settings["policy"],
    }
    rows = _bank_rows(task, size)
    stored = read_json(folder.bank)
    # A bank of other settings would be another policy's failures.
    # One of an earlier version lacks options that had no other value then.
    defaults = {"policy": run_defaults()["policy"]}
    if fill_defaults(defaults, stored.get("about", {})) != about:
        questions = list(rows.values())
        sampled = _sample_failed(model, tokenizer, task, questions, size, sampling)
        stored = {"about": about, "attempts": sampled}
        write_json(folder.bank, stored)
    texts = _spread(stored["attempts"], size.attempts)
    if not texts:
        raise ConfigError(
            f"no rollout failed of {len(rows)} questions with {size.samples} samples each: "
            "there is nothing to critique; take harder problems"
        )
    tried_rows = [rows[row_id] for row_id, _ in texts]
    verdicts = judge_in_portions(task.verifier, [text for _, text in texts], tried_rows)
    attempts = []
    for (_, text), row, verdict in zip(texts, tried_rows, verdicts, strict=True):
        attempt = Attempt(str(row["question"]), text, verdict, row)
        attempts.append(attempt)
    return attempts


def _bank_rows(task: Task, size: BenchSize) -> dict[str, Row]:
    """Questions of the bank by id.

    Raises:
        ConfigError: no question is of the family.
    """
    held_out = task.held_out(size.split, size.problems)
    rows = {}
    for row in held_out:
        if size.family in ("", row["family"]):
            rows[str(row["id"])] = row
    if not rows:
        families = {str(row["family"]) for row in held_out}
        suggestion = suggest(size.family, families)
        raise ConfigError(f"--family: no question of family {size.family!r}; {suggestion}")
    return rows


def _sample_failed(
    model, tokenizer, task: Task, rows: Sequence[Row], size: BenchSize, sampling: Sampling
) -> list[list[str]]:
    """[id of the row, text] of each failed rollout."""
    repeated = [row for row in rows for _ in range(size.samples)]
    prompts = [row["prompt"] for row in repeated]
    answers = sample(model, tokenizer, prompts, sampling, BANK_SEED)
    verdicts = judge_in_portions(task.verifier, [answer.text for answer in answers], repeated)
    failed = []
    for row, answer, verdict in zip(repeated, answers, verdicts, strict=True):
        if verdict.failed:
            failed.append([str(row["id"]), answer.text])
    return failed


def _spread(attempts: Sequence[Sequence[str]], most: int) -> list[tuple[str, str]]:
    """At most `most` attempts: the first one of each question, then a second of each, and so on.
    They are returned in the order of questions.
    """
    counts: Counter[str] = Counter()
    ranked = []
    for number, (row_id, text) in enumerate(attempts):
        earlier = counts[row_id]
        ranked.append((earlier, number, row_id, text))
        counts[row_id] += 1
    kept = sorted(ranked)[:most]
    kept.sort(key=lambda entry: entry[1])
    return [(row_id, text) for _, _, row_id, text in kept]


# ---- one critic ----------------------------------------------------------------------------------


def bench_critic(
    critic: Critic,
    name: str,
    attempts: Sequence[Attempt],
    model,
    tokenizer,
    task: Task,
    config: RunConfig,
) -> BenchResult:
    """Ask the critic, refine each attempt once, and judge the refinements."""
    lend_policy(critic, model, tokenizer, config)
    critiques, waited = _ask(critic, name, attempts)
    right = _right_refinements(attempts, critiques, model, tokenizer, task, config)
    right_by_question: dict[str, list[bool]] = defaultdict(list)
    for i, attempt in enumerate(attempts):
        outcomes = right_by_question[str(attempt.row["id"])]
        outcomes.append(i in right)
    questions = list(right_by_question.values())
    usages = [critique.usage for critique in critiques]
    usage = sum(usages, Usage())
    seconds = [call.seconds for call in usages if call.seconds > 0]
    # A model in this process answers all attempts in one pass and times no call. Each attempt's
    # share of the pass stands for it.
    if not seconds and usage.completion_tokens:
        seconds = waited
    return BenchResult(
        critic=name,
        right=[sum(outcomes) / len(outcomes) for outcomes in questions],
        rescued=[any(outcomes) for outcomes in questions],
        reasons=_count_reasons(critiques),
        leaked=sum(critique.leaked for critique in critiques),
        usage=usage,
        seconds=seconds,
        as_oracle=_share_as_oracle(task, attempts, critiques),
    )


def _ask(
    critic: Critic, name: str, attempts: Sequence[Attempt]
) -> tuple[list[Critique], list[float]]:
    """Critiques, one per attempt, and each attempt's share of the seconds waited for them."""
    critiques: list[Critique] = []
    waited: list[float] = []
    try:
        for piece in _pieces(attempts):
            start = time.perf_counter()
            critiques += critic.critique(piece)
            elapsed = time.perf_counter() - start
            share = elapsed / len(piece)
            waited += [share] * len(piece)
    except (CriticFailed, ValueError) as error:
        # One broken critic must not end the bench of the others: it becomes a row of failures.
        reason = f"{type(error).__name__}: {error}"[:120]
        failure = Critique("", name, "failed", reason)
        critiques = [failure] * len(attempts)
    return critiques, waited


def _right_refinements(
    attempts: Sequence[Attempt],
    critiques: Sequence[Critique],
    model,
    tokenizer,
    task: Task,
    config: RunConfig,
) -> set[int]:
    """Indices of the attempts whose one refinement is right."""
    template = config.method.get("refine_template", f"{task.prompts}refine")
    specials = special_tokens(tokenizer)
    usable = [i for i, critique in enumerate(critiques) if critique.status == "ok"]
    rows = [attempts[i].row for i in usable]
    prompts = []
    for i in usable:
        attempt = attempts[i]
        prompt = attempt.row["prompt"]
        prompts.append(refine_prompt(prompt, attempt, critiques[i], template, specials))
    sampling = training_sampling(config)
    verdicts = second_verdicts(
        model, tokenizer, task.verifier, prompts, rows, sampling, REFINE_SEED
    )
    judged = zip(usable, verdicts, strict=True)
    return {i for i, verdict in judged if verdict.outcome == "right"}


def _count_reasons(critiques: Sequence[Critique]) -> dict[str, int]:
    reasons: Counter[str] = Counter()
    for critique in critiques:
        if critique.status != "ok":
            reasons[f"{critique.status}: {critique.reason}"] += 1
    for critique in critiques:
        reasons.update(critique.notes)
    return dict(reasons)


def _share_as_oracle(
    task: Task, attempts: Sequence[Attempt], critiques: Sequence[Critique]
) -> float | None:
    if task.oracle is None or not attempts:
        return None
    same = 0
    for attempt, critique in zip(attempts, critiques, strict=True):
        oracle_text = task.oracle(attempt)
        if critique.text == oracle_text:
            same += 1
    return same / len(attempts)


def _pieces(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Attempts in pieces about as large as a step's, each question in one of them."""
    # Critics have deadlines per step, and may see the group of a question.
    pieces: list[list[Attempt]] = [[]]
    for attempt in attempts:
        piece = pieces[-1]
        if len(piece) >= STEP:
            previous = piece[-1]
            if attempt.row["id"] != previous.row["id"]:
                piece = []
                pieces.append(piece)
        piece.append(attempt)
    return pieces


def lend_policy(critic: Critic, model, tokenizer, config: RunConfig) -> None:
    """Have this policy answer a `self` critic, as the trainer does with the one in training."""
    chat = getattr(critic, "chat", None)
    if not isinstance(chat, PolicyChat):
        return

    def answer(conversations: Sequence[Any]) -> list[Reply]:
        if not conversations:
            return []
        sampling = training_sampling(config)
        lengths = prompt_lengths(tokenizer, conversations, sampling.chat_template_kwargs)
        context = getattr(model.config, "max_position_embeddings", None) or NO_CONTEXT_LIMIT
        limit = config.method.get("max_refine_prompt_length") or context - sampling.max_new_tokens
        asked = [i for i, length in enumerate(lengths) if length <= limit]
        prompts = [conversations[i] for i in asked]
        answers = sample(model, tokenizer, prompts, sampling, BANK_SEED)
        replies = [Reply("", "failed", "prompt_too_long") for _ in lengths]
        for i, reply in zip(asked, answers, strict=True):
            usage = Usage(lengths[i], reply.tokens)
            cleaned = sampled_answer(
                tokenizer, reply.prompt_ids, reply.ids, reply.text, reply.truncated
            )
            replies[i] = read_answer(cleaned, reply.truncated, usage)
        return replies

    chat.sample = answer
    chat.specials = special_tokens(tokenizer)


# ---- figures -------------------------------------------------------------------------------------


def figures(rows: Sequence[BenchResult], attempts: int) -> dict[str, Any]:
    """The bench as plain data; intervals are {"mean", "ci95"}, as `as_json` gives them.

    Args:
        rows: One result per critic, `retry` among them.
        attempts: Failed rollouts in the bank.
    """
    control = next(row for row in rows if row.critic == RETRY)
    # A question's share of right refinements is of so many tries.
    tries = max(1.0, attempts / max(1, len(control.right)))
    return {
        "attempts": attempts,
        "questions": len(control.right),
        "critics": {row.critic: _critic_figures(row, control, tries) for row in rows},
    }


def _critic_figures(row: BenchResult, control: BenchResult, tries: float) -> dict[str, Any]:
    usage = row.usage
    percentiles: list[float] | list[None] = [None, None]
    # Rules make no calls, so they have no seconds.
    if row.seconds:
        percentiles = np.percentile(row.seconds, [50, 95]).tolist()
    return {
        "right": _share(row.right, tries),
        "right_minus_retry": _difference(row.right, control.right, tries),
        "rescued": _share(row.rescued),
        "rescued_minus_retry": _difference(row.rescued, control.rescued),
        "as_oracle": row.as_oracle,
        "leaked": row.leaked,
        "reasons": dict(row.reasons),
        "critic_tokens": usage.prompt_tokens + usage.completion_tokens,
        "usd": usage.usd,
        "seconds_p50": percentiles[0],
        "seconds_p95": percentiles[1],
    }


def _share(values_Q: Sequence[float], tries: float = 1.0) -> dict[str, Any]:
    """The mean of shares, one per question, with its interval over questions."""
    # One row: a bench has one seed, so only questions vary.
    return as_json(share_interval([values_Q], tries))


def _difference(
    values_Q: Sequence[float], control_Q: Sequence[float], tries: float = 1.0
) -> dict[str, Any]:
    """The mean difference from the control at the same questions, with its interval."""
    arms = [[values_Q], [control_Q]]
    return as_json(share_contrast_interval((1, -1), arms, tries))


def as_json(interval: Interval) -> dict[str, Any]:
    """{"mean": ..., "ci95": [low, high]}, with ci95 None for a single value."""
    ends = None
    if not math.isnan(interval.low):
        ends = [interval.low, interval.high]
    return {"mean": interval.mean, "ci95": ends}
