"""Every function of ours that reads texts x 44 kinds of degenerate text: seconds at 10^5, 10^6 and
4 x 10^6 characters, and the most memory of a call.

    PYTHONPATH=.:tests python tests/benchmarks/degenerate_text.py [part of a reader's name]

Each call runs in a process of its own, forked from this one, so that a call that hangs ends with
its process, and its memory is its own. Texts over the bound (10^6) are refused or cut, so 10^6 is
the longest that is read. Exits with 1 where a time at 4 x 10^6 or at 10^6 is over 60 times that at
10^5, or a call fails or takes more than 100 MB.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from degenerate_texts import READERS, UNITS, degenerate, measure

SIZES = (100_000, 1_000_000, 4_000_000)
MOST_RATIO = 60
SHORTEST = 0.002
"""Seconds below which a time is that of the clock and the cache: a ratio is taken of no less."""
DEADLINE = 60.0
MOST_BYTES = 100e6


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    readers = [name for name in READERS if wanted in name]
    print("| reader | kind | 10^5 | 10^6 | 4 x 10^6 | ratio | MB | error |")
    print("|---|---|---|---|---|---|---|---|")
    faults = 0
    worst: dict[str, tuple] = {}
    for kind in UNITS:
        texts = [degenerate(kind, size) for size in SIZES]
        for name in readers:
            cells = [measure(partial(READERS[name], text), DEADLINE) for text in texts]
            times = [cell[0] for cell in cells]
            memory = max(cell[1] for cell in cells)
            error = next((cell[2] for cell in cells if cell[2]), "")
            ratio = max(times[1:]) / max(times[0], SHORTEST)
            is_fault = ratio > MOST_RATIO or memory > MOST_BYTES or bool(error)
            faults += is_fault
            line = (name, kind, *times, ratio, memory / 1e6, error)
            if is_fault:
                print("| {} | {} | {:.4f} | {:.4f} | {:.4f} | {:.1f} | {:.0f} | {} |".format(*line))
                sys.stdout.flush()
            if name not in worst or max(times) > max(worst[name][2:5]):
                worst[name] = line
    print("\nThe slowest kind of each reader:\n")
    for line in worst.values():
        print("| {} | {} | {:.4f} | {:.4f} | {:.4f} | {:.1f} | {:.0f} | {} |".format(*line))
    print(f"\n{len(readers)} readers x {len(UNITS)} kinds, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
