"""`critique-rl run`: train every arm and seed, evaluate, compare and report."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

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
from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import PipelineFolder

if TYPE_CHECKING:
    from critique_rl.experiment.campaigns.campaign import Runs

RAY = "ray"


def add_command(commands: Commands) -> None:
    """Add `run` to the parser."""
    help = "train every arm and seed of a pipeline, evaluate, compare and report"
    command = add_pipeline_command(commands, "run", run, help)
    add_json_argument(command)
    add_accept_argument(command)
    command.add_argument(
        "--jobs",
        type=whole_number,
        help="runs at a time, each a process of its own "
        "(default: 1; on Ray as many as there is room for)",
    )
    command.add_argument(
        "--on",
        choices=(RAY,),
        help="ray: each run is a task of a Ray cluster; --out lies on storage that its nodes "
        "share (default: this machine)",
    )
    command.add_argument(
        "--address",
        help="of the Ray cluster, as host:port; local: start one on this machine (default: "
        "$RAY_ADDRESS, else the cluster that runs on this machine, else local)",
    )
    command.add_argument(
        "--cpus-per-run", type=whole_number, help="CPUs of a run on Ray (default: 1)"
    )
    command.add_argument(
        "--gpus-per-run",
        type=float,
        help="GPUs of a run on Ray, from 0 to 1; 0.5: two runs share one "
        "(default: 1 where the cluster has GPUs, else 0)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run what is not finished; 1 where a run failed, or an arm is no critique arm.

    Raises:
        ConfigError: Settings that cannot be used.
    """
    from critique_rl.experiment.campaigns.campaign import run_all

    _check_place(arguments)
    pipeline, folder = load(arguments)
    with closing(_runs(arguments, folder)) as runs:
        failed = run_all(
            pipeline,
            folder,
            arguments.pipeline,
            arguments.overrides,
            runs,
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


def _check_place(arguments: argparse.Namespace) -> None:
    """Check the options that say where runs go.

    Raises:
        ConfigError: One is out of its range, or means nothing on this machine.
    """
    cpus = arguments.cpus_per_run
    gpus = arguments.gpus_per_run
    if arguments.jobs is not None:
        check_jobs(arguments.jobs)
    given = {"--address": arguments.address, "--cpus-per-run": cpus, "--gpus-per-run": gpus}
    for option, value in given.items():
        if value is not None and arguments.on != RAY:
            raise ConfigError(f"{option} is for runs on Ray; give --on ray too")
    if cpus is not None and cpus < 1:
        raise ConfigError(f"--cpus-per-run: got {cpus}, expected 1 or more")
    if gpus is not None and not 0 <= gpus <= 1:
        raise ConfigError(
            f"--gpus-per-run: got {gpus:g}, expected 0 to 1: a run is one process, which trains on "
            "one GPU; for more, critique-rl plan --accelerate"
        )


def _runs(arguments: argparse.Namespace, folder: PipelineFolder) -> Runs:
    """Where the runs go."""
    if arguments.on != RAY:
        from critique_rl.experiment.campaigns.local import LocalRuns

        return LocalRuns(arguments.jobs or 1)
    from critique_rl.experiment.campaigns.ray_runs import RayOptions, RayRuns

    options = RayOptions(
        address=arguments.address,
        cpus=arguments.cpus_per_run or 1,
        gpus=arguments.gpus_per_run,
        jobs=arguments.jobs,
    )
    return RayRuns(options, folder)
