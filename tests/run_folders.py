"""A run folder without training, every file of it real in form, and damage to one of its files.

One arm is finished with two seeds; of the other one seed is finished, and one was stopped at step 5
with checkpoints of steps 2 and 4.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from report_pages import put_evaluation, rollout

from critique_rl.config.durable_files import (
    LOGGED,
    append_jsonl,
    checksum_of,
    read_jsonl,
    with_checksum,
    write_json,
    write_yaml,
)
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.resolved_run import to_dict, with_seed
from critique_rl.config.run_folder import SCHEMA, PipelineFolder, RunFolder
from critique_rl.trainer.checkpoint import seal

PIPELINE = {
    "task": {"name": "lab/chain", "size": 12},
    "policy": {"model": "lab"},
    "trl": {"max_completion_length": 12, "save_steps": 2},
    "budget": {"optimizer_steps": 6},
    "seeds": [0, 1],
    "primary": "pass@1/plateau",
    "arms": {"scalar": {}, "critique": {"critic": {"kind": "oracle"}}},
}
INPUTS = {"torch": "2", "prompts/lab/refine": "0a" * 16, "data/train": f"12 rows, {'0b' * 16}"}
STEPS = 5


def make(folder: Path) -> tuple[Path, PipelineFolder]:
    """Write the pipeline's file and its results into a new folder."""
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(PIPELINE))
    results = PipelineFolder(folder / "runs" / "small")
    for arm, config in load_pipeline(path, []).arms.items():
        for seed in (0, 1):
            run = results.run(arm, seed)
            about = {"schema": SCHEMA, "run_id": "0123456789ab", "arm": arm, "seed": seed}
            settings = to_dict(with_seed(config, seed))
            write_yaml(run.config, {**about, **settings, "inputs": INPUTS, "versions": {"trl": 1}})
            _put_logs(run)
            if (arm, seed) != ("critique", 1):
                put_evaluation(results, arm, seed, seed + (arm == "critique"))
                _finish(run)
    stopped = results.run("critique", 1)
    for step in (2, 4):
        _put_checkpoint(stopped, step)
    put_evaluation(results, "base", None, 0)
    write_json(
        results.base.evaluation, with_checksum(json.loads(results.base.evaluation.read_text()))
    )
    return path, results


def _row(step: int) -> dict:
    return {"loss": 0.1 * step, "reward": 0.5, "tokens/generated": 100 * step, "refine/logps": None}


def _put_logs(run: RunFolder) -> None:
    for step in range(1, STEPS + 1):
        row = {key: value for key, value in _row(step).items() if value is not None}
        append_jsonl(run.metrics, {"step": step, "seconds": 1.5 * step, **row})
        run.rollouts.mkdir(exist_ok=True)
        rows = [rollout(step=step), rollout(role="candidate", attempt=0, outcome="right")]
        table = pa.Table.from_pylist(rows)
        pq.write_table(table, run.rollouts / f"step{step:05d}-rank0.parquet")


def _finish(run: RunFolder) -> None:
    evaluation = json.loads(run.evaluation.read_text())
    evaluation[LOGGED] = checksum_of(read_jsonl(run.metrics))
    write_json(run.evaluation, with_checksum(evaluation))


def _put_checkpoint(run: RunFolder, step: int) -> None:
    checkpoint = run.checkpoints / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    history = [{**_row(done), "step": done} for done in range(1, step + 1)]
    state = {"global_step": step, "max_steps": 6, "log_history": history}
    (checkpoint / "trainer_state.json").write_text(json.dumps(state, sort_keys=True))
    (checkpoint / "model.safetensors").write_bytes(bytes(range(256)) * 8)
    (checkpoint / "optimizer.pt").write_bytes(bytes(range(200)))
    seal(checkpoint, {"kept_steps": [], "tokens": {"tokens/generated": 100 * step}})


# ---- damage --------------------------------------------------------------------------------------


def _at(content: bytes, share: float) -> int:
    return min(int(len(content) * share), max(0, len(content) - 1))


def _flip(path: Path, share: float) -> None:
    content = bytearray(path.read_bytes() or b"0")
    content[_at(content, share)] ^= 1 << (int(share * 8000) % 8)
    path.write_bytes(content)


def _cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: _at(content, share)])


def _zeros(path: Path, share: float) -> None:
    content = path.read_bytes()
    at = _at(content, share)
    path.write_bytes(content[:at] + b"\0" * 64 + content[at + 64 :])


def _insert(path: Path, share: float) -> None:
    content = path.read_bytes()
    at = _at(content, share)
    path.write_bytes(content[:at] + b'\xff\x00{"step": [1e999]}\n"' + content[at:])


def _repeat(path: Path, share: float) -> None:
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    at = int(len(lines) * share) % len(lines)
    path.write_bytes(b"".join([*lines[: at + 1], lines[at], *lines[at + 1 :]]))


def _folder(path: Path, share: float) -> None:
    path.unlink()
    path.mkdir()


def _link(path: Path, share: float) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _pipe(path: Path, share: float) -> None:
    path.unlink()
    os.mkfifo(path)


def _value(path: Path, share: float) -> None:
    """Another kind of value at one place of a JSON or YAML file, which is still one."""
    if path.suffix not in (".json", ".yaml", ".jsonl"):
        return
    others = [None, [], {}, "x", -1, 1e308, True, [[1]], {"a": {"b": None}}, "2021-01-01"]
    other = others[int(share * 997) % len(others)]
    text = path.read_text()
    if path.suffix == ".jsonl":
        lines = text.splitlines()
        at = int(len(lines) * share) % len(lines)
        lines[at] = json.dumps(_with(json.loads(lines[at]), share, other))
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps(_with(json.loads(text), share, other)))
    else:
        path.write_text(yaml.safe_dump(_with(yaml.safe_load(text), share, other)))


def _with(value, share: float, other):
    """The value with one of its parts, chosen by `share`, replaced."""
    parts = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not parts:
        return other
    key = parts[int(share * 7919) % len(parts)]
    inner = value[key]
    if isinstance(inner, dict | list) and int(share * 104729) % 3:
        value[key] = _with(inner, (share * 31) % 1, other)
    else:
        value[key] = other
    return value


DAMAGES: dict[str, Callable[[Path, float], None]] = {
    "flip": _flip,
    "cut": _cut,
    "empty": lambda path, _: path.write_bytes(b""),
    "zeros": _zeros,
    "insert": _insert,
    "repeat": _repeat,
    "value": _value,
    "delete": lambda path, _: path.unlink(),
    "folder": _folder,
    "link": _link,
    "pipe": _pipe,
}
BYTES = ("flip", "cut", "empty", "zeros", "insert", "repeat")
"""Damage of a disk, which checksums tell wherever they are."""


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def copy(made: Path, target: Path) -> PipelineFolder:
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(made, target)
    return PipelineFolder(target / "runs" / "small")
