"""What the packages share: the generator file, latents, and utilities for files, plugins, processes and terminals."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

__all__ = ["version"]


@lru_cache(maxsize=1)
def version() -> str:
    """Return the version in pyproject.toml (of a checkout or a bento), else the installed one, else "0"."""
    import tomllib
    from importlib import metadata

    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == "gan-atelier":
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return metadata.version("gan-atelier")
    except metadata.PackageNotFoundError:
        return "0"
