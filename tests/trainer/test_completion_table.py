"""The columns that this package adds to TRL's tables of completions, in TRL's files."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import ranks
from tiny_trainers import trainer_of

from critique_rl import CritiqueGRPOConfig, CritiqueGRPOTrainer
from critique_rl.types import Critique

COLUMNS = {
    *("step", "prompt", "completion", "marked", "mark", "advantage"),
    *("verdict", "role", "critique", "refinement"),
}
GROUP, SLOTS = 4, 1
TURN = re.compile(r"refinement, turn (\d) of rollout (\d)")


def tables(folder: Path) -> list[pd.DataFrame]:
    return [pd.read_parquet(path) for path in sorted((folder / "completions").glob("*.parquet"))]


@pytest.mark.processes
@pytest.mark.parametrize("world", [1, 2])
def test_every_cell_is_about_the_completion_of_its_row(tiny_policy, tmp_path, world) -> None:
    arguments = [tiny_policy, str(tmp_path)]
    calls = [("completion_tables", [*arguments, turns]) for turns in ("1", "3")]
    ranks.run(tmp_path, calls, world=world)
    written = tables(tmp_path / "tables1")
    assert written
    roles: set[str] = set()
    shown: set[str] = set()
    for table in written:
        assert set(table.columns) == COLUMNS
        assert len(table) == 8 * world
        check_table(table)
        roles |= set(table["role"].str.removesuffix(", truncated"))
        shown |= set(table["critique"].str[:4])
    assert roles == {"rollout", "refinement"}
    # a critique, none, and one that did not come
    assert {"not ", "", "(fai"} <= shown
    roles = set()
    for table in tables(tmp_path / "tables3"):
        check_turns(table)
        roles |= set(table["role"])
    assert any(role.startswith("refinement, turn 2 of rollout ") for role in roles)


def check_table(table: pd.DataFrame) -> None:
    texts = [completion[0]["content"] for completion in table["completion"]]
    assert list(table["mark"]) == texts
    for place, (row, text) in enumerate(zip(table.itertuples(), texts, strict=True)):
        assert row.verdict == ("right" if row.marked == 1 else "wrong")
        start = place - place % GROUP
        rollouts = [f"not {rollout}" for rollout in texts[start : start + GROUP - SLOTS]]
        if row.role == "refinement":
            assert place - start == GROUP - SLOTS
            assert row.critique in rollouts
            assert row.refinement == ""
        elif row.critique.startswith("not "):
            assert (row.verdict, row.critique) == ("wrong", f"not {text}")
        if row.role != "refinement" and row.refinement:
            assert row.critique == f"not {text}"


def check_turns(table: pd.DataFrame) -> None:
    """Each row is marked with its completion, and the chain of its rollout leads to it."""
    texts = [completion[0]["content"] for completion in table["completion"]]
    assert list(table["mark"]) == texts
    for place, (row, text) in enumerate(zip(table.itertuples(), texts, strict=True)):
        assert row.verdict == ("right" if row.marked == 1 else "wrong")
        turn = TURN.fullmatch(row.role)
        if turn is None:
            continue
        rollout = table.iloc[place - place % GROUP + int(turn[2]) - 1]
        steps = rollout["refinement"]
        if turn[1] != "1":
            assert f"[turn {turn[1]}] {text}" in steps
            assert f"[critique] {row.critique}\n[turn {turn[1]}]" in steps


def test_a_column_that_the_users_reward_logs_under_our_name_stays_the_users(
    tiny_policy, tmp_path
) -> None:
    def noted(completions, log_extra, **columns):
        log_extra("critique", ["mine"] * len(completions))
        return [0.0] * len(completions)

    class Words:
        name = "words"

        def critique(self, attempts):
            return [Critique("ours", self.name) for _ in attempts]

    settings = {"refine_template": "lab/refine", "max_steps": 1, "log_completions": True}
    trainer_of(
        CritiqueGRPOTrainer,
        CritiqueGRPOConfig,
        tiny_policy,
        tmp_path,
        noted,
        settings={**settings, "num_completions_to_print": 0},
        critic=Words(),
    ).train()
    [table] = tables(tmp_path)
    assert set(table["critique"]) == {"mine"}
    assert set(table["verdict"]) == {"wrong"}
