"""A bounded sample of rollouts with what became of them: rollout -> verdict -> critique ->
refinement, and on through all turns, spread over arms, seeds, and early and late steps.

The files alone decide which ones, never chance: the same folder gives the same page. Left out: a
full browser of all rollouts. They are parquet, and tools for that exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.analysis.learning_curves import SeedRuns
from critique_rl.analysis.page.text_cuts import Cut, cut, spell_out
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.run_identity import RunIdentity, table_identity

MOST = 120
"""Transcripts of a page."""
FILES = 3
"""Rollout files that are looked through at each end of a run."""
LONGEST = 2400
"""Characters of a text that are shown at most; halved until all texts fit `BYTES`."""
SHORTEST = 100
"""Characters at which halving ends."""
BYTES = 600_000
"""Bytes of all texts together, as the page spells them."""
LONGEST_LABEL = 120
"""Characters of an answer and of a critique's reason that are shown."""
LONGEST_NAME = 80
"""Characters of a family's and a critic's name that are shown."""
KINDS = ("rescued", "not rescued", "leaked", "no critique", "not refined")
"""Fates of a failed rollout. "leaked" stands beside one of the others: the critique gave the answer
away.
"""
PHASES = ("late", "early")
FLAGS = ["role", "attempt", "outcome", "critique_status", "leaked", "chosen"]
TEXTS = ("question", "text", "critique", "answer", "critique_reason", "critic", "family")

TEXT = (str,)
COLUMNS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("question", "text", "outcome", "family", "critic"), TEXT),
    **dict.fromkeys(("critique", "critique_status"), TEXT),
    **dict.fromkeys(("answer", "critique_reason"), (str, type(None))),
    "step": (int,),
    "reward": (int, float, type(None)),
    "leaked": (bool,),
    "chosen": (bool,),
}
"""Columns that the page shows -> their types."""

Row = Mapping[str, Any]
"""A row of a rollouts parquet; `config.run_folder` names the columns."""
Flags = Mapping[str, list[Any]]
"""The columns `FLAGS` of a rollouts parquet."""
Chain = tuple[int, ...]
"""Row of a rollout, then of its refinement, then of the refinement of that one, and so on."""
Place = tuple[str, int, str]
"""(arm, seed, phase)."""
Candidates = dict[str, "RawTranscript"]
"""Kind -> the first transcript of that kind."""


@dataclass(frozen=True)
class RawTranscript:
    """A failed rollout and its refinements, as the parquet has them."""

    arm: str
    seed: int
    kinds: tuple[str, ...]
    rollout: Row
    refinements: tuple[Row, ...]
    """Turn by turn."""


@dataclass(frozen=True)
class ShownAttempt:
    """A rollout or a refinement as the page shows it."""

    step: int
    family: str
    question: Cut
    text: Cut
    outcome: str
    answer: Cut | None
    """None where no answer was read."""
    reward: float | None
    critic: str
    critique: Cut
    critique_status: str
    """"" where no critique was asked for."""
    critique_reason: Cut | None
    leaked: bool
    chosen: bool
    """Whether a refinement was trained on."""


@dataclass(frozen=True)
class Transcript:
    """A failed rollout with its critique, and what became of it."""

    arm: str
    seed: int
    kinds: tuple[str, ...]
    """Of `KINDS`."""
    rollout: ShownAttempt
    refinements: tuple[ShownAttempt, ...]
    """Turn by turn; () where there is none."""


@dataclass(frozen=True)
class Sample:
    """The transcripts of a page."""

    transcripts: Sequence[Transcript]
    longest: int
    """Characters of a text that are shown at most."""
    unreadable: Sequence[str] = ()
    """Rollout files that could not be read, and why."""

    @property
    def arms(self) -> list[str]:
        """Arms of the transcripts, in the order of the page."""
        arms = dict.fromkeys(transcript.arm for transcript in self.transcripts)
        return list(arms)

    @property
    def seeds(self) -> list[int]:
        """Seeds of the transcripts, ascending."""
        return sorted({transcript.seed for transcript in self.transcripts})

    @property
    def families(self) -> list[str]:
        """Families of the transcripts' problems, in alphabetical order."""
        return sorted({transcript.rollout.family for transcript in self.transcripts})

    @property
    def kinds(self) -> list[str]:
        """The kinds that the transcripts have."""
        present: set[str] = set()
        for transcript in self.transcripts:
            present.update(transcript.kinds)
        return [kind for kind in KINDS if kind in present]


