"""Run one program and its tests in this process, and say what the first failing test saw.

This file stands alone: it runs inside a sandbox that sees neither this package nor the rows, and
can be sent to a sandbox on another machine, which needs Python 3.11 and pytest. Assertions are
rewritten by pytest, so that both sides of a comparison are seen. Every value is cut at `SHOWN`.

    job     {"program", "before", "entry", "tests": [{"name", "kind", ...}]}; see `tests_column`
    report  {"status", "passed", "test", "call", "got", "expected", "error", "line"}

Not prevented: a program that searches this process for the report's key can write its report
itself. Tests that share a process with what they test cannot rule that out.
"""

from __future__ import annotations

import ast
import functools
import io
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from _pytest.assertion import util
from _pytest.assertion.rewrite import rewrite_asserts

SHOWN = 200
"""Characters of a value, a call or a message that a report keeps."""
ANSWER = "<answer>"
"""The file name of the program: its lines are those of the attempt's code."""
TESTS = "<tests>"
"""The file name of a test."""
COMPARISONS = ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__bool__", "__len__")
"""Methods by which an object decides what a test sees."""
Report = dict[str, Any]


class Calls:
    """The last call of the tested function that a test made, and what came of it."""

    def __init__(self, name: str, function: Callable[..., Any]):
        # Tests may ask for its name, its signature or its words.
        functools.update_wrapper(self, function)
        self.name = name
        self.function = function
        self.depth = 0
        self.words = ""
        self.got = ""
        self.is_made_up = False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        # A function that calls itself comes here as well.
        if self.depth:
            return self.function(*arguments, **named)
        # Before the call, which may change its arguments.
        parts = []
        for argument in arguments:
            parts.append(show(argument))
        for name, value in named.items():
            parts.append(f"{name}={show(value)}")
        inside = ", ".join(parts)
        self.words = cut(f"{self.name}({inside})")
        self.got = ""
        self.depth += 1
        try:
            result = self.function(*arguments, **named)
        finally:
            self.depth -= 1
        self.got = show(result)
        if decides_alone(result):
            self.is_made_up = True
        return result


class Comparison:
    """The two sides of the comparison that failed last."""

    def __init__(self) -> None:
        self.sides: tuple[str, str, str] | None = None

    def __call__(self, operator: str, left: Any, right: Any) -> None:
        self.sides = operator, show(left), show(right)


# ---- words ---------------------------------------------------------------------------------------


def cut(text: str) -> str:
    """A text of at most `SHOWN` characters, on one line."""
    line = " ".join(text.split("\n"))
    if len(line) <= SHOWN:
        return line
    return line[: SHOWN - 3] + "..."


def show(value: Any) -> str:
    """A value as Python writes it, cut; or its type, where its own words fail."""
    try:
        return cut(repr(value))
    except Exception:
        return f"<{type(value).__name__}>"


def decides_alone(value: Any) -> bool:
    """Whether a value is of a class in the program that decides for itself what it equals."""
    kind = type(value)
    parts: list[Any] = []
    if kind in (list, tuple, set, frozenset):
        parts = list(value)
    if kind is dict:
        parts = [*value.keys(), *value.values()]
    if any(decides_alone(part) for part in parts):
        return True
    is_of_program = kind.__module__ == ANSWER
    return is_of_program and any(name in vars(kind) for name in COMPARISONS)


# ---- programs and tests --------------------------------------------------------------------------


def compiled(job: Mapping[str, Any]) -> Any:
    """The code of a program and of what stands before it.

    Raises:
        SyntaxError: It has none.
    """
    return compile(job["before"] + job["program"], ANSWER, "exec", dont_inherit=True)


def load(code: Any, name: str) -> dict[str, Any]:
    """Run a program's top level; its names."""
    names: dict[str, Any] = {"__name__": name, "__builtins__": __builtins__}
    exec(code, names)
    return names


