"""Remove scripts of other hosts from a notebook's page, fix its links, and write its formulas as MathML."""

from __future__ import annotations

import html
import re

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL)
ELSEWHERE = re.compile(r"\bimport\b[^;]*https?:|<script src=\"(https?:[^\"]*)?\">|MathJax")
LINK = re.compile(r"(<a [^>]*href=\"(?![a-z]+:)[^\"#]+)\.md(#[^\"]*)?\"")
OUTSIDE = re.compile(r"<a [^>]*href=\"(?:\.\./){2}([^\"]+)\"[^>]*>(.*?)</a>", re.DOTALL)
CODE = re.compile(r"(<(script|style|pre|code)\b.*?</\2>)", re.DOTALL)
FORMULA = re.compile(r"\$\$([^$<]+)\$\$|(?<!\\)\$(?!\s)([^$<]+?)(?<!\s)\$")
NOTEBOOK = '<div class="jupyter-wrapper">'


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = SCRIPT.sub(lambda script: "" if ELSEWHERE.search(script[0]) else script[0], output)
    output = OUTSIDE.sub(r"\2 (<code>\1</code>)", output)
    output = LINK.sub(lambda link: f'{link[1]}.html{link[2] or ""}"', output)
    before, wrapper, notebook = output.partition(NOTEBOOK)
    parts = CODE.split(notebook)  # text, code, the code's tag, text, …
    parts[2::3] = [""] * len(parts[2::3])
    parts[::3] = [FORMULA.sub(_mathml, text) for text in parts[::3]]
    return before + wrapper + "".join(parts)


def _mathml(formula: re.Match[str]) -> str:
    shown, inline = formula.groups()
    return convert(html.unescape(shown or inline), display="block" if shown else "inline")
