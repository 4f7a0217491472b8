"""`critique-rl flow`: where the policy's probability goes, class by class of completions."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from critique_rl.cli.arguments import (
    Commands,
    add_json_argument,
    add_pipeline_command,
    arm_config,
    check_jobs,
    load_finished,
    whole_number,
)
from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.durable_files import write_text
from critique_rl.config.folder_lock import check_writable
from critique_rl.config.names import shown
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say


def add_command(commands: Commands) -> None:
    """Add `flow` to the parser."""
    help = "where each arm's probability went: right, the base's own errors, near misses, the rest"
    command = add_pipeline_command(commands, "flow", flow, help)
    add_json_argument(command)
    command.add_argument("--svg", metavar="FILE", help="also write the figure of masses here")
    command.add_argument("--arms", default="", help="arms of the figure, such as nsr,refine")
    command.add_argument("--family", default="", help="family of the figure (default: all)")
    command.add_argument(
        "--jobs", type=whole_number, default=1, help="runs scored at a time (default: 1)"
    )


def flow(arguments: argparse.Namespace) -> int:
    """Score what is not scored yet, and print the masses.

    Raises:
        ConfigError: No run is finished, runs were started with other settings, or the figure's
            arms or family are unknown or have no masses.
    """
    check_jobs(arguments.jobs)
    pipeline, folder = load_finished(arguments)
    arms = _figure_arms(arguments, pipeline)
    _check_family(arguments.family, pipeline, folder)
    check_writable(folder.path)
    # Imported after the checks above, which then answer without torch and TRL.
    from rich.console import Console

    from critique_rl.analysis.flow.series import as_json
    from critique_rl.analysis.flow.table import NOTE, flow_tables
    from critique_rl.analysis.page.flow.svg_file import flow_svg
    from critique_rl.analysis.table import to_terminal
    from critique_rl.experiment.flow.flow import flow_of_pipeline

    series = flow_of_pipeline(pipeline, folder, arguments.jobs)
    if arguments.svg:
        path = Path(arguments.svg)
        write_text(path, flow_svg(series, arms, arguments.family))
        say(f"figure: {path}")
    if arguments.json:
        print(json.dumps(as_json(series)))
    else:
        console = Console()
        for table in flow_tables(series):
            console.print(to_terminal(table))
        say(NOTE, file=sys.stdout)
    return 0


def _figure_arms(arguments: argparse.Namespace, pipeline: Pipeline) -> list[str]:
    """The arms that --arms names, [] for all; checked before hours of scoring.

    Raises:
        ConfigError: No such arm, or options of a figure that is not asked for.
    """
    if not arguments.svg and (arguments.arms or arguments.family):
        raise ConfigError(
            "--arms and --family choose what --svg FILE draws; add --svg, or drop them"
        )
    arms = []
    for name in arguments.arms.split(","):
        arm = name.strip()
        if arm:
            arm_config(arguments.pipeline, pipeline.arms, arm)
            arms.append(arm)
    return arms


def _check_family(family: str, pipeline: Pipeline, folder: PipelineFolder) -> None:
    """Check --family before hours of scoring, where the base's evaluation has its problems.

    Raises:
        ConfigError: No held-out problem is of this family.
    """
    from critique_rl.analysis.evaluations import read_base

    tasks = [config.task for config in pipeline.arms.values()]
    # Arms of other tasks have other families: the figure's own check knows them after scoring.
    is_one_task = all(task == tasks[0] for task in tasks)
    if not family or not is_one_task or not folder.base.evaluation.is_file():
        return
    families: dict[str, None] = {}
    for problem in read_base(folder).problems.values():
        families[problem.family] = None
    if family not in families:
        raise ConfigError(
            f"no family {shown(family)} in {folder.path}; {suggest(family, families)}"
        )
