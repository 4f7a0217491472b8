"""`critique-rl plan`: the command of every run that is still to do, in stages that must follow each
other, for a cluster to run. Nothing is run here.

    lines     one a run, in order
    parallel  a script for GNU parallel
    slurm     a script that submits one job array a stage
    sky       a script that starts one managed job of SkyPilot a run

Trials of a sweep are the first stage, arms that branch from another one the last. Left out:
resources, which only the user knows; each script has one place to write them in. All runs need one
folder for results that renames files atomically (a disk, NFS or Lustre, not a mounted bucket).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.experiment.sweep import trials

FORMATS = ("lines", "parallel", "slurm", "sky")


@dataclass(frozen=True)
class PlannedRun:
    """One process: its short name, and its command."""

    name: str
    command: str


Stages = list[list[PlannedRun]]


def train_words(tail: Sequence[str], arm: str, seed: int) -> list[str]:
    """Arguments that train one arm with one seed; `tail` is the pipeline, its overrides and --out."""
    return ["train", *tail, "--arm", arm, "--seed", str(seed)]


def launcher(config: Path) -> str:
    """The prefix that starts a run on several processes, as an accelerate config says; ConfigError
    where there is none.
    """
    if not config.is_file():
        raise ConfigError(
            f"--accelerate: no file {config}; give one such as pipelines/accelerate/ddp.yaml, or what accelerate config wrote"
        )
    return f"accelerate launch --config_file {shlex.quote(str(config))} -m critique_rl"


def stages(pipeline: Pipeline, folder: PipelineFolder, tail: Sequence[str], prefix: str) -> Stages:
    """Runs that are not finished, in stages of which each needs the one before it; `prefix` starts
    each command, such as that of `launcher`.
    """
    tried = (
        _runs(trials(pipeline), folder.sweep, [*tail, "--sweep"], prefix, branches=False)
        if pipeline.sweep is not None
        else []
    )
    trunks, branches = (
        _runs(pipeline, folder, tail, prefix, branches) for branches in (False, True)
    )
    return [stage for stage in (tried, trunks, branches) if stage]


def _runs(
    pipeline: Pipeline, folder: PipelineFolder, tail: Sequence[str], prefix: str, branches: bool
) -> list[PlannedRun]:
    return [
        PlannedRun(f"{arm}-{seed}", f"{prefix} {shlex.join(train_words(tail, arm, seed))}")
        for seed in pipeline.seeds
        for arm, config in pipeline.arms.items()
        if (config.branch_from is not None) == branches and not folder.run(arm, seed).finished
    ]


def render_plan(planned: Stages, form: str, name: str) -> str:
    """The plan in one of `FORMATS`."""
    match form:
        case "parallel":
            return _script(
                [PARALLEL.format(lines=_lines(stage)) for stage in planned], PARALLEL_HEAD
            )
        case "slurm":
            parts = [SLURM.format(stage=i + 1, after=AFTER.format(i) if i else "", last=len(stage) - 1, name=shlex.quote(name), commands=_quoted(stage))
                     for i, stage in enumerate(planned)]  # fmt: skip
            return _script(parts, SLURM_HEAD)
        case "sky":
            return _script(["\n".join([*(SKY.format(name=f"{name}-{run.name}", command=shlex.quote(run.command)) for run in stage), "wait"])
                            for stage in planned], SKY_HEAD)  # fmt: skip
    return "\n".join(_lines(stage) for stage in planned)


def _lines(stage: list[PlannedRun]) -> str:
    return "\n".join(run.command for run in stage)


def _quoted(stage: list[PlannedRun]) -> str:
    return "\n".join(f"  {shlex.quote(run.command)}" for run in stage)


def _script(parts: list[str], head: str) -> str:
    return "\n".join(["#!/bin/bash", head, *parts])


PARALLEL_HEAD = "# JOBS runs at a time (default: 1), each stage after the one before it. A run that fails stops none of the others.\nset -u"
PARALLEL = """parallel --jobs "${{JOBS:-1}}" --line-buffer --tag <<'RUNS'
{lines}
RUNS"""

AFTER = '--dependency="afterany:$stage{}" '
SLURM_HEAD = """# Run it where sbatch is. Your partition, account, GPUs and time go here; a run that was stopped goes on when it is submitted again.
OPTIONS=(--gpus=1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@180 --requeue)
set -eu"""
SLURM = """stage{stage}=$(sbatch --parsable "${{OPTIONS[@]}}" {after}--array=0-{last} --job-name={name} <<'JOB'
#!/bin/bash
commands=(
{commands}
)
# exec: the signal before the time limit reaches the run, which then saves a checkpoint.
eval "exec ${{commands[$SLURM_ARRAY_TASK_ID]}}"
JOB
)
echo "stage {stage}: job $stage{stage}\""""

SKY_HEAD = """# Your accelerators, set-up and volume go here. --out must lie on the volume, so that arms that branch find the runs they branch from.
cat > sky-task.yaml <<'TASK'
resources: {accelerators: "H100:1"}
workdir: .
# volumes: {/results: NAME}
setup: pip install critique_rl
run: eval "$COMMAND"
TASK
set -u"""
SKY = "sky jobs launch --yes --name {name} --env COMMAND={command} sky-task.yaml &"
