"""Peak memory of one training step with and without the sliced divergence: `python
tests/benchmarks/sliced_memory.py [SLICE_ELEMENTS ...]`, ten minutes.

A two-layer Qwen2 (hidden 256, vocabulary 151,936, tied, float32, CPU, one thread) with TRL's fused
head takes a GRPO step on 8 rows of 512 scored tokens:

    stock     log-probs and entropy through TRL's fused head, forward and backward
    sliced    the same, plus a full-vocabulary JSD to a teacher (the same backbone, other context)
              by `critique_rl.trainer.sliced_divergence`
    naive     the same, plus the same JSD on complete logits; on 1 and 2 rows, extrapolated in a
              straight line, because 8 rows would not fit

Each runs in its own process; its figure is the peak resident set over that before the step. Exits 1
if `sliced` is over 1.10 times `stock`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

VOCABULARY, HIDDEN, COMPLETION, ROWS = 151_936, 256, 512, 8
LIMIT = 1.10


def measure(variant: str, rows: int, slice_elements: int | None) -> dict[str, float]:
    """One step in this process: {"peak_mb", "seconds", "loss"}."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from critique_rl.objective import divergence
    from critique_rl.trainer import sliced_divergence as sliced

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if slice_elements is not None:
        sliced.SLICE_ELEMENTS = slice_elements
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = Qwen2ForCausalLM(config).train()
    add_fused_lm_head(model, outputs=("log_probs", "entropy"))
    ids = torch.randint(VOCABULARY, (rows, COMPLETION + 1))
    teacher_ids = torch.cat([torch.randint(VOCABULARY, (rows, 16)), ids], 1)
    captured: list[torch.Tensor] = []
    model.base_model.register_forward_hook(
        lambda module, args, output: captured.append(output.last_hidden_state)
    )

    before = _resident_kb()
    earlier_peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    teacher_hidden = None
    if variant != "stock":
        with torch.no_grad():
            teacher_hidden = (
                model.base_model(teacher_ids)
                .last_hidden_state[:, -COMPLETION - 1 : -1]
                .reshape(-1, HIDDEN)
            )
        captured.clear()
    outputs = model(input_ids=ids, labels=ids, fused_lm_head=True)
    advantages = torch.linspace(-1, 1, rows).unsqueeze(1)
    loss = -(torch.exp(outputs.log_probs - outputs.log_probs.detach()) * advantages).mean()
    if variant != "stock":
        hidden = captured.pop()[:, :-1].reshape(-1, HIDDEN)
        weight = model.lm_head.weight
        if variant == "sliced":
            head = sliced.Head(weight)
            share = torch.full((len(hidden),), 1 / len(hidden))
            loss = (
                loss
                + sliced.sliced_divergence(
                    hidden,
                    head,
                    teacher_hidden,
                    head,
                    share,
                    ids[:, 1:].reshape(-1),
                    sliced.Divergence(0.5),
                )[0]
            )
        else:
            with torch.no_grad():
                teacher_logits = teacher_hidden @ weight.T
            loss = loss + divergence(hidden @ weight.T, teacher_logits, 0.5).mean()
    loss.backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak > earlier_peak, "the peak lies before the step: it says nothing about it"
    return {"peak_mb": (peak - before) / 1024, "seconds": seconds, "loss": loss.item()}


def _resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


def measure_apart(variant: str, rows: int, slice_elements: int | None = None) -> dict[str, float]:
    """`measure` in a fresh process. This one must stay small (no torch): a child's ru_maxrss starts
    at its parent's.
    """
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "HF_HUB_OFFLINE": "1",
    }
    job = json.dumps([variant, rows, slice_elements])
    done = subprocess.run(
        [sys.executable, __file__, "--job", job], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(
            f"{variant} on {rows} rows stopped with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def main(slices: list[int | None]) -> int:
    print(
        f"vocabulary {VOCABULARY:,}, hidden {HIDDEN}, {ROWS * COMPLETION:,} tokens, float32, "
        "CPU, one thread"
    )
    print(f"{'variant':<34}{'peak MB':>9}{'x stock':>9}{'seconds':>9}")
    stock = measure_apart("stock", ROWS)
    _line("stock", stock["peak_mb"], 1.0, stock["seconds"])
    worst = 0.0
    for elements in slices:
        figures = measure_apart("sliced", ROWS, elements)
        ratio = figures["peak_mb"] / stock["peak_mb"]
        worst = max(worst, ratio)
        _line(
            "sliced" if elements is None else f"sliced, {elements:,} logits a slice",
            figures["peak_mb"],
            ratio,
            figures["seconds"],
        )
    few = [measure_apart("naive", rows) for rows in (1, 2)]
    for rows, figures in zip((1, 2), few, strict=True):
        _line(
            f"naive, {rows * COMPLETION:,} tokens only",
            figures["peak_mb"],
            figures["peak_mb"] / stock["peak_mb"],
            figures["seconds"],
        )
    drawn_on = [
        few[1][key] + (few[1][key] - few[0][key]) * (ROWS - 2) for key in ("peak_mb", "seconds")
    ]
    _line(
        f"naive, {ROWS * COMPLETION:,} tokens, extrapolated",
        drawn_on[0],
        drawn_on[0] / stock["peak_mb"],
        drawn_on[1],
    )
    print(
        f"sliced is at most {LIMIT:.2f} x stock: {'yes' if worst <= LIMIT else 'NO'} ({worst:.3f})"
    )
    return int(worst > LIMIT)


def _line(name: str, peak_mb: float, ratio: float, seconds: float) -> None:
    print(f"{name:<34}{peak_mb:>9,.0f}{ratio:>9.3f}{seconds:>9.1f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--job"]:
        print(json.dumps(measure(*json.loads(sys.argv[2]))))
    else:
        raise SystemExit(main([int(argument) for argument in sys.argv[1:]] or [None]))
