"""The chance of a true answer under a policy, in worlds that list their answers.

    p(x) = sum over true y of pi(y | x),    exact@k = mean over x of 1 - (1 - p(x))^k

The second is pass@k without its sampling noise (Chen et al. 2021, section 2.1), and without answers
that are right by luck: `Support.true_answers`, or those that the verifier calls right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from critique_rl.experiment.flow.masses import log_probs
from critique_rl.experiment.flow.probes import is_spelled_once, judge_listed, listed_ids
from critique_rl.sampling.sample import sample
from critique_rl.sampling.settings import Sampling
from critique_rl.sampling.tokens import prompt_ids
from critique_rl.tasks.row import Row
from critique_rl.tasks.task import Support, Task

FEW = 32
"""Answers that are sampled to see how the policy spells them."""


def true_chances(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Sequence[Row],
    sampling: Sampling,
) -> list[float] | None:
    """The chance of a true answer to each row; None where the policy has several spellings of one
    answer, of which a list holds one.

    Args:
        model: The policy.
        tokenizer: Its tokenizer.
        task: It lists answers, and its verifier judges them.
        rows: The problems, with "prompt".
        sampling: Decoding settings. An answer longer than `max_new_tokens` has no chance.
    """
    support = task.support
    assert support is not None, "preflight refuses tasks that list no answers"
    prompts = [row["prompt"] for row in rows]
    ids = prompt_ids(tokenizer, prompts, sampling.chat_template_kwargs)
    places = []
    completions = []
    for i, row in enumerate(rows):
        for text in _true_answers(task, support, row):
            places.append(i)
            completions.append(listed_ids(tokenizer, support, text))
    longest = max(map(len, completions), default=0)
    # Long enough for a complete answer, since a cut one does not show its spelling.
    uncut = replace(sampling, max_new_tokens=max(longest, sampling.max_new_tokens))
    listed = []
    for answer in sample(model, tokenizer, prompts[:FEW], uncut, 0):
        # A policy that collapsed writes none of them: then its chances are small, not unknown.
        if support.listed_part(answer.text) in support.answers(rows[answer.prompt]):
            listed.append(answer)
    if listed and not is_spelled_once(tokenizer, support, listed):
        return None
    repeated = [ids[i] for i in places]
    logps = log_probs(model, repeated, completions, sampling.temperature)
    chances = [0.0] * len(rows)
    for i, tokens, logp in zip(places, completions, logps.double().tolist(), strict=True):
        if len(tokens) <= sampling.max_new_tokens:
            chances[i] += math.exp(logp)
    # Rounding in float32 can take a sum a little over 1.
    return [min(chance, 1.0) for chance in chances]


def _true_answers(task: Task, support: Support, row: Row) -> list[str]:
    if support.true_answers is not None:
        return support.true_answers(row)
    texts = support.answers(row)
    verdicts = judge_listed(task, support, row, texts)
    pairs = zip(texts, verdicts, strict=True)
    return [text for text, verdict in pairs if verdict.outcome == "right"]