def rewritten(source: str) -> Any:
    """The code of a test, with assertions that show both of their sides."""
    tree = ast.parse(source, TESTS)
    rewrite_asserts(tree, source.encode())
    return compile(tree, TESTS, "exec", dont_inherit=True)


def watch(names: dict[str, Any], entry: str) -> Calls | None:
    """Put a recorder in the place of the tested function; None where it is none."""
    function = names.get(entry)
    # A class stays as it is: tests may ask for the class of an object.
    if not callable(function) or isinstance(function, type):
        return None
    calls = Calls(entry, function)
    names[entry] = calls
    return calls


def run_code(source: str, names: dict[str, Any], calls: Calls | None) -> None:
    """Run one test: assertions, and the functions `check(candidate)` and `test...` that it defines.

    Raises:
        Exception: Whatever the test or the program raises.
    """
    before = set(names)
    exec(rewritten(source), names)
    defined = [name for name in names if name not in before]
    for name in defined:
        function = names[name]
        if not callable(function):
            continue
        if name == "check" and calls is not None:
            function(calls)
        elif name.startswith("test"):
            function()


def run_input(job: Mapping[str, Any], test: Mapping[str, Any]) -> str:
    """Run a program as a script on an input; what it prints."""
    stdin, stdout = sys.stdin, sys.stdout
    sys.stdin = io.TextIOWrapper(io.BytesIO(test["input"].encode()))
    sys.stdout = printed = io.TextIOWrapper(io.BytesIO(), write_through=True)
    try:
        load(compiled(job), "__main__")
    except SystemExit as error:
        # A script may end itself; with an error it has failed.
        if error.code not in (None, 0):
            raise
    finally:
        sys.stdin, sys.stdout = stdin, stdout
    printed.flush()
    data: bytes = printed.buffer.getvalue()
    return data.decode(errors="replace")


def same_output(got: str, expected: str) -> bool:
    """Whether two outputs are equal line by line, white space at the ends of lines aside."""
    return _lines(got) == _lines(expected)


def _lines(text: str) -> list[str]:
    lines = text.rstrip().split("\n")
    return [line.rstrip() for line in lines]


# ---- a job ---------------------------------------------------------------------------------------


def run_job(job: Mapping[str, Any]) -> Report:
    """Run all tests of a job up to the first that fails.

    Args:
        job: As in the module's table.

    Returns:
        The report. "status" is "passed", "failed" (a test), or "broken" (the program itself).
    """
    report: Report = {"status": "passed", "passed": 0}
    needs_names = any(test["kind"] != "stdin" for test in job["tests"])
    try:
        # Syntax first: a script is not run before its input is there.
        code = compiled(job)
        names = load(code, ANSWER) if needs_names else {}
    except BaseException as error:
        report["status"] = "broken"
        report["error"] = error_words(error)
        report["line"] = error_line(error, job)
        return report
    entry = job["entry"]
    is_method = "Solution" in names and any(test["kind"] == "call" for test in job["tests"])
    if needs_names and entry and entry not in names and not is_method:
        report["status"] = "broken"
        report["error"] = f"NameError: name {entry!r} is not defined"
        return report
    calls = watch(names, entry) if entry else None
    for test in job["tests"]:
        failure = run_test(job, test, names, calls)
        if failure is None and calls is not None and calls.is_made_up:
            failure = {"call": calls.words, "got": "an object that decides what it equals"}
        if failure is not None:
            report["status"] = "failed"
            report["test"] = test["name"]
            return report | failure
        report["passed"] += 1
    return report


def run_test(
    job: Mapping[str, Any], test: Mapping[str, Any], names: dict[str, Any], calls: Calls | None
) -> Report | None:
    """Run one test; what it saw, or None where it passed."""
    if calls is not None:
        calls.words = ""
    comparison = Comparison()
    util._reprcompare = comparison
    try:
        if test["kind"] == "stdin":
            return run_stdin(job, test)
        if test["kind"] == "call":
            return run_call(test, names, calls)
        run_code(test["code"], names, calls)
        return None
    except AssertionError as error:
        # One of the program's is an error like any other.
        line = error_line(error, job)
        if line is None:
            return failed_assertion(error, test, comparison, calls)
        report = raised(error, test, calls)
        report["line"] = line
        return report
    except BaseException as error:
        report = raised(error, test, calls)
        report["line"] = error_line(error, job)
        return report


