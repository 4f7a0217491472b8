"""`pipelines/frontier_curve.py` on evaluations that are written down: its tables and its figure."""

import runpy
import sys
from pathlib import Path

import pytest
import yaml
from arm_evaluations import put

from critique_rl.config.durable_files import append_jsonl
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import PipelineFolder

SCRIPT = Path(__file__).parents[2] / "pipelines" / "frontier_curve.py"
CRITIC = {"kind": "local", "model": "lab/critic", "prompt_price": 1, "completion_price": 10}
ARMS = {
    "scalar": {},
    "full": {"critic": CRITIC},
    "ranked-25": {"critic": CRITIC, "method": {"critique_share": 0.25}},
    "random-25": {"critic": CRITIC, "method": {"critique_share": 0.25, "critique_explore": 1}},
}
RIGHT = {"scalar": (0, 0), "full": (3, 3), "ranked-25": (3, 3), "random-25": (0, 1)}
"""Right answers of 4 to each problem, first with seed 0, then with seed 1."""
SPENT = {
    "scalar": (0, 0.5),
    "full": (4000, 2.0),
    "ranked-25": (1000, 1.0),
    "random-25": (1000, 1.0),
}
"""Critic tokens and dollars of a run."""
PROBLEMS = [f"p{i}" for i in range(20)]


def write_runs(folder: Path, arms=ARMS) -> tuple[Path, Path]:
    """A pipeline file, and the folder that holds its runs."""
    path = folder / "frontier.yaml"
    pipeline = {
        "task": {"name": "lab/chain", "size": 12},
        "policy": {"model": "lab"},
        "trl": {"max_completion_length": 12},
        "budget": {"optimizer_steps": 2},
        "seeds": [0, 1],
        "primary": "pass@1/plateau",
        "arms": arms,
    }
    path.write_text(yaml.safe_dump(pipeline))
    out = folder / "runs"
    results = out / "frontier"
    put(results, "base", None, dict.fromkeys(PROBLEMS, 0))
    for arm in arms:
        critic_tokens, usd = SPENT[arm]
        for seed in (0, 1):
            # Half of the problems, so that problems differ too.
            right = {name: RIGHT[arm][seed] * (i % 2) for i, name in enumerate(PROBLEMS)}
            # One in five critic tokens is written.
            written = critic_tokens // 5
            owners = {"critic_prompt": critic_tokens - written, "critic_completion": written}
            cost = {"critic_tokens": critic_tokens, "usd": usd, "tokens": owners}
            put(results, arm, seed, right, cost=cost)
            counts = {"critique/ok": 8, "refine/candidates": 8, "refine/rescue_rate": 0.75}
            row = {} if arm == "scalar" else counts
            append_jsonl(PipelineFolder(results).run(arm, seed).metrics, {"step": 1, **row})
    return path, out


def run_script(monkeypatch, *words) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, words)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_tables_and_figure_of_a_frontier(tmp_path, monkeypatch, capsys) -> None:
    path, out = write_runs(tmp_path)
    svg = tmp_path / "frontier.svg"
    run_script(monkeypatch, path, "--out", out, "--svg", svg)
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("| ") and not line.startswith("| arm"):
            rows.setdefault(cells(line)[0], []).append(cells(line)[1:])
    # full: 3 of 4 right in half of the problems, .375; the control has none
    [tokens, share, usd_share, gain, to_full, verdict], full_price = rows["full"]
    assert (tokens, share, usd_share, to_full, verdict) == ("4,000", "1.000", "1.000", "", "")
    assert gain.startswith("+0.375 [")
    [tokens, share, usd_share, gain, to_full, verdict], _ = rows["ranked-25"]
    assert (tokens, share, usd_share) == ("1,000", "0.250", "0.250")
    assert to_full.startswith("+0.000 [")
    # random-25: 0 and 1 of 4 in half of the problems, .0625 as a mean
    [_, _, _, gain, to_full, verdict], random_price = rows["random-25"]
    assert gain.startswith("+0.062 [")
    assert to_full.startswith("-0.312 [")
    assert verdict != "equal"
    # Ten problems are newly solved in each run of full, and in one of two of random-25.
    assert full_price == ["0.75", "10.0", "400", "0.2000"]
    assert random_price == ["0.75", "5.0", "200", "0.2000"]
    assert rows["scalar"] == [["", "0.0", "-", "-"]]
    [[by_rule]] = rows["ranked-25 - random-25"]
    assert by_rule.startswith("+0.312 [")
    drawing = svg.read_text()
    assert "critic tokens per newly" in drawing
    assert "full: rescues 0.75" in drawing
    run_script(monkeypatch, path, "--out", out, "--svg", svg, "--rescues", "full=0.87")
    assert "| full | 0.87 | 10.0 |" in capsys.readouterr().out
    assert "full: rescues 0.87" in svg.read_text()
    for words in ("full", "full=2", "full=nan", "ranked-25=0.5"):
        with pytest.raises(SystemExit, match="--rescues: got"):
            run_script(monkeypatch, path, "--out", out, "--rescues", words)


def test_a_critic_without_a_full_arm_has_no_frontier(tmp_path, monkeypatch) -> None:
    arms = {name: section for name, section in ARMS.items() if name != "full"}
    path, out = write_runs(tmp_path, arms)
    with pytest.raises(SystemExit, match="no arm asks its critic about all failures; add one"):
        run_script(monkeypatch, path, "--out", out)


def test_runs_that_are_missing_or_damaged_are_one_sentence(tmp_path, monkeypatch) -> None:
    path, out = write_runs(tmp_path)
    results = PipelineFolder(out / "frontier")
    with pytest.raises(SystemExit, match=r"got no eval\.json under"):
        run_script(monkeypatch, path, "--out", tmp_path / "elsewhere")
    with pytest.raises(SystemExit, match="no pipeline"):
        run_script(monkeypatch, tmp_path / "none.yaml", "--out", out)
    written = results.run("ranked-25", 1).evaluation
    text = written.read_text()
    written.write_text("{")
    with pytest.raises(SystemExit, match=r"eval\.json"):
        run_script(monkeypatch, path, "--out", out)
    written.unlink()
    with pytest.raises(SystemExit, match="1 of 8 runs are missing or not comparable"):
        run_script(monkeypatch, path, "--out", out)
    written.write_text(text)
    for margin in ("-0.05", "nan", "inf"):
        with pytest.raises(SystemExit):
            run_script(monkeypatch, path, "--out", out, f"--margin={margin}")


def test_the_shipped_pipeline_has_what_the_script_reads() -> None:
    arms = load_pipeline(SCRIPT.with_name("frontier.yaml")).arms
    script = runpy.run_path(str(SCRIPT))
    full = script["full_arms"](dict(arms))
    assert {name: full[name] for name in ("ranked-5", "random-25", "weak-25")} == {
        "ranked-5": "full",
        "random-25": "full",
        "weak-25": "weak-full",
    }
    assert "scalar" not in full
    assert script["choice_of"](arms["random-5"]) == (0.05, "random")
    assert script["choice_of"](arms["ranked-10"]) == (0.1, "ranked")
    assert script["choice_of"](arms["reuse"]) == (1.0, "reuse")
