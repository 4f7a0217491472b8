"""The critic of lab/chain: what it was trained on, what it is worth, and the same answers through
transformers' own server.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import pytest
import yaml
from waiting import SECONDS, wait_until

from critique_rl.config.checks import ConfigError
from critique_rl.config.schema import TaskConfig
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.build import build_critic
from critique_rl.critic.chat import ApiChat, LocalChat
from critique_rl.hashing import split_of
from critique_rl.lab import chain, critic_base
from critique_rl.policy import resolve_model
from critique_rl.prompts import render
from critique_rl.tasks.load import load_task
from critique_rl.types import Attempt

PIPELINES = Path(__file__).parents[2] / "pipelines"
TASK = load_task(TaskConfig("lab/chain", size=3), 0)


def failed(count: int) -> list[Attempt]:
    rng = random.Random(3)
    rows = [row for row in TASK.held_out("validation", count) if row["family"] == "plateau"]
    texts = [critic_base.wrong_attempt(chain.parse_problem(row["question"]), rng) for row in rows]
    return [
        Attempt(row["question"], text, TASK.verifier(text, row), row)
        for row, text in zip(rows, texts, strict=True)
    ]


def test_the_critic_learns_the_oracles_words_on_questions_of_its_split() -> None:
    rng = random.Random(0)
    for _ in range(150):
        prompt, critique = critic_base.example(critic_base.RECIPE, rng)
        question, *attempt, mark = prompt.split("\n")
        problem = chain.parse_problem(question)
        text = "\n".join(attempt)
        assert split_of(question, chain.SPLITS) == "base"
        assert mark == "?"
        assert TASK.verifier(text, {"question": question, "answer": problem.answer}).failed
        assert critique == chain.oracle_critique(question)
        assert prompt == render("lab/critique", question=question, attempt=text), (
            "question and attempt are all it is told"
        )


def test_the_committed_critic_is_mostly_right_and_costs_its_prices() -> None:
    attempts = failed(100)
    critic = build_critic(
        {
            "kind": "local",
            "model": "lab/critic",
            "temperature": 0,
            "max_tokens": 96,
            "prompt_price": 1.0,
            "completion_price": 10.0,
        },
        TASK,
    )
    critiques = critic.critique(attempts)
    same = sum(
        critique.text == TASK.oracle(attempt)
        for critique, attempt in zip(critiques, attempts, strict=True)
    )
    assert 0.5 < same / len(attempts) < 1.0
    usage = critiques[0].usage
    assert usage.usd == pytest.approx((usage.prompt_tokens + 10 * usage.completion_tokens) / 1e6)
    assert usage.usd > 0
    with pytest.raises(ConfigError, match="prompt_price"):
        build_critic({"kind": "local", "model": "lab/critic", "prompt_price": -1}, TASK)


def test_the_pipeline_asks_the_server_for_its_model_as_the_local_arm_does() -> None:
    arms = yaml.safe_load((PIPELINES / "critics.yaml").read_text())["arms"]
    local, api = arms["local"]["critic"], arms["api"]["critic"]
    assert api["model"] == Path(resolve_model(local["model"])).name
    assert api["base_url"] == f"http://{serve_lab().HOST}:8012/v1"
    assert {key: api[key] for key in local if key not in ("kind", "model")} == {
        key: local[key] for key in local if key not in ("kind", "model")
    }


@pytest.mark.processes
def test_transformers_own_server_answers_as_the_model_in_this_process_does(
    tmp_path, monkeypatch
) -> None:
    pytest.importorskip("fastapi", reason="pip extra `serve`")
    monkeypatch.chdir(tmp_path)  # the server changes its folder
    server = serve_lab().start("lab/critic", 0, background=True)
    try:
        wait_until(lambda: server.server.started, "the server to listen")
        port = server.server.servers[0].sockets[0].getsockname()[1]
        patient = {"attempt_deadline": SECONDS, "deadline": SECONDS, "step_deadline": SECONDS}
        conversations = [
            [
                {
                    "role": "user",
                    "content": render("lab/critique", question=a.question, attempt=a.text),
                }
            ]
            for a in failed(6)
        ]
        settings = {"temperature": 0.0, "max_tokens": 96}
        url = f"http://127.0.0.1:{port}/v1"
        served = ApiChat(Endpoint(url, "critic", **settings, **patient)).answer(conversations)
        local = LocalChat("lab/critic", **settings).answer(conversations)
        another = ApiChat(Endpoint(url, "another", **settings, **patient))
        [refused] = another.answer(conversations[:1])
    finally:
        server.kill_server()
    assert [reply.text for reply in served] == [reply.text for reply in local]
    assert all(reply.status == "ok" for reply in served)
    counted = [
        [(reply.usage.prompt_tokens, reply.usage.completion_tokens) for reply in replies]
        for replies in (served, local)
    ]
    assert counted[0] == counted[1]
    assert refused.status == "failed"
    assert "400" in refused.reason


def serve_lab():
    spec = importlib.util.spec_from_file_location("serve_lab", PIPELINES / "serve_lab.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