def sample(runs: Mapping[str, SeedRuns], most: int = MOST) -> Sample:
    """Pick transcripts evenly over arms, kinds, seeds and phases.

    Args:
        runs: run folders by arm and seed.
        most: transcripts in all.
    """
    seeds = dict.fromkeys(seed for folders in runs.values() for seed in folders)
    places = list(product(PHASES, seeds))
    candidates: dict[Place, Candidates] = {}
    taken: dict[int, RawTranscript] = {}
    unreadable: dict[str, None] = {}
    # Round by round every arm gives one of each kind, so that no arm fills the page. Each round,
    # and each neighbour within a round, takes it from another seed and phase.
    for turn in range(len(places)):
        for (i, arm), (j, kind) in product(enumerate(runs), enumerate(KINDS)):
            next_place = (turn + i + j) % len(places)
            phase, seed = places[next_place]
            place = (arm, seed, phase)
            if place not in candidates:
                run = runs[arm].get(seed)
                files = _files_of_phase(run, phase)
                candidates[place] = _read_candidates(arm, seed, files, unreadable)
            transcript = candidates[place].get(kind)
            if transcript is not None and len(taken) < most:
                # One transcript may stand for two kinds. It is shown once.
                taken.setdefault(id(transcript), transcript)
        if len(taken) >= most:
            break
    transcripts = list(taken.values())
    longest = _fit(transcripts)
    shown = [_show_transcript(transcript, longest) for transcript in transcripts]
    return Sample(shown, longest, list(unreadable))


def _files_of_phase(run: RunFolder | None, phase: str) -> list[Path]:
    """Rollout files of one end of a run, the outermost first; a file is in one end only."""
    if run is None:
        return []
    files = sorted(run.rollouts.glob("*.parquet"))
    middle = len(files) // 2
    half = files[:middle]
    if phase == "late":
        half = files[middle:]
        half.reverse()
    return half[:FILES]


def _read_candidates(
    arm: str, seed: int, files: Sequence[Path], unreadable: dict[str, None]
) -> Candidates:
    """The first transcript of each kind; a file that cannot be read is added to `unreadable`."""
    candidates: Candidates = {}
    for file in files:
        wanted = [kind for kind in KINDS if kind not in candidates]
        if not wanted:
            break
        try:
            transcripts = list(_read_file(arm, seed, file, wanted))
        # A damaged table may lack a column, or hold other types.
        except (pa.ArrowException, OSError, LookupError, TypeError, ValueError) as error:
            # Arrow's messages have several lines.
            words = " ".join(str(error).split())
            place = f"{arm}/seed{seed}/{file.name}"
            unreadable[f"{place}: {words}"] = None
            continue
        for transcript in transcripts:
            for kind in transcript.kinds:
                candidates.setdefault(kind, transcript)
    return candidates


def _read_file(arm: str, seed: int, file: Path, wanted: Sequence[str]) -> Iterator[RawTranscript]:
    """Transcripts of the wanted kinds. Raises ValueError for a table of another run."""
    foreign = RunIdentity(arm, seed).fault(table_identity(file))
    if foreign:
        raise ValueError(foreign)
    # The flags are read before any text: a file may hold thousands of long texts, and most files of
    # a run hold nothing new.
    flags = pq.read_table(file, columns=FLAGS).to_pydict()
    chosen = _first_of_each(flags, wanted)
    if not chosen:
        return
    kinds: dict[Chain, list[str]] = {}
    for kind, chain in chosen.items():
        kinds.setdefault(chain, []).append(kind)
    rows = _read_rows(file, kinds)
    for chain, chain_kinds in kinds.items():
        rollout, *refinements = [rows[number] for number in chain]
        yield RawTranscript(arm, seed, tuple(chain_kinds), rollout, tuple(refinements))


def _read_rows(file: Path, chains: Iterable[Chain]) -> dict[int, Row]:
    """Number -> row of the rollouts and refinements of the chains."""
    numbers: set[int] = set()
    for chain in chains:
        numbers.update(chain)
    ascending = sorted(numbers)
    table = pq.read_table(file)
    rows = table.take(pa.array(ascending)).to_pylist()
    for row in rows:
        _check_row(row)
    return dict(zip(ascending, rows, strict=True))


