"""The page and its exports: what they show, that the page is self-contained and inert, and that
missing pieces become sentences.
"""

import base64
import csv
import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from critique_rl.analysis.compare import compare
from critique_rl.analysis.comparison import Comparison, Reliability, ReliabilityBin, Sweep, SweepArm
from critique_rl.analysis.exports import markdown
from critique_rl.analysis.page.plots import look, ticks
from critique_rl.analysis.page.text_cuts import cut
from critique_rl.analysis.page.transcripts import MOST, sample
from critique_rl.analysis.report import write_report
from critique_rl.analysis.table import Table, to_latex
from critique_rl.config.checks import ConfigError
from critique_rl.config.durable_files import append_jsonl, write_json, write_text, write_yaml
from critique_rl.config.pipeline_file import parse_pipeline
from critique_rl.config.run_folder import PipelineFolder

HOSTILE = """<script>alert(1)</script></pre></details></article>" onload="alert(2)' <img src=x onerror=alert(3)> {{ 7 * 7 }} <!-- &amp;"""
TAGS_WITHOUT_END = {"meta", "line", "circle", "polyline", "polygon", "input", "br"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, the text inside <pre>, and whether every tag was
    closed in turn.
    """

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.pre, self.open, self.elements, self.inline = (
            [],
            [],
            [],
            [],
            [],
            {"style": "", "script": ""},
        )
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.elements.append((tag, dict(attrs)))
        if tag not in TAGS_WITHOUT_END:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_endtag(self, tag):
        if tag not in TAGS_WITHOUT_END:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "pre":
            # A parser drops the line break that follows <pre>.
            self.pre[-1] += data if self.pre[-1] else data.removeprefix("\n")
        if self.open and self.open[-1] in self.inline:
            self.inline[self.open[-1]] += data

    def having(self, tag, **attributes):
        """Elements of a tag whose attributes begin so."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            of
            for name, of in self.elements
            if name == tag
            and all((of.get(key) or "").startswith(value) for key, value in wanted.items())
        ]


def put_evaluation(folder, arm, seed, right):
    problems = [
        {"id": str(i), "family": "plateau", "n": 4, "right": (right + i) % 5, "unscored": 0}
        for i in range(4)
    ]
    cost = {
        "generated_tokens": 1000,
        "critic_tokens": 10,
        "usd": 0.5,
        "wall_seconds": 60,
        "steps": 3,
    }
    evaluation = {
        "arm": arm,
        "seed": seed,
        "samples": 4,
        "problems": problems,
        "metrics": {"pass@1/plateau": 0.5},
        "cost": cost,
    }
    write_json(
        folder.base.evaluation if arm == "base" else folder.run(arm, seed).evaluation, evaluation
    )


def rollout(**changes):
    place = {
        "step": 3,
        "group": 0,
        "role": "rollout",
        "attempt": -1,
        "question": "7+9?",
        "family": "plateau",
        "chosen": False,
    }
    judged = {"text": "15", "outcome": "wrong", "answer": "15", "reward": 0.0, "advantage": -0.5}
    critique = {
        "critic": "oracle",
        "critique": "Look at the carry.",
        "critique_status": "ok",
        "critique_reason": "",
        "leaked": False,
    }
    return {**place, **judged, **critique, **changes}


def put_rollouts(folder, rows, step=3):
    path = folder.run("critique", 0).rollouts / f"step{step:05d}-rank0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def report(folder, arms=("scalar", "critique"), seeds=(0, 1)):
    return write_report(
        folder, compare(folder, "scalar", "pass@1/plateau", arms, seeds)
    ).read_text()


@pytest.fixture
def bare(tmp_path):
    """Two arms, two seeds, evaluated and nothing else."""
    folder = PipelineFolder(tmp_path / "plateau")
    for arm, right in (("scalar", 0), ("critique", 2)):
        for seed in (0, 1):
            put_evaluation(folder, arm, seed, right + seed)
    return folder


