"""Run one program and some tests in this process, and say what the first failing test saw.

This file stands alone: it runs inside a sandbox that sees neither this package nor the rows, and
can be sent to a sandbox on another machine, which needs Python 3.11 and pytest. Assertions are
rewritten by pytest, so that both sides of a comparison are seen. Every value is cut at `SHOWN`.

    job     {"program", "before", "entry", "tests": [{"name", "kind", ...}]}; see `tests_column`
    report  {"status", "passed", "results", "test", "call", "got", "expected", "error", "line"}

Of inputs and arguments the expected results are not here: `judge` compares digests outside.
Assertions share the process with what they test. They see the real builtins, and names of the
program that hide none. Not prevented: a program that searches the interpreter for this code.
"""

from __future__ import annotations

import ast
import atexit
import builtins
import functools
import hashlib
import json
import math
import os
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FunctionType, ModuleType
from typing import Any

from _pytest.assertion import util
from _pytest.assertion.rewrite import rewrite_asserts

SHOWN = 200
"""Characters of a value, a call or a message that a report keeps."""
ANSWER = "<answer>"
"""The file name of the program: its lines are those of the attempt's code."""
TESTS = "<tests>"
"""The file name of a test."""
DEEPEST = 6
WIDEST = 200
"""How deep, and how many items of, a container is searched for odd objects."""
HEAP_TYPE = 1 << 9
"""Flag of classes that Python code has made."""
GUARDED = (builtins, math, ast, json, functools)
"""Modules whose names are put back after the program has run."""
Report = dict[str, Any]


class Calls:
    """The last call of the tested function that a test made, and what came of it."""

    def __init__(self, name: str, function: Callable[..., Any], guard: Guard):
        # Tests may ask for its name, its signature, or what is stored on it.
        functools.update_wrapper(self, function)
        self.name = name
        self.function = function
        self.guard = guard
        self.words = ""
        self.got = ""
        self.is_made_up = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["function"], name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        # Before the call, which may change its arguments.
        parts = []
        for argument in arguments:
            parts.append(show(argument))
        for name, value in named.items():
            parts.append(f"{name}={show(value)}")
        inside = ", ".join(parts)
        self.words = cut(f"{self.name}({inside})")
        self.got = ""
        try:
            result = self.function(*arguments, **named)
        finally:
            self.guard.restore()
        self.got = show(result)
        if holds_made_up(result):
            self.is_made_up = True
        return result


class Watch:
    """What the methods of the program's class return to a test."""

    def __init__(self, kind: type):
        self.kind = kind
        self.is_made_up = False
        self.methods: dict[str, Any] = {}
        for name, member in vars(kind).items():
            if isinstance(member, FunctionType) and not name.startswith("__"):
                self.methods[name] = member
        self.begin()

    def begin(self) -> None:
        """Look at each result from now on."""
        for name, method in self.methods.items():
            setattr(self.kind, name, self.watched(method))

    def end(self) -> None:
        """Give the class its own methods back."""
        for name, method in self.methods.items():
            setattr(self.kind, name, method)

    def watched(self, method: Any) -> Any:
        """The method, with a look at its result."""

        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            # The program's own calls are not looked at, and recurse as deep as before.
            self.end()
            try:
                result = method(*arguments, **named)
            finally:
                self.begin()
            if holds_made_up(result):
                self.is_made_up = True
            return result

        return call


class Comparison:
    """The two sides of the comparison that failed last."""

    def __init__(self) -> None:
        self.sides: tuple[str, str, str] | None = None

    def __call__(self, operator: str, left: Any, right: Any) -> None:
        self.sides = operator, show(left), show(right)


class Guard:
    """What some modules held before the program ran."""

    def __init__(self) -> None:
        self.names = [(vars(module), dict(vars(module))) for module in GUARDED]

    def restore(self) -> None:
        """Put the names back."""
        for names, kept in self.names:
            names.update(kept)


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


# ---- objects that decide what they equal ---------------------------------------------------------


def holds_made_up(value: Any, depth: int = 0) -> bool:
    """Whether a value is, or holds, an object that equals anything."""
    kind = type(value)
    parts: list[Any] = []
    if kind in (list, tuple, set, frozenset):
        parts = list(value)
    if kind is dict:
        parts = [*value.keys(), *value.values()]
    if depth < DEEPEST and any(holds_made_up(part, depth + 1) for part in parts[:WIDEST]):
        return True
    return bool(kind.__flags__ & HEAP_TYPE) and equals_anything(value)


class Nothing:
    """An object that nothing honest equals, lies under, or lies over."""


