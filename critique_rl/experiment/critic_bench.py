"""`critique-rl critics`: which critics are tried, and how their results are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from critique_rl.analysis.table import Table
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.names import shown
from critique_rl.config.ranges import check_values
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say
from critique_rl.config.yaml_text import read_yaml
from critique_rl.critic.build import build_critic
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import Chat, Critic
from critique_rl.experiment.build import load_start_policy
from critique_rl.experiment.first_wrong_step import baselines, load_champ, localisation_accuracy
from critique_rl.experiment.try_critics import (
    RETRY,
    BenchSize,
    bench_critic,
    failed_rollouts,
    figures,
)
from critique_rl.tasks.load import load_task
from critique_rl.tasks.task import Task
from critique_rl.tasks.verifiers import boxed_answer

Spec = Mapping[str, Any]
"""A `critic:` section."""

RESCUE_HEADS = (
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
LOCALISATION_HEADS = (
    "critic",
    "accuracy",
    "with a mistake",
    "without",
    "no answer",
    "critic tokens",
)


# ---- which critics -------------------------------------------------------------------------------


def critic_specs(pipeline: Pipeline, given: Sequence[str]) -> dict[str, Spec]:
    """The critics to try by name: those of --critic, else those of the pipeline's arms, each once.

    `retry` is always the first, since all others are compared with it.

    Raises:
        ConfigError: a --critic is no critic section.
    """
    specs: dict[str, Spec] = {RETRY: {"kind": RETRY}}
    if given:
        for text in given:
            spec = parse_spec(text)
            if spec in specs.values() and spec != specs[RETRY]:
                raise ConfigError(f"--critic: {text!r} is given twice; give each critic once")
            if spec != specs[RETRY]:
                specs[text] = spec
        return specs
    for arm, config in pipeline.arms.items():
        # Arms often share a critic and differ in the method alone.
        if config.critic["kind"] != "none" and config.critic not in specs.values():
            specs[arm] = config.critic
    return specs


def parse_spec(text: str) -> Spec:
    """A critic section from the command line: a kind, or YAML such as {kind: api, ...}.

    Raises:
        ConfigError: the text is neither, or its kind is "none".
    """
    example = "'{kind: local, model: DIR}'"
    spec = read_yaml(text, f"--critic {shown(text)}")
    check_values({"--critic": spec})
    if isinstance(spec, str):
        spec = {"kind": spec}
    if not isinstance(spec, Mapping) or spec.get("kind") in (None, "none"):
        raise ConfigError(
            f"--critic: got {text!r}, expected a kind such as oracle, or such as {example}"
        )
    return spec


# ---- rescue --------------------------------------------------------------------------------------


def rescue_bench(
    pipeline: Pipeline, folder: PipelineFolder, given: Sequence[str], size: BenchSize
) -> dict[str, Any]:
    """Try every critic on the same failed rollouts of the policy before training.

    Args:
        pipeline: The experiment, whose control arm names task and policy.
        folder: Its results; the figures are written there too.
        given: Critics of --critic.
        size: Which failed rollouts.

    Returns:
        The figures (`try_critics.figures`).

    Raises:
        ConfigError: a critic, the policy or the size cannot be used.
    """
    config = pipeline.arms[pipeline.control]
    task = load_task(config.task, 0)
    # Before the policy is loaded, which may take minutes: a misspelt critic fails at once.
    critics: dict[str, Critic] = {}
    for name, spec in critic_specs(pipeline, given).items():
        critic = build_critic(spec, task, 0, folder.bench_critic(name))
        assert critic is not None, "critic_specs leaves out kind none"
        critics[name] = critic
    model, tokenizer = load_start_policy(config)
    attempts = failed_rollouts(model, tokenizer, task, config, size, folder)
    rows = []
    for name, critic in critics.items():
        say(f"{name}: {len(attempts)} failed rollouts")
        rows.append(bench_critic(critic, name, attempts, model, tokenizer, task, config))
    data = figures(rows, len(attempts))
    write_json(folder.bench, data)
    return data


def rescue_table(data: Mapping[str, Any]) -> Table:
    """The figures of `rescue_bench` as a table."""
    caption = (
        f"Rescue: one refinement of each of {data['attempts']} failed rollouts "
        f"at {data['questions']} questions"
    )
    rows = [_rescue_cells(name, critic) for name, critic in data["critics"].items()]
    return Table(caption, RESCUE_HEADS, rows)


def _rescue_cells(name: str, critic: Mapping[str, Any]) -> list[str]:
    """One critic's row, in the order of `RESCUE_HEADS`."""
    differences = ["", ""]
    if name != RETRY:
        keys = ("right_minus_retry", "rescued_minus_retry")
        differences = [with_interval(critic[key], "+.2f") for key in keys]
    # Reasons of missing critiques are "<status>: <reason>"; notes on usable ones have no colon.
    lost = 0
    for reason, count in critic["reasons"].items():
        if ": " in reason:
            lost += count
    as_oracle = ""
    if critic["as_oracle"] is not None:
        as_oracle = f"{critic['as_oracle']:.2f}"
    latency = ""
    if critic["seconds_p50"] is not None:
        latency = f"{critic['seconds_p50']:.2f} / {critic['seconds_p95']:.2f}"
    return [
        name,
        with_interval(critic["right"]),
        differences[0],
        with_interval(critic["rescued"]),
        differences[1],
        str(critic["leaked"]),
        str(lost),
        as_oracle,
        str(critic["critic_tokens"]),
        f"{critic['usd']:.4f}",
        latency,
    ]


