"""SIGKILL a campaign of 12 runs five times, its runs with it or it alone, give the same command
again, and compare compare.json with one nobody killed.

    OMP_NUM_THREADS=1 python tests/kill_campaign.py        (8 minutes)
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from waiting import wait_until

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
)

PIPELINE = {
    "task": {"name": "lab/chain", "size": 24},
    "preset": "mixed",
    "critic": {"kind": "oracle"},
    "trl": {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 12,
        "learning_rate": 1e-3,
        "save_steps": 5,
    },
    "budget": {"optimizer_steps": 40},
    "evaluation": {
        "problems": 6,
        "samples": 4,
        "ks": [1, 4],
        "curve_every": 10,
        "curve_problems": 4,
        "curve_samples": 2,
        "best_by": "pass@1/all",
    },
    "plateau": {"window": 2, "looks": 8},
    "primary": "pass@1/plateau",
    "arms": {
        "scalar": {"critic": {"kind": "none"}, "method": {"distill_weight": 0}},
        "critique": {},
        "ema": {"method": {"distill_teacher": "ema"}},
        "branch": {"branch_from": {"arm": "scalar", "at": 20}},
    },
}


def start(path: Path, out: Path) -> subprocess.Popen:
    log = (out.parent / f"{out.name}.log").open("a")
    return subprocess.Popen(
        [sys.executable, "-m", "critique_rl", "run", str(path), "--out", str(out), "--jobs", "2"],
        stdout=log,
        stderr=log,
    )


def below(process: subprocess.Popen) -> list[psutil.Process]:
    """Living processes that a campaign started: its runs, and the server they are forked from."""
    return psutil.Process(process.pid).children(recursive=True)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key != "wall_seconds"}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def difference(got, wanted, at: str = "") -> str:
    """ "" where equal, else the place of the first difference and both values."""
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        return next(
            (
                differs
                for key in got
                if (differs := difference(got[key], wanted[key], f"{at}/{key}"))
            ),
            "",
        )
    return "" if got == wanted else f"{at}: {str(got)[:200]} for {str(wanted)[:200]}"


def comparison(out: Path) -> dict:
    return without_times(json.loads((out / "small" / "compare.json").read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import torch

    from critique_rl.lab.base import Recipe, build_model, build_tokenizer

    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())
    rng = random.Random(arguments.seed)
    tokenizer = build_tokenizer()
    build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    path = folder / "small.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                **PIPELINE,
                "policy": {"model": str(folder / "policy")},
                "seeds": list(range(arguments.seeds)),
            }
        )
    )
    began = time.monotonic()
    assert start(path, folder / "whole").wait() == 0, (folder / "whole.log").read_text()[-3000:]
    seconds = time.monotonic() - began
    kills = 0
    while kills < arguments.kills:
        process = start(path, folder / "killed")
        time.sleep(rng.uniform(0.1, 0.5) * seconds * 2 / arguments.kills)
        if process.poll() is not None:
            break
        alone = kills % 2 == 1
        started = below(process)
        process.kill()
        process.wait()
        if alone:
            time.sleep(0.5)  # its runs go on: nothing to wait for
        else:
            for other in started:
                other.kill()
            wait_until(lambda began=tuple(started): not any(map(alive, began)), "its runs to end")
        kills += 1
        print(
            (
                f"kill {kills}: the campaign {'alone' if alone else 'and its runs'}; "
                f"{sum(map(alive, started))} of its processes live on"
            ),
            flush=True,
        )
    status = start(path, folder / "killed").wait()
    assert status == 0, (folder / "killed.log").read_text()[-3000:]
    wrong = difference(comparison(folder / "killed"), comparison(folder / "whole"))
    runs = arguments.seeds * len(PIPELINE["arms"])
    print(
        f"{runs} runs, killed {kills} times: compare.json {wrong or 'equal'}; whole campaign "
        f"{seconds:.0f} s"
    )
    shutil.rmtree(folder)
    sys.exit(0 if not wrong and kills == arguments.kills else 1)


if __name__ == "__main__":
    main()
