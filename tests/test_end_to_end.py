"""The command line on a tiny policy: a complete pipeline, an interrupted run that continues, and
bad input. Real processes, real signals.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pyarrow.parquet as pq
import pytest
from tiny_runs import SMALL, cli, command, write_pipeline
from waiting import ended, wait_for_steps

from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment import processes


@pytest.mark.processes
def test_a_pipeline_runs_compares_reports_and_is_skipped_when_finished(
    tiny_policy, tmp_path
) -> None:
    path = write_pipeline(tmp_path, tiny_policy)
    out = tmp_path / "runs"
    done = cli("run", path, "--out", out, "--jobs", 2)
    assert done.returncode == 0, done.stderr[-2000:]
    folder = PipelineFolder(out / "small")
    comparison = json.loads(folder.comparison.read_text())
    assert set(comparison["arms"]) == {"scalar", "critique"}
    assert comparison["comparisons"][0]["control"] == "scalar"
    assert folder.report.read_text().count("<script") == 1, "the filters, and nothing of a model"
    assert folder.markdown.exists()
    assert folder.latex.exists()
    assert folder.numbers.exists()
    critique = folder.run("critique", 0)
    rows = read_jsonl(critique.metrics)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert [("eval/pass@1/plateau" in row) for row in rows] == [False, True, True], (
        "every 2 steps, and at the end"
    )
    table = pq.read_table(min(critique.rollouts.glob("*.parquet"))).to_pylist()
    assert {row["role"] for row in table} == {"rollout", "candidate"}
    assert all(
        row["critique_status"] == "ok"
        for row in table
        if row["role"] == "rollout" and row["outcome"] in ("wrong", "unreadable")
    )
    # a batch of 8 rows: each has an advantage (NaN is not equal to itself), and is there
    assert sum(row["advantage"] == row["advantage"] for row in table) == 8
    owners = json.loads(critique.evaluation.read_text())["cost"]["tokens"]
    assert owners["rollout"] + owners["refinement"] == rows[-1]["tokens/generated"]
    before = critique.evaluation.stat().st_mtime_ns
    assert cli("run", path, "--out", out).returncode == 0
    assert critique.evaluation.stat().st_mtime_ns == before, "a finished run is not run again"
    again = cli("evaluate", path, "--arm", "critique", "--json", "--out", out)
    assert (
        json.loads(again.stdout)
        == json.loads(critique.evaluation.read_text())["metrics"]
        == comparison_metrics(comparison, "critique")
    )
    for command_of in ("run", "compare", "report"):
        changed = cli(command_of, path, "trl.learning_rate=0.5", "--out", out)
        assert (
            changed.returncode,
            "started with other settings (trl.learning_rate 0.001, now 0.5)" in changed.stderr,
        ) == (2, True)
    assert cli("report", path, "control=critique", "--out", out).returncode == 0
    assert "scalar - critique on pass@1/plateau" in folder.markdown.read_text(), (
        "the page is of the comparison asked for, not of the last one made"
    )


def comparison_metrics(comparison: dict, arm: str) -> dict[str, float]:
    return {name: values["mean"] for name, values in comparison["arms"][arm]["metrics"].items()}


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_saves_and_the_same_command_continues_it(
    tiny_policy, tmp_path, number
) -> None:
    path = write_pipeline(
        tmp_path,
        tiny_policy,
        budget={"optimizer_steps": 40},
        evaluation={**SMALL["evaluation"], "curve_every": 0},
    )
    out = tmp_path / "runs"
    run = PipelineFolder(out / "small").run("critique", 0)
    words = ["train", str(path), "--arm", "critique", "--seed", "0", "--out", str(out)]
    process = processes.start(words, tmp_path / "log")
    wait_for_steps(run, 3, process)
    os.kill(process.pid, number)
    code = ended(process, "the run that was told to stop")
    errors = (tmp_path / "log").read_text()
    assert code == 130, errors[-2000:]
    stopped = read_jsonl(run.metrics)[-1]["step"]
    assert stopped < 40
    assert "the same command continues" in errors
    done = cli(*words)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"continuing from step {stopped}" in done.stderr
    rows = read_jsonl(run.metrics)
    assert [row["step"] for row in rows] == list(range(1, 41)), "no step is lost or there twice"
    tokens = [row["tokens/generated"] for row in rows]
    assert tokens == sorted(tokens), "token counts go on from the checkpoint"


@pytest.mark.processes
def test_ctrl_c_on_a_pipeline_stops_every_run_and_the_same_command_continues(
    tiny_policy, tmp_path
) -> None:
    path = write_pipeline(
        tmp_path,
        tiny_policy,
        budget={"optimizer_steps": 25},
        evaluation={**SMALL["evaluation"], "curve_every": 0},
    )
    out = tmp_path / "runs"
    folder = PipelineFolder(out / "small")
    process = subprocess.Popen(
        command("run", path, "--out", out, "--jobs", 2),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_steps(folder.run("scalar", 0), 3, process)
    os.kill(process.pid, signal.SIGINT)
    assert ended(process, "the pipeline that was told to stop") == 130
    assert not folder.comparison.exists()
    assert cli("run", path, "--out", out, "--jobs", 2).returncode == 0
    assert [row["step"] for row in read_jsonl(folder.run("scalar", 0).metrics)] == list(
        range(1, 26)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.yaml"], "no pipeline file none.yaml"),
        (["run", "{path}", "sedes=[1]"], "unknown key 'sedes'; did you mean 'seeds'"),
        (
            ["run", "{path}", "trl.learning_rat=1"],
            "trl: unknown key 'learning_rat'; did you mean 'learning_rate'",
        ),
        (
            ["run", "{path}", "trl.refine_slots=1"],
            "'refine_slots' is an option of ours; move it to the method: section",
        ),
        (
            ["run", "{path}", "arms.critique.critic.kind=orcale"],
            "arm critique: critic: unknown kind 'orcale'; did you mean 'oracle'",
        ),
        (
            ["run", "{path}", "task.name=lab/chian"],
            "task: unknown name 'lab/chian'; did you mean 'lab/chain'",
        ),
        (["train", "{path}", "--arm", "scaler", "--seed", "0"], "no arm 'scaler'"),
        (
            ["train", "{path}", "task.size=0", "--arm", "scalar", "--seed", "0"],
            "the training set is empty",
        ),
        (
            ["train", "{path}", "trl.max_completion_length=510", "--arm", "scalar", "--seed", "0"],
            "over the policy's context of 512",
        ),
        (
            ["train", "{path}", "policy.model=./nowhere", "--arm", "scalar", "--seed", "0"],
            "no folder",
        ),
        (
            ["run", "{path}", "primary=pass@1/platau"],
            (
                "primary: no metric 'pass@1/platau' with these evaluation.ks and families; did "
                "you mean 'pass@1/plateau'"
            ),
        ),
        (
            ["run", "{path}", "arms.critique.preset=critique_gpro"],
            "arm critique: preset: unknown name 'critique_gpro'; did you mean 'critique_grpo'",
        ),
        (
            ["run", "{path}", "arms.critique.method.refine_gamma=a tenth"],
            "refine_gamma: got 'a tenth', expected a number from 1e-12 to inf",
        ),
        (
            ["run", "{path}", "arms.critique.method.refine_weight=.nan"],
            "refine_weight: got nan, expected a number from 0",
        ),
        (
            ["run", "{path}", "arms.critique.method.distill_top_k=0"],
            "distill_top_k: got 0, expected a whole number from 1",
        ),
        (
            ["run", "{path}", "arms.critique.method.distill_is_clip=-1"],
            "distill_is_clip: got -1, expected a number from 1e-12",
        ),
        (
            ["run", "{path}", "arms.critique.method.clip='no'"],
            "clip: got 'no', expected true or false",
        ),
        (
            ["run", "{path}", "arms.scalar.preset=opd"],
            "arm scalar: distill_context 'critique' without a critic",
        ),
        (
            ["run", "{path}", "arms.scalar.preset=raft_refine"],
            "arm scalar: no term trains anything",
        ),
        (
            ["run", "{path}", "arms.critique.method.refine_template=nope"],
            "arm critique: refine_template: no template 'nope'",
        ),
        (
            [
                "train",
                "{path}",
                "arms.critique.method.refine_column=nope",
                "--arm",
                "critique",
                "--seed",
                "0",
            ],
            "refine_column: got 'nope', but",
        ),
        (["run", "{path}", "arms=[a]"], "arms: got ['a'], expected a mapping"),
        (["run", "{path}", "seeds=[0"], "is not YAML"),
        (["run", "{path}", "--jobs", "0"], "--jobs: got 0"),
        (
            ["run", "{path}", "plateau={family: platau}"],
            "plateau.family: no family 'platau'; did you mean 'plateau'",
        ),
        (
            ["run", "{path}", "evaluation.best_by=pass@1/platau"],
            "evaluation.best_by: no metric 'pass@1/platau'; did you mean 'pass@1/plateau'",
        ),
        (
            ["run", "{path}", "evaluation.best_by=pass@4/plateau"],
            "expected a pass@1 of the learning curve",
        ),
        (
            ["train", "{path}", "--arm", "critique", "--seed", "0", "--sweep"],
            "has no sweep: section",
        ),
        (["run", "{path}", "trl.save_only_model=true"], "could not go on exactly"),
        (["run", "{path}", "budget={usd: 1}"], "a budget in usd needs prices"),
        (["run", "."], ". is a folder; give the path of a YAML file"),
        (["compare", "{path}"], "no"),
        (["report", "{path}"], "train the arms first"),
    ],
)
def test_bad_input_exits_with_2_and_one_clear_line(
    tiny_policy, tmp_path, capsys, arguments, message
) -> None:
    from critique_rl.cli.entry import main

    path = write_pipeline(tmp_path, tiny_policy)
    words = [argument.replace("{path}", str(path)) for argument in arguments]
    assert main([*words, "--out", str(tmp_path / "runs")]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.processes
def test_another_reward_trains_and_being_right_is_logged_beside_it(tiny_policy, tmp_path) -> None:
    path = write_pipeline(tmp_path, tiny_policy)
    out = tmp_path / "runs"
    done = cli(
        "train",
        path,
        "--arm",
        "scalar",
        "--seed",
        0,
        "--out",
        out,
        "reward={kind: random, rate: 0.5}",
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = read_jsonl(PipelineFolder(out / "small").run("scalar", 0).metrics)
    assert 0 < sum(row["rewards/random/mean"] for row in rows) < len(rows)
    assert all(
        row["rewards/correct/mean"] == 0 and row["reward"] == row["rewards/random/mean"]
        for row in rows
    )
