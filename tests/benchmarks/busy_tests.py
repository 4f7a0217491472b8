"""Are the tests that start processes green every time, also on a busy machine? Runs them again and
again beside busy loops.

    python tests/benchmarks/busy_tests.py --times 20 --loops 4

They are those with the marker `processes`: unlike a search for words, it sees what a fixture
starts. Prints one line a round, failed tests by name, and at the end how many rounds were green.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"
"""Ends by itself where this script was killed."""
LOOP = [sys.executable, "-c", BUSY]
COUNTS = re.compile(r"(\d+) (passed|failed|error|skipped)")


def one_round(more: list[str]) -> tuple[int, str]:
    """The exit status of pytest and what it printed."""
    words = [sys.executable, "-m", "pytest", "-v", "-m", "processes", *more]
    # Tests find the package and their helpers as `python -m pytest` in the checkout does.
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def counted(output: str) -> str:
    """The counts of pytest's last line, such as "246 passed, 9 skipped"."""
    counts = [f"{number} {what}" for number, what in COUNTS.findall(output.splitlines()[-1])]
    return ", ".join(counts) or "no tests were run"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--loops", type=int, default=4)
    parser.add_argument("more", nargs="*", help="more for pytest, after --: files, or -k words")
    given = parser.parse_args()
    loops = [subprocess.Popen(LOOP) for _ in range(given.loops)]
    green = 0
    try:
        for number in range(1, given.times + 1):
            start = time.monotonic()
            status, output = one_round(given.more)
            green += status == 0
            seconds = time.monotonic() - start
            load = os.getloadavg()[0]
            line = f"round {number}: {counted(output)}; {seconds:.0f} s, load {load:.1f}"
            print(line, flush=True)
            if status:
                # All of it: what fails once in 20 rounds is not to be had again.
                print(output, flush=True)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    print(f"{green} of {given.times} green")
    sys.exit(0 if green == given.times else 1)


if __name__ == "__main__":
    main()
