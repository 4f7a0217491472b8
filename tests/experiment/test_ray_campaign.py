"""Campaigns on Ray: errors before a cluster is needed, and a real cluster of one CPU on this
machine, where Ray is installed (`make test-ray`). Lost nodes: `tests/ray_campaign.py`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kill_campaign import without_times
from tiny_runs import cli, write_pipeline
from waiting import gone, wait_until

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.folder_lock import is_locked
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.campaigns import cluster, node, ray_runs
from critique_rl.experiment.campaigns.cluster import Share, check_room, room
from critique_rl.experiment.campaigns.node import Request, sharing_fault
from critique_rl.experiment.campaigns.ray_runs import RayOptions, RayRuns
from critique_rl.experiment.progress import Job

PARENT = """
import os, subprocess, sys, time
code = "import os, time; from critique_rl.experiment.campaigns.child import die_with; "
code += f"die_with({os.getpid()}); print(os.getpid(), flush=True); time.sleep(999)"
subprocess.run([sys.executable, "-c", code])
"""


# ---- without Ray ---------------------------------------------------------------------------------


def test_without_ray_the_error_names_the_extra_and_nothing_is_written(
    tmp_path, tiny_policy, monkeypatch, capsys
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    path = write_pipeline(tmp_path, tiny_policy)
    assert main(["run", str(path), "--out", str(tmp_path / "runs"), "--on", "ray"]) == 2
    assert "pip install 'critique_rl[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--address", "head:6379"], "--address is for runs on Ray; give --on ray too"),
        (["--gpus-per-run", "1"], "--gpus-per-run is for runs on Ray"),
        (["--on", "ray", "--cpus-per-run", "0"], "--cpus-per-run: got 0, expected 1 or more"),
        (["--on", "ray", "--gpus-per-run", "2"], "critique-rl plan --accelerate"),
        (["--on", "ray", "--gpus-per-run", "nan"], "--gpus-per-run: got nan, expected 0 to 1"),
        (["--on", "ray", "--jobs", "0"], "--jobs: got 0, expected 1 or more"),
    ],
)
def test_options_of_ray_are_looked_at_first(words, error, capsys) -> None:
    assert main(["run", "pipelines/quickstart.yaml", *words]) == 2
    assert error in capsys.readouterr().err


def test_runs_per_node_follow_from_its_cpus_and_whole_gpus() -> None:
    big = {"CPU": 8.0, "GPU": 2.0}
    assert room(big, Share(1, 0)) == 8
    assert room(big, Share(3, 0)) == 2
    assert room(big, Share(1, 1)) == 2
    assert room(big, Share(1, 0.4)) == 4  # two on each GPU, not five on both
    assert room({"CPU": 8.0}, Share(1, 1)) == 0
    assert check_room({"a": big, "b": {"CPU": 1.0}}, Share(1, 0)) == 9


def test_a_share_that_no_node_has_is_refused_with_what_nodes_have() -> None:
    nodes = {"a": {"CPU": 2.0}, "b": {"CPU": 8.0, "GPU": 1.0}}
    with pytest.raises(ConfigError, match="no node has 4 CPUs and 1 GPUs") as refusal:
        check_room({"a": {"CPU": 2.0}, "b": {"CPU": 2.0, "GPU": 1.0}}, Share(4, 1))
    assert "2 CPUs and 0 GPUs, 2 CPUs and 1 GPUs" in str(refusal.value)
    assert check_room(nodes, Share(4, 1)) == 1


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("127.0.0.1:9", "--address: nothing answers at '127.0.0.1:9'"),
        ("nonsense", "--address: nothing answers at 'nonsense'"),
        ("ray://127.0.0.1:10001", "give this command on a node of the cluster"),
        ("auto", "--address: no Ray cluster runs on this machine"),
    ],
)
def test_an_address_where_no_cluster_is_gives_an_error_at_once(
    address, error, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ConfigError, match=error):
        cluster._target(address)


def test_a_cluster_that_was_killed_is_not_waited_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    # `ray start` writes it, and only `ray stop` removes it.
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    assert cluster._target(None) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ConfigError, match="RAY_ADDRESS: nothing answers"):
        cluster._target(None)


def test_a_node_without_the_folders_of_the_campaign_says_which(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(node, "SHARED_SECONDS", 0.0)
    request = Request(
        words=[],
        run=tmp_path,
        log=tmp_path / "log.txt",
        cwd=tmp_path,
        marks=tmp_path / "small" / ".ray" / "token",
        mark="task1",
        variables={},
    )
    fault = sharing_fault(request, "n2")
    assert f"on node n2 {tmp_path / 'small'} is not the folder of this machine" in fault
    request.marks.mkdir(parents=True)
    assert sharing_fault(request, "n2") == ""
    request.cwd.rename(tmp_path.with_name("elsewhere"))
    assert sharing_fault(request, "n2").startswith(f"node n2 does not have {tmp_path}")


@pytest.mark.processes
@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_a_run_dies_with_the_process_that_started_it() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert not gone(child)
    parent.kill()
    parent.wait()
    wait_until(lambda: gone(child), "the run to die")


# ---- on a cluster --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """host:port of a cluster of one node with one CPU."""
    pytest.importorskip("ray", reason="Ray is no package of `make install`: make test-ray")
    from ray.cluster_utils import Cluster

    started = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    yield started.address
    started.shutdown()


@pytest.fixture
def runs(address, tmp_path) -> Iterator[RayRuns]:
    joined = RayRuns(RayOptions(address), PipelineFolder(tmp_path / "runs" / "small"))
    joined.prepare()
    yield joined
    joined.close()


def start(runs: RayRuns, tmp_path: Path, *words: str) -> Job:
    run = PipelineFolder(tmp_path / "runs" / "small").run("scalar", 0)
    run.path.mkdir(parents=True)
    job = Job("scalar", 0, run, list(words))
    runs.start(job)
    return job


def start_long(runs: RayRuns, tmp_path: Path, policy: str) -> Job:
    """Start a run that does not end by itself, and wait until it trains."""
    path = write_pipeline(tmp_path, policy, budget={"optimizer_steps": 9999})
    place = ["--out", str(tmp_path / "runs")]
    job = start(runs, tmp_path, "train", str(path), *place, "--arm", "scalar", "--seed", "0")
    wait_for_step(runs, job)
    return job


def wait_for_step(runs: RayRuns, job: Job) -> None:
    before = job.folder.metrics.stat().st_size if job.folder.metrics.exists() else 0

    def stepped() -> bool:
        assert runs.take_ended(0.1) == [], job.folder.log.read_text()
        has_rows = job.folder.metrics.exists() and job.folder.metrics.stat().st_size > before
        return has_rows and job.status == "running"

    wait_until(stepped, "a step of the run")


def process_of(job: Job) -> psutil.Process:
    """The process that trains a job: the one below Ray's worker."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if node.CHILD in words and words[-len(job.command) :] == job.command:
            return process
    raise AssertionError("no such process")


