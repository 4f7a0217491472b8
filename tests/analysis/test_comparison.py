"""A comparison as a file: read as it was written, with keys that others added."""

import json

import pytest
from arm_evaluations import compared, put, two_arms

from critique_rl.analysis.compare import compare
from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.numbers_csv import numbers
from critique_rl.analysis.verdict import verdict
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import write_json
from critique_rl.config.run_folder import PipelineFolder


def test_a_comparison_is_read_as_it_was_written(tmp_path):
    two_arms(tmp_path)
    put(tmp_path, "base", None, {"a": 0, "b": 2})
    sweep = {"key": "trl.learning_rate", "metric": "pass@1/all"}
    sweep |= {"arms": {"scalar": {"chosen": 0.1, "tried": {"0.1": 0.5}}}}
    write_json(PipelineFolder(tmp_path).sweep_choice, sweep)
    folder = PipelineFolder(tmp_path)
    comparison = compare(folder, "scalar", "pass@1/plateau", ("scalar", "critique"), (0, 1, 2), 0.5)
    text = json.dumps(comparison.to_json())
    again = Comparison.from_json(json.loads(text))
    assert again == comparison
    assert json.dumps(again.to_json()) == text
    assert json.loads(text)["sweep"] == sweep


def test_keys_that_others_added_to_a_comparison_are_kept(tmp_path):
    two_arms(tmp_path)
    data = compared(tmp_path).to_json()
    data["reviewed_by"] = "a person"
    data["arms"]["critique"]["power"] = 0.9
    data["arms"]["critique"]["cost"]["joules"] = 3.5e6
    data["comparisons"][0]["effect_size"] = {"cohen": 1.25}
    comparison = Comparison.from_json(data)
    assert comparison.extra == {"reviewed_by": "a person"}
    assert comparison.comparisons[0].extra == {"effect_size": {"cohen": 1.25}}
    assert comparison.to_json() == data
    assert verdict(comparison) == verdict(compared(tmp_path))
    values = {(number.metric, number.value) for number in numbers(comparison)}
    assert {("power", 0.9), ("joules", 3.5e6)} <= values


def test_a_comparison_without_a_key_is_refused_and_later_keys_have_defaults(tmp_path):
    two_arms(tmp_path)
    data = compared(tmp_path).to_json()
    for key in ("target", "measure", "pairs", "second", "sweep"):
        del data[key]
    assert Comparison.from_json(data).measure == "generated_tokens"
    del data["arms"]["scalar"]["cost"]
    with pytest.raises(ConfigError, match="ArmSummary: got no cost, expected an object with"):
        Comparison.from_json(data)
    with pytest.raises(ConfigError, match=r"Comparison: got \[\], expected an object with target"):
        Comparison.from_json([])
