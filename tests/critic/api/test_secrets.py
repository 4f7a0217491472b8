"""A key is in no file, log or terminal, however a server spells it; nothing that a server, a model
or a user writes is obeyed by a terminal or run by a spreadsheet.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from fault_server import FaultServer, completion, response, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_runs import SMALL

from critique_rl.analysis.numbers_csv import safe_cell
from critique_rl.cli.doctor.command import check
from critique_rl.cli.doctor.endpoint import check_endpoint
from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.secrets import (
    refuse_secrets,
    variable_fault,
    without_key,
    without_key_at_end,
    without_secrets,
)
from critique_rl.config.terminal import guard_terminal, printable, printable_json, say
from critique_rl.critic.api.endpoint import Endpoint
from critique_rl.critic.chat import ApiChat

pytestmark = pytest.mark.processes
KEY = "sk-proj-Abc123_def456GHI789"
BYTES = KEY.encode()
CASES = int(os.environ.get("CRITIQUE_RL_CASES", "40"))
SPELLINGS = {
    "plain": KEY,
    "reversed": KEY[::-1],
    "another case": KEY.swapcase(),
    "base64 of Bearer": base64.b64encode(b"Bearer " + BYTES).decode(),
    "base64 of URLs": base64.urlsafe_b64encode(b"x" + BYTES).decode().rstrip("="),
    "percent": "".join(f"%{byte:02X}" for byte in BYTES),
    "percent twice": quote("".join(f"%{byte:02x}" for byte in BYTES)),
    "hex": BYTES.hex(":"),
    "0x": " ".join(f"0x{byte:02X}" for byte in BYTES),
    "JSON escapes": "".join(f"\\u{byte:04x}" for byte in BYTES),
    "HTML entities": "".join(f"&#{byte};" for byte in BYTES),
    "spaces and lines": " \n".join(KEY),
    "zero width": "\u200b".join(KEY),
    "decimal": ", ".join(map(str, BYTES)),
    "base64 in lines": "\n".join(
        base64.b64encode(BYTES).decode()[i : i + 8] for i in range(0, 36, 8)
    ),
    "wide letters": "".join(chr(ord(letter) + 0xFEE0) for letter in KEY),
}


def named(model: str) -> bytes:
    answer = json.loads(completion("Look at line 2."))
    return json.dumps({**answer, "model": model, "id": model}).encode()


def error(words: str) -> bytes:
    return json.dumps({"error": {"message": f"wrong key {words}", "type": words}}).encode()


PLACES = {
    "text": lambda spelled: completion(f"The error is in line 2. {spelled} Look again."),
    "finish reason": lambda spelled: completion("Look at line 2.", spelled),
    "model": named,
    "error with status 200": error,
    "error code": lambda spelled: json.dumps({"error": {"code": spelled}}).encode(),
}
STATUSES = {"error body": 401, "error that heals": 503, "too long": 400}


class EchoServer(FaultServer):
    """Spells the key in a place of each answer: the prompt is `<place>|<spelling>|...`."""

    async def reply(self, request, head, writer) -> None:
        assert KEY in head
        place, _, rest = request["messages"][-1]["content"].partition("|")
        spelled = SPELLINGS.get(rest.partition("|")[0], " and ".join(SPELLINGS.values()))
        in_header = "".join(letter for letter in spelled if 31 < ord(letter) < 127)
        if place in STATUSES:
            answer = response(STATUSES[place], error(spelled))
        elif place == "redirect":
            address = f"location: http://127.0.0.1:1/{quote(in_header)}?a={quote(in_header)}"
            answer = response(307, b"", address)
        elif place == "header":
            answer = response(200, completion("Look."), f"x-request-id: {in_header}")
        else:
            body = PLACES.get(place, PLACES["text"])(spelled)
            answer = response(200, body)
        writer.write(answer)
        await writer.drain()


@pytest.fixture(scope="module")
def server():
    with serving(faults=EchoServer()) as running:
        yield running


def leaks(*texts: str) -> list[str]:
    """Spellings of the key in texts. Half of one counts too."""
    shown = "\n".join(texts)
    found = []
    for name, spelled in SPELLINGS.items():
        half = spelled[: len(spelled) // 2]
        escaped = json.dumps(half)[1:-1]
        if half in shown or escaped in shown or half.lower() in shown.lower():
            found.append(name)
    return found


def texts_under(folder: Path) -> list[str]:
    return [
        path.read_bytes().decode("utf-8", errors="replace")
        for path in folder.rglob("*")
        if path.is_file()
    ]


def test_each_spelling_in_each_place_is_in_no_file_and_no_output(
    server, tmp_path, monkeypatch, capfd, caplog
):
    monkeypatch.setenv("ECHOED_KEY", KEY)
    caplog.set_level("DEBUG")
    chat = ApiChat(
        Endpoint(
            server.url,
            "m",
            api_key_env="ECHOED_KEY",
            attempts=1,
            circuit_failures=10_000,
            concurrency=4,
        ),
        tmp_path,
    )
    replies = []
    for place in [*PLACES, *STATUSES, "redirect", "header"]:
        contents = [f"{place}|{spelling}|" for spelling in SPELLINGS]
        # A refusal of all calls ends the step.
        if place in ("error body", "redirect"):
            steps = [[content] for content in contents[:: 1 if CASES > 1000 else 4]]
        else:
            steps = [contents]
        for step in steps:
            replies += chat.answer([[{"role": "user", "content": content}] for content in step])
    assert sum(reply.status == "ok" for reply in replies) >= 2 * len(SPELLINGS)
    for reply in replies[: len(SPELLINGS)]:
        assert reply.text.startswith("The error is in line 2. ")
        assert reply.text.endswith(" Look again.")
        assert "***" in reply.text
    output = "".join(capfd.readouterr())
    assert leaks(*map(repr, replies), output) == []
    assert leaks(*texts_under(tmp_path)) == []
    headers = [record.getMessage() for record in caplog.records]
    assert leaks(*headers) == []


def test_a_run_doctor_and_plan_with_a_server_that_echoes_all_spellings_leave_none(
    server, tiny_policy, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("ECHOED_KEY", KEY)
    critic = {
        "kind": "api",
        "base_url": server.url,
        "model": "m",
        "api_key_env": "ECHOED_KEY",
        "caps": {"max_requests": 1000},
    }
    path, out = tmp_path / "small.yaml", tmp_path / "runs"
    sections = {"policy": {"model": tiny_policy}, "critic": critic, "arms": {"critique": {}}}
    path.write_text(yaml.safe_dump({**SMALL, **sections}))
    given_words = [str(path), "--out", str(out)]
    main(["doctor", *given_words])
    assert main(["train", *given_words, "--arm", "critique", "--seed", "0"]) == 0
    assert leaks("".join(capfd.readouterr()), *texts_under(tmp_path)) == []
    assert "***" in "".join(texts_under(out))


def test_no_more_than_the_key_goes_from_a_text(server):
    words = "The step is not needed; sk-learn has no key, and 0x41 is 65."
    assert without_key(words, "not-needed") == words
    assert without_key(words, KEY) == words
    assert without_key("a EMPTY b", "EMPTY") == "a EMPTY b"
    assert without_key(f"a {KEY} b", KEY) == "a *** b"
    assert without_key("lm-studio says", "lm-studio") == "*** says"


@settings(max_examples=CASES, derandomize=True, deadline=None)
@given(
    st.text(alphabet="abcdefgXYZ0123456789-_.+/=", min_size=16, max_size=60).filter(
        lambda key: sum(letter.isalnum() for letter in key) >= 12
    ),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_any_key_is_found_between_any_texts(key, before, after):
    data = key.encode()
    spelled = [
        key,
        data.hex(" "),
        base64.b64encode(b"Bearer " + data).decode(),
        "\n".join(key),
        quote(key, safe=""),
        key[::-1],
    ]
    for word in spelled:
        assert word not in without_key(f"{before}\n{word}\n{after}", key)


def test_a_key_that_a_cut_left_in_part_is_hidden_too():
    for spelled in SPELLINGS.values():
        for cut in range(1, len(spelled) + 1):
            kept = without_key_at_end(f"Wrong key: {spelled[:cut]}", KEY)
            # No more than the part that all keys of a service have.
            assert len(without_key(kept.removeprefix("Wrong key: "), KEY)) <= 30
            assert leaks(kept) == []
    assert without_key_at_end("ask the desk", KEY) == "ask the desk"


@pytest.mark.parametrize("unit", ["%41", "sk-proj-", "&#", "\\u0073", " \n"])
def test_the_search_is_linear(unit):
    seconds = []
    for length in (100_000, 400_000):
        text = unit * (length // len(unit))
        start = time.perf_counter()
        without_key(text, KEY)
        seconds.append(time.perf_counter() - start)
    assert seconds[1] < 16 * max(seconds[0], 0.01)


# ---- settings ------------------------------------------------------------------------------------

PASTED = [KEY, "sk_live_51HabcdefGHIjklmnop123", "a1b2c3d4e5f6a7b8c9d0e1f2", "AKIAIOSFODNN7EXAMPLE"]


@pytest.mark.parametrize("pasted", [*PASTED, "", None, "MY KEY", "$OPENAI_API_KEY"])
def test_a_key_in_place_of_its_variables_name_is_refused_and_not_shown(pasted):
    data = {**SMALL, "policy": {"model": "lab/tiers"}, "arms": {"a": {}}}
    data["critic"] = {"kind": "api", "base_url": "https://h/v1", "model": "m"}
    data["critic"]["api_key_env"] = pasted
    for refuse in (
        lambda: parse_pipeline("p", data),
        lambda: Endpoint("https://h/v1", "m", api_key_env=pasted),
    ):
        with pytest.raises(ValueError, match="expected the name of an environment") as refused:
            refuse()
        assert not pasted or len(pasted) < 8 or pasted[:6] not in str(refused.value)
    assert variable_fault("HUGGINGFACEHUB_API_TOKEN") == variable_fault("my_key") == ""


@pytest.mark.parametrize(
    "address",
    [
        "https://user:s3cretpass@h/v1",
        "https://s3cretpass@h/v1",
        "user:s3cretpass@h/v1",
        "https://h/v1?api_key=s3cretpass",
        "https://h/v1?s3cretpass",
        "https://h/v1#s3cretpass",
        "https://h/v1#access_token=s3cretpass",
        "https://user:s3cretpass@[::1/v1",
        "https://h/sk-s3cretpass-0123456789/v1",
        "https://user:s3cretpass@h:99999999/v1",
    ],
)
def test_a_key_in_an_address_reaches_no_output(address, capfd, tmp_path):
    with pytest.raises(ValueError, match="base_url") as refused:
        Endpoint(address, "m")
    options = {"base_url": address, "model": "m"}
    shown = [str(refused.value), *map(str, check_endpoint("endpoint", options))]
    data = {**SMALL, "policy": {"model": "lab/tiers"}, "arms": {"a": {}}}
    path = tmp_path / "p.yaml"
    path.write_text(yaml.safe_dump({**data, "critic": {"kind": "api", **options}}))
    out = tmp_path / "out"
    for words in (
        ["run", str(path), "--out", str(out)],
        ["train", str(path), "--arm", "a", "--seed", "0", "--out", str(out)],
        ["plan", str(path), "--out", str(out)],
        ["doctor", str(path), "--out", str(out)],
        ["doctor", "--base-url", address, "--model", "m", "--out", str(out), "--json"],
    ):
        assert main(words) in (1, 2)
    shown += [*capfd.readouterr(), *texts_under(out)]
    assert "s3cretpass" not in "\n".join(shown)
    assert check(None, tmp_path, None, None)


@pytest.mark.parametrize(
    "text",
    [
        f"critic: {{kind: api, api_key_env: {KEY}",
        f"critic:\n  api_key_env: {KEY}\n bad: [",
        f"a: b: {KEY}",
        f"key: *{KEY}",
        f"key: !{KEY} 3",
        f"key: '{KEY}",
        f"@{KEY}",
    ],
)
def test_a_key_in_a_file_that_is_no_yaml_is_not_shown(text, tmp_path, capfd):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"(is not YAML: |, )line 1|line 2|line 3") as refused:
        load_pipeline(path)
    assert leaks(str(refused.value)) == []
    assert refused.value.__cause__ is None
    for words in ([f"x={text}"], [KEY], ["--api-key", KEY], [f"--seed={KEY}"]):
        with pytest.raises((ConfigError, SystemExit)):
            raise SystemExit(main(["train", "pipelines/quickstart.yaml", *words]))
    assert leaks("".join(capfd.readouterr())) == []


@pytest.mark.parametrize(
    "section",
    [
        {"critic": {"extra_body": {"api_key": "abc"}}},
        {"critic": {"extra_body": {"headers": [{"Authorization": "Bearer abc"}]}}},
        {"policy": {"options": {"token": "hf_abc"}}},
        {"task": {"options": {"source": "https://u:p@h/data.jsonl"}}},
        {"task": {"options": {"source": "https://h/data.jsonl?sig=abc"}}},
        {"arms": {"a": {"critic": {"options": {"password": "abc"}}}}},
    ],
)
def test_settings_that_hold_secrets_are_refused_with_their_place(section):
    with pytest.raises(ValueError, match=next(iter(section))) as refused:
        refuse_secrets(section)
    assert "abc" not in str(refused.value)
    assert "u:p" not in str(refused.value)
    refuse_secrets({"critic": {"extra_body": {"stop": "token", "max_tokens": 3, "tokens": "all"}}})
    refuse_secrets({"task": {"options": {"source": "https://h/data.jsonl?split=train#rows"}}})


# ---- terminal ------------------------------------------------------------------------------------

OBEYED = ["\x1b[31m", "\x1b]8;;http://h\x07", "\x9b31m", "\x90q", "\x07", "\r", "\x08", "\u202e"]
OBEYED += ["\u2066", "\x7f", "\u2028", "\ud800", "\x00", "\U000e0041"]


@pytest.mark.parametrize("escape", OBEYED)
def test_what_a_terminal_obeys_is_shown_as_an_escape(escape, capfd, monkeypatch):
    say(f"a{escape}b\tc\nd é 字 👩‍💻 [red]x[/red]")
    shown = capfd.readouterr().err
    assert escape[0] not in shown
    assert "\\" in shown
    assert shown.endswith("b\tc\nd é 字 👩‍💻 [red]x[/red]\n")
    assert escape[0] not in printable_json({"a": escape})
    assert json.loads(printable_json({"a": escape})) == {"a": escape}


def test_logging_warnings_and_uncaught_errors_pass_the_border():
    program = (
        "import logging, sys, warnings\n"
        "from critique_rl.config.terminal import guard_terminal\n"
        "guard_terminal()\n"
        "logging.warning('log %s', '\\x1b[31m')\n"
        "warnings.warn('warn \\x1b[31m')\n"
        f"raise ValueError('raised \\x1b[31m {KEY}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SOME_API_KEY": KEY},
        capture_output=True,
        text=True,
    )
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\\x1b[31m") >= 3
    assert KEY not in done.stderr


def test_escapes_of_a_server_reach_neither_texts_nor_reasons(server, tmp_path):
    class Escapes(FaultServer):
        async def reply(self, request, head, writer) -> None:
            if "refuse" in request["messages"][-1]["content"]:
                writer.write(response(401, error("\x1b]0;owned\x07\u202e[red]")))
            else:
                writer.write(response(200, completion("a\x1b[2Jb\x9bc\r\nd")))

    with serving(faults=Escapes()) as escapes:
        chat = ApiChat(Endpoint(escapes.url, "m", attempts=1), tmp_path)
        replies = [
            chat.answer([[{"role": "user", "content": content}]])[0] for content in ("a", "refuse")
        ]
    assert replies[0].text == "a[2Jbc\nd"
    assert replies[1].reason == "http 401: wrong key ]0;owned[red]"


def test_words_of_the_command_line_are_shown_as_escapes(capfd, tmp_path):
    assert main(["run", str(tmp_path / "a\x1b[31m.yaml")]) == 2
    with pytest.raises(SystemExit):
        main(["run", "p.yaml", "--no\x1b[31m"])
    assert "\x1b" not in "".join(capfd.readouterr())


@pytest.fixture(autouse=True)
def border_as_before():
    factory, hook, form = logging.getLogRecordFactory(), sys.excepthook, warnings.formatwarning
    yield
    guard_terminal()
    logging.setLogRecordFactory(factory)
    sys.excepthook, warnings.formatwarning = hook, form


def test_secrets_of_variables_and_addresses_are_hidden_in_output(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "correct-horse-battery")
    assert printable("a correct-horse-battery b") == "a *** b"
    assert printable("https://u:p@h/v1?api_key=abc&x=1#f") == "https://***@h/v1?api_key=***&x=1#f"
    assert without_secrets("arm sk-learn-experiments-with-words") == (
        "arm sk-learn-experiments-with-words"
    )


# ---- spreadsheets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell",
    [
        "=1+1",
        "+A1",
        "-A1",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        " =1",
        "\uff1d1",
        "\ufeff=1",
        "-1+cmd",
        "--1",
    ],
)
def test_a_text_that_starts_a_formula_is_a_text(cell):
    assert safe_cell(cell) == f"'{cell}"


@pytest.mark.parametrize(
    "cell", ["-0.05", "1e-3", "-inf", "+3", "-.5", -0.05, None, "a=b", "", "x"]
)
def test_numbers_and_other_texts_stay(cell):
    out = io.StringIO()
    csv.writer(out).writerow([safe_cell(cell)])
    assert safe_cell(cell) == cell