@pytest.mark.trains
@pytest.mark.processes
def test_a_campaign_on_ray_compares_as_one_on_this_machine(address, tmp_path, tiny_policy) -> None:
    changes = {
        "arms": {"scalar": {}, "critique": {"preset": "mixed", "critic": {"kind": "oracle"}}}
    }
    path = write_pipeline(tmp_path, tiny_policy, **changes)
    here = cli("run", path, "--out", tmp_path / "here", OMP_NUM_THREADS="1")
    assert here.returncode == 0, here.stderr
    out = tmp_path / "there"
    there = cli(
        "run",
        path,
        "--out",
        out,
        "--on",
        "ray",
        "--address",
        address,
        "--json",
        OMP_NUM_THREADS="1",
    )
    assert there.returncode == 0, there.stderr
    compared = []
    for folder in (tmp_path / "here", out):
        text = (folder / "small" / "compare.json").read_text()
        compared.append(without_times(json.loads(text)))
    assert compared[0] == compared[1]
    json.loads(there.stdout)  # nothing of Ray's stands there
    assert f"Ray: joined the cluster at {address}: 1 nodes, room for 1 runs" in there.stderr
    assert "raylet" not in there.stderr
    assert not any((out / "small" / ".ray").glob("*/")), "notes of the campaign are removed"


