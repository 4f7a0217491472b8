"""The doctor's checks on this machine: packages, hardware, disk, policy, settings."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from critique_rl.config.checks import ConfigError
from critique_rl.config.folder_lock import check_writable
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.config.schema import Pipeline

Status = Literal["ok", "warn", "fail"]

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
TEMPLATE_ADVICE = (
    "set what it asks for as trl.chat_template_kwargs, or repair tokenizer.chat_template"
)
EXTRAS = {
    "math-verify": "the verifier math (extra `math`)",
    "reasoning-gym": "tasks reasoning-gym/... (extra `tasks`)",
    "reasoning-core": "task reasoning-core/words (extra `words`)",
    "champ-dataset": "critics --champ",
}
"""Optional package -> the parts that need it."""
ENOUGH_GIB = 10
LEAST_GIB = 1


@dataclass(frozen=True)
class Line:
    """The result of one check."""

    what: str
    """The thing that was checked."""
    status: Status
    """A run cannot work with a "fail"."""
    finding: str
    """Its state."""
    advice: str = ""
    """An instruction for the user; "" where there is nothing to do."""

    def as_dict(self) -> dict[str, str]:
        """The line as --json prints it; "found" is its `finding`."""
        return {
            "what": self.what,
            "status": self.status,
            "found": self.finding,
            "advice": self.advice,
        }


def check_packages() -> Iterator[Line]:
    """A line per package: installed, and of a tested minor version."""
    for name, tested in TESTED.items():
        yield _check_package(name, tested)
    for name, use in EXTRAS.items():
        try:
            yield Line(name, "ok", version(name))
        except PackageNotFoundError:
            yield Line(name, "ok", f"not installed; only {use} need it")


def _check_package(name: str, tested: str) -> Line:
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Line(name, "fail", "not installed", f"pip install {name}=={tested}")
    if installed.split(".")[:2] == tested.split(".")[:2]:
        return Line(name, "ok", installed)
    advice = (
        f"tested with {tested}; where something breaks: "
        f"pip install --constraint constraints.txt {name}"
    )
    return Line(name, "warn", installed, advice)


def check_machine() -> Iterator[Line]:
    """Lines about Python, the device, and on a CPU its threads."""
    yield Line("python", "ok", platform.python_version())
    try:
        import torch
    except ImportError:
        return
    if torch.cuda.is_available():
        yield Line("device", "ok", f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}")
        return
    yield Line("device", "ok", "CPU only")
    yield _check_threads(torch.get_num_threads())


def _check_threads(threads: int) -> Line:
    cores = os.cpu_count() or 1
    load = 0.0
    # Windows has no load average.
    if hasattr(os, "getloadavg"):
        load, _, _ = os.getloadavg()
    finding = f"{threads} for torch on {cores} cores, load {load:.1f}"
    if threads > 1 and load + threads > cores + 0.5:
        advice = (
            "two threads on a busy core pair were 15 times slower than one here: "
            "export OMP_NUM_THREADS=1"
        )
        return Line("threads", "warn", finding, advice)
    return Line("threads", "ok", finding)


def check_disk(out: Path) -> Line:
    """Whether the folder for results can be written, and has room."""
    try:
        check_writable(out)
    except ConfigError as error:
        return Line("disk", "fail", f"{out} cannot be written", str(error))
    # It need not exist yet: the nearest parent that does is on the same disk.
    place = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    finding = f"{free:.1f} GiB free for {out}"
    if free >= ENOUGH_GIB:
        return Line("disk", "ok", finding)
    advice = (
        "checkpoints hold the policy three times over (weights and Adam); "
        "make room, or give another --out"
    )
    status: Status = "warn" if free >= LEAST_GIB else "fail"
    return Line("disk", status, finding, advice)


def check_settings(pipeline: Pipeline, folder: PipelineFolder) -> Iterator[Line]:
    """A line for each setting that `run` would refuse before its first run, or one that all fit."""
    from critique_rl.experiment.plan import check_stored
    from critique_rl.experiment.preflight import check_started, setting_refusals

    refusals = setting_refusals(pipeline)
    try:
        check_stored(pipeline, folder)
        check_started(pipeline, folder)
    except ConfigError as error:
        refusals.append(str(error))
    for refusal in refusals:
        yield Line("settings", "fail", "run would refuse them", refusal)
    if not refusals:
        yield Line("settings", "ok", f"{len(pipeline.arms)} arms, primary {pipeline.primary}")


def check_reach(pipeline: Pipeline) -> Iterator[Line]:
    """Whether the comparison can show the difference that is asked for."""
    from critique_rl.analysis.power import advice, describe, planned_design
    from critique_rl.cli.arguments import held_out_families

    try:
        design = planned_design(pipeline, held_out_families(pipeline))
    except (ValueError, OSError, ImportError):
        # `check_settings` has said why the task cannot be loaded.
        return
    if design is None:
        return
    larger = advice(pipeline, design)
    status: Status = "warn" if larger else "ok"
    yield Line("comparison", status, describe(pipeline, design), larger)


def check_foresight(pipeline: Pipeline) -> Iterator[Line]:
    """What would make the runs' results say little, a line each."""
    from critique_rl.analysis.learning_curves import external_warnings
    from critique_rl.experiment.foresight.foresee import foresee
    from critique_rl.experiment.preflight import check_sampling

    for words in external_warnings(pipeline.external):
        yield Line("external", "warn", words, "give the folder's path, or leave it out")
    for warning in check_sampling(pipeline.arms):
        yield Line("sampling", "warn", warning.finding, warning.advice)

    findings = foresee(pipeline.arms, download=False)
    for finding, arms in findings.items():
        status: Status = "fail" if finding.is_refused else "warn"
        place = f"{finding.what} ({', '.join(arms)})"
        yield Line(place, status, finding.words, finding.advice)
    if not findings:
        yield Line("lengths, keys, budget", "ok", "nothing found that would spoil a result")


