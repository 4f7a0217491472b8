"""An answer without its model's thoughts, in one pass, however the model marks them.

    <think>...</think>                     also thinking, thought, reasoning, with a namespace
                                           (<seed:think>), in square brackets, or as &lt;think&gt;
    <|begin_of_thought|>...                special tokens of several families
    <|channel|>analysis<|message|>...      Harmony: only the channel `final` is an answer
    analysis...assistantfinal...           Harmony whose special tokens the server left out
    Here is my thought process: ...        Granite

Where it is unclear what is a thought, the text after the mark is dropped, and an answer of which
nothing is left counts as no answer. Left out: thoughts without a mark, which only a model knows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from critique_rl.prompts import LONGEST_TEXT

# Repetitions are bounded, and every alternative begins with its own sign: a pass is linear.
_TAG = (
    r"think(?:ing)?|thoughts?(?:_process)?|reasoning|antthinking|scratchpad|(?:inner|internal)"
    r"_(?:monologue|thoughts?)"
)
_OPENING = r"(?:<|&lt;|\\u003c)"
_CLOSING = r"(?:>|&gt;|\\u003e)"
MARK = re.compile(
    rf"{_OPENING}[ \t|]{{0,3}}(?P<slash>/?)[ \t]{{0,3}}(?:\w{{1,20}}:)?(?P<tag>{_TAG})"
    rf"(?:[ \t][^<>\n]{{0,80}}|\|)?{_CLOSING}"
    r"|\[(?P<square_slash>/?)(?P<square>THINK(?:ING)?)\]"
    r"|\u25c1(?P<wedge_slash>/?)(?P<wedge>think(?:ing)?)\u25b7"
    r"|<\|channel>(?:thought|analysis)|<unused94>(?:thought)?"
    r"|<\|?\w{6,40}\|?>",
    re.IGNORECASE,
)
"""A mark of thoughts, or a special token that may be one (`_token_role`)."""
Role = Literal["open", "close", "around"]
TOKENS: dict[str, tuple[Role, str]] = {
    # Apertus, Gemma 4, MedGemma.
    "<|inner_prefix|>": ("open", "inner"),
    "<|inner_suffix|>": ("close", "inner"),
    "<|channel>thought": ("open", "channel"),
    "<|channel>analysis": ("open", "channel"),
    "<channel|>": ("close", "channel"),
    "<unused94>": ("open", "unused"),
    "<unused94>thought": ("open", "unused"),
    "<unused95>": ("close", "unused"),
}
"""Special token in lower case -> what it does, and its family."""
THOUGHT_WORDS = frozenset(("think", "thinking", "thought", "thoughts", "reasoning"))
ANSWER_WORDS = frozenset(("solution", "response", "answer"))
START_WORDS = frozenset(("begin", "start"))
END_WORDS = frozenset(("end", "stop"))
"""Words of special tokens such as <|begin_of_thought|>, <|END_THINKING|>, <|start_of_solution|>."""
HARMONY = re.compile(r"<\|(start|channel|message|end|return|call)\|>")
HARMONY_START = re.compile(r"\s{0,9}(?:<\|start\|>\w{0,20})?<\|channel\|>")
HARMONY_HEADER = re.compile(r"<\|channel\|>\s{0,9}\w{1,20}[^\n]{0,200}?<\|message\|>")
FINAL = re.compile(r"final(?!\w)")
BARE_ANALYSIS = re.compile(r"\s{0,9}(?:analysis|commentary)(?=[^\W_]|[\"'<])")
BARE_FINAL = "assistantfinal"
GRANITE_START = re.compile(r"\s{0,9}here(?:'s| is) my thought process:", re.IGNORECASE)
GRANITE_END = re.compile(r"here(?:'s| is) my response:", re.IGNORECASE)
PROMPT_TAIL = 24
"""Tokens at the end of a prompt in which a chat template may open the thoughts."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A mark of thoughts in a text."""

    start: int
    end: int
    role: Role
    family: str
    """A thought ends at the first closing mark of its own family."""
    is_tag: bool
    """Whether it is a tag in words, of which a critique may speak."""


def without_thinking(text: str) -> str:
    """The text of an answer without its thoughts.

    Returns:
        The rest, without white space around it, never longer than the text. "" where nothing else
        is left: the answer was cut while the model thought, it is longer than `LONGEST_TEXT`, or
        what is left would hold thoughts again.
    """
    return _answer(text, may_mention=True)


def _answer(text: str, may_mention: bool) -> str:
    """As `without_thinking`. May the text speak of a tag that nothing closes?"""
    if len(text) > LONGEST_TEXT:
        return ""
    answer = _strip_thoughts(text, may_mention)
    # Two halves of a mark may meet where a thought was between them.
    if _strip_thoughts(answer, may_mention) != answer:
        return ""
    return answer


def _strip_thoughts(text: str, may_mention: bool) -> str:
    text = _final_channel(text)
    text = _after_headings(text)
    return _without_marked(text, may_mention).strip()


def _final_channel(text: str) -> str:
    """The last message in Harmony's channel `final`; a text without channels as it is."""
    is_cut = HARMONY_START.match(text) is not None
    if not is_cut and HARMONY_HEADER.search(text) is None:
        return text
    final = ""
    header_start = None
    content_start = None
    channel = ""
    marks = [(match[1], match.start(), match.end()) for match in HARMONY.finditer(text)]
    for name, start, end in [*marks, ("end", len(text), len(text))]:
        if name == "message" and header_start is not None:
            channel = text[header_start:start].strip()
            header_start = None
            content_start = end
            continue
        if content_start is not None and FINAL.match(channel):
            # A message that was cut before its first word takes nothing away.
            final = text[content_start:start].strip() or final
        content_start = None
        header_start = end if name == "channel" else None
    return final


