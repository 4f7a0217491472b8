"""`critique-rl plan`: a line per run, in an order that works, and scripts that shells can run."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands import launch
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from critique_rl.cli.arguments import pipeline_words
from critique_rl.cli.entry import main
from critique_rl.config.durable_files import write_json
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.plan import rank_count, render_plan, stages
from critique_rl.experiment.sweep import with_chosen

BASIC = {
    "task": {"name": "lab/chain"},
    "policy": {"model": "lab"},
    "trl": {"max_completion_length": 48},
    "seeds": [0, 1],
}
SWEEP = {"values": [1.0e-4, 3.0e-4], "seeds": [9]}
BRANCH = {
    "scalar": {"budget": {"optimizer_steps": 8}},
    "late": {"branch_from": {"arm": "scalar", "at": 4}},
}


def file_of(folder: Path, **changes) -> Path:
    path = folder / "my plan.yaml"
    path.write_text(
        yaml.safe_dump(
            {**BASIC, "arms": {"scalar": {}, "retry": {"critic": {"kind": "retry"}}}, **changes},
            sort_keys=False,
        )
    )
    return path


def test_one_line_an_arm_and_seed_that_the_command_line_takes_back(tmp_path, capsys) -> None:
    path = file_of(tmp_path)
    assert (
        main(["plan", str(path), "trl.learning_rate=5.0e-5", "--out", str(tmp_path / "runs")]) == 0
    )
    output = capsys.readouterr()
    words = [shlex.split(line) for line in output.out.splitlines()]
    assert [(line[line.index("--arm") + 1], line[line.index("--seed") + 1]) for line in words] == [
        ("scalar", "0"),
        ("retry", "0"),
        ("scalar", "1"),
        ("retry", "1"),
    ]
    assert all(
        line[:4] == ["critique-rl", "train", str(path), "trl.learning_rate=5.0e-5"]
        for line in words
    )
    assert "4 runs to do; afterwards critique-rl run" in output.err


def test_trials_come_first_and_branches_last_and_what_is_finished_is_left_out(tmp_path) -> None:
    folder = PipelineFolder(tmp_path / "runs" / "my plan")
    swept = stages(load_pipeline(file_of(tmp_path, sweep=SWEEP)), folder, ["p.yaml"], "run")
    assert [[run.name for run in stage] for stage in swept] == [
        ["scalar@0.0001-9", "scalar@0.0003-9", "retry@0.0001-9", "retry@0.0003-9"],
        ["scalar-0", "retry-0", "scalar-1", "retry-1"],
    ]
    assert swept[0][0].command == "run train p.yaml --sweep --arm scalar@0.0001 --seed 9"
    branching = load_pipeline(file_of(tmp_path, arms=BRANCH))
    first, second = stages(branching, folder, ["p.yaml"], "run")
    assert [run.name for run in first] == ["scalar-0", "scalar-1"]
    assert [run.name for run in second] == ["late-0", "late-1"]
    for seed in (0, 1):
        write_json(folder.run("scalar", seed).evaluation, {})
    [only] = stages(branching, folder, ["p.yaml"], "run")
    assert [run.name for run in only] == ["late-0", "late-1"]


def test_a_planned_run_chooses_by_the_trials_once_all_have_finished(tmp_path) -> None:
    pipeline = load_pipeline(file_of(tmp_path, sweep=SWEEP))
    folder = PipelineFolder(tmp_path / "runs" / "my plan")
    scores = {"scalar@0.0001": 0.2, "scalar@0.0003": 0.1, "retry@0.0001": 0.3, "retry@0.0003": 0.4}
    for arm, score in scores.items():
        with pytest.raises(ValueError, match="nothing chosen"):
            with_chosen(pipeline, folder)
        write_json(folder.sweep.run(arm, 9).evaluation, {"metrics": {"pass@1/all": score}})
    assert {
        arm: config.trl["learning_rate"]
        for arm, config in with_chosen(pipeline, folder).arms.items()
    } == {"scalar": 1e-4, "retry": 3e-4}


def test_an_accelerate_config_starts_every_command_and_a_missing_one_is_refused(
    tmp_path, capsys
) -> None:
    path = file_of(tmp_path)
    shipped = "pipelines/accelerate/fsdp2.yaml"
    assert main(["plan", str(path), "--accelerate", shipped]) == 0
    for line in capsys.readouterr().out.splitlines():
        assert shlex.split(line)[:7] == [
            "accelerate",
            "launch",
            "--config_file",
            shipped,
            "-m",
            "critique_rl",
            "train",
        ]
    assert main(["plan", str(path), "--accelerate", "pipelines/accelerate/fsdp3.yaml"]) == 2
    assert (
        "no file pipelines/accelerate/fsdp3.yaml; give one such as pipelines/accelerate/ddp.yaml"
        in capsys.readouterr().err
    )


SKY_NAME = re.compile("[a-zA-Z]([-_.a-zA-Z0-9]*[a-zA-Z0-9])?")
"""SkyPilot's CLUSTER_NAME_VALID_REGEX, by which names of managed jobs are checked too."""
ODD_NAMES = [
    "it's",
    "a b",
    "lr=1e-4",
    "7+1",
    "50%",
    "критик",
    "批",
    "(none)",
    "x" * 100,
    "a_",
    "v1.2",
]


