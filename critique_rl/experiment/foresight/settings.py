"""Findings that follow from an arm's settings and the environment."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import RunConfig
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.experiment.build import trainer_arguments
from critique_rl.experiment.foresight.findings import Finding
from critique_rl.trainer.teachers.section import read_teacher

UNUSED = RunFolder(Path("unused"))
"""Arguments are only looked at, so their folder needs no place."""
FULL_SUPPORT: Mapping[str, tuple[Any, ...]] = {
    "top_p": (None, 1.0),
    "top_k": (None, 0, -1),
    "min_p": (None, 0.0),
    "repetition_penalty": (None, 1.0),
}
"""Sampling option -> the values with which every token keeps the probability that TRL scores."""

SLOW = 1.5
"""Times float32's, from which on products in half precision are warned of."""


def api_section(config: RunConfig) -> Mapping[str, Any] | None:
    """The section of the api critic that writes an arm's critiques; None for other kinds."""
    critic: Any = config.critic
    if critic.get("kind") == "noisy":
        critic = critic.get("critic")
    is_api = isinstance(critic, Mapping) and critic.get("kind") == "api"
    if is_api:
        return critic
    return None


def check_key(config: RunConfig) -> Iterator[Finding]:
    """A key that is missing, or that cannot be sent. It is refused before any arm trains."""
    endpoints: dict[str, Endpoint] = {}
    section = api_section(config)
    if section is not None:
        names = {item.name for item in fields(Endpoint)} - {"caps"}
        options = {name: value for name, value in section.items() if name in names}
        endpoints["api key"] = Endpoint(**options)
    teacher = teacher_endpoint(config)
    if teacher is not None:
        endpoints["key of the teacher"] = teacher
    for what, endpoint in endpoints.items():
        try:
            endpoint.key()
        except ValueError as error:
            yield Finding(what, True, str(error), "every call would fail")


def teacher_endpoint(config: RunConfig) -> Endpoint | None:
    """The server of an arm's teacher; None for teachers in process, and where nothing distills."""
    arguments = trainer_arguments(config, UNUSED)
    teacher = read_teacher(arguments.distill_teacher)
    if arguments.distill_weight and isinstance(teacher, Endpoint):
        return teacher
    return None


def check_vllm_sampling(config: RunConfig) -> Iterator[Finding]:
    """Sampling by vLLM whose log-probs are of another distribution than TRL scores."""
    arguments = trainer_arguments(config, UNUSED)
    if not (arguments.use_vllm and arguments.vllm_importance_sampling_correction):
        return
    changed: Mapping[str, Any] = {}
    if isinstance(arguments.generation_kwargs, Mapping):
        changed = arguments.generation_kwargs
    cuts = []
    for name, neutral in FULL_SUPPORT.items():
        value = changed.get(name, getattr(arguments, name))
        if value not in neutral:
            cuts.append(f"{name} {value}")
    if cuts:
        # vLLM renormalises over the tokens that are left, so every ratio is multiplied by the
        # probability mass that they held (TRL issue 6789).
        yield Finding(
            "vLLM sampling",
            False,
            f"{', '.join(cuts)} cut the distribution, and TRL's importance ratio is biased then "
            "(TRL issue 6789): each token's ratio is multiplied by the mass that was kept",
            "leave them at their neutral values, or set trl.vllm_importance_sampling_correction "
            "to false",
        )


def check_budget(config: RunConfig) -> Iterator[Finding]:
    """A run that only TRL's number of epochs ends."""
    budget = config.budget
    arguments = trainer_arguments(config, UNUSED)
    if budget.limit:
        return
    if budget.optimizer_steps:
        return
    if arguments.max_steps > 0:
        return
    yield Finding(
        "budget",
        False,
        f"there is none, so every arm ends after {arguments.num_train_epochs:g} epochs "
        "(trl.num_train_epochs), and arms spend unlike amounts",
        "give one, such as budget: {generated_tokens: 150000}",
    )


def check_precision(config: RunConfig) -> Iterator[Finding]:
    """Half precision on a processor that has no such products."""
    arguments = trainer_arguments(config, UNUSED)
    if torch.cuda.is_available() and not arguments.use_cpu:
        return
    for name, dtype in (("bf16", torch.bfloat16), ("fp16", torch.float16)):
        if not getattr(arguments, name):
            continue
        times = product_slowdown(dtype)
        if times > SLOW:
            yield Finding(
                name,
                False,
                f"a linear layer in it takes {times:.1f} times as long as in float32 on this "
                "processor",
                f"set trl.{name}: false",
            )


@functools.cache
def product_slowdown(dtype: torch.dtype) -> float:
    """The time of a linear layer on the CPU over that in float32: the best of five each."""
    seconds = {}
    for kind in (torch.float32, dtype):
        rows = torch.ones(128, 512, dtype=kind)
        weight = torch.ones(512, 512, dtype=kind)
        times = []
        for _ in range(5):
            start = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            times.append(time.perf_counter() - start)
        seconds[kind] = min(times)
    return seconds[dtype] / seconds[torch.float32]
