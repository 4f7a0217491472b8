"""The Jinja environment of the page and of figures in files of their own."""

from __future__ import annotations

from pathlib import Path

import jinja2

from critique_rl.analysis.critiques.words import describe_reasons
from critique_rl.analysis.formats import bracket, short, signed
from critique_rl.analysis.page import plots
from critique_rl.analysis.page.text_cuts import spell_out

TEMPLATES = Path(__file__).parents[1] / "templates"


def environment() -> jinja2.Environment:
    """Templates with the filters for numbers and looks."""
    # Autoescape is on, as every transcript is text that a model wrote.
    result = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    result.filters |= {
        "short": short,
        "bracket": bracket,
        "signed": signed,
        "reasons": describe_reasons,
        "look": plots.look,
        "label": plots.label,
        "visible": spell_out,
    }
    return result
