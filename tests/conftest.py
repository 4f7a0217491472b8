"""Shared by all tests: one thread, no network, and tiny models made on the spot."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory

# trackio reads its variable when it is imported, and its default is in the user's home.
DASHBOARDS = TemporaryDirectory()
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRACKIO_DIR": DASHBOARDS.name,
    }
)

# Until all tests are imported there is no garbage to look for (`pytest_runtestloop`).
gc.disable()

import hypothesis  # noqa: E402
import pytest  # noqa: E402

# Properties: some dozen cases, always the same; CRITIQUE_RL_CASES=10000 asks for the long form.
hypothesis.settings.register_profile(
    "suite",
    max_examples=50,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "long",
    hypothesis.settings.get_profile("suite"),
    max_examples=int(os.environ.get("CRITIQUE_RL_CASES", "10000")),
    derandomize=False,
)
hypothesis.settings.load_profile("long" if "CRITIQUE_RL_CASES" in os.environ else "suite")
# A shell that starts the tests in the background has them ignore Ctrl-C, and every process they
# start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def process_as_before() -> Iterator[None]:
    """No test sees what an earlier one left in this process: variables, handlers, import path.

    A run sets WANDB_RUN_ID and signal handlers, and a user's file puts its folder on the path.
    """
    environment = dict(os.environ)
    path = list(sys.path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """What the imports made stays for good. accelerate looks for garbage at the start of every
    training, and would look through all of that for half a second.
    """
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items) -> None:
    """Tests that take a policy to train have the marker `trains`."""
    for item in items:
        if "tiny_policy" in item.fixturenames:
            item.add_marker("trains")


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory) -> str:
    """Folder of a randomly initialised lab model of 30,000 parameters, with the lab's tokenizer."""
    from critique_rl.lab.base import Recipe, build_model, build_tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = build_tokenizer()
    build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
