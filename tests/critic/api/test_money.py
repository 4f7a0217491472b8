"""Caps hold whatever a server reports and wherever a process dies; a ledger that lost spending is
refused.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from benchmarks.caps import CAP, SHAPES, spend
from fault_server import serving
from hypothesis import given, settings
from hypothesis import strategies as st

from critique_rl.config.checks import ConfigError, read_section
from critique_rl.costs import Prices
from critique_rl.critic.api.billing.usage_report import (
    PartialUsage,
    parse_partial,
    parse_usage,
    token_count,
)
from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.api.response import parse_response
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import CriticFailed, Reply
from critique_rl.types import Usage

pytestmark = pytest.mark.processes
CASES = int(os.environ.get("CRITIQUE_RL_CASES", "40"))
short = settings(max_examples=CASES, derandomize=True, deadline=None)
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""A disk would be flushed for each of some thousand changes."""


def ask(server, folder, *contents: str, **options) -> list[Reply]:
    chat = ApiChat(Endpoint(server.url, "m", **{"deadline": 100.0, **options}), folder)
    return chat.answer([[{"role": "user", "content": content}] for content in contents])


# ---- reports -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "prompt", "completion"),
    # Reserved are 40 + 100.
    [
        ({"total_tokens": 1150}, 40, 1110),
        ({"total_tokens": 90}, 0, 90),
        ({"total_tokens": 120}, 20, 100),
        ({"completion_tokens": 7}, 40, 7),
        ({"completion_tokens": 7, "total_tokens": 1150}, 40, 1110),
        ({"completion_tokens": 7, "total_tokens": 20}, 13, 7),
        ({"prompt_tokens": 30}, 30, 100),
        ({"prompt_tokens": 30, "total_tokens": 1150}, 30, 1120),
        ({"prompt_tokens": 30, "completion_tokens": None, "total_tokens": 50}, 30, 20),
        ({"prompt_tokens": -3, "completion_tokens": 5}, 40, 5),
        ({"prompt_tokens": 0, "completion_tokens": 5}, 40, 5),
        ({"prompt_tokens": math.nan, "completion_tokens": math.inf, "total_tokens": 9}, 0, 9),
        ({"completion_tokens_details": {"reasoning_tokens": 300}}, 40, 300),
    ],
)
def test_what_a_report_leaves_out_is_taken_from_the_reservation(counts, prompt, completion):
    assert parse_usage(counts) is None
    usage = parse_partial(counts).fill(Usage(40, 100))
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (
        prompt,
        completion,
        1,
    )


@pytest.mark.parametrize(
    ("counts", "completion"),
    [
        ({"completion_tokens": "50"}, 50),
        ({"completion_tokens": 50.0}, 50),
        ({"completion_tokens": " 49.5 "}, 50),
        ({"output_tokens": 50, "input_tokens": 30}, 50),
        ({"completion_tokens": 50, "total_tokens": 20}, 50),
        ({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 300}}, 305),
        ({"completion_tokens": 500, "completion_tokens_details": {"reasoning_tokens": 300}}, 500),
        ({"completion_tokens": 5, "completion_tokens_details": [3], "total_tokens": "1150"}, 1120),
    ],
)
def test_counts_are_read_in_every_spelling_and_thoughts_count(counts, completion):
    usage = parse_usage({"prompt_tokens": 30, **counts})
    assert (usage.prompt_tokens, usage.completion_tokens) == (30, completion)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
COUNT = JSON | st.integers(0, 10**7) | st.integers(0, 10**7).map(str)
NAMES = st.sampled_from(
    ["prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"]
)
DETAILS = st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), COUNT)
REPORTS = st.dictionaries(NAMES, COUNT).flatmap(
    lambda counts: st.fixed_dictionaries(
        {}, optional={"prompt_tokens_details": DETAILS, "completion_tokens_details": DETAILS}
    ).map(lambda details: counts | details)
)


