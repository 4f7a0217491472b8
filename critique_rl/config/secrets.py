"""Keys and passwords: refused where they would be stored, removed where a server quotes them.

A server, or a model that was told, may spell a key in many ways: reversed, in another case, in
base64, hex, percent or JSON escapes, broken by spaces or line ends. A text is therefore compared by
its letters and digits alone, as written and with its escapes decoded. Each step takes time linear
in the text.
"""

from __future__ import annotations

import base64
import codecs
import html
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

HIDDEN = "***"
MIN_KEY_LENGTH = 8
"""A shorter key is a placeholder such as "none" or "EMPTY", a word that texts may use."""
MIN_WORDS_LENGTH = 12
"""Letters of a key without digits from which its spellings are removed too: "not-needed", which
local servers take, must not be match in "is not needed".
"""
PASSES = 4
"""Removals from one text: what is left on both sides of a key may be one too."""
FAMILIES = (
    r"%[0-9a-f]{2}",
    r"\\u\{[0-9a-f]{1,6}\}|\\u[0-9a-f]{4}|\\x[0-9a-f]{2}|\\[0-7]{3}",
    r"&#?\w{1,31};",
    r"u\+[0-9a-f]{4}|0x[0-9a-f]{2}(?![0-9a-f])",
    r"=[0-9a-f]{2}",
)
"""Escapes of URLs, of JSON and programs, of HTML, numbers of characters, escapes of mails."""
ESCAPES = [re.compile(family, re.IGNORECASE) for family in (*FAMILIES, "|".join(FAMILIES))]
"""Each family by itself, since a key may look like an escape of another one; then all."""
LEAST_PART = 4
"""Letters that the beginning of a key at the end of a text has at least."""
LONGEST_CUT_ESCAPE = 8
LONGEST_END = 2000
"""Characters at the end of a text that a cut key may take."""
DEPTH = 3
"""Rounds of decoding: an escape may be escaped."""
NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
SECRET_NAMES = re.compile(
    r"(?:x[-_]?)?(?:api[-_]?key|apikey|authorization|password|passwd|secret|client[-_]?secret"
    r"|secret[-_]?key|access[-_]?key|private[-_]?key|access[-_]?token|auth[-_]?token"
    r"|bearer[-_]?token|api[-_]?token|hf[-_]?token|token|use_auth_token)",
    re.IGNORECASE,
)
"""Names of settings whose text is a secret."""
SECRET_VARIABLES = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
QUERY_SECRETS = re.compile(
    r"key|token|secret|password|pwd|sig|signature|auth|credential", re.IGNORECASE
)
URL_PASSWORD = re.compile(r"(?<=://)[^\s/@?#'\"]{1,500}@")
QUERY_VALUE = re.compile(
    r"(?<=[?&;])([\w.-]{0,40}(?:key|token|secret|password|pwd|sig|auth)[\w.-]{0,40}=)[^\s&;#'\"]+",
    re.IGNORECASE,
)
KEY_SHAPE = re.compile(
    r"(?<![\w-])(?:(?:sk|pk|rk|hf|gsk|xai|nvapi|r8|gh[opsu]|github_pat|glpat|xox[abprs])[-_]"
    r"|AIza|AKIA|eyJ)[\w.-]{12,500}",
    re.ASCII,
)
"""Keys of well-known services, by how they begin."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
LONGEST_WORD = 16
"""Letters of one word in a variable's name; a key has longer ones."""


# ---- settings ------------------------------------------------------------------------------------


def refuse_secrets(value: Any, where: str = "") -> None:
    """Refuse settings that hold a secret. They are stored with each run.

    Args:
        value: settings as read from YAML, nested in any way.
        where: dotted place of `value`.

    Raises:
        ValueError: with the place, and without the secret.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            place = f"{where}.{key}" if where else str(key)
            fault = _setting_fault(str(key), item)
            if fault:
                raise ValueError(f"{without_secrets(place)}: {fault}")
            refuse_secrets(item, place)
    elif isinstance(value, list | tuple):
        for item in value:
            refuse_secrets(item, where)
    elif isinstance(value, str) and address_fault(value):
        raise ValueError(f"{without_secrets(where)}: {address_fault(value)}")


def _setting_fault(name: str, value: Any) -> str:
    if name == "api_key_env":
        return variable_fault(value)
    if name == "base_url" and isinstance(value, str):
        return base_url_fault(value)
    if isinstance(value, str) and value.strip() and SECRET_NAMES.fullmatch(name):
        return (
            "got a text that would be stored with the run; give secrets in environment variables, "
            "and to an api critic the variable's name as api_key_env"
        )
    return ""


def variable_fault(name: object) -> str:
    """Why a text is no name of an environment variable, without the text; "" if it may be one."""
    expected = "expected the name of an environment variable, such as OPENAI_API_KEY"
    if not isinstance(name, str) or not VARIABLE.fullmatch(name):
        return f"api_key_env: got something else (not shown: it may be a key), {expected}"
    # A key of letters and digits looks like a name, but for its length and mix.
    words = name.split("_")
    is_mixed = re.search("[a-z]", name) and re.search("[A-Z]", name) and re.search("[0-9]", name)
    looks_like_key = is_mixed or max(map(len, words)) > LONGEST_WORD or KEY_SHAPE.fullmatch(name)
    if looks_like_key and name not in os.environ:
        return f"api_key_env: got what looks like a key (not shown), {expected}"
    return ""


def base_url_fault(address: str) -> str:
    """Why an endpoint's address must not be stored, without its secret; "" if it may be."""
    part = ""
    if "@" in address or "?" in address:
        part = "a password or a query"
    elif "#" in address:
        part = "a fragment"
    elif without_secrets(address) != address:
        part = "a key"
    if not part:
        return ""
    return (
        f"got an address with {part}; "
        "give it without, and the key in the variable that api_key_env names"
    )


