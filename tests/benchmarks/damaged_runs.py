"""Damage a stopped or a finished run folder, or change what it depends on, in many ways, each in a
fresh copy, and give the commands again. Right is: the run goes on exactly (from an earlier
checkpoint where need be, which it says), or one sentence that says what is wrong.

    OMP_NUM_THREADS=1 python tests/benchmarks/damaged_runs.py
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
)
sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml

STEPS = 12
STOPPED_AT = 9
"""The step after whose row the run is killed; its checkpoints are of steps 4 and 8."""
WALL = ("seconds", "step_time", "critique/seconds")
JUDGE = """
def judge(text, row):
    # Some texts of an untrained policy count as right: else nothing would be trained.
    return float(str(row["answer"]) in text or len(text) % 3 == 0)
"""
PIPELINE = {
    "task": {
        "name": "data",
        "options": {"train": "data.jsonl"},
        "verifier": {"kind": "python", "target": "my_judge:judge"},
    },
    "policy": {"model": "./policy"},
    "trl": {
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "max_completion_length": 6,
        "learning_rate": 1e-3,
        "save_steps": 4,
    },
    "budget": {"optimizer_steps": STEPS},
    "evaluation": {
        "problems": 3,
        "samples": 2,
        "ks": [1],
        "curve_every": 4,
        "curve_problems": 2,
        "curve_samples": 1,
        "best_by": "pass@1/all",
    },
    "seeds": [0],
    "primary": "pass@1/all",
    "arms": {
        "scalar": {},
        "critique": {"critic": {"kind": "ground_truth"}},
        "later": {"critic": {"kind": "retry"}, "branch_from": {"arm": "scalar", "at": 4}},
    },
}
ARM = "critique"
OTHERS = (("critique", 1), ("scalar", 1))
"""Further runs of the finished campaign, whose files are put in place of others."""


@dataclass
class Case:
    """A copy of everything: the working folder and its results."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "runs" / "small"

    @property
    def run(self) -> Path:
        return self.results / ARM / "seed0"

    @property
    def last(self) -> Path:
        return self.run / "checkpoints" / "checkpoint-8"

    def other(self, arm: str, seed: int) -> Path:
        """The folder of another run, which has finished."""
        return self.folder.parent / "whole" / "runs" / "small" / arm / f"seed{seed}"


@dataclass
class Way:
    """One way to damage or change something."""

    name: str
    expected: str
    """exact, fallback, refusal, accepted, or a word that may stand for several: "exact|refusal"."""
    damage: Callable[[Case], None]
    finished: bool = False
    """Of a finished campaign, which is compared and reported; else of a stopped run."""
    words: tuple[str, ...] = ()
    """Further words of the command."""
    patch: Callable[[Case], None] | None = None
    """Called in the process of the command before it runs."""
    command: tuple[str, ...] = ()
    """The one command of a finished campaign; else compare, report and run."""


def forked(case: Case, words: list[str], patch: Callable[[], None] | None = None) -> tuple:
    """(exit status, standard error) of a command in a process forked from this one."""
    log = case.folder / "log"
    log.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        status = 99
        try:
            os.setsid()
            descriptor = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.chdir(case.folder)
            if patch:
                patch()
            from critique_rl.cli.entry import main

            status = main(words)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


TRAIN = ["train", "small.yaml", "--arm", ARM, "--seed", "0", "--out", "runs"]


BRANCH = ("train", "--arm", "later", "--seed", "0")


def die_after(step: int) -> None:
    """Have this process kill itself once the row of a step is written."""
    from critique_rl.experiment import callback

    append = callback.append_jsonl

    def append_and_die(path, row) -> None:
        append(path, row)
        if row["step"] == step:
            os.kill(os.getpid(), signal.SIGKILL)

    callback.append_jsonl = append_and_die


