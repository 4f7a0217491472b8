"""`critique-rl doctor`: what a run leans on, looked at before it starts. Each line is ok, warn or
fail, and says what to do.

Left out: anything that changes the machine. The endpoint is asked twice, for a few tokens.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from critique_rl.cli.results import _load
from critique_rl.config.schema import Pipeline

TESTED = {
    "torch": "2.13.0",
    "transformers": "5.23.0",
    "trl": "1.16.0",
    "datasets": "5.2.0",
    "openai": "3.54.0",
    "tenacity": "9.2.1",
    "jinja2": "3.1.6",
}
"""As in constraints.txt, which a test compares."""
EXTRAS = {
    "math-verify": "the verifier math (pip extra `math`)",
    "reasoning-gym": "tasks reasoning-gym/... (extra `tasks`)",
    "champ-dataset": "critics --champ",
}
ENOUGH_GIB = 10
SLOW_SECONDS = 20


@dataclass(frozen=True)
class Line:
    """One thing looked at."""

    what: str
    status: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def check(
    pipeline: Pipeline | None,
    out: Path,
    base_url: str | None,
    model: str | None,
    api_key_env: str = "OPENAI_API_KEY",
) -> list[Line]:
    """All lines, in order. Nothing here raises for what is found."""
    lines = [*_packages(), *_machine(pipeline), _disk(out)]
    specs: dict[str, Mapping[str, Any]] = {}
    if base_url:
        specs["endpoint"] = {
            "base_url": base_url,
            "model": model or "default",
            "api_key_env": api_key_env,
        }
    for arm, config in pipeline.arms.items() if pipeline else ():
        # `noisy` asks another critic; what is null in the pipeline is not sent by the run, so it is
        # not sent from here.
        critic = (
            config.critic.get("critic") if config.critic.get("kind") == "noisy" else config.critic
        )
        if isinstance(critic, Mapping) and critic.get("kind") == "api":
            asked = (
                "base_url",
                "model",
                "api_key_env",
                "extra_body",
                "temperature",
                "top_p",
                "max_tokens",
            )
            specs[f"critic of arm {arm}"] = {
                key: value for key, value in critic.items() if key in asked
            }
    if pipeline:
        lines += [*_policy(pipeline), _settings(pipeline)]
    seen: dict[str, list[Line]] = {}
    for name, spec in specs.items():
        key = json.dumps(spec, sort_keys=True, default=str)
        if key not in seen:
            seen[key] = list(_endpoint(name, spec))
            lines += seen[key]
    return lines


def _packages() -> Iterator[Line]:
    for name, tested in TESTED.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Line(name, "fail", "not installed", f"pip install {name}=={tested}")
            continue
        same = found.split(".")[:2] == tested.split(".")[:2]
        advice = (
            ""
            if same
            else f"tested with {tested}; where something breaks: pip install --constraint constraints.txt {name}"
        )
        yield Line(name, "ok" if same else "warn", found, advice)
    for name, use in EXTRAS.items():
        try:
            yield Line(name, "ok", version(name))
        except PackageNotFoundError:
            yield Line(name, "ok", f"not installed; only {use} need it")


def _machine(pipeline: Pipeline | None) -> Iterator[Line]:
    yield Line("python", "ok", platform.python_version())
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        yield Line("device", "ok", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
        return
    yield Line("device", "ok", "CPU only")
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    crowded = torch.get_num_threads() > 1 and load + torch.get_num_threads() > cores + 0.5
    advice = (
        "two threads on a busy core pair were 15 times slower than one here: export OMP_NUM_THREADS=1"
        if crowded
        else ""
    )
    yield Line(
        "threads",
        "warn" if crowded else "ok",
        f"{torch.get_num_threads()} for torch on {cores} cores, load {load:.1f}",
        advice,
    )
    for arm, config in pipeline.arms.items() if pipeline else ():
        if config.trl.get("bf16") or config.trl.get("fp16"):
            yield Line(
                f"arm {arm}",
                "warn",
                "bf16 or fp16 on a CPU",
                "slow where the processor has no such products: leave it out there",
            )
            return


def _disk(out: Path) -> Line:
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    if not os.access(place, os.W_OK):
        return Line("disk", "fail", f"{out} cannot be written", "give another --out")
    advice = (
        ""
        if free >= ENOUGH_GIB
        else "checkpoints hold the policy three times over (weights and Adam); make room, or give another --out"
    )
    return Line(
        "disk",
        "ok" if free >= ENOUGH_GIB else "warn" if free >= 1 else "fail",
        f"{free:.1f} GiB free for {out}",
        advice,
    )


def _settings(pipeline: Pipeline) -> Line:
    """What `run` would refuse before its first run."""
    from critique_rl.experiment.preflight import check_arms, check_primary

    try:
        check_arms(dict(pipeline.arms))
        for config in pipeline.arms.values():
            check_primary(pipeline.primary, config)
    except (ValueError, OSError, ImportError) as error:
        return Line("settings", "fail", "run would refuse them", str(error))
    return Line("settings", "ok", f"{len(pipeline.arms)} arms, primary {pipeline.primary}")


def _policy(pipeline: Pipeline) -> Iterator[Line]:
    from critique_rl.policy import resolve_model

    config = next(iter(pipeline.arms.values()))
    try:
        path = resolve_model(config.policy.model)
    except OSError as error:
        yield Line("policy", "fail", config.policy.model, str(error))
        return
    if not Path(path).is_dir():
        yield Line("policy", "ok", f"{path}, from the Hub at the first run")
        return
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:
        yield Line("policy", "fail", path, f"its tokenizer does not load: {type(error).__name__}")
        return
    yield Line("policy", "ok", config.policy.model)
    if not tokenizer.chat_template:
        yield Line(
            "chat template",
            "fail",
            "none",
            "rows are conversations: set tokenizer.chat_template, and save the tokenizer beside the policy",
        )
        return
    kept = "second" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "second"}], add_generation_prompt=True, tokenize=False
    )
    if kept:
        yield Line("chat template", "ok", "keeps what the user says")
    else:
        yield Line(
            "chat template", "fail", "drops what the user says", "repair tokenizer.chat_template"
        )


def _endpoint(name: str, spec: Mapping[str, Any]) -> Iterator[Line]:
    """The key, one short answer, and what the server says of its model."""
    from critique_rl.critic.api.endpoint import Endpoint
    from critique_rl.critic.chat import ApiChat

    try:
        most = None if spec.get("max_tokens", 16) is None else 16
        short = {
            "max_tokens": most,
            "attempts": 1,
            "attempt_deadline": 60.0,
            "cache": False,
            "length_retry_factor": 1.0,
        }
        endpoint = Endpoint(**{**spec, **short})
    except (TypeError, ValueError) as error:
        yield Line(name, "fail", str(spec.get("base_url")), str(error))
        return
    is_set = bool(os.environ.get(endpoint.api_key_env, "").strip())
    try:
        endpoint.key()
    except ValueError as error:
        yield Line(
            f"{name}: key",
            "fail",
            f"${endpoint.api_key_env} {'cannot be sent' if is_set else 'is not set'}",
            str(error),
        )
        return
    yield Line(
        f"{name}: key",
        "ok",
        f"${endpoint.api_key_env} is {'set' if is_set else 'not set; servers on this machine mostly want none'}",
    )
    start = time.monotonic()
    [reply] = ApiChat(endpoint).answer(
        [[{"role": "user", "content": "Reply with the word ready."}]]
    )
    seconds = time.monotonic() - start
    if reply.status != "ok" and reply.reason not in ("empty", "length"):
        yield Line(f"{name}: answer", "fail", reply.reason, _advice(reply.reason))
        return
    slow, counted = seconds > SLOW_SECONDS, not reply.usage.estimated
    advice = "raise attempt_deadline, deadline and step_deadline" if slow else ""
    yield Line(
        f"{name}: latency", "warn" if slow else "ok", f"{seconds:.1f} s for up to 16 tokens", advice
    )
    yield _finish(name, reply)
    if counted:
        yield Line(f"{name}: usage", "ok", "counted by the server")
    else:
        yield Line(
            f"{name}: usage",
            "warn",
            "not reported",
            "what a call may cost at most, by its bytes, is counted instead",
        )
    yield _context(name, endpoint)


def _finish(name: str, reply) -> Line:
    if reply.status == "ok" and not reply.reason:
        return Line(f"{name}: finish_reason", "ok", f"stop; it said {reply.text[:40]!r}")
    if reply.reason == "length" and not reply.text:
        return Line(
            f"{name}: finish_reason",
            "warn",
            "length, nothing but thoughts",
            "a reasoning model: give max_tokens for its thoughts too, 4096 or more",
        )
    if reply.reason == "empty":
        return Line(
            f"{name}: finish_reason",
            "warn",
            "an empty answer",
            "check the model's name, and that it is a chat model",
        )
    return Line(f"{name}: finish_reason", "ok", f"length; it said {reply.text[:40]!r}")


def _context(name: str, endpoint) -> Line:
    """The context that the server states in /models; most state none."""
    from openai import DefaultHttpxClient, OpenAI

    from critique_rl.critic.api.failures import without_key

    try:
        http = DefaultHttpxClient(trust_env=not endpoint.local, follow_redirects=False)
        with OpenAI(
            base_url=endpoint.base_url,
            api_key=endpoint.key(),
            max_retries=0,
            timeout=10.0,
            http_client=http,
        ) as client:
            listed = {
                without_key(str(model.id), endpoint.key()): model.model_dump()
                for model in client.models.list().data
            }
    except Exception as error:
        return Line(
            f"{name}: context",
            "warn",
            f"/models did not answer ({type(error).__name__})",
            "make sure that prompt and max_tokens fit the model",
        )
    if endpoint.model not in listed:
        shown = ", ".join(sorted(listed)[:5])
        return Line(
            f"{name}: model", "warn", f"{endpoint.model!r} is not in /models", f"it lists {shown}"
        )
    about = {**listed[endpoint.model], **(listed[endpoint.model].get("meta") or {})}
    size = next(
        (
            about[key]
            for key in ("max_model_len", "context_length", "context_window", "n_ctx", "n_ctx_train")
            if isinstance(about.get(key), int)
        ),
        None,
    )
    if size is None:
        return Line(
            f"{name}: context",
            "ok",
            "not stated; make sure that prompt and max_tokens fit the model",
        )
    advice = (
        "long attempts will not fit: lower the critic's `longest` and max_tokens"
        if size < 4096
        else ""
    )
    return Line(f"{name}: context", "ok" if size >= 4096 else "warn", f"{size} tokens", advice)


def _advice(reason: str) -> str:
    for sign, advice in ADVICE.items():
        if sign in reason:
            return advice
    return "ask the server with curl, and look into its log"


ADVICE = {
    "it redirects": "set base_url to the address it names, if your texts may go there",
    "insufficient_quota": "the account has no credit or quota left: add some, or wait for the next period; fewer calls at a time do not help",
    "401": "the key is wrong for this address: check the variable, and base_url",
    "403": "this key may not use this model",
    "404": "no such model or path: base_url ends in the version (/v1), and --model is a name from /models",
    "429": "the account is at its limit: lower concurrency, set requests_per_minute",
    "connection": "nothing answers there: start the server, check host and port",
    "timeout": "it accepts but does not answer within a minute: a cold or overloaded model; try again, or raise attempt_deadline",
    "step deadline": "it accepts but does not answer in time: a cold or overloaded model",
}


def print_lines(lines: list[Line]) -> None:
    """One line each on the terminal, advice under it."""
    from rich.console import Console
    from rich.markup import escape

    console, colours = (
        Console(soft_wrap=True, highlight=False),
        {"ok": "green", "warn": "yellow", "fail": "red"},
    )
    for line in lines:
        console.print(
            f"[{colours[line.status]}]{line.status:<5}[/]{escape(line.what)}: {escape(line.found)}"
        )
        if line.advice:
            console.print(f"      {escape(line.advice)}")


def _doctor_command(commands) -> None:
    help = "check what a run leans on, and say what to do: packages, machine, disk, and the endpoint of a critic"
    doctor = commands.add_parser("doctor", help=help, description=help)
    doctor.add_argument(
        "pipeline",
        type=Path,
        nargs="?",
        help="a YAML file; its policy and the endpoints of its critics are checked too",
    )
    doctor.add_argument("overrides", nargs="*", metavar="key=value")
    doctor.add_argument(
        "--out", type=Path, default=Path("runs"), help="where results would go (default: runs)"
    )
    doctor.add_argument("--base-url", help="an OpenAI-compatible endpoint, up to its version")
    doctor.add_argument("--model", help="the model's name there")
    doctor.add_argument(
        "--api-key-env",
        default="OPENAI_API_KEY",
        help="the variable with the key (default: OPENAI_API_KEY)",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON instead of lines")
    doctor.set_defaults(command=_doctor)


def _doctor(arguments) -> int:
    from critique_rl.cli.doctor import check, print_lines

    lines = check(
        _load(arguments)[0] if arguments.pipeline else None,
        arguments.out,
        arguments.base_url,
        arguments.model,
        arguments.api_key_env,
    )
    print(json.dumps([line.as_dict() for line in lines])) if arguments.json else print_lines(lines)
    return 1 if any(line.status == "fail" for line in lines) else 0