@pytest.fixture
def full(bare):
    """The same with the base, curves, configurations and one failure of each kind."""
    put_evaluation(bare, "base", None, 0)
    for arm in ("scalar", "critique"):
        for seed in (0, 1):
            run = bare.run(arm, seed)
            write_yaml(
                run.config, {"arm": arm, "learning_rate": 1e-4, "versions": {"trl": "1.2.3"}}
            )
            for step in (1, 2, 3):
                rate = {"refine/rescue_rate": 0.5} if arm == "critique" else {}
                append_jsonl(
                    run.metrics,
                    {
                        "step": step,
                        "tokens/generated": 300 * step + seed,
                        "eval/pass@1/plateau": 0.1 * step,
                        **rate,
                    },
                )
    uncritiqued = rollout(
        text="13", critique="", critique_status="failed", critique_reason="timeout"
    )
    rescue = rollout(role="candidate", attempt=0, text="16 then", outcome="right", chosen=True)
    miss = rollout(role="candidate", attempt=1, text="still 14")
    put_rollouts(
        bare, [rollout(), rollout(text="14"), uncritiqued, rollout(outcome="right"), rescue, miss]
    )
    return bare


def test_the_page_shows_verdict_tables_curves_and_transcripts(full):
    text = report(full)
    page = Page(text)
    assert "critique - scalar on pass@1/plateau" in text
    # arms, primary difference, families, boundary; the runs counted no critiques, and their
    # settings do not differ
    assert page.tags.count("table") == page.tags.count("caption") == 4
    assert all(of.get("scope") for of in page.having("th"))
    # over generated tokens and over steps, pass@1 of 2 arms and the rescue rate of one: a mean and
    # its band, and 2 seeds
    assert (
        len(page.having("polyline", class_="m ")),
        len(page.having("polygon")),
        len(page.having("polyline", class_="s ")),
    ) == (6, 6, 12)
    assert sorted(
        (article["data-outcome"] for article in page.having("article")), reverse=True
    ) == ["rescued", "not rescued", "no critique"]
    assert "failed: timeout" in text
    assert "Refinement, trained on" in text and "16 then" in page.pre
    assert "trl 1.2.3" in text
    assert "learning_rate: 0.0001" in text
    assert page.open == []


def test_the_page_needs_no_network_and_allows_only_its_style_and_script(full):
    page = Page(report(full))
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not {"src", "srcset", "style", "action"} & {name for name, _ in page.attributes}
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert (page.tags.count("style"), page.tags.count("script")) == (1, 1)
    (policy,) = [of["content"] for of in page.having("meta", http_equiv="Content-Security-Policy")]
    hashes = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, text in page.inline.items()
    }
    own = f"style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'"
    assert policy == f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'"


def test_hostile_model_text_is_shown_and_inert(full):
    clean = Page(report(full))
    words = dict.fromkeys(
        ("question", "text", "critique", "answer", "critic", "family", "critique_reason"), HOSTILE
    )
    rows = [
        rollout(**words),
        rollout(**words),
        rollout(**words | {"critique": "", "critique_status": "failed"}),
    ]
    rows += [
        rollout(role="candidate", attempt=0, outcome="right", chosen=True, **words),
        rollout(role="candidate", attempt=1, **words),
    ]
    put_rollouts(full, rows)
    hostile = Page(report(full))
    # 3 questions, 3 rollouts, 2 critiques, 2 refinements, word for word, in the very same tags
    assert hostile.pre.count(HOSTILE) == 10
    assert (hostile.tags, [name for name, _ in hostile.attributes]) == (
        clean.tags,
        [name for name, _ in clean.attributes],
    )
    assert hostile.open == []


def test_every_axis_along_which_something_was_spent_can_be_chosen(full):
    for seed in (0, 1):
        for step in (4, 5):
            spent = {
                "tokens/generated": 400 * step,
                "tokens/total": 900 * step,
                "cost/flops": 2e15 * step,
                "cost/usd": 0.0,
                "seconds": 9.0 * step,
            }
            append_jsonl(
                full.run("critique", seed).metrics,
                {"step": step, "eval/pass@1/plateau": 0.4, **spent},
            )
    text = report(full)
    page = Page(text)
    assert len(page.having("input", name="axis")) == 5, "dollars, which nobody paid, are left out"
    assert [("checked" in of) for of in page.having("input", name="axis")] == [
        True,
        False,
        False,
        False,
        False,
    ]
    assert "US dollars" not in text and "1e16" in text