def _check_row(row: Row) -> None:
    """Refuse a row of a damaged table, whose columns have other names or types.

    Raises:
        TypeError: the first such column.
    """
    for name, kinds in COLUMNS.items():
        if not isinstance(row.get(name), kinds):
            raise TypeError(f"column {name} is damaged")


def _first_of_each(flags: Flags, wanted: Sequence[str]) -> dict[str, Chain]:
    """The first chain of each wanted kind.

    Args:
        flags: of a file.
        wanted: of `KINDS`.

    Returns:
        Kind -> chain.
    """
    best = _best_candidates(flags)
    outcomes = flags["outcome"]
    chains: dict[str, Chain] = {}
    for i, role in enumerate(flags["role"]):
        if role == "rollout" and outcomes[i] in ("wrong", "unreadable"):
            chain = _chain_of(i, best)
            for kind in _kinds(flags, chain):
                if kind in wanted:
                    chains.setdefault(kind, chain)
    return chains


def _chain_of(rollout: int, best: Mapping[int, int]) -> Chain:
    chain = []
    row: int | None = rollout
    while row is not None:
        chain.append(row)
        row = best.get(row)
    return tuple(chain)


def _best_candidates(flags: Flags) -> dict[int, int]:
    """Row of a rollout or refinement -> row of its refinement, one that was trained on first."""
    chosen = flags["chosen"]
    best: dict[int, int] = {}
    for i, attempt in enumerate(flags["attempt"]):
        # A refinement stands behind what it refines. In a damaged table chains could be rings.
        if flags["role"][i] != "candidate" or attempt >= i:
            continue
        earlier = best.get(attempt)
        if earlier is None or (chosen[i] and not chosen[earlier]):
            best[attempt] = i
    return best


def _kinds(flags: Flags, chain: Chain) -> Iterator[str]:
    i = chain[0]
    if len(chain) > 1:
        rescued = flags["outcome"][chain[-1]] == "right"
        kind = "rescued" if rescued else "not rescued"
        yield kind
    elif flags["critique_status"][i] != "ok":
        yield "no critique"
    else:
        yield "not refined"
    # Nothing came of words on the last refinement.
    followed = chain[:-1] or chain
    if any(flags["leaked"][row] for row in followed):
        yield "leaked"


def _fit(transcripts: Sequence[RawTranscript]) -> int:
    """The length to which all texts are cut, the longest that keeps them within `BYTES`."""
    longest = LONGEST
    while longest > SHORTEST:
        if _page_bytes(transcripts, longest) <= BYTES:
            break
        longest //= 2
    return longest


def _page_bytes(transcripts: Sequence[RawTranscript], longest: int) -> int:
    """Bytes of all texts on the page."""
    total = 0
    for transcript in transcripts:
        for row in (transcript.rollout, *transcript.refinements):
            for name in TEXTS:
                part = cut(row.get(name), longest)
                # Escaped, as an & is five bytes on the page.
                spelled = escape(part.head + part.tail)
                total += len(spelled.encode())
    return total


def _show_transcript(transcript: RawTranscript, longest: int) -> Transcript:
    refinements = [_show_attempt(row, longest) for row in transcript.refinements]
    return Transcript(
        arm=transcript.arm,
        seed=transcript.seed,
        kinds=transcript.kinds,
        rollout=_show_attempt(transcript.rollout, longest),
        refinements=tuple(refinements),
    )


def _show_attempt(row: Row, longest: int) -> ShownAttempt:
    return ShownAttempt(
        step=row["step"],
        family=_show_name(row["family"]),
        question=cut(row["question"], longest),
        text=cut(row["text"], longest),
        outcome=row["outcome"],
        answer=_show_label(row["answer"]),
        reward=row["reward"],
        critic=_show_name(row["critic"]),
        critique=cut(row["critique"], longest),
        critique_status=row["critique_status"],
        critique_reason=_show_label(row["critique_reason"]),
        leaked=row["leaked"],
        chosen=row["chosen"],
    )


def _show_name(name: str) -> str:
    return spell_out(name[:LONGEST_NAME])


def _show_label(text: str | None) -> Cut | None:
    if text is None:
        return None
    return cut(text, LONGEST_LABEL)
