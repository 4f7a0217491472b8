"""`critique-rl plan`: print the command of every run that is still to do."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from critique_rl._lazy import heavy_imports
from critique_rl.cli.arguments import Commands, add_pipeline_command, load, pipeline_words
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import pipeline_path
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say
from critique_rl.experiment.plan import (
    FORMATS,
    check_stored,
    launcher,
    on_ranks,
    rank_count,
    render_plan,
    stages,
)


def add_command(commands: Commands) -> None:
    """Add `plan` to the parser."""
    help = "print the command of every run that is still to do, for a cluster to run"
    command = add_pipeline_command(commands, "plan", plan, help)
    command.add_argument(
        "--format",
        default="lines",
        choices=FORMATS,
        help="lines, or a script for GNU parallel, Slurm or SkyPilot (default: lines)",
    )
    start = command.add_mutually_exclusive_group()
    start.add_argument(
        "--prefix",
        default="critique-rl",
        help=(
            'what starts a command, such as "accelerate launch -m critique_rl" '
            "(default: critique-rl)"
        ),
    )
    start.add_argument(
        "--accelerate",
        type=Path,
        metavar="FILE",
        help="start each by accelerate launch with this config, as of pipelines/accelerate",
    )


def plan(arguments: argparse.Namespace) -> int:
    """Print the commands; their number and what follows them go to standard error.

    Raises:
        ConfigError: A pipeline, its settings or an accelerate config that cannot be used.
    """
    pipeline, folder = load(arguments)
    words = pipeline_words(arguments.pipeline, arguments.overrides, arguments.out)
    prefix = arguments.prefix
    accelerate = None
    if arguments.accelerate:
        accelerate = pipeline_path(arguments.accelerate)
        prefix = launcher(accelerate)
    check_stored(pipeline, folder)
    planned = stages(pipeline, folder, words, prefix)
    if planned:
        ranks = rank_count(prefix, accelerate)
        for warning in _check_settings(pipeline, folder, ranks):
            say(warning)
        say(render_plan(planned, arguments.format, pipeline.name), file=sys.stdout)
    # Standard output is the script alone, so that it can be piped into a shell.
    counts = ", then ".join(str(len(stage)) for stage in planned) or "no"
    say(
        f"{counts} runs to do; afterwards critique-rl run {shlex.join(words)} "
        "evaluates the policy before training, compares and reports"
    )
    for line in _reach(pipeline):
        say(line)
    return 0


def _check_settings(pipeline: Pipeline, folder: PipelineFolder, ranks: int) -> list[str]:
    """Warnings. Raises ConfigError for settings that a run would refuse."""
    # Imported here: it brings TRL, which a plan without runs does not need.
    with heavy_imports():
        from critique_rl.experiment.preflight import check_pipeline, check_started

    warnings = check_pipeline(on_ranks(pipeline, ranks), download=False, is_elsewhere=True)
    check_started(pipeline, folder)
    return warnings


def _reach(pipeline: Pipeline) -> Iterator[str]:
    """What the planned comparison can show, and what a larger one could."""
    from critique_rl.analysis.power import advice, describe, planned_design
    from critique_rl.cli.arguments import held_out_families

    try:
        design = planned_design(pipeline, held_out_families(pipeline))
    except ConfigError as error:
        # The machine that submits jobs may lack the data.
        yield f"how much these runs can show is not known here: {error}"
        return
    if design is None:
        return
    yield describe(pipeline, design)
    larger = advice(pipeline, design)
    if larger:
        yield larger
