"""The program in an answer: its last fenced block of code, or the text itself where it is one.

Thoughts before a closing tag are left out. A block of another language is no program.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

OPENING = re.compile(r"^([ \t]*)(```+|~~~+)[ \t]*([\w+.#-]*)[^\n]*\n", re.MULTILINE)
MOST_CLOSINGS = 8
"""Closing fences that are tried for one block: a program's own text may hold some."""
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
    for block in find_blocks(lines):
        # A program may speak of the tag itself; a block of thoughts that was cut is none.
        if THOUGHTS_END in block.body and parse(block.body) is not None:
            after = lines
    blocks = [block for block in find_blocks(after) if block.is_python and block.body.strip()]
    if blocks:
        return choose_block(blocks, entry)
    if "```" in after or "~~~" in after:
        return None
    is_program = defines(after, entry) if entry else is_script(after)
    return after if is_program else None


@dataclass(frozen=True)
class Block:
    """A fenced block of an answer."""

    language: str
    """The word after the fence, in small letters."""
    body: str

    @property
    def is_python(self) -> bool:
        """Whether it may be a Python program."""
        return self.language in PYTHON or self.language.startswith("python")


def find_blocks(text: str) -> list[Block]:
    """The fenced blocks of a text. One that is cut ends with the text."""
    blocks: list[Block] = []
    place = 0
    while True:
        opening = OPENING.search(text, place)
        if opening is None:
            return blocks
        indent, fence, language = opening.groups()
        body, place = _read_body(text, opening.end(), fence)
        block = Block(language.lower(), _without_indent(body, indent))
        blocks.append(block)


def _read_body(text: str, start: int, fence: str) -> tuple[str, int]:
    """The body of a block, and where the text goes on.

    It ends at the first closing fence, or at a later one, up to which it is Python: then the
    fences before are text of the program, as in a docstring.
    """
    closing = re.compile(rf"^[ \t]*{fence}[ \t]*$", re.MULTILINE)
    ends = list(islice(closing.finditer(text, start), MOST_CLOSINGS))
    for end in ends:
        body = text[start : end.start()]
        if parse(textwrap.dedent(body)) is not None:
            return body, end.end()
    if ends:
        return text[start : ends[0].start()], ends[0].end()
    return text[start:], len(text)


def choose_block(blocks: Sequence[Block], entry: str) -> str:
    """The program among blocks: the last that defines the function, on its own before in a class.

    Of scripts it is the last that says it is Python, or does something: a block without a word
    after its fence may show what the script prints.
    """
    bodies = [block.body for block in blocks]
    if entry:
        for is_outside in (True, False):
            for body in reversed(bodies):
                if defines(body, entry, is_outside):
                    return body
        return bodies[-1]
    named = [block.body for block in blocks if block.language]
    acting = [body for body in bodies if is_script(body)]
    return (named or acting or bodies)[-1]


def _without_indent(body: str, indent: str) -> str:
    """A block without the indent of its fence, as in a list."""
    lines = body.split("\n")
    if not all(line.startswith(indent) for line in lines if line.strip()):
        return body
    return "\n".join(line.removeprefix(indent) for line in lines)


def defines(source: str, name: str, is_outside: bool = False) -> bool:
    """Whether a program binds a name. One that does not compile is searched as text, if it begins
    as a program does.

    Args:
        source: A text that may be a program.
        name: A function, a class or a variable.
        is_outside: Whether the name must be bound outside functions and classes.
    """
    tree = parse(source)
    if tree is None:
        if not BEGINNING.match(source):
            return False
        return (
            re.search(rf"^(?:async )?(?:def|class) +{re.escape(name)}\b", source, re.MULTILINE)
            is not None
        )
    nodes = _outside(tree) if is_outside else ast.walk(tree)
    return any(_bound_name(node) == name for node in nodes)


def _outside(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a program that are in no function and no class, and these themselves."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _outside(node)


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
