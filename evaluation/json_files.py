"""Helpers for JSON files: atomic writes, digests, timestamps and package versions."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts import version
from evaluation.errors import EvaluationError
from evaluation.output_files import atomic_output

if TYPE_CHECKING:
    from pydantic import ValidationError


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole or not at all; EvaluationError also for a number that JSON cannot represent."""
    text = json_text(path, document)
    with atomic_output(path) as handle:
        handle.write(text.encode())


def json_text(path: Path, document: dict[str, Any]) -> str:
    """Return the text that `write_json` writes."""
    try:
        return without_surrogates(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "\\\\")
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"cannot write {path}: JSON cannot represent it ({error})") from error


def json_digest(value: dict[str, Any]) -> str:
    """Return the sha256 over JSON values, whatever the order of their keys: a key of caches and unfinished work."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()


def first_error(error: ValidationError) -> str:
    """Return where a document is first invalid, and why: `arguments.parts: Input should be a valid integer`."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def without_surrogates(text: str, backslash: str = "\\") -> str:
    r"""Return text that UTF-8 can encode: a byte of a name that is not UTF-8 becomes `\xff`, a lone surrogate `\ud800`.

    Args:
        text: Text in which Python holds such bytes as lone surrogates.
        backslash: How a backslash is written in `text`; two of them in JSON.
    """

    def escape(match: re.Match[str]) -> str:
        code = ord(match[0])
        return backslash + (f"x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"u{code:04x}")

    return re.sub("[\ud800-\udfff]", escape, text)


def without_credentials(text: str) -> str:
    """Return a URL without `user:password@`, which must not be in a report; other text as it is."""
    return re.sub(r"(?i)^(.*?https?://)[^/?#]*@", r"\1", text)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute scores."""
    found = {"python": platform.python_version(), "gan-atelier": version()}
    for package in ("numpy", "scipy", "onnxruntime", "onnxruntime-gpu"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
