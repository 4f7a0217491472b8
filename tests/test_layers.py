"""Imports go strictly downward, and what answers at once imports nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "critique_rl"
LAYERS = [
    {"types", "prompts", "splits", "objective", "costs", "targets", "model_card"},
    {"schema"},
    {"config", "metrics", "runs", "sliced", "shards", "sampling", "store", "endpoint", "reply", "loop", "judging", "worker", "processes"},
    {"lab", "verifier", "failures", "cache", "ledger", "limits", "gym", "presets", "checkpoint", "curves", "sweep"},
    {"worker_verifier", "own_data"},
    {"tasks", "rewards", "policy", "calls", "first_pipeline", "plan", "options", "compare", "verdict", "leaks"},
    {"chat", "refine", "trl_seams", "generation", "alarms", "plateau", "resume", "claims"},
    {"controls", "chat_critic", "own_critic"},
    {"critic"},
    {"rollout", "teacher"},
    {"distill"},
    {"trainer", "evaluate"},
    {"record", "rescue", "settings", "bench"},
    {"localisation"},
    {"callback"},
    {"train"},
    {"preloaded", "plots", "transcripts", "exports", "campaign"},
    {"provenance"},
    {"report", "bench_command", "lab_command", "doctor"},
    {"cli", "reference"},
    {"__main__", "__init__"},
]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("critique_rl"):
            tail = node.module.split(".")[1:]
            names |= {tail[0]} if tail else {alias.name for alias in node.names}
    return names


def test_every_module_has_a_layer_and_imports_only_from_layers_below() -> None:
    level = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert name in level, f"{path} has no layer"
        for other in imported(path) - {name}:
            assert level[other] < level[name], f"{name} (layer {level[name]}) imports {other} (layer {level[other]})"


@pytest.mark.processes
def test_help_needs_neither_torch_nor_transformers() -> None:
    heavy = "sorted({'torch', 'transformers', 'trl'} & set(sys.modules))"
    code = f"import sys, critique_rl.cli as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nprint({heavy})"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "[]"
