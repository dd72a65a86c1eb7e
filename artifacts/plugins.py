"""Objects from user modules, named `package.module:NAME`."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

_imported: set[str] = set()  # the names that `import_object` was called with
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


class PluginError(ValueError):
    """The object cannot be loaded. The message is one line: why, and what to do."""


def is_plugin(name: str) -> bool:
    """Return whether a name has the form `package.module:NAME`; `folder:NAME` is an image set."""
    return not name.startswith("folder:") and _NAME.fullmatch(name) is not None


def describe_error(error: BaseException) -> str:
    """Return the type and the text of what a user's code raised, in one line."""
    return f"{type(error).__name__}: {_one_line(error)}".removesuffix(": ")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def import_object(name: str) -> Any:
    """Import an object from a user module.

    The module is looked up on `sys.path` and in the working directory. Importing runs its code: call this only for
    names that the user gave, never for names from a downloaded file.

    Args:
        name: `package.module:NAME`.

    Raises:
        PluginError: If the module cannot be imported or has no such object.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)  # last, so that a user's file never hides an installed package
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise PluginError(
                f"{name}: there is no module {error.name}; run from the folder that contains it, or set PYTHONPATH"
            ) from error
        raise PluginError(f"{name}: importing {module_name} failed: {_one_line(error)}") from error
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise PluginError(f"{name}: importing {module_name} failed: {describe_error(error)}") from error
    finally:
        if added:
            sys.path.remove(here)
    try:
        found = getattr(module, attribute)
    except AttributeError:
        raise PluginError(f"{name}: {module_name} has no {attribute}") from None
    _imported.add(name)
    return found


def was_imported(name: str) -> bool:
    """Return whether this process has imported an object by this name already, so that a file may name it too."""
    return name in _imported and name.partition(":")[0] in sys.modules
