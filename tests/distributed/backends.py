"""DDP, FSDP2 and DeepSpeed ZeRO-1, 2 and 3 on two CPU ranks over gloo, as a Markdown table.

`make test-distributed`. Each backend has the settings of its file in pipelines/accelerate. It takes
replayed steps (tests/replayed_ranks.py), which are compared with those of one process; samples for
itself with a critic that fails on one rank (tests/free_ranks.py); and goes on from a checkpoint.
The exit status is 1 where a difference is over 1e-5, or a backend fails.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))
import conftest  # noqa: E402, F401  (one thread, no network)
import ranks  # noqa: E402
import torch  # noqa: E402

from critique_rl.lab.base import Recipe, build_model, build_tokenizer  # noqa: E402

CLOSE = 1e-5
SECONDS = 900
DISTILLED = ("base", "ema", "lora", "refined", "refined_lora")
PLAIN = ("refined", "refined_lora")
BACKENDS: dict[str, dict[str, str]] = {
    "ddp.yaml": {},
    "fsdp2.yaml": {"FSDP_ON_CPU": "1"},
    "zero1.yaml": {"DEEPSPEED_ON_CPU": "zero1.yaml"},
    "zero2.yaml": {"DEEPSPEED_ON_CPU": "zero2.yaml"},
    "zero3.yaml": {"DEEPSPEED_ON_CPU": "zero3.yaml"},
}
"""File of pipelines/accelerate -> variables that have tests/ranks.py set it up on a CPU."""
REFUSES_DISTILLATION = ("zero3.yaml",)
ENGINES = {"ddp.yaml": "DistributedDataParallel", "fsdp2.yaml": "FSDP"}
"""Start of the class that the trained model is wrapped in; of the others DeepSpeed's."""
SHARDED = ("fsdp2.yaml", "zero3.yaml")
"""Files under which a rank holds a part of the weights."""


class Failed(Exception):
    """A backend that differs."""


def read(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"{name}{rank}.json").read_text())
    return content


def replayed(one: Path, other: Path, variant: str) -> dict[str, float]:
    """Largest differences of losses, gradient norms and final weights from one process."""
    mine, theirs = read(one, "replayed")[variant], read(other, "replayed")[variant]
    apart = {}
    for name in ("loss", "grad_norm"):
        pairs = zip(mine["log"], theirs["log"], strict=True)
        apart[name] = max(abs(a[name] - b[name]) for a, b in pairs)
    weights = [torch.load(folder / f"{variant}.pt") for folder in (one, other)]
    if weights[0].keys() != weights[1].keys():
        raise Failed(f"{variant}: other parameters")
    gaps = [(weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]]
    apart["weights"] = max(gaps)
    for name, gap in apart.items():
        if not gap < CLOSE:
            raise Failed(f"{variant}: {name} {gap:.1e} apart from one process")
    return apart


def check_engine(name: str, folder: Path, variant: str) -> None:
    """Raise Failed where something else trained: accelerate takes DDP in silence."""
    result = read(folder, "replayed")[variant]
    engine = result["engine"]
    if not engine.startswith(ENGINES.get(name, "DeepSpeedEngine")):
        raise Failed(f"{variant}: trained by {engine}")
    if (result["held"] < 0.9) != (name in SHARDED):
        raise Failed(f"{variant}: rank 0 holds {result['held']:.0%} of the weights")


def free(folder: Path, scenario: str) -> str:
    """What two ranks that sampled for themselves agree on."""
    first, second = (read(folder, "free", rank)[scenario] for rank in (0, 1))
    if first["checksum"] != second["checksum"]:
        raise Failed(f"{scenario}: ranks end with other weights")
    counts: dict[str, float] = {}
    for rank in (first, second):
        for batch in rank["counts"]:
            for name, value in batch.items():
                counts[name] = counts.get(name, 0) + value
    failed = counts["critique/failed_rollouts"]
    outcomes = ("ok", "cached", "failed", "skipped", "not_asked")
    told = sum(counts.get(f"critique/{outcome}", 0) for outcome in outcomes)
    if failed != told:
        raise Failed(f"{scenario}: {failed} failures, but {told} outcomes of critiques")
    return f"{failed:.0f} failures, all accounted for"


def resumed(folder: Path, scenario: str) -> str:
    """How far a run that went on from a checkpoint is from one that did not stop."""
    apart = read(folder, "free")[scenario]["weights_apart"]
    if not apart < CLOSE:
        raise Failed(f"{scenario}: {apart:.1e} apart")
    return f"{apart:.0e}" if apart else "equal"


def row(name: str, environment: dict[str, str], policy: Path, one: Path, root: Path) -> list[str]:
    """One backend's lines of the table.

    Raises:
        Failed: It differs.
        AssertionError: A rank failed.
    """
    is_whole = name not in REFUSES_DISTILLATION
    variants = DISTILLED if is_whole else PLAIN
    scenarios = ("moody", "resumed") if is_whole else ("refined", "resumed_refined", "refused")
    folder = root / name
    paths = [str(policy), str(folder)]
    calls = [("replayed_ranks", [*paths, *variants]), ("free_ranks", [*paths, *scenarios])]
    ranks.run(folder, calls, 2, SECONDS, **environment)
    lines = []
    for variant in variants:
        check_engine(name, folder, variant)
        apart = replayed(one, folder, variant)
        cells = [f"{apart[key]:.0e}" for key in ("loss", "grad_norm", "weights")]
        lines.append(f"| `{name}` | {variant} | {' | '.join(cells)} | | |")
    counted = free(folder, scenarios[0])
    after = resumed(folder, scenarios[1])
    lines.append(f"| `{name}` | own sampling | | | | {counted} | {after} |")
    if not is_whole:
        words = read(folder, "free")["refused"]["refused"]
        if "ZeRO-3" not in words:
            raise Failed(f"distillation is not refused: {words!r}")
        lines.append(f"| `{name}` | distillation | | | | refused | |")
    return lines


def main() -> int:
    """Print the table; 1 where a backend failed."""
    status = 0
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        policy = root / "policy"
        tokenizer = build_tokenizer()
        build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(policy)
        tokenizer.save_pretrained(policy)
        one = root / "one"
        ranks.run(one, [("replayed_ranks", [str(policy), str(one), *DISTILLED])], 1, SECONDS)
        versions = [f"{name} {version(name)}" for name in ("torch", "accelerate", "deepspeed")]
        print(", ".join(versions) + "\n")
        print("| file | variant | loss | gradient norm | weights | critic | continued |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for name, environment in BACKENDS.items():
            try:
                print("\n".join(row(name, environment, policy, one, root)), flush=True)
            except (Failed, AssertionError) as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
