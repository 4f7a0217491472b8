"""The line that a run says in a log."""

from types import SimpleNamespace

import pytest

from critique_rl.config.schema import BudgetConfig, PolicyConfig, RunConfig, TaskConfig
from critique_rl.experiment.live.progress_lines import ProgressLines

TASK, POLICY = TaskConfig("lab/chain"), PolicyConfig("lab")


def lines(spent=0.0, **budget) -> ProgressLines:
    """The callback of a run that has generated as many tokens."""
    config = RunConfig(TASK, POLICY, budget=BudgetConfig(**budget))
    costs = {"generated_tokens": spent, "usd": spent}
    return ProgressLines(config, SimpleNamespace(costs=lambda: costs))


def state(step, most=100) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=most, is_world_process_zero=True)


@pytest.mark.parametrize(
    ("budget", "spent", "expected"),
    [
        (
            {"generated_tokens": 88_000},
            22_000,
            "step 9: 22,000 of 88,000 generated tokens (25%), reward 0.50, about 3 min left",
        ),
        ({"usd": 2}, 0.5, "step 9: 0.5 of 2 usd (25%), reward 0.50, about 3 min left"),
        (
            {"optimizer_steps": 100},
            0,
            "step 9: 9 of 100 steps (9%), reward 0.50, about 10 min left",
        ),
    ],
)
def test_a_line_counts_the_budget(budget, spent, expected) -> None:
    progress = lines(spent, **budget)
    progress.reward = 0.5
    assert progress.line(state(9), 60.0) == expected


def test_a_continued_run_measures_its_pace_from_where_it_went_on() -> None:
    progress = lines(75, generated_tokens=100)
    progress.share_at_start = 0.5
    # A quarter took a minute, and a quarter is left.
    assert progress.line(state(3), 60.0).endswith("(75%), about 1 min left")


def test_lines_come_at_the_first_step_and_no_more_often_than_asked(capsys) -> None:
    progress = lines(5, generated_tokens=100)
    arguments = SimpleNamespace(disable_tqdm=True)
    progress.on_train_begin(arguments, state(0), None)
    for step in (1, 2, 3):
        progress.on_log(arguments, state(step), None, logs={"loss": 0.1, "reward": 0.25})
    progress.on_train_end(arguments, state(3), None)
    written = capsys.readouterr().err.splitlines()
    starts = [line.split(":")[0] for line in written]
    assert starts == ["step 1", "step 3"]
    assert "reward 0.25" in written[-1]
