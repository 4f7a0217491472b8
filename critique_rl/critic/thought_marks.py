"""The marks by which models begin and end their thoughts.

A mark is a delimiter whose name speaks of thinking. The families are those of the reasoning parsers
of vLLM and SGLang, and of model cards:

    <think> </think>, <seed:think>, <longcat_think>, <mm:think>, <ifm|think>, <think:opensource>,
    <thinking_process>, <chain_of_thought>, <details type="reasoning">      tags
    [THINK] [/THINK], [REASONING]                                           square brackets
    <|think|>, <|begin_of_thought|>, <|START_THINKING|>, <|think:end|>      special tokens
    ```thinking                                                             fences
    <|im_start|>think, <|open|>think<|sep|>, to=self<|message|>             headers of turns
    Here are my reasoning steps: ... [BEGIN FINAL RESPONSE]              headings of Apriel, Granite
    analysisWe need ... assistantfinal ...                             bare Harmony

Left out: what stands where, and so what is a thought (`thoughts`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Literal

from critique_rl.critic.text_view import View

Role = Literal["open", "close", "answer", "around"]
"""open, close: thoughts. answer: the answer begins, so thoughts have ended. around: an end of the
answer or of a turn.
"""
CORE = re.compile(
    r"(?:ant)?think(?:s|ing)?|thoughts?|reason(?:s|ing)?|cot|chainofthoughts?|thoughtprocess"
    r"|reflect(?:ion|ions|ing)?|scratch(?:pad)?|monologue|innermonologue|innerthoughts?"
    r"|deliberat(?:e|ion|ions|ing)|ruminations?|ruminating|introspection|ponder(?:ing)?"
    r"|contemplat(?:e|ion|ing)|brainstorm(?:ing)?|cogitation|musings?"
)
"""Words of thinking. A name with one of them names thoughts."""
BESIDE = frozenset(
    [
        "begin",
        "start",
        "open",
        "end",
        "stop",
        "close",
        "of",
        "the",
        "a",
        "my",
        "your",
        "its",
        "inner",
        "internal",
        "hidden",
        "private",
        "self",
        "deep",
        "long",
        "short",
        "fast",
        "faster",
        "step",
        "steps",
        "chain",
        "content",
        "process",
        "processes",
        "block",
        "section",
        "text",
        "trace",
        "phase",
        "mode",
        "longcat",
        "seed",
        "pad",
        "work",
        "final",
        "initial",
        "model",
        "assistant",
    ]
)
"""Words that may stand beside them in a name with spaces."""
NOT_THOUGHTS = frozenset(("no", "non", "not", "without", "effort", "budget"))
START_WORDS = frozenset(("begin", "start", "open", "prefix"))
END_WORDS = frozenset(("end", "stop", "close", "suffix"))
ANSWER_WORDS = frozenset(("solution", "response", "answer", "content", "final", "output"))
BESIDE_ANSWER = START_WORDS | END_WORDS | frozenset(("of", "the", "text"))
TURN_ENDS = frozenset(
    [
        "end",
        "im_end",
        "eot",
        "eot_id",
        "eom",
        "end_message",
        "endoftext",
        "end_of_text",
        "end_of_turn",
        "return",
    ]
)
TOKENS: dict[str, tuple[Role, str]] = {
    # Apertus, Gemma 4, MedGemma, Pangu.
    "<|inner_prefix|>": ("open", "inner"),
    "<|inner_suffix|>": ("close", "inner"),
    "<|channel>thought": ("open", "channel"),
    "<|channel>analysis": ("open", "channel"),
    "<channel|>": ("close", "channel"),
    "<unused94>": ("open", "unused"),
    "<unused94>thought": ("open", "unused"),
    "<unused95>": ("close", "unused"),
    "[unused16]": ("open", "unused"),
    "[unused17]": ("close", "unused"),
    "to=self<|message|>": ("open", "turn"),
    "to=user<|message|>": ("answer", ""),
}
"""Mark in lower case without a name of thoughts -> what it does, and its family."""
CONTAINERS = frozenset(
    [
        "details",
        "div",
        "span",
        "section",
        "block",
        "part",
        "message",
        "aside",
        "blockquote",
        "output",
        "channel",
        "segment",
    ]
)
"""Elements whose attributes may say that they hold thoughts."""
# Repetitions are bounded, and every alternative begins with its own sign: a pass is linear.
_NAME = r"[a-z][\w:.|-]{0,40}(?: [a-z]{1,12}){0,3}"
_VALUE = r"(?:\"[^\"<>\n]{0,80}\"|'[^'<>\n]{0,80}'|[^\s\"'<>]{1,80})"
_ATTRIBUTES = (
    rf"(?:\s{{1,3}}(?:[\w:-]{{1,30}}[ ]{{0,2}}=[ ]{{0,2}}{_VALUE}|open|hidden|collapsed)){{1,5}}"
)
MARK = re.compile(
    r"<\|(?P<side>im_start|start_header_id|begin|start|open|close|turn)\|>\s{0,3}"
    r"(?P<turn>[a-z_]{2,20})(?![a-z_])(?:[ \t]{0,3}<\|(?:end_header_id|sep|im_sep|im_middle)\|>)?"
    r"|to=(?:self|user)<\|message\|>|<\|channel>(?:thought|analysis)|<unused94>(?:thought)?"
    r"|<channel\|>|<unused95>|\[unused1[67]\]"
    rf"|<(?P<slash>[\s|/]{{0,4}})(?P<name>{_NAME})(?P<attributes>{_ATTRIBUTES})?"
    r"\s{0,3}(?P<bar>\|?)\s{0,3}>"
    rf"|\[[ \t]{{0,2}}(?P<square_slash>/?)[ \t]{{0,2}}(?P<square>{_NAME})[ \t]{{0,2}}\](?![(\[:])"
    r"|(?P<fence>```|~~~)[ \t]{0,3}(?:think|thinking|thoughts?|reasoning)\b"
    r"|(?-i:assistantfinal)(?=\n|[^\s.,;:!?)\]])",
    re.IGNORECASE,
)
HEADING = re.compile(
    r"\s{0,9}here(?:['\u2019]s| is| are) my (?:thought process|thoughts|thinking(?: process)?"
    r"|reasoning(?: steps| process)?|chain of thought):",
    re.IGNORECASE,
)
HEADING_END = re.compile(
    r"here(?:['\u2019]s| is) my (?:final )?(?:response|answer):|\[BEGIN FINAL RESPONSE\]",
    re.IGNORECASE,
)
BARE_HARMONY = re.compile(r"\s{0,9}(?:assistant)?(?:analysis|commentary)(?=[^\W\d_]| to=\w)")
FENCE_NAME = re.compile(r"(?:reasoning|(?!reason\b)[a-z_]{1,20})\b")


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of thoughts in the plain form of a text."""

    start: int
    end: int
    role: Role
    family: str
    """A thought ends at the first closing mark of its own family."""
    is_certain: bool = False
    """Whether the form alone says that it is a mark, wherever it stands."""
    needs_opening: bool = False
    """Whether it means nothing where no thought of its family is open."""


