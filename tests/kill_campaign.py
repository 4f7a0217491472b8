"""SIGKILL the whole process tree of a campaign at random moments, give the same command again until
it ends, and compare everything with a campaign that nobody killed: weights, metrics, evaluations,
compare.json.

    OMP_NUM_THREADS=1 python tests/kill_campaign.py --kills 60

Two runs at a time, a critic behind a real server on loopback, an EMA teacher, an arm that branches
off, the best policy kept, evaluations, comparison and report. Campaigns are forked from a process
that has imported everything, because imports would take most of the time; they and their runs are
processes of their own. Each campaign is killed three times.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil
import yaml
from kill_and_resume import WALL, serve
from waiting import wait_until

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "OPENAI_API_KEY": "none",
    }
)

PER_CAMPAIGN = 3
PIPELINE = {
    "task": {"name": "lab/chain", "size": 24},
    "preset": "mixed",
    "critic": {"kind": "api", "model": "words"},
    "trl": {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 12,
        "learning_rate": 1e-3,
        "save_steps": 3,
    },
    "budget": {"optimizer_steps": 16},
    "evaluation": {
        "problems": 6,
        "samples": 4,
        "ks": [1, 4],
        "curve_every": 4,
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
        "branch": {"branch_from": {"arm": "scalar", "at": 8}},
    },
}


def start(path: Path, out: Path) -> int:
    """Fork a campaign; returns its pid."""
    from critique_rl.cli.entry import main
    from critique_rl.experiment import processes

    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = os.open(out.parent / f"{out.name}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        # The server that runs are forked from would import everything again.
        processes.context = lambda: multiprocessing.get_context("fork")
        status = main(["run", str(path), "--out", str(out), "--jobs", "2"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def finish(path: Path, out: Path) -> None:
    """Run to the end; the log is shown where it fails."""
    _, status = os.waitpid(start(path, out), 0)
    if status:
        sys.exit(f"failed ({status}):\n{(out.parent / f'{out.name}.log').read_text()[-3000:]}")


def kill_tree(pid: int, delay: float, alone: bool = False) -> bool:
    """SIGKILL a campaign after `delay` seconds, and all below it unless it is to die alone.

    False if it had ended by then.
    """
    end = time.monotonic() + delay
    while time.monotonic() < end:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"the campaign failed ({status}); see its log"
            return False
        time.sleep(0.002)
    campaign = psutil.Process(pid)
    # Stopped first: it can start no further run while the others are killed.
    campaign.suspend()
    tree = [] if alone else campaign.children(recursive=True)
    for process in [campaign, *tree]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os.waitpid(pid, 0)
    wait_until(lambda: not any(map(alive, tree)), "its runs to end")
    return True


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def state(folder: Path) -> str:
    """What a campaign was at when it was killed, by its files."""
    if (folder / "report.html").exists():
        return "after the report"
    if (folder / "compare.json").exists():
        return "report"
    evaluated = len(list(folder.glob("*/seed*/eval.json")))
    trained = len(list(folder.glob("*/seed*/model/model.safetensors")))
    if not list(folder.glob("*/seed*/metrics.jsonl")):
        return "start and base"
    if trained > evaluated:
        return "evaluation"
    return f"training, {evaluated} runs finished"


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


def result(out: Path) -> dict:
    """All that must be equal, but for the time it took."""
    from critique_rl.config.durable_files import read_jsonl

    folder = out / "small"
    got = {"compare.json": without_times(json.loads((folder / "compare.json").read_text()))}
    for path in sorted(folder.glob("*/seed*/eval.json")):
        run = path.parent
        rows = read_jsonl(run / "metrics.jsonl")
        weights = (run / "model" / "model.safetensors").read_bytes()
        evaluation = json.loads(path.read_text())
        got[f"{run.parent.name}/{run.name}"] = {
            "rows": {
                str(place): {key: value for key, value in row.items() if key not in WALL}
                for place, row in enumerate(rows)
            },
            "evaluation": without_times(evaluation),
            "weights": hashlib.sha256(weights).hexdigest(),
            "tables": sorted(table.name for table in (run / "rollouts").iterdir()),
        }
    got["base"] = without_times(json.loads((folder / "base" / "eval.json").read_text()))
    return got


def write_policy(folder: Path) -> str:
    """Write a tiny policy into a folder, which is returned."""
    import torch

    from critique_rl.lab.base import Recipe, build_model, build_tokenizer

    torch.set_num_threads(1)
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def prepare(folder: Path, port: int) -> Path:
    """Write a tiny policy and the pipeline's file."""
    path = folder / "small.yaml"
    critic = {**PIPELINE["critic"], "base_url": f"http://127.0.0.1:{port}/v1"}
    policy = {"model": write_policy(folder / "policy")}
    path.write_text(yaml.safe_dump({**PIPELINE, "critic": critic, "policy": policy, "seeds": [0]}))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--alone", action="store_true", help="its runs live on")
    arguments = parser.parse_args()
    port = multiprocessing.Value("i", 0)
    server = multiprocessing.get_context("fork").Process(target=serve, args=(port,), daemon=True)
    server.start()
    wait_until(lambda: port.value, "the server to listen")

    import critique_rl.experiment.train  # noqa: F401  imported once, before the forks

    folder = Path(tempfile.mkdtemp())
    rng = random.Random(arguments.seed)
    path = prepare(folder, port.value)
    began = time.monotonic()
    finish(path, folder / "whole")
    seconds = time.monotonic() - began
    wanted = result(folder / "whole")
    struck: Counter[str] = Counter()
    kills = equal = 0
    while kills < arguments.kills:
        out = folder / f"killed{kills}"
        here = []
        for _ in range(min(PER_CAMPAIGN, arguments.kills - kills)):
            if kill_tree(start(path, out), rng.uniform(0, seconds), arguments.alone):
                here.append(state(out / "small"))
            else:
                break
        if not here:
            shutil.rmtree(out, ignore_errors=True)
            continue
        finish(path, out)
        wrong = difference(result(out), wanted)
        kills += len(here)
        equal += 0 if wrong else len(here)
        struck.update(here)
        print(f"{kills:3} kills: {', '.join(here)}: {wrong or 'equal'}", flush=True)
        if wrong:
            shutil.copytree(out, Path(tempfile.mkdtemp()) / "unequal")
        shutil.rmtree(out)
    print(
        f"{equal} of {kills} equal; struck in {dict(struck)}; a whole campaign took {seconds:.0f} "
        f"s, all of it {time.monotonic() - began:.0f} s"
    )
    shutil.rmtree(folder)
    server.terminate()
    sys.exit(0 if equal == kills else 1)


if __name__ == "__main__":
    main()
