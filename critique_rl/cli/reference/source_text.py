"""Texts of the package's own source, as the reference pages quote them.

Fields and their docstrings, signatures as they are written, and docstrings as Markdown. They are
read from the source by `ast`: `inspect` knows no text below a field, and rewrites annotations.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any

LONGEST_SIGNATURE = 110
"""Columns of a signature on one line."""


@dataclass(frozen=True)
class SourceField:
    """An annotated field of a class body, as written."""

    annotation: str
    default: str | None
    """None where it has none."""
    text: str
    """The docstring below it, on one line; "" where there is none."""


def class_fields(cls: type) -> dict[str, SourceField]:
    """The annotated fields that a class body names.

    Returns:
        Name -> field, without private and inherited ones.
    """
    node = _class_node(cls)
    fields = {}
    following = [*node.body[1:], None]
    for statement, below in zip(node.body, following, strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        if not isinstance(statement.target, ast.Name):
            continue
        name = statement.target.id
        if not name.startswith("_"):
            annotation = ast.unparse(statement.annotation)
            fields[name] = SourceField(annotation, _default(statement.value), _text(below))
    return fields


def _class_node(cls: type) -> ast.ClassDef:
    node = _definition(cls)
    assert isinstance(node, ast.ClassDef)
    return node


def _definition(thing: Any) -> ast.stmt:
    """The syntax tree of a class or function."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    return node


def _default(value: ast.expr | None) -> str | None:
    if value is None:
        return None
    # A reader wants what the field holds, `dict()`, not how a dataclass makes it.
    return re.sub(r"field\(default_factory=(\w+)\)", r"\1()", ast.unparse(value))


def _text(statement: ast.stmt | None) -> str:
    """A bare string on one line; "" for every other statement."""
    if not isinstance(statement, ast.Expr):
        return ""
    if not isinstance(statement.value, ast.Constant):
        return ""
    text = statement.value.value
    if isinstance(text, str):
        return " ".join(text.split())
    return ""


def signature(thing: Any) -> str:
    """A signature as the source has it.

    `inspect.signature` puts quotes around annotations. A dataclass is shown by its fields, a class
    by `__init__`, a protocol by its members.

    Args:
        thing: A function or a class.
    """
    node = _definition(thing)
    if isinstance(node, ast.FunctionDef):
        returns = ""
        if node.returns:
            returns = f" -> {ast.unparse(node.returns)}"
        return wrap_signature(node.name, _arguments(node), returns)
    assert isinstance(node, ast.ClassDef)
    if inspect.isclass(thing) and is_dataclass(thing):
        fields = [_field(name, field) for name, field in class_fields(thing).items()]
        return wrap_signature(node.name, fields, "")
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return wrap_signature(node.name, _arguments(statement), "")
    return "\n".join([f"class {node.name}", *_protocol_members(thing, node)])


def _field(name: str, field: SourceField) -> str:
    if field.default is None:
        return f"{name}: {field.annotation}"
    return f"{name}: {field.annotation} = {field.default}"


def _protocol_members(cls: type, node: ast.ClassDef) -> Iterator[str]:
    """Fields, properties and methods that a protocol asks for."""
    for name, field in class_fields(cls).items():
        yield f"    {name}: {field.annotation}"
    for statement in node.body:
        if not isinstance(statement, ast.FunctionDef):
            continue
        member = getattr(cls, statement.name)
        if isinstance(member, property) and statement.returns:
            yield f"    {statement.name}: {ast.unparse(statement.returns)}"
        else:
            yield f"    {signature(member)}"


def _arguments(node: ast.FunctionDef) -> list[str]:
    """Each argument as written, without self."""
    arguments = node.args
    positional = arguments.args
    # `ast` keeps the defaults apart, aligned to the end.
    missing: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults))
    defaults = [*missing, *arguments.defaults]
    texts = []
    for argument, default in zip(positional, defaults, strict=True):
        if argument.arg not in ("self", "cls"):
            texts.append(_argument(argument, default))
    if arguments.vararg:
        texts.append(f"*{_argument(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        texts.append(_argument(argument, default))
    if arguments.kwarg:
        texts.append(f"**{_argument(arguments.kwarg, None)}")
    return texts


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    text = argument.arg
    equals = "="
    if argument.annotation:
        text += f": {ast.unparse(argument.annotation)}"
        equals = " = "
    if default is not None:
        text += f"{equals}{ast.unparse(default)}"
    return text


def wrap_signature(name: str, arguments: Sequence[str], returns: str) -> str:
    """A signature on one line, or where it is too long with a line per argument."""
    line = f"{name}({', '.join(arguments)}){returns}"
    if len(line) <= LONGEST_SIGNATURE:
        return line
    lines = [f"    {argument}," for argument in arguments]
    return "\n".join([f"{name}(", *lines, f"){returns}"])


def has_docstring(thing: Any) -> bool:
    """False where a docstring was made by `dataclass`, or is missing."""
    return thing.__doc__ is not None and not thing.__doc__.startswith(f"{thing.__name__}(")


def docstring(thing: Any) -> str:
    """The docstring of a class, function or module; "" where it has none."""
    if inspect.isclass(thing) and not has_docstring(thing):
        return ""
    return inspect.getdoc(thing) or ""


def first_paragraph(thing: Any) -> str:
    """The first paragraph of a docstring on one line, as Markdown."""
    paragraph, _, _ = docstring(thing).partition("\n\n")
    return to_markdown(" ".join(paragraph.split()))


def to_markdown(text: str) -> str:
    """A docstring as Markdown, in which it reads as it stands in the source."""
    return "\n".join(_escape_markup(line) for line in text.split("\n"))


def _escape_markup(line: str) -> str:
    # Indented lines are equations and examples, which Markdown shows as code.
    if line.startswith("    "):
        return line
    # The first alternative takes code as it is, so that only other text is escaped.
    return re.sub(r"(`[^`]*`)|([*<])", lambda match: match[1] or f"\\{match[2]}", line)