def check_policy(pipeline: Pipeline) -> Iterator[Line]:
    """Whether the policy of the first arm is there, and its tokenizer and chat template work."""
    from critique_rl.policy import resolve_model

    config = next(iter(pipeline.arms.values()))
    try:
        path = resolve_model(config.policy.model)
    except OSError as error:
        yield Line("policy", "fail", config.policy.model, str(error))
        return
    # A model of the Hub is not downloaded for a check.
    if not Path(path).is_dir():
        finding = f"{path} is no folder here: taken as a Hub id, and loaded at the first run"
        yield Line("policy", "ok", finding)
        return
    try:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(path)
    except Exception as error:
        # Broken files end in errors of many kinds: of transformers, tokenizers, json, jinja2.
        yield Line("policy", "fail", path, f"its tokenizer does not load: {type(error).__name__}")
        return
    yield Line("policy", "ok", config.policy.model)
    yield _check_chat_template(tokenizer, config.trl.get("chat_template_kwargs") or {})


def _check_chat_template(tokenizer: Any, chat_template_kwargs: Mapping[str, Any]) -> Line:
    if not tokenizer.chat_template:
        return Line(
            "chat template",
            "fail",
            "none",
            "rows are conversations: set tokenizer.chat_template, "
            "and save the tokenizer beside the policy",
        )
    message = {"role": "user", "content": "second"}
    try:
        text = tokenizer.apply_chat_template(
            [message], add_generation_prompt=True, tokenize=False, **chat_template_kwargs
        )
    except Exception as error:
        # A template may raise errors of its own, of any kind.
        return Line("chat template", "fail", f"raises: {error}", TEMPLATE_ADVICE)
    if "second" in text:
        return Line("chat template", "ok", "keeps what the user says")
    return Line(
        "chat template", "fail", "drops what the user says", "repair tokenizer.chat_template"
    )