@short
@given(REPORTS | JSON, st.integers(1, 1000), st.integers(1, 1000))
def test_no_report_of_any_shape_costs_less_than_its_total(counts, prompt, completion):
    most = Usage(prompt, completion)
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m", prompt_price=1.0, completion_price=2.0)
    report = parse_usage(counts) or parse_partial(counts)
    usage = endpoint.billed_usage(report, most, 10)
    assert 0 <= usage.cached_prompt_tokens <= usage.prompt_tokens
    assert usage.completion_tokens >= 0
    assert usage.usd >= 0
    filled = report.fill(most) if isinstance(report, PartialUsage) else report
    if filled is not None and endpoint.is_plausible(filled, most):
        total = token_count(counts.get("total_tokens")) or 0
        assert usage.prompt_tokens + usage.completion_tokens >= total
    else:
        assert (usage.prompt_tokens, usage.completion_tokens) == (prompt, completion)


# ---- the ledger ----------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["settle", "lose", "refuse", "reopen"]),
        st.integers(0, 60),  # reserved for the prompt
        st.integers(1, 60),  # and for the answer
        st.integers(0, 200),  # billed in all, where it is settled
        st.integers(1, 5),  # out at once
    ),
    max_size=8,
)


@short
@given(ACTIONS, st.integers(0, 900))
def test_a_cap_is_exceeded_only_by_what_was_out_at_the_first_excess(actions, cap):
    billed, excess = 0, 0
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "ledger"
        for action, prompt, completion, bill, at_once in actions:
            most = Usage(prompt, completion, usd=1e-6 * (prompt + completion))
            with open_ledger(path, Caps(max_tokens=cap)) as ledger:
                before = ledger.spent()
                sent = [ledger.reserve(most) for _ in range(at_once)].count(True)
                # A reservation may be sent only if it fits with the largest excess so far.
                assert not sent or billed + sent * (prompt + completion + excess) <= cap
                for _ in range(sent):
                    if action == "settle":
                        ledger.settle(most, Usage(bill, usd=1e-6 * bill))
                        billed += bill
                        excess = max(excess, bill - prompt - completion)
                    elif action == "refuse":
                        ledger.settle(most, Usage())
                    else:
                        billed += prompt + completion  # it may have been billed
                after = ledger.spent()
            assert after["tokens"] >= billed
            assert after["usd"] == pytest.approx(1e-6 * after["tokens"])
            assert after["requests"] == before["requests"] + sent
            if excess == 0:
                assert after["tokens"] == billed <= cap


@short
@given(st.lists(st.integers(1, 50), min_size=2, max_size=6), st.data())
def test_an_older_copy_of_a_ledger_is_refused_and_a_good_one_never(bills, data):
    copied_at = data.draw(st.integers(0, len(bills) - 1))
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "ledger"
        for number, bill in enumerate(bills):
            with open_ledger(path, Caps()) as ledger:
                ledger.reserve(Usage(bill))
            if number == copied_at:
                shutil.copy(path, f"{path}.old")
        with open_ledger(path, Caps()) as ledger:
            assert ledger.spent()["tokens"] == sum(bills)
        shutil.copy(f"{path}.old", path)
        if copied_at < len(bills) - 1:
            with pytest.raises(CriticFailed, match="older copy"), open_ledger(path, Caps()):
                pass
        Path(f"{path}.count").unlink()
        with open_ledger(path, Caps()) as ledger:  # taken as it is
            assert ledger.spent()["tokens"] == sum(bills[: copied_at + 1])


