"""The messages of a campaign: estimates before the start, time left, and runs whose trunk did
not finish.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import SMALL, cli, command, write_pipeline
from waiting import SECONDS, ended, wait_until, within

from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import append_jsonl, write_json, write_yaml
from critique_rl.config.folder_lock import is_locked
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.resolved_run import base_config, to_dict, with_seed
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment import processes
from critique_rl.experiment.campaigns import campaign
from critique_rl.experiment.campaigns.campaign import _is_base_due, _mark_orphans, _ready_jobs
from critique_rl.experiment.campaigns.local import LocalRuns
from critique_rl.experiment.progress import Job, budget_share, ended_line, estimate, time_left
from critique_rl.experiment.same_config import check_same_config

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
    return [
        Job(arm, seed, folder.run(arm, seed), [])
        for seed in (0, 1)
        for arm in ("scalar", "critique")
        if not folder.run(arm, seed).finished
    ]


def test_the_estimate_adds_what_is_left_by_what_finished_runs_cost(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    assert estimate(PIPELINE, folder, jobs(folder), 2) == (
        "4 runs to do: 4,000 generated tokens; "
        "critic tokens, money and time are not known until a run has finished"
    )
    write_json(
        folder.run("scalar", 0).evaluation,
        {"cost": {"critic_tokens": 0, "usd": 0.0, "wall_seconds": 600.0}},
    )
    write_json(
        folder.run("critique", 0).evaluation,
        {"cost": {"critic_tokens": 5000, "usd": 0.5, "wall_seconds": 1200.0}},
    )
    append_jsonl(folder.run("critique", 1).metrics, {"step": 3, "tokens/generated": 500})
    # scalar 1: 1,000 tokens and 600 s; critique 1 is half done: 500 tokens, 600 s, 2,500 critic
    # tokens; on two jobs 600 s
    assert estimate(PIPELINE, folder, jobs(folder), 2).startswith(
        "2 runs to do: 1,500 generated tokens, 2,500 critic tokens, 0.25 USD, "
        "10 min with 2 at a time (by 2 finished runs"
    )


def test_time_left_is_by_the_share_done_since_the_start() -> None:
    assert time_left([1.0, 0.5, 0.0, 0.0], before=0.5, seconds=100) == pytest.approx(250)
    assert time_left([0.0, 0.0], before=0.0, seconds=5) is None
    assert time_left([], before=0.0, seconds=5) is None  # no run has a budget


def test_a_run_waits_for_the_one_it_branches_from_and_is_named_where_that_failed(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    job = Job("branch", 0, folder.run("branch", 0), [], trunk=folder.run("scalar", 0))
    assert _ready_jobs([job]) == []
    assert _mark_orphans([job])[0].status.startswith("failed")
    write_json(folder.run("scalar", 0).evaluation, {})
    assert _ready_jobs([job]) == [job]
    assert budget_share(job, PIPELINE) is None, "an arm the pipeline does not know has no budget"


def test_the_base_is_judged_again_where_it_was_another_or_judged_otherwise(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    assert _is_base_due(PIPELINE, folder)
    write_json(folder.base.evaluation, {})
    write_yaml(folder.base.config, base_config(PIPELINE.arms["scalar"]))
    assert not _is_base_due(PIPELINE, folder)
    write_yaml(
        folder.base.config,
        {**base_config(PIPELINE.arms["scalar"]), "policy": {"model": "another", "options": {}}},
    )
    assert _is_base_due(PIPELINE, folder)


def test_a_base_is_judged_again_where_rollouts_are_sampled_otherwise(tmp_path) -> None:
    folder = PipelineFolder(tmp_path)
    write_json(folder.base.evaluation, {})
    scalar = PIPELINE.arms["scalar"]
    earlier = base_config(scalar)
    # As written before policies had this option.
    del earlier["policy"]["generation_config"]
    write_yaml(folder.base.config, earlier)
    assert not _is_base_due(PIPELINE, folder)
    other = replace(scalar, trl={**scalar.trl, "top_k": 5})
    changed = replace(PIPELINE, arms={**PIPELINE.arms, "scalar": other})
    assert _is_base_due(changed, folder)
    write_yaml(folder.base.config, base_config(other))
    assert not _is_base_due(changed, folder)
    neutral = replace(scalar, policy=replace(scalar.policy, generation_config="neutral"))
    changed = replace(PIPELINE, arms={**PIPELINE.arms, "scalar": neutral})
    write_yaml(folder.base.config, earlier)
    assert _is_base_due(changed, folder)


def test_a_setting_that_differs_from_the_folders_is_named_with_both_values(tmp_path) -> None:
    run = PipelineFolder(tmp_path).run("scalar", 0)
    config = PIPELINE.arms["scalar"]
    write_yaml(run.config, {**to_dict(with_seed(config, 0)), "budget": {"generated_tokens": 500}})
    with pytest.raises(ConfigError, match=r"budget.generated_tokens 500, now 1000\)"):
        check_same_config(run, config, 0)
    earlier = {
        key: value for key, value in to_dict(with_seed(config, 0)).items() if key != "prices"
    }
    write_yaml(run.config, earlier)
    check_same_config(run, config, 0)  # an option that came later had its default


MATH = {"kind": "math", "deadline": 2}


@pytest.mark.parametrize(
    ("before", "now", "difference"),
    [
        ("math", {"kind": "math", "workers": 2}, ""),
        ({**MATH, "workers": 8, "memory_gb": 4}, MATH, ""),
        ({**MATH, "memory_gb": 4}, {**MATH, "memory_gb": 1}, ""),
        (MATH, {**MATH, "deadline": 3}, "task.verifier.deadline 2, now 3"),
        (MATH, {**MATH, "step_deadline": 60}, "task.verifier.step_deadline None, now 60"),
    ],
)
def test_what_judging_may_use_of_a_machine_makes_no_other_run(
    tmp_path, before, now, difference
) -> None:
    folder = PipelineFolder(tmp_path)
    arms = []
    for verifier in (before, now):
        scalar = PIPELINE.arms["scalar"]
        arms.append(replace(scalar, task=replace(scalar.task, verifier=verifier)))
    write_json(folder.base.evaluation, {})
    write_yaml(folder.base.config, base_config(arms[0]))
    run = folder.run("scalar", 0)
    write_yaml(run.config, to_dict(with_seed(arms[0], 0)))
    changed = replace(PIPELINE, arms={**PIPELINE.arms, "scalar": arms[1]})
    assert _is_base_due(changed, folder) == (difference != "")
    words = ""
    try:
        check_same_config(run, arms[1], 0)
    except ConfigError as error:
        words = str(error)
    assert difference in words
    assert (words == "") == (difference == "")


def test_a_log_has_a_line_per_run_that_ends(tmp_path) -> None:
    run = jobs(PipelineFolder(tmp_path))[0]
    run.status = "finished"
    run.seconds = 130
    words = "scalar/seed0: finished after 2 min; 3 of 4 runs"
    assert ended_line(run, 3, 4, 3900) == f"{words}, about 1 h 05 min left"
    assert ended_line(run, 3, 4, None) == words


def test_a_campaign_that_dies_of_an_exception_leaves_no_run_behind(
    tmp_path, tiny_policy, monkeypatch
) -> None:
    pipeline = load_pipeline(write_pipeline(tmp_path, tiny_policy, budget={"optimizer_steps": 999}))
    folder = PipelineFolder(tmp_path / "runs" / "small")
    started = []

    def fail_once_a_run_has_started(todo, *_: object) -> list[float]:
        started.extend(job.folder.path for job in todo if job.status == "running")
        if started and is_locked(started[0]):
            raise RuntimeError("shares that cannot be read")
        return []

    monkeypatch.setattr(campaign, "_shares", fail_once_a_run_has_started)
    monkeypatch.setattr(campaign, "_is_base_due", lambda *_: False)
    before = set(multiprocessing.active_children())
    with pytest.raises(RuntimeError, match="cannot be read"), within("the run is stopped"):
        campaign.run_all(pipeline, folder, tmp_path / "small.yaml", [], LocalRuns(1))
    assert set(multiprocessing.active_children()) <= before
    assert started
    assert not is_locked(started[0])


def test_a_run_without_a_budget_ends_where_trl_ends_it(tmp_path, tiny_policy) -> None:
    trl = {**SMALL["trl"], "num_train_epochs": 1}
    evaluation = {**SMALL["evaluation"], "curve_every": 0}
    arms = {"scalar": {}}
    path = write_pipeline(
        tmp_path, tiny_policy, trl=trl, evaluation=evaluation, arms=arms, budget={}
    )
    done = cli("run", path, "--out", tmp_path / "runs")
    assert done.returncode == 0, done.stderr
    run = PipelineFolder(tmp_path / "runs" / "small").run("scalar", 0)
    assert json.loads(run.evaluation.read_text())["cost"]["steps"] == 6  # 12 prompts, 2 a step
    # A log has a line per run that ends, the table once, and what follows on a line of its own.
    lines = done.stderr.splitlines()
    assert any(line.startswith("scalar/seed0: finished after ") for line in lines)
    assert sum("2 of 2 runs finished" in line for line in lines) == 1
    assert any(line.startswith("report: ") for line in lines)


@pytest.mark.processes
def test_a_pool_ends_whatever_its_workers_do() -> None:
    """Its end is a SIGTERM to each worker, and the server that these are forked from blocks it."""
    with within("a pool whose worker sleeps"), processes.context().Pool(2) as workers:
        workers.apply_async(time.sleep, (10 * SECONDS,))


@pytest.mark.processes
def test_a_process_that_is_stopped_before_its_first_instruction_ends() -> None:
    # Beside two busy processes 35 of 40 such signals were lost, where the server ignored SIGTERM.
    for _ in range(10):
        process = processes.context().Process(target=time.sleep, args=(10 * SECONDS,))
        process.start()
        process.terminate()
        assert ended(process, "a process that was asked to stop") == -signal.SIGTERM


@pytest.mark.processes
def test_ctrl_c_while_the_server_imports_leaves_one_sentence(tmp_path, tiny_policy) -> None:
    path = write_pipeline(tmp_path, tiny_policy)
    started = subprocess.Popen(
        command("run", path, "--out", tmp_path / "runs"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children")
    # The resource tracker and the server, which both are of the terminal's group.
    wait_until(lambda: len(children.read_text().split()) == 2, "the server to start")
    time.sleep(1)
    os.killpg(started.pid, signal.SIGINT)
    with within("the command ends"):
        _, errors = started.communicate()
    assert errors == "critique-rl: interrupted; the same command continues\n"
    # Where Ctrl-C passes through an `exec` of text, as dataclasses use, Python ends by the signal
    # though it was caught. A shell shows 130 for both.
    assert started.returncode in (130, -signal.SIGINT)
