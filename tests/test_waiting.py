"""The one wait of the tests: it ends with the event, and what hangs or never comes fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress

import pytest
from waiting import ended, exit_code, gone, of_group, wait_until, within

pytestmark = pytest.mark.processes
SLEEPER = [sys.executable, "-c", "import time; time.sleep(3600)"]


def test_an_event_ends_the_wait_and_one_that_never_comes_fails_with_its_name() -> None:
    left = [0, 0, 7]
    assert wait_until(lambda: left.pop(0), "a number") == 7
    with pytest.raises(AssertionError, match=r"waited 0\.1 s for Godot"):
        wait_until(lambda: False, "Godot", seconds=0.1)


def test_what_hangs_is_broken_off_and_what_swallows_that_fails_too() -> None:
    with (
        pytest.raises(AssertionError, match=r"a lock: not over after 0\.2 s"),
        within("a lock", 0.2),
    ):
        threading.Event().wait()
    deaf = pytest.raises(AssertionError, match="a deaf block")
    with deaf, within("a deaf block", 0.2), suppress(AssertionError):
        threading.Event().wait()
    with within("nothing"):
        pass


def test_an_ended_process_is_gone_also_as_a_zombie_and_others_are_killed() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    wait_until(lambda: gone(child), "the child to end")
    os.waitpid(child, 0)
    assert gone(child)
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    assert not gone(process.pid)
    assert of_group(process.pid) == [process.pid]
    with pytest.raises(AssertionError, match="for a sleeper to end"):
        ended(process, "a sleeper", seconds=0.1)
    assert ended(process, "a sleeper") == exit_code(process) == -9
    assert not of_group(process.pid)
