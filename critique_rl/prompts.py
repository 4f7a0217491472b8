"""Templates of `prompts/`, one per file, filled by jinja2: the texts that models read.

Questions, attempts and critiques fill templates as data. The sandbox renders in one pass, so braces
and template syntax inside them stay text. `neutralise` removes control characters and breaks
special tokens, which a chat template would turn into the end of a turn. The filter `fence` breaks
the marks that a template puts around a field.

Templates come from the folder beside the package in a checkout, and from the copy inside the
package in an installed wheel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound
from jinja2.meta import find_referenced_templates
from jinja2.sandbox import SandboxedEnvironment

HERE = Path(__file__).parent
FOLDERS = (HERE.parent / "prompts", HERE / "_prompts")

LONGEST_TEXT = 1_000_000
"""Characters of the longest text of a model, a server or a user that is read: about 250,000 tokens,
twice the longest answer of today's models. A longer one is refused with that reason, or cut. Every
reader is linear and takes about a second here at most (tests/benchmarks/degenerate_text.py).
"""
TOO_LONG = f"over {LONGEST_TEXT:,} characters"
"""The reason of a refusal."""
# C0 and C1 but for tab and newline, zero-width marks, and marks that turn the direction of writing.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_MISTRAL = "INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK"
_BERT = "gMASK|MASK|CLS|SEP"
_TAGS = (
    "s|bos|eos|eod|pad|unk|mask|cls|sep|sop|eop|think|thinking|tool_call|tool_response"
    r"|(?:start|end)_of_\w{1,20}|endoftext|user|assistant|system|policy|end"
)
SPECIAL = re.compile(
    r"<\|[^<>|\n]{1,60}\|>"
    r"|<\|\w{1,40}>"
    r"|<\w{1,40}\|>"
    r"|<\uff5c[^<>\uff5c\n]{1,60}\uff5c>"
    r"|<</?SYS>>"
    r"|<seed:\w{1,20}>"
    r"|\]~\w{0,8}\]"
    rf"|\[/?(?:{_MISTRAL}|{_BERT})\]"
    rf"|</?(?:{_TAGS})>",
    re.IGNORECASE,
)
"""Spellings of special tokens in the tokenizers in use: ChatML, Llama 2 and 3, DeepSeek, Gemma,
Mistral, Seed, MiniMax, BERT, reasoning models, the lab.
"""
UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef"
)
"""Invisible characters, as ranges of a character class. They stay between letters, because joiners
make words in some scripts. A mark of a prompt is recognised with or without them.
"""
# Characters that look like "<" and "/": a model takes them for the marks of a prompt.
OPENING = "<\uff1c\u2039\u2329\u3008\u27e8\ufe64\u276c\u276e\u2770\u02c2"
SLASH = "/\\\\\uff0f\u2215\u2044\u29f8"


def is_blank(text: str) -> bool:
    """True if nothing of the text is visible."""
    return not re.sub(rf"[\s{UNSEEN}]", "", clean(text))


def clean(text: str) -> str:
    """Text without control characters and half surrogates, which files and servers refuse.

    One of over `LONGEST_TEXT` characters is shortened to its two ends, with a marked gap between.
    """
    text = cut(text, LONGEST_TEXT)
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return CONTROL.sub("", lines).encode("utf-8", "replace").decode()


def neutralise(text: str, specials: Sequence[str] = ()) -> str:
    """Clean text whose special tokens are broken by a space after their first character.

    Args:
        text: text of a question, an attempt or a critique.
        specials: further special tokens, those of a known tokenizer.
    """
    text = SPECIAL.sub(_break_token, clean(text))
    # One character cannot be broken in two.
    breakable = tuple(token for token in specials if len(token) > 1)
    if not breakable:
        return text
    return _any_of(breakable).sub(r"\1 ", text)


@cache
def _any_of(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """The first character of any token, also of one that begins inside another.

    Tokens share their beginnings in the pattern: a tokenizer may have thousands of them, and a text
    of nothing but "<" would else be compared with each at every place.
    """
    tree = _branches(sorted(set(tokens)))
    return re.compile(f"(?={tree})(.)", re.DOTALL)


def _branches(tokens: Sequence[str]) -> str:
    """A pattern that finds the beginning of any of some sorted tokens."""
    pairs = zip(tokens[0], tokens[-1], strict=False)
    # The first and the last of sorted texts share what all share.
    equal = takewhile(lambda pair: pair[0] == pair[1], pairs)
    start = "".join(letter for letter, _ in equal)
    by_letter: dict[str, list[str]] = {}
    for token in tokens:
        rest = token[len(start) :]
        by_letter.setdefault(rest[:1], []).append(rest)
    if "" in by_letter:
        # One of them ends here, so longer ones need no look.
        return re.escape(start)
    branches = "|".join(_branches(group) for group in by_letter.values())
    return f"{re.escape(start)}(?:{branches})"


def _break_token(match: re.Match[str]) -> str:
    token = match[0]
    return f"{token[0]} {token[1:]}"


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that a tokenizer of transformers reads as special tokens."""
    added = tokenizer.added_tokens_decoder.values()
    return tuple(token.content for token in added if token.special)


