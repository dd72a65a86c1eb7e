"""The version of this code. pyproject.toml is where it is said."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def version() -> str:
    """As pyproject.toml beside it says (in a checkout, whatever is installed), else as it was installed; else 0."""
    import tomllib
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == "gan-atelier":
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return installed("gan-atelier")
    except PackageNotFoundError:
        return "0"
