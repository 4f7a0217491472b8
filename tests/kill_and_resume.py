"""SIGKILL a run at random moments, run the same command again, and compare with the run nobody
killed: series, tokens and final weights must be equal. Nor may a kill cost more than the critic's
calls that were out: what was answered is read from the run's cache, and counted as it was the first
time.

    OMP_NUM_THREADS=1 python tests/kill_and_resume.py --kills 50 [--turns 3] [--staleness 1]
        [--share .5]

The run is small and has everything a checkpoint must hold: several updates a generation, an EMA
teacher, four epochs, a critic behind a real server on loopback, and a checkpoint each generation.
Half of the kills strike at any moment; the others wait for a named phase first. Runs are forked
from a process that has imported everything, because imports would take most of the time; each is a
process of its own and ends with SIGKILL.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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

PHASES = ("start", "generation", "critic", "training", "checkpoint", "evaluation", "epoch 2")
IN_FLIGHT = 8
"""Calls that may be out at a kill: the endpoint's concurrency."""
WALL = ("seconds", "step_time", "critique/seconds")
PIPELINE = {
    "task": {"name": "lab/chain", "size": 12},
    "preset": "mixed",
    "critic": {"kind": "api", "model": "words"},
    "method": {"distill_teacher": "ema"},
    "trl": {
        "num_generations": 4,
        "per_device_train_batch_size": 4,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "max_completion_length": 12,
    }
    | {
        "learning_rate": 1e-3,
        "save_steps": 4,
        "save_total_limit": 2,
        "gradient_accumulation_steps": 1,
    },
    "budget": {
        "optimizer_steps": 92
    },  # 6 generations of 2 prompts an epoch, 4 steps each: almost 4 epochs
    "evaluation": {
        "problems": 3,
        "samples": 2,
        "ks": [1],
        "curve_every": 8,
        "curve_problems": 2,
        "curve_samples": 1,
    },
    "seeds": [0],
    "primary": "pass@1/plateau",
    "arms": {"critique": {}},
}


