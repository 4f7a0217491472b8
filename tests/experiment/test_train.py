"""Signal handlers that a run sets in the process that trains it must not outlive the run."""

from __future__ import annotations

import os
import signal

import pytest

from critique_rl.config.checks import ConfigError
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.train import stop_signals, train

STOPS = (signal.SIGTERM, signal.SIGINT)


def handlers() -> list:
    return [signal.getsignal(number) for number in STOPS]


@pytest.mark.parametrize("number", STOPS)
def test_a_stop_signal_calls_the_handler_within_the_block_only(number) -> None:
    before = handlers()
    seen = []
    with stop_signals(lambda got, frame: seen.append(got)):
        os.kill(os.getpid(), number)
    assert seen == [number]
    assert handlers() == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_handlers_come_back_where_the_block_ends_in_an_error(error) -> None:
    before = handlers()
    with pytest.raises(error), stop_signals(lambda *_: None):
        raise error
    assert handlers() == before


def test_a_handler_that_cannot_be_restored_stops_no_other(monkeypatch) -> None:
    # signal.signal gives None for a handler that C code installed, and does not take it back.
    before = handlers()
    install = signal.signal

    def hide_sigterm(number, handler):
        previous = install(number, handler)
        return None if number == signal.SIGTERM else previous

    monkeypatch.setattr(signal, "signal", hide_sigterm)
    with stop_signals(lambda *_: None):
        pass
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) == before[1]
    signal.signal(signal.SIGTERM, before[0])


def test_a_run_that_is_refused_gives_the_signals_back(tmp_path, tiny_policy) -> None:
    pipeline = parse_pipeline(
        "p",
        {
            "task": {"name": "lab/chain", "size": 16},
            "policy": {"model": tiny_policy},
            "trl": {
                "num_generations": 4,
                "per_device_train_batch_size": 4,
                "max_completion_length": 8,
            },
            "budget": {"optimizer_steps": 1},
            "arms": {"scalar": {}, "branch": {"branch_from": {"arm": "scalar", "at": 1}}},
        },
    )
    before = handlers()
    # It is refused within the run, after the handlers were set: its trunk was never trained.
    with pytest.raises(ConfigError, match="not finished"):
        train(pipeline.arms["branch"], "branch", 0, PipelineFolder(tmp_path).run("branch", 0))
    assert handlers() == before
