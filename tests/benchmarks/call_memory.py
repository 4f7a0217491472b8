"""Peak memory of one call, above the process at rest, for answers and refusals that are meant to
fill it.

    OMP_NUM_THREADS=1 python tests/benchmarks/call_memory.py

The server (tests/fault_server.py) runs in this process and the calls in a child, whose peak the
kernel counts anew for each of them: VmHWM after a write of 5 to /proc/self/clear_refs. Linux only.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

FAULTS = (
    "ok",
    "huge",
    "endless",
    "endless-429",
    "endless-headers",
    "endless-trailers",
    "storm",
    "gzip-bomb",
    "deflate-bomb",
    "error-bomb",
    "twice",
    "many-values",
    "half-a-million-values",
    "numbers",
    "empty-objects",
    "wide-text",
    "words",
    "deep",
    "deep-error",
    "error-words",
    "huge-integer",
    "401",
)
LIMIT_MB = 100


def child(url: str, faults: list[str]) -> None:
    """Make one call of each fault, and print its peak in MB."""
    import openai  # noqa: F401  imported before anything is measured

    from critique_rl.critic.api.endpoint import Endpoint
    from critique_rl.critic.chat import ApiChat

    def answer(fault: str) -> str:
        endpoint = Endpoint(url, "m", attempts=1, attempt_deadline=20.0, circuit_failures=99)
        question = [{"role": "user", "content": f"{fault} memory"}]
        [reply] = ApiChat(endpoint).answer([question])
        return reply.reason or reply.text[:40]

    answer("ok")
    # Once: what a call leaves behind would hide a part of the next one's peak.
    idle = _status("VmRSS")
    for fault in faults:
        Path("/proc/self/clear_refs").write_text("5")
        words = answer(fault)
        print(f"{fault}\t{(_status('VmHWM') - idle) / 1024:.0f}\t{words[:60]}", flush=True)


def _status(name: str) -> int:
    """Kilobytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("faults", nargs="*", default=list(FAULTS))
    parser.add_argument("--url", help="of a server, in the child")
    given = parser.parse_args()
    if given.url:
        child(given.url, given.faults)
        return
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fault_server import serving

    print("| fault | MB above rest at the peak | the call ends with |\n|---|---|---|")
    peaks = []
    with serving() as server:
        command = [sys.executable, __file__, "--url", server.url, *given.faults]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                fault, peak, words = line.rstrip("\n").split("\t")
                peaks.append(int(peak))
                print(f"| {fault} | {peak} | {words} |", flush=True)
    is_whole = len(peaks) == len(given.faults) and process.returncode == 0
    print(f"\n{len(peaks)} calls, at most {max(peaks)} MB; the limit is {LIMIT_MB} MB")
    sys.exit(0 if is_whole and max(peaks) < LIMIT_MB else 1)


if __name__ == "__main__":
    main()
