"""Files that appear whole, on file systems that lack permissions, flushes or long names."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts import files
from artifacts.files import atomic_path
from evaluation.output_files import atomic_output


def with_atomic_path(path: Path) -> None:
    with atomic_path(path) as partial:
        partial.write_text("new", encoding="utf-8")


def with_written_whole(path: Path) -> None:
    with atomic_output(path) as handle:
        handle.write(b"new")


@pytest.mark.parametrize("write", [with_atomic_path, with_written_whole])
def test_atomic_path_on_a_poor_file_system_replaces_the_file(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(code: int) -> Callable[..., None]:
        def call(*_: object, **__: object) -> None:
            raise OSError(code, os.strerror(code))

        return call

    monkeypatch.setattr(files.os, "fsync", refuse(errno.EINVAL))
    monkeypatch.setattr(Path, "chmod", refuse(errno.EPERM))
    path = tmp_path / ("x" * 255)
    path.write_text("old", encoding="utf-8")
    write(path)
    assert path.read_text(encoding="utf-8") == "new"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("write", [with_atomic_path, with_written_whole])
def test_atomic_path_under_a_strict_umask_replaces_the_file(write: Callable[[Path], None], tmp_path: Path) -> None:
    before = os.umask(0o777)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0
