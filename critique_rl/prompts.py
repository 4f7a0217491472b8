"""What models read: templates of `prompts/`, one a file, filled by jinja2.

Sandboxed, strict about missing names, and in one pass: braces or template syntax inside a question, an attempt or a critique stay text. The folder
beside the package is used in a checkout, the copy inside the package in an installed wheel.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from jinja2 import FileSystemLoader, StrictUndefined, TemplateNotFound
from jinja2.sandbox import SandboxedEnvironment

HERE = Path(__file__).parent
FOLDERS = (HERE.parent / "prompts", HERE / "_prompts")


@cache
def _environment() -> SandboxedEnvironment:
    # autoescape stays off: models read plain text; pages escape model text on their own.
    return SandboxedEnvironment(loader=FileSystemLoader([str(folder) for folder in FOLDERS]), undefined=StrictUndefined, keep_trailing_newline=False)


def known() -> list[str]:
    """Names of all templates."""
    return sorted({str(path.relative_to(folder).with_suffix("")) for folder in FOLDERS if folder.exists() for path in folder.rglob("*.jinja")})


def render(name: str, **fields: str) -> str:
    """Fill the template `prompts/<name>.jinja`. ValueError if there is none; jinja2.UndefinedError if a field is missing."""
    try:
        return _environment().get_template(f"{name}.jinja").render(**fields)
    except TemplateNotFound as error:
        raise ValueError(f"no prompt template {name!r} in {FOLDERS[0]}; there are: {', '.join(known())}") from error
