"""Checks that the private parts of other packages exist on which this package depends."""

import importlib
import logging
from collections.abc import Iterable
from importlib import metadata
from types import FunctionType
from typing import Any

log = logging.getLogger("bentoml.atelier")

# Distribution and the versions that `make test-versions` runs
TESTED = {
    "bentoml": "1.4.35 to 1.4.39",
    "kantoku": "0.18.3",  # BentoML's circus
    "uvicorn": "0.30.0 to 0.54.0",
    "httptools": "0.6.0 to 0.9.0",
}


def find_missing(symbols: Iterable[str]) -> list[str]:
    """Return which of these symbols do not exist.

    Args:
        symbols: Each is `module:name` or `module:Class.attribute`; an attribute that only instances have exists if a
            method of the class uses its name.
    """
    return [symbol for symbol in symbols if not _exists(symbol)]


def is_supported(feature: str, symbols: Iterable[str]) -> bool:
    """Return whether a feature's private symbols exist; log a warning if not.

    Args:
        feature: What is off without them, for the warning.
        symbols: The symbols, as in `find_missing`.
    """
    missing = find_missing(symbols)
    if missing:
        versions = ", ".join(f"{name} {_version(name)} (tested: {tested})" for name, tested in TESTED.items())
        log.warning("%s: off, because %s is missing; installed: %s", feature, ", ".join(missing), versions)
    return not missing


def _exists(symbol: str) -> bool:
    module, _, path = symbol.partition(":")
    try:
        owner: Any = importlib.import_module(module)
    except ImportError:
        return False
    for name in path.split("."):
        if not hasattr(owner, name):
            return isinstance(owner, type) and name in _instance_names(owner)
        owner = getattr(owner, name)
    return True


def _instance_names(owner: type) -> set[str]:
    functions = (value for base in owner.__mro__ for value in vars(base).values() if isinstance(value, FunctionType))
    return {name for function in functions for name in function.__code__.co_names}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
