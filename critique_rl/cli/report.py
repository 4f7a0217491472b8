"""`critique-rl report`: one self-contained HTML page, and its tables as files."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from critique_rl.cli.arguments import Commands, add_pipeline_command, load_finished, pipeline_words
from critique_rl.cli.compare import verdict_status, write_comparison
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say

if TYPE_CHECKING:
    from critique_rl.analysis.comparison import Comparison


def add_command(commands: Commands) -> None:
    """Add `report` to the parser."""
    add_pipeline_command(commands, "report", report, "write one self-contained HTML page")


def report(arguments: argparse.Namespace) -> int:
    """Compare the finished runs again and write the page; 1 where an arm is no critique arm.

    Raises:
        ConfigError: Runs were started with other settings than the pipeline has now.
    """
    pipeline, folder = load_finished(arguments)
    # An old compare.json would show what an evaluation or another control has changed since.
    comparison = write_comparison(pipeline, folder)
    words = pipeline_words(arguments.pipeline, arguments.overrides, arguments.out)
    write_report_page(pipeline, folder, comparison, words)
    return verdict_status(comparison)


def write_report_page(
    pipeline: Pipeline, folder: PipelineFolder, comparison: Comparison, words: Sequence[str]
) -> None:
    """Write the page with the commands that make it again; say where it is on standard error.

    Args:
        pipeline: Its `external` runs are drawn too.
        folder: Where the page goes.
        comparison: Of its finished runs.
        words: The pipeline, overrides and --out, as `pipeline_words` gives them.
    """
    from critique_rl.analysis.learning_curves import external_warnings
    from critique_rl.analysis.report import write_report

    for words_of_run in external_warnings(pipeline.external):
        say(f"warning: {words_of_run}")
    # Pasted into a shell, an override such as seeds=[0,1] would be a pattern without its quotes.
    quoted = shlex.join(words)
    commands = [f"critique-rl {command} {quoted}" for command in ("run", "compare", "report")]
    page = write_report(folder, comparison, pipeline.external, commands)
    say(f"report: {page}, with report.md, tables.tex and numbers.csv beside it")
