"""What a claim says before its runs: kept beside them, so that a later change shows.

A bound and the seeds are named before the first run. Where the file says something else afterwards,
the report tells so; the verdict is on the file of now.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from critique_rl.analysis.claims.claim import Claim, contrast_words, parse_claim
from critique_rl.config.durable_files import read_json, write_json
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline


def keep_claim(pipeline: Pipeline, folder: PipelineFolder) -> None:
    """Write down bounds and seeds of a pipeline's claim; nothing where they stand already."""
    claim = parse_claim(pipeline)
    if claim is not None and not folder.claim.exists():
        write_json(folder.claim, stated(pipeline, claim))


def stated(pipeline: Pipeline, claim: Claim) -> dict[str, Any]:
    """All of a claim that a verdict rests on, as JSON."""
    tests = {}
    for i, test in enumerate(claim.tests, start=1):
        bound = f"{test.bound} {test.number:g}"
        tests[f"test {i}"] = f"{test.metric}, {contrast_words(test.contrast)}, {bound}"
    for i, check in enumerate(claim.checks, start=1):
        bound = f"{check.bound} {check.number:g}"
        tests[f"check {i}"] = f"{check.arm}, {check.log} {bound}"
    seeds = ", ".join(map(str, pipeline.seeds))
    return {"seeds": seeds, **tests}


def claim_changes(pipeline: Pipeline, claim: Claim, folder: PipelineFolder) -> list[str]:
    """How a claim differs from what was kept, a text per difference; [] where nothing was.

    Raises:
        DamagedFile: what was kept cannot be read.
    """
    before: Mapping[str, Any] = read_json(folder.claim)
    if not before:
        return []
    now = stated(pipeline, claim)
    changes = []
    for name in dict.fromkeys([*before, *now]):
        was = before.get(name, "nothing")
        is_now = now.get(name, "nothing")
        if was != is_now:
            changes.append(f"{name}, from [{was}] to [{is_now}]")
    return changes
