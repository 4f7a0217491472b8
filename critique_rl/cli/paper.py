"""`critique-rl paper`: figures, LaTeX tables and a methods paragraph from finished runs."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import TYPE_CHECKING

from critique_rl.cli.arguments import Commands, add_pipeline_command, load_finished
from critique_rl.cli.compare import verdict_status, write_comparison
from critique_rl.config.terminal import say

if TYPE_CHECKING:
    from critique_rl.analysis.paper.run_setup import Presets


def add_command(commands: Commands) -> None:
    """Add `paper` to the parser."""
    help = "write figures, LaTeX tables and a methods paragraph for a paper"
    command = add_pipeline_command(commands, "paper", paper, help)
    command.add_argument(
        "--into",
        type=Path,
        metavar="FOLDER",
        help="where the files go (default: the folder paper beside the runs)",
    )


def paper(arguments: argparse.Namespace) -> int:
    """Compare the finished runs again and write the files; 1 where an arm is no critique arm.

    Raises:
        ConfigError: matplotlib is not installed, or runs were started with other settings than the
            pipeline has now.
    """
    from critique_rl.analysis.paper.style import check_matplotlib

    # Before seconds of imports and reading.
    check_matplotlib()
    pipeline, folder = load_finished(arguments)
    from critique_rl.analysis.paper.curves import read_curves
    from critique_rl.analysis.paper.files import write_paper
    from critique_rl.analysis.paper.run_setup import read_setup

    comparison = write_comparison(pipeline, folder)
    setup = read_setup(folder, comparison, _presets())
    curves = read_curves(folder, comparison)
    target = arguments.into or folder.paper
    written = write_paper(target, comparison, setup, curves)
    for note in written.notes:
        say(f"figures: {note}")
    names = ", ".join(path.name for path in written.files)
    say(f"paper: {target} with {names}")
    return verdict_status(comparison)


def _presets() -> Presets:
    """The presets of this version, which the room of analysis cannot import."""
    from critique_rl.analysis.paper.run_setup import Presets
    from critique_rl.experiment.resume.inputs import preset_inputs
    from critique_rl.trainer.presets import PRESETS

    docstrings = {}
    inputs: dict[str, str] = {}
    for name, method in PRESETS.items():
        docstrings[name] = inspect.getdoc(method) or ""
        inputs |= preset_inputs(name)
    return Presets(docstrings, inputs)
