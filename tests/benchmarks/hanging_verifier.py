"""Math-Verify's hanging inputs, bare and in our worker: a table of what each says and how long it
takes.

    PYTHONPATH=.:tests python tests/benchmarks/hanging_verifier.py [--bare 15]

Bare: `verify(parse(gold), parse(text))` with Math-Verify's own timeouts (5 s each), in a process
that is killed after so many seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from hanging_inputs import HANGING

from critique_rl.tasks.isolated_verifiers import MathVerifier

BARE = (
    "import sys; from math_verify import parse, verify; "
    "print(verify(parse('5'), parse(sys.stdin.read())))"
)


def bare(text: str, seconds: float) -> str:
    """What Math-Verify says in a process of its own, or that it had to be killed."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", BARE],
            input=text,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"killed after {seconds:.0f} s"
    outcome = done.stdout.strip() or f"exit {done.returncode}"
    return f"{outcome} after {time.monotonic() - start:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--bare",
        type=float,
        default=0,
        help="seconds before Math-Verify alone is killed (0: not tried)",
    )
    parser.add_argument("--deadline", type=float, default=1)
    options = parser.parse_args()
    verifier = MathVerifier(options.deadline)
    print("| input | Math-Verify alone | here |\n|---|---|---|")
    for name, text in HANGING.items():
        verifier.worker.start()
        alone = bare(text, options.bare) if options.bare else ""
        start = time.monotonic()
        verdict = verifier(text, {"answer": "\\sqrt{5}"})
        print(
            (
                f"| {name} | {alone} | {verdict.outcome} ({verdict.reason}) after "
                f"{time.monotonic() - start:.1f} s |"
            ),
            flush=True,
        )
    print(
        f"{verifier.worker.calls} asked, {verifier.worker.lost} unscored, "
        f"{verifier(chr(92) + 'boxed{5}', {'answer': '5'}).outcome} afterwards"
    )


if __name__ == "__main__":
    main()
