"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.files import create_partial, default_mode, set_mode, sync_file


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` to write to; at the end it is fsynced and takes that name.

    When the block raises, the temporary file is removed and what stood at `path` stays. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = create_partial(path)
    os.close(handle)
    try:
        yield partial
        with partial.open("rb+") as file:
            sync_file(file.fileno())
        set_mode(partial, default_mode())  # mkstemp's own mode is for the owner's eyes only
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
