"""`critique-rl claims`: run every pipeline of a folder, and judge their claims."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from critique_rl.cli.arguments import (
    Commands,
    add_json_argument,
    check_jobs,
    has_finished_run,
    pipeline_words,
    whole_number,
)
from critique_rl.cli.compare import write_comparison
from critique_rl.cli.report import write_report_page
from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.durable_files import write_json, write_text
from critique_rl.config.names import check_names
from critique_rl.config.pipeline_file import load_pipeline, pipeline_path
from critique_rl.config.run_folder import ClaimsFolder, PipelineFolder
from critique_rl.config.schema import Pipeline
from critique_rl.config.split_rule import with_stored_split
from critique_rl.config.terminal import say

if TYPE_CHECKING:
    from critique_rl.analysis.claims.reports import ClaimReport


def add_command(commands: Commands) -> None:
    """Add `claims` to the parser."""
    command = commands.add_parser(
        "claims", help="run every pipeline of a folder and say which of their claims are reproduced"
    )
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("pipelines/claims"),
        help="pipelines with a claim: section (default: pipelines/claims)",
    )
    command.add_argument(
        "--only",
        metavar="NAMES",
        default="",
        help="run these pipelines alone, such as nsr,sharpen; others are judged by what they have",
    )
    command.add_argument("--jobs", type=whole_number, default=1, help="runs at a time (default: 1)")
    command.add_argument(
        "--quick",
        action="store_true",
        help="one seed and small budgets, to see that everything runs; no verdicts",
    )
    command.add_argument(
        "--out",
        type=Path,
        help="where results go (default: runs/claims, with --quick runs/claims-quick)",
    )
    add_json_argument(command)
    command.set_defaults(command=claims)


def claims(arguments: argparse.Namespace) -> int:
    """Run, compare and report pipeline by pipeline; 1 where a run failed.

    Raises:
        ConfigError: A pipeline that cannot be used, or has no claim.
    """
    from critique_rl.analysis.claims.reports import markdown
    from critique_rl.analysis.claims.stored import keep_claim
    from critique_rl.analysis.records import to_json
    from critique_rl.experiment.campaigns.campaign import check_settings, run_all
    from critique_rl.experiment.campaigns.local import LocalRuns

    check_jobs(arguments.jobs)
    runs = LocalRuns(arguments.jobs)
    # Results of a quick look must never be taken for those of the claims.
    default_out = "runs/claims-quick" if arguments.quick else "runs/claims"
    results = ClaimsFolder(arguments.out or Path(default_out))
    reports: dict[str, list[ClaimReport]] = {}
    failed: list[str] = []
    planned = _claim_pipelines(arguments.folder, arguments.quick)
    chosen = _chosen(arguments.only, [path.stem for path, _ in planned])

    def judge(pipeline: Pipeline, folder: PipelineFolder, words: list[str]) -> None:
        reports[pipeline.name] = _judge_claim(pipeline, folder, words)

    def all_reports() -> list[ClaimReport]:
        in_order = []
        for path, _ in planned:
            in_order += reports.get(path.stem, [])
        return in_order

    def write() -> None:
        write_json(results.json, {"claims": to_json(all_reports())})
        write_text(results.markdown, markdown(all_reports()))

    to_run = []
    # What is wrong in the last pipeline would otherwise show after the days of the others.
    for path, overrides in planned:
        pipeline = load_pipeline(path, overrides)
        folder = results.pipeline(pipeline.name)
        pipeline = with_stored_split(pipeline, folder)
        words = pipeline_words(path, overrides, results.path)
        if pipeline.name in chosen:
            check_settings(pipeline, folder, runs)
            to_run.append((pipeline, folder, path, overrides, words))
        else:
            reports[pipeline.name] = _judge_other(pipeline, folder, words)
    # Written before and after each pipeline, so that a stopped campaign leaves what it has.
    write()
    for pipeline, folder, path, overrides, words in to_run:
        keep_claim(pipeline, folder)
        failed += run_all(pipeline, folder, path, overrides, runs)
        judge(pipeline, folder, words)
        write()
    if arguments.json:
        print(json.dumps({"claims": to_json(all_reports())}))
    else:
        say(markdown(all_reports()), file=sys.stdout)
    if failed:
        return 1
    return 0


def _chosen(only: str, names: Sequence[str]) -> list[str]:
    """The pipelines that --only names; all where it names none.

    Raises:
        ConfigError: No such pipeline.
    """
    chosen = []
    for word in only.split(","):
        name = word.strip()
        if name and name not in names:
            raise ConfigError(f"--only: no pipeline {name!r}; {suggest(name, names)}")
        if name:
            chosen.append(name)
    return chosen or list(names)


def _claim_pipelines(folder: Path, quick: bool) -> list[tuple[Path, list[str]]]:
    """(file, overrides) of every pipeline of the folder.

    Raises:
        ConfigError: No pipeline, or one without a claim.
    """
    from critique_rl.analysis.claims.claim import parse_claim, quick_overrides

    paths = sorted(pipeline_path(folder).glob("*.yaml"))
    if not paths:
        raise ConfigError(
            f"no pipeline in {folder}; give a folder of YAML files, such as pipelines/claims"
        )
    pipelines = []
    # Before the first one runs: a mistake in the last file would otherwise show after hours.
    for path in paths:
        pipeline = load_pipeline(path)
        if parse_claim(pipeline) is None:
            raise ConfigError(
                f"{path} has no claim: section; add one, or give a folder of pipelines that have"
            )
        overrides = quick_overrides(pipeline) if quick else []
        pipelines.append((path, overrides))
    check_names((path.stem for path in paths), "pipelines", is_folder=False)
    return pipelines


def _judge_other(pipeline: Pipeline, folder: PipelineFolder, words: list[str]) -> list[ClaimReport]:
    """The report of a pipeline that is not to run: nothing of it has to be there.

    Its faults are told, and hold up nobody who asks for another one.
    """
    from critique_rl.experiment.plan import check_stored

    try:
        # A verdict is on its file of now.
        check_stored(pipeline, folder)
        return _judge_claim(pipeline, folder, words)
    except ConfigError as error:
        say(f"{pipeline.name}: not judged: {error}")
        return []


def _judge_claim(pipeline: Pipeline, folder: PipelineFolder, words: list[str]) -> list[ClaimReport]:
    """The report of one pipeline's claim; [] where none of its runs has finished."""
    from critique_rl.analysis.claims.claim import parse_claim
    from critique_rl.analysis.claims.reports import report_claim
    from critique_rl.analysis.claims.stored import claim_changes
    from critique_rl.analysis.compare import read_runs
    from critique_rl.analysis.learning_curves import steps

    if not has_finished_run(pipeline, folder):
        return []
    comparison = write_comparison(pipeline, folder)
    write_report_page(pipeline, folder, comparison, words)
    arms = list(pipeline.arms)
    comparable = read_runs(folder, pipeline.control, arms, list(pipeline.seeds))
    claim = parse_claim(pipeline)
    assert claim is not None, "a pipeline without a claim was refused before the first run"

    def logged(arm: str, metric: str) -> dict[int, list[float]]:
        values = {}
        for seed in comparable.runs.get(arm, {}):
            of_seed = []
            for row in steps(folder.run(arm, seed)):
                if row.get(metric) is not None:
                    of_seed.append(float(row[metric]))
            values[seed] = of_seed
        return values

    report = report_claim(
        pipeline,
        claim,
        comparable.runs,
        comparable.base,
        comparison.sweep,
        comparison.critiques,
        logged,
        claim_changes(pipeline, claim, folder),
    )
    return [report]
