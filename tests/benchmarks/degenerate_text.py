"""Every function of ours that reads texts x 44 kinds of degenerate text: seconds at 10^5, 10^6 and
4 x 10^6 characters, and the most memory of a call.

    PYTHONPATH=.:tests python tests/benchmarks/degenerate_text.py [part of a reader's name]

All readers read a kind and a size in one process, forked from this one: its peak memory bounds that
of each call. Where one fails, hangs, or is over a limit, each of its calls is measured again in a
process of its own. Texts over the bound (10^6) are refused or cut, so 10^6 is the longest that is
read. Exits with 1 where a time at 4 x 10^6 or at 10^6 is over 60 times that at 10^5, or a call
fails or takes more than 100 MB.
"""

from __future__ import annotations

import os
import struct
import sys
import time
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


def together(names: list[str], text: str) -> dict[str, tuple[float, float, str]]:
    """Reader -> (seconds, bytes, error) at a text, all in one process; {} where one is at fault."""
    read_end, write_end = os.pipe()

    def read_all() -> None:
        for name in names:
            start = time.process_time()
            READERS[name](text)
            os.write(write_end, struct.pack("d", time.process_time() - start))

    _, memory, error = measure(read_all, DEADLINE)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        raw = pipe.read()
    if error or memory > MOST_BYTES or len(raw) != 8 * len(names):
        return {}
    seconds = struct.unpack(f"{len(names)}d", raw)
    return {name: (s, memory, "") for name, s in zip(names, seconds, strict=True)}


def ratio(cells: list[tuple[float, float, str]]) -> float:
    times = [cell[0] for cell in cells]
    return max(times[1:]) / max(times[0], SHORTEST)


def is_slow(cells: list[tuple[float, float, str]]) -> bool:
    return ratio(cells) > MOST_RATIO


def main() -> int:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    readers = [name for name in READERS if wanted in name]
    print("| reader | kind | 10^5 | 10^6 | 4 x 10^6 | ratio | MB | error |")
    print("|---|---|---|---|---|---|---|---|")
    faults = 0
    worst: dict[str, tuple] = {}
    for kind in UNITS:
        texts = [degenerate(kind, size) for size in SIZES]
        measured = [together(readers, text) for text in texts]
        for name in readers:
            cells = [cell[name] for cell in measured if cell]
            if len(cells) < len(SIZES) or is_slow(cells):
                cells = [measure(partial(READERS[name], text), DEADLINE) for text in texts]
            times = [cell[0] for cell in cells]
            memory = max(cell[1] for cell in cells)
            error = next((cell[2] for cell in cells if cell[2]), "")
            is_fault = is_slow(cells) or memory > MOST_BYTES or bool(error)
            faults += is_fault
            line = (name, kind, *times, ratio(cells), memory / 1e6, error)
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