@pytest.mark.processes
def test_a_share_that_the_cluster_lacks_is_refused_at_once(address, tmp_path) -> None:
    large = RayRuns(RayOptions(address, cpus=99), PipelineFolder(tmp_path))
    with pytest.raises(ConfigError, match="no node has 99 CPUs"):
        large.prepare()
    large.close()


@pytest.mark.processes
def test_a_run_that_fails_is_named_and_not_repeated(runs, tmp_path) -> None:
    job = start(runs, tmp_path, "compare", str(tmp_path / "missing.yaml"))
    ended = wait_until(lambda: runs.take_ended(0.1), "the command to fail")
    assert ended == [job]
    assert job.status == "failed (2)"
    assert job.folder.log.read_text().count("critique-rl: ") == 1
    assert runs.busy == 0


@pytest.mark.processes
def test_a_node_without_this_folder_ends_the_campaign(runs, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Path, "cwd", classmethod(lambda _: Path("/of/another/machine")))
    start(runs, tmp_path, "compare", "missing.yaml")
    with pytest.raises(ConfigError, match="does not have /of/another/machine, where this command"):
        wait_until(lambda: runs.take_ended(0.1), "the node to say so")


@pytest.mark.trains
@pytest.mark.processes
def test_a_lost_run_is_given_again_so_many_times(
    runs, tmp_path, tiny_policy, monkeypatch, capsys
) -> None:
    job = start_long(runs, tmp_path, tiny_policy)
    first = process_of(job)
    first.parent().kill()
    wait_until(lambda: gone(first.pid), "the run to die with its worker")
    wait_until(lambda: runs.take_ended(0.1) or job.status == "queued", "Ray to have it again")
    assert f"{job.name}: node " in capsys.readouterr().err
    wait_for_step(runs, job)
    second = process_of(job)
    assert second.pid != first.pid
    monkeypatch.setattr(ray_runs, "MOST_LOSSES", 1)
    second.parent().kill()
    assert wait_until(lambda: runs.take_ended(0.1), "it to be given up") == [job]
    assert job.status == "failed (lost its node 2 times without a new checkpoint)"


@pytest.mark.trains
@pytest.mark.processes
def test_a_stopped_campaign_saves_checkpoints_and_leaves_nothing(
    runs, tmp_path, tiny_policy
) -> None:
    job = start_long(runs, tmp_path, tiny_policy)
    queued = Job("scalar", 1, PipelineFolder(tmp_path / "runs").run("scalar", 1), ["compare", "x"])
    queued.folder.path.mkdir(parents=True)
    runs.start(queued)
    process = process_of(job)
    runs.stop()
    assert gone(process.pid)
    assert not is_locked(job.folder.path)
    assert "with a checkpoint; the same command continues" in job.folder.log.read_text()
    assert ray_runs.newest_step(job.folder) > 0
    assert not queued.folder.log.exists()


@pytest.mark.trains
@pytest.mark.processes
def test_a_second_ctrl_c_kills(runs, tmp_path, tiny_policy) -> None:
    job = start_long(runs, tmp_path, tiny_policy)
    process = process_of(job)
    # It hangs, so that it cannot heed the first.
    process.suspend()
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 2)
    with pytest.raises(KeyboardInterrupt):
        runs.stop()
    wait_until(lambda: gone(process.pid), "the run to be killed")


@pytest.mark.trains
@pytest.mark.processes
def test_keys_stay_where_they_are(runs, tmp_path, tiny_policy, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-tasks")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    job = start_long(runs, tmp_path, tiny_policy)
    variables = process_of(job).environ()
    assert variables.get("OPENAI_API_KEY") != "sk-not-for-tasks"
    assert variables["HF_HUB_OFFLINE"] == "1"
    assert variables["OMP_NUM_THREADS"] == os.environ.get("OMP_NUM_THREADS", "1")
    runs.stop()
