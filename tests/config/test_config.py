"""Pipeline files: what is accepted, and that every mistake says got, expected, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.resolved_run import to_dict, with_seed

PIPELINES = Path(__file__).parents[2] / "pipelines"
GOOD = {
    "task": {"name": "lab/chain"},
    "policy": {"model": "lab"},
    "trl": {"learning_rate": 1e-4},
    "critic": {"kind": "oracle"},
    "arms": {"scalar": {"critic": {"kind": "none"}}, "critique": {"trl": {"num_generations": 4}}},
}


@pytest.mark.parametrize("path", sorted(PIPELINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_pipeline_is_valid(path: Path) -> None:
    assert load_pipeline(path).arms


def test_an_arm_is_the_pipeline_with_its_changes() -> None:
    arms = parse_pipeline("x", GOOD).arms
    assert arms["critique"].trl == {"learning_rate": 1e-4, "num_generations": 4}
    assert arms["critique"].critic == {"kind": "oracle"}
    # a critic is replaced whole: the keys of one kind mean nothing to another
    assert arms["scalar"].critic == {"kind": "none"}
    assert arms["scalar"].trl == {"learning_rate": 1e-4}


def test_overrides_are_yaml_values_at_dotted_keys(tmp_path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("task: {name: lab/chain}\npolicy: {model: lab}\n")
    pipeline = load_pipeline(
        path, ["seeds=[3, 4]", "trl.learning_rate=5.0e-5", "arms.a.budget.optimizer_steps=2"]
    )
    assert pipeline.seeds == (3, 4)
    assert pipeline.arms["a"].trl["learning_rate"] == 5e-5
    assert pipeline.arms["a"].budget.optimizer_steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sedes": [1]}, "unknown key 'sedes'; did you mean 'seeds'"),
        ({"task": {"nme": "lab/chain"}}, "unknown key 'nme'; did you mean 'name'"),
        ({"task": {}}, "task: .*name"),
        ({"task": {"name": "lab/chain", "size": "many"}}, r"task.size: got 'many', expected int"),
        ({"evaluation": {"samples": 1.5}}, r"evaluation.samples: got 1.5, expected int"),
        ({"arms": {"a": {"critics": {}}}}, "arm a: unknown key 'critics'; did you mean 'critic'"),
        ({"arms": {"a": 3}}, "arm a: got 3, expected a mapping"),
        ({"critic": {"knd": "oracle"}}, "no 'kind'"),
        ({"seeds": 3}, "seeds: got 3, expected a list"),
        ({"seeds": []}, "seeds: got"),
        ({"seeds": [0, 0]}, "different whole numbers"),
        ({"seeds": [True]}, "different whole numbers"),
        ({"arms": {"base": {}}}, "'base' is the policy before training"),
        ({"arms": {"a": {}, "b": {"branch_from": {}}}}, "branch_from: no 'arm'"),
        (
            {"arms": {"a": {}, "b": {"branch_from": {"arm": "a", "at": True}}}},
            "got True, expected 'plateau' or an optimizer step",
        ),
        (
            {
                "budget": {"optimizer_steps": 8},
                "arms": {"a": {}, "b": {"branch_from": {"arm": "a", "at": 9}}},
            },
            "'a' ends at step 8",
        ),
        (
            {
                "arms": {
                    "a": {},
                    "b": {"trl": {"num_generations": 4}, "branch_from": {"arm": "a", "at": 9}},
                }
            },
            "trl.num_generations is None, not 4",
        ),
        (
            {
                "arms": {
                    "a": {},
                    "b": {
                        "task": {"name": "lab/chain", "size": 3},
                        "branch_from": {"arm": "a", "at": 9},
                    },
                }
            },
            "data order must be the same",
        ),
        ({"control": "scaler"}, "control: no arm 'scaler'; did you mean 'scalar'"),
        ({"budget": {"generated_tokens": 10}, "trl": {"warmup_steps": 20}}, "a share of it"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(change, message) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_pipeline("x", {**GOOD, **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "got list, expected a mapping"),
        ("task: {", "is not YAML"),
        ("policy: {model: lab}\n", "no 'task' section"),
    ],
)
def test_a_file_that_is_no_pipeline_is_refused(tmp_path, text, message) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_pipeline(path)
    with pytest.raises(ConfigError, match="no pipeline file"):
        load_pipeline(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"expected dotted\.key=value"):
        load_pipeline(PIPELINES / "quickstart.yaml", ["seeds"])


def test_a_resolved_run_survives_yaml_and_carries_its_seed() -> None:
    config = with_seed(parse_pipeline("x", GOOD).arms["critique"], 7)
    assert to_dict(config)["trl"]["seed"] == 7
    assert to_dict(config)["evaluation"]["ks"] == [1, 4, 16]


def test_external_runs_are_named_in_the_pipeline():
    data = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}}
    assert parse_pipeline("p", data | {"external": {"plain": "outputs/plain"}}).external == {
        "plain": "outputs/plain"
    }
    assert parse_pipeline("p", data).external == {}
    for wrong in (["outputs/plain"], {"plain": 3}, {"plain": ""}):
        with pytest.raises(
            ConfigError, match=r"external: got .* expected a mapping from names to output folders"
        ):
            parse_pipeline("p", data | {"external": wrong})
    with pytest.raises(ConfigError, match="external: 'scalar' is an arm of this pipeline"):
        parse_pipeline("p", data | {"external": {"scalar": "outputs/plain"}})