def test_16_arms_differ_in_hue_or_dashes_and_neighbours_in_both():
    looks = [look(arm) for arm in range(16)]
    assert len(set(looks)) == 16
    assert all(a[0] != b[0] and a[1] != b[1] for a, b in pairwise(looks))


def test_ticks_are_round_and_hold_what_is_drawn():
    assert ticks(0, 0.83) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.3, 0.5) == [-0.4, -0.2, 0, 0.2, 0.4, 0.6]
    assert ticks(0, 0) == [0, 1]


def test_pass_at_k_reliability_target_and_sweep_are_shown(bare):
    for arm in ("scalar", "critique"):
        for seed in (0, 1):
            path = bare.run(arm, seed).evaluation
            write_json(
                path,
                json.loads(path.read_text())
                | {"metrics": {"pass@1/plateau": 0.5, "pass@4/plateau": 0.5}},
            )
    comparison = compare(bare, "scalar", "pass@1/plateau", ["scalar", "critique"], [0, 1], 0.5)
    bins = (
        ReliabilityBin(low=0.4, high=0.5, mean=0.45, right=0.4, count=10),
        ReliabilityBin(low=0.9, high=1.0, mean=0.95, right=0.9, count=30),
    )
    reliability = Reliability("the share that agrees", 0.05, bins)
    critique = replace(comparison.arms["critique"], reliability=reliability)
    tried = SweepArm(chosen=3e-4, tried={"0.0001": 0.5, "0.0003": 0.6})
    swept = Sweep(
        key="trl.learning_rate", metric="pass@1/all", arms={"scalar": tried, "critique": tried}
    )
    arms = {**comparison.arms, "critique": critique}
    comparison = replace(comparison, arms=arms, sweep=swept)
    text = write_report(bare, comparison).read_text()
    page = Page(text)
    assert "k, samples a problem over" not in text and "plateau over k, samples a problem" in text
    assert (
        "critique, ECE 0.050" in text
        and "the share that agrees" in text
        and len(page.having("circle", class_="dot")) == 2
    )
    assert "0 of 2" in text and "first reached 0.5" in text
    assert "How trl.learning_rate was chosen" in text and "0.0003" in text


def test_what_differs_between_arms_and_from_their_presets_is_listed(full):
    for seed in (0, 1):
        write_yaml(
            full.run("critique", seed).config,
            {
                "trl": {"learning_rate": 3e-4, "seed": seed},
                "deviates": {"beta": 0.1},
                "machine": {"cores": 2},
            },
        )
    text = report(full)
    assert (
        "<code>trl.learning_rate</code></th><td><code>-</code></td><td><code>0.0003</code></td>"
        in text
    )
    assert "trl.seed</code>" not in text
    assert "critique deviates from its preset: beta: 0.1." in text
    assert "cores 2" in text
    write_yaml(full.run("critique", 1).config, {"trl": {"learning_rate": 5e-4}})
    assert (
        "The seeds of critique were not trained alike: they differ in trl.learning_rate."
        in report(full)
    )


def test_external_runs_are_named_in_the_pipeline():
    data = {"task": {"name": "lab/chain"}, "policy": {"model": "lab"}}
    assert parse_pipeline("p", data | {"external": {"plain": "outputs/plain"}}).external == {
        "plain": "outputs/plain"
    }
    assert parse_pipeline("p", data).external == {}
    for wrong in (["outputs/plain"], {"plain": 3}, {"plain": ""}):
        with pytest.raises(
            ConfigError, match=r"external: got .* expected a mapping from names to output folders"
        ):
            parse_pipeline("p", data | {"external": wrong})
    with pytest.raises(ConfigError, match="external: 'scalar' is an arm of this pipeline"):
        parse_pipeline("p", data | {"external": {"scalar": "outputs/plain"}})


