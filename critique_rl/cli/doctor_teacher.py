"""The doctor's check of teachers behind a server: which form of log-probs each gives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from critique_rl.cli.doctor_checks import Line
from critique_rl.cli.doctor_endpoint import failure_advice
from critique_rl.config.schema import Pipeline
from critique_rl.config.terminal import say


def check_teachers(pipeline: Pipeline) -> Iterator[Line]:
    """A line per arm whose teacher is behind a server: it is asked for the log-probs of a text."""
    from critique_rl.experiment.foresight.settings import teacher_endpoint

    lines: dict[str, Line] = {}
    for arm, config in pipeline.arms.items():
        endpoint = teacher_endpoint(config)
        if endpoint is None:
            continue
        # Arms often share a teacher, and each check costs tokens.
        name = repr((endpoint, config.policy.model))
        if name not in lines:
            say(f"teacher of arm {arm}: asking {endpoint.base_url} for log-probs of a short text")
            lines[name] = _probe(f"teacher of arm {arm}", endpoint, config.policy.model)
            yield lines[name]


def _probe(what, endpoint, policy: str) -> Line:
    from transformers import AutoTokenizer

    from critique_rl.policy import resolve_model
    from critique_rl.trainer.teachers.served import probe

    folder = resolve_model(policy)
    if not Path(folder).is_dir():
        # A model of the Hub is not downloaded for a check.
        finding = f"not asked: the tokenizer of {policy} is on the Hub"
        return Line(what, "warn", finding, "the run asks it at its start")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    try:
        form = probe(endpoint, None, tokenizer)
    except ValueError as error:
        return Line(what, "fail", str(error), failure_advice(str(error)))
    return Line(what, "ok", f"{endpoint.model} gives log-probs of a text, by {form}")
