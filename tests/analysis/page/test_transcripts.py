"""Transcripts of the page: which rollouts it shows, and how long and hidden texts are written."""

import pyarrow as pa
import pyarrow.parquet as pq
from report_pages import put_rollouts, report, rollout

from critique_rl.analysis.page.text_cuts import cut
from critique_rl.analysis.page.transcripts import MOST, sample
from critique_rl.config.run_folder import PipelineFolder


def test_a_rollout_file_that_cannot_be_read_is_named_and_the_others_are_shown(full):
    broken = full.run("critique", 0).rollouts / "step00009-rank0.parquet"
    broken.write_bytes(b"PAR1 cut off")
    text = report(full)
    assert (
        text.count("Left out, since it could not be read: critique/seed0/step00009-rank0.parquet")
        == 1
    )
    assert "failed rollouts with what became of them" in text


def test_characters_that_cannot_be_seen_are_spelled_out():
    hidden = [
        0x0,
        0x7F,
        0x85,
        0xAD,
        0x200B,
        0x200E,
        0x2028,
        0x2029,
        0x202E,
        0x2060,
        0xFEFF,
        0xE0041,
    ]
    assert cut("".join(map(chr, hidden)), 100).head == "".join(f"[U+{code:04X}]" for code in hidden)
    seen = "a\tb\nc é ü 漢字 \u00a0 😀"
    assert cut(seen, 100).head == seen


def test_transcripts_are_spread_over_arms_and_seeds_and_repeat(tmp_path):
    folder = PipelineFolder(tmp_path)
    runs = {arm: {seed: folder.run(arm, seed) for seed in range(5)} for arm in "abcdefgh"}
    for runs_of_arm in runs.values():
        for run in runs_of_arm.values():
            run.rollouts.mkdir(parents=True)
            for step in (1, 2, 8, 9):
                rows = [
                    rollout(step=step),
                    rollout(step=step, leaked=True),
                    rollout(step=step, role="candidate", attempt=0, outcome="right"),
                ]
                pq.write_table(
                    pa.Table.from_pylist(rows), run.rollouts / f"step{step:05d}-rank0.parquet"
                )
    transcripts = sample(runs).transcripts
    assert len(transcripts) == MOST
    assert transcripts == sample(runs).transcripts
    assert {t.arm for t in transcripts} == set("abcdefgh")
    assert {t.seed for t in transcripts} == set(range(5))
    assert {t.rollout.step for t in transcripts} == {1, 9}
    counts = [sum(t.arm == arm for t in transcripts) for arm in "abcdefgh"]
    assert max(counts) - min(counts) <= 5, "no arm fills the page"
    assert {kind for t in transcripts for kind in t.kinds} == {"rescued", "not refined", "leaked"}


def test_a_chain_of_refinements_is_shown_turn_by_turn(full):
    words = {"critic": "oracle", "critique": "And the sign.", "critique_status": "ok"}
    put_rollouts(
        full,
        [
            rollout(text="first try"),
            rollout(text="lost try"),
            rollout(role="candidate", attempt=0, text="second try", **words),
            rollout(role="candidate", attempt=1, text="its second", critique_status="failed"),
            rollout(role="candidate", attempt=2, text="third try", outcome="right", chosen=True),
        ],
    )
    run = {"critique": {0: full.run("critique", 0)}}
    rescued, lost = sample(run).transcripts
    assert (rescued.kinds, lost.kinds) == (("rescued",), ("not rescued",))
    assert [row.text.head for row in rescued.refinements] == ["second try", "third try"]
    page = report(full)
    [article] = [part for part in page.split("<article") if "first try" in part]
    places = [
        article.index(part)
        for part in (
            "first try",
            "Look at the carry.",
            "Refinement, turn 1, refined again",
            "second try",
            "And the sign.",
            "Refinement, turn 2, trained on",
            "third try",
        )
    ]
    assert places == sorted(places)
    assert page.count("failed: no reason given") == 1
    assert page.count("<h4>Refinement, not chosen</h4>") == 1


def test_a_damaged_table_whose_refinements_refine_each_other_ends(full):
    rows = [rollout(), *(rollout(role="candidate", attempt=i) for i in (2, 1, 3))]
    put_rollouts(full, rows)
    [transcript] = sample({"critique": {0: full.run("critique", 0)}}).transcripts
    assert transcript.refinements == ()


def test_long_texts_lose_their_middle_and_the_page_stays_small(full):
    long = "<&>" * 400_000
    put_rollouts(
        full,
        [
            rollout(question=long, text=long, critique=long),
            rollout(role="candidate", attempt=0, text=long),
        ],
    )
    text = report(full)
    assert "1,197,600 characters left out here" in text
    assert len(text) < 300_000
    assert (cut("abcdefghi", 6).head, cut("abcdefghi", 6).left_out, cut("abcdefghi", 6).tail) == (
        "abcd",
        3,
        "hi",
    )
