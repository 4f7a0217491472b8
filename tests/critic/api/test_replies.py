"""Whatever a server sends, a call ends with an answer or with a reason in words."""

from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path

import pytest
from fault_server import serving
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import SECONDS

from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.api.failures import failure_reason, is_transient
from critique_rl.critic.api.finish_reasons import finish_kind
from critique_rl.critic.api.response import Answer, BadResponse, parse_response, words_of_text
from critique_rl.critic.api.retry import parse_retry_after, wanted_wait
from critique_rl.critic.chat import ApiChat

pytestmark = pytest.mark.processes

PYTHON_NAMES = re.compile(r"^error: |[A-Z][a-z]+(Error|Exception)\b|<class ")
# Without letters of which names could be made by chance.
TEXTS = st.text(st.characters(codec="utf-16-be", exclude_categories=()), max_size=20)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**20, 10**400),
    st.floats(),
    TEXTS,
    st.sampled_from(["stop", "length", "MAX_TOKENS", "SAFETY", "abort", "m", "503", "text"]),
)
NAMES = """choices message content finish_reason usage model error code type text refusal
    tool_calls prompt_tokens completion_tokens total_tokens prompt_tokens_details cached_tokens"""
KEYS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(KEYS, TEXTS), inner, max_size=5)
    ),
    max_leaves=12,
)
MESSAGES = st.fixed_dictionaries(
    {}, optional={"content": VALUES, "refusal": VALUES, "tool_calls": VALUES, "role": VALUES}
)
CHOICES = st.fixed_dictionaries(
    {"message": st.one_of(MESSAGES, VALUES)}, optional={"finish_reason": SCALARS, "index": VALUES}
)
COMPLETIONS = st.fixed_dictionaries(
    {"choices": st.one_of(st.lists(CHOICES, max_size=2), VALUES)},
    optional={"usage": VALUES, "model": SCALARS, "error": VALUES},
)


