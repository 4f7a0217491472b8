"""The rules of CONTRIBUTING.md that ruff and mypy cannot check: names, contracts, packed lines, and
the size of folders.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = sorted((ROOT / "critique_rl").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in PACKAGE}
Function = ast.FunctionDef | ast.AsyncFunctionDef
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
BANNED = {"own", "of", "found", "told", "said", "whole"}
"""No nouns of the field: as names they say nothing about the thing."""
MOST_NODES_PER_LINE = 8.5
MOST_PER_THOUSAND_LINES = {"nested comprehension": 1, "conditional": 18, "parallel assignment": 3}


@cache
def nodes() -> list[tuple[str, ast.AST]]:
    """Every node of the package that has a line, with its place."""
    placed = []
    for path, tree in TREES.items():
        file = path.relative_to(ROOT)
        for node in ast.walk(tree):
            if hasattr(node, "lineno"):
                placed.append((f"{file}:{node.lineno}", node))
    return placed


def functions() -> Iterator[tuple[str, Function]]:
    for place, node in nodes():
        if isinstance(node, Function):
            yield place, node


def name_of(node: ast.AST) -> str:
    """The name that a node gives to something; "" if it gives none."""
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    if isinstance(node, ast.arg):
        return node.arg
    return node.name if isinstance(node, Function) else ""


def test_names_say_the_thing() -> None:
    banned = [f"{place} {name_of(node)}" for place, node in nodes() if name_of(node) in BANNED]
    assert banned == []


def raises(function: Function) -> bool:
    """Whether a function's statements raise an error, those of inner functions aside."""
    open_nodes: list[ast.AST] = list(function.body)
    while open_nodes:
        node = open_nodes.pop()
        if isinstance(node, ast.Raise) and node.exc is not None:
            return True
        if not isinstance(node, (*Function.__args__, ast.ClassDef, ast.Lambda)):
            open_nodes += ast.iter_child_nodes(node)
    return False


def handles_tensors(function: Function) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotations = [argument.annotation for argument in arguments] + [function.returns]
    text = " ".join(ast.unparse(annotation) for annotation in annotations if annotation)
    return re.search(r"\b(Tensor|ndarray)\b", text) is not None


def test_what_raises_or_handles_tensors_has_its_contract() -> None:
    missing = []
    for place, function in functions():
        contract = ast.get_docstring(function) or ""
        if raises(function) and not re.search(r"Raises|Error", contract):
            missing.append(f"{place} {function.name}: say what it raises")
        shapes = r"Args:|Returns:|shape|scalar|\([A-Z]\w*(, ?[A-Z0-9]\w*)*,?\)"
        if handles_tensors(function) and not re.search(shapes, contract):
            missing.append(f"{place} {function.name}: give the shapes")
    assert missing == []


def lines_of_code() -> int:
    """Lines that are neither blank nor a comment nor a docstring."""
    total = 0
    for path, tree in TREES.items():
        texts: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                texts |= set(range(node.lineno, node.end_lineno + 1))
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#") and number not in texts:
                total += 1
    return total


def is_nested(node: ast.AST) -> bool:
    inner = [child for child in ast.walk(node) if child is not node]
    return any(isinstance(child, COMPREHENSIONS) for child in inner)


def kind_of(node: ast.AST) -> str:
    """Which kind of packed line a node is; "" for all others."""
    if isinstance(node, COMPREHENSIONS) and is_nested(node):
        return "nested comprehension"
    if isinstance(node, ast.IfExp):
        return "conditional"
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
        return "parallel assignment" if isinstance(node.targets[0], ast.Tuple) else ""
    return ""


def test_few_lines_are_packed() -> None:
    counts = Counter(kind_of(node) for _, node in nodes())
    for kind, most in MOST_PER_THOUSAND_LINES.items():
        assert counts[kind] <= most * lines_of_code() / 1000, f"{kind}: {counts[kind]}"


def test_a_line_holds_one_idea() -> None:
    """Measured as nodes of the syntax tree per line of code, to one decimal."""
    total = sum(1 for tree in TREES.values() for _ in ast.walk(tree))
    assert round(total / lines_of_code(), 1) <= MOST_NODES_PER_LINE


def test_folders_and_functions_are_small() -> None:
    folders = Counter(path.parent for path in PACKAGE)
    assert max(folders.values()) <= 20
    long = [f"{place} {f.name}" for place, f in functions() if f.end_lineno - f.lineno >= 80]
    assert long == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.stem)
def test_names_of_tests_are_short_enough_to_read(path) -> None:
    names = re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    assert [name for name in names if len(name) > 80] == []
