"""Critiques that never came: counted from the metrics, and told in the verdict and every table."""

import json

import pytest
from arm_evaluations import compared, printed, put, two_arms

from critique_rl.analysis.comparison import Comparison
from critique_rl.analysis.critiques.counts import critique_counts
from critique_rl.analysis.critiques.words import describe
from critique_rl.analysis.exports import write_exports
from critique_rl.analysis.report import write_report
from critique_rl.analysis.verdict import verdict
from critique_rl.config.durable_files import append_jsonl
from critique_rl.config.run_folder import PipelineFolder


def log(tmp_path, arm, seed, step, **counts):
    row = {"step": step, **{f"critique/{name}": count for name, count in counts.items()}}
    append_jsonl(PipelineFolder(tmp_path).run(arm, seed).metrics, row)


def with_critiques(tmp_path, ok, failed, skipped):
    """Both arms on two seeds; one step of critique/seed0 asked for these, all others for none."""
    two_arms(tmp_path)
    for seed in (0, 1):
        log(tmp_path, "scalar", seed, 1, signal_before=0.5)
    log(tmp_path, "critique", 1, 1, signal_before=0.5)
    counts = {"ok": ok, "failed": failed, "skipped": skipped}
    reasons = {"failed/timeout": failed, "skipped/circuit open": skipped}
    log(tmp_path, "critique", 0, 1, **counts, **reasons)
    return compared(tmp_path)


@pytest.mark.parametrize(
    ("ok", "failed", "skipped", "clause"),
    [
        (90, 10, 0, ""),  # 10 of 100 is not over 10 %
        (89, 5, 6, "critique: 11 of the 100 critiques that it asked for did not arrive (11%; "),
        (10, 10, 80, "critique: 90 of the 100 critiques that it asked for did not arrive (90%; "),
        (9, 10, 81, "critique is not a critique arm: 91 of the 100 critiques that it asked for "),
        (0, 1, 0, "critique is not a critique arm: 1 of the 1 critiques that it asked for did "),
    ],
)
def test_the_verdict_names_an_arm_whose_critiques_did_not_arrive(
    tmp_path, ok, failed, skipped, clause
):
    sentence = verdict(with_critiques(tmp_path, ok, failed, skipped))
    assert sentence.startswith(clause or "critique - scalar on pass@1/plateau: ")
    assert "critique - scalar on pass@1/plateau: " in sentence
    if skipped > failed:
        assert f"skipped: circuit open {skipped}, failed: timeout {failed})" in sentence


def test_every_table_has_the_counts_and_compare_json_keeps_them(tmp_path):
    comparison = with_critiques(tmp_path, 1, 4, 15)
    folder = PipelineFolder(tmp_path)
    write_report(folder, comparison)
    write_exports(folder, comparison)
    row = ["critique", "20", "1", "4", "15", "95%"]
    line = next(line for line in printed(comparison).splitlines() if "95%" in line and "20" in line)
    assert line.split()[:6] == row
    assert f"| {' | '.join(row)} | not a critique arm: skipped: " in folder.markdown.read_text()
    assert r"critique & 20 & 1 & 4 & 15 & 95\% & not a critique arm: " in folder.latex.read_text()
    assert "critique is not a critique arm: 19 of the 20" in folder.report.read_text()
    data = json.loads(json.dumps(comparison.to_json()))
    counts = data["arms"]["critique"]["critiques"]
    assert (counts["asked"], counts["written"], counts["failed"], counts["skipped"]) == (
        20,
        1,
        4,
        15,
    )
    assert counts["reasons"] == {"skipped: circuit open": 15, "failed: timeout": 4}
    assert Comparison.from_json(data) == comparison
    assert max(len(line) for line in printed(comparison).splitlines()) <= 80


def test_a_folder_that_recorded_nothing_is_compared_and_says_so(tmp_path):
    two_arms(tmp_path)
    log(tmp_path, "critique", 0, 1, ok=3)  # seed 1 has no metrics: 3 are not all of the arm's
    comparison = compared(tmp_path)
    assert comparison.critiques == {"scalar": None, "critique": None}
    assert verdict(comparison).startswith("critique - scalar on pass@1/plateau: ")
    assert printed(comparison).count("not recorded") == 2
    assert comparison.to_json()["arms"]["critique"]["critiques"] is None
    old = comparison.to_json()
    for arm in old["arms"].values():
        del arm["critiques"]
    assert Comparison.from_json(old) == comparison


def test_a_step_that_was_logged_twice_counts_once(tmp_path):
    two_arms(tmp_path)
    for seed in (0, 1):
        log(tmp_path, "critique", seed, 1, ok=2, cached=1)
        log(tmp_path, "critique", seed, 2, failed=5)
        log(tmp_path, "critique", seed, 2, ok=4)  # after a kill the step was taken again
    counts = compared(tmp_path).critiques["critique"]
    assert (counts.asked, counts.written, counts.cached, counts.failed) == (14, 14, 2, 0)


def test_without_a_pair_the_sentence_still_names_the_arm(tmp_path):
    put(tmp_path, "critique", 0, {"a": 1})
    log(tmp_path, "critique", 0, 1, failed=7)
    sentence = verdict(compared(tmp_path))
    assert sentence.startswith("critique is not a critique arm: 7 of the 7")
    assert "; no arm can be compared with scalar on pass@1/plateau yet (3 runs " in sentence


def test_a_model_card_has_the_counts_in_words():
    assert describe(None) == "not recorded"
    assert describe(critique_counts([{"loss": 1.0}])) == "none asked for"
    row = {"critique/failed": 3, "critique/failed/timeout": 3, "critique/ok": 5}
    assert describe(critique_counts([row])) == (
        "8 asked for, 5 written, 3 failed, 0 skipped (failed: timeout 3)"
    )


def test_a_share_short_of_all_is_not_called_all(tmp_path):
    sentence = verdict(with_critiques(tmp_path, 1, 0, 999))
    assert "999 of the 1000 critiques that it asked for did not arrive (99.90%; " in sentence
