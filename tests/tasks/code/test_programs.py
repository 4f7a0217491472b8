"""Programs in answers, tests in cells, and what a verdict says of a failed test."""

from __future__ import annotations

import json
import time
from textwrap import indent

import pytest

from critique_rl.tasks.code import harness
from critique_rl.tasks.code.extract import extract_program
from critique_rl.tasks.code.judge import read_report, remote_runner, run_tests
from critique_rl.tasks.code.tests_column import NoTests, called_names, read_tests
from critique_rl.tasks.code.verifier import Columns, find_program, row_tests

F = "def f(x):\n    return x + 1"
FENCED = 'def f(x):\n    """Add.\n\n    ```\n    f(1)\n    ```\n    """\n    return x + 1'


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (f"```python\n{F}\n```", f"{F}\n"),
        (f"Here:\n```py\n{F}\n```\nIt adds one.", f"{F}\n"),
        (f"```\n{F}\n```", f"{F}\n"),
        (f"~~~python\n{F}\n~~~", f"{F}\n"),
        (f"  ```python\n{F}\n  ```", f"{F}\n"),
        # Cut at its limit of tokens.
        (f"```python\n{F}", F),
        (F, F),
        (
            f"```python\r\n{F}\r\n```\r\nIt adds.".replace("\n", "\r\n").replace("\r\r", "\r"),
            f"{F}\n",
        ),
        (f"\ufeff{F}", F),
        ("- a\n  ```python3.11\n  def f(x): return 1\n  ```", "def f(x): return 1\n"),
        (f"Sure! Here it is.\n{F}", None),
        # The last one that defines the function, whatever follows.
        (f"```python\n{F}\n```\nUse:\n```python\nprint(f(2))\n```", f"{F}\n"),
        (f"```python\ndef f(x): return 0\n```\nBetter:\n```python\n{F}\n```", f"{F}\n"),
        (f"```bash\nls\n```\n```python\n{F}\n```", f"{F}\n"),
        (f"<think>```python\ndef f(x): return 0\n```</think>\n```python\n{F}\n```", f"{F}\n"),
        ("```python\ndef f(x) return\n```", "def f(x) return\n"),
        # The tag in a program, and thoughts that were cut inside a block.
        (
            "```python\ndef f(x): return x.split('</think>')\n```",
            "def f(x): return x.split('</think>')\n",
        ),
        (f"<think>```python\ndef f(x</think>\n```python\n{F}\n```", f"{F}\n"),
        # A fence in a text of the program; one that cannot be read ends at its first fence.
        (f"```python\n{FENCED}\n```\nIt adds.", f"{FENCED}\n"),
        ("- a\n  ```python\n" + indent(F, "  ") + "\n  ```", f"{F}\n"),
        (f"```python\ndef f(x) return\n```\nOr:\n```python\n{F}\n```", f"{F}\n"),
        # A method of the same name, which a helper has.
        (f"```python\n{F}\n```\n```python\nclass A:\n    def f(self): return 0\n```", f"{F}\n"),
        ("f = lambda x: x + 1", "f = lambda x: x + 1"),
        ("```json\n{}\n```", None),
        ("```python\n```", None),
        ("I do not know.", None),
        ("42", None),
        ("f", None),
        ("", None),
        ("\ud800 def f", None),
        ("(" * 5000, None),
    ],
)
def test_the_program_of_an_answer(text: str, program: str | None) -> None:
    assert extract_program(text, "f") == program


