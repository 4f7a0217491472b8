"""Report pages for tests: evaluations and rollouts to put in a folder, and a parser that sees what
a browser sees.
"""

from html.parser import HTMLParser

import pyarrow as pa
import pyarrow.parquet as pq

from critique_rl.analysis.compare import compare
from critique_rl.analysis.report import write_report
from critique_rl.config.durable_files import write_json

HOSTILE = """<script>alert(1)</script></pre></details></article>" onload="alert(2)' <img src=x \
onerror=alert(3)> {{ 7 * 7 }} <!-- &amp;"""
TAGS_WITHOUT_END = {"meta", "line", "circle", "polyline", "polygon", "input", "br"}


class Page(HTMLParser):
    """The page as a browser sees it: tags, attributes, text in <pre>. Tags must close in turn."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.attributes = []
        self.pre = []
        self.open = []
        self.elements = []
        self.inline = {"style": "", "script": ""}
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
            if not self.pre[-1]:
                data = data.removeprefix("\n")
            self.pre[-1] += data
        if self.open and self.open[-1] in self.inline:
            self.inline[self.open[-1]] += data

    def having(self, tag, **attributes):
        """Elements of a tag whose attributes begin so."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            values
            for name, values in self.elements
            if name == tag
            and all((values.get(key) or "").startswith(value) for key, value in wanted.items())
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
    run = folder.base if arm == "base" else folder.run(arm, seed)
    write_json(run.evaluation, evaluation)


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
    if changes.get("role") == "candidate":
        # as in a run's tables, but for refinements that a further turn criticised
        critique |= dict.fromkeys(("critic", "critique", "critique_status"), "")
    return {**place, **judged, **critique, **changes}


def put_rollouts(folder, rows, step=3):
    path = folder.run("critique", 0).rollouts / f"step{step:05d}-rank0.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def report(folder, arms=("scalar", "critique"), seeds=(0, 1)):
    return write_report(
        folder, compare(folder, "scalar", "pass@1/plateau", arms, seeds)
    ).read_text()
