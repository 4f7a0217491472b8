"""The contents of wheel and sdist, and that an installed wheel does without the checkout. Built in
process: no network, no environment of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
TREES = {"prompts": "critique_rl/_prompts", "pipelines": "critique_rl/_pipelines"}


def files(folder: str) -> set[str]:
    tracked = (
        path
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    return {path.relative_to(ROOT).as_posix() for path in tracked}


TOP_LEVEL = {
    ".ci",
    ".git-blame-ignore-revs",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".pre-commit-config.yaml",
    "CHANGELOG.md",
    "CITATION.cff",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "constraints.txt",
    "critique_rl",
    "findings",
    "pipelines",
    "prompts",
    "pyproject.toml",
    "runs",
    "tests",
}


def test_nothing_was_left_at_the_top_level() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("no git, or no checkout: which files are kept is not known")
    assert {line.partition("/")[0] for line in listed.stdout.splitlines()} <= TOP_LEVEL


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    from hatchling.builders.wheel import WheelBuilder

    return Path(
        next(
            WheelBuilder(str(ROOT)).build(
                directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]
            )
        )
    )


def test_a_wheel_carries_the_package_its_weights_prompts_and_pipelines(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [metadata] = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    carried = {
        name.replace(folder, place, 1) for folder, place in TREES.items() for name in files(folder)
    }
    assert files("critique_rl") | carried == {name for name in names if ".dist-info/" not in name}
    assert {
        "critique_rl/py.typed",
        "critique_rl/lab/weights/chain/model.safetensors",
        "critique_rl/cli/templates/pipeline.yaml.jinja",
    } <= names
    assert {
        "critique_rl/docs/python.md",
        "critique_rl/docs/reference-config.md",
        "critique_rl/docs/reference-api.md",
    } <= names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert "License-Expression: Apache-2.0" in metadata
    assert "# critique_rl" in metadata


def test_an_sdist_carries_what_a_wheel_is_built_from(tmp_path) -> None:
    from hatchling.builders.sdist import SdistBuilder

    path = next(SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = files("critique_rl") | files("prompts") | files("pipelines")
    assert (
        wanted
        | {
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "CITATION.cff",
            "CHANGELOG.md",
            "constraints.txt",
        }
        <= names
    )
    results = {name for name in names if name.startswith("runs/")}
    assert results == {"runs/README.md"} | files("runs/results")


@pytest.mark.processes
def test_an_installed_wheel_needs_no_checkout(wheel, tmp_path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"question": f"{i} + 1?", "answer": i + 1}) + "\n" for i in range(60))
    )
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path / "site"),
        "HF_DATASETS_CACHE": str(tmp_path / "cache"),
    }

    # One process for all commands, because each would import everything again.
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    written, planned, shipped, rendered = done.stdout.split("\0")
    assert "wrote pipeline.yaml" in written
    assert len(planned.splitlines()) == 9
    assert len(shipped.splitlines()) == 2
    assert rendered.startswith(str(tmp_path / "site"))
    assert "<critique>\nc\n</critique>" in rendered


INSTALLED = """
import runpy, sys
for words in ("init a.jsonl", "plan pipeline.yaml", "plan pipelines/quickstart.yaml"):
    sys.argv = ["critique-rl", *words.split()]
    try:
        runpy.run_module("critique_rl", run_name="__main__")
    except SystemExit as end:
        assert end.code == 0, (words, end.code)
    print(end="\\0")
from critique_rl import prompts
print(prompts.__file__)
print(prompts.render("refine", question="q", attempt="a", critique="c"))
"""
"""What a user types, one command after the other; a zero byte ends the output of each."""


def test_versions_agree() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
