"""Pages that are made from the code whenever the site is built, and are not files of the repository."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
ICON = ROOT / "service" / "studio" / "icon.svg"
LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")
PROJECT = ("CONTRIBUTING", "SECURITY", "CHANGELOG")


def project_page(name: str) -> str:
    """Return a Markdown file of the repository's root with its links as a page in docs/project needs them."""

    def moved(link: re.Match[str]) -> str:
        stem, _, anchor = link[1].partition(".md")
        if stem in PROJECT:
            return f"]({stem.lower()}.md{anchor})"
        return f"](../{link[1].removeprefix('docs/')})" if link[1].startswith("docs/") else f"](../../{link[1]})"

    return LINK.sub(moved, (ROOT / f"{name}.md").read_text(encoding="utf-8"))


PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": reference.cli,
    "reference/http.md": reference.http,
    "reference/settings.md": reference.settings,
    "openapi.json": reference.openapi_json,
    **{f"project/{name.lower()}.md": partial(project_page, name) for name in PROJECT},
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "images/logo.svg", content=ICON.read_bytes()))
    for path, made in PAGES.items():
        files.append(File.generated(config, path, content=made()))
    return files
