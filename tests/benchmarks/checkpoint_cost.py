"""What the checksums of a checkpoint add to the time of writing it: weights and Adam's state of a
given size, saved as transformers does, flushed and sealed. Prints the shortest
times and their ratio.

    OMP_NUM_THREADS=1 python tests/benchmarks/checkpoint_cost.py --megabytes 10 1000
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from critique_rl.trainer import checkpoint as checkpoints

TENSORS = 40


def write(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Save as transformers' Trainer does: weights, two moments of Adam, small files."""
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    moments = {name: {"exp_avg": w + 1, "exp_avg_sq": w + 2} for name, w in weights.items()}
    torch.save({"state": moments}, folder / "optimizer.pt")
    torch.save({"last_epoch": 1}, folder / "scheduler.pt")
    torch.save(torch.get_rng_state(), folder / "rng_state.pth")
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 1}))


def measure(parent: Path, megabytes: float, has_checksums: bool) -> tuple[float, float]:
    """Seconds: saved, flushed and sealed; checked at a continuation."""
    size = int(megabytes * 1e6 / 3 / 4 / TENSORS)
    weights = {f"layer{i}": torch.randn(size) for i in range(TENSORS)}
    folder = parent / "checkpoint-1"
    stock = checkpoints.folder_checksums
    if not has_checksums:
        checkpoints.folder_checksums = lambda *_: {}
    # What the last repetition left to be written is no cost of this one.
    os.sync()
    began = time.perf_counter()
    write(folder, weights)
    checkpoints.seal(folder, {"kept_steps": []})
    seconds = time.perf_counter() - began
    checkpoints.folder_checksums = stock
    began = time.perf_counter()
    checkpoints.fault(folder)
    check = time.perf_counter() - began
    shutil.rmtree(folder)
    return seconds, check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--megabytes", type=float, nargs="+", default=[10, 1000])
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk that is measured")
    arguments = parser.parse_args()
    print(f"{'MB':>8}{'without s':>12}{'with s':>10}{'more':>8}{'check s':>10}")
    for megabytes in arguments.megabytes:
        parent = Path(tempfile.mkdtemp(dir=arguments.folder))
        without, sealed, checks = [], [], []
        # In turn, so that other work on the machine weighs on both alike.
        for _ in range(arguments.repetitions):
            without.append(measure(parent, megabytes, has_checksums=False)[0])
            seconds, check = measure(parent, megabytes, has_checksums=True)
            sealed.append(seconds)
            checks.append(check)
        before, now, check = min(without), min(sealed), min(checks)
        more = now / before - 1
        print(f"{megabytes:8.0f}{before:12.3f}{now:10.3f}{more:8.1%}{check:10.3f}", flush=True)
        shutil.rmtree(parent)


if __name__ == "__main__":
    main()
