"""Folders of unfinished work: one per set of arguments, so that the same job resumes there.

Work that was begun with other arguments is neither used nor removed: it stays for the job that it belongs to.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts.files import LockTakenError, lock_handle
from evaluation.errors import EvaluationError
from evaluation.json_files import json_digest, write_json
from evaluation.output_files import reraise_write_errors


def key_of(arguments: dict[str, Any]) -> str:
    """Return 16 hex digits over all arguments that decide the numbers."""
    return json_digest(arguments)[:16]


@contextlib.contextmanager
def open_workdir(work: Path, arguments: dict[str, Any]) -> Iterator[Path]:
    """Lock and yield the folder for work with these arguments; EvaluationError if another process uses it."""
    folder = work / key_of(arguments)
    with reraise_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("a")
    with lock as handle:
        try:
            lock_handle(handle.fileno(), folder, blocking=False)
        except LockTakenError:
            raise EvaluationError(f"another process is already scoring in {folder}; wait for it to finish") from None
        if not (folder / "arguments.json").is_file():
            write_json(folder / "arguments.json", arguments)
        yield folder


def unfinished_work(work: Path, arguments: dict[str, Any]) -> list[str]:
    """Return a line per folder of unfinished work with other arguments, with what differs."""
    lines = []
    for path in sorted(work.glob("*/arguments.json")):
        with contextlib.suppress(OSError, ValueError):
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if key_of(theirs) != key_of(arguments):
                keys = [key for key in {**theirs, **arguments} if theirs.get(key) != arguments.get(key)]
                differ = ", ".join(f"{key} {_short(theirs.get(key))}, not {_short(arguments.get(key))}" for key in keys)
                lines.append(f"{path.parent} holds unfinished work with other arguments ({differ}); it is kept")
    return lines


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def remove_workdir(folder: Path) -> None:
    """Remove a finished job's folder, and the folder around it if nothing else is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
