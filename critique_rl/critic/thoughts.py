"""An answer without its model's thoughts, in one pass, however the model marks them.

`thought_marks` has the marks. Where a mark stands decides what it is:

    structure   it begins or ends a line or a sentence, or touches the text that it marks
    mention     it is in code or quotation marks, or a word of a sentence ("close the <think> tag")
    unclear     anything else

Thoughts between marks of structure are removed. An answer that would need a guess is refused with
a reason of its own, so no text is lost in silence and no thought is taken for a critique. Left out:
thoughts without a mark, which only a model knows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from critique_rl.critic.text_view import DECORATION, WINDOW, View, view_of
from critique_rl.critic.thought_marks import Mark, find_marks
from critique_rl.prompts import LONGEST_TEXT, TOO_LONG

UNCLEAR_THOUGHTS = "unclear_thoughts"
"""The reason of an answer in which nobody can tell thoughts from critique."""
Grade = Literal["structure", "unclear", "word", "mention"]
"""What a mark is by its place. word: it stands as a word in a sentence, without a further sign."""
NOUN = re.compile(
    r" (?:tags?|tokens?|markers?|marks?|blocks?|delimiters?|brackets?|elements?|headers?|sections?"
    r"|symbols?|pairs?|markup|fences?|labels?|strings?|spans?)\b|-[a-zA-Z]"
    r"|[ ]?(?:\u6807\u7b7e|\u6807\u8bb0|\u7b26\u53f7|\u30bf\u30b0|\u6a19\u7c64|\ud0dc\uadf8)"
)
"""What follows a mark that is spoken of: "the <think> tag", also in Chinese, Japanese, Korean."""
PUNCTUATION = re.compile(r"(?!\.\.)[,.;:!?)\]|]+(?=\s|$)")
BEGINS_CLAUSE = re.compile(
    r" (?:let|so|ok|okay|hmm|wait|we|i|first|the|now|maybe|this|it|alright|well|they|you)\b"
)
"""Words that begin a thought or an answer even in lower case."""
BEFORE_MENTION = re.compile(
    r"\b(?:an?|the|your|no|of|in|with|without|by|is|are|was|lacks?|lacking|missing|misses|needs?"
    r"|wants?|forg[eo]ts?|forgotten|omits?|omitted|writes?|wrote|written|adds?|added|uses?|used"
    r"|using|close|closing|or|and|not|never|expected|expects?|prints?|after|before|inside|until"
    r"|to|from|named|called|has|have|had|for|tag|token|mark)$",
    re.IGNORECASE,
)
"""The last word before a mark that ends a text and is spoken of: "the answer lacks </think>"."""
SENTENCE_ENDS = ".!?>]\u2026\u3002\uff01\uff1f"
LIST_ITEM = re.compile(r"(?:>[ \t]?)*(?:[-+\u2022]|\d{1,3}[.)])?[ \t]*")
TURN_HEADER = re.compile(r"<\|\w{1,20}\|>\w{1,20}$")
HARMONY = re.compile(r"<\|(start|channel|message|end|return|call)\|>")
HARMONY_START = re.compile(r"\s{0,9}(?:<\|start\|>\w{0,20})?<\|channel\|>")
HARMONY_HEADER = re.compile(
    r"(?:<\|start\|>\w{0,20}\s{0,3})?<\|channel\|>\s{0,9}\w{1,20}[^\n]{0,200}?<\|message\|>"
)
FINAL = re.compile(r"final(?!\w)")
PROMPT_TAIL = 24
"""Tokens at the end of a prompt in which a chat template may open the thoughts."""


@dataclass(frozen=True)
class Cleaned:
    """An answer without its thoughts."""

    text: str
    """The rest, without white space around it; "" where nothing is left or it is refused."""
    reason: str = ""
    """Why it is refused: "length", "unclear_thoughts", or over the longest text."""


def without_thinking(text: str, is_cut: bool = False) -> str:
    """The text of an answer without its thoughts.

    Args:
        text: the answer.
        is_cut: whether it met its longest length.

    Returns:
        The rest, without white space around it, never longer than the text. "" where nothing else
        is left, or where it is refused (`clean_answer` has the reason).
    """
    return clean_answer(text, is_cut).text


def clean_answer(text: str, is_cut: bool = False, specials: Collection[str] = ()) -> Cleaned:
    """An answer without its thoughts, or the reason why it is refused.

    Args:
        text: the answer.
        is_cut: whether it met its longest length.
        specials: special tokens among the answer's tokens. A mark that is one is no word.
    """
    if len(text) > LONGEST_TEXT:
        return Cleaned("", TOO_LONG)
    answer = _remove_thoughts(text, is_cut, specials)
    # Two halves of a mark may meet where a thought was between them.
    if answer is not None and answer != text.strip():
        again = _remove_thoughts(answer, is_cut, specials)
        answer = answer if again == answer else None
    if answer is None:
        return Cleaned("", "length" if is_cut else UNCLEAR_THOUGHTS)
    return Cleaned(answer)


def _remove_thoughts(text: str, is_cut: bool, specials: Collection[str]) -> str | None:
    """The text outside of the thoughts; None where it is unclear."""
    view = view_of(text)
    final = _final_channel(view)
    if final is None:
        return None
    if final != (0, len(view.text)):
        text = text[view.origin_of_end(final[0]) : view.origin_of_start(final[1])]
        view = view_of(text)
    marks = find_marks(view, is_cut)
    if not marks:
        return text.strip()
    scan = _Scan(text, view, is_cut, specials)
    scan.read(marks)
    return scan.answer()


# ---- channels of Harmony -------------------------------------------------------------------------


def _final_channel(view: View) -> tuple[int, int] | None:
    """Where the last message in Harmony's channel `final` stands; all of a text without channels.

    Returns:
        None where it is unclear whether the text has channels or speaks of them.
    """
    grade = _header_grade(view)
    if grade == "unclear" or (grade is None and HARMONY_START.match(view.text)):
        return None
    if grade is None:
        return 0, len(view.text)
    return _final_message(view.text)


def _header_grade(view: View) -> Grade | None:
    """How the first header stands of which the text does not speak; None where there is none."""
    for match in HARMONY_HEADER.finditer(view.text):
        grade = grade_opening(view, *match.span())
        if grade in ("structure", "unclear"):
            return grade
    return None


def _final_message(text: str) -> tuple[int, int]:
    """Where the last message in the channel `final` stands; (0, 0) where there is none."""
    final = (0, 0)
    header_start = None
    content_start = None
    channel = ""
    marks = []
    for match in HARMONY.finditer(text):
        marks.append((match[1], match.start(), match.end()))
    for name, start, end in [*marks, ("end", len(text), len(text))]:
        if name == "message" and header_start is not None:
            channel = text[header_start:start].strip()
            header_start = None
            content_start = end
            continue
        # A message that was cut before its first word takes nothing away.
        if content_start is not None and FINAL.match(channel) and text[content_start:start].strip():
            final = (content_start, start)
        content_start = None
        header_start = end if name == "channel" else None
    return final


# ---- where a mark stands -------------------------------------------------------------------------


def _quotes(view: View, start: int, end: int) -> Grade | None:
    """Whether code or quotation marks hold a mark; None where they don't."""
    i = bisect_right(view.quotations, (start, len(view.text))) - 1
    if i >= 0 and view.quotations[i][1] >= end:
        left, right = view.quotations[i]
        # An answer in quotation marks from its first letter is no quotation.
        is_answer = right - left > end - start + 20 and left <= view.visible[0]
        return "unclear" if is_answer else "mention"
    fences = view.fences
    i = bisect_right(fences, start, key=lambda fence: fence.start) - 1
    if i < 0 or not fences[i].is_closed or fences[i].end < end:
        return None
    is_first = fences[i].start <= view.visible[0]
    # A fence without an end: which ones are pairs cannot be known.
    is_sure = fences[i].is_sure and fences[-1].is_closed
    return "mention" if is_sure and not is_first else "unclear"