def run_stdin(job: Mapping[str, Any], test: Mapping[str, Any]) -> Report | None:
    """Run a script on an input, and compare what it prints."""
    got = run_input(job, test)
    if same_output(got, test["output"]):
        return None
    return {
        "call": f"input {show(test['input'])}",
        "got": show(got),
        "expected": show(test["output"]),
    }


def run_call(test: Mapping[str, Any], names: dict[str, Any], calls: Calls | None) -> Report | None:
    """Call the tested function with arguments from JSON, and compare what it returns."""
    function = calls or names["Solution"]()
    if calls is None:
        calls = Calls(test["function"], getattr(function, test["function"]))
    got = calls(*test["arguments"])
    # JSON knows no tuples.
    if isinstance(got, tuple):
        got = list(got)
    if got == test["output"] and not decides_alone(got):
        return None
    return {"call": calls.words, "got": show(got), "expected": show(test["output"])}


def failed_assertion(
    error: AssertionError, test: Mapping[str, Any], comparison: Comparison, calls: Calls | None
) -> Report:
    """What an assertion saw: both sides of a comparison, or the assertion itself."""
    assertion = assertion_of(error, test["code"])
    report = expectation(assertion, calls)
    report["error"] = "AssertionError"
    if comparison.sides is None or comparison.sides[0] != "==":
        return report
    _, left, right = comparison.sides
    # `assert 8 == f(3)` has its expected side on the left.
    if calls is not None and calls.words and calls.got == right:
        left, right = right, left
    report["got"] = left
    report["expected"] = right
    return report


def expectation(assertion: ast.Assert | None, calls: Calls | None) -> Report:
    """What a test called, what came, and what it expected, in the words of its source."""
    report: Report = {}
    if assertion is not None:
        test = assertion.test
        report["expected"] = cut(ast.unparse(test))
        if isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.Eq):
            report["call"] = cut(ast.unparse(test.left))
            report["expected"] = cut(ast.unparse(test.comparators[0]))
    if calls is not None and calls.words:
        report["call"] = calls.words
        report["got"] = calls.got
    return report


def assertion_of(error: BaseException, code: str) -> ast.Assert | None:
    """The assertion of a test in which an exception arose; None outside of one."""
    number = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == TESTS:
            number = line
    if number is None:
        return None
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Assert) and node.lineno <= number <= (node.end_lineno or number):
            return node
    return None


def raised(error: BaseException, test: Mapping[str, Any], calls: Calls | None) -> Report:
    """What is told of an exception."""
    assertion = assertion_of(error, test["code"]) if test["kind"] == "code" else None
    report = expectation(assertion, calls)
    report["error"] = error_words(error)
    if test["kind"] != "code":
        report["expected"] = show(test["output"])
    if test["kind"] == "stdin":
        report["call"] = f"input {show(test['input'])}"
    report.pop("got", None)
    return report


def error_words(error: BaseException) -> str:
    """An exception's class and message, cut."""
    message = ""
    if isinstance(error, SyntaxError):
        # Its own words repeat the file and the line.
        message = error.msg
    else:
        with suppress(Exception):
            message = str(error)
    name = type(error).__name__
    return cut(f"{name}: {message}" if message else name)


def error_line(error: BaseException, job: Mapping[str, Any]) -> int | None:
    """The line of the program, from 1, in which an exception arose; None outside it."""
    line = None
    if isinstance(error, SyntaxError) and error.filename == ANSWER:
        line = error.lineno
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == ANSWER:
            line = number
    if line is None:
        return None
    line -= job["before"].count("\n")
    return line if line > 0 else None
