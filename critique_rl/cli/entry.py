"""`critique-rl`: run, train, evaluate, compare, report, claims, critics, doctor, init, plan, lab.

Heavy imports happen inside the commands, so `--help` answers at once.

Exit status: 0 success, 1 a run failed, 2 wrong use or bad input. 130 where Ctrl-C or SIGTERM ended
it (the same command continues).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from critique_rl.cli.claims import _claims_command
from critique_rl.cli.critics import _critics_command
from critique_rl.cli.doctor import _doctor_command
from critique_rl.cli.init import _init_command
from critique_rl.cli.lab import add_lab_command
from critique_rl.cli.results import (
    _check_jobs,
    _compare,
    _compared,
    _load,
    _print_comparison,
    _report,
    _words,
    _write_report,
)
from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.folder_lock import lock_folder
from critique_rl.config.pipeline_file import pipeline_path
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.experiment.plan import FORMATS, launcher, render_plan, stages
from critique_rl.experiment.same_config import check_same_config


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = _parsed(argv)
    try:
        return arguments.command(arguments)
    except ConfigError as error:
        print(f"critique-rl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("critique-rl: interrupted; the same command continues", file=sys.stderr)
        return 130


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """argparse takes overrides directly after the pipeline only; people write them last."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any(word.startswith("-") or "=" not in word for word in rest) or (
        rest and not hasattr(arguments, "overrides")
    ):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "critique-rl",
        description="Critique-augmented GRPO: train arms, judge them on the same problems, compare them.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _pipeline_command(
        commands,
        "run",
        _run,
        "train every arm and seed of a pipeline, evaluate, compare and report",
    )
    run.add_argument(
        "--jobs", type=int, default=1, help="runs at a time, each a process of its own (default: 1)"
    )
    train = _pipeline_command(commands, "train", _train, "train and evaluate one arm with one seed")
    train.add_argument("--arm", required=True)
    train.add_argument("--seed", type=int, required=True)
    train.add_argument(
        "--sweep",
        action="store_true",
        help="a trial of the pipeline's sweep: the arm is <arm>@<value>",
    )
    evaluate = _pipeline_command(
        commands,
        "evaluate",
        _evaluate,
        "judge the policy before training, or a trained one again, on the held-out problems",
    )
    evaluate.add_argument("--arm", help="a trained arm (default: the policy before training)")
    evaluate.add_argument("--seed", type=int, default=0, help="the arm's seed (default: 0)")
    _pipeline_command(
        commands, "compare", _compare, "compare finished runs: paired differences with intervals"
    )
    _pipeline_command(commands, "report", _report, "write one self-contained HTML page")
    _claims_command(commands)
    _critics_command(commands)
    _doctor_command(commands)
    _init_command(commands)
    plan = _pipeline_command(
        commands,
        "plan",
        _plan,
        "print the command of every run that is still to do, for a cluster to run",
    )
    plan.add_argument(
        "--format",
        default="lines",
        choices=FORMATS,
        help="lines, or a script for GNU parallel, Slurm or SkyPilot (default: lines)",
    )
    start = plan.add_mutually_exclusive_group()
    start.add_argument(
        "--prefix",
        default="critique-rl",
        help='what starts a command, such as "accelerate launch -m critique_rl" (default: critique-rl)',
    )
    start.add_argument(
        "--accelerate",
        type=Path,
        metavar="FILE",
        help="start each by accelerate launch with this config, as of pipelines/accelerate",
    )
    add_lab_command(commands)
    return parser


def _pipeline_command(commands, name: str, function, help: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help, description=help)
    command.add_argument(
        "pipeline", type=Path, help="a YAML file, such as pipelines/quickstart.yaml"
    )
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="such as 'seeds=[0,1]' or trl.learning_rate=5e-5",
    )
    command.add_argument(
        "--out", type=Path, default=Path("runs"), help="where results go (default: runs)"
    )
    if name in ("run", "evaluate", "compare"):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(command=function)
    return command


def _run(arguments) -> int:
    from critique_rl.experiment.campaign import run_all

    _check_jobs(arguments.jobs)
    pipeline, folder = _load(arguments)
    failed = run_all(pipeline, folder, arguments.pipeline, arguments.overrides, arguments.jobs)
    if failed and not any(
        folder.run(arm, seed).finished for arm in pipeline.arms for seed in pipeline.seeds
    ):
        return 1
    comparison = _compared(pipeline, folder)
    _print_comparison(comparison, arguments.json)
    _write_report(pipeline, folder, comparison, _words(arguments))
    return 1 if failed else 0


def _arm(arguments, pipeline: Pipeline, arm: str) -> RunConfig:
    if arm not in pipeline.arms:
        raise ConfigError(
            f"--arm: no arm {arm!r} in {arguments.pipeline}; {suggest(arm, pipeline.arms)}"
        )
    return pipeline.arms[arm]


def _train(arguments) -> int:
    from critique_rl.experiment.sweep import trials, with_chosen

    pipeline, folder = _load(arguments)
    if arguments.sweep and pipeline.sweep is None:
        raise ConfigError(f"--sweep: {arguments.pipeline} has no sweep: section")
    pipeline, folder = (
        (trials(pipeline), folder.sweep)
        if arguments.sweep
        else (with_chosen(pipeline, folder), folder)
    )
    config, run = (
        _arm(arguments, pipeline, arguments.arm),
        folder.run(arguments.arm, arguments.seed),
    )
    check_same_config(run, config, arguments.seed)
    with lock_folder(run.path, "training"):
        return _train_held(config, arguments, run)


def _train_held(config: RunConfig, arguments, run: RunFolder) -> int:
    from critique_rl.experiment import train

    try:
        train.train(config, arguments.arm, arguments.seed, run)
    except train.Interrupted as interruption:
        print(f"critique-rl: {interruption}", file=sys.stderr)
        return 130
    except train.RunFailed as failure:
        print(f"critique-rl: {failure}", file=sys.stderr)
        return 1
    return 0


def _evaluate(arguments) -> int:
    pipeline, folder = _load(arguments)
    config, run = _arm(arguments, pipeline, arguments.arm or pipeline.control), folder.base
    if arguments.arm:
        run = folder.run(arguments.arm, arguments.seed)
        if not run.finished:
            raise ConfigError(
                f"no finished run in {run.path}; train it first: critique-rl train {arguments.pipeline} --arm {arguments.arm}"
            )
    from critique_rl.experiment import train

    train.evaluate_again(config, run) if arguments.arm else train.evaluate_base(config, folder)
    metrics = json.loads(run.evaluation.read_text())["metrics"]
    print(
        json.dumps(metrics)
        if arguments.json
        else "\n".join(f"{name:<24}{value:.3f}" for name, value in metrics.items())
    )
    return 0


def _plan(arguments) -> int:
    pipeline, folder = _load(arguments)
    planned = stages(
        pipeline,
        folder,
        _words(arguments),
        launcher(pipeline_path(arguments.accelerate)) if arguments.accelerate else arguments.prefix,
    )
    if planned:
        print(render_plan(planned, arguments.format, pipeline.name))
    counted = ", then ".join(str(len(stage)) for stage in planned) or "no"
    print(
        f"{counted} runs to do; afterwards critique-rl run {shlex.join(_words(arguments))} evaluates the policy before training, compares and reports",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
