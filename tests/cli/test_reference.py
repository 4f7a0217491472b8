"""The generated pages are what the code says now, and nothing in them is without a meaning."""

from __future__ import annotations

import re

import pytest
import yaml

from critique_rl.cli import reference
from critique_rl.cli.reference import config as reference_config
from critique_rl.config.arms import RUN_KEYS
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import PIPELINE_KEYS as FILE_KEYS
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.build import CHATS, build_critic
from critique_rl.experiment.build import METHOD_FIELDS
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import build_reward
from critique_rl.tasks.verifiers import hash_line

SECTIONS = {
    section.title: {key.name: key for key in section.keys}
    for section in reference_config.sections()
}


@pytest.mark.parametrize("name", ["reference-config.md", "reference-api.md"])
def test_the_page_is_what_the_code_says_now(name) -> None:
    assert (reference.DOCS / name).read_text() == reference.pages()[name], (
        "run: python -m critique_rl.cli.reference"
    )


def test_every_key_has_a_meaning() -> None:
    assert [
        f"{title}: {key}"
        for title, keys in SECTIONS.items()
        for key, text in keys.items()
        if not text.meaning
    ] == []


def test_every_key_that_a_file_may_have_is_there() -> None:
    assert set(SECTIONS["Experiment"]) | set(SECTIONS["Run"]) == set(FILE_KEYS)
    assert set(SECTIONS["Run"]) == set(RUN_KEYS)
    assert set(SECTIONS["method"]) == METHOD_FIELDS


def test_every_kind_is_there_with_its_keys() -> None:
    task = load_task(TaskConfig("lab/chain", size=16), 0)
    for kind, cls in CHATS.items():
        known = {
            *SECTIONS["critic of kind self, local or api"],
            *(SECTIONS[f"critic of kind {kind}"] if cls else ()),
        }
        assert (
            keys_that_are_known(lambda spec: build_critic(spec, task), {"kind": kind, "nothing": 1})
            == known
        )
    for kind in ("python", "noisy", "oracle"):
        assert keys_that_are_known(
            lambda spec: build_critic(spec, task), {"kind": kind, "nothing": 1}
        ) == set(SECTIONS[f"critic of kind {kind}"])
    kinds = {key.removeprefix("kind: ") for key in SECTIONS["reward"]} - {"rate"}
    assert (
        keys_that_are_known(lambda spec: build_reward(spec, hash_line, 4), {"kind": "nothing"})
        == kinds
    )


def keys_that_are_known(build, spec) -> set[str]:
    """The keys that the error about an unknown key lists."""
    with pytest.raises(ConfigError) as error:
        build(spec)
    return set(re.search(r"known: (.*)$", str(error.value))[1].split(", "))


def test_defaults_are_what_a_file_would_say() -> None:
    ks, at = SECTIONS["evaluation"]["ks"], SECTIONS["critic of kind api"]["deadline"]
    assert (yaml.safe_load(ks.default.strip("`")), ks.type) == ([1, 4, 16], "list")
    assert (yaml.safe_load(at.default.strip("`")), at.type) == (120.0, "number")
    assert SECTIONS["method"]["refine_ratio"].type == "`shaped`, `importance`, `nll`"
    assert SECTIONS["sweep"]["values"].default == reference_config.REQUIRED
