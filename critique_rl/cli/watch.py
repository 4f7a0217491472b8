"""`critique-rl watch`: open the tracker that a pipeline's runs log to."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from critique_rl.cli.arguments import Commands, add_pipeline_command, load
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_yaml
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say

SHOWN = ("trackio", "tensorboard", "wandb")
"""Trackers with something to open, the first choice first."""
SITE = "https://wandb.ai"


def add_command(commands: Commands) -> None:
    """Add `watch` to the parser."""
    help = "open the dashboard of the tracker that a pipeline's runs log to"
    command = add_pipeline_command(commands, "watch", watch, help)
    command.add_argument(
        "--tracker", choices=SHOWN, help="which one, where the runs log to several"
    )
    command.add_argument(
        "--no-browser", action="store_true", help="say the address, and open no browser"
    )


def watch(arguments: argparse.Namespace) -> int:
    """Open the dashboard, until Ctrl-C.

    Raises:
        ConfigError: No run logs to a tracker, or its package is missing.
    """
    pipeline, folder = load(arguments)
    sections = _trl_sections(pipeline, folder)
    trackers = _trackers(sections)
    chosen = arguments.tracker
    if chosen is None:
        chosen = next((name for name in SHOWN if name in trackers), None)
    if chosen is None and trackers:
        listed = ", ".join(sorted(trackers))
        raise ConfigError(f"watch: got {listed}, expected one to open: {', '.join(SHOWN)}")
    if chosen not in trackers:
        wanted = chosen or SHOWN[0]
        raise ConfigError(
            f"watch: no run of {pipeline.name} logs to {chosen or 'a tracker'}; train with "
            f"trl.report_to={wanted}. Without a tracker, the table of `critique-rl run` and each "
            "run's metrics.jsonl show the same numbers"
        )
    if not folder.path.exists():
        say(f"watch: no run of {pipeline.name} has been started in {folder.path.parent} yet")
    if find_spec(chosen) is None:
        package = "'critique_rl[track]'" if chosen == "trackio" else chosen
        raise ConfigError(f"watch: {chosen} is not installed; run: pip install {package}")
    project = _project(sections) or folder.path.resolve().name
    if chosen == "trackio":
        _show_trackio(project, not arguments.no_browser)
    elif chosen == "tensorboard":
        _show_tensorboard(folder.tensorboard)
    else:
        say(f"wandb: {SITE}, project {project}; `wandb sync` sends runs that were offline")
    return 0


def _trl_sections(pipeline: Pipeline, folder: PipelineFolder) -> list[Mapping[str, Any]]:
    """The `trl` section of every started run, and of every arm."""
    sections: list[Mapping[str, Any]] = []
    for arm, config in pipeline.arms.items():
        for seed in pipeline.seeds:
            path = folder.run(arm, seed).config
            if path.exists():
                # A run keeps the words that it was started with, such as an override.
                sections.append(read_yaml(path).get("trl") or {})
        sections.append(config.trl)
    return sections


def _trackers(sections: list[Mapping[str, Any]]) -> set[str]:
    names: set[str] = set()
    for section in sections:
        reported = section.get("report_to") or []
        if isinstance(reported, str):
            reported = [reported]
        names.update(reported)
    names.discard("none")
    if "all" in names:
        names.discard("all")
        names.update(name for name in SHOWN if find_spec(name) is not None)
    return names


def _project(sections: list[Mapping[str, Any]]) -> str:
    """The project that the user named; "" where none."""
    for section in sections:
        if section.get("project"):
            return str(section["project"])
    return ""


def _show_trackio(project: str, opens_browser: bool) -> None:
    import trackio

    # It says its address, and returns at Ctrl-C.
    trackio.show(project=project, open_browser=opens_browser, block_thread=True)


def _show_tensorboard(logs: Path) -> None:
    from tensorboard import program

    board = program.TensorBoard()
    board.configure(argv=["tensorboard", "--logdir", str(logs)])
    say(f"tensorboard: {board.launch()} (Ctrl-C ends it)")
    threading.Event().wait()
