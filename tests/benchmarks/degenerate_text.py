"""Every function of ours that reads texts x 44 kinds of degenerate text: seconds at 10^5, 10^6 and
4 x 10^6 characters, and the most memory of a call.

    PYTHONPATH=.:tests python tests/benchmarks/degenerate_text.py [part of a reader's name]

Each call runs in a process of its own, forked from this one, so that a call that hangs ends with
its process, and its memory is its own. Exits with 1 where a time at 4 x 10^6 is over 60 times that
at 10^5, a call takes longer than LONGEST seconds, or more than 100 MB.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from degenerate_texts import READERS, UNITS, degenerate

SIZES = (100_000, 1_000_000, 4_000_000)
MOST_RATIO = 60
SHORTEST = 0.002
"""Seconds below which a time is that of the clock and the cache: a ratio is taken of no less."""
DEADLINE = 60.0
MOST_BYTES = 100e6


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(reader: str, text: str) -> tuple[float, float, str]:
    """(seconds, bytes over idle, the error's name) of one call in a forked process."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        error = ""
        idle = resident()
        start = time.process_time()
        try:
            READERS[reader](text)
        except BaseException as failure:
            error = type(failure).__name__
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(write_end, struct.pack("dd", seconds, peak - idle) + error.encode())
        os._exit(0)
    os.close(write_end)
    ready, _, _ = select.select([read_end], [], [], DEADLINE)
    if not ready:
        os.kill(child, signal.SIGKILL)
    answer = os.read(read_end, 1000)
    os.close(read_end)
    os.waitpid(child, 0)
    if not answer:
        return (DEADLINE, 0.0, "killed")
    return (*struct.unpack("dd", answer[:16]), answer[16:].decode())


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
            cells = [measure(name, text) for text in texts]
            times = [cell[0] for cell in cells]
            memory = max(cell[1] for cell in cells)
            error = next((cell[2] for cell in cells if cell[2]), "")
            ratio = times[2] / max(times[0], SHORTEST)
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
