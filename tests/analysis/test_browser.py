"""The page in a real browser: what a model wrote does nothing there, no request leaves, filters and
axes work, by keyboard too. `make test-browser`.
"""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import chromium, find

from critique_rl.analysis.compare import compare
from critique_rl.analysis.report import write_report
from critique_rl.config.durable_files import append_jsonl, write_json
from critique_rl.config.run_folder import PipelineFolder

HOSTILE = """<script>alert(1)</script></script></style></details></article></pre><!--
<img src="http://127.0.0.1:9/x" onerror=alert(2)>
<a href="javascript:alert(3)">javascript:alert(3)</a> {{7*7}} ${7*7} \u202egnp.exe \u2066 \u2067 \
]]> &lt;b&gt;
" onload="alert(4)' autofocus onfocus=alert(5) x="""
LABELS_OVERLAP = """
[...document.querySelectorAll('figure svg')].filter(s => s.getClientRects().length).some(s => {
    const boxes = [...s.querySelectorAll('text')].map(t => t.getBoundingClientRect());
    const beside = (a, b) => a.left >= b.right || b.left >= a.right;
    const apart = (a, b) => a.top + 1 >= b.bottom || b.top + 1 >= a.bottom;
    return boxes.some((a, i) => boxes.slice(i + 1).some(b => !beside(a, b) && !apart(a, b)));
})"""
TAB, ENTER, SPACE, DOWN = ("Tab", 9), ("Enter", 13, "\r"), (" ", 32, " "), ("ArrowDown", 40)

NO_BROWSER = "no Chromium found: apt-get install chromium, or set CHROMIUM to its path"
pytestmark = [pytest.mark.processes, pytest.mark.skipif(find() is None, reason=NO_BROWSER)]


@pytest.fixture(scope="module")
def page():
    with chromium(find()) as tab:
        yield tab


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """(folder with what a harmless model wrote, one with what a hostile one did): as many rows of
    the same kinds.
    """
    folder = tmp_path_factory.mktemp("reports")
    return put_report(folder / "harmless", "all right", "fine"), put_report(
        folder / "hostile", HOSTILE, HOSTILE + "x" * 10**6
    )


def put_report(path, words, long):
    folder = PipelineFolder(path)
    for arm in ("scalar", "critique"):
        for seed in (0, 1):
            problems = [
                {"id": str(i), "family": "plateau", "n": 4, "right": (i + seed) % 5, "unscored": 0}
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
                "metrics": {"pass@1/plateau": 0.5, "pass@4/plateau": 0.5},
                "cost": cost,
            }
            write_json(folder.run(arm, seed).evaluation, evaluation)
            for step in (1, 2, 3):
                row = {
                    "step": step,
                    "tokens/generated": 300 * step + seed,
                    "tokens/total": 900 * step,
                    "eval/pass@1/plateau": 0.1 * step,
                }
                append_jsonl(folder.run(arm, seed).metrics, row)
            put_rollouts(folder.run(arm, seed), arm, words, long)
            put_flow(folder, folder.run(arm, seed), words)
    return write_report(
        folder, compare(folder, "scalar", "pass@1/plateau", ["scalar", "critique"], [0, 1])
    )


def put_flow(folder, run, words):
    """Masses and an account of terms, of problems and families that a stranger named."""
    kinds = ("right", "base_wrong", "near_miss", "other_wrong", "rest")
    families = {f"{words} {i}": f"{words} {i % 2}" for i in range(4)}
    problems = [{"id": name, "family": family} for name, family in families.items()]
    points = []
    for step, masses in enumerate([(0.1, 0.8, 0, 0, 0.1), (0.4, 0.3, 0, 0.1, 0.2)]):
        by_kind = dict(zip(kinds, masses, strict=True))
        by_class = dict.fromkeys(families, by_kind)
        points.append({"step": step, "generated_tokens": 900 * step, "problems": by_class})
    probes = {"problems": problems, "listed": True, "samples": 64, "near_miss": words}
    write_json(folder.probes / "probes.json", {"probes": probes, "base": points[0]})
    write_json(run.flow, {"probes": "probes.json", "points": points[1:]})
    for step in (4, 5, 6):
        terms = {"flow/right/negative": -0.001, "flow/right/distill_before": 0.123456}
        append_jsonl(run.metrics, {"step": step, **terms})


