"""Atomic writes, locks and Git LFS pointers, on file systems that support only part of POSIX."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_HINT = "a Git LFS pointer, not the file itself; run `git lfs pull`"

# What a file system answers that has no locks (NFS without lockd, Lustre without -o flock, some FUSE)
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO}
# ... and one that cannot flush a folder (CIFS, vboxsf, some FUSE)
NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM}

# ... a file
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
# ... and one without permissions (CIFS, vboxsf, exFAT)
NO_MODES = {errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EROFS}


class LockTakenError(OSError):
    """Another process holds the lock."""


@contextlib.contextmanager
def file_lock(path: Path, *, blocking: bool = True) -> Iterator[bool]:
    """Hold an exclusive lock on `path`, which is created if it does not exist. The kernel releases it if we are killed.

    Where the file system or the platform has no locks, log a warning and continue without one: files are written
    under temporary names and renamed, so that readers still see whole files.

    Args:
        path: The lock file. Its folder must exist.
        blocking: Wait for another process; otherwise raise.

    Yields:
        True if the lock is held, False where there are no locks.

    Raises:
        LockTakenError: If another process holds the lock and `blocking` is False.
        OSError: If the file cannot be opened.
    """
    with path.open("ab") as handle:
        yield lock_handle(handle.fileno(), path, blocking=blocking)


def lock_handle(descriptor: int, path: Path, *, blocking: bool = True) -> bool:
    """Lock an open file until it is closed; see `file_lock`. `path` names it in the warning."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LockTakenError(errno.EAGAIN, "another process holds the lock", str(path)) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning("%s cannot be locked (%s); do not let two processes write here at once", path, error.strerror)
        return False
    return True


def make_writable_folder(path: Path) -> None:
    """Create a folder if it does not exist, and check that files can be created in it.

    Raises:
        OSError: If it cannot be created or written to.
    """
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        pass


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut.

    Does nothing where folders cannot be flushed: the rename itself keeps each file whole.

    Raises:
        OSError: If the flush fails for another reason, such as a full disk.
    """
    if os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
        log.debug("%s: the folder cannot be flushed (%s)", path, error.strerror)
    finally:
        os.close(handle)


def create_partial(path: Path) -> tuple[int, Path]:
    """Create a temporary file next to `path`, to write to and to rename; return its descriptor and its path.

    Its name begins with a dot and ends in `.partial`, and fits where `path` itself has the longest name allowed.

    Raises:
        OSError: If it cannot be created.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", suffix=".partial", dir=path.parent)
    return handle, Path(name)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that takes `path`'s place only if the block succeeds: readers see a whole file or none.

    It is written under a temporary name, flushed to the disk and renamed. Folders are created. An existing file keeps
    its permissions, and a link to one stays a link.

    Raises:
        OSError: If the file cannot be written; what was at `path` stays.
    """
    with atomic_path(path) as partial, partial.open("r+b") as handle:
        yield handle


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a library that opens files itself; see `atomic_write`."""
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, partial = create_partial(path)
    os.close(descriptor)
    try:
        yield partial
        with partial.open("rb+") as handle:
            sync_file(handle.fileno())
        set_mode(partial, stat.S_IMODE(path.stat().st_mode) if path.exists() else default_mode())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_file(descriptor: int) -> None:
    """Flush an open file to the disk; do nothing where the file system cannot.

    Raises:
        OSError: If the flush fails for another reason, such as a full disk.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
        log.debug("a file cannot be flushed (%s)", error.strerror)


def set_mode(path: Path, mode: int) -> None:
    """Change a file's permissions, where the file system has any (not CIFS, vboxsf, exFAT).

    Raises:
        OSError: If it fails for another reason, such as a missing file.
    """
    try:
        path.chmod(mode)
    except OSError as error:
        if error.errno not in NO_MODES:
            raise
        log.debug("%s: its permissions cannot be changed (%s)", path, error.strerror)


def default_mode() -> int:
    """Return the permissions that a new file gets: read and write, less the umask."""
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def is_lfs_pointer(content: bytes) -> bool:
    """Return whether a file's content, or its first bytes, are those of a Git LFS pointer."""
    return content.startswith(LFS_POINTER)


def is_lfs_pointer_file(path: Path) -> bool:
    """Return whether the file at `path` is a Git LFS pointer; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return is_lfs_pointer(file.read(len(LFS_POINTER)))
    except OSError:
        return False
