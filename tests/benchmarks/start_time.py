"""From the start of `critique-rl train` to its first step, before and after a change.

    git worktree add ../before COMMIT
    python tests/benchmarks/start_time.py --before ../before --rounds 5

Each round starts a run of the quickstart by both checkouts, the first of them in turn, and reads
the processor seconds of the process when transformers says that training begins. Then it is killed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

HERE = Path(__file__).resolve().parents[2]
BEGINS = "Running training"
"""transformers logs it once, before the first step."""


def seconds_to_first_step(checkout: Path) -> float:
    """Processor seconds, user and system.

    Raises:
        SystemExit: the run ended before.
    """
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "-m", "critique_rl", "train", "pipelines/quickstart.yaml"]
        words += ["--arm", "critique", "--seed", "0", "--out", out]
        environment = dict(os.environ)
        environment.update(
            PYTHONPATH=str(checkout), OMP_NUM_THREADS="1", TRANSFORMERS_VERBOSITY="info"
        )
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        with subprocess.Popen(words, cwd=checkout, env=environment, **pipes) as process:
            for line in process.stdout:
                if BEGINS in line:
                    seconds = processor_seconds(process.pid)
                    process.kill()
                    return seconds
    raise SystemExit(f"{checkout}: the run ended before its first step; run it by hand")


def processor_seconds(pid: int) -> float:
    """Of a process so far, as /proc has it."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ticks = int(after_name[11]) + int(after_name[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    before = options.before.resolve()
    # The first starts of all read files from the disk.
    for checkout in (before, HERE):
        seconds_to_first_step(checkout)
    seconds: dict[Path, list[float]] = {before: [], HERE: []}
    for number in range(options.rounds):
        order = (before, HERE) if number % 2 == 0 else (HERE, before)
        for checkout in order:
            seconds[checkout].append(seconds_to_first_step(checkout))
    logs = np.log(np.array(seconds[HERE]) / np.array(seconds[before]))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs))
    low, mean, high = np.exp(logs.mean() + half * np.array([-1, 0, 1]))
    for words, checkout in (("before", before), ("after", HERE)):
        print(f"{words}: {statistics.median(seconds[checkout]):.2f} processor seconds")
    print(f"ratio {mean:.3f} [{low:.3f}, {high:.3f}], {options.rounds} rounds")


if __name__ == "__main__":
    main()
