"""Degenerate texts of 43 kinds at any length, and the functions of ours that read texts of models,
servers and users.

`READERS` is the list that `test_degenerate_text.py` and `benchmarks/degenerate_text.py` go through.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from critique_rl.analysis.page import text_cuts
from critique_rl.analysis.table import escape_latex, escape_markdown
from critique_rl.critic.api.failures import TOO_LONG_WORDS, failure_reason
from critique_rl.critic.api.response import BadResponse, parse_response
from critique_rl.critic.chat_critic import ChatCritic
from critique_rl.critic.contract import Reply, without_thinking
from critique_rl.critic.leaks import handle_leak, leak_spans
from critique_rl.critic.user_critic import UserCritic
from critique_rl.experiment.first_wrong_step import read_step
from critique_rl.experiment.rollout_log import _writable
from critique_rl.lab import chain, legs
from critique_rl.prompts import clean, cut, fence, is_blank, neutralise, render
from critique_rl.tasks import answer_text, verifiers
from critique_rl.tasks.answers import (
    choose,
    dates,
    formulas,
    letters,
    marked,
    numbers,
    phrases,
    units,
)
from critique_rl.tasks.isolated_verifiers import _judge_without_library
from critique_rl.tasks.messages import conversation_text, replace_question, text_of
from critique_rl.tasks.rows import choices, question_key, written
from critique_rl.trainer.rollout.refine import mentions_critique, refine_prompt
from critique_rl.types import Attempt, Critique, Verdict

UNITS = {
    "newlines": "\n",
    "carriage returns": "\r\n",
    "spaces": " ",
    "tabs and newlines": " \t\n",
    "round brackets": "(",
    "square brackets": "[",
    "braces": "{",
    "angle brackets": "<",
    "open thoughts": "<think>",
    "closed thoughts": "<think>a</think>",
    "ends of thoughts": "</think>",
    "thoughts on lines": "\n <think>",
    "other thoughts": "<think><reasoning>[THINK]</reasoning>",
    "Harmony headers": "<|channel|>analysis<|message|>",
    "Harmony turns": "<|channel|>final<|message|>a<|end|><|start|>assistant",
    "boxes": "\\boxed{",
    "closed boxes": "\\boxed{1} ",
    "fractions": "\\frac{",
    "formulas": "\\(",
    "dollars": "$",
    "backslashes": "\\",
    "digits": "7",
    "grouped digits": ",111",
    "numbers": "1 ",
    "sums": "1=1+",
    "zero-width characters": "\u200b",
    "soft hyphens": "\u00ad",
    "combining marks": "\u0301\u0316",
    "joined emoji": "\U0001f469\u200d",
    "half surrogates": "\ud83d",
    "escaped surrogates": "\\ud83d",
    "stars": "*",
    "emphasis": "*a* **b** _c_ ",
    "near matches": "the answer i ",
    "declarations": "Answer: ",
    "steps": "A3*10=30 30\n",
    "letters": "(A) B, ",
    "capitals": "A ",
    "commas": ",",
    "quotes": "'\"",
    "words": "as you noted lyly ",
    "one long word": "a",
    "code fences": "```\n",
    "control characters": "\x00\x1b[",
}
"""Kind -> what is repeated."""
THOUGHT_MARKS = {
    "<think>": "</think>",
    "<THINKING >": "</Thinking>",
    "<thought>": "</thought>",
    "<reasoning>": "</reasoning>",
    "<seed:think>": "</seed:think>",
    '<thinking type="long">': "</thinking>",
    "&lt;think&gt;": "&lt;/think&gt;",
    "[THINK]": "[/THINK]",
    "\u25c1think\u25b7": "\u25c1/think\u25b7",
    "<|begin_of_thought|>": "<|end_of_thought|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "<|thinking_start|>": "<|thinking_end|>",
    "<start_of_reasoning>": "<end_of_reasoning>",
    "<|think|>": "<|/think|>",
    "\\u003cthink\\u003e": "\\u003c/think\\u003e",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|channel>thought": "<channel|>",
    "<unused94>thought": "<unused95>",
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
}
"""The mark that opens thoughts -> the one that ends them."""
NESTED = ("round brackets", "square brackets", "braces")
"""Kinds of which the second half closes what the first one opens."""
ENDS = {"grouped digits": "1", "capitals": "1", "spaces": "b", "numbers": "x"}
"""Kind -> the end that makes a nearly complete match fail."""
STARTS = {"grouped digits": "1"}
CLOSING = str.maketrans("([{", ")]}")


def degenerate(kind: str, length: int) -> str:
    """A text of a kind with that many characters."""
    unit = UNITS[kind]
    start = STARTS.get(kind, "")
    end = ENDS.get(kind, "")
    room = length - len(start) - len(end)
    if kind in NESTED:
        half = unit * (room // 2)
        return half + half.translate(CLOSING)
    repeated = unit * (room // len(unit) + 1)
    return start + repeated[:room] + end


ROW = {"prompt": "What is 6 times 7?", "question": "What is 6 times 7?", "answer": "42"}
LETTER_ROW = {**ROW, "answer": "B"}
CHAIN_ROW = {**ROW, "question": "3 A-7 B+9", "answer": "5"}
LEGS = legs.Problem("", "46", (("crab", 3), ("wasp", 1)))
SPECIALS = (*(f"<|reserved_special_token_{i}|>" for i in range(256)), "<s>", "]~b]", "\u2581")
ATTEMPT = Attempt(ROW["question"], "It is 41.", Verdict("wrong", "41"), ROW)


class OneReply:
    """A chat that answers every conversation with one text."""

    def __init__(self, text: str):
        self.text = text

    def answer(self, conversations):
        return [Reply(self.text) for _ in conversations]


def judge(rule: Callable[..., Verdict], row: Mapping[str, Any] = ROW) -> Callable[[str], Any]:
    return lambda text: rule(text, row)


def is_right(piece: str, row: Mapping[str, Any]) -> bool:
    return verifiers.last_number(piece, row).outcome == "right"


def critique_of_reply(text: str, **settings: Any) -> Critique:
    critic = ChatCritic(OneReply(text), is_answer=is_right, **settings)
    [critique] = critic.critique([ATTEMPT])
    return critique


def critique_of_attempt(text: str) -> Critique:
    attempt = Attempt(text, text, Verdict("wrong"), {**ROW, "solution": text, "answer": text})
    critic = ChatCritic(OneReply("Look again."), is_answer=is_right, knows="solution")
    [critique] = critic.critique([attempt])
    return critique


def critique_of_user(text: str) -> Critique:
    critic = UserCritic(lambda attempts: [text for _ in attempts], is_answer=is_right)
    [critique] = critic.critique([ATTEMPT])
    return critique


def body(text: str) -> bytes:
    message = {"content": text}
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return json.dumps(
        {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
    ).encode()


def read_body(raw: bytes) -> Any:
    try:
        return parse_response(raw)
    except BadResponse as error:
        return str(error)


def as_json(text: str) -> Any:
    try:
        return written.parse_json(text)
    except ValueError:
        return None


def refined(text: str) -> Any:
    attempt = Attempt(ROW["question"], text, Verdict("wrong"), ROW)
    return refine_prompt(ROW["prompt"], attempt, Critique(text, "x"), "refine", SPECIALS)


def same(gold: str, answer: str) -> tuple[str, str]:
    return "unreadable", "no library here"


READERS: dict[str, Callable[[str], Any]] = {
    "thoughts": without_thinking,
    "reply of a chat critic": critique_of_reply,
    "reply, leaks redacted": partial(critique_of_reply, on_leak="redact"),
    "reply, 3 votes": partial(critique_of_reply, votes=3, choose="central"),
    "attempt of a chat critic": critique_of_attempt,
    "critique of user code": critique_of_user,
    "leaks": lambda text: leak_spans(text, ATTEMPT, is_right),
    "question quoted in leaks": lambda text: leak_spans(
        "It is 42.", Attempt(text, "", Verdict("wrong"), ROW), is_right
    ),
    "leak handled": lambda text: handle_leak(Critique(text, "x"), ATTEMPT, is_right, "drop"),
    "body with the text": lambda text: read_body(body(text)),
    "body that is the text": lambda text: read_body(text.encode("utf-8", "replace")),
    "words of a server": lambda text: (
        TOO_LONG_WORDS.search(text),
        failure_reason(BadResponse(text), "secret-key"),
    ),
    "first wrong step": lambda text: read_step(text, 9),
    "is_blank": is_blank,
    "clean": clean,
    "neutralise": neutralise,
    "neutralise, 259 specials": lambda text: neutralise(text, SPECIALS),
    "fence": lambda text: fence(text, "attempt", "critique"),
    "cut": lambda text: cut(text, 12_000),
    "critique prompt": lambda text: render(
        "critique", question=text, attempt=text, answer="", solution=text
    ),
    "refine prompt": refined,
    "mentions": mentions_critique,
    "last_number": judge(verifiers.last_number),
    "hash_line": judge(verifiers.hash_line),
    "hash_confidence": judge(verifiers.hash_confidence),
    "tagged_answer": judge(verifiers.tagged_answer),
    "choice": judge(verifiers.choice, LETTER_ROW),
    "boxed_answer": judge(verifiers.boxed_answer),
    "boxed_answer_evaluated": judge(verifiers.boxed_answer_evaluated),
    "math, in this process": lambda text: _judge_without_library(text, "42"),
    "gold of last_number": lambda text: verifiers.last_number("42", {"answer": text}),
    "gold of boxed_answer": lambda text: verifiers.boxed_answer("\\boxed{4}", {"answer": text}),
    "gold of choice": lambda text: verifiers.choice("Answer: A", {"answer": text}),
    "boxes": marked.boxes,
    "last box": lambda text: marked.last_box(text, longest=None),
    "declared part": marked.declared_part,
    "read_quantity": numbers.read_quantity,
    "read_last_quantity": numbers.read_last_quantity,
    "read_unit": units.read_unit,
    "read_letter": letters.read_letter,
    "read_marked_letter": letters.read_marked_letter,
    "compare_phrases": lambda text: phrases.compare_phrases("Paris", text),
    "compare_phrases, both": lambda text: phrases.compare_phrases(text, text + "a"),
    "answer_part": formulas.answer_part,
    "compare_formulas": lambda text: formulas.compare_formulas("x+1", text, same),
    "compare_formulas, gold": lambda text: formulas.compare_formulas(text, "x+1", same),
    "read_parts": formulas.read_parts,
    "is_phrase": formulas.is_phrase,
    "dates": dates.read_dates,
    "time": dates.read_time,
    "final_answer": answer_text.final_answer,
    "is_number": answer_text.is_number,
    "number_value": answer_text.number_value,
    "choose_verifier": lambda text: choose.choose_verifier([text]),
    "judged_examples": lambda text: choose.judged_examples([text, "42"], "boxed_answer"),
    "perturbations": lambda text: choose.perturbations(text, "boxed_answer"),
    "lab chain": lambda text: chain.faulty_spans("3 A-7 B+9", text),
    "lab legs": lambda text: legs.faults(LEGS, text),
    "question_key": question_key.question_key,
    "cell of choices": choices.plain_texts,
    "choices in the question": lambda text: choices.Listed(("a", "b")).stand_in(text),
    "JSON of data": as_json,
    "text_of": lambda text: text_of([{"role": "assistant", "content": text}]),
    "conversation_text": lambda text: conversation_text(
        [{"role": "user", "content": text}, {"role": "assistant", "content": text}], text
    ),
    "replace_question": lambda text: replace_question(text, str.upper),
    "page": lambda text: text_cuts.cut(text, 2400),
    "page, spelled out": text_cuts.spell_out,
    "table in Markdown": escape_markdown,
    "table in LaTeX": escape_latex,
    "record": _writable,
}
"""Name -> function of one text."""


# ---- measured in a process of its own ------------------------------------------------------------


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(work: Callable[[], Any], deadline: float) -> tuple[float, float, str]:
    """(seconds, bytes over idle, the error) of a call in a process that is forked from this one.

    A call that hangs ends with its process: "killed". Seconds are those of the processor.
    """
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        error = ""
        idle = resident()
        start = time.process_time()
        try:
            work()
        except BaseException as failure:
            error = f"{type(failure).__name__}: {failure}"[:800]
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        os.write(write_end, struct.pack("dd", seconds, peak - idle) + error.encode())
        os._exit(0)
    os.close(write_end)
    ready, _, _ = select.select([read_end], [], [], deadline)
    if not ready:
        os.kill(child, signal.SIGKILL)
    answer = os.read(read_end, 1000)
    os.close(read_end)
    os.waitpid(child, 0)
    if not answer:
        return (deadline, 0.0, "killed")
    return (*struct.unpack("dd", answer[:16]), answer[16:].decode())
