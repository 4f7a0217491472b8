"""Findings about lengths, in tokens of the policy: prompts, refinements and the task's solutions.

The policy's tokenizer and configuration are read, never its weights. Left out: the length of
critiques, which nobody knows before they are written. A critique makes a refine prompt longer, so
what does not fit without one does not fit at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from critique_rl.config.resolved_run import to_dict
from critique_rl.config.schema import RunConfig
from critique_rl.critic.build import build_critic
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.experiment.build import trainer_arguments
from critique_rl.experiment.foresight.findings import Finding
from critique_rl.experiment.foresight.settings import UNUSED
from critique_rl.policy import resolve_model
from critique_rl.prompts import special_tokens
from critique_rl.sampling.sample import prompt_lengths
from critique_rl.tasks.answer_text import told_solution
from critique_rl.tasks.load import load_task
from critique_rl.tasks.row import Row
from critique_rl.tasks.task import Task
from critique_rl.trainer.critique_grpo_config import CritiqueGRPOConfig
from critique_rl.trainer.rollout.refine import refine_prompt
from critique_rl.trainer.rollout.sampling_options import rollout_sampling
from critique_rl.types import Attempt, Critique, Verdict

MOST_ROWS = 512
"""Training rows that are looked at."""
SHORTEST_CRITIQUE = Critique("-", "")
FEW = 0.01
"""Up to this share of solutions that do not fit nothing is said."""
SOME = 0.1
"""Above this share of refine prompts without room a run is warned."""
NEARLY_ALL = 0.9
"""Above this share nothing can be learned, and a run is refused."""


@dataclass(frozen=True)
class Policy:
    """What lengths depend on."""

    tokenizer: Any
    context: int | None
    """Tokens of prompt and completion together; None where the architecture states none."""


class Lengths:
    """Checks arms; a policy and a task that several arms share are read once.

    Args:
        download: whether tokenizer and configuration may come from the Hub.
    """

    def __init__(self, download: bool) -> None:
        self._download = download
        self._policies: dict[str, Policy | None] = {}
        self._tasks: dict[str, Task] = {}

    def check(self, config: RunConfig) -> list[Finding]:
        """Findings of one arm."""
        policy = self._policy(config.policy.model)
        if policy is None and _is_folder(config.policy.model):
            words = f"{config.policy.model} has no configuration or no tokenizer that loads"
            advice = "save model and tokenizer into the folder, or give another policy"
            return [Finding("policy", True, words, advice)]
        if policy is None and not self._download:
            words = f"not looked at, for {config.policy.model} is not on this machine"
            return [Finding("lengths", False, words, "look again once it is, or let run look")]
        if policy is None:
            words = f"{config.policy.model} is neither on this machine nor to be had from the Hub"
            advice = (
                "a folder that is to be built: do so, if the pipeline's first lines say how; an "
                "id of the Hub: check the name, HF_TOKEN and the network"
            )
            return [Finding("policy", True, words, advice)]
        arguments = trainer_arguments(config, UNUSED)
        task = self._task(config)
        rows = task.train
        if "refine_template" not in config.method:
            arguments.refine_template = f"{task.prompts}refine"
        faults = [*check_template(rows, policy, arguments)]
        if faults:
            return faults
        findings = [*check_prompts(rows, policy, arguments)]
        # Without room for a completion there is none for a refinement either.
        if not findings and has_refinements(config, arguments):
            findings += check_refinements(rows, policy, arguments)
        if not findings and config.critic.get("kind") == "self":
            findings += check_critic_prompts(config, task, policy, arguments)
        return [*findings, *check_solutions(rows, policy, arguments)]

    def _policy(self, model: str) -> Policy | None:
        if model not in self._policies:
            self._policies[model] = _read_policy(model, self._download)
        return self._policies[model]

    def _task(self, config: RunConfig) -> Task:
        """The task with some training rows."""
        key = json.dumps(to_dict(config)["task"], sort_keys=True)
        if key not in self._tasks:
            size = min(config.task.size, MOST_ROWS)
            self._tasks[key] = load_task(replace(config.task, size=size), 0)
        return self._tasks[key]


def _is_folder(model: str) -> bool:
    try:
        return Path(resolve_model(model)).is_dir()
    except OSError:
        return False


def _read_policy(model: str, download: bool) -> Policy | None:
    from transformers import AutoConfig, AutoTokenizer

    try:
        path = resolve_model(model)
        local = not download and not Path(path).is_dir()
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=local)
        settings = AutoConfig.from_pretrained(path, local_files_only=local)
    except Exception:
        # Broken or absent files end in errors of many kinds, which the doctor's check names.
        return None
    return Policy(tokenizer, getattr(settings, "max_position_embeddings", None))


def has_refinements(config: RunConfig, arguments: CritiqueGRPOConfig) -> bool:
    """Whether an arm refines attempts."""
    return config.critic.get("kind", "none") != "none" and arguments.refine_slots > 0


def check_template(
    rows: Sequence[Row], policy: Policy, arguments: CritiqueGRPOConfig
) -> Iterator[Finding]:
    """A chat template that raises, as where it needs an argument that nobody gives."""
    prompts = [row["prompt"] for row in rows[:1]]
    try:
        _prompt_lengths(prompts, policy, arguments)
    except Exception as error:
        # Templates raise errors of their own, of any kind.
        yield Finding(
            "chat template",
            True,
            f"it raises {error}",
            "set what it asks for as trl.chat_template_kwargs, leave task.options.system out if it "
            "takes no system message, or repair the template",
        )


def check_prompts(
    rows: Sequence[Row], policy: Policy, arguments: CritiqueGRPOConfig
) -> Iterator[Finding]:
    """Prompts that leave no room for a completion."""
    completion = arguments.completion_limit
    if policy.context is None:
        return
    if completion >= policy.context:
        yield Finding(
            "context",
            True,
            f"max_completion_length is {completion}, and the policy's context of {policy.context} "
            "tokens holds prompt and completion together",
            "lower trl.max_completion_length, or take a policy with a longer context",
        )
        return
    lengths = _prompt_lengths([row["prompt"] for row in rows], policy, arguments)
    longest = max(lengths, default=0)
    if longest + completion > policy.context:
        advice = "lower trl.max_completion_length, or leave out the longest questions"
        if longest >= policy.context:
            advice = "take a policy with a longer context, or leave out the longest questions"
        yield Finding(
            "context",
            True,
            f"the longest prompt has {longest} tokens and max_completion_length is {completion}: "
            f"together over the policy's context of {policy.context}",
            advice,
        )


def check_refinements(
    rows: Sequence[Row], policy: Policy, arguments: CritiqueGRPOConfig
) -> Iterator[Finding]:
    """Refine prompts that leave no room for a completion, however short attempt and critique."""
    limit = arguments.max_refine_prompt_length
    room = f"max_refine_prompt_length is {limit}"
    if limit is None:
        if policy.context is None:
            return
        completion = arguments.completion_limit
        limit = policy.context - completion
        room = (
            f"the policy's context of {policy.context} tokens less max_completion_length "
            f"{completion} leaves {limit}"
        )
    lengths = _refine_lengths(rows, policy, arguments)
    if not lengths:
        return
    never = sum(length > limit for length in lengths) / len(lengths)
    attempt = arguments.completion_limit
    seldom = sum(length + attempt > limit for length in lengths) / len(lengths)
    advice = "lower trl.max_completion_length, or take a policy with a longer context"
    if never > NEARLY_ALL:
        words = f"{never:.0%} of refine prompts do not fit, however short the attempt: {room}"
        yield Finding("refine prompts", True, words, f"{advice}: no critique could be used")
    elif never > FEW:
        words = f"{never:.0%} of refine prompts do not fit, however short the attempt: {room}"
        yield Finding("refine prompts", False, words, advice)
    elif seldom > SOME:
        words = (
            f"{seldom:.0%} of refine prompts do not fit where an attempt has its longest "
            f"{attempt} tokens: {room}, before a word of critique"
        )
        yield Finding("refine prompts", False, words, f"{advice}; such rows are skipped")


def _refine_lengths(
    rows: Sequence[Row], policy: Policy, arguments: CritiqueGRPOConfig
) -> list[int]:
    """Tokens of each row's refine prompt without an attempt, and with a critique of one sign."""
    specials = special_tokens(policy.tokenizer)
    prompts = []
    for row in rows:
        attempt = Attempt(str(row["question"]), "", Verdict("wrong"), row)
        prompt = refine_prompt(
            row["prompt"], attempt, SHORTEST_CRITIQUE, arguments.refine_template, specials
        )
        prompts.append(prompt)
    return _prompt_lengths(prompts, policy, arguments)