def equals_anything(value: Any) -> bool:
    """Whether an object agrees with what it cannot know."""
    for other in (Nothing(), 7.25e11, "\x00nothing"):
        with suppress(Exception):
            if value == other:
                return True
        with suppress(Exception):
            if value < other and value > other:
                return True
        with suppress(Exception):
            # As in abs(f(x) - y) < 1e-6.
            if abs(value - other) < 1:
                return True
    return False


# ---- programs and tests --------------------------------------------------------------------------


def compiled(job: Mapping[str, Any]) -> Any:
    """The code of a program and of what stands before it.

    Raises:
        SyntaxError: It has none.
    """
    return compile(job["before"] + job["program"], ANSWER, "exec", dont_inherit=True)


def load(code: Any, name: str) -> dict[str, Any]:
    """Run a program's top level; its names."""
    module = ModuleType(name)
    # Classes look their module up.
    sys.modules[name] = module
    names = vars(module)
    exec(code, names)
    return names


def rewritten(source: str) -> tuple[Any, list[str]]:
    """The code of a test, with assertions that show both sides; and the functions to call."""
    tree = ast.parse(source, TESTS)
    functions = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_test(node.name):
            functions.append(node.name)
    rewrite_asserts(tree, source.encode())
    return compile(tree, TESTS, "exec", dont_inherit=True), functions


def is_test(name: str) -> bool:
    """Whether a function of this name is called as a test."""
    return name in ("check", "test") or name.startswith("test_")


def find_target(names: Mapping[str, Any], entry: str) -> Any:
    """The tested object: a name, or an expression such as `Solution().f`.

    Raises:
        NameError: The program has none.
    """
    if entry in names:
        return names[entry]
    first, _, _ = entry.partition(".")
    if first.partition("(")[0] in names:
        return eval(entry, dict(names))
    raise NameError(f"name {entry!r} is not defined")


def test_names(names: Mapping[str, Any], entry: str, calls: Calls | None) -> dict[str, Any]:
    """The names that a test sees: the program's, but for those that hide a builtin."""
    seen = {}
    for name, value in names.items():
        if name == entry or not hasattr(builtins, name):
            seen[name] = value
    seen["__builtins__"] = builtins
    if calls is not None and entry in names:
        seen[entry] = calls
    return seen


def run_code(test: Mapping[str, Any], seen: dict[str, Any], target: Any) -> None:
    """Run one test: assertions, and the functions `check(candidate)` and `test...` that it defines.

    Raises:
        Exception: Whatever the test or the program raises.
    """
    code, functions = test["compiled"]
    exec(code, seen)
    for name in functions:
        function = seen[name]
        if name == "check":
            function(target)
        else:
            function()


def run_script(code: Any, given: str) -> str:
    """Run a program as a script on an input; what it prints."""
    kept = os.dup(0), os.dup(1)
    streams = sys.stdin, sys.stdout
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as printed:
        source.write(given.encode())
        source.seek(0)
        os.dup2(source.fileno(), 0)
        os.dup2(printed.fileno(), 1)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        for name in ("exit", "quit"):
            setattr(builtins, name, sys.exit)
        try:
            run_to_end(code)
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
            sys.stdin, sys.stdout = streams
            for place, number in enumerate(kept):
                os.dup2(number, place)
                os.close(number)
        printed.seek(0)
        return printed.read().decode(errors="replace")


def run_to_end(code: Any) -> None:
    """Run a script with its threads and what it does at its exit."""
    try:
        load(code, "__main__")
    except SystemExit as error:
        # A script may end itself; with an error it has failed.
        if error.code not in (None, 0):
            raise
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()


# ---- results that are compared outside -----------------------------------------------------------


def output_digest(text: str) -> str:
    """A digest of what a script prints, white space at the ends of lines aside."""
    lines = [line.rstrip() for line in text.rstrip().split("\n")]
    return hashlib.sha256("\n".join(lines).encode(errors="replace")).hexdigest()


def whole_or_float(text: str) -> float | int:
    """A number of JSON, as an integer where it is one."""
    number = float(text)
    if number.is_integer():
        return int(number)
    return number


