"""Critics tried before the run: what each rescues of the same failed rollouts of the policy, beside
`retry`, and what it costs.

    right      a question's share of failed rollouts whose refinement is right, averaged over questions
    rescued    share of questions with a right refinement of any of their failed rollouts

Differences from `retry` are paired by question, with a 95 % interval over questions. What got no
critique counts as not right: a critic that fails half of the time is half as useful. Left out:
training; a critic that rescues nothing cannot help, one that does still has to be compared by
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
from critique_rl.config.resolved_run import to_dict
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import RunConfig
from critique_rl.critic.chat import PolicyChat
from critique_rl.critic.contract import Critic, CriticFailed, Reply
from critique_rl.experiment.evaluate import sampling_of, second_verdicts
from critique_rl.metrics import Interval, crossed_interval
from critique_rl.prompts import special_tokens
from critique_rl.sampling import Sampling, prompt_lengths, sample
from critique_rl.tasks.task import Task
from critique_rl.trainer.rollout.refine import refine_prompt
from critique_rl.types import Attempt, Critique, Usage

RETRY = "retry"
BANK_SEED, REFINE_SEED = 11, 12
STEP = 64
"""Attempts a critic is asked about at a time."""


@dataclass(frozen=True)
class BenchSize:
    """Which failed rollouts: those among `samples` of each of `problems` held-out questions a
    family, at most `attempts` in all, spread over questions.
    """

    problems: int = 50
    samples: int = 4
    attempts: int = 200
    split: str = "validation"
    family: str = ""
    """One family of questions alone, such as the one that is a plateau."""


@dataclass(frozen=True)
class BenchResult:
    """What one critic did. Lists are by question, in the bank's order."""

    critic: str
    right: Sequence[float]
    rescued: Sequence[bool]
    reasons: Mapping[str, int]
    """Failures and skips by status and reason, notes by name."""
    leaked: int
    usage: Usage
    seconds: Sequence[float]
    """Of each call, or each attempt's share of one; none for rules."""
    as_oracle: float | None = None
    """Share of the attempts on which it says word for word what the task's own checker says; None
    where the task has none.
    """


def failed_rollouts(
    model, tokenizer, task: Task, config: RunConfig, size: BenchSize, folder: PipelineFolder
) -> list[Attempt]:
    """The bank: sampled once for a policy, task and size, then read from the run folder.
    ConfigError where nothing failed.
    """
    about = {
        "size": asdict(size),
        "sampling": asdict(sampling_of(config)),
        **{key: to_dict(config)[key] for key in ("task", "policy")},
    }
    held_out = task.held_out(size.split, size.problems)
    rows = {str(row["id"]): row for row in held_out if size.family in ("", row["family"])}
    if not rows:
        raise ConfigError(
            f"--family: no question of family {size.family!r}; {suggest(size.family, {str(row['family']) for row in held_out})}"
        )
    stored = read_json(folder.bank)
    if stored.get("about") != about:
        stored = {
            "about": about,
            "attempts": _sampled(
                model, tokenizer, task, list(rows.values()), size, sampling_of(config)
            ),
        }
        write_json(folder.bank, stored)
    texts = _spread(stored["attempts"], size.attempts)
    if not texts:
        raise ConfigError(
            f"no rollout failed of {len(rows)} questions with {size.samples} samples each: there is nothing to critique; take harder problems"
        )
    return [
        Attempt(str(rows[i]["question"]), text, task.verifier(text, rows[i]), rows[i])
        for i, text in texts
    ]


