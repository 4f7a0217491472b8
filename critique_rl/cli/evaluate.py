"""`critique-rl evaluate`: judge the policy before training, or a trained one again."""

from __future__ import annotations

import argparse
import json
import sys

from critique_rl._lazy import heavy_imports
from critique_rl.cli.arguments import (
    Commands,
    add_json_argument,
    add_pipeline_command,
    arm_config,
    load,
    whole_number,
)
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import EVALUATE, read_json
from critique_rl.config.folder_lock import check_writable
from critique_rl.config.terminal import say


def add_command(commands: Commands) -> None:
    """Add `evaluate` to the parser."""
    help = "judge the policy before training, or a trained one again, on the held-out problems"
    command = add_pipeline_command(commands, "evaluate", evaluate, help)
    add_json_argument(command)
    command.add_argument("--arm", help="a trained arm (default: the policy before training)")
    command.add_argument("--seed", type=whole_number, default=0, help="the arm's seed (default: 0)")


def evaluate(arguments: argparse.Namespace) -> int:
    """Judge one policy and print its metrics.

    Raises:
        ConfigError: No such arm, or its run is not finished.
    """
    pipeline, folder = load(arguments)
    check_writable(folder.path)
    has_arm = arguments.arm is not None
    arm = arguments.arm if has_arm else pipeline.control
    config = arm_config(arguments.pipeline, pipeline.arms, arm)
    run = folder.base
    if has_arm:
        run = folder.run(arguments.arm, arguments.seed)
        if not run.finished:
            raise ConfigError(
                f"no finished run in {run.path}; train it first: "
                f"critique-rl train {arguments.pipeline} --arm {arguments.arm}"
            )
    # Imported after the checks above, which then answer without torch and TRL.
    with heavy_imports():
        from critique_rl.experiment import train

    if has_arm:
        train.evaluate_again(config, run)
    else:
        train.evaluate_base(config, folder)
    metrics = read_json(run.evaluation, EVALUATE)["metrics"]
    if arguments.json:
        print(json.dumps(metrics))
    else:
        lines = [f"{name:<24}{value:.3f}" for name, value in metrics.items()]
        say(*lines, file=sys.stdout)
    return 0
