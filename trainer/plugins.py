"""Losses and networks from user modules, named "package.module:NAME" in a config."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from artifacts.plugins import PluginError, import_object
from artifacts.terminal import say
from trainer.errors import TrainerError

T = TypeVar("T")


def require_user_code(allowed: bool, plugins: Iterable[tuple[str, str]], source: str) -> None:
    """Check that a user's module that a checkpoint or a run names may be imported.

    Args:
        allowed: Whether the user allows it.
        plugins: The config field and the name of each object from a user module, as `Config.plugins` yields them.
        source: What names them, for the message.

    Raises:
        TrainerError: If there is one, and it may not.
    """
    if allowed:
        return
    for field, name in plugins:
        raise TrainerError(
            f"{source} names {field}={name}, whose code runs only with --user-code (in Python user_code=True); "
            "allow it only if you trust that code"
        )


def announce_import(field: str, name: str) -> None:
    """Print that the module of "package.module:NAME" is about to be imported, unless it is already."""
    module = name.partition(":")[0]
    if module not in sys.modules:
        say(f"note: importing {module}, which {field}={name} names", error=True)


def load_plugin(field: str, name: str, kind: type[T]) -> T:
    """Import the object that a config names.

    This runs the module's code: it is called only for a config that the user gave, or after `require_user_code`. The
    first import of a module is reported on stderr.

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
        raise TrainerError(f"{field}={name} is {_with_article(type(found))}, not {_with_article(kind)}")
    return found


def _with_article(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"