def address_fault(address: str) -> str:
    """Why an address must not be stored, without its secret; "" if it may be.

    Args:
        address: any text; what is no URL has no fault.
    """
    if "://" not in address[:32] and not address.startswith("//"):
        return ""
    try:
        parts = urlsplit(address.strip())
        names = [name for name, _ in parse_qsl(f"{parts.query}&{parts.fragment}")]
    except ValueError:
        return "got an address that cannot be read"
    if "@" in parts.netloc or any(QUERY_SECRETS.search(name) for name in names):
        return (
            "got an address with a password, a query or a fragment that may be a key (not shown); "
            "give it without, and a key in an environment variable"
        )
    return ""


# ---- output --------------------------------------------------------------------------------------


def without_secrets(text: str) -> str:
    """The text with "***" for values of secret variables, for passwords of addresses, and for what
    looks like a key of a well-known service.
    """
    for name, value in os.environ.items():
        if SECRET_VARIABLES.search(name) and len(value) >= MIN_WORDS_LENGTH and value in text:
            text = text.replace(value, HIDDEN)
    if "://" in text:
        text = URL_PASSWORD.sub(f"{HIDDEN}@", text)
        text = QUERY_VALUE.sub(rf"\1{HIDDEN}", text)
    return KEY_SHAPE.sub(_hide_key, text)


def _hide_key(match: re.Match[str]) -> str:
    word = match.group()
    # Names such as sk-learn-experiments are words.
    return HIDDEN if len(re.findall("[0-9]", word)) >= 3 else word


def without_key(text: str, key: str) -> str:
    """The text with "***" in place of each spelling of the key."""
    if len(key) < MIN_KEY_LENGTH:
        return text
    text = text.replace(key, HIDDEN)
    if not _is_strong(key):
        return text
    for _ in range(PASSES):
        spans = _key_spans(text, key)
        if not spans:
            return text
        text = _hide(text, spans)
    # A text that is made of keys says nothing else.
    return HIDDEN


def without_key_at_end(text: str, key: str) -> str:
    """The text with "***" in place of each spelling of the key, and of a part of one at its end.

    Args:
        text: a text that may have been cut anywhere.
        key: the key.
    """
    text = without_key(text, key)
    if len(key) < MIN_KEY_LENGTH or not _is_strong(key):
        return text
    start = len(text)
    for escapes in ESCAPES:
        for depth in range(DEPTH + 1):
            letters, places = _letters_with_places(text[-LONGEST_END:], escapes, depth)
            at = _start_of_part(letters, key)
            if at < len(letters):
                start = min(start, max(0, len(text) - LONGEST_END) + places[at][0])
    return text if start == len(text) else text[:start] + HIDDEN


def _start_of_part(letters: str, key: str) -> int:
    """Where the beginning of a spelling of the key starts that a text ends with; else its end."""
    # The last letters may belong to an escape that was cut.
    most = min(LONGEST_CUT_ESCAPE, len(letters))
    ends = [letters[: len(letters) - cut] for cut in range(most)]
    start = len(letters)
    for spelling in _spellings(key):
        at = letters.find(spelling[:LEAST_PART])
        while at >= 0:
            if any(end[at:] and spelling.startswith(end[at:]) for end in ends):
                start = min(start, at)
                break
            at = letters.find(spelling[:LEAST_PART], at + 1)
    return start


def _is_strong(key: str) -> bool:
    letters = _squeeze(key)
    if len(letters) >= MIN_WORDS_LENGTH:
        return True
    has_both = re.search("[0-9]", letters) and re.search("[a-z]", letters)
    return len(letters) >= MIN_KEY_LENGTH and bool(has_both)


