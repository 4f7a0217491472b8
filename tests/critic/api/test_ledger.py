"""Cache, ledger and limits: answers are kept and never paid twice, caps hold over processes and
kills, rates and the circuit are shared.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from benchmarks.budget_kill import spend_and_kill
from fault_server import serving
from waiting import SECONDS, ended

from critique_rl.critic.api.cache import cache_key, open_cache
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.api.limits import open_limits
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import CriticFailed, Reply
from critique_rl.trainer.rollout.generation import Generation, count_generation
from critique_rl.types import Critique, Usage

pytestmark = pytest.mark.processes
ENDPOINT = Endpoint("http://127.0.0.1:9/v1", "m")
PATIENT = 100.0
"""Seconds for a call that ends by itself, on a machine as busy as may be."""


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def ask(server, folder, *contents: str, **settings) -> list[Reply]:
    chat = ApiChat(Endpoint(server.url, "m", **{"deadline": PATIENT, **settings}), folder)
    return chat.answer([[{"role": "user", "content": content}] for content in contents])


# ---- cache ---------------------------------------------------------------------------------------


def test_what_was_asked_once_is_not_asked_again_and_costs_nothing(server, tmp_path):
    first, again = ask(server, tmp_path, "ok once"), ask(server, tmp_path, "ok once")
    assert server.tries["ok once"] == 1
    assert (first[0].cached, first[0].usage.prompt_tokens) == (False, 7)
    assert (again[0].text, again[0].cached, again[0].usage) == ("echo ok once", True, Usage())


def test_several_answers_to_one_question_are_several_samples(server, tmp_path):
    ask(server, tmp_path, "ok twice", "ok twice")
    assert server.tries["ok twice"] == 2
    assert [
        reply.cached for reply in ask(server, tmp_path, "ok twice", "ok twice", "ok twice")
    ] == [True, True, False]


def test_failures_are_not_kept(server, tmp_path):
    assert ask(server, tmp_path, "503:1 later", attempts=1)[0].status == "failed"
    assert ask(server, tmp_path, "503:1 later", attempts=1)[0].status == "ok"


def test_a_cache_may_be_shared_or_left_out(server, tmp_path):
    ask(server, tmp_path / "a", "ok shared", cache=str(tmp_path / "all.sqlite"))
    assert ask(server, tmp_path / "b", "ok shared", cache=str(tmp_path / "all.sqlite"))[0].cached
    assert not any(ask(server, tmp_path / "c", "ok alone", cache=False)[0].cached for _ in range(2))


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "http://127.0.0.1:8/v1"},
        {"model": "n"},
        {"temperature": 0.5},
        {"top_p": 0.5},
        {"max_tokens": 9},
        {"seed": 1},
        {"extra_body": {"a": 1}},
    ],
)
def test_everything_that_decides_an_answer_is_in_its_key(change):
    messages = [{"role": "user", "content": "x"}]
    keys = {
        cache_key(ENDPOINT, messages, 0),
        cache_key(replace(ENDPOINT, **change), messages, 0),
        cache_key(ENDPOINT, messages, 1),
        cache_key(ENDPOINT, [], 0),
    }
    assert len(keys) == 4
    assert cache_key(replace(ENDPOINT, deadline=1.0, concurrency=1), messages, 0) in keys


def test_the_first_answer_written_to_a_key_stays(tmp_path):
    with open_cache(tmp_path / "c") as one, open_cache(tmp_path / "c") as other:
        assert one.put("k", Reply("a")).text == "a"
        assert other.put("k", Reply("b", usage=Usage(5))) == Reply("a", usage=Usage(5))


def test_a_damaged_row_is_a_miss_that_is_counted_and_asked_again(tmp_path, capfd):
    with open_cache(tmp_path / "c") as cache:
        cache.put("k", Reply("a"))
        cache.put("l", Reply("b", reason="length"))
    sqlite3.connect(tmp_path / "c", isolation_level=None).execute(
        "UPDATE replies SET value = replace(value, 'a', 'z') WHERE key = 'k'"
    )
    with open_cache(tmp_path / "c") as cache:
        assert cache.get("k") is None
        assert cache.unread == 1
        assert cache.get("l") == Reply("b", reason="length")
        assert cache.put("k", Reply("c")) == Reply("c") == cache.get("k")
    assert "1 answers could not be read" in capfd.readouterr().err


@pytest.mark.parametrize("damage", ["head", "middle"])
def test_a_damaged_file_is_moved_aside_and_said(server, tmp_path, capfd, damage):
    path = tmp_path / "cache.sqlite"
    ask(server, tmp_path, *[f"ok damaged {damage} {i}" for i in range(60)])
    complete = path.read_bytes()
    half = len(complete) // 2
    damaged = complete[:4096] + b"\xff" * (len(complete) - 4096)
    if damage == "head":
        damaged = b"garbage" * 600 + complete[4200:]
    path.write_bytes(damaged)
    assert half > 4096
    again = ask(server, tmp_path, f"ok damaged {damage} 1")
    assert (again[0].status, again[0].cached) == ("ok", False)
    assert "is damaged; it was moved to" in capfd.readouterr().err
    assert list(tmp_path.glob("cache.sqlite.damaged-*"))
    assert (
        ask(server, tmp_path, f"ok damaged {damage} 1", f"ok damaged {damage} 2")[1].status == "ok"
    )


def _write(path, first: int) -> None:
    with open_cache(path) as cache:
        for i in range(first, first + 300):
            cache.put(str(i), Reply(f"text {i}"))


def test_processes_write_one_cache_at_once(tmp_path):
    processes = [
        multiprocessing.get_context("fork").Process(target=_write, args=(tmp_path / "c", 150 * i))
        for i in range(3)
    ]
    for process in processes:
        process.start()
    assert [ended(process, "a writer") for process in processes] == [0, 0, 0]
    with open_cache(tmp_path / "c") as cache:
        assert [cache.get(str(i)).text for i in range(600)] == [f"text {i}" for i in range(600)]


# ---- exact continuation --------------------------------------------------------------------------


def test_an_answer_paid_for_after_the_checkpoint_counts_once_more_as_it_did_then(server, tmp_path):
    chat = ApiChat(Endpoint(server.url, "m"), tmp_path)

    def step(content: str) -> tuple[bool, int]:
        (reply,) = chat.answer([[{"role": "user", "content": content}]])
        return reply.cached, reply.usage.prompt_tokens

    assert step("ok before") == (False, 7)
    checkpoint = json.loads(json.dumps(chat.state_dict()))
    lived = [step("ok after"), step("ok before"), step("ok after")]
    assert lived == [(False, 7), (True, 0), (True, 0)]
    for state, wanted in (
        (checkpoint, lived),
        (checkpoint, lived),
        ({}, [(False, 7), (False, 7), (True, 0)]),
        ({**checkpoint, "run": "other"}, lived[:1]),
    ):
        chat.load_state_dict(state)
        assert [
            step(content) for content in ("ok after", "ok before", "ok after")[: len(wanted)]
        ] == wanted
    assert server.tries["ok after"] == server.tries["ok before"] == 1


def test_an_answer_lost_before_it_was_kept_is_paid_again_and_owed_no_more(tmp_path):
    with open_ledger(tmp_path / "l", Caps()) as ledger:
        ledger.record_answer("k", Usage(1))
        ledger.rewind({})
        ledger.record_answer("k", Usage(2))  # asked again: it was not in the cache
        assert ledger.replay("k") is None


# ---- money ---------------------------------------------------------------------------------------


def test_a_reservation_is_bytes_and_sixteen_a_message_and_max_tokens_at_their_prices():
    endpoint = replace(ENDPOINT, max_tokens=100, prompt_price=1.0, completion_price=10.0)
    most = endpoint.max_usage(
        [{"role": "system", "content": "é"}, {"role": "user", "content": "abc"}]
    )
    assert (most.prompt_tokens, most.completion_tokens) == (37, 100)  # 2 + 3 bytes, 2 * 16
    assert most.usd == pytest.approx(1037e-6)


@pytest.mark.parametrize(
    ("caps", "sent"),
    # 1: each is 1 request. 2: a reservation is 8 + 16 + 10 = 34 tokens, settled at 10: the third
    # would make 20 + 34 > 50.
    # 3: the same in dollars, at 1 a million prompt tokens and 1 a million others.
    [
        ({"max_requests": 2}, 2),
        ({"max_tokens": 50}, 2),
        ({"max_cost": 50e-6}, 2),
        ({"max_requests": 0}, 0),
        ({"max_tokens": 33}, 0),
        ({"max_tokens": 34}, 1),
    ],
)
def test_a_call_that_does_not_fit_a_cap_is_not_sent(server, tmp_path, caps, sent):
    prices = {"prompt_price": 1.0, "completion_price": 1.0, "max_tokens": 10, "concurrency": 1}
    before = sum(server.tries.values())
    replies = [
        reply
        for i in range(4)
        for reply in ask(server, tmp_path, f"ok cap {i}", caps=Caps(**caps), **prices)
    ]
    assert sum(server.tries.values()) - before == sent
    assert [(r.status, r.reason) for r in replies] == [("ok", "")] * sent + [
        ("skipped", "budget")
    ] * (4 - sent)


def test_what_ended_without_a_report_stays_spent_at_its_reservation(server, tmp_path):
    settings = {"max_tokens": 10, "attempts": 1, "caps": Caps(max_tokens=1000)}
    ask(server, tmp_path, "hang a", deadline=3.0, **settings)  # 6 + 16 + 10 = 32
    ask(server, tmp_path, "reset a", **settings)  # 7 + 16 + 10 = 33
    ask(server, tmp_path, "400 a", **settings)  # refused: a request, no tokens
    ask(server, tmp_path, "empty a", **settings)  # reported: 7 + 3
    with open_ledger(tmp_path / "ledger.sqlite", Caps()) as ledger:
        assert ledger.spent() == {"requests": 4, "tokens": 75, "usd": 0.0, "open": 2}


@pytest.mark.parametrize(
    "reported",
    [
        "null",
        '{"prompt_tokens":0,"completion_tokens":0}',
        '{"prompt_tokens":-5,"completion_tokens":-9}',
        '{"prompt_tokens":NaN,"completion_tokens":Infinity}',
        '{"prompt_tokens":1000000000000,"completion_tokens":1}',
        '{"prompt_tokens":1,"completion_tokens":10000000000000000000}',
    ],
)
def test_an_answer_without_a_possible_usage_counts_at_its_reservation(server, tmp_path, reported):
    settings = {
        "max_tokens": 10,
        "prompt_price": 1.0,
        "completion_price": 1.0,
        "tokens_per_minute": 100_000,
    }
    content = f"usage {reported}"
    most = len(content) + 16 + 10
    [reply] = ask(server, tmp_path, content, **settings)
    assert (reply.text, sum((reply.usage.prompt_tokens, reply.usage.completion_tokens))) == (
        "counted",
        most,
    )
    with open_ledger(tmp_path / "ledger.sqlite", Caps()) as ledger:
        assert ledger.spent() == {
            "requests": 1,
            "tokens": most,
            "usd": pytest.approx(most * 1e-6),
            "open": 0,
        }
    counts = count_generation(
        Generation(critiques={0: Critique(reply.text, "api", usage=reply.usage)}), 1, 0
    )
    assert counts["critique/usage_estimated"] == 1
    assert counts["tokens/critic_prompt"] + counts["tokens/critic_completion"] == most
    assert ask(server, tmp_path, "ok after", **settings)[0].status == "ok"


def test_a_long_templates_usage_is_believed_and_no_answer_is_free(server, tmp_path):
    [reply] = ask(
        server, tmp_path, 'usage {"prompt_tokens":5000,"completion_tokens":300}', max_tokens=10
    )
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.estimated) == (
        5000,
        300,
        0,
    )
    [reply] = ask(server, tmp_path, "usage null", max_tokens=None)
    assert reply.usage.completion_tokens >= len("counted")
    assert reply.usage.estimated == 1


def test_64_calls_at_the_cap_and_a_kill_in_between_stay_under_the_cap(tmp_path):
    figures = spend_and_kill(tmp_path, conversations=64, concurrency=64, cap=4500)
    assert figures.killed
    assert 0 < figures.reported_at_kill < figures.reported <= figures.spent <= 4500
    assert figures.open > 32
    assert figures.skipped > 0


def test_a_ledger_that_cannot_be_read_stops_the_run_and_says_what_to_do(server, tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"garbage" * 1000)
    with pytest.raises(
        CriticFailed, match=r"ledger.sqlite cannot be read .* move it away to count from 0"
    ):
        ask(server, tmp_path, "ok x")


def test_a_ledger_that_was_emptied_or_lost_a_count_does_not_begin_at_0(server, tmp_path):
    path = tmp_path / "ledger.sqlite"
    ask(server, tmp_path, "ok counted")
    sqlite3.connect(path, isolation_level=None).execute("UPDATE spent SET tokens = NULL")
    with pytest.raises(CriticFailed, match=r"its counts are .* move it away to count from 0"):
        ask(server, tmp_path, "ok more")
    for tail in ("-wal", "-shm"):
        (tmp_path / f"ledger.sqlite{tail}").unlink(missing_ok=True)
    path.write_bytes(b"")
    with pytest.raises(CriticFailed, match=r"cannot be read \(it is empty\)"):
        ask(server, tmp_path, "ok more")


def _spend(path, count: int) -> None:
    for _ in range(count):
        with open_ledger(path, Caps()) as ledger:
            ledger.reserve(Usage(1))


def test_processes_that_begin_a_ledger_at_once_do_not_take_it_for_an_emptied_one(tmp_path):
    processes = [
        multiprocessing.get_context("fork").Process(target=_spend, args=(tmp_path / "l", 5))
        for _ in range(4)
    ]
    for process in processes:
        process.start()
    assert [ended(process, "a spender") for process in processes] == [0] * 4
    with open_ledger(tmp_path / "l", Caps()) as ledger:
        assert ledger.spent()["tokens"] == 20


def test_a_named_file_that_never_was_a_cache_is_refused_and_left_alone(server, tmp_path):
    notes = tmp_path / "notes.txt"
    notes.write_text("precious")
    for path in (notes, tmp_path):
        with pytest.raises(
            ValueError, match="exists and is no cache that can be read; give another path"
        ):
            Endpoint(server.url, "m", cache=str(path))
    assert notes.read_text() == "precious"
    (tmp_path / "new").touch()
    assert ask(server, tmp_path, "ok kept", cache=str(tmp_path / "new"))[0].status == "ok"
    assert ask(server, tmp_path, "ok kept", cache=str(tmp_path / "new"))[0].cached


@pytest.mark.parametrize("key", ["sk-abc\ndefgh", "sk-äöü-abcdef"])
def test_a_key_that_cannot_be_sent_is_an_error_that_does_not_show_it(
    server, tmp_path, monkeypatch, key
):
    monkeypatch.setenv("ODD_KEY", key)
    with pytest.raises(
        ValueError, match="ODD_KEY holds a line break, or another character"
    ) as refused:
        ask(server, tmp_path, "ok x", api_key_env="ODD_KEY")
    assert key[:6] not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, "give the address"),
        ({"base_url": "http://127.0.0.1:/"}, "give the address"),
        ({"base_url": "http://u:secret@h/v1"}, "password or a query; give it without"),
        ({"base_url": "http://h/v1?api-key=x"}, "password or a query"),
        ({"deadline": 0}, "deadline: got 0"),
        ({"step_deadline": float("inf")}, "step_deadline: got inf"),
        ({"attempts": 0}, "attempts: got 0"),
        ({"concurrency": 0}, "concurrency: got 0"),
        ({"requests_per_minute": -1}, "requests_per_minute: got -1"),
        ({"length_retry_factor": 0.5}, "length_retry_factor: got 0.5"),
        ({"prompt_price": -1.0}, "none negative"),
        ({"on_failure": "retry"}, "expected skip or stop"),
        ({"extra_body": {"n": 4}}, "expected a mapping without model, messages, n, stream"),
        ({"cache": 3}, "cache: got 3"),
        ({"caps": Caps(max_cost=1.0)}, "give prompt_price and completion_price"),
        ({"caps": Caps(max_tokens=100), "max_tokens": None}, "give max_tokens"),
        ({"caps": Caps(max_requests=-1)}, "caps.max_requests: got -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Endpoint(**{"base_url": "http://localhost/v1", "model": "m", **settings})


# ---- pace ----------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """The clock of limits and circuit breaker. It stands still: `clock.now += 1` moves it."""
    hands = SimpleNamespace(now=time.monotonic())
    still = SimpleNamespace(monotonic=lambda: hands.now)
    for module in ("limits", "circuit_breaker"):
        monkeypatch.setattr(f"critique_rl.critic.api.{module}.time", still)
    return hands


def test_requests_are_spread_over_the_minute_for_all_processes_together(tmp_path, clock):
    endpoint = replace(ENDPOINT, requests_per_minute=600)
    with open_limits(tmp_path, endpoint) as one, open_limits(tmp_path, endpoint) as other:
        waits = [limits.take_moment(1, 60.0) for limits in (one, other, one, other)]
    assert waits == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-5)  # one each 60 / 600 s


def test_tokens_are_spread_too_and_unused_ones_given_back(tmp_path, clock):
    with open_limits(tmp_path, replace(ENDPOINT, tokens_per_minute=6000)) as limits:
        assert limits.take_moment(1000, 60.0) == 0
        assert limits.take_moment(100, 60.0) == pytest.approx(
            10, abs=1e-5
        )  # 1000 tokens at 100 a second
        limits.give_back(900)
        assert limits.take_moment(100, 60.0) == pytest.approx(
            2, abs=1e-5
        )  # 100 + 100 tokens are left
        assert limits.take_moment(1, 0.5) is None


def test_a_rate_that_leaves_no_time_in_the_step_is_a_counted_skip(server, tmp_path):
    settings = {"requests_per_minute": 0.01, "step_deadline": 2.0 * SECONDS}
    replies = ask(server, tmp_path, "ok rate1", "ok rate2", "ok rate3", **settings)
    assert sorted((r.status, r.reason) for r in replies) == [
        ("ok", ""),
        ("skipped", "rate limit"),
        ("skipped", "rate limit"),
    ]
    assert max(reply.usage.seconds for reply in replies) < SECONDS


def _hold(path, held) -> None:
    async def hold() -> None:
        with open_limits(path, replace(ENDPOINT, concurrency=2)) as limits:
            async with limits.slot(), limits.slot():
                held.set()
                await asyncio.sleep(3600)

    asyncio.run(hold())


def test_slots_are_shared_by_processes_and_freed_by_a_kill(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(SECONDS)

    async def take(seconds: float) -> bool:
        with open_limits(tmp_path, replace(ENDPOINT, concurrency=2)) as limits:
            try:
                async with asyncio.timeout(seconds), limits.slot():
                    return True
            except TimeoutError:
                return False

    assert not asyncio.run(take(0.2))
    os.kill(holder.pid, signal.SIGKILL)
    assert ended(holder, "the holder") == -signal.SIGKILL
    assert asyncio.run(take(SECONDS))


def test_the_circuit_opens_after_failures_in_a_row_and_closes_after_a_probe(
    server, tmp_path, clock
):
    settings = {"attempts": 1, "circuit_failures": 2, "circuit_seconds": 0.6, "concurrency": 1}
    replies = ask(server, tmp_path, "ok a", "503 a", "503 b", "ok b", "ok c", **settings)
    assert [reply.reason for reply in replies] == [
        "",
        "http 503: down",
        "http 503: down",
        "circuit open",
        "circuit open",
    ]
    assert [reply.status for reply in replies[3:]] == ["skipped"] * 2
    clock.now += 0.7
    probe = ask(server, tmp_path, "503 c", "ok d", **settings)
    assert [reply.reason for reply in probe] == [
        "http 503: down",
        "circuit open",
    ]  # one failed probe opens it again
    clock.now += 0.7
    assert [
        reply.status for reply in ask(server, tmp_path, "ok e", "ok f", "503 d", "ok g", **settings)
    ] == ["ok", "ok", "failed", "ok"]


def test_half_open_the_others_wait_for_the_probe(server, tmp_path, clock):
    settings = {"attempts": 1, "circuit_failures": 1, "circuit_seconds": 0.3, "concurrency": 4}
    ask(server, tmp_path, "503 h", **settings)
    clock.now += 0.4
    contents = [f"slow h{i}" for i in range(4)]
    replies = ask(server, tmp_path, *contents, **settings)
    assert [reply.status for reply in replies] == ["ok"] * 4
