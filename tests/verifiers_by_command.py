"""Two packages judge by command in an environment of their own, and their programs are killed.

    PYTHONPATH=.:tests python tests/verifiers_by_command.py [--answers 500] [--venv FOLDER]

Makes the environment (verifiers 0.4.0, which cannot be installed beside openai 3, and
reasoning-gym 0.1.25), or takes that of --venv. `pipelines/workers/verifiers_rewards.py` judges so
many answers, and writes down each one before and after it. Its process is killed (SIGKILL) three
times. Every answer has a reward of its own, so that a reward of another answer shows. Then what
verifiers and reasoning-gym do with exceptions, NaN, sums over 1 and partial scores; and the time
per answer by command, by `python` and in this process. Fails where a count is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import user_verifiers
from waiting import SECONDS, wait_until

from critique_rl.tasks.isolated_verifiers import build_verifier

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "pipelines" / "workers"
PACKAGES = ("verifiers==0.4.0", "reasoning-gym==0.1.25")
KILLS = 3
SPEED = 2000
"""Answers whose time is measured."""
LOGGED = """
import json, os, sys, time
import verifiers.v1 as vf
import verifiers_rewards as recipe
from answer_lines import serve


class WithNan(recipe.Product):
    @vf.reward(weight=0.25)
    async def short(self, trace):
        if "not a number" in trace.last_reply:
            return float("nan")
        return max(0.0, 1.0 - len(trace.last_reply) / 400)


def note(word, row):
    with open(sys.argv[1], "a") as log:
        log.write(json.dumps([os.getpid(), word, row.get("place")]) + "\\n")


def judge(completion, row):
    note("begin", row)
    # So that it is killed while it judges.
    time.sleep(0.02)
    answer = recipe.judge(completion, row)
    note("end", row)
    return answer


recipe.Product = WithNan
serve(judge)
"""


def environment(folder: Path) -> str:
    """The Python of an environment with the two packages."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        words = [python, "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(words, check=True)
    return str(python)


def by_command(*argv: str, **options: Any) -> Any:
    return build_verifier({"kind": "command", "argv": list(argv), **options})


