"""Git LFS pointers: the short text files that a clone without Git LFS holds in place of large files."""

from __future__ import annotations

from pathlib import Path

POINTER = b"version https://git-lfs.github.com/spec/"
HINT = "a Git LFS pointer, not the file itself; run `git lfs pull`"


def is_lfs_pointer(content: bytes) -> bool:
    """Return whether a file's content, or its first bytes, are those of a Git LFS pointer."""
    return content.startswith(POINTER)


def is_lfs_pointer_file(path: Path) -> bool:
    """Return whether the file at `path` is a Git LFS pointer; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return is_lfs_pointer(file.read(len(POINTER)))
    except OSError:
        return False
