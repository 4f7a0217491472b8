"""`verifier: {kind: tests}`: a right answer is a program that passes the tests of its row.

The reward asks public and hidden tests alike. Of public tests a verdict shows what was called,
what came and what was expected; of hidden ones the number alone. Data without a column of public
tests show those in `tests`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from critique_rl._lazy import extra_advice
from critique_rl.config.checks import ConfigError
from critique_rl.hashing import text_checksum
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG
from critique_rl.tasks.code.extract import defines, extract_program, parse
from critique_rl.tasks.code.sandbox import MARGIN_SECONDS, Limits
from critique_rl.tasks.code.tests_column import (
    HIDDEN,
    NoTests,
    Test,
    called_names,
    needs_candidate,
    read_tests,
)
from critique_rl.tasks.row import Row
from critique_rl.tasks.workers.pool import Pool
from critique_rl.tasks.workers.settings import SECTION, TRIES, check_settings
from critique_rl.tasks.workers.verifier import GIGABYTE, WorkerVerifier, build_pool
from critique_rl.types import Verdict

JUDGE = "critique_rl.tasks.code.judge:tests_judge"
KNOWN_ROWS = 256
"""Rows whose tests are remembered."""
NO_PROGRAM = "no program: expected a fenced block of Python"


@dataclass(frozen=True)
class Columns:
    """Which columns of a row hold what; one that a row lacks is empty."""

    tests: str = "tests"
    public_tests: str = "public_tests"
    entry_point: str = "entry_point"
    starter_code: str = "starter_code"
    test_setup: str = "test_setup_code"


@dataclass(frozen=True)
class RowTests:
    """The tests of one row, as they are run: public ones first."""

    tests: tuple[Test, ...]
    entry: str
    """The tested function; "" for a script."""
    starter: str
    """Code that stands before a program which does not repeat it."""


def row_tests(row: Row, columns: Columns) -> RowTests:
    """The tests of a row.

    Raises:
        NoTests: It has none, or some that cannot be read.
    """
    entry = str(row.get(columns.entry_point) or "")
    setup = str(row.get(columns.test_setup) or "")
    public = read_tests(row.get(columns.public_tests), entry, setup)
    # Where the data have public tests the others are hidden, also in a row that has none.
    label = HIDDEN if columns.public_tests in row else "test"
    hidden = read_tests(row.get(columns.tests), entry, setup, label)
    if not hidden:
        raise NoTests(f"no tests in the column {columns.tests!r}")
    tests = (*public, *hidden)
    starter = str(row.get(columns.starter_code) or "")
    calls = called_names(tests)
    guess = ""
    for name, _ in calls.most_common(1):
        guess = name
    has_candidate = any(needs_candidate(test) for test in tests)
    if has_candidate and not (entry or guess):
        raise NoTests(
            f"check(candidate) needs the name of the function in the column {columns.entry_point!r}"
        )
    # A name that no assertion calls is that of a method: `Solution().f(1)`.
    are_code = all(test["kind"] == "code" for test in tests)
    if not has_candidate and guess and are_code and entry not in calls:
        entry = guess
    return RowTests(tests, entry or guess, starter)


class TestsVerifier(WorkerVerifier):
    """Runs the program of each answer in a sandbox, against the tests of its row."""

    # pytest collects classes by this name.
    __test__ = False
    explains = True

    def __init__(self, worker: Pool, columns: Columns):
        super().__init__(worker)
        self.columns = columns
        self.known: dict[str, RowTests] = {}

    def judge_all(
        self, texts: Sequence[str], rows: Sequence[Row], tries: int = TRIES
    ) -> list[Verdict]:
        """As `WorkerVerifier.judge_all`. An answer without a program starts no process."""
        verdicts: dict[int, Verdict] = {}
        jobs = []
        places = []
        for place, (text, row) in enumerate(zip(texts, rows, strict=True)):
            job = self._job(text, row)
            if isinstance(job, Verdict):
                verdicts[place] = job
            else:
                jobs.append(job)
                places.append(place)
        asked = super().judge_all([""] * len(jobs), jobs, tries)
        verdicts |= zip(places, asked, strict=True)
        return [verdicts[place] for place in range(len(texts))]

    def _job(self, text: str, row: Row) -> dict[str, Any] | Verdict:
        """What `harness` runs, or the verdict on an answer without a program."""
        try:
            read = self._tests_of(row)
        except NoTests as error:
            return Verdict("unscored", reason=f"tests: {error}")
        if len(text) > LONGEST_TEXT:
            return Verdict("unreadable", reason=TOO_LONG)
        program, before = find_program(text, read)
        if program is None:
            return Verdict("unreadable", reason=NO_PROGRAM)
        return {
            "program": program,
            "before": before,
            "entry": read.entry,
            "tests": list(read.tests),
        }

    def _tests_of(self, row: Row) -> RowTests:
        """As `row_tests`; the last rows are remembered, since each answer and each piece of a
        critique asks for them again.
        """
        columns = set(asdict(self.columns).values())
        cells = []
        for name, cell in row.items():
            if name in columns:
                cells.append((name, repr(cell)))
        cells.sort()
        key = text_checksum(str(cells))
        if key not in self.known:
            if len(self.known) >= KNOWN_ROWS:
                self.known.clear()
            self.known[key] = row_tests(row, self.columns)
        return self.known[key]


def find_program(text: str, read: RowTests) -> tuple[str | None, str]:
    """The program of an answer, and the code that stands before it.

    A program that goes on where the row's starter code ends is joined to it. One that defines the
    function itself keeps the starter's imports and helpers, where these are a program alone.
    """
    starter = read.starter
    program = extract_program(text, first_name(read.entry))
    if not starter:
        return program, ""
    entry = first_name(read.entry)
    if program is not None and "from __future__" in program:
        # It must stand first, and such a program is whole.
        return program, ""
    if program is not None and defines(program, entry):
        is_alone = parse(starter) is not None
        return program, f"{starter}\n" if is_alone else ""
    if program is None and "```" not in text:
        program = text
    if program is None or parse(starter + program) is None:
        return program if program != text else None, ""
    return program, starter


def first_name(entry: str) -> str:
    """The name that a program must define: `Solution` of `Solution().f`."""
    name, _, _ = entry.partition(".")
    first, _, _ = name.partition("(")
    return first


def build_tests_verifier(
    tests: str = Columns.tests,
    public_tests: str = Columns.public_tests,
    entry_point: str = Columns.entry_point,
    starter_code: str = Columns.starter_code,
    test_setup: str = Columns.test_setup,
    deadline: float = Limits.seconds,
    cpu: float = Limits.cpu,
    program_memory_gb: float = 0.5,
    unsafe_local: bool = False,
    runner: str | None = None,
    step_deadline: float | None = None,
    workers: int | None = None,
    memory_gb: float = 2.0,
) -> TestsVerifier:
    """The verifier of kind tests. Options are told in `isolated_verifiers.KIND_OPTIONS`.

    Raises:
        ConfigError: For a number out of its range, or an option of another type.
    """
    check_settings({"cpu": cpu, "program_memory_gb": program_memory_gb, "deadline": deadline})
    if find_spec("_pytest") is None:
        raise ConfigError(f"{SECTION} tests needs the package pytest; {extra_advice('code')}")
    if not isinstance(unsafe_local, bool):
        got = f"{SECTION}.unsafe_local: got {unsafe_local!r}"
        raise ConfigError(f"{got}, expected true or false")
    if not isinstance(runner, str | None):
        got = f"{SECTION}.runner: got {runner!r}"
        raise ConfigError(f"{got}, expected module:Class")
    columns = Columns(tests, public_tests, entry_point, starter_code, test_setup)
    for name, value in asdict(columns).items():
        if not isinstance(value, str):
            raise ConfigError(f"{SECTION}.{name}: got {value!r}, expected the name of a column")
    memory = int(program_memory_gb * GIGABYTE)
    limits = Limits(seconds=deadline, cpu=cpu, memory=memory)
    options = {"limits": asdict(limits), "unsafe_local": unsafe_local, "runner": runner}
    # The sandbox keeps a program's own deadline; the pool's is for a sandbox that hangs. Public and
    # hidden tests have a process each.
    longest = 2 * deadline + MARGIN_SECONDS
    pool = build_pool(JUDGE, options, longest, step_deadline, workers, memory_gb)
    return TestsVerifier(pool, columns)
