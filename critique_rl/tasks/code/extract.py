"""The program in an answer: its last fenced block of code, or the text itself where it is one.

Thoughts before a closing tag are left out. A block of another language is no program.
"""

from __future__ import annotations

import ast
import re
import warnings

FENCE = re.compile(
    r"^([ \t]*)(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*\n(.*?)(?:^[ \t]*\2[ \t]*$|\Z)",
    re.MULTILINE | re.DOTALL,
)
BEGINNING = re.compile(r"\s*(?:(?:async )?def |class |import |from |@|#)")
"""How a program begins that is no prose."""
PYTHON = ("", "python", "py", "python3", "python2", "py3", "ipython")
"""Words after a fence that may begin a Python program."""
THOUGHTS_END = "</think>"


def extract_program(text: str, entry: str) -> str | None:
    """The program of an answer.

    Args:
        text: An answer.
        entry: The name that tests call; "" for a script.

    Returns:
        The last block that defines the name, else the last one; a text without blocks where it is
        Python that defines the name. None where there is none.
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    _, _, after = lines.rpartition(THOUGHTS_END)
    for match in FENCE.finditer(lines):
        # A program may speak of the tag itself; a block of thoughts that was cut is none.
        if THOUGHTS_END in match[4] and parse(match[4]) is not None:
            after = lines
    blocks = []
    for match in FENCE.finditer(after):
        indent, _, language, body = match.groups()
        is_python = language.lower() in PYTHON or language.lower().startswith("python")
        if is_python and body.strip():
            blocks.append(_without_indent(body, indent))
    for block in reversed(blocks):
        if entry and defines(block, entry):
            return block
    if blocks:
        return blocks[-1]
    if "```" in after or "~~~" in after:
        return None
    is_program = defines(after, entry) if entry else is_script(after)
    return after if is_program else None


def _without_indent(body: str, indent: str) -> str:
    """A block without the indent of its fence, as in a list."""
    lines = body.split("\n")
    if not all(line.startswith(indent) for line in lines if line.strip()):
        return body
    return "\n".join(line.removeprefix(indent) for line in lines)


def defines(source: str, name: str) -> bool:
    """Whether a program binds a name. One that does not compile is searched as text, if it begins
    as a program does.
    """
    tree = parse(source)
    if tree is None:
        if not BEGINNING.match(source):
            return False
        return (
            re.search(rf"^(?:async )?(?:def|class) +{re.escape(name)}\b", source, re.MULTILINE)
            is not None
        )
    return any(_bound_name(node) == name for node in ast.walk(tree))


def _bound_name(node: ast.AST) -> str:
    """The name that a definition or an assignment binds; "" of other nodes."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return node.name
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return node.id
    return ""


def is_script(source: str) -> bool:
    """Whether a text is Python that does something: a word alone is an expression too."""
    tree = parse(source)
    if tree is None:
        return False
    return any(isinstance(node, ast.Call) for node in ast.walk(tree))


def parse(source: str) -> ast.Module | None:
    """The syntax tree of a program; None where it has none."""
    try:
        with warnings.catch_warnings():
            # Of escapes in strings, which are the policy's affair.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    # Half of a character, a null character, nesting too deep for the parser.
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
