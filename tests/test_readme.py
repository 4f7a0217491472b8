"""What the README and the pages of critique_rl/docs print is so: Python runs, YAML is a pipeline,
commands parse, links lead somewhere.

Run as printed: every Python block (those that train, train); `critique-rl plan` and `init`. Parsed
by the real parser, with their pipelines loaded and their arms, critics and overrides looked up, but
not run: all other `critique-rl` commands, which train or need what training left. make, python and
launchers: that the target, the script or the module is there.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from critique_rl.analysis.claims.claim import parse_claim
from critique_rl.cli.entry import main, parse_arguments
from critique_rl.config.pipeline_file import load_pipeline, parse_pipeline
from critique_rl.config.run_folder import RunFolder
from critique_rl.config.schema import TaskConfig
from critique_rl.config.yaml_text import read_yaml
from critique_rl.critic.build import build_critic
from critique_rl.experiment.audit.mapping import read_mapping
from critique_rl.experiment.build import trainer_arguments
from critique_rl.experiment.critic_bench import parse_spec
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.load import load_task
from critique_rl.tasks.rewards import build_reward
from critique_rl.trainer.presets import PRESETS
from critique_rl.types import Attempt, Verdict

ROOT = Path(__file__).parents[1]
PATHS = [ROOT / "README.md", *sorted((ROOT / "critique_rl" / "docs").glob("*.md"))]
PAGES = {path.name: path.read_text() for path in PATHS if not path.name.startswith("reference-")}
RESULT_PAGES = sorted((ROOT / "runs" / "results").glob("*.md"))
RESULTS = "\n".join(path.read_text() for path in [ROOT / "runs" / "README.md", *RESULT_PAGES])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def having(language: str) -> list[str]:
    return [page for page in PAGES if blocks(page, language)]


FIRST = read_yaml(blocks("README.md", "yaml")[0], "README.md")


def test_every_block_is_of_a_language_that_is_checked() -> None:
    languages = {
        word for text in PAGES.values() for word in re.findall(r"^```(.*)$", text, re.MULTILINE)
    }
    assert languages == {"python", "yaml", "bash", ""}


@pytest.mark.parametrize("page", having("python"))
def test_python_examples_run(page, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for code in blocks(page, "python"):
        names: dict = {}
        exec(code, names)
        if "trainer" in names:
            assert names["trainer"].state.global_step == names["trainer"].args.max_steps > 0


DOORS = {
    "critique_rl",
    "critique_rl.critic",
    "critique_rl.rewards",
    "critique_rl.intervals",
    "critique_rl.metrics",
    "critique_rl.objective",
}
"""Modules that pages may import from; all others may move."""


@pytest.mark.parametrize("page", PAGES)
def test_pages_import_from_promised_modules_only(page) -> None:
    imports = re.findall(r"^\s*(?:from|import) (critique_rl[\w.]*)", PAGES[page], re.MULTILINE)
    assert set(imports) <= DOORS


def saved(page: str, folder: Path) -> str:
    """Write the page's first Python block under the name its first line gives; the code."""
    code = blocks(page, "python")[0]
    (folder / re.match(r"# (\w+\.py)\b", code)[1]).write_text(code)
    return code


def test_the_critic_in_ten_lines_is_one_and_is_found_where_it_is_said_to_be(
    tmp_path, monkeypatch
) -> None:
    code = saved("own-critic.md", tmp_path)
    assert len([line for line in code.splitlines() if line and not line.startswith("#")]) <= 10
    monkeypatch.chdir(tmp_path)
    task = load_task(TaskConfig("lab/chain", size=3), 0)
    critic = build_critic(yaml.safe_load(blocks("own-critic.md", "yaml")[0])["critic"], task)
    row = {"question": "3 A-7 B+9", "answer": "5"}
    tried = [
        Attempt("3 A-7 B+9", text, task.verifier(text, row), row)
        for text in ("A-7=4\nB+9=13\n#13", "A-7=-4\nB+9=5\n#6")
    ]
    # 3 - 7 is -4, not 4; in the second every sum is right, and only the last line is not.
    assert [(c.text, c.status, c.reason) for c in critic.critique(tried)] == [
        ("A is wrong: 3-7 is -4", "ok", ""),
        ("", "skipped", "nothing_to_say"),
    ]


@pytest.mark.processes
def test_the_verifier_of_ones_own_is_found_where_it_is_said_to_be(tmp_path, monkeypatch) -> None:
    saved("own-reward.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    verifier = build_verifier(
        yaml.safe_load(blocks("own-reward.md", "yaml")[0])["task"]["verifier"]
    )
    assert [verifier(text, {"answer": "cat"}).outcome for text in (" Cat", "dog")] == [
        "right",
        "wrong",
    ]


