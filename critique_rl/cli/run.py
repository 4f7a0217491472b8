"""`critique-rl run`: train every arm and seed, evaluate, compare and report."""

from __future__ import annotations

import argparse

from critique_rl.cli.arguments import (
    Commands,
    add_accept_argument,
    add_json_argument,
    add_pipeline_command,
    check_jobs,
    has_finished_run,
    load,
    pipeline_words,
    whole_number,
)
from critique_rl.cli.compare import print_comparison, verdict_status, write_comparison
from critique_rl.cli.report import write_report_page


def add_command(commands: Commands) -> None:
    """Add `run` to the parser."""
    help = "train every arm and seed of a pipeline, evaluate, compare and report"
    command = add_pipeline_command(commands, "run", run, help)
    add_json_argument(command)
    add_accept_argument(command)
    command.add_argument(
        "--jobs",
        type=whole_number,
        default=1,
        help="runs at a time, each a process of its own (default: 1)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run what is not finished; 1 where a run failed, or an arm is no critique arm.

    Raises:
        ConfigError: Settings that cannot be used.
    """
    from critique_rl.experiment.campaign import run_all

    check_jobs(arguments.jobs)
    pipeline, folder = load(arguments)
    failed = run_all(
        pipeline,
        folder,
        arguments.pipeline,
        arguments.overrides,
        arguments.jobs,
        arguments.accept_changes,
    )
    # Where some runs failed, the others are compared all the same.
    if failed and not has_finished_run(pipeline, folder):
        return 1
    comparison = write_comparison(pipeline, folder)
    print_comparison(comparison, arguments.json)
    words = pipeline_words(arguments.pipeline, arguments.overrides, arguments.out)
    write_report_page(pipeline, folder, comparison, words)
    status = verdict_status(comparison)
    if failed:
        return 1
    return status
