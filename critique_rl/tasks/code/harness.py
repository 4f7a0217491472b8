"""Run one program and some tests in this process, and say what the first failing test saw.

This file and `comparisons` stand alone: they run inside a sandbox that sees neither this package
nor the rows, and can be sent to a sandbox on another machine, which needs Python 3.11 and pytest.
Assertions are rewritten by pytest, so that both sides of a comparison are seen. Every value is cut
at `SHOWN`.

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
import gc
import hashlib
import io
import json
import math
import os
import secrets
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from _pytest.assertion import util
from _pytest.assertion.rewrite import rewrite_asserts

from critique_rl.tasks.code.comparisons import (
    HEAP_TYPE,
    Comparisons,
    Marker,
    Rewriter,
    is_suspect,
    remember_library,
    root_name,
)

# Functions keep the builtins that their module has when they are made: these, whatever a program
# patches.
globals()["__builtins__"] = dict(vars(builtins))

SHOWN = 200
"""Characters of a value, a call or a message that a report keeps."""
ANSWER = "<answer>"
"""The file name of the program: its lines are those of the attempt's code."""
TESTS = "<tests>"
"""The file name of a test."""
GUARDED = (builtins, math, ast, json, functools)
"""Modules whose names are put back after the program has run, beside those that tests import."""
MADE_UP = "an object that equals anything"
PATCHERS = ("patch", "setattr", "redirect_stdout", "redirect_stderr", "catch_warnings")
"""Names by which tests put something in the place of what a module holds."""
COMMON = ("typing", "collections", "heapq", "bisect", "itertools", "functools")
"""Modules whose names a program with JSON results may use without an import, as on LeetCode."""
STREAMS = ("stdin", "stdout", "__stdin__", "__stdout__")
"""Python holds each twice: a script may put another in the place of one."""
Report = dict[str, Any]


class Calls:
    """The last call of the tested function that a test made, and what came of it."""

    def __init__(self, name: str, function: Callable[..., Any], guard: Guard):
        self.name = name
        self.function = function
        self.guard = guard
        self.restores = True
        """Whether patched names are put back after each call."""
        self.named: list[type] = []
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
            if self.restores:
                self.guard.restore()
        self.got = show(result)
        if is_suspect(result, self.named):
            self.is_made_up = True
        return result

    def begin(self, test: Test, named: list[type]) -> None:
        """Forget the last test's calls."""
        self.words = ""
        self.restores = not test.patches
        self.named = named

    def as_target(self) -> Any:
        """What tests call: a function, where the program has one."""
        # Tests may ask for its name, its signature, or what is stored on it.
        if not isinstance(self.function, FunctionType):
            return functools.update_wrapper(self, self.function)

        @functools.wraps(self.function)
        def call(*arguments: Any, **named: Any) -> Any:
            return self(*arguments, **named)

        return call


class Comparison:
    """The two sides of the comparison that failed last."""

    def __init__(self) -> None:
        self.sides: tuple[str, str, str] | None = None

    def __call__(self, operator: str, left: Any, right: Any) -> None:
        self.sides = operator, show(left), show(right)


class Guard:
    """What some modules, and their classes, held before the program ran.

    Args:
        modules: Names of those that tests import.
    """

    def __init__(self, modules: Iterable[str] = ()) -> None:
        self.builtins = dict(vars(builtins))
        """What tests see, whatever is patched."""
        self.modules = {name: sys.modules[name] for name in modules if name in sys.modules}
        self.names = []
        for module in {*GUARDED, *self.modules.values()}:
            names = vars(module)
            self.names.append((names, dict(names)))
        self.classes = []
        for module in self.modules.values():
            for kind in list(vars(module).values()):
                if isinstance(kind, type) and kind.__flags__ & HEAP_TYPE:
                    self.classes.append((kind, dict(vars(kind))))

    def restore(self) -> None:
        """Put the names back."""
        sys.modules.update(self.modules)
        for names, kept in self.names:
            names.update(kept)
        for kind, kept in self.classes:
            restore_class(kind, kept)


