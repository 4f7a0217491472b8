"""`critique-rl plan`: the command of every run still to do, in stages that follow each other, for a
cluster to run. Nothing is run here. The formats:

- lines: one run per line, in order
- parallel: a script for GNU parallel
- slurm: a script that submits one job array per stage
- sky: a script that starts one managed job of SkyPilot per run

Every word is quoted for a shell, and a job has a name that its scheduler takes. A run is installed
from the checkout or from a wheel of this version: no index has this package. Trials of a sweep are
the first stage, arms that branch from another one the last. All runs need one
folder for results that renames files atomically (a disk, NFS or Lustre, not a mounted bucket). Left
out: resources, which only the user knows; each script has one place to write them in.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from critique_rl.config.checks import ConfigError
from critique_rl.config.folder_lock import check_writable
from critique_rl.config.names import path_word
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.yaml_text import read_yaml
from critique_rl.experiment.same_config import check_folders
from critique_rl.experiment.sweep import trials, with_chosen

FORMATS = ("lines", "parallel", "slurm", "sky")

PARALLEL_HEAD = (
    "# JOBS runs at a time (default: 1), each stage after the one before it. "
    "A run that fails stops none of the others.\n"
    "set -u"
)
PARALLEL = """parallel --jobs "${{JOBS:-1}}" --line-buffer --tag <<'RUNS'
{lines}
RUNS"""

# TERM 180 seconds before the time limit leaves a run time to save a checkpoint. --requeue lets
# Slurm start it again after a preemption.
SLURM_HEAD = (
    "# Run it where sbatch is. Your partition, account, GPUs and time go here; "
    "a run that was stopped goes on when it is submitted again.\n"
    "OPTIONS=(--gpus=1 --cpus-per-task=8 --mem=64G --time=24:00:00 --signal=B:TERM@180 --requeue)\n"
    "set -eu"
)
SLURM = """stage{stage}=$(sbatch --parsable "${{OPTIONS[@]}}" \
{after}--array=0-{last} --job-name={name} <<'JOB'
#!/bin/bash
commands=(
{commands}
)
# exec: the signal before the time limit reaches the run, which then saves a checkpoint.
eval "exec ${{commands[$SLURM_ARRAY_TASK_ID]}}"
JOB
)
echo "stage {stage}: job $stage{stage}\""""
# afterany, not afterok: a failed run must not cancel the runs that do not need it.
AFTER = '--dependency="afterany:$stage{}" '

SKY_HEAD = (
    "# Your accelerators, set-up and volume go here. --out must lie on the volume, "
    "so that arms that branch find the runs they branch from.\n"
    """cat > sky-task.yaml <<'TASK'
resources: {accelerators: "H100:1"}
# The checkout of critique_rl, or a folder with its wheel (pip wheel --no-deps CHECKOUT).
workdir: .
# volumes: {/results: NAME}
setup: |
  if [ -f pyproject.toml ] && [ -d critique_rl ]; then
    pip install --constraint constraints.txt .
  else
    pip install ./critique_rl-VERSION-py3-none-any.whl
  fi
run: |
  eval "$COMMAND"
TASK
set -u"""
)
# In the background: `sky jobs launch` waits for its job, and the runs of a stage are independent.
SKY = "sky jobs launch --yes --name {name} --env COMMAND={command} sky-task.yaml &"
RANK_ROWS = "per_device_train_batch_size"
DEFAULT_RANK_ROWS = 8
"""TRL's default of it."""
LONGEST_JOB = 60
"""Characters of a job's name. SkyPilot's are letters, digits, - _ . after a letter; clouds shorten
what is longer.
"""
LINE_ENDS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
"""Signs that end a line of a plan, or of which a shell makes something else."""


@dataclass(frozen=True)
class PlannedRun:
    """One process: its short name, and its command."""

    name: str
    command: str


Stages = list[list[PlannedRun]]


def train_words(tail: Sequence[str], arm: str, seed: int) -> list[str]:
    """Arguments that train one arm with one seed.

    Args:
        tail: The pipeline, its overrides and --out.
        arm: The arm's name.
        seed: The seed.
    """
    return ["train", *tail, "--arm", arm, "--seed", str(seed)]


