"""`critique-rl compare`: paired differences between finished runs, with intervals."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from critique_rl.cli.arguments import (
    Commands,
    add_json_argument,
    add_pipeline_command,
    load_finished,
)
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import printable, say

if TYPE_CHECKING:
    from critique_rl.analysis.comparison import Comparison


def add_command(commands: Commands) -> None:
    """Add `compare` to the parser."""
    help = "compare finished runs: paired differences with intervals"
    command = add_pipeline_command(commands, "compare", compare, help)
    add_json_argument(command)


def compare(arguments: argparse.Namespace) -> int:
    """Write compare.json and print it; 1 where an arm is no critique arm.

    Raises:
        ConfigError: Runs were started with other settings than the pipeline has now.
    """
    pipeline, folder = load_finished(arguments)
    comparison = write_comparison(pipeline, folder)
    print_comparison(comparison, arguments.json)
    return verdict_status(comparison)


def verdict_status(comparison: Comparison) -> int:
    """The exit status of a command that gives a verdict.

    Returns:
        1 where nearly no critique of an arm arrived: the verdict then says nothing of critiques.
        Standard error names the arms.
    """
    from critique_rl.analysis.critiques.words import missing_clauses, no_critique_arms

    arms = no_critique_arms(comparison.critiques)
    for clause in missing_clauses({arm: comparison.critiques[arm] for arm in arms}):
        say(f"critique-rl: {clause}")
    if arms:
        return 1
    return 0


def write_comparison(pipeline: Pipeline, folder: PipelineFolder) -> Comparison:
    """Write compare.json from the finished runs, and return it."""
    from critique_rl.analysis import compare as analysis

    # Curves are over what the budget is of; without a budget, over generated tokens.
    budget = pipeline.arms[pipeline.control].budget.limit
    measure = budget[0] if budget else "generated_tokens"
    comparison = analysis.compare(
        folder,
        pipeline.control,
        pipeline.primary,
        list(pipeline.arms),
        list(pipeline.seeds),
        pipeline.target,
        measure,
        pipeline.delta,
    )
    write_json(folder.comparison, comparison.to_json())
    return comparison


def print_comparison(comparison: Comparison, as_json: bool) -> None:
    """Print tables, the verdict, and what was left out; or JSON."""
    if as_json:
        print(json.dumps(comparison.to_json()))
        return
    from rich.console import Console

    from critique_rl.analysis.verdict import left_out, table, verdict

    console = Console()
    console.print(table(comparison))
    # No markup: names of arms and metrics may hold square brackets.
    lines = (verdict(comparison), *left_out(comparison))
    console.print(*map(printable, lines), sep="\n", markup=False)