class Words(BaseHTTPRequestHandler):
    """A critic whose words depend on the question and attempt alone."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked = body["messages"][-1]["content"]
        time.sleep(0.05)
        first_byte = hashlib.sha256(asked.encode()).digest()[0]
        words = f"A: {('sign', 'minus', 'carry', 'borrow')[first_byte % 4]} lost"
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": words},
            "finish_reason": "stop",
        }
        usage = {
            "prompt_tokens": len(asked),
            "completion_tokens": len(words),
            "total_tokens": len(asked) + len(words),
        }
        reply = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "words",
                "choices": [choice],
                "usage": usage,
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_) -> None:
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        """A killed run does not wait for its answer."""


def serve(port) -> None:
    server = Server(("127.0.0.1", 0), Words)
    port.value = server.server_port
    server.serve_forever()


def spied(phase) -> None:
    """In the forked run: note in shared memory what the trainer is doing, for kills that wait for a
    phase, and for the count of what was struck.
    """
    from critique_rl.experiment import evaluate
    from critique_rl.trainer.critique_grpo import CritiqueGRPOTrainer
    from critique_rl.trainer.rollout.critiques import CriticTurn

    def mark(owner, name: str, value: str) -> None:
        original = getattr(owner, name)

        def noted(*args, **kwargs):
            before = phase.value
            phase.value = PHASES.index(value)
            try:
                return original(*args, **kwargs)
            finally:
                phase.value = before

        setattr(owner, name, noted)

    mark(CritiqueGRPOTrainer, "_generate_and_score_completions", "generation")
    mark(CriticTurn, "_answers_of", "critic")
    mark(CritiqueGRPOTrainer, "_compute_loss", "training")
    mark(CritiqueGRPOTrainer, "_save_checkpoint", "checkpoint")
    mark(evaluate, "judge", "evaluation")


def start(path: Path, out: Path, phase) -> int:
    """Fork a run of the pipeline's one arm; returns its pid."""
    from critique_rl.cli.entry import main

    pid = os.fork()
    if pid:
        return pid
    log = os.open(out.parent / f"{out.name}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    spied(phase)
    status = 1
    try:
        status = main(["train", str(path), "--arm", "critique", "--seed", "0", "--out", str(out)])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def finish(path: Path, out: Path, phase) -> None:
    """Run to the end; the log is shown where it fails."""
    _, status = os.waitpid(start(path, out, phase), 0)
    if status:
        sys.exit(
            f"the run failed ({status}):\n{(out.parent / f'{out.name}.log').read_text()[-3000:]}"
        )


def kill(pid: int, ready: Callable[[], bool], delay: float) -> bool:
    """SIGKILL `delay` seconds after `ready`; False if the run had ended by then."""
    while not ready():
        if os.waitpid(pid, os.WNOHANG)[0]:
            return False
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def result(out: Path) -> dict:
    """What must be equal: every step's metrics but wall times, the evaluation but its time, and the
    bytes of the weights.
    """
    from critique_rl.config.durable_files import read_jsonl
    from critique_rl.config.run_folder import PipelineFolder

    run = PipelineFolder(out / "small").run("critique", 0)
    rows = [
        {key: value for key, value in row.items() if key not in WALL}
        for row in read_jsonl(run.metrics)
    ]
    evaluation = json.loads(run.evaluation.read_text())
    evaluation["cost"].pop("wall_seconds")
    weights = hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()
    return {"rows": rows, "evaluation": evaluation, "weights": weights}


def requests(out: Path) -> int:
    """What the critic's ledger counts over all processes of a run."""
    from critique_rl.config.run_folder import PipelineFolder
    from critique_rl.critic.api.endpoint import Caps
    from critique_rl.critic.api.ledger import open_ledger

    with open_ledger(
        PipelineFolder(out / "small").run("critique", 0).critic / "ledger.sqlite", Caps()
    ) as ledger:
        return ledger.spent()["requests"]


def difference(got: dict, wanted: dict) -> str:
    """ "" where equal, else the first thing that is not."""
    for a, b in zip(got["rows"], wanted["rows"], strict=False):
        names = [name for name in {*a, *b} if a.get(name) != b.get(name)]
        if names:
            return f"step {b['step']}: " + ", ".join(
                f"{name} {a.get(name)} for {b.get(name)}" for name in sorted(names)[:4]
            )
    return next((name for name in wanted if got[name] != wanted[name]), "")


def moment(
    rng: random.Random, number: int, phase, metrics: Path, seconds: float
) -> tuple[Callable[[], bool], float]:
    """When to kill: (what to wait for, seconds after it)."""
    if number % 2 == 0:
        return (lambda: True), rng.uniform(0.05, 1.0) * seconds
    target = PHASES[1 + (number // 2) % (len(PHASES) - 1)]
    after = rng.choice((0, 0, 8, 24))
    first = 24 if target == "epoch 2" else after

    def ready() -> bool:
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        return lines >= first and (target == "epoch 2" or phase.value == PHASES.index(target))

    return ready, rng.uniform(0, 0.3 if target == "epoch 2" else 0.03)


def main(*words: str) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=92)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--staleness", type=int, default=0)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args(words)
    port, phase = multiprocessing.Value("i", 0), multiprocessing.Value("i", 0, lock=False)
    server = multiprocessing.get_context("fork").Process(target=serve, args=(port,), daemon=True)
    server.start()
    wait_until(lambda: port.value, "the server to listen")
    import torch

    import critique_rl.experiment.train  # noqa: F401  imported once, before the forks
    from critique_rl.lab.base import Recipe, build_model, build_tokenizer

    torch.set_num_threads(1)
    os.environ["OPENAI_API_KEY"] = "none"
    folder = Path(tempfile.mkdtemp())
    tokenizer = build_tokenizer()
    build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    path = folder / "small.yaml"
    rng = random.Random(arguments.seed)
    pipeline = {
        **PIPELINE,
        "policy": {"model": str(folder / "policy")},
        "budget": {"optimizer_steps": arguments.steps},
        "method": {
            **PIPELINE["method"],
            "refine_turns": arguments.turns,
            "critique_staleness": arguments.staleness,
            "critique_share": arguments.share,
        },
    }
    pipeline["critic"] = {**PIPELINE["critic"], "base_url": f"http://127.0.0.1:{port.value}/v1"}
    path.write_text(yaml.safe_dump(pipeline))
    began = time.monotonic()
    finish(path, folder / "whole", phase)
    seconds = time.monotonic() - began
    wanted = result(folder / "whole")
    asked = requests(folder / "whole")
    steps = [row["step"] for row in wanted["rows"]]
    assert steps == list(range(1, arguments.steps + 1))
    assert len({row["loss"] for row in wanted["rows"]}) > arguments.steps // 2
    turns = [f"refine/turn/{i + 1}/refined" for i in range(arguments.turns)]
    refined = [sum(row.get(name, 0) for row in wanted["rows"]) for name in turns]
    print(f"refinements by turn: {refined}", flush=True)
    assert arguments.turns == 1 or min(refined) > 0
    struck = Counter()
    unequal = []
    number = 0
    while sum(struck.values()) < arguments.kills:
        out = folder / f"killed{number}"
        phase.value = 0
        metrics = out / "small" / "critique" / "seed0" / "metrics.jsonl"
        pid = start(path, out, phase)
        killed = kill(pid, *moment(rng, number, phase, metrics, seconds))
        number += 1
        if not killed:
            shutil.rmtree(out)
            continue
        where = PHASES[phase.value]
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        struck[where] += 1
        finish(path, out, phase)
        wrong = difference(result(out), wanted)
        again = requests(out) - asked
        if not wrong and again > IN_FLIGHT:
            wrong = f"{again} requests more than without a kill"
        print(
            (
                f"kill {sum(struck.values()):3}: in {where}, after {lines} of {arguments.steps} "
                f"steps: {wrong or f'equal, {again} more requests'}"
            ),
            flush=True,
        )
        if wrong:
            unequal.append(number)
        shutil.rmtree(out)
    print(
        f"{arguments.kills - len(unequal)} of {arguments.kills} equal; struck in "
        f"{dict(struck)}; {time.monotonic() - began:.0f} s"
    )
    shutil.rmtree(folder)
    server.terminate()
    sys.exit(1 if unequal else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
