"""`critique-rl`: run, train, evaluate, compare, report, claims, critics, doctor, init, plan, lab.

Heavy imports happen inside the commands, so `--help` answers at once.

Exit status: 0 success, 1 a run failed, 2 wrong use or bad input. 130 where Ctrl-C or SIGTERM ended it (the same command continues).
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from critique_rl.cli.lab import add_lab_command
from critique_rl.config.checks import ConfigError, suggest
from critique_rl.config.pipeline_file import load_pipeline, shipped
from critique_rl.config.run_folder import PipelineFolder, RunFolder, held
from critique_rl.config.schema import Pipeline, RunConfig
from critique_rl.experiment.plan import FORMATS, launcher, stages, written
from critique_rl.experiment.same_config import check_same_config


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    arguments = _parsed(argv)
    try:
        return arguments.command(arguments)
    except ConfigError as error:
        print(f"critique-rl: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("critique-rl: interrupted; the same command continues", file=sys.stderr)
        return 130


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """argparse takes overrides directly after the pipeline only; people write them last."""
    parser = _parser()
    arguments, rest = parser.parse_known_args(argv)
    if any(word.startswith("-") or "=" not in word for word in rest) or (rest and not hasattr(arguments, "overrides")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        arguments.overrides += rest
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("critique-rl", description="Critique-augmented GRPO: train arms, judge them on the same problems, compare them.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = _pipeline_command(commands, "run", _run, "train every arm and seed of a pipeline, evaluate, compare and report")
    run.add_argument("--jobs", type=int, default=1, help="runs at a time, each a process of its own (default: 1)")
    train = _pipeline_command(commands, "train", _train, "train and evaluate one arm with one seed")
    train.add_argument("--arm", required=True)
    train.add_argument("--seed", type=int, required=True)
    train.add_argument("--sweep", action="store_true", help="a trial of the pipeline's sweep: the arm is <arm>@<value>")
    evaluate = _pipeline_command(commands, "evaluate", _evaluate, "judge the policy before training, or a trained one again, on the held-out problems")
    evaluate.add_argument("--arm", help="a trained arm (default: the policy before training)")
    evaluate.add_argument("--seed", type=int, default=0, help="the arm's seed (default: 0)")
    _pipeline_command(commands, "compare", _compare, "compare finished runs: paired differences with intervals")
    _pipeline_command(commands, "report", _report, "write one self-contained HTML page")
    _claims_command(commands)
    _critics_command(commands)
    _doctor_command(commands)
    _init_command(commands)
    plan = _pipeline_command(commands, "plan", _plan, "print the command of every run that is still to do, for a cluster to run")
    plan.add_argument("--format", default="lines", choices=FORMATS, help="lines, or a script for GNU parallel, Slurm or SkyPilot (default: lines)")
    start = plan.add_mutually_exclusive_group()
    start.add_argument("--prefix", default="critique-rl", help='what starts a command, such as "accelerate launch -m critique_rl" (default: critique-rl)')
    start.add_argument("--accelerate", type=Path, metavar="FILE", help="start each by accelerate launch with this config, as of pipelines/accelerate")
    add_lab_command(commands)
    return parser


def _critics_command(commands) -> None:
    help = "try critics before the run: what each rescues of the policy's failed rollouts, or how well it finds the first wrong step"
    critics = commands.add_parser("critics", help=help, description=help)
    critics.add_argument("pipeline", type=Path, nargs="?", help="a YAML file; its arms' critics are tried (not with --champ)")
    critics.add_argument("overrides", nargs="*", metavar="key=value")
    critics.add_argument("--out", type=Path, default=Path("runs"), help="where results go (default: runs)")
    critics.add_argument("--critic", action="append", default=[], help="a kind, or '{kind: local, model: DIR}', instead of those of the arms; may be repeated")
    critics.add_argument("--problems", type=int, default=50, help="held-out questions a family (default: 50)")
    critics.add_argument("--samples", type=int, default=4, help="rollouts a question (default: 4)")
    critics.add_argument("--attempts", type=int, default=200, help="failed rollouts at most (default: 200)")
    critics.add_argument("--family", default="", help="questions of one family alone (default: all)")
    critics.add_argument("--split", default="validation", choices=("validation", "test"))
    critics.add_argument("--champ", action="store_true", help="localisation on human annotations (pip extra `champ`) instead of rescue")
    critics.add_argument("--base-url", help="with --champ: an OpenAI-compatible endpoint")
    critics.add_argument("--model", help="with --base-url: the model's name there")
    critics.add_argument("--limit", type=int, default=0, help="with --champ: so many of the 540 solutions (default: all)")
    critics.add_argument("--knows", default="nothing", choices=("nothing", "answer", "solution"), help="with --champ: what the critic is told")
    form = critics.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON instead of a table")
    form.add_argument("--markdown", action="store_true", help="print Markdown instead of a table")
    critics.set_defaults(command=_critics)


def _doctor_command(commands) -> None:
    help = "check what a run leans on, and say what to do: packages, machine, disk, and the endpoint of a critic"
    doctor = commands.add_parser("doctor", help=help, description=help)
    doctor.add_argument("pipeline", type=Path, nargs="?", help="a YAML file; its policy and the endpoints of its critics are checked too")
    doctor.add_argument("overrides", nargs="*", metavar="key=value")
    doctor.add_argument("--out", type=Path, default=Path("runs"), help="where results would go (default: runs)")
    doctor.add_argument("--base-url", help="an OpenAI-compatible endpoint, up to its version")
    doctor.add_argument("--model", help="the model's name there")
    doctor.add_argument("--api-key-env", default="OPENAI_API_KEY", help="the variable with the key (default: OPENAI_API_KEY)")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of lines")
    doctor.set_defaults(command=_doctor)


def _init_command(commands) -> None:
    help = "look at your data (JSONL, JSON, CSV, Parquet, a folder, a Hub id) and write a first pipeline for it"
    init = commands.add_parser("init", help=help, description=help)
    init.add_argument("data", metavar="DATA")
    init.add_argument("--out", type=Path, default=Path("pipeline.yaml"), help="the pipeline to write; never written over (default: pipeline.yaml)")
    init.add_argument("--model", default="Qwen/Qwen2.5-0.5B-Instruct", help="the policy: a folder, or a Hub id (default: Qwen/Qwen2.5-0.5B-Instruct)")
    for name in ("question", "answer", "family"):
        init.add_argument(f"--{name}", default="", metavar="COLUMN", help=f"the column of the {name} (default: by its name)")
    init.add_argument("--subset", default="", help="of a Hub id, such as main of openai/gsm8k")
    init.set_defaults(command=_init)


def _pipeline_command(commands, name: str, function, help: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=help, description=help)
    command.add_argument("pipeline", type=Path, help="a YAML file, such as pipelines/quickstart.yaml")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="such as 'seeds=[0,1]' or trl.learning_rate=5e-5")
    command.add_argument("--out", type=Path, default=Path("runs"), help="where results go (default: runs)")
    if name in ("run", "evaluate", "compare"):
        command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.set_defaults(command=function)
    return command


def _claims_command(commands) -> None:
    claims = commands.add_parser("claims", help="run every pipeline of a folder and say which of their claims are reproduced")
    claims.add_argument("folder", type=Path, nargs="?", default=Path("pipelines/claims"), help="pipelines with a claim: section (default: pipelines/claims)")
    claims.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    claims.add_argument("--quick", action="store_true", help="one seed and small budgets, to see that everything runs; no verdicts")
    claims.add_argument("--out", type=Path, help="where results go (default: runs/claims, with --quick runs/claims-quick)")
    claims.add_argument("--json", action="store_true", help="print JSON instead of a table")
    claims.set_defaults(command=_claims)


def _load(arguments) -> tuple[Pipeline, PipelineFolder]:
    from critique_rl.analysis.claims import parse_claim

    pipeline = load_pipeline(arguments.pipeline, arguments.overrides)
    parse_claim(pipeline)
    return pipeline, PipelineFolder(arguments.out / pipeline.name)


def _run(arguments) -> int:
    from critique_rl.experiment.campaign import run_all

    _check_jobs(arguments.jobs)
    pipeline, folder = _load(arguments)
    failed = run_all(pipeline, folder, arguments.pipeline, arguments.overrides, arguments.jobs)
    if failed and not any(folder.run(arm, seed).finished for arm in pipeline.arms for seed in pipeline.seeds):
        return 1
    comparison = _compared(pipeline, folder)
    _print_comparison(comparison, arguments.json)
    _write_report(pipeline, folder, comparison, _words(arguments))
    return 1 if failed else 0


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise ConfigError(f"--jobs: got {jobs}, expected 1 or more")


def _claims(arguments) -> int:
    """Run, compare and report pipeline by pipeline; the table is written anew after each, so that a stopped campaign leaves what it has."""
    from critique_rl.analysis import claims
    from critique_rl.config.run_folder import ClaimsFolder, write_json, write_text
    from critique_rl.experiment.campaign import run_all

    _check_jobs(arguments.jobs)
    out = ClaimsFolder(arguments.out or Path("runs/claims-quick" if arguments.quick else "runs/claims"))
    told, failed = [], []
    for path, overrides in _claim_pipelines(arguments):
        pipeline = load_pipeline(path, overrides)
        failed += [f"{pipeline.name}/{name}" for name in run_all(pipeline, out.pipeline(pipeline.name), path, overrides, arguments.jobs)]
        told += _judged(pipeline, out.pipeline(pipeline.name), [str(path), *overrides, "--out", str(out.path)])
        write_json(out.json, {"claims": told})
        write_text(out.markdown, claims.markdown(told))
    print(json.dumps({"claims": told}) if arguments.json else claims.markdown(told))
    return 1 if failed else 0


def _claim_pipelines(arguments) -> list[tuple[Path, list[str]]]:
    """(file, overrides) of every pipeline of the folder; all are checked before the first is run."""
    from critique_rl.analysis.claims import parse_claim, quick_overrides

    paths, found = sorted(shipped(arguments.folder).glob("*.yaml")), []
    if not paths:
        raise ConfigError(f"no pipeline in {arguments.folder}; give a folder of YAML files, such as pipelines/claims")
    for path in paths:
        pipeline = load_pipeline(path)
        if parse_claim(pipeline) is None:
            raise ConfigError(f"{path} has no claim: section; add one, or give a folder of pipelines that have")
        found.append((path, quick_overrides(pipeline) if arguments.quick else []))
    return found


def _judged(pipeline: Pipeline, folder: PipelineFolder, words: list[str]) -> list[dict]:
    """What claims.json holds of one pipeline; nothing where not one of its runs has finished."""
    from critique_rl.analysis import claims
    from critique_rl.analysis.compare import read_runs

    if not any(folder.run(arm, seed).finished for arm in pipeline.arms for seed in pipeline.seeds):
        return []
    comparison = _compared(pipeline, folder)
    _write_report(pipeline, folder, comparison, words)
    _, runs, base, _ = read_runs(folder, pipeline.control, list(pipeline.arms), list(pipeline.seeds))
    return [claims.report(pipeline, claims.parse_claim(pipeline), runs, base, comparison["sweep"])]


def _arm(arguments, pipeline: Pipeline, arm: str) -> RunConfig:
    if arm not in pipeline.arms:
        raise ConfigError(f"--arm: no arm {arm!r} in {arguments.pipeline}; {suggest(arm, pipeline.arms)}")
    return pipeline.arms[arm]


def _train(arguments) -> int:
    from critique_rl.experiment.sweep import trials, with_chosen

    pipeline, folder = _load(arguments)
    if arguments.sweep and pipeline.sweep is None:
        raise ConfigError(f"--sweep: {arguments.pipeline} has no sweep: section")
    pipeline, folder = (trials(pipeline), folder.sweep) if arguments.sweep else (with_chosen(pipeline, folder), folder)
    config, run = _arm(arguments, pipeline, arguments.arm), folder.run(arguments.arm, arguments.seed)
    check_same_config(run, config, arguments.seed)
    with held(run.path, "training"):
        return _train_held(config, arguments, run)


def _train_held(config: RunConfig, arguments, run: RunFolder) -> int:
    from critique_rl.experiment import train

    try:
        train.train(config, arguments.arm, arguments.seed, run)
    except train.Interrupted as interruption:
        print(f"critique-rl: {interruption}", file=sys.stderr)
        return 130
    except train.RunFailed as failure:
        print(f"critique-rl: {failure}", file=sys.stderr)
        return 1
    return 0


def _evaluate(arguments) -> int:
    pipeline, folder = _load(arguments)
    config, run = _arm(arguments, pipeline, arguments.arm or pipeline.control), folder.base
    if arguments.arm:
        run = folder.run(arguments.arm, arguments.seed)
        if not run.finished:
            raise ConfigError(f"no finished run in {run.path}; train it first: critique-rl train {arguments.pipeline} --arm {arguments.arm}")
    from critique_rl.experiment import train

    train.evaluate_again(config, run) if arguments.arm else train.evaluate_base(config, folder)
    metrics = json.loads(run.evaluation.read_text())["metrics"]
    print(json.dumps(metrics) if arguments.json else "\n".join(f"{name:<24}{value:.3f}" for name, value in metrics.items()))
    return 0


def _compare(arguments) -> int:
    _print_comparison(_compared(*_load_as_run(arguments)), arguments.json)
    return 0


def _load_as_run(arguments) -> tuple[Pipeline, PipelineFolder]:
    """`_load`, and ConfigError where runs were started with other settings than the pipeline has now. Evaluations may be given anew."""
    from critique_rl.experiment.same_config import check_folders
    from critique_rl.experiment.sweep import with_chosen

    pipeline, folder = _load(arguments)
    check_folders(with_chosen(pipeline, folder) if folder.sweep_choice.exists() else pipeline, folder, but=("evaluation",))
    return pipeline, folder


def _print_comparison(comparison: dict, as_json: bool) -> None:
    from rich.console import Console

    from critique_rl.analysis.summary import left_out, table, verdict

    if as_json:
        print(json.dumps(comparison))
        return
    console = Console()
    console.print(table(comparison))
    console.print(verdict(comparison), *left_out(comparison), sep="\n", markup=False)


def _compared(pipeline: Pipeline, folder: PipelineFolder) -> dict:
    """Write compare.json and return what it holds."""
    from critique_rl.analysis.compare import compare
    from critique_rl.config.run_folder import write_json

    measure = (pipeline.arms[pipeline.control].budget.of or ("generated_tokens", 0))[0]
    comparison = compare(folder, pipeline.control, pipeline.primary, list(pipeline.arms), list(pipeline.seeds), pipeline.target, measure)
    write_json(folder.comparison, comparison)
    return comparison


def _report(arguments) -> int:
    """Compares anew: what an evaluation or another control changed since must not be told as it was."""
    pipeline, folder = _load_as_run(arguments)
    _write_report(pipeline, folder, _compared(pipeline, folder), _words(arguments))
    return 0


def _words(arguments) -> list[str]:
    return [str(arguments.pipeline), *arguments.overrides, "--out", str(arguments.out)]


def _write_report(pipeline: Pipeline, folder: PipelineFolder, comparison: dict, words: list[str]) -> None:
    from critique_rl.analysis.report import write_report

    commands = [f"critique-rl {command} {shlex.join(words)}" for command in ("run", "compare", "report")]
    page = write_report(folder, comparison, pipeline.external, commands)
    print(f"report: {page}, with report.md, tables.tex and numbers.csv beside it", file=sys.stderr)


def _critics(arguments) -> int:
    from critique_rl.experiment import critic_bench as bench

    given = list(arguments.critic)
    if arguments.base_url:
        # All of CHAMP is one step here, which a slow server may take hours for; what bounds it are the deadlines of its calls.
        given.append(json.dumps({"kind": "api", "base_url": arguments.base_url, "model": arguments.model or "default", "step_deadline": 86400.0}))
    if min(arguments.problems, arguments.samples, arguments.attempts) < 1 or arguments.limit < 0:
        raise ConfigError("--problems, --samples, --attempts: expected 1 or more, and --limit 0 (all) or more")
    if arguments.champ:
        if arguments.pipeline:
            raise ConfigError(f"--champ: needs no pipeline, got {arguments.pipeline}; give --base-url and --model, or --critic")
        data = bench.localisation_bench(given, arguments.limit, arguments.knows)
        return _print_bench(arguments, data, bench.localisation_table(data), [])
    if arguments.pipeline is None:
        raise ConfigError("critics: give a pipeline, such as pipelines/quickstart.yaml, or --champ")
    pipeline, folder = _load(arguments)
    size = bench.BenchSize(arguments.problems, arguments.samples, arguments.attempts, arguments.split, arguments.family)
    data = bench.rescue_bench(pipeline, folder, given, size)
    return _print_bench(arguments, data, bench.rescue_table(data), bench.reason_lines(data))


def _print_bench(arguments, data, table, notes: list[str]) -> int:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from critique_rl.analysis.exports import markdown_table

    if arguments.json:
        print(json.dumps(data))
    elif arguments.markdown:
        print("\n".join([markdown_table(table), *notes]))
    else:
        shown = Table(*table.heads, title=table.caption)
        for row in table.rows:
            shown.add_row(*map(escape, row))
        # A pipe has no width, and 80 columns would break every figure.
        Console(width=None if sys.stdout.isatty() else 200).print(shown, *map(escape, notes), sep="\n")
    return 0


def _doctor(arguments) -> int:
    from critique_rl.cli.doctor import check, print_lines

    lines = check(_load(arguments)[0] if arguments.pipeline else None, arguments.out, arguments.base_url, arguments.model, arguments.api_key_env)
    print(json.dumps([line.as_dict() for line in lines])) if arguments.json else print_lines(lines)
    return 1 if any(line.status == "fail" for line in lines) else 0


def _plan(arguments) -> int:
    pipeline, folder = _load(arguments)
    planned = stages(pipeline, folder, _words(arguments), launcher(shipped(arguments.accelerate)) if arguments.accelerate else arguments.prefix)
    if planned:
        print(written(planned, arguments.format, pipeline.name))
    counted = ", then ".join(str(len(stage)) for stage in planned) or "no"
    print(
        f"{counted} runs to do; afterwards critique-rl run {shlex.join(_words(arguments))} evaluates the policy before training, compares and reports",
        file=sys.stderr,
    )
    return 0


def _init(arguments) -> int:
    from critique_rl.cli.init import Columns, write_first_pipeline

    said = Columns(arguments.question, arguments.answer, arguments.family)
    print(write_first_pipeline(arguments.data, arguments.out, arguments.model, said, arguments.subset))
    return 0


if __name__ == "__main__":
    sys.exit(main())