def _prompt_lengths(
    prompts: Sequence[Any], policy: Policy, arguments: CritiqueGRPOConfig
) -> list[int]:
    """Tokens of prompts as rollouts render them."""
    sampling = rollout_sampling(vars(arguments))
    return prompt_lengths(policy.tokenizer, prompts, sampling.chat_template_kwargs)


def check_critic_prompts(
    config: RunConfig, task: Task, policy: Policy, arguments: CritiqueGRPOConfig
) -> Iterator[Finding]:
    """Prompts of a critic that is the policy, which leave no room for a critique."""
    critic = build_critic(config.critic, task)
    limit = arguments.max_refine_prompt_length
    if limit is None and policy.context is not None:
        limit = policy.context - arguments.completion_limit
    if limit is None or not isinstance(critic, ChatCritic):
        return
    prompts = []
    for row in task.train:
        attempt = Attempt(str(row["question"]), "", Verdict("wrong"), row)
        prompts.append([{"role": "user", "content": critic.render_prompt([attempt])}])
    lengths = _prompt_lengths(prompts, policy, arguments)
    never = sum(length > limit for length in lengths) / max(1, len(lengths))
    if never > FEW:
        yield Finding(
            "critic prompts",
            never > NEARLY_ALL,
            f"{never:.0%} of the prompts by which the policy criticises itself do not fit, however "
            f"short the attempt: they have {min(lengths)} tokens or more, and {limit} are left",
            "take a policy with a longer context, or another critic",
        )


