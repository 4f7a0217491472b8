"""The judge of programs, which a verifier's worker runs: a job goes to the sandbox, or to a runner
of the user's, and its report becomes a verdict with a reason.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from critique_rl.config.user_code import load_target
from critique_rl.tasks.code.harness import output_digest, show, value_digest
from critique_rl.tasks.code.sandbox import HERE, Limits, Sandbox
from critique_rl.tasks.code.tests_column import HIDDEN
from critique_rl.tasks.workers.child import TookTooLong

Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]
VerdictFields = list[Any]
"""[outcome, program, reason, confidence, details], as JSON."""
NO_RUN = ("broken", "ended", "cpu")
"""Statuses of a program that came to no test."""
ALONE = ("comparisons", "harness")
"""Files that are sent to a sandbox of the user's, in the order in which they import each other."""
SCRIPT_END = """
import json
import sys
from types import ModuleType

for name, source in SOURCES.items():
    module = sys.modules[name] = ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
job = json.loads(sys.stdin.read())
key = job.pop("key")
print("\\n" + key + json.dumps(module.run_job(job)))
"""


def tests_judge(
    limits: Mapping[str, Any], unsafe_local: bool, runner: str | None
) -> Callable[[Mapping[str, Any]], VerdictFields]:
    """Build the judge of {"row"}, which is a job of `harness`.

    Args:
        limits: The fields of `Limits`.
        unsafe_local: Run programs without a sandbox.
        runner: "module:Class" of the user's runner, which takes the place of the sandbox.

    Raises:
        ValueError: Where no sandbox works, or the runner cannot be loaded.
    """
    if runner:
        run = remote_runner(load_target(runner)(), float(limits["seconds"]))
    else:
        sandbox = Sandbox(Limits(**limits), unsafe_local)
        sandbox.start()
        run = sandbox.run

    def judge(question: Mapping[str, Any]) -> VerdictFields:
        job = question["row"]
        report = run_tests(run, job)
        return read_report(report, job["program"])

    return judge


def run_tests(run: Run, job: Mapping[str, Any]) -> dict[str, Any]:
    """Run public tests, and only then, in a process of their own, hidden ones.

    No program meets a hidden test before it has passed all public ones, so that no reason can show
    one. It never meets the expected results of inputs and arguments.

    Args:
        run: Runs a job, as `Sandbox.run`.
        job: As in `harness`, with expected results.

    Raises:
        TookTooLong: The program did not end in its time.
    """
    report: dict[str, Any] = {}
    passed = 0
    for is_hidden in (False, True):
        tests = []
        asked = []
        for test in job["tests"]:
            if test["name"].startswith(HIDDEN) == is_hidden:
                tests.append(test)
                shown = {name: test[name] for name in test if name != "output"}
                asked.append(shown)
        if not tests:
            continue
        report = dict(run({**job, "tests": asked}))
        if report["status"] == "time":
            raise TookTooLong
        report = compare_results(report, tests)
        passed += report.get("passed", 0)
        report["passed"] = passed
        if report["status"] != "passed":
            if is_hidden:
                report["test"] = report.get("test", tests[0]["name"])
            return report
    return report


def compare_results(report: dict[str, Any], tests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compare what scripts printed and functions returned with what was expected."""
    results = report.pop("results", [])
    judged = [test for test in tests if test["kind"] != "code"]
    # A test that raised an exception ends the list.
    for number, (result, test) in enumerate(zip(results, judged, strict=False)):
        if result["digest"] in expected_digests(test):
            continue
        return {
            "status": "failed",
            "passed": number,
            "test": test["name"],
            "call": result["call"],
            "got": result["got"],
            "expected": show(test["output"]),
        }
    is_cut = len(results) < len(judged)
    if report["status"] == "failed" and is_cut:
        expected = judged[len(results)]["output"]
        report.setdefault("expected", show(expected))
    elif report["status"] == "passed" and is_cut:
        # A report that misses results is not the harness's.
        return {"status": "ended", "error": "the program ended before its tests"}
    return report


def expected_digests(test: Mapping[str, Any]) -> list[str]:
    """Digests of the results that are right."""
    output = test["output"]
    if test["kind"] == "stdin":
        return [output_digest(output)]
    outputs = [output]
    if test.get("wrapped"):
        outputs += output
    return [value_digest(value) for value in outputs]


def remote_runner(runner: Any, seconds: float) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """A runner's answers as reports.

    Args:
        runner: Has the method `run(script, stdin, seconds) -> stdout`.
        seconds: What a program may take.
    """
    sources = {}
    for name in ALONE:
        sources[f"critique_rl.tasks.code.{name}"] = (HERE / f"{name}.py").read_text()
    script = f"SOURCES = {sources!r}\n{SCRIPT_END}"

    def run(job: Mapping[str, Any]) -> dict[str, Any]:
        """Raises TypeError where the runner returns no text."""
        # A program's output is no report: it does not begin with the key.
        key = secrets.token_hex(16)
        try:
            printed = runner.run(script, json.dumps({**job, "key": key}), seconds)
        except TimeoutError:
            return {"status": "time"}
        if not isinstance(printed, str):
            name = type(printed).__name__
            raise TypeError(f"runner: got {name}, expected the text that its script printed")
        _, _, last = printed.strip().rpartition("\n")
        if not last.startswith(key):
            return {"status": "ended", "error": "the program ended before its tests"}
        report: dict[str, Any] = json.loads(last.removeprefix(key))
        return report

    return run


def read_report(report: Mapping[str, Any], program: str) -> VerdictFields:
    """The verdict of a report."""
    outcome = "right" if report["status"] == "passed" else "wrong"
    details = {name: value for name, value in report.items() if name != "cpu"}
    test = str(report.get("test", ""))
    if test.startswith(HIDDEN) and report["status"] != "passed":
        # Its values would let a critic give away what the reward asks.
        details = {"status": "failed", "passed": report["passed"], "test": test, "hidden": True}
    reason = reason_words(details)
    return [outcome, program, reason, None, details]


def reason_words(details: Mapping[str, Any]) -> str:
    """What failed, in words: `f(-3) gave 5, expected 8`."""
    status = details["status"]
    error = str(details.get("error", ""))
    if status == "passed":
        return ""
    if status == "cpu":
        return "the program used all of its processor time"
    if status in NO_RUN:
        return error + _at_line(details)
    if details.get("hidden"):
        return f"{details['test']} failed"
    call = details.get("call")
    expected = details.get("expected")
    ending = f", expected {expected}" if expected else ""
    if call and "got" in details:
        got = details["got"]
        return f"{call} gave {got}{ending}"
    raised = error + _at_line(details)
    if call:
        return f"{call} raised {raised}{ending}"
    test = details["test"]
    return f"{test} failed: {raised}{ending}"


def _at_line(details: Mapping[str, Any]) -> str:
    line = details.get("line")
    return f" (line {line})" if line else ""
