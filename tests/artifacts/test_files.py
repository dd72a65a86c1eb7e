"""Locks and folder flushes on file systems without them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path

import pytest

from artifacts import files


def test_file_lock_twice_without_blocking_raises(tmp_path: Path) -> None:
    with files.file_lock(tmp_path / "lock") as held:
        assert held
        with pytest.raises(files.LockTakenError), files.file_lock(tmp_path / "lock", blocking=False):
            pass
    with files.file_lock(tmp_path / "lock", blocking=False) as held:
        assert held


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_file_lock_without_kernel_locks_warns(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), files.file_lock(tmp_path / "lock", blocking=False) as held:
        assert not held
    assert "cannot be locked" in caplog.text


def test_file_lock_on_a_bad_descriptor_raises(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="descriptor"):
        files.lock_handle(10**6, tmp_path)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_sync_folder_unsupported_continues(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", refuse)
    files.sync_folder(tmp_path)


def test_sync_folder_on_a_full_disk_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match="space"):
        files.sync_folder(tmp_path)


def test_create_partial_longest_name_allowed_fits(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 127)
    handle, partial = files.create_partial(path)
    os.close(handle)
    partial.replace(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["ü" * 127]


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_set_mode_without_permissions_continues(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "chmod", refuse)
    files.set_mode(tmp_path, 0o600)


@pytest.mark.parametrize(("code", "raises"), [(errno.EINVAL, False), (errno.ENOSYS, False), (errno.EDQUOT, True)])
def test_sync_file_raises_only_for_lost_data(
    code: int, raises: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match="quota") if raises else contextlib.nullcontext():
        files.sync_file(0)


def test_make_writable_folder_creates_it_and_leaves_no_file(tmp_path: Path) -> None:
    files.make_writable_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_make_writable_folder_over_a_file_raises(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match="File exists"):
        files.make_writable_folder(tmp_path / "a")