def left_of(view: View, start: int) -> str:
    """What stands before a mark on its line: start, item, sentence, colon, word, or glued."""
    line = view.line_before(start)
    before = LIST_ITEM.sub("", line, count=1).strip(DECORATION)
    if not before:
        previous = view.text[max(0, start - WINDOW) : start - len(line)].rstrip()
        if previous.endswith((":", "\uff1a")):
            return "colon"
        return "item" if line.strip() else "start"
    if TURN_HEADER.search(before):
        return "start"
    last = before[-1]
    if last in SENTENCE_ENDS:
        return "sentence"
    if last in ":\uff1a":
        return "colon"
    is_glued = line.endswith(before) and last.isalnum() and last < "\u2e80"
    return "glued" if is_glued else "word"


def right_of(view: View, end: int) -> str:
    """What stands behind it on its line: nothing, end, noun, punctuation, glued, lower, clause."""
    rest = view.text[end : end + WINDOW].partition("\n")[0]
    if not rest.strip(DECORATION):
        return "end" if end < view.visible[1] else "nothing"
    if NOUN.match(rest):
        return "noun"
    if PUNCTUATION.match(rest) or rest.startswith(" |"):
        return "punctuation"
    if not rest[0].isspace():
        return "glued"
    spaced = " " + rest.strip(DECORATION)
    is_lower = spaced[1].islower() or spaced.startswith((" ..", " \u2026", " (", " =", " &"))
    return "lower" if is_lower and not BEGINS_CLAUSE.match(spaced) else "clause"


