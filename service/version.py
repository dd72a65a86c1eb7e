"""The version of this code, as imagesets/version.py has it: the service imports no other room."""

import tomllib
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@lru_cache(maxsize=1)
def service_version() -> str:
    """As pyproject.toml beside it says (in a checkout, and in a bento), else as it was installed."""
    try:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        if project["name"] == "gan-atelier":
            return str(project["version"])
    except (OSError, ValueError, KeyError):
        pass
    try:
        return version("gan-atelier")
    except PackageNotFoundError:
        return "0"
