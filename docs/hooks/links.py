"""Links that leave docs/ lead somewhere on GitHub and nowhere on the site: there they become the path, as code.

With `repo_url` in mkdocs.yml they lead to the file in that repository. One whose file does not exist is a warning,
hence an error under `strict`.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\.?/[^)\s#]+)(#[^)\s]*)?\)")
log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    lines, fenced = [], False
    for line in markdown.split("\n"):
        fenced ^= line.lstrip().startswith("```")
        lines.append(line if fenced else LINK.sub(lambda link: _inside(link, page, config), line))
    return "\n".join(lines)


def _inside(link: re.Match[str], page: Page, config: MkDocsConfig) -> str:
    text, target, anchor = link.groups()
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), target))
    if not path.startswith("../"):
        return link[0]
    path = path.removeprefix("../")
    if path.startswith("../") or not (Path(config.config_file_path).parent / path).exists():
        log.warning("%s links to %s, which is not in the repository", page.file.src_uri, target)
    if config.repo_url:
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path}{anchor or ''})"
    return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"