def job_name(*parts: str) -> str:
    """A name of a job that SkyPilot and Slurm take, different for different parts."""
    wanted = "-".join(parts)
    name = re.sub(r"[^a-zA-Z0-9._-]+", "-", wanted)
    if not name[0].isalpha():
        name = f"run-{name}"
    if name == wanted and name[-1].isalnum() and len(name) <= LONGEST_JOB:
        return name
    # Two names that differ only in signs that are taken out stay two.
    digest = hashlib.sha256(wanted.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{name[: LONGEST_JOB - 9]}-{digest}"


def check_stored(pipeline: Pipeline, folder: PipelineFolder, accepts_changes: bool = False) -> None:
    """Refuse a folder that cannot be written, or whose runs were started with other settings.

    Raises:
        ConfigError: The first of these.
    """
    check_writable(folder.path)
    if pipeline.sweep is None:
        check_folders(pipeline, folder, accepts_changes=accepts_changes)
        return
    check_folders(trials(pipeline), folder.sweep, accepts_changes=accepts_changes)
    try:
        chosen = with_chosen(pipeline, folder)
    except ConfigError:
        # The trials come first, and choose anew.
        return
    check_folders(chosen, folder, accepts_changes=accepts_changes)


def check_words(words: Iterable[str]) -> None:
    """Refuse words that end a line: a plan has a run in each.

    Raises:
        ConfigError: The first such word.
    """
    for word in words:
        if LINE_ENDS.search(word):
            raise ConfigError(
                f"plan: got {word!r} in the command, which holds a line end or another control "
                "character, and a plan has a run a line; give it without"
            )


def launcher(config: Path) -> str:
    """The prefix that starts a run on several processes, as an accelerate config says.

    Raises:
        ConfigError: there is no such file.
    """
    if not config.is_file():
        raise ConfigError(
            f"--accelerate: no file {config}; give one such as pipelines/accelerate/ddp.yaml, "
            "or what accelerate config wrote"
        )
    return f"accelerate launch --config_file {shlex.quote(path_word(config))} -m critique_rl"


def rank_count(prefix: str, accelerate: Path | None) -> int:
    """Processes that a planned run is started on, as far as the prefix or the config tells."""
    match = re.search(r"--(?:num|nproc)[_-](?:processes|per[_-]node)[ =](\d+)", prefix)
    if match:
        return max(1, int(match[1]))
    if accelerate is None:
        return 1
    config = read_yaml(accelerate.read_text(), str(accelerate))
    count = config.get("num_processes", 1) if isinstance(config, dict) else 1
    return count if isinstance(count, int) and count > 0 else 1


def on_ranks(pipeline: Pipeline, count: int) -> Pipeline:
    """The pipeline as one process would have to run it to take as many rows a step as `count` do.

    Only to check it by: TRL's rules are about the rows of all processes together.
    """
    if count == 1:
        return pipeline
    arms = {}
    for arm, config in pipeline.arms.items():
        rows = config.trl.get(RANK_ROWS, DEFAULT_RANK_ROWS)
        arms[arm] = config
        if isinstance(rows, int) and not isinstance(rows, bool) and rows > 0:
            arms[arm] = replace(config, trl={**config.trl, RANK_ROWS: rows * count})
    return replace(pipeline, arms=arms)


def stages(pipeline: Pipeline, folder: PipelineFolder, tail: Sequence[str], prefix: str) -> Stages:
    """Unfinished runs, in stages each of which needs the one before it; empty stages are left out.

    Args:
        pipeline: The experiment.
        folder: Its results, which tell what is finished.
        tail: The pipeline's file, its overrides and --out, as on the command line.
        prefix: The start of each command, such as `launcher` gives, as a shell reads it.

    Raises:
        ConfigError: A word holds a line end, or the sweep's list may grow.
    """
    check_words([*tail, prefix])
    candidates: Stages = []
    if pipeline.sweep is not None:
        if pipeline.sweep.extend:
            raise ConfigError(
                f"sweep.extend: got {pipeline.sweep.extend}, expected 0 for a plan: which values "
                "follow is known only after the trials; give critique-rl run, or list them"
            )
        trial_tail = [*tail, "--sweep"]
        candidates.append(_unfinished(trials(pipeline), folder.sweep, trial_tail, prefix, False))
    for branches in (False, True):
        candidates.append(_unfinished(pipeline, folder, tail, prefix, branches))
    return [stage for stage in candidates if stage]


def _unfinished(
    pipeline: Pipeline, folder: PipelineFolder, tail: Sequence[str], prefix: str, branches: bool
) -> list[PlannedRun]:
    """Unfinished runs of the arms that branch from another one, or of those that do not."""
    runs = []
    for seed in pipeline.seeds:
        for arm, config in pipeline.arms.items():
            is_branch = config.branch_from is not None
            if is_branch == branches and not folder.run(arm, seed).finished:
                command = shlex.join(train_words(tail, arm, seed))
                runs.append(PlannedRun(f"{arm}-{seed}", f"{prefix} {command}"))
    return runs


def render_plan(planned: Stages, form: str, name: str) -> str:
    """The plan in one of `FORMATS`; `name` is the pipeline's, for the names of jobs."""
    match form:
        case "parallel":
            parts = [PARALLEL.format(lines=_lines(stage)) for stage in planned]
            return _script(PARALLEL_HEAD, parts)
        case "slurm":
            parts = [_job_array(stage, number, name) for number, stage in enumerate(planned, 1)]
            return _script(SLURM_HEAD, parts)
        case "sky":
            # The metadata of the package have its version; a wheel's name holds it too.
            head = SKY_HEAD.replace("VERSION", version("critique_rl"))
            return _script(head, [_managed_jobs(stage, name) for stage in planned])
    return "\n".join(_lines(stage) for stage in planned)


def _lines(stage: list[PlannedRun]) -> str:
    return "\n".join(run.command for run in stage)


def _job_array(stage: list[PlannedRun], number: int, name: str) -> str:
    commands = "\n".join(f"  {shlex.quote(run.command)}" for run in stage)
    after = AFTER.format(number - 1) if number > 1 else ""
    return SLURM.format(
        stage=number, after=after, last=len(stage) - 1, name=job_name(name), commands=commands
    )


def _managed_jobs(stage: list[PlannedRun], name: str) -> str:
    lines = []
    for run in stage:
        # The command is quoted once more: it is the value of an environment variable.
        command = shlex.quote(run.command)
        lines.append(SKY.format(name=job_name(name, run.name), command=command))
    return "\n".join([*lines, "wait"])


def _script(head: str, parts: list[str]) -> str:
    return "\n".join(["#!/bin/bash", head, *parts])