def restore_class(kind: type, kept: Mapping[str, Any]) -> None:
    """Give a class its own methods back, and take away those that Python would look for."""
    for name, value in list(vars(kind).items()):
        if value is kept.get(name):
            continue
        # Of an immutable class nothing was changed.
        with suppress(TypeError, AttributeError):
            if name in kept:
                setattr(kind, name, kept[name])
            elif name.startswith("__"):
                delattr(kind, name)


@dataclass(frozen=True)
class Given:
    """What the tests of a job import, and what its code before the program does."""

    names: dict[str, Any]
    """What the code before the program imports."""
    modules: set[str]


@dataclass(frozen=True)
class Test:
    """One test of a job, read before the program runs."""

    fields: Mapping[str, Any]
    """As the job has it."""
    code: Any = None
    functions: tuple[str, ...] = ()
    """The functions to call."""
    names: frozenset[str] = frozenset()
    """Names in its source."""
    patches: bool = False
    """Whether it puts something in the place of what a module holds."""


@dataclass(frozen=True)
class Program:
    """A program whose top level has run, and what its tests need."""

    code: Any
    names: dict[str, Any]
    entry: str
    target: Any
    """The tested object; None where tests name none."""
    calls: Calls | None
    given: Given
    guard: Guard

    def named_classes(self, names: frozenset[str]) -> list[type]:
        """The classes of the program that a test names; LeetCode's holds methods alone."""
        kinds = []
        for name in names - {"Solution"}:
            value = self.names.get(name)
            if isinstance(value, type):
                kinds.append(value)
        return kinds


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
        return cut(repr(shortened(value)))
    except Exception:
        return f"<{type(value).__name__}>"


def shortened(value: Any, room: list[int] | None = None) -> Any:
    """As much of a large value as is shown: to write a million items takes a second.

    Args:
        value: Any value.
        room: Items that may still be shown, one number. Each takes a character at least.
    """
    room = [SHOWN] if room is None else room
    room[0] -= 1
    kind = type(value)
    if kind in (str, bytes):
        return value[: SHOWN + 1]
    if kind not in (list, tuple, dict):
        return value
    items = []
    for item in value.items() if kind is dict else value:
        if room[0] <= 0:
            break
        items.append(shortened(item, room))
    return kind(items)


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


# ---- programs and tests --------------------------------------------------------------------------


def compiled(job: Mapping[str, Any]) -> Any:
    """The code of a program and of what stands before it.

    Raises:
        SyntaxError: It has none.
    """
    return compile(job["before"] + job["program"], ANSWER, "exec", dont_inherit=True)


def load(code: Any, name: str, are_common: bool = False) -> dict[str, Any]:
    """Run a program's top level; its names.

    Args:
        code: A compiled program.
        name: The module that it is run as.
        are_common: Whether the names of `COMMON` are there without an import.
    """
    module = ModuleType(name)
    # Classes look their module up.
    sys.modules[name] = module
    names = vars(module)
    # Not this module's copy: a test may patch what the program calls.
    names["__builtins__"] = builtins
    if are_common:
        names["__builtins__"] = common_names() | vars(builtins)
    exec(code, names)
    return names


@functools.cache
def common_names() -> dict[str, Any]:
    """The modules of `COMMON`, and their public names."""
    names: dict[str, Any] = {}
    for place in COMMON:
        exec(f"import {place}\nfrom {place} import *", names)
    return names


def given_names(job: Mapping[str, Any]) -> Given:
    """Run the imports of a job's tests, and of the code that stands before its program."""
    given = Given({}, set())
    before = job["before"]
    for source in [before, *[test["code"] for test in job["tests"] if test["kind"] == "code"]]:
        if "import" not in source:
            continue
        for node in import_statements(source):
            names: dict[str, Any] = {}
            # The test itself meets a module that is missing once more.
            with suppress(Exception):
                module = ast.Module([node], [])
                exec(compile(module, TESTS, "exec", dont_inherit=True), names)
            names.pop("__builtins__", None)
            given.modules.update(module_names(node))
            if source is before:
                given.names.update(names)
    return given


