"""Lose nodes of a Ray cluster in the middle of a campaign, and compare everything with the same
campaign without Ray: weights, metrics, evaluations, compare.json.

    OMP_NUM_THREADS=1 python tests/ray_campaign.py

A cluster of two nodes with a CPU each runs on this machine, and a campaign of eight runs, two arms
and four seeds, joins it. A node is lost as soon as a run on it has saved a checkpoint, and another
one joins. The ways to lose one:

- raylet: SIGKILL to its raylet alone, which leaves Ray's worker and our run to themselves
- machine: SIGKILL to all its processes at once
- frozen: SIGSTOP to all its processes, as of a machine that hangs; SIGKILL once Ray gave it up
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from kill_campaign import difference, result
from waiting import LONG, exit_code, wait_until

from critique_rl.experiment.campaigns.node import CHILD

PIPELINE = {
    "task": {"name": "lab/chain", "size": 96},
    "policy": {"model": "lab"},
    "trl": {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 48,
        "learning_rate": 1e-4,
        "save_steps": 2,
    },
    "budget": {"optimizer_steps": 12},
    "evaluation": {
        "problems": 12,
        "samples": 4,
        "ks": [1, 4],
        "curve_every": 4,
        "curve_problems": 4,
        "curve_samples": 2,
    },
    "seeds": [0, 1, 2, 3],
    "primary": "pass@1/plateau",
    "arms": {"scalar": {}, "critique": {"preset": "mixed", "critic": {"kind": "oracle"}}},
}
WAYS = ("raylet", "machine", "frozen")


def campaign(path: Path, out: Path, *options: str) -> subprocess.Popen:
    """Start it, with its output in a file beside its results."""
    words = [sys.executable, "-m", "critique_rl", "run", str(path), "--out", str(out), *options]
    with out.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def finish(process: subprocess.Popen, out: Path) -> None:
    wait_until(lambda: exit_code(process) is not None, f"the campaign {out.name}", LONG)
    if process.returncode:
        sys.exit(f"failed ({process.returncode}):\n{out.with_suffix('.log').read_text()}")


def run_on(node: str, pipeline: Path, steps: dict[Path, int]) -> Path | None:
    """The folder of a run that trains on a node and has saved a checkpoint there, or None.

    `steps` has those of earlier nodes.
    """
    from critique_rl.config.run_folder import PipelineFolder
    from critique_rl.experiment.campaigns.ray_runs import newest_step

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            if CHILD not in words or "--arm" not in words or node_of(process) != node:
                continue
            arm = words[words.index("--arm") + 1]
            seed = words[words.index("--seed") + 1]
            run = PipelineFolder(pipeline).run(arm, int(seed))
            step = newest_step(run)
            if step > steps.get(run.path, 0) and not run.finished:
                steps[run.path] = step
                return run.path
    return None


def await_run(
    node: str, pipeline: Path, steps: dict[Path, int], started: subprocess.Popen
) -> Path | None:
    """`run_on`, once there is one; None where the campaign ends before."""

    def there() -> Path | bool | None:
        return run_on(node, pipeline, steps) or exit_code(started) is not None

    run = wait_until(there, f"a run to save a checkpoint on node {node}", LONG)
    return run if isinstance(run, Path) else None


def node_of(process: psutil.Process) -> str:
    """The id of the node that a process runs on, by its ancestor that is a raylet."""
    for parent in process.parents():
        for word in parent.cmdline():
            if word.startswith("--node_id="):
                return word.partition("=")[2]
    return ""


def lose(node, way: str) -> None:
    """Lose a node of the cluster, in one of the ways."""
    from critique_rl.experiment.campaigns.cluster import living_nodes

    [raylet] = node.all_processes["raylet"]
    pid = raylet.process.pid
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    if way == "raylet":
        tree = tree[:1]
    number = signal.SIGSTOP if way == "frozen" else signal.SIGKILL
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    if way == "frozen":
        wait_until(lambda: node.node_id not in living_nodes(), "Ray to give the node up")
        # As long as a server of shared storage might keep the lock.
        time.sleep(3)
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ways", default=",".join(WAYS), help="a node is lost in each of these")
    ways = parser.parse_args().ways.split(",")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    folder = Path(tempfile.mkdtemp())
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(PIPELINE))
    began = time.monotonic()
    finish(campaign(path, folder / "plain", "--jobs", "2"), folder / "plain")
    plain_seconds = time.monotonic() - began
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    ray.init(address=cluster.address, logging_level="ERROR", log_to_driver=False)
    # Ray prints what happens to nodes there.
    terminal, sys.stdout = sys.stdout, io.StringIO()
    began = time.monotonic()
    out = folder / "ray"
    started = campaign(path, out, "--on", "ray", "--address", cluster.address)
    lost = 0
    steps: dict[Path, int] = {}
    for way in ways:
        node = cluster.add_node(num_cpus=1)
        run = await_run(node.node_id, out / "small", steps, started)
        if run is None:
            break
        lost += 1
        print(f"{way}: lost a node while {run.relative_to(out)} trained", file=terminal, flush=True)
        lose(node, way)
    cluster.add_node(num_cpus=1)
    finish(started, out)
    seconds = time.monotonic() - began
    ray.shutdown()
    cluster.shutdown()
    sys.stdout = terminal
    log = out.with_suffix(".log").read_text()
    continued = re.findall(r"^\S+: node \S+ (?:lost|stopped).*", log, re.MULTILINE)
    print("\n".join(continued))
    wanted = result(folder / "plain")
    got = result(out)
    wrong = difference(got, wanted)
    resumed = sum("continues from step" in line for line in continued)
    print(
        f"{len(got) - 2} runs, their base and compare.json: {wrong or 'equal, wall times aside'}; "
        f"{lost} nodes lost, {len(continued)} runs given to Ray again, {resumed} of them from a "
        f"checkpoint; {plain_seconds:.0f} s without Ray, {seconds:.0f} s on Ray"
    )
    if wrong:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
