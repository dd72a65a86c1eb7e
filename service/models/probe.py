"""Verdicts on model files, found in a separate process, so that no file can stop a worker.

`probe_child.py` is that process. It is started when a file has to be tried and ends when there is nothing more to
try. Workers of one service share their verdicts in the runtime folder: a file is tried once, and a file that ended
the process is not tried again until it changes.
"""

import hashlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from artifacts.files import LockTakenError, lock_handle
from service import runtime_folder
from service.models.model_files import FileSignature

log = logging.getLogger("bentoml.atelier")

CHILD = Path(__file__).with_name("probe_child.py")
PATIENCE_S = 60.0  # that a scan waits for one file, unless its trial turns out to be slow
IDLE_S = 10.0
KEPT = 512  # verdicts in memory, and in the folder
MAX_CRASHES = 3  # workers that may end while they load one file
# the environment of the process: what Python and its libraries need to start, and no secret
INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SYSTEMROOT", "DYLD_LIBRARY_PATH"}
)


@dataclass(frozen=True)
class Limits:
    """What a trial may use, and how a worker will run the model."""

    max_bytes: int
    memory_bytes: int
    timeout_s: float
    threads: int
    max_batch: int
    batch_bytes: int


@dataclass(frozen=True)
class Verdict:
    """The result of a trial.

    Attributes:
        ok: Whether the file can be loaded.
        reason: Why it cannot, on one line.
        unreadable: Its content is unknown; the next trial may succeed.
        changed: It is no longer the file that was to be tried.
        shape: The images' [C, H, W].
        rows: The most rows that one batch may have.
        heavy: Whether even one row takes more memory than a batch should.
    """

    ok: bool
    reason: str = ""
    unreadable: bool = False
    changed: bool = False
    shape: tuple[int, int, int] | None = None
    rows: int = 1
    heavy: bool = False

    @classmethod
    def parse(cls, found: dict[str, Any]) -> "Verdict":
        """Return the verdict in a line of the process or in a file of the folder.

        Raises:
            ValueError: If it is not a verdict.
            TypeError: If it is not a verdict.
        """
        shape = found.get("shape")
        return cls(**{**found, "shape": None if shape is None else tuple(shape)})


@lru_cache(maxsize=1)
def prober() -> "Prober":
    """Return this process's prober."""
    return Prober()