def with_interval(value: Mapping[str, Any], form: str = ".2f") -> str:
    """A mean with its interval, such as "0.43 [0.37, 0.49]", or the mean alone."""
    mean = f"{value['mean']:{form}}"
    if value["ci95"] is None:
        return mean
    low, high = value["ci95"]
    return f"{mean} [{low:.2f}, {high:.2f}]"


def reason_lines(data: Mapping[str, Any]) -> list[str]:
    """Why critiques are missing, or were changed, one line per critic."""
    lines = []
    for name, critic in data["critics"].items():
        if critic["reasons"]:
            counts = [f"{count} {reason}" for reason, count in critic["reasons"].items()]
            lines.append(f"{name}: {', '.join(counts)}")
    return lines


# ---- localisation --------------------------------------------------------------------------------


def localisation_bench(given: Sequence[str], limit: int, knows: str) -> dict[str, Any]:
    """Accuracy of critics and rules in finding the first wrong step, on CHAMP.

    Args:
        given: Critics of --critic.
        limit: How many of the 540 solutions, evenly spread; 0: all.
        knows: nothing, answer or solution: which of them the critic reads too.

    Returns:
        {"solutions", "with_mistake", "critics": {name: accuracies}}.

    Raises:
        ConfigError: CHAMP is not installed, or a critic answers no question of its own.
    """
    try:
        items = load_champ()
    except ImportError as error:
        raise ConfigError(f"--champ: {error}") from error
    if limit:
        stride = max(1, len(items) // limit)
        items = items[::stride][:limit]
    accuracies: dict[str, Any] = dict(baselines(items))
    for text in given:
        accuracies[text] = localisation_accuracy(_critic_chat(parse_spec(text)), items, knows)
    return {
        "solutions": len(items),
        "with_mistake": sum(bool(item.wrong) for item in items),
        "critics": accuracies,
    }


def _critic_chat(spec: Spec) -> Chat:
    """The model behind a critic, without the critic's prompt.

    Raises:
        ConfigError: the critic is a rule, or `self`, which has no policy here.
    """
    # CHAMP is no task of ours: its questions reach the critic through the chat alone.
    task = Task("champ", [], lambda split, count: [], boxed_answer)
    critic = build_critic(spec, task)
    if not isinstance(critic, ChatCritic) or spec["kind"] == "self":
        raise ConfigError(
            f"--champ: critic {spec['kind']} answers no question of its own; "
            "give api or local, such as '{kind: local, model: DIR}'"
        )
    return critic.chat


def localisation_table(data: Mapping[str, Any]) -> Table:
    """The figures of `localisation_bench` as a table."""
    caption = (
        f"Localisation: the first wrong step of {data['solutions']} CHAMP solutions, "
        f"{data['with_mistake']} of them with a mistake"
    )
    rows = [_localisation_cells(name, critic) for name, critic in data["critics"].items()]
    return Table(caption, LOCALISATION_HEADS, rows)


def _localisation_cells(name: str, critic: Mapping[str, Any]) -> list[str]:
    """One critic's row, in the order of `LOCALISATION_HEADS`. Rules lose no answer and no token."""
    cells = [name]
    for key in ("accuracy", "with_mistake", "without_mistake"):
        # None with a --limit so small that no such solution is left.
        cell = with_interval(critic[key]) if critic[key] else ""
        cells.append(cell)
    lost = [f"{count} {reason}" for reason, count in critic.get("lost", {}).items()]
    cells.append(", ".join(lost))
    cells.append(str(critic.get("critic_tokens", "")))
    return cells
