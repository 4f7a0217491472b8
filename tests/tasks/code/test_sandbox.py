"""Programs see nothing outside the sandbox, are ended in their limits, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_programs import TAKING, Outside, looking, program

from critique_rl.tasks.code.sandbox import Limits, NoSandbox, Sandbox
from critique_rl.tasks.code.tests_column import read_tests

pytestmark = pytest.mark.processes
VARIABLE = "CRITIQUE_RL_TEST_SECRET"
SECRET = "a secret of the test"
LIMITS = Limits(seconds=3.0, cpu=1.0)


def job(source: str, test: str = "assert f(0) == 'none'") -> dict[str, object]:
    return {"program": source, "before": "", "entry": "f", "tests": read_tests([test])}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    room = Sandbox(LIMITS)
    try:
        room.start()
    except NoSandbox as error:
        pytest.skip(f"no sandbox works here: {error}")
    yield room
    room.stop()


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    folder = tmp_path_factory.mktemp("outside")
    secret = folder / "secret"
    secret.write_text(SECRET)
    os.environ[VARIABLE] = SECRET
    with socket.create_server(("127.0.0.1", 0)) as server:
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        port = server.getsockname()[1]
        yield Outside(str(secret), str(folder), port, sleeper.pid, VARIABLE)
        # Nobody came, and nobody ended it.
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
        assert sleeper.poll() is None
        sleeper.kill()
        sleeper.wait()
    del os.environ[VARIABLE]
    assert secret.read_text() == SECRET
    assert [path.name for path in folder.iterdir()] == ["secret"]


LOOKING = tuple(looking(Outside("", "", 0, 0, "")))


def test_the_corpus_is_large() -> None:
    assert len(LOOKING) + len(TAKING) >= 60


@pytest.mark.parametrize("name", LOOKING)
def test_a_program_sees_and_does_nothing_outside(
    name: str, sandbox: Sandbox, outside: Outside
) -> None:
    report = sandbox.run(job(program(looking(outside)[name])))
    seen = report.get("got", report.get("error"))
    assert report["status"] == "passed" or seen == "'refused'", (name, report)
    assert SECRET not in str(report)


@pytest.mark.parametrize("name", sorted(TAKING))
def test_a_program_ends_in_its_limits_and_the_next_one_is_judged(
    name: str, sandbox: Sandbox
) -> None:
    start = time.monotonic()
    report = sandbox.run(job(TAKING[name], "assert f(0) == [0]"))
    assert report["status"] != "passed", (name, report)
    assert report["status"] != "lost"
    assert len(str(report)) < 2000
    # Time to fork and to kill comes on top, on a machine that does other things too.
    assert time.monotonic() - start < LIMITS.seconds + 5
    assert sandbox.run(job("def f(x): return [x]", "assert f(0) == [0]"))["status"] == "passed"


def test_nothing_of_a_program_lives_on(sandbox: Sandbox) -> None:
    for name in ("fork and sleep", "leave a session behind", "fork without end"):
        sandbox.run(job(TAKING[name]))
    assert sandbox._process is not None
    # bubblewrap's own process, its first one inside, and the server.
    left = descendants(sandbox._process.pid)
    assert len(left) <= 2, left


def descendants(process: int) -> list[int]:
    """Numbers of all processes that a process has started, and theirs."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        for child in file.read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def test_a_sandbox_that_dies_is_started_again(sandbox: Sandbox) -> None:
    assert sandbox._process is not None
    sandbox._process.kill()
    assert sandbox.run(job("def f(x): return 'none'"))["status"] == "passed"


def test_without_bubblewrap_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoSandbox, match="unsafe_local: true"):
        Sandbox(LIMITS).start()


def test_a_sandbox_with_a_hole_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from critique_rl.tasks.code import sandbox as module

    try:
        whole = module.sandbox_command()
    except NoSandbox as error:
        pytest.skip(str(error))
    # With the host's files in it.
    with_hole = [*whole[: whole.index("--dev")], "--ro-bind", "/tmp", "/host"]
    with_hole += whole[whole.index("--dev") :]
    monkeypatch.setattr(module, "sandbox_command", lambda: with_hole)
    monkeypatch.setattr(module, "PROBE", module.PROBE.replace("{path!r}", "'/host'"))
    with pytest.raises(NoSandbox, match="does not hold"):
        Sandbox(LIMITS).start()


def test_unsafe_local_runs_without_a_sandbox() -> None:
    room = Sandbox(LIMITS, unsafe_local=True)
    room.start()
    try:
        assert room.run(job("def f(x): return 'none'"))["status"] == "passed"
        # Where others use the processor too, the clock may come first.
        assert room.run(job("def f(x):\n while 1: pass"))["status"] in ("cpu", "time")
    finally:
        room.stop()


AS_OTHER = """
import sys
sys.path[:0] = {paths!r}
from critique_rl.tasks.code.sandbox import Limits, Sandbox
from hostile_programs import Outside, looking, program
from critique_rl.tasks.code.tests_column import read_tests
import os
room = Sandbox(Limits(seconds=3.0, cpu=1.0))
room.start()
outside = Outside({file!r}, os.path.dirname({file!r}), 9, os.getpid(), "HOME")
for name, body in looking(outside).items():
    tests = read_tests(["assert f(0) == 'none'"])
    source = program(body)
    report = room.run({{"program": source, "before": "", "entry": "f", "tests": tests}})
    seen = report.get("got", report.get("error"))
    assert report["status"] == "passed" or seen == "'refused'", (name, report)
print("held", os.getuid())
"""


def test_the_sandbox_holds_for_another_user(outside: Outside, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root may become another user; the other tests ran as an ordinary one")
    if shutil.which("setpriv") is None:
        pytest.skip("the program setpriv, of util-linux, is missing")
    site = [path for path in sys.path if path.endswith("site-packages")]
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[3]), *site]
    code = AS_OTHER.format(paths=paths, file=outside.file)
    user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # The interpreter of a virtual environment may lie in root's home.
    for python in (sys.executable, shutil.which(version, path="/usr/bin:/usr/local/bin")):
        reach = [*user, str(python), "-c", "import os, sys; open(os.path.realpath(sys.executable))"]
        if python and subprocess.run(reach, capture_output=True).returncode == 0:
            break
    else:
        pytest.skip("no interpreter that another user may start")
    run = subprocess.run([*user, python, "-c", code], capture_output=True, text=True, timeout=120)
    assert run.stdout == "held 65534\n", run.stderr[-2000:]
