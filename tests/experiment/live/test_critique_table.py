"""The rows of critiques that a tracker shows."""

import pytest

from critique_rl.config.schema import TrackingConfig
from critique_rl.experiment.live.critique_table import SHOWN, critique_rows, read_critiques
from critique_rl.experiment.live.trackers import markdown_table


def row(group=0, role="rollout", attempt=-1, status="", **values):
    """A row of the table of rollouts."""
    defaults = {
        "group": group,
        "role": role,
        "attempt": attempt,
        "question": f"question {group}",
        "family": "plateau",
        "text": "attempt",
        "outcome": "wrong",
        "critic": "oracle",
        "critique": "words",
        "critique_status": status,
        "critique_reason": "",
        "chosen": False,
    }
    return {**defaults, **values}


def shown(rows, **limits):
    return critique_rows(rows, 7, TrackingConfig(**limits))


def test_rollouts_without_a_critique_are_left_out() -> None:
    rows = [row(), row(status="ok"), row(role="expert")]
    assert [list(item) for item in shown(rows)] == [list(SHOWN)]
    assert shown(rows)[0]["step"] == 7


def test_every_group_has_a_row_before_any_has_a_second_one_refined_rollouts_first() -> None:
    rows = [
        row(0, status="ok", text="a"),
        row(0, status="ok", text="b"),
        row(1, status="ok", text="c"),
        row(0, role="candidate", attempt=1, text="b refined", outcome="right"),
    ]
    texts = [(item["attempt"], item["refinement"]) for item in shown(rows)]
    assert texts == [("b", "b refined"), ("c", ""), ("a", "")]
    assert [item["attempt"] for item in shown(rows, critiques=2)] == ["b", "c"]


@pytest.mark.parametrize(
    ("chosen", "expected"), [((False, False), "second"), ((True, False), "first")]
)
def test_of_several_turns_the_chosen_refinement_is_shown_or_else_the_last(chosen, expected) -> None:
    rows = [
        row(status="ok"),
        row(role="candidate", attempt=0, text="first", chosen=chosen[0]),
        row(role="candidate", attempt=1, text="second", chosen=chosen[1]),
    ]
    assert shown(rows)[0]["refinement"] == expected


def test_a_failed_critique_shows_its_reason() -> None:
    rows = [row(status="failed", critique_reason="deadline")]
    assert shown(rows)[0]["status"] == "failed: deadline"


def test_a_long_text_is_cut_and_says_so() -> None:
    rows = [row(status="ok", critique="x" * 30)]
    assert shown(rows, characters=10)[0]["critique"] == "x" * 10 + " ... (20 characters left out)"


def test_a_step_without_a_table_of_rollouts_has_no_rows(tmp_path) -> None:
    assert read_critiques(tmp_path / "step00002-rank0.parquet", 2, TrackingConfig()) == []


def test_markdown_keeps_columns_apart() -> None:
    rows = shown([row(status="ok", critique="a | b\nc")])
    assert "a \\| b c" in markdown_table(rows).splitlines()[2]