def fence(text: str, *tags: str) -> str:
    """Text without any <tag> or </tag>, in whatever spelling, so that only the prompt has marks.

    Args:
        text: text of a field.
        tags: names of the marks in lower case, such as "attempt".

    Returns:
        The text; the opening bracket of each mark in it has become "(".
    """
    names = "|".join(_spellings(tag) for tag in tags)
    mark = rf"[{OPENING}](?=[\s{SLASH}{UNSEEN}]*(?:{names})(?!\w))"
    return re.sub(mark, "(", text, flags=re.IGNORECASE)


def _spellings(tag: str) -> str:
    """A pattern of a tag's spellings: letters of normal or full width, invisible ones between."""
    # Letters of full width are other characters; IGNORECASE folds their capitals too.
    letters = [f"[{letter}{chr(ord(letter) + 0xFEE0)}]" for letter in tag]
    return f"[{UNSEEN}]*".join(letters)


def cut(text: str, longest: int) -> str:
    """Shorten a text to its two ends.

    Args:
        text: any text.
        longest: characters to keep at most.

    Returns:
        The text, if it is no longer than that. Else its start (three fifths of `longest`) and its
        end (two fifths), with a marked gap between.
    """
    if len(text) <= longest:
        return text
    head = longest * 3 // 5
    tail = longest - head
    gap = f"[... {len(text) - longest} characters left out ...]"
    # Counted from the front: text[-tail:] would be the complete text where tail is 0.
    return f"{text[:head]}\n{gap}\n{text[len(text) - tail :]}"


@cache
def _environment() -> SandboxedEnvironment:
    # autoescape stays off: models read plain text, and pages escape model text themselves.
    environment = SandboxedEnvironment(
        loader=FileSystemLoader([str(folder) for folder in FOLDERS]),
        undefined=StrictUndefined,
        keep_trailing_newline=False,
    )
    environment.filters["fence"] = fence
    return environment


def template_names() -> list[str]:
    """Names of all templates."""
    names = set()
    for folder in FOLDERS:
        for path in folder.rglob("*.jinja"):
            names.add(str(path.relative_to(folder).with_suffix("")))
    return sorted(names)


def template_sources(name: str) -> dict[str, str]:
    """The texts of a template and of all that it includes, by name; {} where there is none."""
    environment = _environment()
    sources: dict[str, str] = {}
    waiting = [f"{name}.jinja"]
    while waiting:
        file = waiting.pop()
        if file in sources:
            continue
        try:
            text, _, _ = FileSystemLoader(FOLDERS).get_source(environment, file)
            included = find_referenced_templates(environment.parse(text))
        except TemplateError:
            # Filling it will tell.
            continue
        sources[file] = text
        waiting += [inner for inner in included if inner]
    return {file.removesuffix(".jinja"): text for file, text in sources.items()}


def render(name: str, specials: Sequence[str] = (), **fields: str | list[str]) -> str:
    """Fill the template `prompts/<name>.jinja`.

    Args:
        name: name of the template, without its suffix.
        specials: special tokens of the reader's tokenizer, broken in all fields.
        fields: the template's fields; each text is neutralised.

    Raises:
        ValueError: there is no such template.
        jinja2.UndefinedError: the template needs a field that is missing.
    """
    data: dict[str, str | list[str]] = {}
    for key, value in fields.items():
        if isinstance(value, list):
            data[key] = [neutralise(item, specials) for item in value]
        else:
            data[key] = neutralise(value, specials)
    try:
        template = _environment().get_template(f"{name}.jinja")
    except TemplateNotFound as error:
        raise ValueError(
            f"no prompt template {name!r} in {FOLDERS[0]}; there are: {', '.join(template_names())}"
        ) from error
    return template.render(**data)
