"""`critique-rl critics`: which critics are tried, and how what they did is printed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from critique_rl.analysis.table import Table
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.critic.build import build_critic
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.experiment.first_wrong_step import baselines, load_champ, localisation_accuracy
from critique_rl.experiment.try_critics import (
    HEADS,
    RETRY,
    BenchSize,
    bench_critic,
    cells,
    failed_rollouts,
    figures,
    with_interval,
)
from critique_rl.policy import load_policy
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.tasks.verifiers import boxed_answer


def critic_specs(pipeline: Pipeline, given: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Name -> critic section: those of --critic, else of the pipeline's arms; `retry` first, since
    all are compared with it.
    """
    specs: dict[str, Mapping[str, Any]] = {RETRY: {"kind": RETRY}}
    for arm, config in pipeline.arms.items() if not given else ():
        if config.critic["kind"] != "none" and config.critic not in specs.values():
            specs[arm] = config.critic
    return specs | {
        text: spec for text in given if (spec := parse_spec(text)) not in specs.values()
    }


def parse_spec(text: str) -> Mapping[str, Any]:
    """A critic section from the command line: a kind, or YAML such as {kind: api, base_url: ...}."""
    try:
        spec = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(
            f"--critic: {text!r} is not YAML; give a kind, or such as '{{kind: local, model: DIR}}'"
        ) from error
    spec = {"kind": spec} if isinstance(spec, str) else spec
    if not isinstance(spec, Mapping) or spec.get("kind") in (None, "none"):
        raise ConfigError(
            f"--critic: got {text!r}, expected a kind such as oracle, or such as '{{kind: local, model: DIR}}'"
        )
    return spec


def rescue_bench(
    pipeline: Pipeline, folder: PipelineFolder, given: Sequence[str], size: BenchSize
) -> dict[str, Any]:
    """Try every critic on the same failed rollouts of the policy before training; the figures,
    which are also written to the run folder.
    """
    config = pipeline.arms[pipeline.control]
    task = load_task(config.task, 0)
    critics = {
        name: build_critic(spec, task, 0, folder.bench_critic(name))
        for name, spec in critic_specs(pipeline, given).items()
    }
    try:
        model, tokenizer = load_policy(config.policy.model, **config.policy.options)
    except OSError as error:
        raise ConfigError(f"policy: {error}") from error
    attempts = failed_rollouts(model, tokenizer, task, config, size, folder)
    rows = []
    for name, critic in critics.items():
        print(f"{name}: {len(attempts)} failed rollouts", file=sys.stderr)
        rows.append(bench_critic(critic, name, attempts, model, tokenizer, task, config))
    data = figures(rows, len(attempts))
    write_json(folder.bench, data)
    return data


def rescue_table(data: Mapping[str, Any]) -> Table:
    """The figures as a table."""
    caption = f"Rescue: one refinement of each of {data['attempts']} failed rollouts at {data['questions']} questions"
    return Table(caption, HEADS, cells(data))


def reason_lines(data: Mapping[str, Any]) -> list[str]:
    """Why critiques are missing, or were changed, one line a critic."""
    return [
        f"{name}: {', '.join(f'{count} {reason}' for reason, count in of['reasons'].items())}"
        for name, of in data["critics"].items()
        if of["reasons"]
    ]


def localisation_bench(given: Sequence[str], limit: int, knows: str) -> dict[str, Any]:
    """Critics and rules on CHAMP; `limit` takes so many of the 540, evenly spread (0: all)."""
    try:
        items = load_champ()
    except ImportError as error:
        raise ConfigError(f"--champ: {error}") from error
    items = items[:: max(1, len(items) // limit)][:limit] if limit else items
    found: dict[str, Any] = dict(baselines(items))
    for text in given:
        found[text] = localisation_accuracy(_critic_chat(parse_spec(text)), items, knows)
    return {
        "solutions": len(items),
        "with_mistake": sum(bool(item.wrong) for item in items),
        "critics": found,
    }


def _critic_chat(spec: Mapping[str, Any]):
    task = Task("champ", [], lambda split, count: [], boxed_answer)
    critic = build_critic(spec, task)
    if not isinstance(critic, ChatCritic) or spec["kind"] == "self":
        raise ConfigError(
            f"--champ: critic {spec['kind']} answers no question of its own; give api or local, such as '{{kind: local, model: DIR}}'"
        )
    return critic.chat


def localisation_table(data: Mapping[str, Any]) -> Table:
    """The figures as a table."""
    caption = f"Localisation: the first wrong step of {data['solutions']} CHAMP solutions, {data['with_mistake']} of them with a mistake"
    rows = []
    for name, of in data["critics"].items():
        parts = [
            with_interval(of[key]) if of[key] else ""
            for key in ("accuracy", "with_mistake", "without_mistake")
        ]
        lost = ", ".join(f"{count} {reason}" for reason, count in of.get("lost", {}).items())
        rows.append([name, *parts, lost, str(of.get("critic_tokens", ""))])
    return Table(
        caption,
        ("critic", "accuracy", "with a mistake", "without", "no answer", "critic tokens"),
        rows,
    )