def prepare(folder: Path) -> None:
    """The working folder: policy, data, code and pipeline."""
    import torch

    from critique_rl.config.schema import TaskConfig
    from critique_rl.lab.base import Recipe, build_model, build_tokenizer
    from critique_rl.tasks.load import load_task

    torch.manual_seed(0)
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    build_model(Recipe(hidden_size=32, layers=1), len(tokenizer)).save_pretrained(folder / "policy")
    tokenizer.save_pretrained(folder / "policy")
    rows = load_task(TaskConfig("lab/chain", size=60), 0).train
    lines = [json.dumps({"question": row["question"], "answer": row["answer"]}) for row in rows]
    (folder / "data.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "my_judge.py").write_text(JUDGE)
    (folder / "small.yaml").write_text(yaml.safe_dump(PIPELINE))


def outcome(case: Case, wanted: dict) -> dict:
    """What a run left, to be compared with `wanted`."""
    from critique_rl.config.durable_files import read_jsonl

    rows = read_jsonl(case.run / "metrics.jsonl")
    evaluation = json.loads((case.run / "eval.json").read_text())
    evaluation["cost"].pop("wall_seconds")
    weights = (case.run / "model" / "model.safetensors").read_bytes()
    return {
        "rows": [{k: v for k, v in row.items() if k not in WALL} for row in rows],
        "tables": sorted(path.name for path in (case.run / "rollouts").iterdir()),
        "evaluation": evaluation,
        "weights": hashlib.sha256(weights).hexdigest(),
    }


def verdict(way: Way, case: Case, wanted: dict) -> str:
    """exact, fallback, accepted, refusal, or what went wrong."""
    if way.finished:
        return finished_verdict(way, case)
    patch = way.patch and (lambda: way.patch(case))
    status, text = forked(case, [*TRAIN, *way.words], patch)
    if "Traceback" in text or status not in (0, 1, 2):
        return f"status {status}, traceback: {text[-300:]}"
    if status:
        return refusal(text)
    if "accepted at step" in text:
        return accepted(case)
    got = outcome(case, wanted)
    unequal = [name for name in wanted if got[name] != wanted[name]]
    if unequal:
        return f"unequal {', '.join(unequal)}"
    return "fallback" if "is damaged" in text else "exact"


def refusal(text: str) -> str:
    sentences = [line for line in text.splitlines() if line.startswith("critique-rl: ")]
    return "refusal" if len(sentences) == 1 else f"{len(sentences)} sentences: {text[-300:]}"


def accepted(case: Case) -> str:
    """accepted, where compare.json and the report say what was."""
    for command in ("compare", "report"):
        status, text = forked(case, [command, "small.yaml", "--out", "runs", "control=critique"])
        if status:
            return f"{command} after it: status {status} {text[-300:]}"
    comparison = json.loads((case.results / "compare.json").read_text())
    pages = [(case.results / f"report.{kind}").read_text() for kind in ("md", "html")]
    told = all("in the middle of a run" in page for page in pages)
    return "accepted" if comparison.get("accepted_changes") and told else "accepted, not reported"


def finished_verdict(way: Way, case: Case) -> str:
    """The outcome of run, compare and report on a finished campaign."""
    from kill_campaign import without_times

    reference = without_times(json.loads((case.results / "compare.json").read_text()))
    way.damage(case)
    outcomes = set()
    commands = [way.command] if way.command else [("compare",), ("report",), ("run",)]
    for command, *rest in commands:
        status, text = forked(case, [command, "small.yaml", *rest, "--out", "runs"])
        if "Traceback" in text or status not in (0, 1, 2):
            return f"{command}: status {status}, traceback: {text[-300:]}"
        if status:
            outcomes.add(refusal(text))
            continue
        got = without_times(json.loads((case.results / "compare.json").read_text()))
        outcomes.add("exact" if got == reference else "unequal compare.json")
    return outcomes.pop() if len(outcomes) == 1 else " / ".join(sorted(outcomes))


# ---- ways ----------------------------------------------------------------------------------------


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replaced(path: Path) -> Path:
    path.unlink()
    return path


def edit(path: Path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text, f"{path} has no {before!r}"
    path.write_text(text.replace(before, after, 1))


def insert_line(path: Path, line: bytes) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], line, *lines[3:]]))


