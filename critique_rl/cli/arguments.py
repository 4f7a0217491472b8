"""Arguments that several commands share, and the pipeline and folder that they name.

Nothing heavy is imported here: `--help` of every command answers at once.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.names import path_word, shown
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.config.split_rule import with_stored_split

# argparse has no public name for the object that add_subparsers gives.
Commands = Any
Command = Callable[[argparse.Namespace], int]
"""A command's function: parsed arguments -> exit status."""


def add_pipeline_command(
    commands: Commands, name: str, function: Command, help: str
) -> argparse.ArgumentParser:
    """Add a command that reads a pipeline file, overrides and --out.

    Args:
        commands: The object that `add_subparsers` gave.
        name: The command's word.
        function: Called with the parsed arguments.
        help: One line, for the list of commands and the command's own page.
    """
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
    command.set_defaults(command=function)
    return command


def whole_number(text: str) -> int:
    """The type of options that count: digits alone. Python's int reads 1_0 and other scripts too.

    Raises:
        ArgumentTypeError: Anything else.
    """
    if not re.fullmatch("[-+]?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"got {shown(text)}, expected a whole number, such as 10")
    return int(text)


def add_json_argument(command: argparse.ArgumentParser, instead_of: str = "a table") -> None:
    """Add --json, which prints JSON instead of a table."""
    command.add_argument("--json", action="store_true", help=f"print JSON instead of {instead_of}")


def add_accept_argument(command: argparse.ArgumentParser) -> None:
    """Add --accept-changes, without which a run never goes on with something else."""
    command.add_argument(
        "--accept-changes",
        action="store_true",
        help="go on with runs although settings, prompts, data, models, code or versions have "
        "changed since they started; compare.json and the report say what and from which step",
    )


def load(arguments: argparse.Namespace) -> tuple[Pipeline, PipelineFolder]:
    """The pipeline that the arguments name, and the folder of its results.

    Raises:
        ConfigError: A file, override or claim that cannot be used.
    """
    from critique_rl.analysis.claims.claim import parse_claim

    pipeline = load_pipeline(arguments.pipeline, arguments.overrides)
    # Checked now: a wrong claim would otherwise be refused after days of training.
    parse_claim(pipeline)
    folder = PipelineFolder(arguments.out / pipeline.name)
    return with_stored_split(pipeline, folder), folder


def load_finished(arguments: argparse.Namespace) -> tuple[Pipeline, PipelineFolder]:
    """`load` for commands that read finished runs.

    Raises:
        ConfigError: Runs were started with other settings than the pipeline has now.
    """
    from critique_rl.experiment.same_config import check_folders
    from critique_rl.experiment.sweep import with_chosen

    pipeline, folder = load(arguments)
    trained = with_chosen(pipeline, folder) if folder.sweep_choice.exists() else pipeline
    # A trained policy may be judged again by other settings: `critique-rl evaluate --arm`.
    check_folders(trained, folder, ignored_sections=("evaluation",))
    return pipeline, folder


def arm_config(path: Path, arms: Mapping[str, RunConfig], arm: str) -> RunConfig:
    """The arm that --arm or --arms names.

    Raises:
        ConfigError: No such arm in the pipeline file `path`.
    """
    if arm not in arms:
        raise ConfigError(f"no arm {shown(arm)} in {path}; {suggest(arm, arms)}")
    return arms[arm]


def check_jobs(jobs: int) -> None:
    """Check --jobs.

    Raises:
        ConfigError: Less than one run at a time.
    """
    if jobs < 1:
        raise ConfigError(f"--jobs: got {jobs}, expected 1 or more")


def pipeline_words(path: Path, overrides: Iterable[str], out: Path) -> list[str]:
    """The words of a command line that name the same pipeline and folder."""
    return [path_word(path), *overrides, "--out", path_word(out)]


def has_finished_run(pipeline: Pipeline, folder: PipelineFolder) -> bool:
    """True where at least one run of the pipeline is finished."""
    for arm in pipeline.arms:
        if any(folder.run(arm, seed).finished for seed in pipeline.seeds):
            return True
    return False


FEW_PROMPTS = 16
"""Training prompts of a task whose held-out problems alone are counted."""


def held_out_families(pipeline: Pipeline) -> list[str]:
    """The family of each problem that the arms will be judged on.

    Raises:
        ConfigError: The task cannot be loaded.
    """
    from critique_rl.tasks.load import load_task

    config = pipeline.arms[pipeline.control]
    task = load_task(replace(config.task, size=FEW_PROMPTS), 0)
    rows = task.held_out(config.evaluation.split, config.evaluation.problems)
    return [str(row["family"]) for row in rows]