def import_statements(source: str) -> list[ast.Import | ast.ImportFrom]:
    """The imports in a source, of which the last function may lack its body."""
    for ending in ("", "\n    pass", "\n        pass"):
        with suppress(SyntaxError, ValueError):
            nodes = ast.walk(ast.parse(source + ending))
            return [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    return []


def module_names(node: ast.Import | ast.ImportFrom) -> list[str]:
    """The modules that a statement imports, with the packages in which they lie."""
    places = [str(node.module)] if isinstance(node, ast.ImportFrom) else []
    if isinstance(node, ast.Import):
        places = [alias.name for alias in node.names]
    names = []
    for place in places:
        parts = place.split(".")
        for end in range(1, len(parts) + 1):
            names.append(".".join(parts[:end]))
    return names


def read_test(fields: Mapping[str, Any]) -> Test:
    """A test with its code, in which assertions show both sides, and comparisons are judged."""
    if fields["kind"] != "code":
        return Test(fields)
    source = fields["code"]
    tree = ast.parse(source, TESTS)
    functions = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_test(node.name):
            functions.append(node.name)
    names = set()
    imported = set()
    for part in ast.walk(tree):
        if isinstance(part, ast.Name):
            names.add(part.id)
        if isinstance(part, ast.alias):
            imported.add((part.asname or part.name).partition(".")[0])
    patches = any(is_patch(part, imported) for part in ast.walk(tree))
    tree = ast.fix_missing_locations(Marker(imported).visit(tree))
    rewrite_asserts(tree, source.encode())
    tree = Rewriter().visit(tree)
    code = compile(tree, TESTS, "exec", dont_inherit=True)
    return Test(fields, code, tuple(functions), frozenset(names), patches)


def is_patch(node: ast.AST, imported: set[str]) -> bool:
    """Whether a node of a test puts something in the place of what a module holds."""
    if isinstance(node, ast.Attribute):
        is_store = isinstance(node.ctx, ast.Store)
        return node.attr in PATCHERS or (is_store and root_name(node) in imported)
    return isinstance(node, ast.Name) and node.id in PATCHERS


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


def test_names(program: Program) -> dict[str, Any]:
    """The names that a test sees: the program's, but for those that hide a builtin or an import."""
    seen = {}
    for name, value in program.names.items():
        if name == program.entry or name not in program.guard.builtins:
            seen[name] = value
    for name, value in program.given.names.items():
        if name != program.entry:
            seen[name] = value
    # A copy: the program may patch the module while the test runs.
    seen["__builtins__"] = dict(program.guard.builtins)
    if program.calls is not None and program.entry in program.names:
        seen[program.entry] = program.target
    return seen


def run_code(test: Test, seen: dict[str, Any], target: Any) -> None:
    """Run one test: assertions, and the functions `check(candidate)` and `test...` that it defines.

    Raises:
        Exception: Whatever the test or the program raises.
    """
    exec(test.code, seen)
    for name in test.functions:
        function = seen[name]
        if name == "check":
            function(target)
        else:
            function()


def run_script(code: Any, given: str) -> str:
    """Run a program as a script on an input; what it prints."""
    kept = os.dup(0), os.dup(1)
    kept_streams = {name: getattr(sys, name) for name in STREAMS}
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as printed:
        source.write(given.encode())
        source.seek(0)
        os.dup2(source.fileno(), 0)
        os.dup2(printed.fileno(), 1)
        streams = [open(0, closefd=False), open(1, "w", closefd=False)]  # noqa: SIM115
        for name, stream in zip(STREAMS, [*streams, *streams], strict=True):
            setattr(sys, name, stream)
        for name in ("exit", "quit"):
            setattr(builtins, name, sys.exit)
        try:
            run_to_end(code)
        finally:
            flush_all()
            for name, stream in kept_streams.items():
                setattr(sys, name, stream)
            for place, number in enumerate(kept):
                os.dup2(number, place)
                os.close(number)
        printed.seek(0)
        return printed.read().decode(errors="replace")


def flush_all() -> None:
    """Write out what any handle still keeps, as the end of a process does."""
    for item in [sys.stdout, *gc.get_objects()]:
        if issubclass(type(item), io.IOBase):
            # Closed, not to be written to, or one whose own flush fails.
            with suppress(Exception):
                item.flush()


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
    # Before the program, which might change what reads them.
    remember_library()
    tests = [read_test(fields) for fields in job["tests"]]
    given = given_names(job)
    guard = Guard(given.modules)
    try:
        program = read_program(job, given, guard)
    except BaseException as error:
        guard.restore()
        report["status"] = "broken"
        report["error"] = error_words(error)
        report["line"] = error_line(error, job)
        return report
    guard.restore()
    for test in tests:
        failure = run_test(job, test, program)
        guard.restore()
        if "result" in failure:
            report["results"].append(failure["result"])
        elif failure:
            report["status"] = "failed"
            report["test"] = test.fields["name"]
            return report | failure
        report["passed"] += 1
    return report


def read_program(job: Mapping[str, Any], given: Given, guard: Guard) -> Program:
    """Run the top level of a job's program, unless it is a script.

    Raises:
        SyntaxError: It is no Python.
        BaseException: What it raises itself.
    """
    # Syntax first: a script is not run before its input is there.
    code = compiled(job)
    kinds = {test["kind"] for test in job["tests"]}
    if kinds == {"stdin"}:
        return Program(code, {}, "", None, None, given, guard)
    names = load(code, ANSWER, "call" in kinds)
    target = find_tested(names, job)
    calls = None
    if callable(target) and not isinstance(target, type):
        calls = Calls(job["entry"], target, guard)
        target = calls.as_target()
    return Program(code, names, job["entry"], target, calls, given, guard)


def find_tested(names: Mapping[str, Any], job: Mapping[str, Any]) -> Any:
    """The tested object; None where tests name none. Raises NameError where it is missing."""
    entry = job["entry"]
    if not entry:
        return None
    kinds = {test["kind"] for test in job["tests"]}
    if entry not in names and "Solution" in names and "call" in kinds:
        return getattr(names["Solution"](), entry)
    return find_target(names, entry)


def run_test(job: Mapping[str, Any], test: Test, program: Program) -> Report:
    """Run one test; what it saw where it failed, {"result"} of what is judged outside, else {}."""
    calls = program.calls
    fields = test.fields
    # No program can know the module of the classes that a test defines.
    module = f"{TESTS} {secrets.token_hex(8)}"
    named = program.named_classes(test.names)
    if calls is not None:
        calls.begin(test, named)
    sides = Comparison()
    util._reprcompare = sides
    restore = None if test.patches else program.guard.restore
    comparisons = Comparisons(named, module, restore)
    failure: Report = {}
    try:
        if fields["kind"] == "stdin":
            printed = run_script(program.code, fields["input"])
            words = f"input {show(fields['input'])}"
            return result_of(words, show(printed), output_digest(printed))
        if fields["kind"] == "call":
            value = program.target(*fields["arguments"])
            words = calls.words if calls is not None else job["entry"]
            return result_of(words, show(value), value_digest(value))
        seen = test_names(program) | comparisons.names()
        seen["__builtins__"] |= comparisons.builtins()
        seen["__name__"] = module
        run_code(test, seen, program.target)
    except AssertionError as error:
        # One of the program's is an error like any other.
        line = error_line(error, job)
        failure = raised(error, fields, calls, line)
        if line is None:
            failure = failed_assertion(error, fields, sides, calls)
    except BaseException as error:
        failure = raised(error, fields, calls, error_line(error, job))
    if comparisons.is_made_up or (calls is not None and calls.is_made_up and not failure):
        call = calls.words if calls is not None else ""
        return {
            "call": call or failure.get("call") or job["entry"] or "the program",
            "got": MADE_UP,
        }
    return failure


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
    compared = assertion.test if assertion is not None else None
    if isinstance(compared, ast.Compare) and is_swapped(compared):
        left, right = right, left
        compared = ast.Compare(compared.comparators[0], compared.ops, [compared.left])
    report["got"] = left
    report["expected"] = right
    if "call" in report and calls is not None and calls.words and calls.got != left:
        # `assert f(2) + f(3) == 9`: what was compared is no value of the last call.
        report.pop("call")
    if "call" not in report and isinstance(compared, ast.Compare):
        report["call"] = cut(ast.unparse(compared.left))
    return report


def is_swapped(compared: ast.Compare) -> bool:
    """Whether the expected side is on the left, as in `assert 8 == f(3)`."""
    return is_literal(compared.left) and not is_literal(compared.comparators[0])


def is_literal(node: ast.expr) -> bool:
    """Whether an expression of a test is a value, in which nothing is called or looked up."""
    return not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node))


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
