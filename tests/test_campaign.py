"""What a campaign says of itself: estimates before the start, time left, and runs whose trunk did not finish."""

from __future__ import annotations

import pytest

from critique_rl.campaign import Job, _orphaned, _ready, _share, estimate, time_left
from critique_rl.config import parse_pipeline
from critique_rl.runs import PipelineFolder, append_jsonl, write_json

PIPELINE = parse_pipeline(
    "p",
    {
        "task": {"name": "lab/chain"},
        "policy": {"model": "lab"},
        "budget": {"generated_tokens": 1000},
        "seeds": [0, 1],
        "arms": {"scalar": {}, "critique": {"critic": {"kind": "oracle"}}},
    },
)


def jobs(folder: PipelineFolder) -> list[Job]:
    return [Job(arm, seed, folder.run(arm, seed), []) for seed in (0, 1) for arm in ("scalar", "critique") if not folder.run(arm, seed).finished]


def test_the_estimate_adds_what_is_left_by_what_finished_runs_cost(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    assert estimate(PIPELINE, folder, jobs(folder), 2) == (
        "4 runs to do: 4,000 generated tokens; critic tokens, money and time are not known until a run has finished"
    )
    write_json(folder.run("scalar", 0).evaluation, {"cost": {"critic_tokens": 0, "usd": 0.0, "wall_seconds": 600.0}})
    write_json(folder.run("critique", 0).evaluation, {"cost": {"critic_tokens": 5000, "usd": 0.5, "wall_seconds": 1200.0}})
    append_jsonl(folder.run("critique", 1).metrics, {"step": 3, "tokens/generated": 500})
    # scalar 1: 1,000 tokens and 600 s; critique 1 is half done: 500 tokens, 600 s, 2,500 critic tokens; on two jobs 600 s
    assert estimate(PIPELINE, folder, jobs(folder), 2).startswith(
        "2 runs to do: 1,500 generated tokens, 2,500 critic tokens, 0.25 USD, 10 min with 2 at a time (by 2 finished runs"
    )


def test_time_left_is_by_the_share_done_since_the_start() -> None:
    assert time_left([1.0, 0.5, 0.0, 0.0], before=0.5, seconds=100) == pytest.approx(250)
    assert time_left([0.0, 0.0], before=0.0, seconds=5) is None


def test_a_run_waits_for_the_one_it_branches_from_and_is_named_where_that_failed(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    job = Job("branch", 0, folder.run("branch", 0), [], trunk=folder.run("scalar", 0))
    assert _ready([job]) == []
    assert _orphaned([job])[0].status.startswith("failed")
    write_json(folder.run("scalar", 0).evaluation, {})
    assert _ready([job]) == [job]
    assert _share(job, PIPELINE) is None, "an arm the pipeline does not know has no budget"