def put_rollouts(run, arm, words, long):
    run.rollouts.mkdir(parents=True)
    for step in (1, 9):
        row = {
            "step": step,
            "group": 0,
            "attempt": -1,
            "question": words,
            "family": words,
            "text": long,
            "answer": words,
            "reward": 0.0,
            "advantage": 0.0,
        }
        row |= {
            "role": "rollout",
            "outcome": "wrong",
            "critic": "",
            "critique": "",
            "critique_status": "",
            "critique_reason": "",
        }
        row |= {"leaked": False, "chosen": False}
        rows = [row]
        if arm == "critique":
            critiqued = row | {"critic": words, "critique": long, "critique_status": "ok"}
            failed = row | {"critique_status": "failed", "critique_reason": words}
            candidate = row | {"role": "candidate", "attempt": 0, "outcome": "right"}
            rows = [
                critiqued,
                critiqued | {"leaked": True},
                failed,
                candidate,
                candidate | {"attempt": 1, "outcome": "wrong"},
            ]
        pq.write_table(pa.Table.from_pylist(rows), run.rollouts / f"step{step:05d}-rank0.parquet")


def shown(page) -> list[str]:
    return page.run(
        "[...document.querySelectorAll('article')]"
        ".filter(a => a.offsetParent !== null).map(a => a.dataset.outcome)"
    )


def pick(page, name, value):
    page.run(
        f"document.getElementById('filter-{name}').value = {value!r}; "
        "document.getElementById('filters').dispatchEvent(new Event('input'))"
    )


def focused(page) -> str:
    return page.run(
        "document.activeElement.id || document.activeElement.className || "
        "document.activeElement.tagName"
    )


def axis_shown(page) -> list[str]:
    """The names below the learning curves that can be seen."""
    seen = (
        "[...document.querySelectorAll('.x')].filter(e => e.offsetParent !== null)"
        ".map(e => e.querySelector('svg title').textContent)"
    )
    return sorted({title.rpartition(" over ")[2] for title in page.run(seen)})


def test_nothing_a_model_wrote_acts_and_the_page_has_the_same_sections(page, reports):
    counts = []
    for path in reports:
        page.open(path.as_uri())
        page.run("new Promise(done => setTimeout(done, 300))")
        assert page.requests() == [path.as_uri()]
        assert page.complaints() == []
        counts.append(
            page.run(
                "['*', 'section', 'article', 'pre', 'details', 'script', 'a', 'img']"
                ".map(t => document.querySelectorAll(t).length)"
            )
        )
    # the hostile texts are long: each of them has one element more, which says what was left out
    cuts = page.run("document.querySelectorAll('.cut').length")
    harmless, hostile = counts
    assert cuts > 0
    assert [hostile[0] - cuts, *hostile[1:]] == harmless
    assert page.run("document.body.textContent.includes('{{7*7}}')")
    assert not page.run("/\\b49\\b/.test(document.querySelector('article').textContent)")
    assert page.run(
        "document.body.textContent.includes('[U+202E]gnp.exe') && "
        "!/[\\u202a-\\u202e\\u2066-\\u2069]/.test(document.body.textContent)"
    )
    assert page.run("document.querySelectorAll('a:not([href^=\"#\"])').length") == 0
    assert reports[1].stat().st_size < 1_000_000