@st.composite
def bodies(draw) -> bytes:
    """JSON near a completion, any JSON, either with bytes put in or cut out, or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=60))
    body = json.dumps(draw(st.one_of(COMPLETIONS, VALUES))).encode()
    if draw(st.booleans()):
        return body
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, len(body)))
    return body[:start] + draw(st.binary(max_size=4)) + body[end:]


HEADER_NAMES = """retry-after retry-after-ms date content-type content-encoding location
    transfer-encoding content-length x-ratelimit-reset-tokens x-should-retry connection"""
HEADERS = st.sampled_from(HEADER_NAMES.split())
VALUES_OF_HEADERS = [
    *(b"1", b"-1", b"nan", b"1e400", b"gzip", b"br", b"deflate", b"chunked", b"identity"),
    *(b"text/html; charset=zlib", b"Sat, 21 Nov 2015 07:28:00 GMT", b"/v1", b"//", b"9" * 30),
]
HEADER_VALUES = st.one_of(st.binary(max_size=12), st.sampled_from(VALUES_OF_HEADERS))


@st.composite
def responses(draw) -> bytes:
    """A response with any status, headers and body."""
    status = draw(st.one_of(st.just(200), st.integers(100, 999)))
    head = b"HTTP/1.1 %d X\r\n" % status
    for name, value in draw(st.lists(st.tuples(HEADERS, HEADER_VALUES), max_size=4)):
        head += name.encode() + b": " + value + b"\r\n"
    whole = head + b"\r\n" + draw(bodies())
    return whole[draw(st.sampled_from([0] * 9 + [3])) :]


@given(bodies())
def test_any_body_is_an_answer_or_a_bad_response_with_words(body):
    try:
        answer = parse_response(body)
    except BadResponse as error:
        assert not PYTHON_NAMES.search(failure_reason(error, "sk-verysecret"))
        assert is_transient(error) in (True, False)
        return
    assert isinstance(answer, Answer)
    answer.text.encode()
    answer.model.encode()
    usage = answer.usage
    if usage is not None:
        # A report of some counts has None for the others.
        assert min(usage.prompt_tokens or 0, usage.completion_tokens or 0) >= 0
    endpoint = Endpoint("http://127.0.0.1:1/v1", "m", prompt_price=1.0, completion_price=1.0)
    billed = endpoint.billed_usage(usage, endpoint.max_usage([]), len(body))
    assert math.isfinite(billed.usd)


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@settings(max_examples=max(1, settings().max_examples // 8))
@given(st.lists(responses(), min_size=8, max_size=8))
def test_any_responses_end_in_replies_with_reasons(server, sent):
    server.raw = sent
    questions = [[{"role": "user", "content": f"raw {i}"}] for i in range(len(sent))]
    deadlines = {"attempt_deadline": 2.0, "deadline": 4.0, "step_deadline": float(SECONDS)}
    endpoint = Endpoint(server.url, "m", attempts=1, circuit_failures=99, **deadlines)
    with tempfile.TemporaryDirectory() as folder:
        replies = ApiChat(endpoint, Path(folder)).answer(questions)
    for response, reply in zip(sent, replies, strict=True):
        reply.text.encode()
        assert reply.text or reply.reason, response
        assert not PYTHON_NAMES.search(reply.reason), (response, reply)


@given(st.one_of(st.text(), HEADER_VALUES.map(lambda value: value.decode("latin-1"))), st.text())
def test_any_retry_after_is_a_wait_or_none(value, date):
    seconds = parse_retry_after(value, date)
    assert seconds is None or 0 <= seconds < math.inf


SPELLED = {
    "stop": ("stop", "STOP", "end_turn", "endOfText", "eos_token", "FinishReason.STOP"),
    "length": (
        *("length", "truncated", "TRUNCATED", "max_tokens", "maxTokens", "FinishReason.MAX_TOKENS"),
        *("max tokens reached", "output_truncated", "response.incomplete", "cut-off"),
        *("token_budget_exceeded", "ended_by_length", "context_overflow", {"type": "length"}),
    ),
    "content_filter": (
        *("content_filter", "contentFiltered", "SAFETY", "blocked_by_policy", "unsafe-output"),
        *("guardrail_intervened", "ContentPolicyViolation", "flagged"),
    ),
    "refusal": ("refusal", "Refused", "model_refusal", "declined"),
    "tool_call": ("tool_calls", "toolUse", "TOOL_CALL", "function_call", "called_tools: toolcall"),
    "broken": ("error", "upstream_error", "aborted_by_user", "network error", "overloaded"),
    "": (None, "", "null"),
    "whatever": ("whatever", "Reason.whatever"),
    "unreadable": (5, ["a"], "a" * 300, "b" * 41),
}


def test_a_finish_reason_is_of_its_kind_in_any_spelling():
    for kind, words in SPELLED.items():
        assert [finish_kind(word) for word in words] == [kind] * len(words), kind


@pytest.mark.parametrize("place", ["answer", "choice", "message", "alone"])
def test_an_answer_that_says_that_it_failed_is_none_whatever_text_it_has(server, place):
    endpoint = Endpoint(server.url, "m", attempts=1)
    question = [{"role": "user", "content": f"error-of-{place} x"}]
    [reply] = ApiChat(endpoint).answer([question])
    assert (reply.status, reply.reason) == ("failed", "bad response: 502: provider down")
    question = [{"role": "user", "content": "error-of-empty x"}]
    [reply] = ApiChat(endpoint).answer([question])
    assert (reply.status, reply.reason) == ("ok", "")


def test_a_refusal_that_never_ends_is_told_in_its_first_words(server):
    endpoint = Endpoint(server.url, "m", attempts=1, attempt_deadline=4.0)
    [reply] = ApiChat(endpoint).answer([[{"role": "user", "content": "error-drip x"}]])
    assert reply.reason == 'http 401: no: none "is" no key'


@given(st.text(st.characters(max_codepoint=0xD7FF), max_size=60), st.integers(0, 200))
def test_the_words_of_a_cut_refusal_are_a_beginning_of_them(words, cut):
    body = json.dumps({"error": {"type": "x", "message": f"m{words}"}})
    read = words_of_text(body[: 32 + cut])
    assert f"m{words}".startswith(read.removesuffix(" ..."))


def test_a_date_is_read_against_the_servers_clock_in_the_three_formats():
    from httpx2 import Headers

    date = "Sat, 21 Nov 2015 07:28:00 GMT"
    for later in (
        "Sat, 21 Nov 2015 07:28:05 GMT",
        "Saturday, 21-Nov-15 07:28:05 GMT",
        "Sat Nov 21 07:28:05 2015",
    ):
        assert parse_retry_after(later, date) == 5.0
        assert parse_retry_after(date, later) == 0.0
        assert parse_retry_after(later) is None
    several = [("retry-after", "soon"), ("retry-after", "2"), ("retry-after-ms", "2500")]
    assert wanted_wait(Headers(several)) == 2.5
    assert wanted_wait(Headers({"x-ratelimit-reset-requests": "6m0s"})) is None
