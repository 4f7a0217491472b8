"""How far two and four ranks end from one on replayed completions and critiques
(tests/replayed_ranks.py), under DDP and FSDP2, as a Markdown table.

python tests/benchmarks/ranks_apart.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest  # noqa: F401  (one thread, no network)
import ranks
import torch
from replayed_ranks import VARIANTS

from critique_rl.lab.base import Recipe, build_model, build_tokenizer

KINDS = {
    "DDP, 2 ranks": (2, {}),
    "DDP, 4 ranks": (4, {}),
    "FSDP2, 2 ranks": (2, {"FSDP_ON_CPU": "1"}),
    "FSDP2, 4 ranks": (4, {"FSDP_ON_CPU": "1"}),
}


def trained(policy: Path, folder: Path, world: int, environment: dict[str, str]) -> Path:
    ranks.run(
        folder,
        [("replayed_ranks", [str(policy), str(folder), *VARIANTS])],
        world,
        900,
        **environment,
    )
    return folder


def apart(one: Path, other: Path, variant: str) -> list[float]:
    """Largest differences of losses, gradient norms, each term's gradient norm (nan where they are
    not taken), and final weights.
    """
    mine, theirs = (
        json.loads((folder / "replayed0.json").read_text())[variant] for folder in (one, other)
    )
    steps = [
        max(abs(a[name] - b[name]) for a, b in zip(mine["log"], theirs["log"], strict=True))
        for name in ("loss", "grad_norm")
    ]
    terms = [
        abs(a - b)
        for name in theirs["norms"]
        for a, b in zip(mine["norms"][name], theirs["norms"][name], strict=True)
    ]
    weights = [torch.load(folder / f"{variant}.pt") for folder in (one, other)]
    return [
        *steps,
        max(terms, default=float("nan")),
        max((weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]),
    ]


def main() -> None:
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokenizer = build_tokenizer()
        build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(
            folder / "policy"
        )
        tokenizer.save_pretrained(folder / "policy")
        one = trained(folder / "policy", folder / "one", 1, {})
        print(
            "| | variant | loss | gradient norm | of a term | final weights |\n"
            "|---|---|---|---|---|---|"
        )
        for i, (kind, (world, environment)) in enumerate(KINDS.items()):
            other = trained(folder / "policy", folder / str(i), world, environment)
            for variant in VARIANTS:
                cells = [
                    "" if value != value else f"{value:.0e}" for value in apart(one, other, variant)
                ]
                print("| " + " | ".join([kind, variant, *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
