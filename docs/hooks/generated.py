"""Pages that are made from the code whenever the site is built, and are not files of the repository."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ICON = Path(__file__).parents[2] / "service" / "studio" / "icon.svg"
PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": reference.cli,
    "reference/http.md": reference.http,
    "reference/settings.md": reference.settings,
    "openapi.json": reference.openapi_json,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, "images/logo.svg", content=ICON.read_bytes()))
    for path, made in PAGES.items():
        files.append(File.generated(config, path, content=made()))
    return files
