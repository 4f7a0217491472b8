"""Where the time of the tests goes: seconds per test file, from the file that pytest writes.

    OMP_NUM_THREADS=1 python -m pytest -n 3 --dist worksteal --junitxml=runs/tests.xml
    python tests/benchmarks/suite_time.py runs/tests.xml [--files 40] [--tests 20]

A figure is the sum of setup, call and teardown, in wall seconds of the worker that ran the test:
other workers and other programs lengthen it. A fixture counts for the first test that needs it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


def file_of(module: str) -> str:
    """The file of a test: `tests.cli.test_plan` is tests/cli/test_plan.py."""
    return "/".join(module.split(".")) + ".py"


def times(report: Path) -> list[tuple[str, str, float]]:
    """File, name and seconds of each test."""
    cases = ElementTree.parse(report).iter("testcase")
    return [
        (file_of(case.get("classname")), case.get("name"), float(case.get("time")))
        for case in cases
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("report", type=Path, help="what pytest --junitxml=FILE wrote")
    parser.add_argument("--files", type=int, default=40, help="how many files to list")
    parser.add_argument("--tests", type=int, default=20, help="how many tests to list")
    given = parser.parse_args()
    tests = times(given.report)
    seconds: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    for file, _, took in tests:
        seconds[file] += took
        numbers[file] += 1
    total = sum(seconds.values())
    print("| file | tests | seconds | share |\n|---|---|---|---|")
    for file, took in seconds.most_common(given.files):
        print(f"| {file} | {numbers[file]} | {took:.1f} | {took / total:.0%} |")
    print(f"| all {len(seconds)} files | {len(tests)} | {total:.1f} | |\n")
    print("| test | seconds |\n|---|---|")
    for file, name, took in sorted(tests, key=lambda test: -test[2])[: given.tests]:
        print(f"| {file}: {name} | {took:.1f} |")


if __name__ == "__main__":
    main()