def value_digest(value: Any) -> str:
    """A digest of a value as JSON; tuples are lists there. "" of what is none."""
    try:
        text = json.dumps(value, sort_keys=True)
        # As Python compares them: 2.0 is 2.
        text = json.dumps(json.loads(text, parse_float=whole_or_float), sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return ""
    return hashlib.sha256(text.encode()).hexdigest()


# ---- a job ---------------------------------------------------------------------------------------


def run_job(job: Mapping[str, Any]) -> Report:
    """Run the tests of a job up to the first that fails.

    Args:
        job: As in the module's table.

    Returns:
        The report. "status" is "passed", "failed" (a test), or "broken" (the program itself).
        "results" has what scripts printed and functions returned, which is not judged here.
    """
    report: Report = {"status": "passed", "passed": 0, "results": []}
    tests = []
    for test in job["tests"]:
        # Before the program, which might change what reads them.
        code = rewritten(test["code"]) if test["kind"] == "code" else None
        tests.append({**test, "compiled": code})
    guard = Guard()
    needs_names = any(test["kind"] != "stdin" for test in tests)
    names: dict[str, Any] = {}
    calls = target = None
    try:
        # Syntax first: a script is not run before its input is there.
        code = compiled(job)
        if needs_names:
            names = load(code, ANSWER)
            target = find_tested(names, job)
    except BaseException as error:
        guard.restore()
        report["status"] = "broken"
        report["error"] = error_words(error)
        report["line"] = error_line(error, job)
        return report
    guard.restore()
    watch = None
    if isinstance(target, type):
        watch = Watch(target)
    elif callable(target):
        calls = Calls(job["entry"], target, guard)
        target = calls
    for test in tests:
        failure = run_test(job, test, code, names, calls, target)
        if not failure and watch is not None and watch.is_made_up:
            failure = {"call": job["entry"], "got": "an object that equals anything"}
        guard.restore()
        if "result" in failure:
            report["results"].append(failure["result"])
        elif failure:
            report["status"] = "failed"
            report["test"] = test["name"]
            return report | failure
        report["passed"] += 1
    return report


def find_tested(names: Mapping[str, Any], job: Mapping[str, Any]) -> Any:
    """The tested object; None where tests name none. Raises NameError where it is missing."""
    entry = job["entry"]
    if not entry:
        return None
    kinds = {test["kind"] for test in job["tests"]}
    if entry not in names and "Solution" in names and "call" in kinds:
        return getattr(names["Solution"](), entry)
    return find_target(names, entry)


def run_test(
    job: Mapping[str, Any],
    test: Mapping[str, Any],
    code: Any,
    names: dict[str, Any],
    calls: Calls | None,
    target: Any,
) -> Report:
    """Run one test; what it saw where it failed, {"result"} of what is judged outside, else {}."""
    if calls is not None:
        calls.words = ""
    comparison = Comparison()
    util._reprcompare = comparison
    try:
        if test["kind"] == "stdin":
            printed = run_script(code, test["input"])
            words = f"input {show(test['input'])}"
            return result_of(words, show(printed), output_digest(printed))
        if test["kind"] == "call":
            value = target(*test["arguments"])
            words = calls.words if calls is not None else job["entry"]
            return result_of(words, show(value), value_digest(value))
        run_code(test, test_names(names, job["entry"], calls), target)
    except AssertionError as error:
        # One of the program's is an error like any other.
        line = error_line(error, job)
        if line is None:
            return failed_assertion(error, test, comparison, calls)
        return raised(error, test, calls, line)
    except BaseException as error:
        return raised(error, test, calls, error_line(error, job))
    if calls is not None and calls.is_made_up:
        return {"call": calls.words, "got": "an object that equals anything"}
    return {}


def result_of(call: str, got: str, digest: str) -> Report:
    """What is judged outside."""
    result = {"call": call, "got": got, "digest": digest}
    return {"result": result}


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
    is_called = calls is not None and bool(calls.words)
    # `assert 8 == f(3)` has its expected side on the left.
    is_swapped = calls is not None and is_called and calls.got == right
    if is_swapped:
        left, right = right, left
    report["got"] = left
    report["expected"] = right
    if calls is not None and is_called and calls.got != left:
        # `assert f(2) + f(3) == 9`: what was compared is no value of the last call.
        report.pop("call", None)
        if assertion is not None and isinstance(assertion.test, ast.Compare):
            report["call"] = cut(ast.unparse(assertion.test.left))
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


def raised(
    error: BaseException, test: Mapping[str, Any], calls: Calls | None, line: int | None
) -> Report:
    """What is told of an exception."""
    assertion = assertion_of(error, test["code"]) if test["kind"] == "code" else None
    report = expectation(assertion, calls)
    report.pop("got", None)
    report["error"] = error_words(error)
    report["line"] = line
    if test["kind"] == "stdin":
        report["call"] = f"input {show(test['input'])}"
    return report