class Prober:
    """Requests verdicts from the probe process and returns them. Thread-safe."""

    def __init__(self, folder: Path | None = None):
        """Make a prober; its process is started with the first request.

        Args:
            folder: Where the workers share verdicts. Default: the runtime folder, if there is one.
        """
        shared = folder or runtime_folder.shared()
        self._folder = None if shared is None else shared / "verdicts"
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[str, tuple[dict[str, Any], IO[bytes] | None]] = {}  # requests, and the lock on each
        self._crashes: dict[str, int] = {}  # how often the process ended with a request
        self._found: OrderedDict[str, Verdict] = OrderedDict()
        self._slow: set[str] = set()

    def request(self, path: Path, found: FileSignature, limits: Limits) -> None:
        """Have a file tried, unless it was tried or another worker is trying it."""
        key = _key(path, found, limits)
        with self._changed:
            self._request(key, path, found, limits)

    def verdict(self, path: Path, found: FileSignature, limits: Limits, stop: threading.Event) -> Verdict | None:
        """Wait for the verdict on a file.

        Args:
            path: The file.
            found: Its signature.
            limits: What the trial may use.
            stop: Ends the wait.

        Returns:
            The verdict; None if the trial is slow or `stop` is set. The trial continues: call this again later.
        """
        key = _key(path, found, limits)
        end = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                verdict = self._request(key, path, found, limits)
                if verdict is not None or self._is_slow(key) or stop.is_set() or time.monotonic() > end:
                    return verdict
                # another worker's verdict arrives as a file, without notice
                self._changed.wait(0.2 if key in self._pending else 0.03)

    def begin_loading(self, path: Path, found: FileSignature, limits: Limits) -> bool:
        """Note that this worker begins to load a file; return False if too many workers ended while they did."""
        if self._folder is None:
            return True
        mark = self._folder / f"loading-{_key(path, found, limits)}"
        try:
            crashes = len(mark.read_bytes()) if mark.exists() else 0
            if crashes >= MAX_CRASHES:
                return False
            with mark.open("ab") as file:
                file.write(b".")
        except OSError:
            pass
        return True

    def end_loading(self, path: Path, found: FileSignature, limits: Limits) -> None:
        """Note that the file has been loaded or rejected."""
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / f"loading-{_key(path, found, limits)}").unlink(missing_ok=True)

    def close(self) -> None:
        """End the process, and with it the trials."""
        with self._changed:
            process, self._process = self._process, None
            for _, lock in self._pending.values():
                _release(lock)
            self._pending.clear()
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()

    def _request(self, key: str, path: Path, found: FileSignature, limits: Limits) -> Verdict | None:
        if (verdict := self._known(key)) is not None or key in self._pending:
            return verdict
        claimed, lock = self._claim(key)
        if not claimed:
            return None
        if (verdict := self._known(key)) is not None:  # it came just before
            _release(lock)
            return verdict
        request = {"id": key, "path": os.fsencode(path.absolute()).hex(), "signature": list(found), **vars(limits)}
        self._pending[key] = request, lock
        try:
            self._send(request)
        except OSError as error:
            _release(self._pending.pop(key)[1])
            return Verdict(False, f"the process that tries it does not start: {error.strerror}", unreadable=True)
        return None

    def _known(self, key: str) -> Verdict | None:
        if key in self._found:
            verdict = self._found[key]
            if verdict.unreadable or verdict.changed:
                del self._found[key]  # returned once
            return verdict
        if self._folder is None:
            return None
        try:
            verdict = Verdict.parse(json.loads((self._folder / f"verdict-{key}").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None
        self._keep(key, verdict)
        return verdict

    def _is_slow(self, key: str) -> bool:
        return key in self._slow or (self._folder is not None and (self._folder / f"slow-{key}").exists())

    def _claim(self, key: str) -> tuple[bool, IO[bytes] | None]:
        """Return whether this worker is to try a file, and its lock, which the kernel releases if the worker dies."""
        if self._folder is None:
            return True, None
        lock = None
        try:
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"lock-{key}"
            lock = path.open("ab")
            lock_handle(lock.fileno(), path, blocking=False)
            if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return True, lock
        except (LockTakenError, FileNotFoundError):
            pass  # another worker tries it, or has just done so
        except OSError:  # a full disk: then each worker tries for itself
            if lock is not None:
                lock.close()
            return True, None
        if lock is not None:
            lock.close()
        return False, None

    def _send(self, request: dict[str, Any]) -> None:
        """Write a request to the process, which is started if it does not run; OSError if it cannot be."""
        for again in (True, False):
            if self._process is None:
                self._start()
            process = self._process
            assert process is not None
            assert process.stdin is not None
            try:
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.flush()
                return
            except OSError:
                self._process = None
                if not again:
                    raise

    def _start(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if name in INHERITED}
        # one thread: a process that has others cannot be forked safely
        environment = {**inherited, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(self._process,), name="verdicts", daemon=True).start()

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        """Receive verdicts, on a thread, until the process ends or has had nothing to do for a while."""
        assert process.stdout is not None
        assert process.stdin is not None
        descriptor, unread, idle_since = process.stdout.fileno(), b"", time.monotonic()
        while True:
            if not select.select([descriptor], [], [], 1.0)[0]:
                with self._changed:
                    if self._pending or self._process is not process:
                        idle_since = time.monotonic()
                    elif time.monotonic() > idle_since + IDLE_S:
                        self._process = None
                        with suppress(OSError):
                            process.stdin.close()
                continue
            part = os.read(descriptor, 65536)
            if not part:
                break
            *lines, unread = (unread + part).split(b"\n")
            for line in lines:
                self._receive(json.loads(line))
            idle_since = time.monotonic()
        process.wait()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        with self._changed:
            if self._process is process:
                self._process = None
            if self._process is None:
                self._handle_crash()
            self._changed.notify_all()

    def _receive(self, message: dict[str, Any]) -> None:
        with self._changed:
            if "slow" in message:
                self._slow.add(message["id"])
                if self._folder is not None:
                    with suppress(OSError):
                        (self._folder / f"slow-{message['id']}").touch()
            else:
                try:
                    verdict = Verdict.parse(message["verdict"])
                except (TypeError, ValueError):
                    verdict = Verdict(False, "the process that tries it gave no verdict")
                self._conclude(message["id"], verdict)
            self._changed.notify_all()

    def _handle_crash(self) -> None:
        """Send the pending requests once more, because the process itself has ended."""
        for key, (request, _) in list(self._pending.items()):
            self._crashes[key] = self._crashes.get(key, 0) + 1
            if self._crashes[key] > 1:
                self._conclude(key, Verdict(False, "the process that tries it ends"))
                continue
            try:
                self._send(request)
            except OSError as error:
                self._conclude(key, Verdict(False, f"the process that tries it does not start: {error.strerror}"))

    def _conclude(self, key: str, verdict: Verdict) -> None:
        _, lock = self._pending.pop(key, ({}, None))
        self._crashes.pop(key, None)
        self._slow.discard(key)
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / f"slow-{key}").unlink(missing_ok=True)
        self._keep(key, verdict)
        if self._folder is not None and not verdict.unreadable and not verdict.changed:
            with suppress(OSError):
                self._folder.mkdir(exist_ok=True)
                partial = self._folder / f"partial-{os.getpid()}"
                partial.write_text(json.dumps(vars(verdict)), encoding="utf-8")
                partial.replace(self._folder / f"verdict-{key}")
                old = sorted(self._folder.glob("verdict-*"), key=lambda path: path.stat().st_mtime)
                for path in old[:-KEPT]:
                    path.unlink(missing_ok=True)
        _release(lock)

    def _keep(self, key: str, verdict: Verdict) -> None:
        self._found[key] = verdict
        while len(self._found) > KEPT:
            self._found.popitem(last=False)


def _release(lock: IO[bytes] | None) -> None:
    if lock is not None:
        with suppress(OSError):
            Path(lock.name).unlink()
        lock.close()


def _key(path: Path, found: FileSignature, limits: Limits) -> str:
    identity = repr((os.fsencode(path.absolute()), found, limits))
    return hashlib.sha256(identity.encode()).hexdigest()