def put(source: Path, target: Path) -> None:
    """Replace a file or a folder by a copy of another one."""
    if target.is_dir():
        shutil.rmtree(target)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def foreign_checkpoint(arm: str, seed: int) -> Callable[[Case], None]:
    """The last checkpoint is that of another run."""
    return lambda c: put(c.other(arm, seed) / "checkpoints" / "checkpoint-8", c.last)


def foreign_best(case: Case) -> None:
    for name in ("best", "best.json"):
        put(case.other("critique", 1) / name, case.run / name)


def foreign_table(case: Case) -> None:
    name = "rollouts/step00002-rank0.parquet"
    put(case.other("critique", 1) / name, case.run / name)


def foreign_trunk(case: Case) -> None:
    """The arm that branches is still to do, and the checkpoint of its trunk is of another seed."""
    shutil.rmtree(case.results / "later")
    place = "scalar/seed0/checkpoints/checkpoint-4"
    put(case.other("scalar", 1) / "checkpoints" / "checkpoint-4", case.results / place)


def bases_swapped(case: Case) -> None:
    first = case.results / "base" / "eval.json"
    again = case.results / "base" / "again" / "eval.json"
    one, other = first.read_bytes(), again.read_bytes()
    first.write_bytes(other)
    again.write_bytes(one)


def old_and_damaged(case: Case) -> None:
    from critique_rl.config.durable_files import with_checksum

    path = case.run / "eval.json"
    evaluation = json.loads(path.read_text())
    evaluation.pop("model_files")
    path.write_text(json.dumps(with_checksum(evaluation)))
    flip(case.run / "model" / "model.safetensors", 0)


def plain_file(case: Case) -> None:
    (case.run / "checkpoints" / "checkpoint-7").write_text("notes")


def other_template(case: Case) -> None:
    """Templates come from a folder that has another text of one of them first."""
    from critique_rl import prompts

    folder = case.folder / "prompts"
    folder.mkdir()
    text, *_ = prompts._environment().loader.get_source(prompts._environment(), "refine.jinja")
    (folder / "refine.jinja").write_text(text + "\nThink twice.")
    prompts.FOLDERS = (folder, *prompts.FOLDERS)
    prompts._environment.cache_clear()


def other_version(package: str) -> Callable[[Case], None]:
    def patch(case: Case) -> None:
        from critique_rl.experiment.resume import inputs

        stock = inputs.version
        inputs.version = lambda name: "0.0.1" if name == package else stock(name)

    return patch


def both(case: Case) -> None:
    for path in (case.run / "checkpoints").glob("checkpoint-*/model.safetensors"):
        flip(path)


