"""What a notebook's page lacks beside a Markdown one: links to pages, and that nothing is fetched from elsewhere.

Its scripts that load MathJax and Mermaid from another host are left out: formulas and diagrams in a notebook stay the
text that they are written as.
"""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>", re.DOTALL)
ELSEWHERE = re.compile(r"\bimport\b[^;]*https?:|<script src=\"(https?:[^\"]*)?\">|MathJax")
LINK = re.compile(r"(<a [^>]*href=\"(?![a-z]+:)[^\"#]+)\.md(#[^\"]*)?\"")
OUTSIDE = re.compile(r"<a [^>]*href=\"\.\./([^\"]+)\"[^>]*>(.*?)</a>", re.DOTALL)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    if not page.file.src_uri.endswith(".ipynb"):
        return output
    output = SCRIPT.sub(lambda script: "" if ELSEWHERE.search(script[0]) else script[0], output)
    output = OUTSIDE.sub(r"\2 (<code>\1</code>)", output)
    return LINK.sub(lambda link: f'{link[1]}.html{link[2] or ""}"', output)
