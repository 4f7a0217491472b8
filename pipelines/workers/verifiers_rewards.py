"""A task of the package verifiers (0.4.0) as a verifier by command, in an environment of its own:

    python -m venv .venv-verifiers && .venv-verifiers/bin/pip install verifiers==0.4.0
    verifier: {kind: command, argv: [.venv-verifiers/bin/python, verifiers_rewards.py]}

Put your task in place of `Product`, and its fields in `TaskFields`. Where a reward function raises,
the answer is unscored: verifiers itself leaves a reward of 0 then. NaN is refused by critique_rl.
A trace's reward is the weighted sum, which may exceed 1; here it is divided by the weights.
Left out: tasks with tools or a runtime, whose rewards need more than a completion.
"""

from __future__ import annotations

import asyncio
from typing import Any

import verifiers.v1 as vf
from answer_lines import Answer, serve
from verifiers.v1.utils.score import extract_boxed_answer


class TaskFields(vf.TaskData):
    """The columns that the task reads."""

    answer: str = ""


class Product(vf.Task[TaskFields]):
    """A product, in a box: being right weighs 1, and a short text a quarter."""

    @vf.reward(weight=1.0)
    async def right(self, trace: vf.Trace) -> float:
        """1 for the right product in the last box."""
        # It raises for a row without a number alone: what an answer may hold must not raise.
        gold = int(self.data.answer)
        box = extract_boxed_answer(trace.last_reply, strict=True)
        return float(box.strip() == str(gold))

    @vf.reward(weight=0.25)
    async def short(self, trace: vf.Trace) -> float:
        """1 for nothing, 0 from 400 characters on."""
        return max(0.0, 1.0 - len(trace.last_reply) / 400)


def judge(completion: str, row: dict[str, Any]) -> Answer:
    """The weighted mean of the task's rewards for one completion."""
    data = TaskFields(prompt=row["question"], answer=row["answer"])
    task = Product(data)
    trace = trace_of(task, completion)
    try:
        asyncio.run(task.score(trace))
    except vf.TaskError as error:
        return {"unscored": f"TaskError: {error}"}
    rewards = trace.rewards.values()
    if not rewards or None in rewards:
        return {"unscored": "a reward function gave nothing"}
    weights = sum(reward.weight for reward in rewards)
    return {"reward": trace.reward / weights, "answer": trace.last_reply[-200:]}


def trace_of(task: vf.Task, completion: str) -> vf.Trace:
    """A finished trace of one turn: the question, and the completion."""
    question = vf.UserMessage(content=task.data.prompt)
    reply = vf.AssistantMessage(content=completion)
    nodes = [
        vf.MessageNode(message=question),
        vf.MessageNode(parent=0, message=reply, sampled=True),
    ]
    header = vf.TraceTask(type=type(task).__name__, data=task.data)
    return vf.Trace(task=header, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes)


if __name__ == "__main__":
    serve(judge)