def _after_headings(text: str) -> str:
    """The answer after thoughts that plain words begin; "" where no word ends them."""
    if BARE_FINAL in text and text.lstrip().startswith(("analysis", "commentary")):
        return text.rpartition(BARE_FINAL)[2]
    if BARE_ANALYSIS.match(text):
        return ""
    if GRANITE_START.match(text):
        end = GRANITE_END.search(text)
        if end is None:
            return ""
        return text[end.end() :]
    return text


def _without_marked(text: str, may_mention: bool) -> str:
    """The text outside of the marked thoughts."""
    marks = find_marks(text)
    if not marks:
        return text
    ends = _closing_marks(marks)
    kept: list[str] = []
    position = 0
    for mark, end in zip(marks, ends, strict=True):
        if mark.start < position:
            continue
        kept.append(text[position : mark.start])
        position = mark.end
        if mark.role == "close":
            # Some chat templates open the thoughts in the prompt, so the answer only closes them.
            kept.clear()
        elif mark.role == "open" and end is not None:
            position = end
        elif mark.role == "open":
            if not (may_mention and _is_mention(mark, text, kept)):
                return "".join(kept)
            kept.append(text[mark.start : mark.end])
    kept.append(text[position:])
    return "".join(kept)


def find_marks(text: str) -> list[Mark]:
    """The marks of thoughts in a text, in order."""
    marks = []
    for match in MARK.finditer(text):
        tag = match["tag"] or match["square"] or match["wedge"]
        if tag is None:
            token = _token_role(match[0].lower())
            if token is not None:
                marks.append(Mark(match.start(), match.end(), *token, False))
            continue
        slash = match["slash"] or match["square_slash"] or match["wedge_slash"]
        role: Role = "close" if slash else "open"
        # "<think>" may end in "</thinking>".
        family = tag.lower().removesuffix("ing").removesuffix("s")
        is_tag = match["tag"] is not None
        marks.append(Mark(match.start(), match.end(), role, family, is_tag))
    return marks


def _token_role(token: str) -> tuple[Role, str] | None:
    """What a special token in lower case does, and its family; None for one of another meaning.

    Marks "around" an answer are removed alone.
    """
    if token in TOKENS:
        return TOKENS[token]
    words = set(token.strip("<|>").split("_"))
    if not words & (START_WORDS | END_WORDS):
        return None
    if words & THOUGHT_WORDS:
        if words & END_WORDS:
            return ("close", "token")
        return ("open", "token")
    if words & ANSWER_WORDS and token.startswith("<|"):
        return ("around", "")
    return None


def _closing_marks(marks: Sequence[Mark]) -> list[int | None]:
    """For each mark the end of the thought that it opens, None where none closes it.

    A thought ends at the next closing mark of its family, else at the next of any family.
    """
    next_ends: dict[str, int] = {}
    ends: list[int | None] = []
    next_end: int | None = None
    for mark in reversed(marks):
        if mark.role == "close":
            next_ends[mark.family] = mark.end
            next_end = mark.end
        ends.append(next_ends.get(mark.family, next_end))
    ends.reverse()
    return ends


def _is_mention(mark: Mark, text: str, kept: Sequence[str]) -> bool:
    """Whether a critique speaks of a tag that nothing closes: "write a <think> tag".

    Words stand before it on its line, and a space or a sign after it. Any other mark opens thoughts
    that were cut.
    """
    if not mark.is_tag:
        return False
    follower = text[mark.end : mark.end + 1]
    if follower.isalnum() or follower == "\n":
        return False
    for part in reversed(kept):
        _, newline, line = part.rpartition("\n")
        if line.strip():
            return True
        if newline:
            return False
    return False


# ---- models in this process ----------------------------------------------------------------------


def sampled_answer(tokenizer: Any, prompt_ids: Sequence[int], ids: Sequence[int], text: str) -> str:
    """The answer of a model in this process without its thoughts.

    Special tokens are left out of its text, and with them the marks of thoughts that are such. A
    template that opens the thoughts in the prompt leaves an answer that was cut while the model
    thought without any mark.

    Args:
        tokenizer: the model's.
        prompt_ids: tokens of the prompt.
        ids: tokens of the answer.
        text: the answer as rewards read it.
    """
    # Any: transformers annotates a list of texts too.
    marked: Any = tokenizer.decode(list(ids))
    prompt_end: Any = tokenizer.decode(list(prompt_ids[-PROMPT_TAIL:]))
    marked = opened_mark(prompt_end) + marked
    has_marks = bool(find_marks(marked)) or HARMONY_START.match(marked) is not None
    if not has_marks and HARMONY_HEADER.search(marked) is None:
        return without_thinking(text)
    special_ids = set(ids) & set(tokenizer.all_special_ids)
    specials = [tokenizer.decode([token]) for token in special_ids]
    # A mark that is a token of its own is no word of a critique.
    answer = _answer(marked, may_mention=not any(map(find_marks, specials)))
    for special in specials:
        answer = answer.replace(special, "")
    return answer.strip()


def opened_mark(prompt_end: str) -> str:
    """The mark by which a prompt's end opens the thoughts of its answer; "" where it opens none."""
    marks = find_marks(prompt_end)
    if marks and marks[-1].role == "open":
        last = marks[-1]
        if not prompt_end[last.end :].strip():
            return prompt_end[last.start : last.end]
    header = HARMONY_HEADER.search(prompt_end)
    if header is not None and not prompt_end[header.end() :].strip():
        return header[0]
    return ""