def test_every_word_is_quoted_and_every_job_has_a_name_that_its_scheduler_takes(tmp_path) -> None:
    arms = {name: {} for name in ODD_NAMES}
    folder = tmp_path / "$HOME `x` 'a' \"b\" -c"
    folder.mkdir()
    path = file_of(folder, arms=arms, sweep=SWEEP)
    pipeline = load_pipeline(path)
    out = str(folder / "r;u*n|s")
    tail = [str(path), "trl={beta: 0.1}", "--out", out]
    planned = stages(pipeline, PipelineFolder(Path(out) / pipeline.name), tail, "critique-rl")
    count = sum(len(stage) for stage in planned)
    assert count == len(ODD_NAMES) * (2 + 2)
    for run in (run for stage in planned for run in stage):
        words = shlex.split(run.command)
        assert words[:6] == ["critique-rl", "train", *tail]
        assert words[words.index("--arm") + 1].partition("@")[0] in arms
    for form in ("lines", "parallel", "slurm", "sky"):
        script = render_plan(planned, form, "50% it's")
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr
    names = re.findall(r"--name (\S+) ", script)
    assert len(set(names)) == count
    for name in names:
        assert SKY_NAME.fullmatch(name), name
        assert len(name) <= 60


def test_the_task_of_skypilot_is_yaml_and_installs_no_index_name(tmp_path) -> None:
    planned = stages(load_pipeline(file_of(tmp_path)), PipelineFolder(tmp_path), ["p"], "run")
    script = render_plan(planned, "sky", "p")
    task = yaml.safe_load(script.partition("<<'TASK'\n")[2].partition("\nTASK\n")[0])
    assert set(task) == {"resources", "workdir", "setup", "run"}
    for part in ("setup", "run"):
        assert subprocess.run(["bash", "-n"], input=task[part], text=True).returncode == 0
    installed = re.findall(r"pip install (.*)", task["setup"])
    assert installed[0].split()[-1] == "."
    assert re.fullmatch(r"\./critique_rl-[\d.]+-py3-none-any\.whl", installed[1])


def test_a_word_that_ends_a_line_is_refused_and_a_path_is_no_option(tmp_path, capsys) -> None:
    path = file_of(tmp_path)
    assert main(["plan", str(path), "seeds=[0,\n1]"]) == 2
    assert "a plan has a run a line" in capsys.readouterr().err
    assert pipeline_words(Path("./-x/p.yaml"), [], Path("-out")) == [
        "./-x/p.yaml",
        "--out",
        "./-out",
    ]