BEHIND_COLON: dict[str, Grade] = dict.fromkeys(
    ("end", "nothing", "glued", "lower", "clause"), "unclear"
)
"""Behind a colon stands an example, or the answer that the colon promises."""
OPENINGS: dict[str, dict[str, Grade]] = {
    "start": {"noun": "word", "punctuation": "word"},
    "item": {"noun": "word", "punctuation": "word"},
    "sentence": {"noun": "word", "punctuation": "word"},
    "colon": {**BEHIND_COLON, "noun": "word", "punctuation": "word"},
    "word": {
        "noun": "mention",
        "punctuation": "mention",
        "lower": "word",
        "nothing": "word",
        "end": "unclear",
        "glued": "unclear",
        "clause": "unclear",
    },
    "glued": {
        "noun": "mention",
        "punctuation": "mention",
        "lower": "word",
        "nothing": "word",
        "end": "unclear",
        "glued": "unclear",
        "clause": "unclear",
    },
}
"""What stands before a mark that opens -> what stands behind it -> its grade, else structure."""
CLOSINGS: dict[str, dict[str, Grade]] = {
    "start": {"noun": "word", "punctuation": "unclear", "lower": "unclear"},
    "item": {"noun": "mention", "punctuation": "mention", "lower": "unclear"},
    "sentence": {"noun": "mention", "punctuation": "unclear", "lower": "unclear"},
    "colon": {**BEHIND_COLON, "noun": "mention", "punctuation": "mention"},
    "word": {
        "noun": "mention",
        "punctuation": "mention",
        "lower": "word",
        "nothing": "unclear",
        "end": "unclear",
        "glued": "unclear",
        "clause": "unclear",
    },
    "glued": {"noun": "mention", "punctuation": "unclear", "lower": "unclear"},
}
"""The same for a mark that closes, and for one that begins the answer."""


def grade_opening(view: View, start: int, end: int) -> Grade:
    """What a mark that opens thoughts is by its place."""
    quoted = _quotes(view, start, end)
    if quoted is not None:
        return quoted
    return OPENINGS[left_of(view, start)].get(right_of(view, end), "structure")


def grade_closing(view: View, start: int, end: int) -> Grade:
    """What a mark that ends thoughts is by its place."""
    quoted = _quotes(view, start, end)
    if quoted is not None:
        return quoted
    left = left_of(view, start)
    right = right_of(view, end)
    if left == "word" and right == "nothing":
        before = view.line_before(start).rstrip(DECORATION)
        return "mention" if BEFORE_MENTION.search(before) else "unclear"
    return CLOSINGS[left].get(right, "structure")


# ---- one pass over the marks ---------------------------------------------------------------------


