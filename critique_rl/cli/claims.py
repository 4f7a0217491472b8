"""critique-rl claims: run every pipeline of a folder, and judge the claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from critique_rl.cli.results import _check_jobs, _compared, _write_report
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline, pipeline_path
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline

if TYPE_CHECKING:
    from critique_rl.analysis.claim_reports import ClaimReport


def _claims_command(commands) -> None:
    claims = commands.add_parser(
        "claims", help="run every pipeline of a folder and say which of their claims are reproduced"
    )
    claims.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("pipelines/claims"),
        help="pipelines with a claim: section (default: pipelines/claims)",
    )
    claims.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    claims.add_argument(
        "--quick",
        action="store_true",
        help="one seed and small budgets, to see that everything runs; no verdicts",
    )
    claims.add_argument(
        "--out",
        type=Path,
        help="where results go (default: runs/claims, with --quick runs/claims-quick)",
    )
    claims.add_argument("--json", action="store_true", help="print JSON instead of a table")
    claims.set_defaults(command=_claims)


def _claims(arguments) -> int:
    """Run, compare and report pipeline by pipeline; the table is written anew after each, so that a
    stopped campaign leaves what it has.
    """
    from critique_rl.analysis.claim_reports import markdown
    from critique_rl.analysis.records import to_json
    from critique_rl.config.durable_files import write_json, write_text
    from critique_rl.config.run_folder import ClaimsFolder
    from critique_rl.experiment.campaign import run_all

    _check_jobs(arguments.jobs)
    out = ClaimsFolder(
        arguments.out or Path("runs/claims-quick" if arguments.quick else "runs/claims")
    )
    told, failed = [], []
    for path, overrides in _claim_pipelines(arguments):
        pipeline = load_pipeline(path, overrides)
        failed += [
            f"{pipeline.name}/{name}"
            for name in run_all(
                pipeline, out.pipeline(pipeline.name), path, overrides, arguments.jobs
            )
        ]
        told += _judged(
            pipeline, out.pipeline(pipeline.name), [str(path), *overrides, "--out", str(out.path)]
        )
        write_json(out.json, {"claims": to_json(told)})
        write_text(out.markdown, markdown(told))
    print(json.dumps({"claims": to_json(told)}) if arguments.json else markdown(told))
    return 1 if failed else 0


def _claim_pipelines(arguments) -> list[tuple[Path, list[str]]]:
    """(file, overrides) of every pipeline of the folder; all are checked before the first is run."""
    from critique_rl.analysis.claims import parse_claim, quick_overrides

    paths, found = sorted(pipeline_path(arguments.folder).glob("*.yaml")), []
    if not paths:
        raise ConfigError(
            f"no pipeline in {arguments.folder}; give a folder of YAML files, such as pipelines/claims"
        )
    for path in paths:
        pipeline = load_pipeline(path)
        if parse_claim(pipeline) is None:
            raise ConfigError(
                f"{path} has no claim: section; add one, or give a folder of pipelines that have"
            )
        found.append((path, quick_overrides(pipeline) if arguments.quick else []))
    return found


def _judged(pipeline: Pipeline, folder: PipelineFolder, words: list[str]) -> list[ClaimReport]:
    """What claims.json holds of one pipeline; nothing where not one of its runs has finished."""
    from critique_rl.analysis.claim_reports import report_claim
    from critique_rl.analysis.claims import parse_claim
    from critique_rl.analysis.compare import read_runs

    if not any(folder.run(arm, seed).finished for arm in pipeline.arms for seed in pipeline.seeds):
        return []
    comparison = _compared(pipeline, folder)
    _write_report(pipeline, folder, comparison, words)
    comparable = read_runs(folder, pipeline.control, list(pipeline.arms), list(pipeline.seeds))
    claim = parse_claim(pipeline)
    return [report_claim(pipeline, claim, comparable.runs, comparable.base, comparison.sweep)]
