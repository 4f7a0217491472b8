"""Pipeline files: what is accepted, and that every mistake says got, expected, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.ranges import Range
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "seeds: [0]\ntask: {name: lab/chain}\nseeds: [1]\n",
            r"'seeds' stands twice.*line 1 and.* 3",
        ),
        ("arms:\n  a: {}\n  b: {}\n  a: {}\n", r"'a' stands twice.*line 2 and in line 4"),
        ("trl: {beta: 0, seed: 1, beta: 1}\n", r"'beta' stands twice.*line 1 and in line 1"),
        ("a: &x {b: 1}\nc: {<<: *x, <<: *x}\n", "'<<' stands twice"),
        ("'seeds': [0]\nseeds: [1]\n", "'seeds' stands twice"),
        ("a: &a [*a]\n", "an alias stands inside its own anchor"),
        ("a: !!python/object/apply:os.getcwd []\n", "line 1: got a tag such as !!python"),
        ("a: !mine 3\n", "line 1: got a tag such as !!python, expected none"),
        ("task:\n\tname: lab/chain\n", "indent by spaces, never by tabs"),
        ("a: 1\n---\nb: 2\n", "another document"),
        ("? {a: 1}\n: 2\n", "a key is a list or a mapping"),
        ("[" * 500, "nested deeper than 40"),
        ("a: !!int x\n", "a value cannot be read"),
        ("a: [\n", "is not YAML: line 2"),
        ("a: '\x01'\n", "is not YAML"),
        ("3\n", "got int, expected a mapping"),
        ("", "got NoneType, expected a mapping"),
    ],
)
def test_yaml_that_could_mean_two_things_is_refused_with_its_lines(tmp_path, text, message) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_pipeline(path)
    assert len(str(error.value).splitlines()) == 1


def test_aliases_may_not_multiply_a_file(tmp_path) -> None:
    path = tmp_path / "p.yaml"
    levels = ["a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]"]
    for level in range(1, 9):
        aliases = ", ".join([f"*a{level - 1}"] * 9)
        levels.append(f"a{level}: &a{level} [{aliases}]")
    path.write_text("\n".join(levels))
    with pytest.raises(ConfigError, match="with its aliases it has more than 100000 values"):
        load_pipeline(path)
    chain = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{x: *a{i - 1}}}" for i in range(1, 99))]
    path.write_text("\n".join(chain))
    with pytest.raises(ConfigError, match="nested deeper than 40"):
        load_pipeline(path)


def test_merge_keys_are_merged_and_an_override_changes_one_section_alone(tmp_path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "task: {name: lab/chain}\npolicy: {model: lab}\narms:\n"
        "  a: {trl: &shared {beta: 0.1, seed: 3}}\n"
        "  b: {trl: *shared}\n"
        "  c: {trl: {<<: *shared, beta: 0.2}}\n"
    )
    arms = load_pipeline(path, ["arms.a.trl.beta=0.3", "arms.d="]).arms
    assert [arms[name].trl.get("beta") for name in "abcd"] == [0.3, 0.1, 0.2, None]
    assert arms["c"].trl["seed"] == 3
    with pytest.raises(ConfigError, match=r"override of 'arms': .*'x' stands twice"):
        load_pipeline(path, ["arms={x: {}, x: {}}"])


def test_a_date_is_text_and_files_that_are_none_are_refused(tmp_path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("task: {name: lab/chain}\npolicy: {model: 2026-01-31}\n")
    assert load_pipeline(path).arms["scalar"].policy.model == "2026-01-31"
    path.write_bytes("task: {name: caf\u00e9}\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="no UTF-8"):
        load_pipeline(path)
    with pytest.raises(ConfigError, match="is a folder"):
        load_pipeline(tmp_path)
    for name in ("x" * 5000, "a\x00b"):
        with pytest.raises(ConfigError, match=r"cannot be read|no pipeline file"):
            load_pipeline(tmp_path / name)
    if Path("/dev/null").exists():
        with pytest.raises(ConfigError, match="is no file"):
            load_pipeline(Path("/dev/null"))


def test_powers_of_ten_are_numbers_in_files_and_overrides(tmp_path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "task: {name: lab/chain}\npolicy: {model: lab}\narms: {scalar: {}}\n"
        "trl: {learning_rate: 1e-4, epsilon: 2E-1, max_grad_norm: .5e1, run_name: '1e-4'}\n"
    )
    trl = load_pipeline(path, ["trl.learning_rate=5e-5"]).arms["scalar"].trl
    assert trl == {"learning_rate": 5e-5, "epsilon": 0.2, "max_grad_norm": 5.0, "run_name": "1e-4"}


@pytest.mark.parametrize("name", ["learning_rate", "temperature", "beta", "top_p"])
def test_a_number_of_400_digits_is_refused(name) -> None:
    data = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}, "arms": {"scalar": {}}}
    for value in (10**400, -(10**400), 16**5000):
        with pytest.raises(ConfigError, match="got a number over 2"):
            parse_pipeline("p", {**data, "trl": {name: value}})
    assert not Range(0).holds(10**400)


@pytest.mark.parametrize("overrides", [["seeds=[0]", "seeds=[1]"], ["trl.beta=0", "trl={}"]])
def test_an_override_that_another_one_undoes_is_refused(tmp_path, overrides) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("task: {name: lab/chain}\npolicy: {model: lab}\narms: {scalar: {}}\n")
    with pytest.raises(ConfigError, match="is given after"):
        load_pipeline(path, overrides)
    load_pipeline(path, overrides[::-1][1:])


@pytest.mark.parametrize("name", ["base", "seed0", "Scalar"])
def test_an_external_run_is_named_as_an_arm_could_be(name) -> None:
    data = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}, "arms": {"scalar": {}}}
    with pytest.raises(ConfigError, match="external: "):
        parse_pipeline("p", {**data, "external": {name: "outputs"}})


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--arm", "scalar", "--seed", "\u0663"],
        ["train", "--arm", "scalar", "--seed", "1_0"],
        ["evaluate", "--arm", ""],
        ["critics", "--family", ""],
        ["evaluate", "--arm", "x" * 5000],
    ],
)
def test_words_that_mean_nothing_are_refused_shortly(tmp_path, capsys, words) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("task: {name: lab/chain}\npolicy: {model: lab}\narms: {scalar: {}}\n")
    command, *rest = words
    try:
        status = main([command, str(path), *rest, "--out", str(tmp_path / "runs")])
    except SystemExit as ended:
        status = ended.code
    assert status == 2
    assert len(capsys.readouterr().err) < 2000
