"""The service's folders in TMPDIR. Each is locked while its owner lives, so what a killed process left is removed."""

import atexit
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from service.server.posix_modules import fcntl

SHARED = "ATELIER_METRICS_FOLDER"  # not a setting: the supervisor names the folder to its workers
PREFIX, LOCK = "atelier-", "owner"
TRIES = 5


def shared() -> Path | None:
    """The folder that the supervisor and its workers share; None: this process has no supervisor."""
    folder = os.environ.get(SHARED)
    return Path(folder) if folder and Path(folder).is_dir() else None


def keep_temporary_files() -> None:
    """Have this worker's temporary files (BentoML makes some) in the shared folder, with which they are removed.

    What a killed worker left there is removed now: it may be what fills the disk.
    """
    if (folder := shared()) is not None:
        tempfile.tempdir = str(folder)
        remove_dead(folder)


def make(kind: str) -> Path:
    """Make a folder that belongs to this process, which removes it when it ends, and remove those of dead processes.

    Raises:
        OSError: If the folder for temporary files cannot be written.
    """
    remove_dead(Path(tempfile.gettempdir()))
    for _ in range(TRIES):
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{kind}-"))
        try:
            descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # open until this process ends
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another process took it for a dead one's in between, and removes it
            os.close(descriptor)
            continue
        except OSError:  # no locks here: it is removed when this process ends, or never
            break
        if (folder / LOCK).exists():
            break
        os.close(descriptor)
    atexit.register(_remove_own, folder, os.getpid())
    return folder


def remove_dead(place: Path) -> None:
    """Remove this user's folders in `place` whose owner no longer lives."""
    with suppress(OSError):
        for folder in place.glob(f"{PREFIX}*"):
            with suppress(OSError):
                found = folder.lstat()
                if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid():
                    _remove_if_dead(folder)


def allocate(path: Path, size: int) -> None:
    """Make a file of zeros whose room on the disk is reserved: memory mapped to it can always be written.

    Raises:
        OSError: If there is no room; then there is no file.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _remove_if_dead(folder: Path) -> None:
    """OSError: it is not ours to remove, or has no lock (another program's, or one that is being made)."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _remove_own(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
