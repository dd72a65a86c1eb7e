"""Pages that are made from the code whenever the site is built, and are no files of the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cli_page
import http_page
import settings_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ICON = Path(__file__).parents[2] / "service" / "studio" / "icon.svg"
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli_page.page,
    "reference/http.md": http_page.page,
    "reference/settings.md": settings_page.page,
    "openapi.json": http_page.as_json,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "images/logo.svg", content=ICON.read_bytes()))  # the studio's own
    for path, made in PAGES.items():
        files.append(File.generated(config, path, content=made()))
    return files
