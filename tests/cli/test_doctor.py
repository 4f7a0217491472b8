"""The doctor: what it finds at an endpoint, a policy and the packages, and what it says to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from fault_server import serving
from transformers import AutoTokenizer

from critique_rl.cli.doctor import checks, command
from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.experiment.foresight.findings import refuse_or_warn
from critique_rl.experiment.foresight.foresee import foresee


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


def line_about(lines, what):
    return next((line for line in lines if what in line.what), None)


def test_the_versions_it_calls_tested_are_those_of_the_constraints() -> None:
    pins = dict(
        re.findall(
            r"^([\w.-]+)==([\w.]+)$",
            (Path(__file__).parents[2] / "constraints.txt").read_text(),
            re.MULTILINE,
        )
    )
    assert {name: pins[name] for name in checks.TESTED} == checks.TESTED


def test_a_package_of_another_minor_is_a_warning_and_a_missing_one_a_failure(monkeypatch) -> None:
    monkeypatch.setattr(checks, "TESTED", {"numpy": "0.1.0", "no-such-package": "1.0"})
    lines = list(checks.check_packages())
    assert (lines[0].status, lines[1].status) == ("warn", "fail")
    assert "pip install no-such-package==1.0" in lines[1].advice


def test_an_endpoint_that_answers_is_ok_and_its_key_is_never_shown(
    server, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("SECRET_KEY", "sk-very-secret-0123456789")
    status = main(
        [
            "doctor",
            "--base-url",
            server.url,
            "--model",
            "m",
            "--api-key-env",
            "SECRET_KEY",
            "--out",
            str(tmp_path),
            "--json",
        ]
    )
    output = capsys.readouterr()
    lines = {line["what"]: line for line in json.loads(output.out)}
    assert status == 0
    assert "sk-very-secret" not in output.out + output.err
    assert lines["endpoint: key"]["found"] == "$SECRET_KEY is set"
    assert lines["endpoint: latency"]["status"] == "ok"
    assert lines["endpoint: finish_reason"]["status"] == "ok"
    assert lines["endpoint: usage"]["found"] == "counted by the server"
    assert lines["endpoint: model"]["advice"] == "it lists model of ***"
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_a_wrong_address_and_a_missing_key_are_failures_with_advice(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    nobody = line_about(command.check(None, tmp_path, "http://127.0.0.1:9/v1", "m"), "answer")
    assert (nobody.status, nobody.finding) == ("fail", "connection")
    assert "start the server" in nobody.advice
    assert (
        "give the address up to its version"
        in line_about(command.check(None, tmp_path, "localhost:9", "m"), "endpoint").advice
    )
    key = line_about(command.check(None, tmp_path, "https://api.example.invalid/v1", "m"), "key")
    assert (key.status, key.finding) == ("fail", "$OPENAI_API_KEY is not set")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-ab\ncd")
    assert (
        line_about(command.check(None, tmp_path, "http://127.0.0.1:9/v1", "m"), "key").finding
        == "$OPENAI_API_KEY cannot be sent"
    )


def test_a_template_that_needs_an_argument_gets_it_or_is_named(tmp_path, tiny_policy) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(tiny_policy, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    needs = "{% if thinking is not defined %}{{ raise_exception('no thinking') }}{% endif %}"
    tokenizer.chat_template = needs + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    data = {"task": {"name": "lab/chain"}, "policy": {"model": str(folder)}, "arms": {"scalar": {}}}
    data["trl"] = {"max_completion_length": 48}
    line = line_about(
        command.check(parse_pipeline("p", data), tmp_path, None, None), "chat template"
    )
    assert (line.status, line.finding) == ("fail", "raises: no thinking")
    with pytest.raises(ConfigError, match="chat template: it raises no thinking"):
        refuse_or_warn(foresee(parse_pipeline("p", data).arms))
    data["trl"]["chat_template_kwargs"] = {"thinking": True}
    lines = command.check(parse_pipeline("p", data), tmp_path, None, None)
    assert line_about(lines, "chat template").status == "ok"
    refuse_or_warn(foresee(parse_pipeline("p", data).arms))


def test_a_pipelines_policy_template_and_critics_are_looked_at(tmp_path, tiny_policy) -> None:
    api = {"critic": {"kind": "api", "base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    data = {
        "task": {"name": "lab/chain"},
        "policy": {"model": tiny_policy},
        "arms": {"scalar": {}, "a": api, "b": api},
    }
    lines = command.check(parse_pipeline("p", data), tmp_path / "runs", None, None)
    assert line_about(lines, "chat template").status == "ok"
    assert line_about(lines, "policy").status == "ok"
    assert sum(line.what.endswith(": answer") for line in lines) == 1
    missing = command.check(
        parse_pipeline(
            "p", {**data, "policy": {"model": "/no/such/folder"}, "arms": {"scalar": {}}}
        ),
        tmp_path,
        None,
        None,
    )
    assert line_about(missing, "policy").status == "fail"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trl": {"learning_rat": 1}}, "learning_rat"),
        ({"trl": {"temperature": "hot"}}, "trl.temperature: got the text 'hot', expected a number"),
        ({"critic": {"kind": "oracel"}}, "did you mean 'oracle'"),
        ({"primary": "pass@5/all"}, "no metric 'pass@5/all'"),
    ],
)
def test_what_run_would_refuse_is_a_failure(tmp_path, tiny_policy, change, words) -> None:
    data = {"task": {"name": "lab/chain"}, "policy": {"model": tiny_policy}, "arms": {"scalar": {}}}
    assert (
        line_about(
            command.check(parse_pipeline("p", data), tmp_path, None, None), "settings"
        ).status
        == "ok"
    )
    line = line_about(
        command.check(parse_pipeline("p", {**data, **change}), tmp_path, None, None), "settings"
    )
    assert line.status == "fail"
    assert words in line.advice


def test_an_endpoint_is_asked_as_the_run_asks_it_also_within_noisy(
    server, tmp_path, tiny_policy
) -> None:
    extra = {"max_completion_tokens": 4096}
    api = {
        "kind": "api",
        "base_url": server.url,
        "model": server.model,
        "temperature": None,
        "max_tokens": None,
        "extra_body": extra,
    }
    arms = {"a": {"critic": {"kind": "noisy", "wrong": 0.5, "critic": api}}}
    command.check(
        parse_pipeline(
            "p", {"task": {"name": "lab/chain"}, "policy": {"model": tiny_policy}, "arms": arms}
        ),
        tmp_path,
        None,
        None,
    )
    assert server.asked[-1].keys() == {"model", "messages", "max_completion_tokens"}
    arms = {"a": {"critic": {**api, "temperature": 0.3, "max_tokens": 2000, "extra_body": {}}}}
    command.check(
        parse_pipeline(
            "p", {"task": {"name": "lab/chain"}, "policy": {"model": tiny_policy}, "arms": arms}
        ),
        tmp_path,
        None,
        None,
    )
    assert (server.asked[-1]["temperature"], server.asked[-1]["max_tokens"]) == (0.3, 16)


def test_lines_are_printed_with_advice_and_a_failure_is_exit_1(tmp_path, capsys) -> None:
    assert main(["doctor", "--base-url", "http://127.0.0.1:9/v1", "--out", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "fail endpoint: answer: connection\n      nothing answers there" in output
