"""`critique-rl train`: train and evaluate one arm with one seed."""

from __future__ import annotations

import argparse

from critique_rl._lazy import heavy_imports
from critique_rl.cli.arguments import (
    Commands,
    add_accept_argument,
    add_pipeline_command,
    arm_config,
    load,
    whole_number,
)
from critique_rl.config.checks import ConfigError
from critique_rl.config.folder_lock import check_writable, lock_folder
from critique_rl.config.ranges import MOST_SEED, is_seed
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.config.terminal import say


def add_command(commands: Commands) -> None:
    """Add `train` to the parser."""
    help = "train and evaluate one arm with one seed"
    command = add_pipeline_command(commands, "train", train, help)
    command.add_argument("--arm", required=True)
    command.add_argument("--seed", type=whole_number, required=True)
    add_accept_argument(command)
    command.add_argument(
        "--sweep",
        action="store_true",
        help="a trial of the pipeline's sweep: the arm is <arm>@<value>",
    )
    # Of the runs that `run` starts, which has looked at the settings.
    command.add_argument("--checked", action="store_true", help=argparse.SUPPRESS)


def train(arguments: argparse.Namespace) -> int:
    """Train one run: 130 where it was asked to stop, 1 where it could not go on.

    Raises:
        ConfigError: No such arm, settings that cannot be used, or a folder that was started with
            others.
    """
    from critique_rl.experiment.same_config import check_same_config
    from critique_rl.experiment.sweep import trials, with_chosen

    pipeline, folder = load(arguments)
    check_writable(folder.path)
    if not is_seed(arguments.seed):
        raise ConfigError(
            f"--seed: got {arguments.seed}, expected a whole number from 0 to {MOST_SEED}"
        )
    given = pipeline
    if arguments.sweep:
        if pipeline.sweep is None:
            raise ConfigError(f"--sweep: {arguments.pipeline} has no sweep: section")
        pipeline = trials(pipeline)
        folder = folder.sweep
    arm_config(arguments.pipeline, pipeline.arms, arguments.arm)
    run = folder.run(arguments.arm, arguments.seed)
    if not arguments.checked and not run.finished:
        _check_settings(given)
    if not arguments.sweep:
        pipeline = with_chosen(pipeline, folder)
    config = pipeline.arms[arguments.arm]
    accepts_changes = arguments.accept_changes and not run.finished
    check_same_config(run, config, arguments.seed, accepts_changes=accepts_changes)
    with lock_folder(run.path, "training"):
        return _train_run(config, arguments.arm, arguments.seed, run, accepts_changes)


def _check_settings(pipeline: Pipeline) -> None:
    """Print warnings. Raises ConfigError for settings that `run` would refuse."""
    with heavy_imports():
        from critique_rl.experiment.preflight import check_pipeline

    # Loading the policy fetches what is not here.
    for warning in check_pipeline(pipeline, download=False):
        say(warning)


def _train_run(
    config: RunConfig, arm: str, seed: int, run: RunFolder, accepts_changes: bool
) -> int:
    # Imported after the checks above, which then answer without torch and TRL.
    with heavy_imports():
        from critique_rl.experiment import train as experiment

    try:
        experiment.train(config, arm, seed, run, accepts_changes)
    except experiment.Interrupted as interruption:
        say(f"critique-rl: {interruption}")
        return 130
    except experiment.RunFailed as failure:
        say(f"critique-rl: {failure}")
        return 1
    return 0
