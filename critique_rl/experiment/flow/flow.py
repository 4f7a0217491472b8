"""`flow_of_pipeline`: score every finished run of a pipeline, several at a time."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from critique_rl.analysis.flow.series import Flow, read_flow
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say
from critique_rl.experiment.flow.points import prepare, score_run
from critique_rl.experiment.processes import context


def flow_of_pipeline(pipeline: Pipeline, folder: PipelineFolder, jobs: int = 1) -> Flow:
    """Masses of classes of completions under every finished run's policies.

    Points that were scored before are kept. Progress goes to standard error.

    Args:
        pipeline: The experiment, as `load_pipeline` reads it.
        folder: Its results.
        jobs: Runs scored at a time, each in a process.

    Returns:
        Arm -> seed -> series of masses.

    Raises:
        ConfigError: No run is finished.
    """
    todo = prepare(pipeline, folder, say)
    columns = (
        TextColumn("flow"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("runs"),
        TimeRemainingColumn(),
    )
    # Before the first process starts: two torch threads each on few cores take longer than one.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("flow", total=len(todo))
        if jobs == 1:
            for job in todo:
                score_run(job)
                progress.advance(bar)
        else:
            with context().Pool(jobs) as pool:
                for _ in pool.imap_unordered(score_run, todo):
                    progress.advance(bar)
    return read_flow(folder, list(pipeline.arms), pipeline.seeds)