KILLED = """
import os, signal, sys
from pathlib import Path
from critique_rl.critic.api.endpoint import Caps
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.types import Usage
with open_ledger(Path(sys.argv[1]), Caps()) as ledger:
    for _ in range(20):
        ledger.reserve(Usage(10))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_ledger(folder: Path) -> Path:
    path = folder / "ledger.sqlite"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)])
    assert done.returncode == -signal.SIGKILL
    return path


def test_a_kill_leaves_nothing_beside_the_ledger_that_could_be_lost(tmp_path):
    path = killed_ledger(tmp_path)
    for tail in ("-wal", "-shm", "-journal"):
        Path(f"{path}{tail}").unlink(missing_ok=True)
    with open_ledger(path, Caps(max_tokens=205)) as ledger:
        assert ledger.spent() == {"requests": 20, "tokens": 200, "usd": 0.0, "open": 20}
        assert not ledger.reserve(Usage(10))


@pytest.mark.parametrize("damage", ["missing", "emptied", "cut", "count is no number", "zeros"])
def test_a_ledger_that_lost_spending_is_refused_in_one_sentence(server, tmp_path, damage):
    path = killed_ledger(tmp_path)
    match damage:
        case "missing":
            path.unlink()
        case "emptied":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:4096])
        case "zeros":
            path.write_bytes(bytes(path.stat().st_size))
        case _:
            Path(f"{path}.count").write_text("many")
    with pytest.raises(CriticFailed, match=r"cannot be read .* together with the file ") as refused:
        ask(server, tmp_path, "ok x")
    assert "\n" not in str(refused.value)
    for file in tmp_path.glob("ledger.sqlite*"):
        file.unlink()
    assert ask(server, tmp_path, "ok x")[0].status == "ok"


def test_a_ledger_of_an_earlier_build_goes_on_with_its_log_and_is_without_one_then(tmp_path):
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path, isolation_level=None) as old:
        old.execute("PRAGMA journal_mode=WAL")
        old.executescript(
            "CREATE TABLE spent (id INTEGER PRIMARY KEY CHECK (id = 1), run TEXT, "
            "requests INTEGER, tokens INTEGER, usd REAL, open INTEGER);"
            "INSERT INTO spent VALUES (1, 'r', 3, 70, 0.5, 1);"
        )
        assert Path(f"{path}-wal").stat().st_size
        shutil.copytree(tmp_path, tmp_path / "killed")
    with open_ledger(tmp_path / "killed" / "ledger.sqlite", Caps()) as ledger:
        assert ledger.spent() == {"requests": 3, "tokens": 70, "usd": 0.5, "open": 1}
        assert not (tmp_path / "killed" / "ledger.sqlite-wal").exists()


# ---- calls ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.mark.parametrize("shape", ["none", "thoughts apart"])
def test_64_calls_to_a_server_that_ignores_max_tokens_stay_under_the_cap(tmp_path, shape):
    figures = spend(tmp_path, shape, 1050, kills=False)
    assert shape in SHAPES
    assert 1050 < figures.billed <= CAP
    assert figures.spent >= figures.billed
    assert figures.told


def test_the_excess_is_told_once_and_counted(server, tmp_path, capfd):
    usage = 'usage {"prompt_tokens":100,"completion_tokens":50,"total_tokens":1150}'
    options = {"max_tokens": 60, "caps": Caps(max_tokens=5000), "cache": False}
    replies = [ask(server, tmp_path, usage, **options)[0] for _ in range(5)]
    reserved = len(usage) + 16 + 60
    assert replies[0].usage.excess_tokens == 1150 - reserved
    # 4 * 1150 are spent; the fifth reserves 1150 too.
    assert [reply.reason for reply in replies] == ["", "", "", "", "budget"]
    assert capfd.readouterr().err.count("was billed at 1150 tokens") == 1


@pytest.mark.parametrize(
    ("content", "spent"),
    # Reserved are the bytes of the prompt, 16 and 10.
    [("408 a", 5 + 26), ("filtered a", 10 + 26), ("400 a", 0), ("429-bare a", 0)],
)
def test_a_refusal_that_may_be_billed_keeps_its_reservation(server, tmp_path, content, spent):
    settings_of_call = {"max_tokens": 10, "attempts": 1, "caps": Caps(max_tokens=1000)}
    ask(server, tmp_path, content, **settings_of_call)
    with open_ledger(tmp_path / "ledger.sqlite", Caps()) as ledger:
        assert ledger.spent()["tokens"] == spent


def test_an_error_that_reports_its_usage_is_billed_it(server, tmp_path):
    body = b'{"error": {"code": 429}, "usage": {"prompt_tokens": 9, "completion_tokens": 70}}'
    with pytest.raises(ValueError, match="429") as refused:
        parse_response(body)
    assert refused.value.usage == Usage(9, 70)


# ---- prices --------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [-1.0, math.nan, math.inf, -math.inf, True])
@pytest.mark.parametrize("name", ["prompt", "completion", "training"])
def test_a_price_that_is_no_price_is_refused(price, name):
    with pytest.raises(ValueError, match="expected numbers from 0"):
        Prices(**{name: price})
    with pytest.raises(ConfigError, match="prices"):
        read_section(Prices, {name: price}, "prices")
