"""Where a job's unfinished work lies: a folder beside the report, one inside it for each set of arguments.

What was begun with other arguments is never taken for this job's, nor removed: it stays for the job that it is of.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.files import LockTakenError, lock_handle
from evaluation.atomic import cannot_write, check_writable
from evaluation.errors import EvaluationError
from evaluation.report.schema import NAME, write_json


@dataclass(frozen=True)
class Output:
    """`--output`: a folder, with the document and what belongs to it; or a `.json` path, the document alone.

    Not `kept`: a temporary folder, so what is unfinished is lost.
    """

    document: Path
    work: Path
    images: Path | None
    kept: bool = True

    @classmethod
    def at(cls, path: Path) -> Output:
        """Raises EvaluationError now, rather than after minutes of work, if it cannot be written."""
        if path.suffix == ".json":
            made = cls(path, path.with_name(f".{path.name}.partial"), None)
        else:
            with cannot_write(path):
                is_file = path.exists() and not path.is_dir()
            if is_file:
                raise EvaluationError(f"cannot write {path}: it is a file; --output is a folder, or ends in .json")
            made = cls(path / NAME, path / ".partial", path / "images")
        check_writable(made.document)
        check_writable(made.work / "x")
        return made


def key_of(arguments: dict[str, Any]) -> str:
    """16 hex digits over all that decides the numbers."""
    return hashlib.sha256(
        json.dumps(arguments, sort_keys=True, ensure_ascii=False).encode(errors="backslashreplace")
    ).hexdigest()[:16]


@contextlib.contextmanager
def opened(work: Path, arguments: dict[str, Any]) -> Iterator[Path]:
    """The folder of these arguments' work, held by this process alone; `arguments.json` in it says what it is of.

    EvaluationError: another process is at the same work, or the folder cannot be made.
    """
    folder = work / key_of(arguments)
    with cannot_write(folder):
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


def differences(work: Path, arguments: dict[str, Any]) -> list[str]:
    """What unfinished work of other arguments lies there, a line each, with what is other about it."""
    found = []
    for path in sorted(work.glob("*/arguments.json")):
        with contextlib.suppress(OSError, ValueError):
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if key_of(theirs) != key_of(arguments):
                keys = [key for key in {**theirs, **arguments} if theirs.get(key) != arguments.get(key)]
                told = ", ".join(f"{key} {_short(theirs.get(key))}, not {_short(arguments.get(key))}" for key in keys)
                found.append(f"{path.parent} holds unfinished work of other arguments ({told}); it is left as it is")
    return found


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def remove(folder: Path) -> None:
    """A finished job's work; the folder around it too if nothing else is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
