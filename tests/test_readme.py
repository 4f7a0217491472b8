"""What the README prints runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from critique_rl.claims import parse_claim
from critique_rl.config import load_pipeline, parse_pipeline
from critique_rl.critic import build_critic
from critique_rl.schema import TaskConfig
from critique_rl.tasks import load_task

README = (Path(__file__).parents[1] / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_python_example_trains(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(PYTHON[0], names)
    assert names["trainer"].state.global_step == 2


def test_the_critic_in_ten_lines_is_one_and_is_found_where_it_is_said_to_be(tmp_path, monkeypatch) -> None:
    from critique_rl.critic import build_critic
    from critique_rl.schema import TaskConfig
    from critique_rl.tasks import load_task
    from critique_rl.types import Attempt

    code = PYTHON[1].strip().splitlines()
    assert len([line for line in code if line and not line.startswith("#")]) <= 10
    (tmp_path / "my_critic.py").write_text(PYTHON[1])
    monkeypatch.chdir(tmp_path)
    [section] = re.findall(r"`critic: (\{kind: python, .*?\})`", README)
    task = load_task(TaskConfig("lab/chain", size=3), 0)
    critic = build_critic(yaml.safe_load(section), task)
    row = {"question": "3 A-7 B+9", "answer": "5"}
    tried = [Attempt("3 A-7 B+9", text, task.verifier(text, row), row) for text in ("A-7=4\nB+9=13\n#13", "A-7=-4\nB+9=5\n#6")]
    # 3 - 7 is -4, not 4; in the second every sum is right, and only the last line is not.
    assert [(c.text, c.status, c.reason) for c in critic.critique(tried)] == [("A is wrong: 3-7 is -4", "ok", ""), ("", "skipped", "nothing_to_say")]


def test_the_yaml_examples_are_a_pipeline() -> None:
    first, branching, costs, external, claim, api = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
    assert list(parse_pipeline("readme", first).arms) == ["scalar", "critique"]
    assert parse_pipeline("readme", {**first, **branching}).arms["mixed"].branch_from.arm == "scalar"
    compared = parse_pipeline("readme", {**first, **costs, **external})
    assert (compared.arms["critique"].budget.of, compared.target, compared.external) == (("total_tokens", 300000), 0.5, {"plain": "outputs/plain"})
    assert compared.sweep.values == (1e-4, 3e-4, 6e-4)
    nsr = parse_pipeline("readme", {**first, **claim, "arms": {"nsr": {}}, "primary": "pass@1/all"})
    assert parse_claim(nsr).tests == parse_claim(load_pipeline(Path(__file__).parents[1] / "pipelines" / "claims" / "nsr.yaml")).tests[:1]
    critic = parse_pipeline("readme", {**first, **api}).arms["scalar"].critic
    assert build_critic(critic, load_task(TaskConfig("lab/chain", size=16), 0)).chat.endpoint.caps.max_cost == 5.0


@pytest.mark.parametrize("station", re.findall(r"`(?:trainer|refine|rollout|distill|tasks|prompts|trl_seams|rewards)\.[\w.]+`", README))
def test_every_function_the_stations_name_exists(station) -> None:
    import importlib

    module, *names = station.strip("`").split(".")
    thing = importlib.import_module(f"critique_rl.{module}")
    for name in names:
        thing = getattr(thing, name, None) or getattr(thing.CritiqueGRPOTrainer, name)
    assert callable(thing)


def test_every_preset_is_in_the_table() -> None:
    from critique_rl.presets import PRESETS

    named = {name for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert set(PRESETS) <= named
