"""The bench: one bank for all critics, paired differences by question, and what no critique came of
counts as not right.
"""

from __future__ import annotations

import json

import pytest

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.experiment.critic_bench import critic_specs, parse_spec, rescue_table
from critique_rl.experiment.try_critics import BenchResult, _pieces, _spread, figures
from critique_rl.types import Attempt, Usage, Verdict

ORACLE = {"critic": {"kind": "oracle"}}
PIPELINE = {
    "task": {"name": "lab/chain"},
    "policy": {"model": "lab"},
    "arms": {"scalar": {}, "a": ORACLE, "b": ORACLE},
}


def test_differences_are_paired_by_question() -> None:
    retry = BenchResult(
        "retry", [0.0, 0.5, 0.0, 0.5], [False, True, False, True], {}, 0, Usage(), []
    )
    reasons = {"failed: timeout": 3, "attempt_cut": 2}
    oracle = BenchResult(
        "oracle",
        [0.5, 1.0, 0.5, 1.0],
        [True, True, True, True],
        reasons,
        1,
        Usage(90, 10, usd=0.5),
        [1.0, 2.0, 3.0],
        0.625,
    )
    data = figures([retry, oracle], 8)
    oracle = data["critics"]["oracle"]
    # Every question gains .5, and four that agree say little of others. Of rescued, questions 1
    # and 3 gain 1.
    difference = oracle["right_minus_retry"]
    low, high = difference["ci95"]
    assert difference["mean"] == 0.5
    assert low < 0.2
    assert high > 0.7
    assert oracle["rescued_minus_retry"]["mean"] == 0.5
    assert oracle["right"]["mean"] == 0.75
    assert (oracle["critic_tokens"], oracle["seconds_p50"], oracle["leaked"]) == (100, 2.0, 1)
    [_, row] = rescue_table(data).rows
    assert row[0] == "oracle"
    assert row[2] == f"+0.50 [{low:.2f}, {high:.2f}]"
    assert row[6:8] == ["3", "0.62"]


def test_a_critic_that_rescues_none_of_a_few_may_rescue_some_of_others() -> None:
    nothing = BenchResult("retry", [0.0] * 7, [False] * 7, {}, 0, Usage(), [])
    right = figures([nothing], 28)["critics"]["retry"]["right"]
    low, high = right["ci95"]
    assert (right["mean"], low) == (0.0, 0.0)
    # scipy: binomtest(0, 28).proportion_ci() ends at .123, and 7 questions at .410.
    assert 0.12 < high < 0.42


def test_a_bank_is_spread_over_questions_and_a_piece_never_splits_one() -> None:
    stored = [["a", "1"], ["a", "2"], ["a", "3"], ["b", "4"], ["c", "5"], ["c", "6"]]
    assert _spread(stored, 4) == [("a", "1"), ("a", "2"), ("b", "4"), ("c", "5")]
    attempts = [Attempt("q", str(i), Verdict("wrong"), {"id": i // 50}) for i in range(150)]
    assert [len(piece) for piece in _pieces(attempts)] == [100, 50]


def test_each_critic_of_the_arms_is_tried_once_after_retry() -> None:
    assert list(critic_specs(parse_pipeline("p", PIPELINE), [])) == ["retry", "a"]
    assert critic_specs(parse_pipeline("p", PIPELINE), ["indicative"]) == {
        "retry": {"kind": "retry"},
        "indicative": {"kind": "indicative"},
    }
    assert parse_spec("{kind: local, model: x}") == {"kind": "local", "model": "x"}
    for text in ("none", "[1]", "{model: x}", "{kind: [", ""):
        with pytest.raises(ConfigError, match="--critic"):
            parse_spec(text)


def test_the_command_benches_the_lab_and_keeps_the_bank(tmp_path, capsys) -> None:
    arguments = [
        "critics",
        "pipelines/quickstart.yaml",
        "--out",
        str(tmp_path),
        "--critic",
        "oracle",
        "--problems",
        "4",
        "--samples",
        "2",
        "--attempts",
        "8",
    ]
    arguments += ["--family", "plateau"]
    assert main([*arguments, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    # The base never solves a plateau problem by itself, and reads the oracle's words.
    assert (data["attempts"], data["questions"]) == (8, 4)
    assert data["critics"]["retry"]["right"]["mean"] == 0.0
    assert data["critics"]["oracle"]["right"]["mean"] > 0.5
    assert (data["critics"]["retry"]["as_oracle"], data["critics"]["oracle"]["as_oracle"]) == (
        0.0,
        1.0,
    )
    bank = tmp_path / "quickstart" / "bench" / "bank.json"
    before = bank.stat().st_mtime_ns
    assert main([*arguments, "--markdown"]) == 0
    assert "| oracle | " in capsys.readouterr().out
    assert bank.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["critics"], "give a pipeline"),
        (["critics", "pipelines/quickstart.yaml", "--champ"], "--champ: needs no pipeline"),
        (["critics", "pipelines/quickstart.yaml", "--samples", "0"], "expected 1 or more"),
        (["critics", "pipelines/quickstart.yaml", "--critic", "orcale"], "did you mean 'oracle'"),
        (["critics", "--champ", "--critic", "oracle"], "has no oracle"),
        (["critics", "--champ", "--critic", "retry"], "answers no question of its own"),
    ],
)
def test_a_mistake_on_the_command_line_is_named(arguments, message, capsys, tmp_path) -> None:
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err
