"""`critique-rl init`: what it writes is a pipeline that runs, and it writes over nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from tiny_runs import cli

import critique_rl
from critique_rl.cli.entry import main
from critique_rl.cli.init import TRY
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.experiment.preflight import check_arms, check_primary


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def write(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def test_a_first_pipeline_is_taken_as_it_is(tmp_path, capsys) -> None:
    rows = [
        {"problem": f"{i} + 1 = ?", "answer": i + 1, "level": "easy" if i % 2 else "hard"}
        for i in range(100)
    ]
    assert main(["init", write("my data: 1.jsonl", rows), "--out", "first.yaml"]) == 0
    output = capsys.readouterr().out
    assert "critique-rl run first.yaml" in output
    assert "2 families" in output
    pipeline = load_pipeline(Path("first.yaml"))
    assert list(pipeline.arms) == ["scalar", "retry", "critique"]
    assert pipeline.control == "scalar"
    assert len(pipeline.seeds) == 3
    task = pipeline.arms["scalar"].task
    assert dict(task.options) == {
        "train": "my data: 1.jsonl",
        "question": "problem",
        "answer": "answer",
        "family": "level",
        "system": 'Reason step by step. End with a line "Answer: " followed by the number.',
    }
    check_arms(dict(pipeline.arms))
    check_primary(pipeline.primary, pipeline.arms["scalar"])
    check_primary("pass@4/hard", pipeline.arms["scalar"])


def policy_with_context(folder: Path, policy: str, tokens: int) -> str:
    """A copy of a policy whose context has that many tokens."""
    path = shutil.copytree(policy, folder / f"context{tokens}") / "config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "max_position_embeddings": tokens}))
    return str(path.parent)


def test_a_first_pipeline_runs_as_it_is_tried(tmp_path, tiny_policy, capsys) -> None:
    # Texts, which need no chat template in between.
    main(
        [
            "init",
            write("a.jsonl", [{"prompt": f"{i} A+1", "answer": i + 1} for i in range(60)]),
            "--model",
            policy_with_context(tmp_path, tiny_policy, 2048),
        ]
    )
    small = [
        "seeds=[0]",
        "evaluation.problems=2",
        "evaluation.samples=1",
        "evaluation.ks=[1]",
        "trl.max_completion_length=8",
    ]
    small += [
        "trl.gradient_accumulation_steps=1",
        "budget={optimizer_steps: 1}",
        "evaluation.curve_every=1",
        "evaluation.curve_problems=1",
    ]
    handler = signal.getsignal(signal.SIGINT)
    for arm in ("scalar", "critique"):
        assert main(["train", "pipeline.yaml", "--arm", arm, "--seed", "0", *small]) == 0
    assert signal.getsignal(signal.SIGINT) == handler
    evaluation = json.loads(Path("runs/pipeline/critique/seed0/eval.json").read_text())
    assert evaluation["cost"]["steps"] == 1
    assert [problem["n"] for problem in evaluation["problems"]] == [1, 1]
    # The policy is random: 7 rollouts fail, and each is criticised by the policy itself.
    assert evaluation["cost"]["tokens"]["self_critique"] > 0
    load_pipeline(Path("pipeline.yaml"), TRY)
    card = Path("runs/pipeline/critique/seed0/model/README.md").read_text()
    facts = (
        "- critic: self",
        "- arm: critique",
        "- seed: 0",
        "- task: data",
        "1 x refine (nll, 1 of 8 rows)",
        "- held-out: pass@1/all ",
    )
    assert all(fact in card for fact in (*facts, "| self critique |"))
    scalar = Path("runs/pipeline/scalar/seed0/model/README.md").read_text()
    assert "trained with GRPO, a method introduced in [DeepSeekMath" in scalar
    assert "- critic: none" in scalar
    assert "refine" not in scalar


def test_nothing_is_written_over(capsys) -> None:
    data = write("a.jsonl", [{"question": f"{i}?", "answer": i} for i in range(60)])
    Path("pipeline.yaml").write_text("mine")
    assert main(["init", data]) == 2
    assert Path("pipeline.yaml").read_text() == "mine"
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answers", "verifier"),
    [
        (["1", "$2"], "last_number"),
        (["A", "(B)"], "choice"),
        (["x=3", "\\sqrt{2}"], "math"),
        (["1", "x^2"], "math"),
        (["Paris", "7"], "boxed_answer"),
    ],
)
def test_the_verifier_follows_from_the_answers(answers, verifier) -> None:
    main(
        [
            "init",
            write("a.jsonl", [{"question": f"{i}?", "answer": answers[i % 2]} for i in range(60)]),
        ]
    )
    pipeline = load_pipeline(Path("pipeline.yaml"))
    assert pipeline.arms["scalar"].task.verifier == verifier
    assert ("boxed" in pipeline.arms["scalar"].task.options["system"]) == (
        verifier in ("math", "boxed_answer")
    )


@pytest.mark.processes
def test_twenty_judged_examples_are_printed_before_anything_is_trained(capsys) -> None:
    answers = ["3.5", "1,200", "\\frac{3}{4}", "-7", "12"]
    rows = [{"question": f"{i}?", "answer": answers[i % 5]} for i in range(60)]
    assert main(["init", write("a.jsonl", rows)]) == 0
    output = capsys.readouterr().out
    assert "judged by last_number" in output
    assert "all 20 are judged as they should be" in output
    assert "WARNING" not in output
    assert "verifier: last_number" in Path("pipeline.yaml").read_text()


@pytest.mark.processes
def test_gold_answers_that_the_verifier_cannot_read_are_warned_of(monkeypatch, capsys) -> None:
    from critique_rl.tasks.answers import choose

    monkeypatch.setattr(choose, "choose_verifier", lambda golds: "last_number")
    rows = [{"question": f"{i}?", "answer": f"{i % 9}:30"} for i in range(60)]
    assert main(["init", write("a.jsonl", rows)]) == 0
    output = capsys.readouterr().out
    assert "WARNING: 10 of 20 are not judged as they should be" in output


@pytest.mark.processes
def test_a_verifier_that_is_not_installed_is_refused_with_the_command(tmp_path, capsys) -> None:
    blocked = tmp_path / "blocked" / "math_verify"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError")
    rows = [{"question": f"{i}?", "answer": f"x^{i}"} for i in range(60)]
    assert main(["init", write("a.jsonl", rows)]) == 0
    root = str(Path(critique_rl.__file__).parents[1])
    path = os.pathsep.join([str(blocked.parent), root])
    # Verifiers are processes that find their packages by this variable.
    done = cli("run", "pipeline.yaml", folder=tmp_path, PYTHONPATH=path)
    assert done.returncode == 2
    assert (
        "task.verifier: verifier math needs the package math-verify; "
        "run: pip install '.[math]' in the checkout of critique_rl"
    ) in done.stderr


def test_what_cannot_be_guessed_is_asked_for(capsys) -> None:
    data = write(
        "a.jsonl", [{"question": f"{i}?", "result": i, "serial": f"s{i}"} for i in range(60)]
    )
    assert main(["init", data]) == 2
    assert (
        "which column is the answer? give --answer one of: question, result, serial"
        in capsys.readouterr().err
    )
    assert not Path("pipeline.yaml").exists()
    assert main(["init", data, "--answer", "result"]) == 0
    assert main(["init", "no.jsonl", "--out", "b.yaml"]) == 2
    assert "no file no.jsonl" in capsys.readouterr().err
    assert main(["init", data, "--answer", "result", "--out", "no/b.yaml"]) == 2
    assert "no folder no" in capsys.readouterr().err


def sums(number: int) -> list[dict]:
    return [{"problem": f"{i} + 1 = ?", "answer": i + 1} for i in range(number)]


def test_a_short_context_has_shorter_completions(tiny_policy, capsys) -> None:
    settings = json.loads((Path(tiny_policy) / "config.json").read_text())
    assert main(["init", write("a.jsonl", sums(100)), "--model", tiny_policy]) == 0
    arm = load_pipeline(Path("pipeline.yaml")).arms["scalar"]
    assert arm.trl["max_completion_length"] == settings["max_position_embeddings"] // 8
    # A policy criticises itself in a prompt that is longer than that.
    assert list(load_pipeline(Path("pipeline.yaml")).arms) == ["scalar", "retry"]


def test_a_split_without_questions_is_named_before_the_next_commands(capsys) -> None:
    assert main(["init", write("a.jsonl", sums(3))]) == 0
    output = capsys.readouterr().out
    assert "no question was left to hold out for validation" in output
    assert "Next, once there are questions for validation" in output
