"""Show a link that leaves docs/ as a path: the repository has the file, the site has not.

A link to a file that does not exist is a warning, hence an error under `strict`.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

CODE_OR_LINK = re.compile(r"^ *```.*?^ *```|(?<!!)\[([^\]]+)\]\((\.\./[^)\s#]+)[^)\s]*\)", re.DOTALL | re.MULTILINE)
log = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    def inside(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), target or "."))
        if target is None or path.startswith("docs/"):
            return match[0]
        if path.startswith("..") or not (Path(config.config_file_path).parent / path).exists():
            log.warning("%s links to %s, which is not in the repository", page.file.src_uri, target)
        return f"`{path}`" if text.strip("`") == path else f"{text} (`{path}`)"

    return CODE_OR_LINK.sub(inside, markdown)