def file_for(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def swapped(case: Case) -> None:
    first = case.last.with_name("checkpoint-4") / "critique_rl.json"
    second = case.last / "critique_rl.json"
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


def larger_policy(case: Case) -> None:
    from critique_rl.lab.base import Recipe, build_model, build_tokenizer

    model = build_model(Recipe(hidden_size=64, layers=1), len(build_tokenizer()))
    model.save_pretrained(case.folder / "policy")


def moved_policy(case: Case) -> None:
    shutil.move(case.folder / "policy", case.folder / "elsewhere")
    edit(case.folder / "small.yaml", "./policy", "./elsewhere")


def nothing(case: Case) -> None:
    pass


def stopped_ways() -> list[Way]:
    config = "config.yaml"
    metrics = "metrics.jsonl"
    return [
        Way(
            "checkpoint: a flipped bit of the weights",
            "fallback",
            lambda c: flip(c.last / "model.safetensors"),
        ),
        Way("checkpoint: optimizer cut short", "fallback", lambda c: cut(c.last / "optimizer.pt")),
        Way(
            "checkpoint: random states missing",
            "fallback",
            lambda c: (c.last / "rng_state.pth").unlink(),
        ),
        Way(
            "checkpoint: schedule empty",
            "fallback",
            lambda c: (c.last / "scheduler.pt").write_bytes(b""),
        ),
        Way(
            "checkpoint: zeros in the trainer's state",
            "fallback",
            lambda c: (c.last / "trainer_state.json").write_bytes(b"\0" * 5000),
        ),
        Way(
            "checkpoint: a file too many",
            "fallback",
            lambda c: (c.last / "pytorch_model.bin").write_bytes(b"x"),
        ),
        Way(
            "checkpoint: seal is garbage",
            "fallback",
            lambda c: (c.last / "critique_rl.json").write_text('{"files"'),
        ),
        Way(
            "checkpoint: seal of another one",
            "fallback",
            lambda c: shutil.copy(c.last.with_name("checkpoint-4") / "critique_rl.json", c.last),
        ),
        Way(
            "checkpoint: seal without checksums",
            "fallback",
            lambda c: (c.last / "critique_rl.json").write_text('{"kept_steps": []}'),
        ),
        Way("checkpoint: seal missing", "exact", lambda c: (c.last / "critique_rl.json").unlink()),
        Way(
            "checkpoint: a folder for a file",
            "fallback",
            lambda c: replaced(c.last / "optimizer.pt").mkdir(),
        ),
        Way(
            "checkpoint: a link to nowhere",
            "fallback",
            lambda c: replaced(c.last / "optimizer.pt").symlink_to("nowhere"),
        ),
        Way(
            "checkpoint: a pipe for a file",
            "fallback",
            lambda c: os.mkfifo(replaced(c.last / "optimizer.pt")),
        ),
        Way(
            "checkpoint: renamed to a later step",
            "fallback",
            lambda c: c.last.rename(c.last.with_name("checkpoint-11")),
        ),
        Way(
            "checkpoint: a user's checkpoint-best beside",
            "exact",
            lambda c: (c.last.with_name("checkpoint-best")).mkdir(),
        ),
        Way("checkpoint: all of them damaged", "refusal", both),
        Way("checkpoint: of another seed", "fallback", foreign_checkpoint("critique", 1)),
        Way("checkpoint: of another arm", "fallback", foreign_checkpoint("scalar", 0)),
        Way(
            "checkpoints: all of another seed",
            "refusal",
            lambda c: put(c.other("critique", 1) / "checkpoints", c.run / "checkpoints"),
        ),
        Way("checkpoint: a plain file of that name", "exact|fallback", plain_file),
        Way("best policy of another seed", "refusal", foreign_best),
        Way("a table of rollouts of another seed", "refusal", foreign_table),
        Way(
            "folder of another seed, accepted",
            "refusal",
            lambda c: put(c.other("critique", 1), c.run),
            words=("--accept-changes",),
        ),
        Way(
            "folder of another arm, accepted",
            "refusal",
            lambda c: put(c.other("scalar", 0), c.run),
            words=("--accept-changes",),
        ),
        Way("a link to nowhere for model", "refusal", lambda c: (c.run / "model").symlink_to("no")),
        Way("a folder for eval.json", "refusal", lambda c: (c.run / "eval.json").mkdir()),
        Way(
            "inputs: another torch, there alone",
            "refusal",
            lambda c: edit(c.run / "config.yaml", "  torch: ", "  torch: 1."),
        ),
        Way(
            "inputs: tokenizers lost",
            "refusal",
            lambda c: edit(c.run / "config.yaml", "  tokenizers: ", "  tokenizer: "),
        ),
        Way(
            "config.yaml cut inside inputs",
            "refusal",
            lambda c: (c.run / "config.yaml").write_text(
                (c.run / "config.yaml").read_text().partition("  prompts/")[0]
            ),
        ),
        Way("setting: a default, written out", "exact", nothing, words=("trl.temperature=1.0",)),
        Way("template edited", "refusal", nothing, patch=other_template),
        Way(
            "template edited, accepted",
            "accepted",
            nothing,
            words=("--accept-changes",),
            patch=other_template,
        ),
        Way(
            "config.yaml says another torch",
            "refusal",
            lambda c: edit(c.run / "config.yaml", "versions:\n", "versions:\n  torch: 1.0\nx:\n"),
        ),
        Way("torch of another version", "refusal", nothing, patch=other_version("torch")),
        Way("TRL of another version", "refusal", nothing, patch=other_version("trl")),
        Way(
            "transformers, accepted",
            "accepted",
            nothing,
            words=("--accept-changes",),
            patch=other_version("transformers"),
        ),
        Way(
            "this package of another version",
            "refusal",
            nothing,
            patch=other_version("critique_rl"),
        ),
        Way(
            "data: an answer changed",
            "refusal",
            lambda c: edit(c.folder / "data.jsonl", '"answer": "', '"answer": "1'),
        ),
        Way(
            "data: a row too many",
            "refusal",
            lambda c: insert_line(
                c.folder / "data.jsonl", b'{"question": "1 + 1 = ?", "answer": "2"}\n'
            ),
        ),
        Way(
            "the user's verifier edited",
            "refusal",
            lambda c: edit(c.folder / "my_judge.py", "in text", "in text[1:]"),
        ),
        Way(
            "policy: other weights",
            "refusal",
            lambda c: flip(c.folder / "policy" / "model.safetensors", 0.9),
        ),
        Way(
            "policy: tokenizer's settings edited",
            "refusal",
            lambda c: edit(c.folder / "policy" / "tokenizer_config.json", "{", '{"x": 1,'),
        ),
        Way(
            "policy: another chat template",
            "refusal",
            lambda c: (c.folder / "policy" / "chat_template.jinja").write_text(
                "{{ messages[0].content }}"
            ),
        ),
        Way("policy: moved", "exact", moved_policy),
        Way("setting: learning rate", "refusal", nothing, words=("trl.learning_rate=0.002",)),
        Way(
            "setting: learning rate, accepted",
            "accepted",
            lambda c: edit(c.folder / "small.yaml", "learning_rate: 0.001", "learning_rate: 0.002"),
            words=("--accept-changes",),
        ),
        Way("setting: log level", "exact", nothing, words=("trl.log_level=error",)),
        Way("config.yaml empty", "refusal", lambda c: (c.run / config).write_text("")),
        Way("config.yaml missing", "refusal", lambda c: (c.run / config).unlink()),
        Way(
            "config.yaml of a layout to come",
            "refusal",
            lambda c: edit(c.run / config, "schema: 2", "schema: 3"),
        ),
        Way(
            "config.yaml: a section is a number",
            "refusal",
            lambda c: edit(c.run / config, "critic:\n", "critic: 3\nother:\n"),
        ),
        Way(
            "metrics: half a last line",
            "exact",
            lambda c: (c.run / metrics).open("a").write('{"step": 10, "lo'),
        ),
        Way(
            "metrics: zeros at the end",
            "exact",
            lambda c: (c.run / metrics).open("ab").write(b"\0" * 700),
        ),
        Way(
            "metrics: garbage in the middle",
            "exact",
            lambda c: insert_line(c.run / metrics, b"\xff\x00garbage\n"),
        ),
        Way(
            "metrics: a row twice",
            "exact",
            lambda c: insert_line(
                c.run / metrics, (c.run / metrics).read_bytes().splitlines(True)[1]
            ),
        ),
        Way(
            "metrics: a number changed",
            "exact",
            lambda c: edit(c.run / metrics, '"step": 2, ', '"step": 2, "reward": 9, '),
        ),
        Way("metrics: missing", "exact", lambda c: (c.run / metrics).unlink()),
        Way(
            "a table of rollouts cut short",
            "exact",
            lambda c: cut(c.run / "rollouts" / "step00002-rank0.parquet"),
        ),
        Way("best.json is garbage", "refusal", lambda c: (c.run / "best.json").write_text("[")),
        Way(
            "the best policy damaged",
            "refusal",
            lambda c: [flip(path) for path in (c.run / "best").glob("*/model.safetensors")],
        ),
        Way("the lock's file holds text", "exact", lambda c: (c.run / ".lock").write_text("4711")),
        Way("a folder for the lock", "refusal", lambda c: replaced(c.run / ".lock").mkdir()),
        Way(
            "a file for the folder checkpoints",
            "exact|refusal",
            lambda c: file_for(c.run / "checkpoints"),
        ),
        Way("a file for the folder rollouts", "refusal", lambda c: file_for(c.run / "rollouts")),
        Way("a file for the folder model", "refusal", lambda c: (c.run / "model").write_text("")),
        Way(
            "a folder for metrics.jsonl",
            "refusal",
            lambda c: replaced(c.run / "metrics.jsonl").mkdir(),
        ),
        Way("a folder for best.json", "refusal", lambda c: replaced(c.run / "best.json").mkdir()),
        Way(
            "a pipe for config.yaml",
            "refusal",
            lambda c: os.mkfifo(replaced(c.run / "config.yaml")),
        ),
        Way(
            "a pipe for metrics.jsonl",
            "refusal",
            lambda c: os.mkfifo(replaced(c.run / "metrics.jsonl")),
        ),
        Way("policy deleted", "refusal", lambda c: shutil.rmtree(c.folder / "policy")),
        Way(
            "policy: weights cut short",
            "refusal",
            lambda c: cut(c.folder / "policy" / "model.safetensors"),
        ),
        Way(
            "policy: config is garbage",
            "refusal",
            lambda c: (c.folder / "policy" / "config.json").write_text("{"),
        ),
        Way(
            "policy of another size, accepted",
            "refusal",
            larger_policy,
            words=("--accept-changes",),
        ),
        Way("data deleted", "refusal", lambda c: (c.folder / "data.jsonl").unlink()),
        Way(
            "the user's verifier deleted", "refusal", lambda c: (c.folder / "my_judge.py").unlink()
        ),
        Way(
            "the user's verifier is no Python",
            "refusal",
            lambda c: (c.folder / "my_judge.py").write_text("def ("),
        ),
        Way(
            "config.yaml holds itself",
            "refusal",
            lambda c: edit(c.run / "config.yaml", "schema: 2", "schema: 2\nx: &x [*x]"),
        ),
        Way(
            "config.yaml: layout missing",
            "exact",
            lambda c: edit(c.run / "config.yaml", "schema: 2\n", ""),
        ),
        Way("both checkpoints: seals swapped", "refusal", swapped),
        Way(
            "eval.json there and empty",
            "exact|refusal",
            lambda c: (c.run / "eval.json").write_text(""),
        ),
    ]


def finished_ways() -> list[Way]:
    def way(name: str, expected: str, damage: Callable[[Case], object], *command: str) -> Way:
        return Way(f"finished: {name}", expected, damage, finished=True, command=command)

    judged = ("evaluate", "--arm", ARM)

    return [
        way("nothing", "exact", nothing),
        way("eval.json empty", "refusal", lambda c: (c.run / "eval.json").write_text("")),
        way(
            "eval.json: a count changed",
            "refusal",
            lambda c: edit(c.run / "eval.json", '"n": 2', '"n": 1'),
        ),
        way(
            "eval.json of another arm",
            "refusal",
            lambda c: shutil.copy(c.results / "scalar/seed0/eval.json", c.run),
        ),
        way("a folder for eval.json", "refusal", lambda c: replaced(c.run / "eval.json").mkdir()),
        way("base/eval.json cut short", "refusal", lambda c: cut(c.results / "base" / "eval.json")),
        way(
            "base/config.yaml is garbage",
            "exact / refusal",
            lambda c: (c.results / "base" / "config.yaml").write_bytes(b"\xff{"),
        ),
        way("config.yaml cut short", "exact|refusal", lambda c: cut(c.run / "config.yaml")),
        way(
            "metrics: garbage in the middle",
            "refusal",
            lambda c: insert_line(c.run / "metrics.jsonl", b"\xff\x00\n"),
        ),
        way(
            "metrics: a number changed",
            "refusal",
            lambda c: edit(c.run / "metrics.jsonl", '"reward": ', '"reward": 1'),
        ),
        way(
            "metrics: a row lost",
            "refusal",
            lambda c: (c.run / "metrics.jsonl").write_bytes(
                b"".join((c.run / "metrics.jsonl").read_bytes().splitlines(True)[:-1])
            ),
        ),
        way(
            "every table of rollouts is garbage",
            "exact",
            lambda c: [
                path.write_bytes(b"PAR1garbagePAR1") for path in (c.run / "rollouts").iterdir()
            ],
        ),
        way(
            "compare.json is garbage",
            "exact",
            lambda c: (c.results / "compare.json").write_bytes(b"\xff\0"),
        ),
        way("a folder for log.txt", "exact", lambda c: replaced(c.run / "log.txt").mkdir()),
        way("a pipe for eval.json", "refusal", lambda c: os.mkfifo(replaced(c.run / "eval.json"))),
        way(
            "a pipe for a table",
            "exact",
            lambda c: os.mkfifo(replaced(next((c.run / "rollouts").iterdir()))),
        ),
        way(
            "a folder for report.html",
            "exact / refusal",
            lambda c: replaced(c.results / "report.html").mkdir(),
        ),
        way("checkpoints deleted", "exact", lambda c: shutil.rmtree(c.run / "checkpoints")),
        way("config.yaml missing", "refusal", lambda c: (c.run / "config.yaml").unlink()),
        way("metrics missing", "refusal", lambda c: (c.run / "metrics.jsonl").unlink()),
        way("base evaluations swapped", "exact / refusal", bases_swapped),
        way(
            "rollouts of another seed",
            "exact",
            lambda c: put(c.other("critique", 1) / "rollouts", c.run / "rollouts"),
        ),
        way("folder of another seed", "refusal", lambda c: put(c.other("critique", 1), c.run)),
        way(
            "weights of another arm",
            "refusal",
            lambda c: put(c.other("scalar", 0) / "model", c.run / "model"),
            *judged,
        ),
        way(
            "weights: a flipped bit",
            "refusal",
            lambda c: flip(c.run / "model" / "model.safetensors"),
            *judged,
        ),
        way("weights: header damaged, of an earlier version", "refusal", old_and_damaged, *judged),
        way("the trunk's checkpoint of another seed", "refusal", foreign_trunk, *BRANCH),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="ways whose name holds this")
    arguments = parser.parse_args()
    import critique_rl.experiment.train  # noqa: F401  imported once, before the forks
    from critique_rl.experiment import processes

    processes.context = lambda: __import__("multiprocessing").get_context("fork")
    folder = Path(tempfile.mkdtemp())
    for name in ("whole", "stopped"):
        (folder / name).mkdir()
    prepare(folder / "whole")
    shutil.copytree(folder / "whole", folder / "stopped", dirs_exist_ok=True)
    whole = Case(folder / "whole")
    status, text = forked(whole, ["run", "small.yaml", "--out", "runs"])
    assert status == 0, text[-3000:]
    wanted = outcome(whole, {})
    for arm, seed in OTHERS:
        words = ["train", "small.yaml", "--arm", arm, "--seed", str(seed), "--out", "runs"]
        status, text = forked(whole, words)
        assert status == 0, text[-3000:]
    status, text = forked(Case(folder / "stopped"), TRAIN, lambda: die_after(STOPPED_AT))
    assert status == -signal.SIGKILL, text[-3000:]
    right = 0
    ways = [way for way in (*stopped_ways(), *finished_ways()) if arguments.only in way.name]
    for number, way in enumerate(ways):
        case = Case(folder / f"case{number}")
        shutil.copytree(folder / ("whole" if way.finished else "stopped"), case.folder)
        if not way.finished:
            way.damage(case)
        got = verdict(way, case, wanted)
        is_right = got == way.expected or got in way.expected.split("|")
        right += is_right
        print(
            f"{way.name:<46} {got:<18} {'right' if is_right else f'expected {way.expected}'}",
            flush=True,
        )
        shutil.rmtree(case.folder)
    print(f"{right} of {len(ways)} right")
    shutil.rmtree(folder)
    sys.exit(0 if right == len(ways) else 1)


if __name__ == "__main__":
    main()
