"""The tests of a row, in the forms that data sets have.

    ["assert f(1) == 2", ...]                 assertions (MBPP's `test_list`)
    "def check(candidate): assert ..."        a test function (HumanEval's `test`), or functions
                                              `test_...`
    [{"input": "3", "output": "6"}, ...]      inputs and outputs of a script (LiveCodeBench), or
                                              {"inputs": [...], "outputs": [...]} (APPS)
    the same with "testtype": "functional",   arguments and results as JSON, one argument per
    or "fn_name"                              line, of a function or of `Solution`'s method

Each may be written as JSON in a text. Left out: LiveCodeBench's private tests as it packs them, a
pickle, which would run code when it is read.
"""

from __future__ import annotations

import ast
import builtins
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from critique_rl.tasks.code.extract import parse

MOST_TESTS = 1000
HIDDEN = "hidden test"
"""How the names of tests begin of which a verdict shows the name alone."""
PACKAGES = ("pytest",)
"""Packages beside Python's library that tests may import."""
LIBRARY = ("Counter", "deque", "defaultdict", "OrderedDict", "Decimal", "Fraction", "isclose")
"""Names of Python's library that tests call without an import of their own."""
Test = dict[str, Any]
"""What `harness` runs: {"name", "kind": "code", "code"}, {"kind": "stdin", "input", "output"} or
{"kind": "call", "function", "arguments", "output"}.
"""


class NoTests(ValueError):
    """A cell that holds no tests which can be read; the message says why."""


def is_test(name: str) -> bool:
    """Whether a function of this name is called as a test. `harness`, which stands alone and needs
    pytest, has the same rule.
    """
    return name in ("check", "test") or name.startswith("test_")


def read_tests(cell: Any, entry: str = "", setup: str = "", label: str = "test") -> list[Test]:
    """Read the tests of one cell.

    Args:
        cell: As in the module's table; None and "" hold no tests.
        entry: The name of the tested function, for results as JSON.
        setup: Code that runs before each test of assertions.
        label: Tests are named by it and a number from 1.

    Raises:
        NoTests: For anything else.
    """
    cell = _unpack(cell)
    if cell is None or cell == "" or cell == []:
        return []
    if isinstance(cell, str):
        tests = [_code_test(cell, setup)]
    elif isinstance(cell, Mapping):
        tests = _input_tests(_pairs(cell), str(cell.get("fn_name") or entry))
    elif isinstance(cell, Sequence):
        tests = _listed_tests(cell, entry, setup)
    else:
        raise NoTests(f"got {type(cell).__name__}, expected assertions, a function, or inputs")
    if len(tests) > MOST_TESTS:
        raise NoTests(f"got {len(tests)} tests, expected at most {MOST_TESTS}")
    for number, test in enumerate(tests, start=1):
        test["name"] = f"{label} {number}"
    return tests


def _unpack(cell: Any) -> Any:
    """The value of a text that is JSON, or any other cell as it is."""
    if isinstance(cell, str) and cell.strip()[:1] in ("[", "{"):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _code_test(source: Any, setup: str) -> Test:
    """A test of assertions. Raises NoTests for what cannot fail, or is no Python."""
    if not isinstance(source, str):
        raise NoTests(f"got a test of type {type(source).__name__}, expected an assertion")
    code = f"{setup}\n{source}" if setup else source
    tree = parse(code)
    if tree is None:
        raise NoTests("a test is no Python")
    fault = _fault(tree)
    if fault:
        raise NoTests(fault)
    return {"kind": "code", "code": code}


def _fault(tree: ast.Module) -> str:
    """Why a test would judge nothing, or could not run; "" of one that judges."""
    for node in tree.body:
        fault = ""
        if isinstance(node, ast.ClassDef):
            fault = _class_fault(node)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_test(node.name):
            fault = _arguments_fault(node)
        if fault:
            return fault
    if not any(_can_fail(node) for node in tree.body):
        return "a test without an assertion that is run"
    for name in _imported(tree):
        if name not in sys.stdlib_module_names and name not in PACKAGES:
            return f"a test imports {name}, which the sandbox does not have"
    return ""


def _can_fail(node: ast.stmt) -> bool:
    """Whether a statement of a test can fail where the program is wrong."""
    if isinstance(node, ast.ClassDef):
        return False
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_test(node.name):
        return False
    # A call may be of a helper that asserts; a lone comparison judges nothing.
    if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call):
        return False
    failing = (ast.Assert, ast.Raise, ast.Call)
    return any(isinstance(part, failing) for part in ast.walk(node))