def test_the_questions_of_ones_own_are_read_by_init_and_by_the_section(
    tmp_path, monkeypatch, capsys
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    exec(blocks("own-task.md", "python")[0], {})
    [command] = commands("own-task.md")
    assert main(shlex.split(command, comments=True)[1:]) == 0
    assert "wrote pipeline.yaml" in capsys.readouterr().out
    by_hand = (
        parse_pipeline(
            "readme", {**FIRST, **read_yaml(blocks("own-task.md", "yaml")[0], "own-task.md")}
        )
        .arms["scalar"]
        .task
    )
    written = load_pipeline(Path("pipeline.yaml")).arms["scalar"].task
    assert by_hand.options == written.options
    assert (
        len(load_task(by_hand, 0).train) == len(load_task(written, 0).train) > 40
    )  # 60 but for two tenths


@pytest.mark.parametrize(
    ("page", "i"), [(page, i) for page in having("yaml") for i in range(len(blocks(page, "yaml")))]
)
def test_every_yaml_example_is_part_of_a_pipeline(page, i, tmp_path) -> None:
    data = read_yaml(blocks(page, "yaml")[i], page)
    if page == "audit.md":
        # Of an audit: a mapping of columns, and no pipeline.
        (tmp_path / "mapping.yaml").write_text(blocks(page, "yaml")[i])
        assert read_mapping(tmp_path / "mapping.yaml").tried
        return
    given = {"arms": {"nsr": {}}, "primary": "pass@1/all"} if "claim" in data else {}
    pipeline = parse_pipeline("readme", {**FIRST, **given, **data})
    parse_claim(pipeline)
    lab = load_task(TaskConfig("lab/chain", size=16), 0)
    for config in pipeline.arms.values():
        arguments = trainer_arguments(config, RunFolder(Path("unused")))
        if config.task.name.startswith("lab/"):
            assert load_task(replace(config.task, size=16), 0).train
        build_reward(config.reward, lab.verifier, arguments.num_generations)
        if "target" not in config.critic:
            # The lab's rule gives no reasons, which `show` tells.
            has_reasons = replace(
                lab, verifier=lambda text, row: Verdict("wrong", text, "a reason")
            )
            build_critic(config.critic, has_reasons if "show" in config.critic else lab)


def test_the_yaml_examples_say_what_their_pages_say() -> None:
    assert list(parse_pipeline("readme", FIRST).arms) == ["scalar", "critique"]
    [branching], [costs, external, claim] = (
        [read_yaml(text, page) for text in blocks(page, "yaml")]
        for page in ("command-line.md", "reading-results.md")
    )
    assert (
        parse_pipeline("readme", {**FIRST, **branching}).arms["mixed"].branch_from.arm == "scalar"
    )
    compared = parse_pipeline("readme", {**FIRST, **costs, **external})
    assert (compared.arms["critique"].budget.limit, compared.target, compared.external) == (
        ("total_tokens", 300000),
        0.5,
        {"plain": "outputs/plain"},
    )
    assert compared.sweep.values == (1e-4, 3e-4, 6e-4)
    nsr = parse_pipeline("readme", {**FIRST, **claim, "arms": {"nsr": {}}, "primary": "pass@1/all"})
    parsed = parse_claim(nsr)
    assert [test.bound for test in parsed.tests] == ["delta", "above"]
    assert [check.bound for check in parsed.checks] == ["moves"]
    critic = yaml.safe_load(blocks("own-critic.md", "yaml")[1])["critic"]
    assert (
        build_critic(
            critic, load_task(TaskConfig("lab/chain", size=16), 0)
        ).chat.endpoint.caps.max_cost
        == 5.0
    )


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line.strip()]


def inline(text: str) -> list[str]:
    """Whole commands inside a sentence: those with more than the name of a command."""
    spans = (" ".join(span.split()) for span in re.findall(r"`(critique-rl [^`]+)`", text))
    return [
        span for span in spans if len(span.split()) > 2 and "<" not in span and "..." not in span
    ]


COMMANDS = [line for page in PAGES for line in (*commands(page), *inline(PAGES[page]))] + inline(
    RESULTS
)