class _Scan:
    """Reads the marks of a text in order and keeps what is outside of the thoughts."""

    def __init__(self, text: str, view: View, is_cut: bool, specials: Collection[str]):
        self.text = text
        self.view = view
        self.is_cut = is_cut
        self.specials = specials
        self.kept: list[str] = []
        self.position = 0
        """Where the text goes on that is kept, in the plain form."""
        self.opening: Mark | None = None
        """The mark of the thought that is open."""
        self.depth = 0
        self.is_plain = True
        """Whether no mark stands in the thought that is open."""
        self.is_unclear = False
        self.speaks_of_marks = False
        """Whether an opening mark stood as a word that no closing mark has followed."""
        self.closings: Counter[str] = Counter()
        """Family -> closing marks that are still to come."""

    def read(self, marks: Sequence[Mark]) -> None:
        """Read all marks."""
        self.closings.update(mark.family for mark in marks if mark.role == "close")
        for mark in marks:
            if mark.role == "close":
                self.closings[mark.family] -= 1
            if mark.start < self.position:
                continue
            if self.opening is None:
                self._read_outside(mark)
            else:
                self._read_inside(mark)

    def answer(self) -> str | None:
        """What is left; None where it is unclear."""
        if self.opening is not None and not self._is_special(self.opening):
            return "" if self._is_thought_alone(self.opening) else None
        if self.opening is None:
            self._keep(None)
        if self.is_unclear or (self.speaks_of_marks and self.is_cut):
            return None
        return "".join(self.kept).strip()

    def _is_thought_alone(self, opening: Mark) -> bool:
        """Whether the text is one thought without an end, and speaks of no mark."""
        is_first = opening.start <= self.view.visible[0]
        follows = right_of(self.view, opening.end)
        return is_first and self.is_plain and follows not in ("noun", "lower", "punctuation")

    def _read_outside(self, mark: Mark) -> None:
        grade = self._grade(mark)
        if mark.needs_opening:
            return
        if mark.role == "around":
            if grade == "structure":
                self._keep(mark.start)
                self.position = mark.end
        elif mark.role == "open":
            self._read_opening(mark, grade)
        elif grade in ("mention", "word"):
            self.speaks_of_marks = False
        elif self._follows_thought(mark):
            if mark.role == "answer":
                self.kept.clear()
            self.position = mark.end
        elif grade == "structure" and not self.speaks_of_marks:
            # Some chat templates open the thoughts in the prompt, so the answer only closes them.
            self.kept.clear()
            self.position = mark.end
        else:
            self.is_unclear = True

    def _follows_thought(self, mark: Mark) -> bool:
        """Whether nothing but white space stands between the last thought and a mark."""
        if not self.position or mark.start - self.position > 20:
            return False
        return not self.view.text[self.position : mark.start].strip()

    def _read_opening(self, mark: Mark, grade: Grade) -> None:
        if grade in ("mention", "word"):
            self.speaks_of_marks = self.speaks_of_marks or grade == "word"
            return
        self.is_unclear = self.is_unclear or grade == "unclear"
        self._keep(mark.start)
        self.opening = mark
        self.is_plain = True
        self.depth = 1
        self.position = mark.end

    def _read_inside(self, mark: Mark) -> None:
        """Count how deep the thought is, and end it."""
        opening = self.opening
        grade = self._grade(mark)
        if opening is None or mark.role == "around" or grade == "mention":
            return
        self.is_plain = False
        if mark.role == "answer":
            # The header of the turn before the thought is no part of the answer.
            self.kept.clear()
            self.depth = 0
        elif mark.role == "open":
            self.depth += mark.family == opening.family
        elif mark.family == opening.family or self._ends_other(mark, opening, grade):
            self.depth -= 1
        if self.depth == 0:
            self.opening = None
            self.position = mark.end

    def _ends_other(self, mark: Mark, opening: Mark, grade: Grade) -> bool:
        """Whether a closing mark of another family ends the thought, which its own never does."""
        is_awaited = self.closings[opening.family] > 0
        return grade == "structure" and not mark.needs_opening and not is_awaited

    def _grade(self, mark: Mark) -> Grade:
        if mark.is_certain or self._is_special(mark):
            return "structure"
        if mark.role == "open":
            return grade_opening(self.view, mark.start, mark.end)
        return grade_closing(self.view, mark.start, mark.end)

    def _is_special(self, mark: Mark) -> bool:
        return self.view.text[mark.start : mark.end] in self.specials

    def _keep(self, end: int | None) -> None:
        """Keep the text from the position up to a place in the plain form, or to its end."""
        # Invisible characters at the start stay, as they do in a text without marks.
        start = self.view.origin_of_end(self.position) if self.position else 0
        stop = len(self.text) if end is None else self.view.origin_of_start(end)
        self.kept.append(self.text[start:stop])


# ---- models in this process ----------------------------------------------------------------------


def sampled_answer(
    tokenizer: Any, prompt_ids: Sequence[int], ids: Sequence[int], text: str, is_cut: bool = False
) -> Cleaned:
    """The answer of a model in this process without its thoughts.

    Special tokens are left out of its text, and with them the marks of thoughts that are such. A
    template that opens the thoughts in the prompt leaves an answer that was cut while the model
    thought without any mark.

    Args:
        tokenizer: the model's.
        prompt_ids: tokens of the prompt.
        ids: tokens of the answer.
        text: the answer as rewards read it.
        is_cut: whether the answer met its longest length.
    """
    # Any: transformers annotates a list of texts too.
    marked: Any = tokenizer.decode(list(ids))
    prompt_end: Any = tokenizer.decode(list(prompt_ids[-PROMPT_TAIL:]))
    marked = opened_mark(prompt_end) + marked
    if not _has_marks(marked):
        return clean_answer(text, is_cut)
    special_ids = set(ids) & set(tokenizer.all_special_ids)
    specials = [tokenizer.decode([token]) for token in special_ids]
    cleaned = clean_answer(marked, is_cut, specials)
    answer = cleaned.text
    for special in specials:
        answer = answer.replace(special, "")
    return Cleaned(answer.strip(), cleaned.reason)


def _has_marks(text: str) -> bool:
    view = view_of(text)
    if HARMONY_START.match(view.text) or HARMONY_HEADER.search(view.text):
        return True
    return any(mark.role != "around" and not mark.needs_opening for mark in find_marks(view))


def opened_mark(prompt_end: str) -> str:
    """The mark by which a prompt's end opens the thoughts of its answer; "" where it opens none."""
    marks = find_marks(view_of(prompt_end))
    if marks and marks[-1].role == "open":
        last = marks[-1]
        if not prompt_end[last.end :].strip():
            return prompt_end[last.start : last.end]
    header = HARMONY_HEADER.search(prompt_end)
    if header is not None and not prompt_end[header.end() :].strip():
        return header[0]
    return ""
