"""Texts of models as a page shows them: without their middle where they are long, and with all that
a reader cannot see spelled out.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """A text with its middle left out."""

    head: str
    left_out: int = 0
    """Characters; 0 where the text is complete and `tail` is empty."""
    tail: str = ""


class VisibleCharacters(dict[int, int | str]):
    """For `str.translate`: a character that a reader cannot see -> its number, as [U+202E]."""

    def __missing__(self, code: int) -> int | str:
        # Format characters (Cf) turn the reading direction, so that a text shows another; tags and
        # zero-width ones hide a text in a text. Zl and Zp break lines.
        character = chr(code)
        hidden = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")
        if hidden and character not in "\t\n\f\r":
            self[code] = f"[U+{code:04X}]"
        else:
            self[code] = code
        return self[code]


VISIBLE = VisibleCharacters()


def cut(text: str | None, longest: int) -> Cut:
    """The first two thirds and the last third of a text.

    Args:
        text: None is an empty text.
        longest: characters to keep, before hidden ones are spelled out.
    """
    text = text or ""
    if len(text) <= longest:
        return Cut(spell_out(text))
    # The tail stays, since answers stand at the end.
    head = text[: 2 * longest // 3]
    tail = text[-(longest // 3) :]
    left_out = len(text) - len(head) - len(tail)
    return Cut(spell_out(head), left_out, spell_out(tail))


def spell_out(text: str) -> str:
    """The text with the numbers of characters that cannot be seen."""
    return text.translate(VISIBLE)