def test_rows_are_counted_over_the_processes_that_a_run_is_started_on(tmp_path, capsys) -> None:
    trl = {"max_completion_length": 48, "per_device_train_batch_size": 2}
    path = file_of(tmp_path, trl=trl, arms={"scalar": {}})
    config = tmp_path / "ranks.yaml"
    config.write_text("num_processes: 4\n")
    assert main(["plan", str(path)]) == 2
    assert "must be divisible by num_generations" in capsys.readouterr().err
    for start in (["--accelerate", str(config)], ["--prefix", "torchrun --nproc_per_node 4 -m x"]):
        assert main(["plan", str(path), *start]) == 0
    for prefix in ("accelerate launch --num_processes=8 -m critique_rl", "x --nproc-per-node 8"):
        assert rank_count(prefix, None) == 8


@pytest.mark.processes
@pytest.mark.parametrize("form", ["parallel", "slurm", "sky"])
def test_a_script_runs_every_command_once_in_the_order_of_stages(tmp_path, form) -> None:
    """The launchers are stand-ins of a few lines that do what the real ones are asked to do: none
    of them is to be had in a test.
    """
    (tmp_path / "bin").mkdir()
    for name, text in STAND_INS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    planned = stages(
        load_pipeline(file_of(tmp_path, arms=BRANCH)),
        PipelineFolder(tmp_path / "runs"),
        ["it's a.yaml"],
        "critique-rl",
    )
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
    }
    done = subprocess.run(
        ["bash", "-c", render_plan(planned, form, "my plan")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ran = [line.split("|") for line in (tmp_path / "log").read_text().splitlines()]
    assert all(words[:3] == ["train", "it's a.yaml", "--arm"] for words in ran)
    assert sorted((words[3], words[5]) for words in ran[:2]) == [("scalar", "0"), ("scalar", "1")]
    assert sorted((words[3], words[5]) for words in ran[2:]) == [("late", "0"), ("late", "1")]
    if form == "slurm":
        assert "afterany:7" in (tmp_path / "log.options").read_text().splitlines()[1]


STAND_INS = {
    "critique-rl": """(IFS='|'; echo "$*" >> "$LOG")""",
    "parallel": "bash",
    "sbatch": """echo "$@" >> "$LOG.options"
cat > job.sh
for word in "$@"; do case $word in --array=0-*) last=${word#--array=0-};; esac; done
for i in $(seq 0 $last); do SLURM_ARRAY_TASK_ID=$i bash job.sh; done
echo 7""",
    "sky": """for word in "$@"; do case $word in COMMAND=*) export "$word";; esac; done
bash -c 'eval "$COMMAND"'""",
}


def test_a_plan_cannot_hold_trials_that_follow_from_others(tmp_path, capsys) -> None:
    path = file_of(tmp_path, sweep={**SWEEP, "extend": 1})
    assert main(["plan", str(path)]) == 2
    assert "sweep.extend: got 1, expected 0 for a plan" in capsys.readouterr().err


@pytest.mark.processes
def test_accelerate_takes_the_lines(tmp_path, tiny_policy, monkeypatch) -> None:
    trl = {
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "max_completion_length": 4,
        "max_steps": 1,
    }
    evaluation = {"problems": 1, "samples": 1, "ks": [1], "curve_every": 0}
    path = file_of(
        tmp_path,
        policy={"model": tiny_policy},
        trl=trl,
        evaluation=evaluation,
        arms={"scalar": {}},
        seeds=[0],
    )
    folder = PipelineFolder(tmp_path / "runs" / "my plan")
    prefix = (
        f"{shlex.quote(sys.executable)} -m accelerate.commands.launch --cpu --num_processes 1 -m "
        "critique_rl"
    )
    [[run]] = stages(
        load_pipeline(path), folder, [str(path), "--out", str(tmp_path / "runs")], prefix
    )
    words = shlex.split(run.command)
    given = launch.launch_command_parser().parse_args(words[3:])
    options, _, _ = launch._validate_launch_command(given)
    # The command that accelerate would start runs in this process: imports alone take 8 seconds.
    started, environment = prepare_simple_launcher_cmd_env(options)
    assert started[:3] == [sys.executable, "-m", "critique_rl"]
    assert environment["ACCELERATE_USE_CPU"] == "True"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    assert main(started[3:]) == 0
    assert json.loads(folder.run("scalar", 0).evaluation.read_text())["cost"]["steps"] == 1
