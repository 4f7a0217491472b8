"""Names that are no names: every command refuses them in a sentence, and writes nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import yaml

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.names import check_name, check_names, family_fault
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.run_folder import PipelineFolder, RunFolder, result_names

HOSTILE = [
    *(
        "",
        " ",
        ".",
        "..",
        "...",
        "/",
        "\\",
        "/etc/passwd",
        "../x",
        "../../x",
        "a/b",
        "a\\b",
        "a/..",
    ),
    *("-", "-x", "--out", "--out=/tmp/x", ".hidden", "~", "~root", " x", "x ", "x."),
    *(
        "a\nb",
        "a\tb",
        "a\x00b",
        "a\x1b[2Jb",
        "a\u202eb",
        "a\u2028b",
        "a\u200bb",
        "\uff0e\uff0e\uff0fx",
    ),
    *(
        "$(touch x)",
        "`touch x`",
        "a;touch x",
        "a|b",
        "a>b",
        "a&b",
        "*",
        "a?b",
        "C:x",
        '"',
        "%2e%2e%2fx",
    ),
    *("x" * 101, "é" * 51, "compare.json", "Report.HTML", "base", "Sweep", "eval.json", "seed0"),
    *("con", "NUL.txt", "COM1", "metrics.jsonl", "checkpoints"),
]
ORDINARY = [
    *("scalar", "critique", "critic", "retry+oracle", "lr=1e-4", "scalar@0.0001", "7+1", "a b"),
    *("it's", "Qwen2.5-0.5B", "noisy 50%", "ключ", "批評", "k=1, m=7", "(none)", "x" * 100, "v1.2"),
]
NOT_TEXT = ["1", "1.5", "true", "on", "null", "~", "0x10"]
COMMANDS = {
    "run": [],
    "train": ["--arm", "scalar", "--seed", "0"],
    "plan": [],
    "doctor": [],
    "compare": [],
    "report": [],
    "evaluate": [],
    "critics": [],
}
SMALL = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}}


def tree(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def refused(words: list[str], capsys, root: Path) -> str:
    """The one sentence with which a command refuses, having written nothing."""
    before = tree(root)
    assert main(words) == 2, words
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    assert tree(root) == before, words
    [sentence] = output.err.splitlines()
    assert "expected" in sentence
    assert ";" in sentence
    return sentence


def test_forty_hostile_names_of_arms_are_refused_by_every_command(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "claims"
    folder.mkdir()
    path = folder / "small.yaml"
    assert len(HOSTILE) > 40
    everything = [[command, str(path), *rest] for command, rest in COMMANDS.items()]
    everything.append(["claims", str(folder)])
    for place, name in enumerate(HOSTILE):
        path.write_text(yaml.safe_dump({**SMALL, "arms": {"scalar": {}, name: {}}}))
        # In the suite two commands a name, in turn: each command meets every fourth name.
        commands = everything
        if "CRITIQUE_RL_CASES" not in os.environ:
            commands = [everything[place % 9], everything[(place + 4) % 9]]
        sentences = {refused([*words, "--out", "runs"], capsys, tmp_path) for words in commands}
        assert len(sentences) == 1, name
        assert sentences.pop().startswith("critique-rl: arms: ")


def test_hostile_names_of_files_and_external_runs_are_refused_too(
    tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = {"base", "Sweep", "seed0", "checkpoints"}
    for name in set(HOSTILE) - folders:
        with pytest.raises(ConfigError, match="expected"):
            parse_pipeline(name, SMALL)
        with pytest.raises(ConfigError, match="external: got "):
            parse_pipeline("small", {**SMALL, "external": {name: "outputs"}})
    for name in ("-x", "compare.json", ".", "a;b", "x ", "con", "a\nb"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(SMALL))
        for command, rest in COMMANDS.items():
            word = f"{tmp_path}/{name}.yaml"
            refused([command, word, "--out", "runs", *rest], capsys, tmp_path)
    # A pipeline's folder lies beside others of its kind: it may be called as an arm may not.
    assert parse_pipeline("base", SMALL).name == "base"


def test_an_override_names_no_path_either(tmp_path, capsys) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    for override in ("arms.../x={}", "arms.a/b.seeds=[0]", "arms={'..': {}}", "arms.-x={}"):
        refused(["plan", str(path), override, "--out", str(tmp_path / "runs")], capsys, tmp_path)
    assert main(["plan", str(path), "name=../x", "--out", str(tmp_path / "runs")]) == 2
    assert "unknown key 'name'" in capsys.readouterr().err


def test_init_writes_no_pipeline_whose_name_is_none(tmp_path, capsys) -> None:
    (tmp_path / "data.jsonl").write_text('{"question": "1+1?", "answer": "2"}\n' * 3)
    for name in ("compare.json", "x ", "a;b", ".hidden", "-x"):
        out = f"{tmp_path}/{name}.yaml"
        refused(["init", str(tmp_path / "data.jsonl"), "--out", out], capsys, tmp_path)


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_names_pass(name) -> None:
    assert list(parse_pipeline(name, {**SMALL, "arms": {name: {}}}).arms) == [name]


@pytest.mark.parametrize("name", NOT_TEXT)
def test_a_name_that_yaml_does_not_read_as_text_is_refused(tmp_path, name) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(f"task: {{name: lab/chain}}\npolicy: {{model: lab}}\narms:\n  {name}: {{}}\n")
    with pytest.raises(ConfigError, match="put it in quotes"):
        load_pipeline(path)


def test_names_that_differ_by_case_alone_are_one_folder_on_some_systems() -> None:
    for pair in (["Critic", "critic"], ["straße", "STRASSE"], ["é", "e\u0301"]):
        with pytest.raises(ConfigError, match="differ by more than upper and lower case"):
            check_names(pair, "arms")


def test_the_names_of_results_are_those_of_the_folders_themselves() -> None:
    folder = PipelineFolder(Path("r"))
    run = RunFolder(Path("r"))
    ours = result_names(PipelineFolder, RunFolder)
    for path in (folder.comparison, folder.report, folder.bank.parent, run.metrics, run.log):
        assert path.name in ours
        with pytest.raises(ConfigError, match="name of a file or folder of results"):
            check_name(path.name.upper(), "arm")


def test_two_critics_of_the_bench_never_share_a_folder() -> None:
    folder = PipelineFolder(Path("r"))
    names = ["a/b", "a-b", "..", ".", "a b", "{kind: local, model: x}", "x" * 300, "x" * 301]
    places = [folder.bench_critic(name) for name in names]
    assert len(set(places)) == len(names)
    for place in places:
        assert place.parent == folder.bench.parent
        assert re.fullmatch(r"[\w.-]{1,80}", place.name)
        assert place.name.strip(".")


def test_families_are_data_and_only_paths_and_control_characters_are_none() -> None:
    for family in ("Algebra / Level 5", "math/algebra", "C++", "1:1", "-1", "Q&A", "数学", "50 %"):
        assert family_fault(family) == "", family
    for family in (
        "all",
        "..",
        "../x",
        "a/../b",
        "/etc",
        "\\x",
        "~",
        "-x",
        "a\x1bb",
        "",
        "x" * 300,
    ):
        assert family_fault(family), family
