"""Folders of evaluated runs for the tests of the report."""

import pytest
from report_pages import put_evaluation, put_rollouts, rollout

from critique_rl.config.durable_files import append_jsonl, write_yaml
from critique_rl.config.run_folder import PipelineFolder


@pytest.fixture
def bare(tmp_path):
    """Two arms, two seeds, evaluated and nothing else."""
    folder = PipelineFolder(tmp_path / "plateau")
    for arm, right in (("scalar", 0), ("critique", 2)):
        for seed in (0, 1):
            put_evaluation(folder, arm, seed, right + seed)
    return folder


@pytest.fixture
def full(bare):
    """The same with the base, curves, configurations and one failure of each kind."""
    put_evaluation(bare, "base", None, 0)
    for arm in ("scalar", "critique"):
        for seed in (0, 1):
            run = bare.run(arm, seed)
            write_yaml(
                run.config, {"arm": arm, "learning_rate": 1e-4, "versions": {"trl": "1.2.3"}}
            )
            for step in (1, 2, 3):
                rate = {"refine/rescue_rate": 0.5} if arm == "critique" else {}
                append_jsonl(
                    run.metrics,
                    {
                        "step": step,
                        "tokens/generated": 300 * step + seed,
                        "eval/pass@1/plateau": 0.1 * step,
                        **rate,
                    },
                )
    uncritiqued = rollout(
        text="13", critique="", critique_status="failed", critique_reason="timeout"
    )
    rescue = rollout(role="candidate", attempt=0, text="16 then", outcome="right", chosen=True)
    miss = rollout(role="candidate", attempt=1, text="still 14")
    put_rollouts(
        bare, [rollout(), rollout(text="14"), uncritiqued, rollout(outcome="right"), rescue, miss]
    )
    return bare