def names_thoughts(name: str) -> bool:
    """Whether a name such as "longcat_think" or "innerMonologue" speaks of thinking."""
    return _core(name) is not None


def _words(name: str) -> list[str]:
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return [word for word in re.split(r"[\s_:.|-]+", split) if word]


@lru_cache(1000)
def _core(name: str) -> str | None:
    """The word of thinking in a name, without its ending; None where there is none."""
    words = _words(name)
    cores = [word for word in words if CORE.fullmatch(word)]
    if not cores or NOT_THOUGHTS & set(words):
        return None
    beside = set(words) - set(cores)
    # With spaces any words may meet: "if a <thought and b> 3".
    if " " in name and not beside <= BESIDE:
        return None
    # "<think>" may end in "</thinking>".
    return re.sub(r"(?:ing|ion|s)+$", "", cores[0])


def find_marks(view: View, is_cut: bool = False) -> list[Mark]:
    """The marks of thoughts in a text, in order.

    Args:
        view: the text in plain form.
        is_cut: whether the text met its longest length.
    """
    marks = [*_heading_marks(view.text, is_cut), *_fence_marks(view)]
    for match in MARK.finditer(view.text):
        mark = _mark(match)
        if mark is not None:
            marks.append(mark)
    return sorted(marks, key=attrgetter("start"))


