"""Losses and networks from user modules, named "package.module:NAME" in a config."""

from __future__ import annotations

import sys
from typing import TypeVar

from artifacts.plugins import PluginError, import_object
from artifacts.terminal import say
from trainer.errors import TrainerError

T = TypeVar("T")


def announce_import(field: str, name: str) -> None:
    """Print that the module of "package.module:NAME" is about to be imported, unless it is already."""
    module = name.partition(":")[0]
    if module not in sys.modules:
        say(f"note: importing {module}, which {field}={name} names", error=True)


def load_plugin(field: str, name: str, kind: type[T]) -> T:
    """Import the object that a config names.

    This runs the module's code: it is called only where a user's command trains, resumes, samples or exports. The
    first import of a module is reported on stderr, so that a checkpoint from elsewhere runs nothing unnoticed.

    Args:
        field: The config field, for messages.
        name: "package.module:NAME".
        kind: The type that the object must have.

    Raises:
        TrainerError: If the module cannot be imported, or has no such object of that type.
    """
    announce_import(field, name)
    try:
        found = import_object(name)
    except PluginError as error:
        raise TrainerError(f"{field}={error}") from error
    if not isinstance(found, kind):
        raise TrainerError(f"{field}={name} is a {type(found).__name__}, not a {kind.__name__}")
    return found
