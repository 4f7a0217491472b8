"""What models read: templates of `prompts/`, one a file, filled by jinja2.

Sandboxed, strict about missing names, and in one pass: braces or template syntax inside a question,
an attempt or a critique stay text. What fills a template is data: `neutralise` takes out control
characters and breaks special tokens, which a chat template would turn into the end of a turn; the
filter `fence` breaks the marks around it. The folder beside the package is used in a checkout, the
copy inside the package in an installed wheel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import FileSystemLoader, StrictUndefined, TemplateNotFound
from jinja2.sandbox import SandboxedEnvironment

HERE = Path(__file__).parent
FOLDERS = (HERE.parent / "prompts", HERE / "_prompts")

# C0 and C1 but for tab and newline, zero-width marks, and marks that turn the direction of writing.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
SPECIAL = re.compile(
    r"<\|[^<>|\n]{1,60}\|>|<\|\w{1,40}>|<\w{1,40}\|>|<\uff5c[^<>\uff5c\n]{1,60}\uff5c>|<</?SYS>>|<seed:\w{1,20}>|\]~\w{0,8}\]"
    r"|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|gMASK|MASK|CLS|SEP)\]"
    r"|</?(?:s|bos|eos|eod|pad|unk|mask|cls|sep|sop|eop|think|thinking|tool_call|tool_response|(?:start|end)_of_\w{1,20}|endoftext|user|assistant|system"
    r"|policy|end)>",
    re.IGNORECASE,
)
"""How the tokenizers in use write special tokens: ChatML, Llama 2 and 3, DeepSeek, Gemma, Mistral,
Seed, MiniMax, BERT, reasoning models, the lab.
"""
UNSEEN = "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef"
"""Characters that take no room. Between letters they stay (joiners make words in some scripts), but
a mark of a prompt is one with or without them.
"""
OPENING = "<\uff1c\u2039\u2329\u3008\u27e8\ufe64\u276c\u276e\u2770\u02c2"
SLASH = "/\\\\\uff0f\u2215\u2044\u29f8"


def is_blank(text: str) -> bool:
    """True where nothing of it can be seen."""
    return not re.sub(rf"[\s{UNSEEN}]", "", clean(text))


def clean(text: str) -> str:
    """Text without control characters and half surrogates, which no file and no server takes."""
    return (
        CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        .encode("utf-8", "replace")
        .decode()
    )


def neutralise(text: str, specials: Sequence[str] = ()) -> str:
    """`clean` text with every special token broken by a space after its first character; `specials`
    are those of a known tokenizer.
    """
    text = SPECIAL.sub(_broken, clean(text))
    exact = "|".join(
        re.escape(token) for token in sorted(specials, key=len, reverse=True) if len(token) > 1
    )
    return re.sub(exact, _broken, text) if exact else text


def _broken(match: re.Match) -> str:
    return f"{match[0][0]} {match[0][1:]}"


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """What a tokenizer of transformers would read as special tokens."""
    return tuple(
        token.content for token in tokenizer.added_tokens_decoder.values() if token.special
    )


def fence(text: str, *tags: str) -> str:
    """Text in which no <tag> or </tag> of a prompt stands, however spaced or written, so that the
    marks of the prompt are the only ones.
    """
    # Letters of full width are other characters; IGNORECASE folds their capitals too.
    wide = [
        f"[{UNSEEN}]*".join(f"[{letter}{chr(ord(letter) + 0xFEE0)}]" for letter in tag)
        for tag in tags
    ]
    return re.sub(
        rf"[{OPENING}](?=[\s{SLASH}{UNSEEN}]*(?:{'|'.join(wide)})(?!\w))",
        "(",
        text,
        flags=re.IGNORECASE,
    )


def cut(text: str, longest: int) -> str:
    """The first three fifths and the last two of `longest` characters, with a marked gap, where a
    text is longer than that.
    """
    if len(text) <= longest:
        return text
    head = longest * 3 // 5
    return f"{text[:head]}\n[... {len(text) - longest} characters left out ...]\n{text[len(text) - (longest - head) :]}"


@cache
def _environment() -> SandboxedEnvironment:
    # autoescape stays off: models read plain text; pages escape model text on their own.
    environment = SandboxedEnvironment(
        loader=FileSystemLoader([str(folder) for folder in FOLDERS]),
        undefined=StrictUndefined,
        keep_trailing_newline=False,
    )
    environment.filters["fence"] = fence
    return environment


def template_names() -> list[str]:
    """Names of all templates."""
    return sorted(
        {
            str(path.relative_to(folder).with_suffix(""))
            for folder in FOLDERS
            if folder.exists()
            for path in folder.rglob("*.jinja")
        }
    )


def render(name: str, specials: Sequence[str] = (), **fields: str | list[str]) -> str:
    """Fill the template `prompts/<name>.jinja` with neutral fields. ValueError if there is none;
    jinja2.UndefinedError if a field is missing.
    """
    data = {
        key: [neutralise(v, specials) for v in value]
        if isinstance(value, list)
        else neutralise(value, specials)
        for key, value in fields.items()
    }
    try:
        return _environment().get_template(f"{name}.jinja").render(**data)
    except TemplateNotFound as error:
        raise ValueError(
            f"no prompt template {name!r} in {FOLDERS[0]}; there are: {', '.join(template_names())}"
        ) from error