@pytest.mark.parametrize("line", dict.fromkeys(COMMANDS))
def test_every_command_is_one(line, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(line, comments=True)
    words = words[: next((i for i, word in enumerate(words) if word in (">", "&")), None)]
    while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words = words[1:]
    match [words[0].removeprefix(".venv/bin/"), *words[1:]]:
        case ["source", ".venv/bin/activate"]:
            pass
        case ["pip", "install", "-e", extra]:
            extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            assert extra.strip(".[]") in extras["optional-dependencies"]
        case ["make", target]:
            assert target in re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
        case ["python", script, *_]:
            assert (ROOT / script).is_file()
        case ["critique-rl", *rest]:
            check(rest)
        case ["accelerate" | "torchrun", *rest]:
            at = rest.index("critique_rl")
            assert rest[at - 1] == "-m"
            check(rest[at + 1 :])
        case other:
            pytest.fail(f"nothing checks {other}")


def check(words: list[str]) -> None:
    """What the command line says of them before it starts; pipeline.yaml is what `init` writes."""
    arguments = parse_arguments(words)
    for spec in getattr(arguments, "critic", []):
        parse_spec(spec)
    path = getattr(arguments, "pipeline", None)
    if path is not None and path != Path("pipeline.yaml"):
        arms = load_pipeline(path, arguments.overrides).arms
        assert getattr(arguments, "arm", None) in (None, *arms)


def test_a_plan_prints_the_line_that_its_page_prints(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line for line in commands("cluster.md") if line.startswith("critique-rl plan")]
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])[1:]
        assert main([*words, "--out", str(tmp_path)]) == 0
        output = capsys.readouterr().out
        assert f"train {words[1]}" in output
        if not {"--format", "--accelerate"} & set(words):
            [printed] = re.findall(
                r"^    (critique-rl train .*)$", PAGES["cluster.md"], re.MULTILINE
            )
            assert printed in output.replace(str(tmp_path), "runs").splitlines()
    assert len(lines) == 5


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINKING = [*PATHS, ROOT / "runs" / "README.md", ROOT / "CONTRIBUTING.md", *RESULT_PAGES]


@pytest.mark.parametrize("path", LINKING, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path) -> None:
    links = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text())
        if not link.startswith("http")
    ]
    for link in links:
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link


def test_the_index_of_results_leads_to_every_page_and_is_short() -> None:
    index = (ROOT / "runs" / "README.md").read_text()
    assert set(re.findall(r"\]\(results/(\w+\.md)\)", index)) == {
        path.name for path in RESULT_PAGES
    }
    assert index.count("\n") <= 120


def test_every_page_is_linked_from_the_readme() -> None:
    assert all(f"critique_rl/docs/{path.name}" in PAGES["README.md"] for path in PATHS[1:])


def test_every_finding_names_a_section_of_the_results() -> None:
    headings = re.findall(r"^## (.*)$", RESULTS, re.MULTILINE)
    named = [
        name
        for text in re.findall(r"\(([^()]*\"[^()]*)\)", PAGES["when-critiques-do-not-help.md"])
        for name in re.findall(r'"([^"]+)"', text)
    ]
    assert len(named) > 15
    assert [
        name
        for name in named
        if not any(heading.startswith(" ".join(name.split())) for heading in headings)
    ] == []


STATIONS = {
    "tasks": "critique_rl.tasks.load",
    "rewards": "critique_rl.tasks.rewards",
    "prompts": "critique_rl.prompts",
    "choose_failures": "critique_rl.trainer.rollout.choose_failures",
    "critiques": "critique_rl.trainer.rollout.critiques",
    "refine": "critique_rl.trainer.rollout.refine",
    "two_phase": "critique_rl.trainer.rollout.two_phase",
    "scoring": "critique_rl.trainer.rollout.scoring",
}
"""Module as the page's table names it -> module."""
STATION_ROWS = re.findall(r"^\| \d+ \| .*$", PAGES["method.md"], re.MULTILINE)
STATION_NAMES = re.findall(r"`(\w+\.[\w.]+)`", "\n".join(STATION_ROWS))


def test_ten_stations_name_a_function_each() -> None:
    assert len(STATION_ROWS) == 10
    assert [row for row in STATION_ROWS if not re.search(r"`\w+\.[\w.]+`", row)] == []


@pytest.mark.parametrize("station", STATION_NAMES)
def test_every_function_the_stations_name_exists(station) -> None:
    module, *names = station.split(".")
    assert [name for name in names if name.startswith("_")] == [], "a station has a public name"
    thing = importlib.import_module(STATIONS.get(module, f"critique_rl.trainer.{module}"))
    for name in names:
        thing = getattr(thing, name)
    assert callable(thing)


def test_every_preset_is_in_the_table() -> None:
    named = {
        name
        for row in re.findall(r"^\| (`.*?) \|", PAGES["method.md"], re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert set(PRESETS) <= named


@pytest.fixture(autouse=True)
def own_modules():
    """Examples' files are imported from each test's folder: none may be found in the next test, nor
    its folder be searched.
    """
    path = list(sys.path)
    yield
    sys.path[:] = path
    for name in ("my_critic", "my_rewards"):
        sys.modules.pop(name, None)
