"""`critique-rl paper` on finished runs."""

from __future__ import annotations

import sys

import paper_runs

from critique_rl.cli.entry import main


def test_the_command_writes_all_files_beside_the_runs_or_where_it_is_told_to(
    tmp_path, capsys
) -> None:
    path, results = paper_runs.make(tmp_path)
    words = ["paper", str(path), "--out", str(tmp_path / "runs")]
    assert main(words) == 0
    names = {file.name for file in results.paper.iterdir()}
    figures = {
        f"{name}.{suffix}"
        for name in ("differences", "arms", "curves")
        for suffix in ("svg", "pdf", "png")
    }
    assert names == figures | {"arms.tex", "differences.tex", "methods.tex", "methods.md"}
    assert results.comparison.exists()
    assert f"paper: {results.paper} with" in capsys.readouterr().err
    assert "Critique-GRPO (arXiv 2506.03106" in (results.paper / "methods.md").read_text()
    assert main([*words, "--into", str(tmp_path / "elsewhere")]) == 0
    for file in results.paper.iterdir():
        assert (tmp_path / "elsewhere" / file.name).read_bytes() == file.read_bytes()


def test_without_matplotlib_nothing_is_read_or_written(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["paper", str(tmp_path / "missing.yaml")]) == 2
    error = capsys.readouterr().err
    assert "figures need the package matplotlib" in error
    assert "pip install '.[paper]'" in error
