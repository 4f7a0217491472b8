"""One training run with an api critic under four wall clocks: as it is, an hour ahead, an hour
behind, and one that jumps by an hour at every look. The runs must be equal but for their seconds.

    OMP_NUM_THREADS=1 python tests/benchmarks/clock_shift.py

A library that is loaded before the child's own (LD_PRELOAD; it takes a C compiler) shifts what the
C library says about the time, and so for all packages alike. Each run is stopped after its second
step and continued. The server asks for every call to be sent again after a second, by a date of its
own clock.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from fault_server import serving
from tiny_runs import SMALL

ROOT = Path(__file__).parents[2]
SHIFT = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static time_t shift(void) {
    static int turn;
    const char *kind = getenv("SHIFT");
    if (!kind) return 0;
    return strcmp(kind, "jumping") ? atol(kind) : (turn++ % 3 - 1) * 3600;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int fault = syscall(SYS_clock_gettime, clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += shift();
    return fault;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *kept) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (kept) *kept = exact.tv_sec;
    return exact.tv_sec;
}
"""
CLOCKS = ("0", "3600", "-3600", "jumping")
TIMES = ("second", "time", "runtime", "per_", "date")
"""Parts of names of metrics that are times."""


def build_shift(folder: Path) -> Path:
    """The library that shifts the clock, compiled."""
    (folder / "shift.c").write_text(SHIFT)
    library = folder / "shift.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, folder / "shift.c"], check=True)
    says = "import datetime, time; print(time.time(), datetime.datetime.now().timestamp())"
    environment = {**os.environ, "LD_PRELOAD": str(library), "SHIFT": "-3600"}
    told = subprocess.run([sys.executable, "-c", says], env=environment, stdout=-1, text=True)
    clocks = [float(word) for word in told.stdout.split()]
    assert all(3590 < time.time() - clock < 3610 for clock in clocks), clocks
    return library


def train(folder: Path, policy: Path, url: str, clock: str) -> list[dict]:
    """The metrics of a run that was stopped once and continued."""
    folder.mkdir()
    critic = {"kind": "api", "base_url": url, "model": "m", "requests_per_minute": 3000}
    pipeline = {**SMALL, "policy": {"model": str(policy)}, "arms": {"critique": {"critic": critic}}}
    pipeline["trl"] = {**SMALL["trl"], "save_steps": 1}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(pipeline))
    words = [sys.executable, "-m", "critique_rl", "train", path, "--arm", "critique"]
    words += ["--seed", "0", "--out", folder / "runs"]
    environment = {**os.environ, "SHIFT": clock, "PYTHONPATH": str(ROOT)}
    environment["LD_PRELOAD"] = str(build_shift(folder))
    for attempt in ("stop", "finish"):
        metrics = folder / "runs" / "small" / "critique" / "seed0" / "metrics.jsonl"
        with subprocess.Popen(
            words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout:
                print(f"    {line.rstrip()[:150]}", file=sys.stderr)
                is_under_way = metrics.exists() and metrics.read_text().count("\n") >= 2
                if attempt == "stop" and is_under_way:
                    process.terminate()
        print(f"    {attempt}: exit code {process.returncode}", file=sys.stderr)
    [metrics] = (folder / "runs").rglob("metrics.jsonl")
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [
        {name: row[name] for name in row if not any(part in name for part in TIMES)} for row in rows
    ]


def main() -> None:
    from critique_rl.lab.base import Recipe, build_model, build_tokenizer

    with tempfile.TemporaryDirectory() as name, serving() as server:
        folder = Path(name)
        tokenizer = build_tokenizer()
        build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(folder / "m")
        tokenizer.save_pretrained(folder / "m")
        server.always = "retry-date:1"
        runs = {}
        for clock in CLOCKS:
            server.tries.clear()
            runs[clock] = train(folder / clock, folder / "m", server.url, clock)
            calls = sum(server.tries.values())
            print(
                f"clock {clock}: {len(runs[clock])} rows of metrics, {calls} requests", flush=True
            )
    print("equal" if all(run == runs["0"] for run in runs.values()) else "NOT equal")
    sys.exit(0 if runs["0"] and all(run == runs["0"] for run in runs.values()) else 1)


if __name__ == "__main__":
    main()
