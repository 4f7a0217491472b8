"""Does the package work with other versions of its libraries than those it was tested with?

    python tests/benchmarks/other_versions.py lowest
    python tests/benchmarks/other_versions.py newest
    python tests/benchmarks/other_versions.py trl==1.15.0 --seams

`lowest` takes the lowest version that pyproject.toml allows of each library, so it tells whether
those bounds are true. `newest` takes the newest TRL, transformers and openai, whatever pyproject
allows. A version of one library is taken beside the tested ones of the others.

Each makes a fresh environment in a temporary folder, installs this checkout, prints the versions,
and runs the tests: all of them, or those given after `--`. What a new version breaks is on the page
critique_rl/docs/versions.md.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTRAS = ("dev", "tasks", "math", "champ", "serve")
WATCHED = ("trl", "transformers", "openai")
"""Libraries whose newest version is tried: their private names and answers are what we lean on."""
SEAMS = (
    "tests/trainer/test_seams.py",
    "tests/trainer/test_trainer.py",
    "tests/trainer/test_trl_examples.py",
    "tests/sampling",
    "tests/critic",
)
NAME = re.compile(r"[A-Za-z0-9_.-]+")


def run(*words: str | Path) -> None:
    """Run a command in the checkout; a failure ends this script with its status."""
    done = subprocess.run([str(word) for word in words], cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.returncode)


def requirements() -> list[str]:
    """What pyproject.toml asks for, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    return wanted


def install_lowest(python: Path, folder: Path) -> None:
    """The lowest allowed version of each direct requirement.

    pip has no way to ask for it, so uv resolves them.
    """
    run(python, "-m", "pip", "install", "--quiet", "uv")
    wanted = folder / "wanted.txt"
    wanted.write_text("\n".join(requirements()) + "\n")
    found = folder / "lowest.txt"
    resolve = ["--resolution", "lowest-direct", "--quiet", "--output-file", found]
    run(python, "-m", "uv", "pip", "compile", wanted, *resolve)
    run(python, "-m", "uv", "pip", "install", "--quiet", "--python", python, "-r", found)


def install_others(python: Path, folder: Path, free: Sequence[str], pins: Sequence[str]) -> None:
    """The tested versions, but of the `free` libraries the newest that `pins` allow."""
    constraints = folder / "constraints.txt"
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    others = [line for line in tested if line.partition("==")[0] not in free]
    constraints.write_text("\n".join([*others, *pins]) + "\n")
    wanted = []
    for requirement in requirements():
        name = NAME.match(requirement)
        assert name is not None, requirement
        if name.group() in free:
            # The bounds stand in the way of what is to be tried.
            wanted.append(re.split("[<>=]", requirement)[0])
        else:
            wanted.append(requirement)
    run(python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("versions", help="lowest, newest, or a version such as trl==1.15.0")
    parser.add_argument("--seams", action="store_true", help="only tests of the seams to libraries")
    parser.add_argument("more", nargs="*", help="more for pytest, after --")
    given = parser.parse_args()
    tests = list(given.more)
    if given.seams:
        tests += SEAMS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(sys.executable, "-m", "venv", folder / "venv")
        python = folder / "venv" / "bin" / "python"
        if given.versions == "lowest":
            install_lowest(python, folder)
        elif given.versions == "newest":
            install_others(python, folder, free=WATCHED, pins=[])
        else:
            library = given.versions.partition("==")[0]
            install_others(python, folder, free=[library], pins=[given.versions])
        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--editable", ".")
        run(python, "-m", "pip", "list")
        # Tests start `python` and `critique-rl`, which must be those of this environment.
        os.environ["PATH"] = f"{python.parent}:{os.environ['PATH']}"
        os.environ["OMP_NUM_THREADS"] = "1"
        run(python, "-m", "pytest", "-n", "2", "--dist", "worksteal", *tests)


if __name__ == "__main__":
    main()