def _class_fault(node: ast.ClassDef) -> str:
    if node.name.startswith("Test") or "TestCase" in ast.unparse(node):
        return "a class of tests, which is not run; write functions test_..."
    return ""


def _arguments_fault(function: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Why a test function cannot be called; "" of one that can."""
    if isinstance(function, ast.AsyncFunctionDef):
        return f"an async function {function.name}, which is not run"
    given = function.args
    needed = len(given.posonlyargs) + len(given.args) - len(given.defaults)
    expected = 1 if function.name == "check" else 0
    if needed == expected or function.args.vararg is not None:
        return ""
    return f"a function {function.name} of {needed} arguments, expected {expected}"


def _imported(tree: ast.Module) -> set[str]:
    """The first names of the modules that a test imports."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names.add(alias.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names


def needs_candidate(test: Test) -> bool:
    """Whether a test is a function `check(candidate)`, which is given the tested object."""
    if test["kind"] != "code":
        return False
    tree = parse(test["code"])
    assert tree is not None  # `_code_test` has read it
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "check":
            return True
    return False


def _listed_tests(cell: Sequence[Any], entry: str, setup: str) -> list[Test]:
    if all(isinstance(item, Mapping) for item in cell):
        return _input_tests(cell, entry)
    return [_code_test(item, setup) for item in cell]


def _pairs(cell: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """APPS's columns of inputs and outputs as pairs. Raises NoTests where they are none."""
    inputs, outputs = cell.get("inputs"), cell.get("outputs")
    if not isinstance(inputs, Sequence) or not isinstance(outputs, Sequence):
        raise NoTests('got an object without "inputs" and "outputs"')
    if len(inputs) != len(outputs):
        raise NoTests(f"got {len(inputs)} inputs and {len(outputs)} outputs")
    kind = "functional" if cell.get("fn_name") else "stdin"
    pairs: list[Mapping[str, Any]] = []
    for given, result in zip(inputs, outputs, strict=True):
        # APPS wraps results in lists of one.
        is_wrapped = isinstance(result, list) and len(result) == 1
        pair = {"input": given, "output": result, "testtype": kind, "wrapped": is_wrapped}
        pairs.append(pair)
    return pairs


def _input_tests(cell: Sequence[Mapping[str, Any]], entry: str) -> list[Test]:
    """Tests of inputs and outputs. Raises NoTests for a pair without one of them."""
    tests = []
    for pair in cell:
        if "input" not in pair or "output" not in pair:
            raise NoTests('got a test without "input" and "output"')
        given, result = pair["input"], pair["output"]
        if pair.get("testtype", "stdin") == "functional":
            function = str(pair.get("fn_name") or entry)
            test = _call_test(given, result, function)
            test["wrapped"] = bool(pair.get("wrapped"))
            tests.append(test)
        else:
            test = {"kind": "stdin", "input": _lines(given), "output": _lines(result)}
            tests.append(test)
    return tests


def _lines(value: Any) -> str:
    """A script's input or output; APPS has some as lists of lines."""
    if isinstance(value, list):
        return "\n".join(str(line) for line in value)
    return str(value)


def _call_test(given: Any, result: Any, function: str) -> Test:
    """A test of a function by arguments and a result, which may be JSON in texts.

    Raises:
        NoTests: Without the function's name, or where they are no JSON.
    """
    if not function:
        raise NoTests('a "functional" test needs the name of its function (entry_point)')
    try:
        arguments = given
        if isinstance(given, str):
            lines = given.splitlines()
            arguments = [json.loads(line) for line in lines if line.strip()]
        if isinstance(result, str):
            result = json.loads(result)
    except (ValueError, RecursionError) as error:
        raise NoTests('a "functional" test whose input or output is no JSON') from error
    if not isinstance(arguments, list):
        raise NoTests('a "functional" test\'s arguments are no list')
    return {"kind": "call", "function": function, "arguments": arguments, "output": result}


def called_names(tests: Sequence[Test]) -> Counter[str]:
    """How often tests call which names that they do not define."""
    calls = Counter[str]()
    for test in tests:
        if test["kind"] == "call":
            calls[test["function"]] += 1
        if test["kind"] != "code":
            continue
        tree = parse(test["code"])
        assert tree is not None  # `_code_test` has read it
        defined = _defined_names(tree)
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            name = node.func.id
            if name not in defined and not hasattr(builtins, name):
                calls[name] += 1
    # A test may leave the import of these to the program.
    others = {name: count for name, count in calls.items() if name not in LIBRARY}
    return Counter(others) if others else calls


def _defined_names(tree: ast.Module) -> set[str]:
    """Names that a test binds anywhere: functions, arguments, imports, variables."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.alias):
            names.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