def test_a_script_that_got_into_the_page_would_be_refused(page, reports, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(
        reports[0]
        .read_text()
        .replace(
            "<main",
            "<script>document.title = 'taken'</script><img src='http://127.0.0.1:9/x'><main",
            1,
        )
    )
    page.open(broken.as_uri())
    assert page.run("document.title") == "harmless: critique_rl report"
    assert page.complaints(), "the policy says what it refused"


def test_filters_work_on_hostile_text(page, reports):
    page.open(reports[1].as_uri())
    every = shown(page)
    assert len(every) == 10
    pick(page, "outcome", "rescued")
    assert shown(page)
    assert all("rescued" in outcome.split("|") for outcome in shown(page))
    pick(page, "outcome", "")
    pick(page, "arm", "=scalar")
    assert set(shown(page)) == {"no critique"}
    pick(page, "arm", "")
    page.run(
        "document.getElementById('filter-family').selectedIndex = 1; "
        "document.getElementById('filters').dispatchEvent(new Event('input'))"
    )
    assert shown(page) == every
    pick(page, "text", "no model wrote this")
    assert shown(page) == []
    assert page.run("document.getElementById('count').textContent").startswith("0 of 0")
    page.run("document.getElementById('clear').click()")
    assert shown(page) == every
    page.run("document.getElementById('more').click()")
    assert len(shown(page)) > 10
    assert page.complaints() == []
    assert len(page.requests()) == 1


def test_axis_arms_and_theme_are_switched_by_keyboard(page, reports):
    page.open(reports[0].as_uri())
    assert axis_shown(page) == ["generated tokens"]
    page.run("document.getElementById('x0').focus()")
    page.press(*DOWN)
    assert axis_shown(page) == ["total tokens"]
    page.press(*TAB)
    assert focused(page) == "arm0"
    lines = "[...document.querySelectorAll('.m.a0')].filter(e => e.getClientRects().length).length"
    before = page.run(lines)
    page.press(*SPACE)
    assert before > 0
    assert page.run(lines) == 0
    page.run("document.getElementById('theme-auto').focus()")
    for colour in ("rgb(255, 255, 255)", "rgb(21, 24, 27)"):
        page.press(*DOWN)
        assert page.run("getComputedStyle(document.body).backgroundColor") == colour


def test_the_keyboard_reaches_every_control_and_the_focus_can_be_seen(page, reports):
    page.open(reports[0].as_uri())
    page.press(*TAB)
    assert focused(page) == "skip"
    reached = set()
    for _ in range(60):
        page.press(*TAB)
        reached.add(focused(page))
        assert page.run(
            "getComputedStyle(document.activeElement).outlineStyle !== 'none' || "
            "document.activeElement === document.body"
        )
    wanted = {"theme-auto", "x0", "arm0", "arm1", "bands", "seeds", "clear", "more"}
    wanted |= {f"filter-{name}" for name in ("arm", "seed", "family", "outcome", "text")}
    assert wanted <= reached, wanted - reached
    page.run("document.getElementById('filter-text').focus()")
    for letter in "fin":
        page.press(letter, ord(letter.upper()), letter)
    page.press(*ENTER)
    assert len(shown(page)) == 10
    assert page.complaints() == []


def test_without_scripts_all_transcripts_are_shown_and_the_axis_still_switches(page, reports):
    page.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(reports[0].as_uri())
        articles = page.run("document.querySelectorAll('article').length")
        assert len(shown(page)) == articles > 10
        assert axis_shown(page) == ["generated tokens"]
        assert page.run("getComputedStyle(document.getElementById('filters')).display") == "none"
        page.run("document.getElementById('x0').focus()")
        page.press(*DOWN)
        assert axis_shown(page) == ["total tokens"]
    finally:
        page.send("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window_or_lies_on_something_else(page, reports, width):
    page.send(
        "Emulation.setDeviceMetricsOverride",
        width=width,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )
    try:
        page.open(reports[1].as_uri())
        assert page.run("document.documentElement.scrollWidth") == width
        # tick labels of a plot that can be seen, pairwise
        assert page.run(LABELS_OVERLAP) is False
    finally:
        page.send("Emulation.clearDeviceMetricsOverride")
