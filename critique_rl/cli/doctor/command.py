"""`critique-rl doctor`: check the surroundings of a run before it starts.

Each line is ok, warn or fail, and says what to do. Left out: anything that changes the machine. An
endpoint is asked twice, for a few tokens.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from critique_rl.cli.arguments import Commands, add_json_argument, load
from critique_rl.cli.doctor.checks import (
    Line,
    check_disk,
    check_foresight,
    check_machine,
    check_packages,
    check_policy,
    check_reach,
    check_settings,
)
from critique_rl.cli.doctor.endpoint import ENDPOINT_OPTIONS, check_endpoint, check_teachers
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.config.secrets import without_secrets
from critique_rl.config.terminal import printable

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def add_command(commands: Commands) -> None:
    """Add `doctor` to the parser."""
    help = (
        "check what a run leans on, and say what to do: packages, machine, disk, "
        "and the endpoint of a critic"
    )
    command = commands.add_parser("doctor", help=help, description=help)
    command.add_argument(
        "pipeline",
        type=Path,
        nargs="?",
        help="a YAML file; its policy and the endpoints of its critics are checked too",
    )
    command.add_argument("overrides", nargs="*", metavar="key=value")
    command.add_argument(
        "--out", type=Path, default=Path("runs"), help="where results would go (default: runs)"
    )
    command.add_argument("--base-url", help="an OpenAI-compatible endpoint, up to its version")
    command.add_argument("--model", help="the model's name there")
    command.add_argument(
        "--api-key-env",
        default="OPENAI_API_KEY",
        help="the variable with the key (default: OPENAI_API_KEY)",
    )
    add_json_argument(command, instead_of="lines")
    command.set_defaults(command=doctor)


def doctor(arguments: argparse.Namespace) -> int:
    """Print a line per check; 1 where one is a failure.

    Raises:
        ConfigError: A pipeline file that cannot be read.
    """
    pipeline = None
    if arguments.pipeline:
        pipeline, _ = load(arguments)
    lines = check(
        pipeline, arguments.out, arguments.base_url, arguments.model, arguments.api_key_env
    )
    if arguments.json:
        print(without_secrets(json.dumps([line.as_dict() for line in lines])))
    else:
        print_lines(lines)
    if any(line.status == "fail" for line in lines):
        return 1
    return 0


def check(
    pipeline: Pipeline | None,
    out: Path,
    base_url: str | None,
    model: str | None,
    api_key_env: str = "OPENAI_API_KEY",
) -> list[Line]:
    """Check everything, in order; a failure is a line, never an exception.

    Args:
        pipeline: Its policy, settings and the endpoints of its critics are checked too.
        out: The folder for results.
        base_url: An endpoint of no pipeline.
        model: The model's name there.
        api_key_env: The variable that holds its key.
    """
    lines = [*check_packages(), *check_machine(), check_disk(out)]
    endpoints: dict[str, Mapping[str, Any]] = {}
    if base_url:
        endpoints["endpoint"] = {
            "base_url": base_url,
            "model": model or "default",
            "api_key_env": api_key_env,
        }
    if pipeline:
        endpoints |= _endpoints_of_arms(pipeline)
        settings = [*check_settings(pipeline, PipelineFolder(out / pipeline.name))]
        lines += [*check_policy(pipeline), *settings]
        # Settings that `run` refuses cannot be built, and so not be looked at.
        if all(line.status == "ok" for line in settings):
            lines += check_foresight(pipeline)
            lines += check_reach(pipeline)
            lines += check_teachers(pipeline)
    return [*lines, *_check_endpoints(endpoints)]


def _check_endpoints(endpoints: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """The lines of all endpoints, in order."""
    # Arms often share an endpoint, and each check costs tokens.
    distinct: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for name, options in endpoints.items():
        distinct.setdefault(json.dumps(options, sort_keys=True, default=str), (name, options))
    if not distinct:
        return []
    # At a time, so that several servers that hang take no longer than one.
    with ThreadPoolExecutor(len(distinct)) as pool:
        answers = [pool.submit(list, check_endpoint(*given)) for given in distinct.values()]
        return [line for answer in answers for line in answer.result()]


def _endpoints_of_arms(pipeline: Pipeline) -> dict[str, Mapping[str, Any]]:
    """ "critic of arm <arm>" -> the options of its endpoint, for arms with an api critic."""
    endpoints: dict[str, Mapping[str, Any]] = {}
    for arm, config in pipeline.arms.items():
        critic = _asked_critic(config)
        if isinstance(critic, Mapping) and critic.get("kind") == "api":
            # A null of the pipeline stays: the run does not send such an option, nor does the
            # check.
            options = {key: value for key, value in critic.items() if key in ENDPOINT_OPTIONS}
            endpoints[f"critic of arm {arm}"] = options
    return endpoints


def _asked_critic(config: RunConfig) -> Any:
    """The section of the critic that writes the critiques; `noisy` holds that of another."""
    if config.critic.get("kind") == "noisy":
        return config.critic.get("critic")
    return config.critic


def print_lines(lines: Sequence[Line]) -> None:
    """Print each line with its status in colour, its advice below."""
    from rich.console import Console
    from rich.markup import escape

    # Wrapped by rich, a command in an advice could not be copied.
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        status = f"[{COLOURS[line.status]}]{line.status:<5}[/]"
        words = f"{printable(line.what)}: {printable(line.finding)}"
        console.print(f"{status}{escape(words)}")
        if line.advice:
            console.print(f"      {escape(printable(line.advice))}")
