"""The page and its exports: what they show, that the page is self-contained and inert, and that
missing pieces become sentences.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
from report_pages import HOSTILE, Page, put_rollouts, report, rollout

from critique_rl.analysis.compare import compare
from critique_rl.analysis.comparison import Reliability, ReliabilityBin, Sweep, SweepArm
from critique_rl.analysis.report import write_report
from critique_rl.config.durable_files import (
    DamagedFile,
    append_jsonl,
    write_json,
    write_text,
    write_yaml,
)
from critique_rl.config.run_folder import PipelineFolder


def test_the_page_shows_verdict_tables_curves_and_transcripts(full):
    text = report(full)
    page = Page(text)
    assert "critique - scalar on pass@1/plateau" in text
    # arms, primary difference, families, boundary; the runs counted no critiques, and their
    # settings do not differ
    assert page.tags.count("table") == page.tags.count("caption") == 4
    assert all(attributes.get("scope") for attributes in page.having("th"))
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
    assert "Refinement, trained on" in text
    assert "16 then" in page.pre
    assert "trl 1.2.3" in text
    assert "learning_rate: 0.0001" in text
    assert page.open == []


def test_the_page_needs_no_network_and_allows_only_its_style_and_script(full):
    page = Page(report(full))
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not {"src", "srcset", "style", "action"} & {name for name, _ in page.attributes}
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    assert (page.tags.count("style"), page.tags.count("script")) == (1, 1)
    (policy,) = [
        attributes["content"]
        for attributes in page.having("meta", http_equiv="Content-Security-Policy")
    ]
    hashes = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, text in page.inline.items()
    }
    inline = f"style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'"
    assert policy == f"default-src 'none'; {inline}; base-uri 'none'; form-action 'none'"


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
    assert "k, samples a problem over" not in text
    assert "plateau over k, samples a problem" in text
    assert "critique, ECE 0.050" in text
    assert "the share that agrees" in text
    assert len(page.having("circle", class_="dot")) == 2
    assert "0 of 2" in text
    assert "first reached 0.5" in text
    assert "How trl.learning_rate was chosen" in text
    assert "0.0003" in text


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


def test_the_turns_of_an_arm_are_summed_over_its_seeds(full):
    assert "Turns of refinement" not in report(full)
    for seed, rescued in ((0, 2), (1, 3)):
        counts = {
            "critique/ok": 10,
            "refine/turn/1/asked": 6,
            "refine/turn/1/refined": 5,
            "refine/turn/1/rescued": rescued,
            "refine/turn/1/tokens": 70,
            "refine/turn/2/asked": 4,
        }
        append_jsonl(full.run("critique", seed).metrics, {"step": 4, **counts})
    text = report(full)
    rows = re.findall(r"<tr><th scope=\"row\">critique</th>(.*?)</tr>", text, re.DOTALL)
    numbers = [re.findall(r"\d+", re.sub("<[^>]*>", " ", row)) for row in rows]
    assert ["1", "12", "10", "5", "140", "0", "0", "0"] in numbers
    assert ["2", "8", "0", "0", "0", "0", "0", "0"] in numbers


def test_hostile_configurations_metrics_and_names_are_inert(full):
    write_text(full.run("critique", 0).config, json.dumps({"prompt": HOSTILE}))
    append_jsonl(
        full.run("critique", 0).metrics,
        {"step": 4, "tokens/generated": 1300, f"eval/pass@1/{HOSTILE}": 0.5},
    )
    page = Page(report(PipelineFolder(full.path.rename(full.path.with_name('"><script>x')))))
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
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


@pytest.mark.processes
def test_the_report_imports_no_torch():
    heavy = "{'torch', 'trl', 'transformers', 'matplotlib'}"
    code = f"import sys, critique_rl.analysis.report; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


def put_flow(folder, family="plateau"):
    """Masses of all runs, as `critique-rl flow` leaves them."""
    before = {"right": 0.1, "base_wrong": 0.8, "near_miss": 0, "other_wrong": 0, "rest": 0.1}
    after = {"right": 0.7, "base_wrong": 0.1, "near_miss": 0.1, "other_wrong": 0, "rest": 0.1}
    names = [f"{HOSTILE} {i}" for i in range(2)]
    probes = {
        "problems": [{"id": name, "family": family} for name in names],
        "listed": True,
        "samples": 64,
        "near_miss": "one step wrong",
    }
    base = {"step": 0, "generated_tokens": 0, "problems": dict.fromkeys(names, before)}
    write_json(folder.probes / "probes-x.json", {"probes": probes, "base": base})
    for arm in ("scalar", "critique"):
        for seed in (0, 1):
            point = {"step": 3, "generated_tokens": 900, "problems": dict.fromkeys(names, after)}
            write_json(folder.run(arm, seed).flow, {"probes": "probes-x.json", "points": [point]})


def test_masses_add_a_section_and_tables_and_change_nothing_else(full):
    without = report(full)
    names = ("markdown", "latex", "numbers")
    exports = {name: getattr(full, name).read_text() for name in names}
    put_flow(full)
    text = report(full)
    page = Page(text)
    assert page.open == []
    assert "Where the probability went</h2>" in text
    assert "0.857" in text  # of .7 that was freed, .6 went to right
    section = re.search(r'<section aria-labelledby="flow">.*?</section>\n+', text, re.DOTALL)
    link = '<li><a href="#flow">Where the probability went</a></li>\n'
    rest = text.replace(section[0], "\n").replace(link, "")
    style = re.search(r"<style>(.*?)</style>", rest, re.DOTALL)[1]
    old_style = re.search(r"<style>(.*?)</style>", without, re.DOTALL)[1]
    assert style.startswith(old_style)
    rest = rest.replace(style, old_style)
    # The policy's hash of the style, and empty lines.
    unlike = r"style-src &#39;sha256-[^&]+|\n+"
    assert re.sub(unlike, "", rest) == re.sub(unlike, "", without)
    for name, old in exports.items():
        new = getattr(full, name).read_text()
        assert new.startswith(old)
        assert len(new) > len(old)
    rows = [line.split(",") for line in full.numbers.read_text().splitlines()]
    [share] = [row for row in rows if row[1] == "critique" and row[3] == "share/right/plateau"]
    assert float(share[5]) == pytest.approx(0.6 / 0.7)


def test_hostile_families_and_problems_of_masses_are_inert(full):
    put_flow(full)
    clean = Page(report(full))
    put_flow(full, HOSTILE)
    hostile = Page(report(full))
    assert hostile.open == []
    assert hostile.tags == clean.tags


def test_masses_without_their_probes_are_named_and_damaged_ones_refused(full):
    put_flow(full)
    (full.probes / "probes-x.json").rename(full.probes / "probes-y.json")
    text = report(full)
    assert "The masses of critique, seed 1, are left out: flow/probes-x.json is missing." in text
    assert 'id="flow"' not in text
    (full.probes / "probes-y.json").rename(full.probes / "probes-x.json")
    point = {"step": 3, "generated_tokens": 900, "problems": {}}
    for stored in (
        {"probes": "probes-x.json"},
        {"probes": "probes-x.json", "points": [point]},
        {"probes": "probes-x.json", "points": [3]},
    ):
        write_json(full.run("critique", 0).flow, stored)
        with pytest.raises(DamagedFile, match=r"flow.json is damaged .*give the command again"):
            report(full)
