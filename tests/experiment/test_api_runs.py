"""Whole runs with an api critic: it stops or goes on alike on every rank, limits are shared, the
key is in no file, and a local critic writes critiques.
"""

from __future__ import annotations

import json

import pytest
import ranks
import torch
import yaml
from fault_server import serving
from tiny_runs import SMALL

from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.api.endpoint import Caps
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.build import build_critic
from critique_rl.critic.chat import LocalChat
from critique_rl.tasks.load import load_task
from critique_rl.types import Attempt, Verdict

pytestmark = pytest.mark.processes
TASK = load_task(TaskConfig("lab/chain", size=60), 0)


def test_two_ranks_share_slots_and_caps_and_both_stop_where_the_critic_may_not_fail(
    tiny_policy, tmp_path
):
    arguments = [tiny_policy, str(tmp_path)]
    with serving() as server, serving() as broken:
        server.always = "slow"
        broken.always = "503"
        calls = [("two_ranks_api", [*arguments, server.url, broken.url])]
        ranks.run(tmp_path / "logs", calls)
        assert server.most_at_once == 2
        assert sum(server.tries.values()) == 15
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert first["stopped"] == second["stopped"]
    assert "on_failure is stop: http 503: down" in first["stopped"]
    rows = first["log"]
    names = ("critique/ok", "critique/cached", "critique/failed", "critique/skipped")
    for row in rows:  # 2 ranks * 6 rollouts
        assert row["critique/failed_rollouts"] == sum(row.get(name, 0) for name in names) == 12
    assert sum(row["critique/ok"] for row in rows) == 15
    assert rows[1]["critique/skipped/budget"] == rows[1]["critique/skipped"]
    with open_ledger(tmp_path / "skip" / "ledger.sqlite", Caps()) as ledger:
        assert ledger.spent()["requests"] == 15


def test_a_run_stops_with_the_reason_and_leaves_the_key_in_no_file(
    tiny_policy, tmp_path, monkeypatch, caplog, capfd
):
    with serving() as server:
        critic = {
            "kind": "api",
            "base_url": server.url,
            "model": "m",
            "on_failure": "stop",
            "deadline": 120,
            "caps": {"max_requests": 1000},
        }
        path, out = tmp_path / "small.yaml", tmp_path / "runs"
        path.write_text(
            yaml.safe_dump(
                {
                    **SMALL,
                    "policy": {"model": tiny_policy},
                    "critic": critic,
                    "arms": {"critique": {}},
                }
            )
        )
        monkeypatch.setenv("OPENAI_API_KEY", "sk-verysecret")
        caplog.set_level("DEBUG")
        given = ["train", str(path), "--arm", "critique", "--seed", "0", "--out", str(out)]
        server.always = "401"
        assert main(given) == 1
        output = capfd.readouterr().err
        assert "on_failure is stop: http 401: no: *** and so on" in output
        assert "the same command continues" in output
        server.always = "echo-key"
        assert (
            main([*given, "critic.deadline=130", "critic.caps.max_requests=2000"]) == 0
        )  # what changes no answer may be changed
        output += "".join(capfd.readouterr()) + caplog.text
    run = PipelineFolder(out / "small").run("critique", 0)
    assert sum(row.get("critique/ok", 0) for row in read_jsonl(run.metrics)) > 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {run.critic / "cache.sqlite", run.critic / "ledger.sqlite", run.config} <= set(files)
    assert "verysecret" not in output
    assert not any(b"verysecret" in file.read_bytes() for file in files)


def test_a_local_critic_writes_by_itself_and_leaves_the_policys_randomness_alone(tiny_policy):
    chat = LocalChat(tiny_policy, max_tokens=6, batch=2)
    conversations = [[{"role": "user", "content": f"{i}+1"}] for i in range(3)]
    torch.manual_seed(0)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    replies = chat.answer(conversations)
    assert torch.rand(1) == untouched
    assert chat.answer(conversations) == replies
    assert len({reply.text for reply in replies}) > 1
    assert all(reply.status == "ok" or reply.reason in ("empty", "length") for reply in replies)
    assert all(
        0 < reply.usage.completion_tokens <= 6 and reply.usage.prompt_tokens > 3
        for reply in replies
    )
    assert LocalChat(tiny_policy, max_tokens=6, seed=1).answer(conversations) != replies
    assert chat.answer([]) == []
    (long,) = chat.answer([[{"role": "user", "content": "1" * 5000}]])
    assert (long.status, long.reason) == ("failed", "prompt_too_long")


def test_the_kind_local_is_a_chat_critic_on_a_model_of_its_own(tiny_policy):
    critic = build_critic({"kind": "local", "model": tiny_policy, "max_tokens": 5}, TASK)
    [critique] = critic.critique(
        [
            Attempt(
                "3 A-7",
                "#1",
                Verdict("wrong", "1"),
                {"question": "3 A-7", "answer": "-4", "family": "plateau"},
            )
        ]
    )
    assert critique.critic == "local"
    assert critique.usage.completion_tokens > 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"kind": "api", "base_url": "http://h/v1", "model": "m", "step_deadline": "1e1"},
            "critic api.step_deadline: got '1e1', expected float",
        ),
        (
            {"kind": "api", "base_url": "http://h/v1", "model": "m", "caps": {"max_dollars": 1}},
            "caps: unknown key 'max_dollars'",
        ),
        (
            {"kind": "api", "base_url": "http://h/v1", "model": "m", "caps": {"max_cost": 1.0}},
            "critic api: caps.max_cost: no call costs anything",
        ),
        (
            {"kind": "api", "base_url": "h/v1", "model": "m"},
            "critic api: base_url is 'h/v1'; give the address",
        ),
        (
            {"kind": "api", "base_url": "http://h/v1", "model": "m", "on_failure": "degrade"},
            "critic api: on_failure: got 'degrade', expected skip or stop",
        ),
        ({"kind": "local"}, "critic local: no 'model'"),
        ({"kind": "local", "model": "./nowhere"}, "critic local: .*'./nowhere' is no folder"),
        ({"kind": "local", "model": "lab", "max_tokens": 0}, "critic local: got max_tokens=0"),
        (
            {"kind": "local", "model": "lab", "dtype": "float17"},
            "critic local: dtype: got 'float17'",
        ),
    ],
)
def test_a_mistake_in_the_section_of_a_model_critic_is_named(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_critic(spec, TASK)


def test_a_run_without_its_key_is_refused_before_it_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    spec = {
        "kind": "api",
        "base_url": "https://api.example.com/v1",
        "model": "m",
        "api_key_env": "NO_SUCH_KEY",
    }
    build_critic(spec, TASK)
    with pytest.raises(ConfigError, match=r"NO_SUCH_KEY is not set"):
        build_critic(spec, TASK, 0, tmp_path)
