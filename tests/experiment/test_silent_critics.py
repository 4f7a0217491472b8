"""Arms whose critic answers nothing usable: sentence, page, card and exit status say so."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack

import pytest
from fault_server import serving
from tiny_runs import SMALL, cli, write_pipeline

from critique_rl.config.run_folder import PipelineFolder

pytestmark = pytest.mark.processes
REASONS = {
    "dead": "skipped: circuit open",
    "failing": "skipped: circuit open",
    "long": "failed: prompt too long",
    "no_room": "skipped: prompt too long",
    "capped": "skipped: budget",
}
"""Arm -> the commonest reason, or one of them."""


def api(url: str, **options) -> dict:
    return {"kind": "api", "base_url": url, "model": "m", "attempts": 1, **options}


@pytest.fixture(scope="module")
def campaign(tiny_policy, tmp_path_factory):
    """(the finished command, the pipeline's file, its folder, arm -> calls that a server got)"""
    folder = tmp_path_factory.mktemp("silent")
    with ExitStack() as stack:
        # Bound, and nobody listens: a connection is refused.
        bound = stack.enter_context(socket.socket())
        bound.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{bound.getsockname()[1]}/v1"
        names = ("failing", "long", "no_room", "capped", "good")
        servers = {name: stack.enter_context(serving()) for name in names}
        servers["failing"].always = "500"
        servers["long"].always = "too-long"
        prices = {"prompt_price": 1.0, "completion_price": 1.0, "caps": {"max_cost": 0.000001}}
        critics = {
            "dead": api(dead, circuit_failures=4),
            "failing": api(servers["failing"].url, concurrency=1),
            "long": api(servers["long"].url),
            "no_room": api(servers["no_room"].url),
            "capped": api(servers["capped"].url, **prices),
            "good": api(servers["good"].url),
        }
        arms = {"scalar": {}} | {arm: {"critic": critic} for arm, critic in critics.items()}
        # Room for a refine prompt, or else the run would be refused, and none for these critiques.
        arms["no_room"]["method"] = {"max_refine_prompt_length": 40}
        changes = {
            "arms": arms,
            "budget": {"optimizer_steps": 2},
            "evaluation": {**SMALL["evaluation"], "curve_every": 0},
        }
        path = write_pipeline(folder, tiny_policy, **changes)
        done = cli("run", path, "--jobs", 2, "--out", folder / "runs")
        calls = {name: sum(server.tries.values()) for name, server in servers.items()}
    return done, path, PipelineFolder(folder / "runs" / "small"), calls


def counts(folder: PipelineFolder, arm: str) -> dict:
    return json.loads(folder.comparison.read_text())["arms"][arm]["critiques"]


@pytest.mark.parametrize("arm", REASONS)
def test_an_arm_without_critiques_is_no_critique_arm_wherever_a_verdict_stands(campaign, arm):
    done, _, folder, _ = campaign
    sentence = f"{arm} is not a critique arm: "
    assert sentence in " ".join(done.stdout.split())
    assert sentence in done.stderr
    page, document = folder.report.read_text(), folder.markdown.read_text()
    for text in (page, document.replace("\\_", "_")):
        assert sentence in text
        assert REASONS[arm] in text
    rows = [row for row in folder.latex.read_text().splitlines() if "not a critique arm" in row]
    assert arm in {row.partition(" &")[0].replace("\\_", "_") for row in rows}
    card = (folder.run(arm, 0).model / "README.md").read_text()
    assert "not a critique arm" in card
    assert REASONS[arm] in card
    counted = counts(folder, arm)
    assert counted["asked"] == counted["failed"] + counted["skipped"] > 8
    assert sum(counted["reasons"].values()) == counted["asked"]


def test_the_exit_status_of_every_verdict_is_1(campaign):
    done, path, folder, _ = campaign
    assert done.returncode == 1, done.stderr
    assert "see " not in done.stderr  # no run failed
    for command in ("compare", "report"):
        again = cli(command, path, "--out", folder.path.parent)
        assert again.returncode == 1
        assert "dead is not a critique arm" in again.stderr


def test_what_an_open_circuit_or_a_cap_kept_from_being_sent_is_counted(campaign):
    _, _, folder, calls = campaign
    assert calls["failing"] == 8  # circuit_failures
    assert counts(folder, "failing")["reasons"]["failed: http 500"] == 8
    assert counts(folder, "dead")["reasons"]["failed: connection"] >= 4
    assert calls["capped"] == 0


def test_an_arm_whose_critic_answers_is_not_named(campaign):
    done, _, folder, _ = campaign
    assert "good is not" not in done.stdout
    good = counts(folder, "good")
    assert good["written"] == good["asked"] > 8
    card = (folder.run("good", 0).model / "README.md").read_text()
    assert f"critiques: {good['asked']} asked for, {good['asked']} written, 0 failed" in card
