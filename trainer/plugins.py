"""Losses and networks of a user's own module, named as "package.module:NAME" in a config."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, TypeVar

from artifacts.terminal import say
from trainer.errors import TrainerError

T = TypeVar("T")


def load_object(field: str, name: str, kind: type[T]) -> T:
    """Import a user's module and return the object that a config names.

    This runs code: call it only where a user's own command trains, resumes or exports. The first import of a module is
    reported on stderr, so that a checkpoint from elsewhere runs nothing unnoticed.

    Args:
        field: The config field, for messages.
        name: "package.module:NAME"; the module is searched in Python's path, then in the working directory.
        kind: The type that the object must have.

    Raises:
        TrainerError: If the module cannot be imported, or has no such object of that type.
    """
    module_name, _, attribute = name.partition(":")
    if module_name not in sys.modules:
        say(f"note: importing {module_name}, which {field}={name} names", error=True)
        if str(Path.cwd()) not in sys.path:  # last, so that a user's random.py does not replace Python's
            sys.path.append(str(Path.cwd()))
    try:
        found: Any = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise TrainerError(
            f"{field}={name}: there is no module {module_name}; run the command in the folder that contains it, or put "
            "that folder on PYTHONPATH"
        ) from error
    except AttributeError as error:
        raise TrainerError(f"{field}={name}: {module_name} could not give {attribute} ({error})") from error
    if not isinstance(found, kind):
        raise TrainerError(f"{field}={name}: {attribute} is a {type(found).__name__}, not a {kind.__name__}")
    return found
