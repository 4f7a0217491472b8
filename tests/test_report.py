"""The page: what it shows, that it is self-contained and inert, and that missing pieces become sentences."""

import json
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from critique_rl.compare import compare
from critique_rl.report import mean_curve, write_report
from critique_rl.runs import PipelineFolder, append_jsonl, write_json, write_text, write_yaml

HOSTILE = """<script>alert(1)</script></pre></details></article>" onload="alert(2)' <img src=x onerror=alert(3)> {{ 7 * 7 }} <!-- &amp;"""
TAGS_WITHOUT_END = {"meta", "line", "circle", "polyline", "br"}


class Page(HTMLParser):
    """What a browser would see: tags, attributes, the text inside <pre>, and whether every tag was closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.pre, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in TAGS_WITHOUT_END:
            self.open.append(tag)
        if tag == "pre":
            self.pre.append("")

    def handle_endtag(self, tag):
        if tag not in TAGS_WITHOUT_END:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "pre":
            self.pre[-1] += data


def put_evaluation(folder, arm, seed, right):
    problems = [{"id": str(i), "family": "plateau", "n": 4, "right": (right + i) % 5, "unscored": 0} for i in range(4)]
    cost = {"generated_tokens": 1000, "critic_tokens": 10, "usd": 0.5, "wall_seconds": 60, "steps": 3}
    evaluation = {"arm": arm, "seed": seed, "samples": 4, "problems": problems, "metrics": {"pass@1/plateau": 0.5}, "cost": cost}
    write_json(folder.base.evaluation if arm == "base" else folder.run(arm, seed).evaluation, evaluation)


def rollout(**changes):
    place = {"step": 3, "group": 0, "role": "rollout", "attempt": -1, "question": "7+9?", "family": "plateau", "chosen": False}
    judged = {"text": "15", "outcome": "wrong", "answer": "15", "reward": 0.0, "advantage": -0.5}
    critique = {"critic": "oracle", "critique": "Look at the carry.", "critique_status": "ok", "critique_reason": "", "leaked": False}
    return {**place, **judged, **critique, **changes}


def put_rollouts(folder, rows, step=3):
    path = folder.run("critique", 0).rollouts / f"step{step:05d}-rank0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def report(folder, arms=("scalar", "critique"), seeds=(0, 1)):
    return write_report(folder, compare(folder, "scalar", "pass@1/plateau", arms, seeds)).read_text()


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
            write_yaml(run.config, {"arm": arm, "learning_rate": 1e-4, "versions": {"trl": "1.2.3"}})
            for step in (1, 2, 3):
                rate = {"refine/rescue_rate": 0.5} if arm == "critique" else {}
                append_jsonl(run.metrics, {"step": step, "tokens/generated": 300 * step + seed, "eval/pass@1/plateau": 0.1 * step, **rate})
    uncritiqued = rollout(text="13", critique="", critique_status="failed", critique_reason="timeout")
    rescue = rollout(role="candidate", attempt=0, text="16 then", outcome="right", chosen=True)
    miss = rollout(role="candidate", attempt=1, text="still 14")
    put_rollouts(bare, [rollout(), rollout(text="14"), uncritiqued, rollout(outcome="right"), rescue, miss])
    return bare


def test_the_page_shows_verdict_tables_curves_and_transcripts(full):
    text = report(full)
    page = Page(text)
    assert "critique - scalar on pass@1/plateau" in text
    assert page.tags.count("table") == 2
    # learning curves: 2 arms x (2 seeds + mean); rescue rate: one arm x (2 seeds + mean)
    assert page.tags.count("polyline") == 9
    assert [text.count(f"<h3>{title} ") for title in ("Rescued", "Not rescued", "Left without a critique")] == [1, 1, 1]
    assert "failed: timeout" in text
    assert "Refinement, trained on" in text and "16 then" in page.pre
    assert "Trained with trl 1.2.3." in text
    assert "learning_rate: 0.0001" in text
    assert page.open == []


def test_the_page_needs_no_network_and_runs_no_script(full):
    page = Page(report(full))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "srcset"} & {name for name, _ in page.attributes}
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_hostile_model_text_is_shown_and_inert(full):
    clean = Page(report(full))
    words = dict.fromkeys(("question", "text", "critique", "answer", "critic", "family", "critique_reason"), HOSTILE)
    rows = [rollout(**words), rollout(**words), rollout(**words | {"critique": "", "critique_status": "failed"})]
    rows += [rollout(role="candidate", attempt=0, outcome="right", chosen=True, **words), rollout(role="candidate", attempt=1, **words)]
    put_rollouts(full, rows)
    hostile = Page(report(full))
    # 3 questions, 3 rollouts, 2 critiques, 2 refinements, word for word, in the very same tags
    assert hostile.pre.count(HOSTILE) == 10
    assert (hostile.tags, [name for name, _ in hostile.attributes]) == (clean.tags, [name for name, _ in clean.attributes])
    assert hostile.open == []


def test_hostile_configurations_metrics_and_names_are_inert(full):
    write_text(full.run("critique", 0).config, json.dumps({"prompt": HOSTILE}))
    append_jsonl(full.run("critique", 0).metrics, {"step": 4, "tokens/generated": 1300, f"eval/pass@1/{HOSTILE}": 0.5})
    page = Page(report(PipelineFolder(full.path.rename(full.path.with_name('"><script>x')))))
    assert not {"script", "img"} & set(page.tags)
    assert not {"onload", "onerror"} & {name for name, _ in page.attributes}
    assert page.open == []


def test_missing_pieces_become_sentences(bare):
    text = report(bare)
    assert "there are no learning curves" in text
    assert "no refinements were sampled" in text
    assert "No failed rollout with a critique or a refinement is on record" in text
    assert "No config.yaml is in the run folders" in text


def test_a_single_arm_makes_a_page_without_differences(bare):
    text = report(bare, arms=["scalar"])
    assert "there is no difference to show" in text
    assert "No arm can be compared with scalar" in text


def test_runs_without_an_evaluation_are_named_and_still_draw_their_curves(full):
    full.run("critique", 1).evaluation.unlink()
    text = report(full)
    assert "Not evaluated yet: critique seed 1." in text
    assert Page(text).tags.count("polyline") == 9


def test_evaluations_left_out_are_named_with_the_reason(full):
    path = full.run("critique", 1).evaluation
    write_json(path, json.loads(path.read_text()) | {"temperature": 0.6})
    assert "critique seed 1: evaluated with temperature 0.6" in report(full)


def test_transcripts_come_from_the_last_step_that_has_them(full):
    put_rollouts(full, [rollout(step=2, text="early"), rollout(step=2, role="candidate", attempt=0, outcome="right", text="early rescue")], step=2)
    put_rollouts(full, [rollout(text="late"), rollout(role="candidate", attempt=0, text="late miss")], step=3)
    page = Page(report(full))
    assert "late miss" in page.pre and "early rescue" in page.pre


def test_values_that_are_missing_or_not_finite_are_no_points(bare):
    run = bare.run("critique", 0)
    for step, value in enumerate((0.1, None, float("nan"), 0.2)):
        append_jsonl(run.metrics, {"step": step, "tokens/generated": 100 * step, "eval/pass@1/plateau": value})
    (points,) = [value for name, value in Page(report(bare)).attributes if name == "points"]
    assert len(points.split()) == 2


def test_a_step_logged_twice_counts_once_with_its_later_value(bare):
    run = bare.run("critique", 0)
    for step, tokens in ((1, 100), (2, 200), (2, 210)):
        append_jsonl(run.metrics, {"step": step, "tokens/generated": tokens, "eval/pass@1/plateau": 0.2})
    (points,) = [value for name, value in Page(report(bare)).attributes if name == "points"]
    assert len(points.split()) == 2


def test_the_mean_curve_covers_what_all_seeds_cover():
    # seed a: 0 at 0, 1 at 10; seed b: 0 at 5, 1 at 15. Both exist on [5, 10]: (.5 + 0) / 2, (1 + .5) / 2
    x, y = mean_curve([(np.array([0.0, 10.0]), np.array([0.0, 1.0])), (np.array([5.0, 15.0]), np.array([0.0, 1.0]))])
    assert x.tolist() == [5, 10]
    np.testing.assert_allclose(y, [0.25, 0.75])
    assert mean_curve([(np.array([0.0]), np.array([1.0])), (np.array([5.0]), np.array([1.0]))]) is None


def test_the_report_imports_no_torch():
    code = "import sys, critique_rl.report; print([name for name in ('torch', 'trl', 'transformers', 'matplotlib') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