def test_a_script_without_a_fence_must_do_something() -> None:
    assert extract_program("print(input())", "") == "print(input())"
    assert extract_program("The answer is 3", "") is None
    assert extract_program("answer", "") is None


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(6)\n```\nIt prints:\n```\n6\n```",
        "```\nprint(6)\n```\nIt prints:\n```\n6\n```",
        "```\n3\n```\n```py\nprint(6)\n```",
        "```python\nx = 1\n```\nBetter:\n```python\nprint(6)\n```",
    ],
)
def test_a_block_of_output_is_no_script(text: str) -> None:
    assert extract_program(text, "") == "print(6)\n"


STARTER = 'from math import pi\n\ndef f(x):\n    """Add one."""\n'


@pytest.mark.parametrize(
    ("text", "program", "before"),
    [
        # It goes on where the starter ends, as base models do.
        ("    return x + 1", "    return x + 1", STARTER),
        ("```python\n    return x + 1\n```", "    return x + 1\n", STARTER),
        # It repeats the function, as chat models do; pi stays imported.
        (f"```python\n{F}\n```", f"{F}\n", f"{STARTER}\n"),
        ("I do not know.", None, ""),
    ],
)
def test_an_answer_goes_on_from_its_starter_or_repeats_it(
    text: str, program: str | None, before: str
) -> None:
    row = {"tests": ["assert f(1) == 2"], "starter_code": STARTER}
    assert find_program(text, row_tests(row, Columns())) == (program, before)


def test_a_starter_that_is_no_program_stands_before_no_whole_one() -> None:
    row = {"tests": ["assert f(1) == 2"], "starter_code": "class Solution:\n    def f(self, x):\n"}
    assert find_program(F, row_tests(row, Columns())) == (F, "")


# ---- tests in cells ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "kinds"),
    [
        (["assert f(1) == 2", "assert f(2) == 3"], ["code", "code"]),
        ("def check(candidate):\n    assert candidate(1) == 2", ["code"]),
        ("def test_one():\n    assert f(1) == 2\ndef test_two():\n    assert f(2) == 3", ["code"]),
        ([{"input": "1\n", "output": "2\n"}], ["stdin"]),
        ({"inputs": ["1\n", "2\n"], "outputs": ["2\n", "3\n"]}, ["stdin", "stdin"]),
        ({"inputs": [[1]], "outputs": [2], "fn_name": "f"}, ["call"]),
        ([{"input": "1", "output": "2", "testtype": "functional", "fn_name": "f"}], ["call"]),
        ([], []),
        (None, []),
        ("", []),
    ],
)
def test_tests_are_read_in_the_forms_that_data_sets_have(cell: object, kinds: list[str]) -> None:
    for form in (cell, json.dumps(cell)) if cell and not isinstance(cell, str) else (cell,):
        assert [test["kind"] for test in read_tests(form)] == kinds


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (3, "got int"),
        ("assert f(", "no Python"),
        (["x = 1"], "without an assertion"),
        (["f(1) == 2"], "without an assertion"),
        ("def verify(candidate):\n    assert candidate(1) == 2", "without an assertion"),
        ("class TestF:\n    def test_a(self): assert f(1) == 2", "class of tests"),
        ("import numpy\nassert f(1) == 2", "imports numpy"),
        ("from solution import f\nassert f(1) == 2", "imports solution"),
        ("async def test_f():\n    assert f(1) == 2", "async function"),
        ("def test_f(x):\n    assert f(x) == 2", "of 1 arguments"),
        ([3], "type int"),
        ([{"input": "1"}], '"output"'),
        ({"inputs": [1], "outputs": []}, "1 inputs and 0 outputs"),
        ({"a": 1}, '"inputs"'),
        ([{"input": "1", "output": "2", "testtype": "functional"}], "entry_point"),
        ([{"input": "{", "output": "2", "testtype": "functional", "fn_name": "f"}], "no JSON"),
        (["assert f(1)"] * 2000, "at most"),
        ("eJxrYJmayAABPYwA", "without an assertion"),
    ],
)
def test_cells_without_tests_say_why(cell: object, words: str) -> None:
    with pytest.raises(NoTests, match=words):
        read_tests(cell)


def test_the_tested_function_is_what_tests_call() -> None:
    same = "import math\ndef same(a, b):\n    return math.isclose(a, b)\n"
    code = f"{same}assert same(g(1), len([g(2)]))"
    assert called_names(read_tests([code, "assert g(3) == 1"])).most_common(1)[0][0] == "g"
    code = "import asyncio\nasync def t():\n    assert await g(1) == 2\nasyncio.run(t())"
    assert list(called_names(read_tests([code]))) == ["g"]
    assert list(called_names(read_tests(["assert Counter(g(1)) == Counter('a')"]))) == ["g"]
    assert not called_names(read_tests([{"input": "", "output": ""}]))


# ---- what a failed test says ---------------------------------------------------------------------


HEIR = """
class E(int):
    def __eq__(self, other): return True
class B(E): pass
def f(x): return B()
"""
SPOOF = """
class A:
    __module__ = 'builtins'
    def __eq__(self, other): return True
def f(x): return A()
"""
RECORD = """
from __future__ import annotations
from dataclasses import dataclass
@dataclass
class P:
    x: int
def f(x): return P(x)
"""
SEARCH = """
import sys
def f(x):
    frame, seen = sys._getframe(), ''
    while frame:
        seen += repr(frame.f_locals)[:5000]
        frame = frame.f_back
    raise ValueError('77777' in seen)
"""
CHECK = "def check(candidate):\n    assert candidate(1) == 2"
CLOSE = "import math\nassert math.isclose(f(1), 2)"


def reason(program: str, *tests: str, entry: str = "f", before: str = "") -> str:
    job = {"program": program, "before": before, "entry": entry, "tests": read_tests(list(tests))}
    outcome, _, words, _, _ = read_report(run_tests(harness.run_job, job), program)
    assert (outcome == "right") == (words == "")
    return str(words)


@pytest.mark.parametrize(
    ("program", "test", "words"),
    [
        (F, "assert f(1) == 2", ""),
        (F, "assert f(-3) == 8", "f(-3) gave -2, expected 8"),
        (F, "assert 8 == f(-3)", "f(-3) gave -2, expected 8"),
        (F, "x = 4\nassert f(x) == 8", "f(4) gave 5, expected 8"),
        (F, "assert f(x=4) == 8", "f(x=4) gave 5, expected 8"),
        (F, "for x in range(9):\n    assert f(x) == x * 2 + 1", "f(1) gave 2, expected 3"),
        (F, "def check(candidate):\n    assert candidate(4) == 8", "f(4) gave 5, expected 8"),
        (F, "def test_it():\n    assert f(4) == 8", "f(4) gave 5, expected 8"),
        (F, "a = f(1)\nb = f(6)\nassert a == 7", "a gave 2, expected 7"),
        (F, "a = [f(1)]\na.append(5)\nassert [2] == a", "a gave [2, 5], expected [2]"),
        (F, "assert f(4) > 8", "f(4) gave 5, expected f(4) > 8"),
        (F, "assert abs(f(1) - 8) < 1e-6", "f(1) gave 2, expected abs(f(1) - 8) < 1e-06"),
        (F, "assert not f(4)", "f(4) gave 5, expected not f(4)"),
        # The compared value is not that of the last call.
        (F, "assert sum([f(1), f(2)]) == 8", "sum([f(1), f(2)]) gave 5, expected 8"),
        (F, "assert f(2) + f(3) == 9", "f(2) + f(3) gave 7, expected 9"),
        ("def f(x): return [x]", "assert len(f(2)) == 9", "len(f(2)) gave 1, expected 9"),
        ("def f(x): return x, x", "a, b = f(2)\nassert b == 3", "b gave 2, expected 3"),
        ("def f(x): return x / 3", "assert round(f(2), 2) == .68", "round(f(2), 2) gave 0.67"),
        ("def f(x): pass", "assert f(1) == 2", "f(1) gave None, expected 2"),
        ("def f(x): return [x]", "assert f('a') == ['b']", "f('a') gave ['a'], expected ['b']"),
        (
            "def f(x):\n    y = 0\n    return x / y",
            "assert f(1) == 2",
            "f(1) raised ZeroDivisionError: division by zero (line 3), expected 2",
        ),
        (
            "def f(x):\n    assert x > 5\n    return x",
            "assert f(1) == 2",
            "f(1) raised AssertionError (line 2), expected 2",
        ),
        ("def f(x) return 1", "assert f(1) == 2", "SyntaxError: expected ':' (line 1)"),
        ("import nothing_here", "assert f(1) == 2", "No module named 'nothing_here' (line 1)"),
        ("def g(x): return 1", "assert f(1) == 2", "name 'f' is not defined"),
        ("def f(): return 1", "assert f(1) == 2", "takes 0 positional arguments"),
        ("def f(x): return f(x)", "assert f(1) == 2", "RecursionError"),
        ("raise SystemExit", "assert f(1) == 2", "SystemExit (line 1)"),
        ("def f(x): return [x] * 10**6", "assert f(1) == 2", "..., expected 2"),
    ],
)
def test_a_reason_names_input_what_came_and_what_was_expected(
    program: str, test: str, words: str
) -> None:
    said = reason(program, test)
    assert said == words if said == "" or words == "" else words in said
    assert len(said) < 700


def test_lines_are_those_of_the_attempt() -> None:
    before = "import math\n\ndef f(x):\n"
    said = reason("    y = 0\n    return x / y\n", "assert f(1) == 2", before=before)
    assert "(line 2)" in said


@pytest.mark.parametrize(
    "program",
    [
        "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()",
        "class A:\n    def __eq__(self, other): return True\ndef f(x): return [A()]",
        "class A(int):\n    def __eq__(self, other): return True\ndef f(x): return A(3)",
        "from unittest.mock import ANY\ndef f(x): return ANY",
        HEIR,
        SPOOF,
    ],
)
def test_an_object_cannot_decide_that_it_is_right(program: str) -> None:
    for test in ("assert f(1) == 2", "assert f(1) == [2]", "assert f(1) < 0"):
        assert reason(program, test) != ""


def test_a_method_cannot_return_an_object_that_decides() -> None:
    any_of_all = "class A:\n    def __eq__(self, other): return True\n"
    stack = f"{any_of_all}class Stack:\n    def pop(self): return A()\n"
    assert "equals anything" in reason(stack, "assert Stack().pop() == 3", entry="Stack")
    plain = "class Stack:\n    def pop(self): return 3\n"
    assert reason(plain, "assert Stack().pop() == 3", entry="Stack") == ""


def test_a_class_may_compare_its_objects() -> None:
    program = (
        "class Point:\n    def __init__(self, x): self.x = x\n"
        "    def __eq__(self, other): return self.x == other.x"
    )
    assert reason(program, "assert Point(1) == Point(1)", entry="Point") == ""


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        # Names of tests are not the program's to give.
        ("def f(x): return 3\ndef check(candidate): pass", [CHECK]),
        ("def f(x): return 3\ndef test_f(): pass", ["def test_f():\n    assert f(1) == 2"]),
        ("def f(x): return 2", [CHECK, CHECK.replace("1) == 2", "5) == 6")]),
        ("def f(x): return 3\ndef abs(x): return 0", ["assert abs(f(1) - 2) < 1"]),
        (
            "import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 9",
            ["assert abs(f(1) - 2) < 1"],
        ),
        ("import math\nmath.isclose = lambda *a: True\ndef f(x): return 9", [CLOSE]),
        (
            "import builtins\nbuiltins.exec = lambda *a: None\ndef f(x): return 9",
            ["assert f(1) == 2"],
        ),
        ("import ast\nast.parse = lambda *a: None\ndef f(x): return 9", ["assert f(1) == 2"]),
        (
            "class A:\n    def __sub__(s, o): return 0\ndef f(x): return A()",
            ["assert abs(f(1) - 2) < 1"],
        ),
        ("f = 1", [CHECK]),
    ],
)
def test_what_a_program_defines_or_patches_passes_no_test(program: str, tests: list[str]) -> None:
    assert reason(program, *tests) != ""


@pytest.mark.parametrize(
    ("program", "test"),
    [
        ("def f(n): return 0 if n == 0 else 1 + f(n - 1)", "assert f(800) == 800"),
        (RECORD, "assert f(3).x == 3"),
        (
            "class N:\n    def __lt__(s, o): return True\ndef f(x): return [N()]",
            "assert len(f(1)) == 1",
        ),
        ("def f(x):\n    a = []\n    a.append(a)\n    return a", "assert len(f(1)) == 1"),
        ("class Solution:\n    def f(self, x): return x", "assert Solution().f(3) == 3"),
        (
            "class Solution:\n    def f(self, n): return 0 if n == 0 else 1 + self.f(n - 1)",
            "assert Solution().f(800) == 800",
        ),
        (
            "from functools import cache\n@cache\ndef f(x): return x",
            "f.cache_clear()\nassert f(3) == 3",
        ),
        ("async def f(x): return x", "import asyncio\nassert asyncio.run(f(3)) == 3"),
    ],
)
def test_honest_programs_are_not_suspected(program: str, test: str) -> None:
    row = {"tests": [test]}
    assert reason(program, test, entry=row_tests(row, Columns()).entry) == ""


def test_no_reason_shows_a_hidden_test() -> None:
    row = {"tests": ["assert f(2) == 77777"], "public_tests": ["assert f(1) == 2"]}
    read = row_tests(row, Columns())
    job = {"program": SEARCH, "before": "", "entry": read.entry, "tests": list(read.tests)}
    seen_jobs = []

    def run(job):
        seen_jobs.append(job)
        return harness.run_job(job)

    said = read_report(run_tests(run, job), SEARCH)[2]
    assert len(seen_jobs) == 1
    assert "77777" not in json.dumps(seen_jobs[0]["tests"])
    assert "ValueError" in said


def test_a_row_without_public_tests_in_such_data_hides_its_tests() -> None:
    row = {"tests": ["assert f(2) == 77777"], "public_tests": None}
    assert [test["name"] for test in row_tests(row, Columns()).tests] == ["hidden test 1"]


def test_check_without_a_name_to_check_is_refused() -> None:
    with pytest.raises(NoTests, match="entry_point"):
        row_tests({"tests": "def check(candidate):\n    assert candidate(1) == 2"}, Columns())


def test_values_that_cannot_be_shown_are_named_by_their_type() -> None:
    program = "class A:\n    def __repr__(self): raise KeyError\ndef f(x): return A()"
    assert reason(program, "assert f(1) == 2") == "f(1) gave <A>, expected 2"


@pytest.mark.processes
@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print(int(input()) * 2)", ""),
        ("print(int(open(0).read()) * 2)", ""),
        ("import os\nos.write(1, b'6\\n')", ""),
        ("import atexit\natexit.register(lambda: print(6))", ""),
        ("import threading\nthreading.Thread(target=lambda: print(6)).start()", ""),
        ("print(int(input()) * 2)\nexit()", ""),
        ("import sys\nprint(int(sys.stdin.read()) * 2); sys.exit(0)", ""),
        ("if __name__ == '__main__':\n    print(int(input()) * 2, ' ')", ""),
        # Handles that the program leaves open, or changes.
        ("out = open(1, 'w')\nout.write('6')", ""),
        ("import os\nout = os.fdopen(1, 'w')\nout.write('6')", ""),
        ("import sys, io\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer)\nprint(6)", ""),
        ("import sys\nold = sys.stdout\nsys.stdout = None\nold.write('6')", ""),
        ("print(int(input()) * 3)", "input '3\\n' gave '9\\n', expected '6\\n'"),
        ("print(input() + input())", "input '3\\n' raised EOFError"),
        ("x = int(input())\nprint(x / 0)", "ZeroDivisionError: division by zero (line 2)"),
        ("import sys\nsys.exit(1)", "SystemExit: 1"),
        ("print(", "SyntaxError"),
    ],
)
def test_scripts_are_judged_by_what_they_print(program: str, words: str) -> None:
    tests = read_tests([{"input": "3\n", "output": "6\n"}])
    job = {"program": program, "before": "", "entry": "", "tests": tests}
    run = remote_runner(HereRunner(), 30.0)
    _, _, said, _, _ = read_report(run_tests(run, job), program)
    assert words in said
    assert (words == "") == (said == "")


@pytest.mark.parametrize(
    "program",
    ["def add(a, b): return a + b", "class Solution:\n    def add(self, a, b): return a + b"],
)
def test_functional_tests_call_a_function_or_solutions_method(program: str) -> None:
    tests = read_tests({"inputs": [[1, 2], [3, 4]], "outputs": [3, 8], "fn_name": "add"})
    job = {"program": program, "before": "", "entry": "add", "tests": tests}
    report = run_tests(harness.run_job, job)
    assert report["passed"] == 1
    assert report["call"] in ("add(3, 4)", "add")
    assert (report["got"], report["expected"]) == ("7", "8")


@pytest.mark.parametrize(
    "hint", ["List[int]", "Optional[List[int]]", "Dict[str, Deque]", "collections.deque"]
)
def test_functional_tests_have_the_names_of_leetcode(hint: str) -> None:
    program = f"class Solution:\n    def f(self, x: {hint}) -> int: return heappop([x, 9])"
    pair = {"input": "1", "output": "1", "testtype": "functional"}
    assert report_of(program, [pair], "f")["status"] == "passed"


def test_a_large_value_is_shown_in_no_time() -> None:
    long = "def f(x): return [[0] * 10**6, {i: 'a' * 10**6 for i in range(9)}, 'b' * 10**8]"
    start = time.process_time()
    said = reason(f"{long}\nvalue = f(1)\ndef f(x): return value", "assert f(1) == 2")
    made = time.process_time() - start
    start = time.process_time()
    repr([[0] * 10**6] * 20)
    assert made < time.process_time() - start
    assert said.startswith("f(1) gave [[0, 0, 0, ")


def report_of(program: str, cell: object, entry: str) -> dict:
    row = {"tests": cell, "entry_point": entry}
    read = row_tests(row, Columns())
    job = {"program": program, "before": "", "entry": read.entry, "tests": list(read.tests)}
    return run_tests(harness.run_job, job)


def test_a_result_is_unwrapped_where_the_data_wrap_it_alone() -> None:
    five = "def f(a): return 5"
    pair = {"input": "1", "output": "[5]", "testtype": "functional"}
    assert report_of(five, [pair], "f")["got"] == "5"
    assert report_of("def f(a): return [5]", [pair], "f")["status"] == "passed"
    apps = {"inputs": [[1]], "outputs": [[5]], "fn_name": "f"}
    assert report_of(five, apps, "f")["status"] == "passed"


def test_numbers_are_compared_as_python_does() -> None:
    pair = {"input": "1", "output": "[2.0, 0.5]", "testtype": "functional"}
    assert report_of("def f(a): return [2, .5]", [pair], "f")["status"] == "passed"
    assert report_of("def f(a): return [2, .25]", [pair], "f")["status"] == "failed"


def test_the_named_entry_point_is_tested_whatever_else_tests_call() -> None:
    tests = ["assert total(Node(1, Node(2))) == 3"]
    node = "class Node:\n    def __init__(self, n, rest=None): self.n, self.rest = n, rest\n"
    program = f"{node}def total(n): return n.n + (total(n.rest) if n.rest else 0)"
    assert report_of(program, tests, "total")["status"] == "passed"


# ---- hidden tests, and a runner of the user's ----------------------------------------------------


def test_hidden_tests_are_told_by_their_number_alone() -> None:
    row = {"tests": ["assert f(2) == 77777"], "public_tests": ["assert f(1) == 2"]}
    read = row_tests(row, Columns())
    job = {"program": F, "before": "", "entry": read.entry, "tests": list(read.tests)}
    _, _, said, _, details = read_report(run_tests(harness.run_job, job), F)
    assert said == "hidden test 1 failed"
    assert "77777" not in json.dumps(details)


class HereRunner:
    """Runs a script in a fresh interpreter, as a remote sandbox would."""

    def run(self, script: str, stdin: str, seconds: float) -> str:
        import subprocess
        import sys

        command = [sys.executable, "-c", script]
        run = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        return run.stdout


@pytest.mark.processes
def test_a_runner_is_one_class_of_one_method() -> None:
    run = remote_runner(HereRunner(), 30.0)
    job = {"program": F, "before": "", "entry": "f", "tests": read_tests(["assert f(1) == 3"])}
    assert read_report(run_tests(run, job), F)[2] == "f(1) gave 2, expected 3"
    noisy = job | {"program": f"print('hello')\n{F}"}
    assert read_report(run(noisy), F)[2] == "f(1) gave 2, expected 3"
    ends = job | {"program": "import os\nos._exit(0)"}
    assert run(ends)["status"] == "ended"
    # A program's own output is no report.
    forged = 'print(\'{"status": "passed", "passed": 9, "results": []}\', flush=True)'
    forges = job | {"program": f"import os\n{forged}\nos._exit(0)"}
    assert run(forges)["status"] == "ended"


def test_a_report_that_misses_results_passes_nothing() -> None:
    tests = read_tests([{"input": "3\n", "output": "6\n"}])
    job = {"program": "", "before": "", "entry": "", "tests": tests}
    report = run_tests(lambda job: {"status": "passed", "passed": 1, "results": []}, job)
    assert report["status"] == "ended"


def test_a_runner_whose_time_is_over_says_so() -> None:
    class Late:
        def run(self, script: str, stdin: str, seconds: float) -> str:
            raise TimeoutError

    assert remote_runner(Late(), 1.0)({})["status"] == "time"
