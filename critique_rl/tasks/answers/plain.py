"""LaTeX, Markdown and typographic signs -> plain text: each form has one spelling."""

from __future__ import annotations

import re

DOLLAR = "\uff04"
"""A dollar sign that is a currency. All others are delimiters of LaTeX."""
DASHES = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"
SPACES = "\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000\t"
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
QUOTES = {"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\u00ab": '"', "\u00bb": '"'}
FULL_WIDTH = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code != 0xFF04}
CHARACTERS = {
    **{ord(dash): "-" for dash in DASHES},
    **{ord(space): " " for space in SPACES},
    **{ord(sign): None for sign in INVISIBLE},
    **{ord(quote): plain for quote, plain in QUOTES.items()},
    **FULL_WIDTH,
    0x3002: ".",
    0x2014: ", ",
    0x22C5: "\u00b7",
    0x2219: "\u00b7",
    0x00BA: "\u00b0",
    0x03BC: "\u00b5",
    0x221E: "\\infty ",
    0x03C0: "\\pi ",
    0x221A: "\\sqrt ",
    0x00B1: "\\pm ",
    0x2264: "\\le ",
    0x2265: "\\ge ",
    0x222A: "\\cup ",
    0x2208: "\\in ",
    0x2260: "\\ne ",
}
"""Code of a character -> its plain spelling."""
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
SUPERSCRIPT = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]{1,9}")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
SUBSCRIPT = re.compile("[₀₁₂₃₄₅₆₇₈₉]{1,3}")
VULGAR = {
    "½": "1/2",
    "⅓": "1/3",
    "⅔": "2/3",
    "¼": "1/4",
    "¾": "3/4",
    "⅕": "1/5",
    "⅖": "2/5",
    "⅗": "3/5",
    "⅘": "4/5",
    "⅙": "1/6",
    "⅚": "5/6",
    "⅛": "1/8",
    "⅜": "3/8",
    "⅝": "5/8",
    "⅞": "7/8",
}
VULGAR_FRACTION = re.compile(f"[{''.join(VULGAR)}]")

COMMANDS = (
    (re.compile(r"\\(?:left|right|bigg?[lr]?|Bigg?[lr]?)(?![A-Za-z])"), ""),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|rm|bf|it)(?![A-Za-z])"), ""),
    (re.compile(r"\\!"), ""),
    (re.compile(r"(?<!\\)\\[,;:> ]|(?<=[^\s\\(&|])~|\\q?quad(?![A-Za-z])|\\\n"), " "),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"\{\.\}"), "."),
    (re.compile(r"\\([%#&_])"), r"\1"),
    (re.compile(r"\^\s?(?:\{\s?\\circ\s?\}|\\circ(?![A-Za-z])|\{\s?\\degree\s?\})"), "\u00b0"),
    (re.compile(r"\\(?:degree|textdegree)(?![A-Za-z])(?:\{\})?"), "\u00b0"),
    (re.compile(r"\^\s?(?:\{\s?\\prime\s?\}|\\prime(?![A-Za-z]))"), "'"),
    (re.compile(r"\^\s?\{\s?\\prime\s?\\prime\s?\}"), "''"),
    (re.compile(r"\\times(?![A-Za-z])"), "\u00d7"),
    (re.compile(r"\\cdot(?![A-Za-z])"), "\u00b7"),
    (re.compile(r"\\approx(?![A-Za-z])|\\simeq(?![A-Za-z])|\u2248"), "\u2248"),
    (re.compile(r"\\[dtc]frac|\\nicefrac|\\sfrac"), r"\\frac"),
    (re.compile(r"\\leqs?l?a?n?t?(?![A-Za-z])"), r"\\le"),
    (re.compile(r"\\geqs?l?a?n?t?(?![A-Za-z])"), r"\\ge"),
    (re.compile(r"\\neq(?![A-Za-z])"), r"\\ne"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\lbrace"), r"\\{"),
    (re.compile(r"\\rbrace"), r"\\}"),
    (re.compile(r"\\(?:mu|micro)(?![A-Za-z])"), "\u00b5"),
    (re.compile(r"\\(?:Omega|ohm)(?![A-Za-z])"), "\u03a9"),
    (re.compile(r"\\(?:euro|texteuro)(?![A-Za-z])"), "\u20ac"),
    (re.compile(r"\\pounds(?![A-Za-z])"), "\u00a3"),
)
"""Commands of LaTeX -> their plain spelling."""
WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|tt|sf|up|normal)?|math(?:bf|it|rm|sf|tt|normal)|mbox|hbox|emph|boldsymbol"
    r"|bm|underline|operatorname\*?|boxed|fbox|unit|ensuremath)\s{0,3}\{([^{}]{0,400})\}"
)
"""A command that only changes how its text looks."""
DELIMITER = re.compile(r"\\[()\[\]]")
HTML = re.compile(r"</?(?:b|i|em|strong|u|p|br|span|answer)\s?/?>", re.IGNORECASE)
# The signs stand close to what they emphasise: "3 * 4 * 5" is a product.
STARS = re.compile(r"(?<![\w)*^])(\*{1,3})(?=[^\s*])([^*\n]{0,300}[^\s*])\1(?![\w(*])")
LINES = re.compile(r"(?<![\w)}])(_{1,2})(?=[^\s_])([^_\n]{0,300}[^\s_])\1(?![\w_{])")


def plain_text(text: str) -> str:
    """Spell LaTeX, Markdown and typographic signs plainly.

    Fractions stay `\\frac`, sets stay `\\{`, and powers stay `^`. Callers bound the text's length.
    """
    text = plain_characters(text)
    text = _plain_dollars(text)
    for pattern, replacement in COMMANDS:
        text = pattern.sub(replacement, text)
    text = unwrap(text)
    text = DELIMITER.sub("", text)
    text = text.replace("{ }", " ").replace("{}", " ")
    text = HTML.sub("", text)
    text = without_emphasis(text)
    return re.sub(r"[ \r\f\v]{1,99}", " ", text)


def plain_characters(text: str) -> str:
    """Spell dashes, spaces, digits of full width, superscripts and fractions in ASCII."""
    # A dollar of full width is marked as a currency before the others are told apart.
    text = text.translate(CHARACTERS)
    text = SUPERSCRIPT.sub(lambda match: f"^{{{match[0].translate(SUPERSCRIPTS)}}}", text)
    text = SUBSCRIPT.sub(lambda match: f"_{{{match[0].translate(SUBSCRIPTS)}}}", text)
    return VULGAR_FRACTION.sub(lambda match: f" {VULGAR[match[0]]}", text)


def without_emphasis(text: str) -> str:
    """Remove Markdown's stars and lines around words, and backticks."""
    text = STARS.sub(r"\2", text)
    text = LINES.sub(r"\2", text)
    return text.replace("`", "")


def unwrap(text: str) -> str:
    r"""Replace \text{...} and its relatives by what they hold."""
    # Five levels: deeper nesting is no answer.
    for _ in range(5):
        shorter = WRAPPER.sub(r" \1 ", text)
        if shorter == text:
            break
        text = shorter
    return text


def _plain_dollars(text: str) -> str:
    """Mark currencies as `DOLLAR`, and remove the delimiters of LaTeX."""
    text = text.replace("\\$", DOLLAR)
    if text.count("$") == 1:
        return text.replace("$", DOLLAR)
    return text.replace("$", "")