def test_rates_of_an_arm_are_of_its_counts(full):
    counts = {
        "critique/ok": 4,
        "critique/cached": 2,
        "critique/failed": 2,
        "critique/failed/timeout": 2,
        "critique/leaked": 3,
        "refine/candidates": 10,
    }
    append_jsonl(
        full.run("critique", 0).metrics,
        {"step": 4, "tokens/generated": 1300, "refine/rescue_rate": 0.4, **counts},
    )
    text = report(full)
    row = re.search(
        r"<tr><th scope=\"row\">critique</th><td class=\"num\">8</td>.*?</tr>", text, re.DOTALL
    ).group()
    # asked 4 + 2 + 2, written 4, cached 2, failed 2, skipped 0, leaked 3, refinements 10, right 4;
    # rescue 4 of 10, leak 3 of 6, failure 2 of 8
    assert re.findall(r"[\d.]+", re.sub("<[^>]*>", " ", row)) == [
        "8",
        "4",
        "2",
        "2",
        "0",
        "3",
        "10",
        "4",
        "0.40",
        "0.50",
        "0.25",
        "2",
    ]
    assert "failed: timeout 2" in row


def test_a_run_outside_the_comparison_has_a_panel_of_its_own(full, tmp_path):
    folder = tmp_path / "outside" / "completions"
    folder.mkdir(parents=True)
    for step in (1, 2):
        rows = [
            {
                "step": step,
                "prompt": "p",
                "completion": HOSTILE,
                "correct": 0.5 * step,
                "advantage": 0.0,
            }
        ]
        pq.write_table(pa.Table.from_pylist(rows), folder / f"completions_{step:05d}.parquet")
    comparison = compare(full, "scalar", "pass@1/plateau", ("scalar", "critique"), (0, 1))
    text = write_report(
        full, comparison, {"plain": str(folder.parent), "nothing": str(tmp_path)}
    ).read_text()
    assert "runs outside this comparison" in text and "plain over optimizer steps" in text
    assert "nothing: no completions with a reward in its folder" in text
    (folder / "completions_00003.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ConfigError, match=r"external: .*completions_00003\.parquet cannot be read"):
        write_report(full, comparison, {"plain": str(folder.parent)})
    assert "plain" not in (full.path / "report.md").read_text()


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


def test_hostile_configurations_metrics_and_names_are_inert(full):
    write_text(full.run("critique", 0).config, json.dumps({"prompt": HOSTILE}))
    append_jsonl(
        full.run("critique", 0).metrics,
        {"step": 4, "tokens/generated": 1300, f"eval/pass@1/{HOSTILE}": 0.5},
    )
    page = Page(report(PipelineFolder(full.path.rename(full.path.with_name('"><script>x')))))
    assert "img" not in page.tags and page.tags.count("script") == 1
    assert not {"onload", "onerror"} & {name for name, _ in page.attributes}
    assert page.open == []


def test_missing_pieces_become_sentences(bare):
    text = report(bare)
    assert "there are no learning curves" in text
    assert "no refinements were sampled" in text
    assert "Evaluated with a single k" in text
    assert "hold no confidence" in text
    assert "No arm asked a critic for anything" in text
    assert "No failed rollout is on record" in text
    assert "No config.yaml is in the run folders" in text
    assert "The policy before training was not evaluated" in text


def test_a_single_arm_makes_a_page_without_differences(bare):
    text = report(bare, arms=["scalar"])
    assert "there is no difference to show" in text
    assert "No arm can be compared with scalar" in text


def test_runs_without_an_evaluation_are_named_and_still_draw_their_curves(full):
    full.run("critique", 1).evaluation.unlink()
    text = report(full)
    assert text.index("Not evaluated yet, so in no table: critique seed 1.") < text.index(
        "<table>"
    ), "said above every number"
    assert len(Page(text).having("polyline", class_="m ")) == 6


def test_evaluations_left_out_are_named_with_the_reason(full):
    path = full.run("critique", 1).evaluation
    write_json(path, json.loads(path.read_text()) | {"temperature": 0.6})
    assert "critique seed 1: evaluated with temperature 0.6" in report(full)


def test_transcripts_are_spread_over_arms_and_seeds_and_repeat(tmp_path):
    folder = PipelineFolder(tmp_path)
    runs = {arm: {seed: folder.run(arm, seed) for seed in range(5)} for arm in "abcdefgh"}
    for of in runs.values():
        for run in of.values():
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
    found = sample(runs).transcripts
    assert len(found) == MOST and found == sample(runs).transcripts
    assert (
        {t.arm for t in found} == set("abcdefgh")
        and {t.seed for t in found} == set(range(5))
        and {t.rollout.step for t in found} == {1, 9}
    )
    counts = [sum(t.arm == arm for t in found) for arm in "abcdefgh"]
    assert max(counts) - min(counts) <= 5, "no arm fills the page"
    assert {kind for t in found for kind in t.kinds} == {"rescued", "not refined", "leaked"}


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


def test_values_that_are_missing_or_not_finite_are_no_points(bare):
    run = bare.run("critique", 0)
    for step, value in enumerate((0.1, None, float("nan"), 0.2)):
        append_jsonl(
            run.metrics,
            {"step": step, "tokens/generated": 100 * step, "eval/pass@1/plateau": value},
        )
    assert [
        len(of["points"].split()) for of in Page(report(bare)).having("polyline", class_="m ")
    ] == [2, 2]


def test_a_step_logged_twice_counts_once_with_its_later_value(bare):
    run = bare.run("critique", 0)
    for step, tokens in ((1, 100), (2, 200), (2, 210)):
        append_jsonl(
            run.metrics, {"step": step, "tokens/generated": tokens, "eval/pass@1/plateau": 0.2}
        )
    assert [
        len(of["points"].split()) for of in Page(report(bare)).having("polyline", class_="m ")
    ] == [2, 2]


def leaves(data):
    if isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from leaves(value)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        yield float(data)


def test_numbers_csv_holds_every_number_of_the_comparison(full):
    report(full)
    comparison = compare(full, "scalar", "pass@1/plateau", ("scalar", "critique"), (0, 1), 0.2)
    added = {"new_key": {"of": [0.123456789, {"later": 42}]}}
    comparison = Comparison.from_json(comparison.to_json() | added)
    write_report(full, comparison)
    rows = list(csv.DictReader(io.StringIO((full.path / "numbers.csv").read_text())))
    written = {
        float(row[column])
        for row in rows
        for column in ("value", "low", "high", "seed", "problems")
        if row[column]
    }
    assert set(leaves(comparison.to_json())) <= written
    (difference,) = [
        row
        for row in rows
        if row["kind"] == "difference" and row["metric"] == "pass@1/plateau" and not row["seed"]
    ]
    (pair,) = comparison.comparisons
    assert [float(difference[column]) for column in ("value", "low", "high")] == [
        pair.difference,
        *pair.ci95,
    ]


def test_report_md_and_tables_tex_parse_back(full):
    report(full)
    lines = (full.path / "report.md").read_text().splitlines()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    assert [row[0] for row in rows] == [
        "arm",
        ":---",
        "before training",
        "scalar",
        "critique",
        "arm",
        ":---",
        "critique",
        "arm",
        ":---",
        "scalar",
        "critique",
    ]
    tex = (full.path / "tables.tex").read_text()
    tables = re.findall(
        r"\\begin\{tabular\}\{(l?r+)\}\n\\toprule\n(.*?)\\bottomrule", tex, re.DOTALL
    )
    assert len(tables) == 3
    for columns, body in tables:
        cells = [line.split("&") for line in body.splitlines() if line.endswith(r"\\")]
        assert len(cells) > 1 and {len(row) for row in cells} == {len(columns)}


def test_names_are_escaped_in_markdown_and_latex():
    table = Table("50% of a_b & c", ["arm", "x"], [["a|b_c*<i>", "[1, 2]"], ["{\\~^$#", "1"]])
    assert r"| a\|b\_c\*\<i\> | [1, 2] |" in markdown("t", "v", [table])
    text = to_latex(table)
    assert r"\caption{50\% of a\_b \& c}" in text
    assert r"a\textbar{}b\_c*\textless{}i\textgreater{} & {[1, 2]} \\" in text
    assert r"\{\textbackslash{}\textasciitilde{}\textasciicircum{}\$\# & 1 \\" in text


@pytest.mark.processes
def test_the_report_imports_no_torch():
    code = "import sys, critique_rl.analysis.report; print([name for name in ('torch', 'trl', 'transformers', 'matplotlib') if name in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