def _mark(match: re.Match[str]) -> Mark | None:
    start, end = match.span()
    text = match[0]
    if match["turn"]:
        return _turn_mark(match)
    if match["name"]:
        return _tag_mark(match)
    if match["square"]:
        return _square_mark(match)
    if match["fence"]:
        # One within a line: nothing says where it ends.
        return Mark(start, end, "open", "fence")
    if text == "assistantfinal":
        return Mark(start, end, "answer", "")
    role, family = TOKENS[text.lower()]
    return Mark(start, end, role, family)


def _turn_mark(match: re.Match[str]) -> Mark | None:
    """The mark of a turn's header: ChatML, Llama 3, Kimi K3, Solar."""
    start, end = match.span()
    name = match["turn"].lower()
    closes = match["side"].lower() == "close"
    if names_thoughts(name):
        return Mark(start, end, "close" if closes else "open", "turn")
    if name in ANSWER_WORDS:
        return Mark(start, end, "around" if closes else "answer", "")
    return Mark(start, end, "close", "turn", needs_opening=True)


def _tag_mark(match: re.Match[str]) -> Mark | None:
    """The mark of a tag or of a special token."""
    start, end = match.span()
    literal = TOKENS.get(match[0].lower())
    if literal is not None:
        return Mark(start, end, *literal)
    name = match["name"].strip("|")
    slash = "/" in match["slash"]
    is_token = "|" in match["slash"] or match["bar"] or match["name"].endswith("|")
    core = _core(name)
    if core is not None:
        return Mark(start, end, _role(name, slash), f"<{core}")
    element = name.lower().partition(" ")[0]
    if element in CONTAINERS and not is_token:
        return _container_mark(match, element, slash)
    return _answer_token(match, name.lower()) if is_token else None


def _role(name: str, slash: bool) -> Role:
    return "close" if slash or END_WORDS & set(_words(name)) else "open"


def _container_mark(match: re.Match[str], family: str, slash: bool) -> Mark:
    """The mark of an element such as <details type="reasoning">, or of one that may end it."""
    start, end = match.span()
    if slash:
        return Mark(start, end, "close", family, needs_opening=True)
    values = re.findall(r"=[ ]{0,2}[\"']?([^\"'\n>]{1,80})", match["attributes"] or "")
    if any(names_thoughts(value.strip()) for value in values):
        return Mark(start, end, "open", family)
    return Mark(start, end, "open", family, needs_opening=True)


def _answer_token(match: re.Match[str], name: str) -> Mark | None:
    """The mark of a special token that begins or ends an answer, or ends a turn."""
    start, end = match.span()
    words = set(_words(name))
    if name == "content_thinking":
        return Mark(start, end, "open", "<think")
    if words & ANSWER_WORDS and words <= ANSWER_WORDS | BESIDE_ANSWER:
        return Mark(start, end, "around" if words & END_WORDS else "answer", "")
    return Mark(start, end, "around", "") if name in TURN_ENDS else None


def _square_mark(match: re.Match[str]) -> Mark | None:
    start, end = match.span()
    name = match["square"]
    words = _words(name)
    # "[thought-provoking]" is no mark.
    if words in (["begin", "final", "response"], ["end", "final", "response"]):
        return Mark(start, end, "around" if "end" in words else "answer", "")
    core = _core(name)
    if core is None or "-" in name:
        return None
    return Mark(start, end, _role(name, bool(match["square_slash"])), f"[{core}")


def _heading_marks(text: str, is_cut: bool) -> Iterator[Mark]:
    """Marks of thoughts that plain words begin at the start of a text."""
    heading = HEADING.match(text)
    if heading is not None:
        end = HEADING_END.search(text, heading.end())
        # Without its end the heading is that of a list of steps, or of a thought that was cut.
        if end is not None or is_cut:
            yield Mark(*heading.span(), "open", "heading", True)
        if end is not None and not end[0].startswith("["):
            yield Mark(*end.span(), "answer", "", True)
    bare = BARE_HARMONY.match(text)
    if bare is not None:
        yield Mark(*bare.span(), "open", "heading", True)


def _fence_marks(view: View) -> Iterator[Mark]:
    """Marks of fences such as ```thinking."""
    for fence in view.fences:
        name = FENCE_NAME.match(fence.info)
        if name is not None and names_thoughts(name[0]):
            yield Mark(fence.start, fence.inner_start, "open", "fence", True)
            if fence.is_closed:
                yield Mark(fence.inner_end, fence.end, "close", "fence", True)
