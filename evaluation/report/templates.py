"""The templates of the views, HTML, SVG and Markdown, next to this module; text in them is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

import jinja2

from evaluation.report import formatting


def render(template: str, **values: Any) -> str:
    """Return the text of a template; `fmt` is `evaluation.report.formatting` in it."""
    return _environment().get_template(template).render(fmt=formatting, **values)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("evaluation.report", "."),
        # In Markdown, the filters `text` and `code` escape.
        autoescape=lambda name: name is None or not name.endswith(".md"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"text": formatting.escape_markdown, "code": formatting.code_span}
    return environment