def entries(log: Path) -> list[Any]:
    """What the program has written down; a line that is not complete is left out."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().split("\n")[:-1]]


def kill_programs(log: Path, answers: int, killed: list[int]) -> None:
    """Kill the program that began last, while it works, at each quarter of the answers."""
    for part in range(1, KILLS + 1):

        def is_due(least: int = part * answers // (KILLS + 1)) -> bool:
            noted = entries(log)
            return len(noted) >= 2 * least and noted[-1][1] == "begin"

        wait_until(is_due, f"{part} parts of the answers", every=0.003)
        killed.append(entries(log)[-1][0])
        os.kill(killed[-1], signal.SIGKILL)


def expected_reward(place: int, text: str) -> float:
    """As the recipe weighs it: right in three of four, and shorter than others."""
    right = float(place % 4 != 0)
    return (right + 0.25 * (1 - len(text) / 400)) / 1.25


def kill_and_count(python: str, folder: Path, answers: int) -> None:
    log = folder / "log.jsonl"
    script = folder / "logged.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(RECIPES)!r})\n{LOGGED}")
    verifier = by_command(python, str(script), str(log), deadline=60)
    rows = []
    texts = []
    for place in range(answers):
        rows.append({"place": place, "question": f"{place} * 7?", "answer": str(7 * place)})
        # So many letters that no two rewards are alike.
        box = 7 * place if place % 4 else 7 * place + 1
        texts.append("x" * (1 + place % 350) + f" \\boxed{{{box}}}")
    killed: list[int] = []
    killer = threading.Thread(target=kill_programs, args=(log, answers, killed), daemon=True)
    killer.start()
    start = time.monotonic()
    verdicts = verifier.judge_all(texts, rows)
    seconds = time.monotonic() - start
    killer.join(SECONDS)
    noted = entries(log)
    verifier.worker.stop()
    begun = Counter(place for _, word, place in noted if word == "begin")
    ended = Counter(place for _, word, place in noted if word == "end")
    right_rewards = 0
    for place, (text, verdict) in enumerate(zip(texts, verdicts, strict=True)):
        reward = verdict.details.get("reward", -1)
        right_rewards += abs(reward - expected_reward(place, text)) < 1e-9
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    twice = [place for place, count in begun.items() if count > 1]
    print(f"asked {answers}, programs killed {len(killed)}, {seconds:.1f} s")
    print(f"answered {len(verdicts)}, outcomes {dict(outcomes)}, reward its own {right_rewards}")
    print(f"judged once {sum(count == 1 for count in ended.values())}, begun twice {len(twice)}")
    print(f"judged to the end twice {sum(count > 1 for count in ended.values())}")
    print(f"processes lost {verifier.worker.restarts}, answers lost {verifier.worker.lost}")
    assert len(killed) == KILLS
    assert right_rewards == answers
    assert sorted(ended) == list(range(answers))
    # Only what was open when its program was killed; it may have ended with its answer unsent.
    assert len(twice) <= KILLS
    assert verifier.worker.lost == 0
    odd_rewards(python, script, log)


def odd_rewards(python: str, script: Path, log: Path) -> None:
    """What verifiers does with an exception, NaN, and a sum over 1."""
    verifier = by_command(python, str(script), str(log), deadline=60)
    row = {"question": "6 * 7?", "answer": "42"}
    cases = {
        "a reward function raises": ("\\boxed{42}", {**row, "answer": "forty-two"}),
        "a reward is NaN": ("not a number \\boxed{42}", row),
        "rewards whose weighted sum is 1.24": ("\\boxed{42}", row),
        "a wrong answer": ("\\boxed{43}", row),
    }
    outcomes = []
    for name, (text, asked) in cases.items():
        verdict = verifier(text, asked)
        outcomes.append(verdict.outcome)
        print(f"{name}: {verdict.outcome} {verdict.details or verdict.reason}")
    verifier.worker.stop()
    assert outcomes == ["unscored", "unscored", "right", "wrong"]


def gym_scores(python: str) -> None:
    """Gold answers, and wrong ones that reasoning-gym gives a part of the score."""
    script = str(RECIPES / "gym_scores.py")
    wrong = {"countdown": "1+1", "chain_sum": "1{answer}1"}
    for name, text in wrong.items():
        words = [python, script, name, "40"]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        rows = [json.loads(line) for line in lines.splitlines()]
        verifier = by_command(python, script, name, threshold=1.0, deadline=60)
        golds = [f"Answer: {row['answer']}\n" for row in rows]
        wrongs = [f"Answer: {text.format(**row)}" for row in rows]
        right = verifier.judge_all(golds, rows)
        judged = verifier.judge_all(wrongs, rows)
        unmarked = verifier(rows[0]["answer"], rows[0])
        verifier.worker.stop()
        scores = [verdict.details["reward"] for verdict in judged]
        outcomes = Counter(verdict.outcome for verdict in judged)
        print(
            f"{name}: gold {dict(Counter(verdict.outcome for verdict in right))}, {text!r} "
            f"{dict(outcomes)} with scores from {min(scores):.3f} to {max(scores):.3f}, "
            f"without a mark {unmarked.outcome}"
        )
        assert {verdict.outcome for verdict in right} == {"right"}
        assert set(outcomes) == {"wrong"}
        assert 0 < max(scores) < 1


def speed() -> None:
    """Milliseconds per answer, one process each, and their ratios."""
    texts = [str(place) for place in range(SPEED)]
    rows = [{"answer": "7", "place": place} for place in range(SPEED)]
    options = {"workers": 1, "deadline": 60}
    judge = str(ROOT / "tests" / "command_judge.py")
    command = by_command(sys.executable, judge, **options)
    target = f"{ROOT}/tests/user_verifiers.py:same"
    python = build_verifier({"kind": "python", "target": target, **options})

    def direct(texts: list[str], rows: list[dict[str, Any]]) -> None:
        for text, row in zip(texts, rows, strict=True):
            user_verifiers.same(text, row)

    milliseconds = {}
    kinds: dict[str, Callable[..., Any]] = {
        "command": command.judge_all,
        "python": python.judge_all,
        "here": direct,
    }
    for name, judge_all in kinds.items():
        times = []
        for _ in range(5):
            start = time.perf_counter()
            judge_all(texts, rows)
            times.append(time.perf_counter() - start)
        milliseconds[name] = 1000 * sorted(times)[2] / SPEED
    command.worker.stop()
    python.worker.stop()
    ratio = milliseconds["command"] / milliseconds["python"]
    shown = ", ".join(f"{name} {value:.4f} ms" for name, value in milliseconds.items())
    print(f"time per answer, median of 5 x {SPEED}: {shown}; command to python {ratio:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--answers", type=int, default=500)
    parser.add_argument("--venv", type=Path, help="an environment that is there, or to be kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = environment(given.venv or folder / "venv")
        kill_and_count(python, folder, given.answers)
        gym_scores(python)
        speed()


if __name__ == "__main__":
    main()