def _sampled(
    model, tokenizer, task: Task, rows: Sequence[Any], size: BenchSize, sampling: Sampling
) -> list[list[str]]:
    """[id of the row, text] of each failed rollout."""
    answers = sample(
        model,
        tokenizer,
        [row["prompt"] for row in rows for _ in range(size.samples)],
        sampling,
        BANK_SEED,
    )
    texts = [(rows[i // size.samples], answer.text) for i, answer in enumerate(answers)]
    return [[str(row["id"]), text] for row, text in texts if task.verifier(text, row).failed]


def _spread(attempts: Sequence[Sequence[str]], most: int) -> list[tuple[str, str]]:
    """At most so many, first one of each question, then a second of each, ..., in the order of
    questions.
    """
    rank: Counter = Counter()
    ranked = []
    for number, (row, text) in enumerate(attempts):
        ranked.append((rank[row], number, row, text))
        rank[row] += 1
    return [
        (row, text) for _, _, row, text in sorted(sorted(ranked)[:most], key=lambda entry: entry[1])
    ]


def bench_critic(
    critic: Critic,
    name: str,
    attempts: Sequence[Attempt],
    model,
    tokenizer,
    task: Task,
    config: RunConfig,
) -> BenchResult:
    """Ask the critic, refine each attempt once, judge. A critic that may not fail and does is a row
    of failures.
    """
    lend_policy(critic, model, tokenizer, config)
    critiques, waited = [], []
    try:
        for piece in _pieces(attempts):
            start = time.perf_counter()
            critiques += critic.critique(piece)
            waited += [(time.perf_counter() - start) / len(piece)] * len(piece)
    except (CriticFailed, ValueError) as error:
        critiques = [Critique("", name, "failed", f"{type(error).__name__}: {error}"[:120])] * len(
            attempts
        )
    template = config.method.get("refine_template", f"{task.prompts}refine")
    usable = [i for i, critique in enumerate(critiques) if critique.status == "ok"]
    specials = special_tokens(tokenizer)
    prompts = [
        refine_prompt(attempts[i].row["prompt"], attempts[i], critiques[i], template, specials)
        for i in usable
    ]
    verdicts = second_verdicts(
        model,
        tokenizer,
        task.verifier,
        prompts,
        [attempts[i].row for i in usable],
        sampling_of(config),
        REFINE_SEED,
    )
    right = {i for i, verdict in zip(usable, verdicts, strict=True) if verdict.outcome == "right"}
    of_question: dict[str, list[bool]] = defaultdict(list)
    for i, attempt in enumerate(attempts):
        of_question[str(attempt.row["id"])].append(i in right)
    reasons = Counter(f"{c.status}: {c.reason}" for c in critiques if c.status != "ok") + Counter(
        note for c in critiques for note in c.notes
    )
    usage = sum((critique.usage for critique in critiques), Usage())
    # What answers a whole step in one pass times no call: there it is a share of the pass.
    seconds = [critique.usage.seconds for critique in critiques if critique.usage.seconds > 0] or (
        waited if usage.completion_tokens else []
    )
    shares, found = (
        [sum(ones) / len(ones) for ones in of_question.values()],
        [any(ones) for ones in of_question.values()],
    )
    same = task.oracle and [
        critique.text == task.oracle(attempt)
        for critique, attempt in zip(critiques, attempts, strict=True)
    ]
    as_oracle = sum(same) / len(same) if same else None
    return BenchResult(
        name,
        shares,
        found,
        dict(reasons),
        sum(critique.leaked for critique in critiques),
        usage,
        seconds,
        as_oracle,
    )


def _pieces(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Attempts in pieces about as large as a step's, each question in one of them: critics have
    deadlines for a step, and may see groups.
    """
    pieces: list[list[Attempt]] = [[]]
    for attempt in attempts:
        if len(pieces[-1]) >= STEP and attempt.row["id"] != pieces[-1][-1].row["id"]:
            pieces.append([])
        pieces[-1].append(attempt)
    return pieces


def lend_policy(critic: Critic, model, tokenizer, config: RunConfig) -> None:
    """Have a `self` critic answered by this policy, as the trainer does with the one in training."""
    chat = getattr(critic, "chat", None)
    if not isinstance(chat, PolicyChat):
        return

    def answer(conversations: Sequence[Any]) -> list[Reply]:
        lengths = prompt_lengths(tokenizer, conversations) if conversations else []
        answers = (
            sample(model, tokenizer, conversations, sampling_of(config), BANK_SEED)
            if conversations
            else []
        )
        return [
            Reply(one.text, usage=Usage(length, one.tokens))
            for one, length in zip(answers, lengths, strict=True)
        ]

    chat.sample, chat.specials = answer, special_tokens(tokenizer)


def figures(rows: Sequence[BenchResult], attempts: int) -> dict[str, Any]:
    """The bench as plain data; intervals are [low, high], None where there is none."""
    control = next(row for row in rows if row.critic == RETRY)
    return {
        "attempts": attempts,
        "questions": len(control.right),
        "critics": {row.critic: _figures(row, control) for row in rows},
    }


def _figures(row: BenchResult, control: BenchResult) -> dict[str, Any]:
    calls = np.array(row.seconds)
    return {
        "right": _interval(np.array(row.right)),
        "right_minus_retry": _interval(np.array(row.right) - np.array(control.right)),
        "rescued": _interval(np.array(row.rescued, dtype=float)),
        "rescued_minus_retry": _interval(
            np.array(row.rescued, dtype=float) - np.array(control.rescued, dtype=float)
        ),
        "as_oracle": row.as_oracle,
        "leaked": row.leaked,
        "reasons": dict(row.reasons),
        "critic_tokens": row.usage.prompt_tokens + row.usage.completion_tokens,
        "usd": row.usage.usd,
        "seconds_p50": float(np.percentile(calls, 50)) if len(calls) else None,
        "seconds_p95": float(np.percentile(calls, 95)) if len(calls) else None,
    }


def _interval(values: np.ndarray) -> dict[str, Any]:
    return as_json(crossed_interval(values[None, :]))


def as_json(found: Interval) -> dict[str, Any]:
    """{"mean", "ci95": [low, high] or None}"""
    return {"mean": found.mean, "ci95": None if math.isnan(found.low) else [found.low, found.high]}


HEADS = (
    "critic",
    "right",
    "minus retry",
    "rescued",
    "minus retry",
    "leaked",
    "no critique",
    "as oracle",
    "critic tokens",
    "US$",
    "p50 / p95 s",
)


def cells(data: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table in the order of `HEADS`."""
    rows = []
    for name, of in data["critics"].items():
        lost = sum(count for reason, count in of["reasons"].items() if ": " in reason)
        against = [
            with_interval(of[key], "+.2f") if name != RETRY else ""
            for key in ("right_minus_retry", "rescued_minus_retry")
        ]
        latency = (
            ""
            if of["seconds_p50"] is None
            else f"{of['seconds_p50']:.2f} / {of['seconds_p95']:.2f}"
        )
        same = "" if of["as_oracle"] is None else f"{of['as_oracle']:.2f}"
        counts = (str(of["leaked"]), str(lost), same, str(of["critic_tokens"]), f"{of['usd']:.4f}")
        rows.append(
            [
                name,
                with_interval(of["right"]),
                against[0],
                with_interval(of["rescued"]),
                against[1],
                *counts,
                latency,
            ]
        )
    return rows


def with_interval(value: Mapping[str, Any], form: str = ".2f") -> str:
    """ "0.43 [0.37, 0.49]"""
    low_high = value["ci95"]
    return f"{value['mean']:{form}}" + (
        f" [{low_high[0]:.2f}, {low_high[1]:.2f}]" if low_high else ""
    )
