"""The replies of ten servers, sent over loopback: critique, reason, tokens and dollars of each."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fault_server import serving
from faulty_answers import response
from server_replies import (
    AZURE,
    COUNTS,
    GEMINI,
    LITELLM,
    OPENROUTER,
    RESERVED,
    SHAPES,
    Shape,
    answer,
)

from critique_rl.critic.api.endpoint import Caps, Endpoint
from critique_rl.critic.api.ledger import open_ledger
from critique_rl.critic.api.retry import wait_in_body
from critique_rl.critic.chat import ApiChat
from critique_rl.critic.contract import Reply

pytestmark = pytest.mark.processes

PAGE = Path(__file__).parents[3] / "critique_rl" / "docs" / "servers.md"
PRICES = {"prompt_price": 1.0, "completion_price": 10.0, "cached_prompt_price": 0.5}
ALL = [(server, shape) for server, shapes in SHAPES.items() for shape in shapes]
"""Every reply with its server."""


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def ask(server, *shapes: Shape, folder: Path | None = None, **settings) -> list[Reply]:
    """Replies to one question each, which the server answers with these shapes."""
    server.raw = []
    for shape in shapes:
        headers = [f"{name}: {value}" for name, value in shape.headers.items()]
        body = json.dumps(shape.body).encode()
        server.raw.append(response(shape.status, body, *headers))
    questions = [[{"role": "user", "content": f"raw {i}"}] for i in range(len(shapes))]
    options = {"attempts": 1, "length_retry_factor": 1, "max_tokens": RESERVED, **PRICES}
    endpoint = Endpoint(server.url, "m", **{**options, **settings})
    return ApiChat(endpoint, folder).answer(questions)


@pytest.mark.parametrize(("name", "shape"), ALL, ids=lambda value: getattr(value, "name", value))
def test_a_documented_reply_is_read_as_what_it_is(server, name, shape):
    [reply] = ask(server, shape)
    usage = reply.usage
    assert reply.text == shape.text, reply
    assert reply.status == ("ok" if shape.text else "failed")
    assert reply.reason.startswith(shape.reason), reply.reason
    assert bool(reply.reason) == bool(shape.reason), reply.reason
    assert usage.completion_tokens == shape.completion
    assert usage.estimated == shape.estimated
    if not shape.estimated:
        assert usage.usd == pytest.approx(shape.usd * 1e-6)
    if shape.text:
        assert reply.model == ("" if shape.model == "m" else shape.model)


def named(shapes: list[Shape], name: str) -> Shape:
    [shape] = [shape for shape in shapes if shape.name == name]
    return shape


def test_a_wait_that_only_a_body_or_a_renamed_header_asks_for_is_kept(server, monkeypatch):
    # A wait that nobody asks for ends at once.
    monkeypatch.setattr("critique_rl.critic.api.retry.MAX_WAIT_SECONDS", 0.01)
    busy = [named(GEMINI, "rate limit"), named(LITELLM, "run here: rate limit")]
    replies = ask(server, *busy, attempts=2)
    assert min(reply.usage.seconds for reply in replies) > 1.0
    for body in (None, "soon", {"retryDelay": 3}, [{"retryDelay": "-1s"}], {"retryDelay": "nans"}):
        assert wait_in_body(body) is None


def test_a_flagged_prompt_costs_its_row_and_an_empty_account_ends_the_step(server):
    whole = Shape("whole", answer({"content": "Look at line 2."}))
    flagged = named(OPENROUTER, "moderation")
    replies = ask(server, flagged, whole, concurrency=1)
    assert [reply.status for reply in replies] == ["failed", "ok"]
    replies = ask(server, named(OPENROUTER, "no credit"), whole, concurrency=1)
    assert [reply.status for reply in replies] == ["failed", "skipped"]
    assert replies[1].reason.startswith("not sent after http 402")
    full = replace(named(OPENROUTER, "no credit"), headers={"retry-after": "0"})
    replies = ask(server, full, whole, concurrency=1)
    assert [reply.status for reply in replies] == ["failed", "ok"]


def test_a_dearer_provider_is_told_and_counts_in_the_cap(server, tmp_path, capfd):
    dear = Shape("dear", answer({"content": "Look."}, usage={**COUNTS, "cost": 0.5}))
    replies = ask(
        server, dear, dear, folder=tmp_path, concurrency=1, caps=Caps(max_cost=0.6), cache=False
    )
    # The second one would cost as much as the first, and 0.5 + 0.5 > 0.6.
    assert [reply.reason for reply in replies] == ["", "budget"]
    assert "was billed at 42 tokens and $0.500000" in capfd.readouterr().err


def test_a_cost_that_cannot_be_is_not_counted(server):
    shapes = []
    for cost in (1e9, -1, True, "1", {"total": 1}, None):
        counts = {**COUNTS, "cost": cost}
        shapes.append(Shape("odd", answer({"content": "Look."}, usage=counts)))
    replies = ask(server, *shapes)
    assert [reply.usage.usd for reply in replies] == [pytest.approx(150e-6)] * 6


def test_azures_filtered_prompt_stays_spent(server, tmp_path):
    ask(server, named(AZURE, "filtered prompt"), folder=tmp_path)
    with open_ledger(tmp_path / "ledger.sqlite", Caps()) as ledger:
        # "raw 0" and 16 tokens of a template, and the answer.
        assert ledger.spent()["tokens"] == 5 + 16 + RESERVED


def test_the_bound_of_a_reasoning_model_is_sent_alone(server):
    server.asked.clear()
    whole = Shape("whole", answer({"content": "Look."}))
    ask(server, whole, extra_body={"max_completion_tokens": 900}, temperature=None)
    [sent] = server.asked
    assert sorted(sent) == ["max_completion_tokens", "messages", "model"]


def test_the_page_has_a_heading_for_each_server():
    headings = re.findall(r"^### (.*)$", PAGE.read_text(), re.MULTILINE)
    assert headings == list(SHAPES)
