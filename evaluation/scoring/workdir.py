"""Where a job writes its report and keeps unfinished work: one folder per set of arguments.

Work that was begun with other arguments is neither used nor removed: it stays for the job that it belongs to.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifacts.files import LockTakenError, lock_handle
from evaluation.atomic import check_writable, reraise_write_errors
from evaluation.documents import json_digest, write_json
from evaluation.errors import EvaluationError
from evaluation.report.schema import NAME


@dataclass(frozen=True)
class OutputPaths:
    """The JSON document, its folders of unfinished work and sample images, and whether they outlive the process."""

    document: Path
    work: Path
    images: Path | None = None
    kept: bool = True


@contextlib.contextmanager
def output_paths(output: Path | None) -> Iterator[OutputPaths]:
    """Yield the paths of a report in the folder `output`, or of a `.json` file; None is a temporary folder.

    Paths that cannot be written raise EvaluationError now rather than after minutes of work.
    """
    if output is None:
        with tempfile.TemporaryDirectory(prefix="atelier-score-") as folder:
            yield OutputPaths(Path(folder) / NAME, Path(folder) / ".partial", kept=False)
        return
    if output.suffix == ".json":
        paths = OutputPaths(output, output.with_name(f".{output.name}.partial"))
    else:
        with reraise_write_errors(output):
            is_file = output.exists() and not output.is_dir()
        if is_file:
            raise EvaluationError(f"cannot write {output}: it is a file; --output is a folder, or ends in .json")
        paths = OutputPaths(output / NAME, output / ".partial", output / "images")
    check_writable(paths.document)
    check_writable(paths.work / "x")
    yield paths


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