def check_solutions(
    rows: Sequence[Row], policy: Policy, arguments: CritiqueGRPOConfig
) -> Iterator[Finding]:
    """Solutions of the task, or else its answers, that are longer than a completion may be."""
    solutions = [told_solution(row) for row in rows]
    noun = "worked solutions"
    are_worked = any(solutions)
    if not are_worked:
        noun = "answers"
        solutions = [str(row.get("answer") or "") for row in rows]
    texts = [text for text in solutions if text]
    if not texts:
        return
    encoded = policy.tokenizer(texts, add_special_tokens=False)["input_ids"]
    # A completion that ends has one token more.
    lengths = [len(ids) + 1 for ids in encoded]
    limit = arguments.completion_limit
    share = sum(length > limit for length in lengths) / len(lengths)
    if share <= FEW:
        return
    advice = f"set trl.max_completion_length to {max(lengths)}"
    if policy.context is not None and max(lengths) >= policy.context:
        advice = f"take a policy with a longer context than {policy.context}"
    yield Finding(
        "solutions",
        # Of an answer at least every token is needed. A worked solution may be longer than the
        # policy's own way to the answer.
        not are_worked and share > NEARLY_ALL,
        f"{share:.0%} of {len(lengths)} {noun} of the task need more than max_completion_length "
        f"{limit} (the longest: {max(lengths)} tokens), so answers like them are never sampled",
        advice,
    )
