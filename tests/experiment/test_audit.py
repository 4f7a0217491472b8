"""The audit: one verdict in every format, planted faults, clean campaigns, damaged logs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from arm_evaluations import put
from foreign_logs import FAULTS, STEPS, WRITERS, Run, campaign, write, write_trl

from critique_rl.analysis.compare import compare
from critique_rl.analysis.verdict import verdict
from critique_rl.cli.audit import name_runs
from critique_rl.cli.entry import main
from critique_rl.config.checks import ConfigError
from critique_rl.config.run_folder import PipelineFolder
from critique_rl.experiment.audit.audit import Audit, audit
from critique_rl.experiment.audit.findings import CLEAR, FOUND, UNKNOWN_STATUS
from critique_rl.experiment.audit.mapping import LogMapping, read_mapping

CLEAN = 20


def tried_alike(words: list[str]) -> LogMapping:
    """What no log holds, for a clean campaign."""
    return LogMapping(tried={run.arm: 3 for run in name_runs(words)})


def audited(words: list[str], mapping: LogMapping | None = None, **options) -> Audit:
    return audit(name_runs(words), mapping or tried_alike(words), **options)


def statuses(result: Audit) -> dict[str, str]:
    return {finding.check: finding.status for finding in result.findings}


# ---- the verdict ---------------------------------------------------------------------------------


def put_evaluations(runs: list[Run], folder: Path) -> None:
    """The same counts as eval.json files of our own."""
    for run in runs:
        right: dict[str, int] = {}
        families = {}
        for each in run.held_out:
            name = f"{each.family}/{each.problem}"
            right[name] = right.get(name, 0) + each.right
            families[name] = each.family
        tokens = sum(each.tokens for each in run.train)
        put(
            folder,
            run.arm,
            run.seed,
            right,
            cost={"generated_tokens": tokens},
            metrics=("pass@1/all", "pass@4/all", "pass@1/hard", "pass@1/easy"),
            families=families,
        )


@pytest.mark.parametrize("kind", WRITERS)
def test_held_out_rows_of_any_format_give_the_verdict_of_compare(kind: str, tmp_path) -> None:
    runs = campaign()
    put_evaluations(runs, tmp_path / "ours")
    arms = list(dict.fromkeys(run.arm for run in runs))
    ours = compare(PipelineFolder(tmp_path / "ours"), "scalar", "pass@1/all", arms, (0, 1, 2))
    theirs = audited(write(runs, tmp_path / "theirs", kind))
    assert theirs.estimand.kind == "held-out"
    assert verdict(theirs.comparison) == verdict(ours)
    assert "critique - scalar on pass@1/all: +0." in theirs.sentence
    mine = {(each.arm, each.metric): asdict(each) for each in ours.comparisons}
    for each in theirs.comparison.comparisons:
        if (each.arm, each.metric) in mine:
            assert asdict(each) == mine.pop((each.arm, each.metric))
    assert not mine
    assert [asdict(pair) for pair in theirs.comparison.pairs] == [
        asdict(pair) for pair in ours.pairs
    ]


def test_rollouts_alone_give_one_verdict_in_every_format(tmp_path) -> None:
    runs = [replace(run, held_out=[]) for run in campaign()]
    results = {}
    for kind in WRITERS:
        results[kind] = audited(write(runs, tmp_path / kind, kind), last_steps=3)
    sentences = {result.sentence for result in results.values()}
    assert len(sentences) == 1
    [sentence] = sentences
    assert "training prompts in the last 3 steps" in sentence
    result = results["verl"]
    expected = []
    for run in runs:
        if run.arm == "scalar":
            last = [each.right for each in run.train if each.step > 3]
            expected.append(sum(last) / len(last))
    per_seed = result.comparison.arms["scalar"].metrics["pass@1/all"].per_seed
    # Families count alike, so the means differ a little.
    assert list(per_seed.values()) == pytest.approx(expected, abs=0.1)
    assert statuses(result)["overlap"] == UNKNOWN_STATUS


def test_rollouts_of_a_run_of_ours_are_read_as_they_are(tmp_path) -> None:
    runs = [replace(run, held_out=[]) for run in campaign()]
    words = []
    import pyarrow as pa
    import pyarrow.parquet as pq

    for run in runs:
        folder = tmp_path / "runs" / run.arm / f"seed{run.seed}" / "rollouts"
        folder.mkdir(parents=True)
        rows = []
        for each in run.train:
            rows.append(
                {
                    "step": each.step,
                    "question": each.prompt,
                    "family": each.family,
                    "text": each.completion,
                    "outcome": "right" if each.right else "wrong",
                    "reward": float(each.right),
                    "role": "rollout",
                    "critique": each.critique,
                }
            )
        rows.append({**rows[0], "role": "candidate", "outcome": "right"})
        pq.write_table(pa.Table.from_pylist(rows), folder / "step00001-rank0.parquet")
        words.append(str(folder.parent))
    ours = audited(words)
    verl = audited(write(runs, tmp_path / "verl"))
    differences = {each.metric: each for each in ours.comparison.comparisons}
    for each in verl.comparison.comparisons:
        if each.arm == "critique":
            mine = next(
                one
                for one in ours.comparison.comparisons
                if (one.arm, one.metric) == ("critique", each.metric)
            )
            assert (mine.difference, mine.ci95) == (each.difference, each.ci95)
    assert differences
    assert any("1 refinements and traces left out" in note for note in ours.notes)


def test_tables_that_an_evaluation_of_trl_replaced_are_held_out(tmp_path) -> None:
    words = []
    for run in campaign():
        folder = tmp_path / run.name
        last = [each for each in run.train if each.step < STEPS]
        # TRL has one file per step: that of the last step holds the evaluation.
        write_trl(replace(run, train=last, held_out=[]), folder)
        write_trl(replace(run, train=run.held_out, held_out=[]), folder)
        words.append(f"{run.arm}:{run.seed}={folder}")
    assert audited(words).estimand.kind == "training"
    for run in campaign():
        state = tmp_path / run.name / "checkpoint-6" / "trainer_state.json"
        state.parent.mkdir()
        history = [{"loss": 0.1, "step": STEPS}, {"eval_loss": 0.2, "step": STEPS}]
        state.write_text(json.dumps({"log_history": history}))
    result = audited(words)
    assert result.estimand.kind == "held-out"
    told_apart = audited(write(campaign(), tmp_path / "apart", "trl"))
    assert result.sentence.partition(";")[0] == told_apart.sentence.partition(";")[0]


# ---- what is missing or unfair -------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, tmp_path) -> None:
    check, plant = FAULTS[fault]
    result = audited(write(plant(campaign()), tmp_path))
    found = [finding for finding in result.findings if finding.status == FOUND]
    assert check in [finding.check for finding in found]
    [finding] = [finding for finding in found if finding.check == check]
    assert finding.places, "it names the rows"


@pytest.mark.parametrize("number", range(CLEAN))
def test_a_clean_campaign_raises_no_alarm(number: int, tmp_path) -> None:
    kinds = list(WRITERS)
    kind = kinds[number % len(kinds)]
    lift = 0.05 * (number % 7)
    result = audited(write(campaign(number, lift=lift), tmp_path, kind))
    assert [finding for finding in result.findings if finding.status != CLEAR] == []


def test_the_best_of_several_evaluations_is_told_where_it_is_reported(tmp_path) -> None:
    runs = campaign()
    changed = []
    for run in runs:
        earlier = [replace(each, step=3, right=True) for each in run.held_out]
        changed.append(replace(run, held_out=earlier + run.held_out))
    words = write(changed, tmp_path)
    assert statuses(audited(words))["checkpoints"] == CLEAR
    mapping = replace(tried_alike(words), reported={"critique": 3})
    result = audited(words, mapping)
    [finding] = [each for each in result.findings if each.check == "checkpoints"]
    assert finding.status == FOUND
    assert "the best of 2 evaluations" in finding.places[0]
    with pytest.raises(ConfigError, match="expected one of 3, 6"):
        audited(words, LogMapping(reported={"critique": 4}))
    with pytest.raises(ConfigError, match="did you mean 'critique'"):
        audited(words, LogMapping(reported={"critiqe": 3}))


def test_what_a_log_cannot_show_is_unknown(tmp_path) -> None:
    runs = [replace(run, train=[], settings={}) for run in campaign()]
    result = audited(write(runs, tmp_path, "wandb"), LogMapping())
    unknown = {check for check, status in statuses(result).items() if status == UNKNOWN_STATUS}
    assert {"budgets", "settings", "anchors", "tried", "overlap", "checkpoints"} <= unknown
    assert "at a cost that is not known" in result.sentence


# ---- bad input -----------------------------------------------------------------------------------

GOOD = '{"prompt": "a", "completion": "b", "reward": 1.0, "step": 1}\n'


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("log.jsonl", GOOD + "{not json}\n" + GOOD, "line 2: got '{not json}'"),
        ("log.jsonl", GOOD + "[1, 2]\n", "line 2: got '[1, 2]'"),
        (
            "log.jsonl",
            '{"prompt": "a", "completion": "b", "x": 1.0, "y": 2.0}\n',
            "several columns",
        ),
        ("log.jsonl", '{"loss": 1.0, "lr": 2.0}\n', "expected a log with a question"),
        ("log.jsonl", "", "expected a log with a question"),
        ("log.jsonl.gz", "no gzip", "got no readable gzip file"),
        ("log.csv", "prompt,reward\na,1\nb\n", "another number of cells"),
        ("log.json", '{"columns": ["prompt", "reward"], "data": [["a"]]}', "row 1: got 1 values"),
        ("log.json", "{", "got no JSON"),
        ("log.json", '{"columns": null, "data": [1]}', "expected a log with a question"),
        ("log.json", '["a", "b"]', "expected a log with a question"),
        ("log.json", "[" * 100_000, "got no JSON"),
        ("log.parquet", "PAR1 no table", "got no readable parquet file"),
        (
            "log.jsonl",
            '{"prompt": "a", "completion": "", "verdict": "perhaps"}\n',
            "got the verdict 'perhaps'",
        ),
        (
            "log.jsonl",
            '{"prompt": "a", "completion": "", "passed": 7, "score": 0.0}\n',
            "got the verdict '7'",
        ),
        (
            "log.jsonl",
            '{"prompt": "", "completion": "b", "reward": 1.0}\n',
            "neither a prompt nor a problem's id",
        ),
    ],
)
def test_a_damaged_log_is_named_with_its_place(
    name: str, content: str, words: str, tmp_path, capsys
) -> None:
    good = tmp_path / "good"
    good.mkdir()
    (good / "log.jsonl").write_text(GOOD)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / name).write_text(content)
    assert main(["audit", f"a={good}", f"b={bad}"]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path) -> None:
    words = write(campaign(), tmp_path)
    whole = audited(words)
    last = max((tmp_path / "scalar-seed0" / "rollouts").iterdir())
    with last.open("a") as file:
        file.write('{"input": "train qu')
    assert audited(words).sentence == whole.sentence


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a=missing", "b=gone"], "got nothing there"),
        (["a:0=LOG", "a:0=LOG"], "got a with seed 0 twice"),
        (["a=LOG"], "got one arm"),
        (["a=LOG", "b=LOG"], "expected another log for each run"),
        (["a:x=LOG", "b=OTHER"], "got the seed 'x', expected a number"),
        (["a=LOG", "b=LOG", "--control", "c"], "got the control 'c', expected one of a, b"),
        (
            ["a=LOG", "b=OTHER", "--metric", "pass@1/algebra"],
            "got 'pass@1/algebra', expected one of pass@1/all",
        ),
        (["a=LOG", "b=LOG", "--last", "0"], "expected at least 1"),
    ],
)
def test_wrong_words_are_refused(words: list[str], expected: str, tmp_path, capsys) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(GOOD)
    other = tmp_path / "other.jsonl"
    other.write_text(GOOD)
    paths = [word.replace("LOG", str(log)).replace("OTHER", str(other)) for word in words]
    assert main(["audit", *paths]) == 2
    assert expected in capsys.readouterr().err


def test_many_rewards_need_a_threshold(tmp_path, capsys) -> None:
    words = []
    for arm, rewards in (("a", (0.1, 0.5, 0.9)), ("b", (0.2, 0.6, 1.0))):
        log = tmp_path / f"{arm}.jsonl"
        rows = [{"prompt": "q", "completion": str(r), "reward": r, "step": 1} for r in rewards]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words.append(f"{arm}={log}")
    assert main(["audit", *words]) == 2
    assert "right: 0.5" in capsys.readouterr().err
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("right: 0.5\n")
    assert main(["audit", *words, "--mapping", str(mapping), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    means = {
        arm: summary["metrics"]["pass@1/all"]["mean"]
        for arm, summary in result["comparison"]["arms"].items()
    }
    assert means == pytest.approx({"a": 2 / 3, "b": 2 / 3})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("settings: {a: 3}", "settings.a: got 3, expected name: value pairs"),
        ("colums: {reward: r}", "did you mean 'columns'"),
        ("columns: {rewards: r}", "did you mean 'reward'"),
        ("columns: {reward: 3}", "expected a column's name"),
        ("columns: [reward]", "expected name: value pairs"),
        ("right: high", "expected the least reward"),
        ("reported: {a: last}", "expected a whole number"),
    ],
)
def test_a_wrong_mapping_is_refused(text: str, words: str, tmp_path) -> None:
    path = tmp_path / "mapping.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    assert words in str(caught.value)


def test_a_mapping_names_columns_inside_objects(tmp_path) -> None:
    words = []
    for arm, right in (("a", 0), ("b", 1)):
        log = tmp_path / f"{arm}.jsonl"
        rows = [
            {"q": {"text": "one"}, "out": "x", "s": {"exact": right}, "it": i} for i in range(3)
        ]
        log.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words.append(f"{arm}={log}")
    columns = {"prompt": "q.text", "completion": "out", "right": "s.exact", "step": "it"}
    result = audited(words, LogMapping(columns=columns))
    [difference] = [each for each in result.comparison.comparisons if each.metric == "pass@1/all"]
    assert difference.difference == 1.0
    with pytest.raises(ConfigError, match="got no column z, which the mapping names"):
        audited(words, LogMapping(columns={**columns, "prompt": "z"}))


def test_names_of_runs_come_from_folders(tmp_path) -> None:
    runs = name_runs(["x/grpo-seed3", "runs/scalar/seed1", "b:7=c.jsonl", "b=d.jsonl"])
    assert [(run.arm, run.seed) for run in runs] == [("grpo", 3), ("scalar", 1), ("b", 7), ("b", 1)]