def _squeeze(text: str) -> str:
    """The letters and digits of a text alone, in lower case."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return NOT_ALPHANUMERIC.sub("", text.lower())


@lru_cache(maxsize=8)
def _spellings(key: str) -> frozenset[str]:
    """How a key may be spelled, squeezed."""
    forward = [codecs.encode(key, "rot13"), *_encodings(key), *_numbers(key)]
    backward = [spelling[::-1] for spelling in forward]
    spellings = {_squeeze(spelling) for spelling in [*forward, *backward, *_encodings(key[::-1])]}
    return frozenset(spelling for spelling in spellings if len(spelling) >= MIN_KEY_LENGTH)


def _encodings(word: str) -> Iterator[str]:
    yield word
    for encoding in ("utf-8", "utf-16-le"):
        data = word.encode(encoding, errors="replace")
        yield data.hex()
        for prefix in range(3):
            yield _middle(base64.b64encode(bytes(prefix) + data), prefix, len(data), 6)


def _numbers(word: str) -> Iterator[str]:
    data = word.encode(errors="replace")
    yield "".join(str(byte) for byte in data)
    yield "".join(f"{byte:03o}" for byte in data)
    yield "".join(f"{byte:08b}" for byte in data)
    for prefix in range(5):
        yield _middle(base64.b32encode(bytes(prefix) + data), prefix, len(data), 5)


def _middle(encoded: bytes, prefix: int, length: int, bits: int) -> str:
    """The characters that depend on the data alone, whatever stands around it."""
    first = -(-8 * prefix // bits)
    return encoded[first : 8 * (prefix + length) // bits].decode()


def _key_spans(text: str, key: str) -> list[tuple[int, int]]:
    spans = _spans_after(text, key, ESCAPES[0], 0)
    for escapes in ESCAPES:
        view = text
        for depth in range(1, DEPTH + 1):
            decoded = escapes.sub(_decode, view)
            if decoded == view:
                break
            view = decoded
            letters = _squeeze(view)
            if any(spelling in letters for spelling in _spellings(key)):
                spans += _spans_after(text, key, escapes, depth)
    return spans


def _decode(match: re.Match[str]) -> str:
    """The character of an escape; the escape itself if it is none."""
    escape = match.group()
    if escape.startswith("&"):
        return html.unescape(escape)
    if re.fullmatch(r"\\[0-7]{3}", escape):
        return chr(int(escape[1:], 8))
    # What remains of the prefix, such as 0x, \\u{ or U+, are no digits of a code.
    code = int(escape.lower().strip("%\\=ux+{}").removeprefix("0x"), 16)
    return chr(code) if code < 0x110000 else escape


def _spans_after(
    text: str, key: str, escapes: re.Pattern[str], depth: int
) -> list[tuple[int, int]]:
    """Where spellings of the key stand in a text, after `depth` rounds of decoding."""
    spellings = _spellings(key)
    if depth == 0:
        # The quick way to nothing: most texts hold no key.
        letters_of_text = _squeeze(text)
        spellings = frozenset(word for word in spellings if word in letters_of_text)
        if not spellings:
            return []
    joined, places = _letters_with_places(text, escapes, depth)
    spans = []
    for spelling in spellings:
        at = joined.find(spelling)
        while at >= 0:
            last = at + len(spelling)
            spans.append((places[at][0], places[last - 1][1]))
            at = joined.find(spelling, last)
    return spans


def _letters_with_places(
    text: str, escapes: re.Pattern[str], depth: int
) -> tuple[str, list[tuple[int, int]]]:
    """The letters of a text after `depth` rounds of decoding, and where each stands in it."""
    characters = [(character, i, i + 1) for i, character in enumerate(text)]
    for _ in range(depth):
        characters = _decode_with_places(characters, escapes)
    letters: list[str] = []
    places: list[tuple[int, int]] = []
    for character, start, end in characters:
        for letter in _squeeze(character):
            letters.append(letter)
            places.append((start, end))
    return "".join(letters), places


def _decode_with_places(
    characters: list[tuple[str, int, int]], escapes: re.Pattern[str]
) -> list[tuple[str, int, int]]:
    joined = "".join(character for character, _, _ in characters)
    decoded: list[tuple[str, int, int]] = []
    at = 0
    for match in escapes.finditer(joined):
        decoded += characters[at : match.start()]
        first = characters[match.start()]
        last = characters[match.end() - 1]
        start = first[1]
        end = last[2]
        decoded += [(character, start, end) for character in _decode(match)]
        at = match.end()
    return decoded + characters[at:]


def _hide(text: str, spans: list[tuple[int, int]]) -> str:
    parts = []
    at = 0
    for start, end in sorted(spans):
        if start >= at:
            parts += [text[at:start], HIDDEN]
        at = max(at, end)
    return "".join([*parts, text[at:]])
