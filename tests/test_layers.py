"""Imports go strictly downward from room to room; commands that answer at once import little."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "critique_rl"
ROOMS = [
    {"intervals"},
    {"types", "objective", "metrics", "prompts", "costs", "hashing", "_lazy"},
    {"config", "lab", "sampling"},
    {"tasks", "policy", "analysis"},
    {"critic", "rewards"},
    {"trainer"},
    {"experiment"},
    {"cli"},
    {"__init__", "__main__"},
]
"""Layers of rooms and of ground files, lowest first. A new module belongs to its folder: this list
stays as it is.
"""

LEVEL = {room: level for level, layer in enumerate(ROOMS) for room in layer}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def imported_modules(path: Path) -> set[str]:
    """Modules of critique_rl that a file imports anywhere, inside functions too, as
    `critique_rl.room.module`.
    """
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "critique_rl":
            modules |= {f"critique_rl.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


def imported_rooms(path: Path) -> set[str]:
    ours = [name.split(".") for name in imported_modules(path) if name.startswith("critique_rl.")]
    return {parts[1] for parts in ours}


def test_every_room_has_a_layer_and_imports_only_from_layers_below() -> None:
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        assert room in LEVEL, f"{path} is in no room"
        for other in imported_rooms(path) - {room}:
            below = LEVEL[other] < LEVEL[room]
            assert below, f"{path}: {room} (layer {LEVEL[room]}) imports {other} ({LEVEL[other]})"


def test_no_import_is_circular_inside_functions_either() -> None:
    modules = {}
    for path in PACKAGE.rglob("*.py"):
        parts = ("critique_rl", *path.relative_to(PACKAGE).with_suffix("").parts)
        # The face of a room hands on names of its modules, which never import the face.
        if path.stem != "__init__":
            modules[".".join(parts)] = imported_modules(path)
    # Raises CycleError, with the modules of the cycle.
    TopologicalSorter(modules).prepare()


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("asyncio", "critic/api/"),
        ("sqlite3", ("critic/api/", "experiment/audit/trackio.py")),
        ("trl", ("trainer/", "sampling/tokens.py", "experiment/build.py")),
    ],
)
def test_a_library_is_imported_in_its_room_only(library: str, allowed: str | tuple) -> None:
    for path in PACKAGE.rglob("*.py"):
        libraries = {module.partition(".")[0] for module in imported_modules(path)}
        name = path.relative_to(PACKAGE).as_posix()
        assert library not in libraries or name.startswith(allowed), f"{name} imports {library}"


@pytest.mark.processes
def test_config_and_analysis_load_neither_torch_nor_trl() -> None:
    folders = [PACKAGE / room for room in ("config", "analysis")]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    modules = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]
    code = f"import sys, {', '.join(modules)}\nprint(sorted({{'torch', 'trl'}} & set(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@pytest.mark.processes
def test_help_needs_neither_torch_nor_transformers() -> None:
    heavy = "sorted({'torch', 'transformers', 'trl'} & set(sys.modules))"
    call = "try: cli.main(['--help'])\nexcept SystemExit: pass"
    code = f"import sys, critique_rl.cli as cli\n{call}\nprint({heavy})"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.splitlines()[-1] == "[]"
