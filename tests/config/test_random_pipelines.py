"""Whatever stands in a pipeline file, it is a pipeline that can be written and read again, or a
sentence says what is wrong.
"""

from __future__ import annotations

import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from critique_rl.analysis.claims.claim import parse_claim
from critique_rl.config.arms import RUN_KEYS
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import PIPELINE_KEYS, load_pipeline, parse_pipeline
from critique_rl.config.resolved_run import to_dict

VALID = {
    "task": {"name": "lab/chain", "size": 64, "families": {"plateau": 1, "learnable": 0.5}},
    "policy": {"model": "lab", "options": {}},
    "trl": {"learning_rate": 1e-4, "num_generations": 4, "warmup_steps": 0.1},
    "method": {"refine_ratio": "nll"},
    "preset": "grpo",
    "critic": {"kind": "api", "base_url": "http://127.0.0.1:1/v1", "model": "m"},
    "reward": {"kind": "random", "rate": 0.5},
    "budget": {"usd": 2.0},
    "prices": {"prompt": 0.1, "completion": 0.2},
    "evaluation": {"problems": 4, "samples": 4, "ks": [1, 4], "best_by": "pass@1/all"},
    "plateau": {"window": 4, "alpha": 0.05},
    "critique_from": "plateau",
    "keep_steps": [2, 4],
    "seeds": [0, 1],
    "primary": "pass@1/all",
    "control": "scalar",
    "target": 0.5,
    "delta": 0.1,
    "sweep": {"values": [1e-4, 3e-4], "seeds": [9], "metric": "pass@1/all"},
    "external": {"plain": "outputs/plain"},
    "claim": {
        "says": "more",
        "source": "here",
        "tests": [{"metric": "pass@1/all", "contrast": {"scalar": -1, "b": 1}, "above": 0}],
    },
    "arms": {
        "scalar": {"critic": {"kind": "none"}},
        "b": {"trl": {"beta": 0.1}, "branch_from": None},
        "late": None,
    },
}
TEXTS = st.one_of(
    st.sampled_from(["", " ", "..", "a/b", "-x", "~", "base", "on", "1e-4", "plateau", "none"]),
    st.text(max_size=8),
)
NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([2**31, 2**32, 2**63, 10**30, -(2**70)]),
    st.floats(width=32),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
KEYS = st.one_of(
    st.sampled_from([*PIPELINE_KEYS, *RUN_KEYS, "kind", "name", "arm", "at"]), TEXTS, NUMBERS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def place_in(data: st.DataObject, value: Any) -> tuple[Any, Any]:
    """(a mapping or a list inside of `value`, one of its keys or places)."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = data.draw(st.sampled_from(keys))
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            return value, key
        value = inner


def mutate(data: st.DataObject, pipeline: dict) -> None:
    """Take a value out, put another one in, or add a key, somewhere."""
    if not pipeline:
        return
    section, key = place_in(data, pipeline)
    match data.draw(st.sampled_from(["remove", "replace", "add", "rename"])):
        case "remove":
            del section[key]
        case "replace":
            section[key] = data.draw(VALUES)
        case "add" if isinstance(section, dict):
            section[data.draw(KEYS)] = data.draw(VALUES)
        case "rename" if isinstance(section, dict):
            section[data.draw(KEYS)] = section.pop(key)


def scratched(data: st.DataObject, text: str) -> str:
    """The text with a few characters more, fewer or twice."""
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 30))
        new = data.draw(st.one_of(st.text(max_size=3), st.just(text[place : place + length])))
        text = text[:place] + new + text[place + data.draw(st.sampled_from([0, length])) :]
    return text


@given(st.data())
def test_a_pipeline_is_read_or_refused_in_a_sentence(data) -> None:
    pipeline = copy.deepcopy(VALID)
    kept = data.draw(st.sets(st.sampled_from(sorted(pipeline))))
    pipeline = {key: pipeline[key] for key in pipeline if key in kept | {"task", "policy"}}
    for _ in range(data.draw(st.integers(0, 3))):
        mutate(data, pipeline)
    text = scratched(data, yaml.safe_dump(pipeline, allow_unicode=True, sort_keys=False))
    overrides = data.draw(st.lists(st.builds("{}.{}={}".format, KEYS, KEYS, SCALARS), max_size=1))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "p.yaml"
        path.write_bytes(text.encode(errors="surrogatepass"))
        try:
            resolved = load_pipeline(path, overrides)
            parse_claim(resolved)
        except ConfigError as error:
            assert str(error).strip()
            return
    for config in resolved.arms.values():
        stored = {**to_dict(config), "branch_from": None}
        written = yaml.safe_dump(stored)
        again = parse_pipeline("again", yaml.safe_load(written))
        [arm] = again.arms.values()
        assert to_dict(arm) == stored
