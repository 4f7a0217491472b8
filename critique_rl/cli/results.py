"""critique-rl compare and report, and what other commands print of a comparison."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline

if TYPE_CHECKING:
    from critique_rl.analysis.comparison import Comparison


def _load(arguments) -> tuple[Pipeline, PipelineFolder]:
    from critique_rl.analysis.claims import parse_claim

    pipeline = load_pipeline(arguments.pipeline, arguments.overrides)
    parse_claim(pipeline)
    return pipeline, PipelineFolder(arguments.out / pipeline.name)


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise ConfigError(f"--jobs: got {jobs}, expected 1 or more")


def _compare(arguments) -> int:
    _print_comparison(_compared(*_load_as_run(arguments)), arguments.json)
    return 0


def _load_as_run(arguments) -> tuple[Pipeline, PipelineFolder]:
    """`_load`, and ConfigError where runs were started with other settings than the pipeline has
    now. Evaluations may be given anew.
    """
    from critique_rl.experiment.same_config import check_folders
    from critique_rl.experiment.sweep import with_chosen

    pipeline, folder = _load(arguments)
    check_folders(
        with_chosen(pipeline, folder) if folder.sweep_choice.exists() else pipeline,
        folder,
        ignored_sections=("evaluation",),
    )
    return pipeline, folder


def _print_comparison(comparison: Comparison, as_json: bool) -> None:
    from rich.console import Console

    from critique_rl.analysis.summary import left_out, table, verdict

    if as_json:
        print(json.dumps(comparison.to_json()))
        return
    console = Console()
    console.print(table(comparison))
    console.print(verdict(comparison), *left_out(comparison), sep="\n", markup=False)


def _compared(pipeline: Pipeline, folder: PipelineFolder) -> Comparison:
    """Write compare.json and return what it holds."""
    from critique_rl.analysis.compare import compare
    from critique_rl.config.durable_files import write_json

    measure = (pipeline.arms[pipeline.control].budget.limit or ("generated_tokens", 0))[0]
    comparison = compare(
        folder,
        pipeline.control,
        pipeline.primary,
        list(pipeline.arms),
        list(pipeline.seeds),
        pipeline.target,
        measure,
    )
    write_json(folder.comparison, comparison.to_json())
    return comparison


def _report(arguments) -> int:
    """Compares anew: what an evaluation or another control changed since must not be told as it
    was.
    """
    pipeline, folder = _load_as_run(arguments)
    _write_report(pipeline, folder, _compared(pipeline, folder), _words(arguments))
    return 0


def _words(arguments) -> list[str]:
    return [str(arguments.pipeline), *arguments.overrides, "--out", str(arguments.out)]


def _write_report(
    pipeline: Pipeline, folder: PipelineFolder, comparison: Comparison, words: list[str]
) -> None:
    from critique_rl.analysis.report import write_report

    commands = [
        f"critique-rl {command} {shlex.join(words)}" for command in ("run", "compare", "report")
    ]
    page = write_report(folder, comparison, pipeline.external, commands)
    print(f"report: {page}, with report.md, tables.tex and numbers.csv beside it", file=sys.stderr)
