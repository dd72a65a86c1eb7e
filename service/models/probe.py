"""Verdicts on model files, found in a process of their own, so that no file can stop a worker.

`probe_child.py` is that process. It is started when a file has to be tried and ends when there is nothing left to
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
from service.models.file_signature import Signature

log = logging.getLogger("bentoml.atelier")

CHILD = Path(__file__).with_name("probe_child.py")
PATIENCE_S = 60.0  # that a look at the folder waits for one file, unless its trial turns out to be slow
IDLE_S = 10.0
KEPT = 512  # verdicts in memory, and in the folder
MAX_FALLS = 3  # workers that may end while they load one file
# what the process inherits: what Python and its libraries need to start, and no secret
INHERITED = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "SYSTEMROOT", "DYLD_LIBRARY_PATH"}
)


@dataclass(frozen=True)
class Limits:
    """What a trial may take, and how a worker will run the model. All but `timeout_s` in bytes, rows or threads."""

    max_bytes: int
    memory_bytes: int
    timeout_s: float
    threads: int
    max_batch: int
    batch_bytes: int


@dataclass(frozen=True)
class Verdict:
    """What came of a trial.

    ok: The file can be loaded: its images are `shape` ([C, H, W]), one batch may have `rows`, and it is `heavy` if
        even one row takes more memory than a batch should.
    reason: Why it cannot, on one line.
    unreadable: Nothing is known of its content; the next try may succeed.
    changed: It is no longer the file that was to be tried.
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
        """The verdict in a line of the process or in a file of the folder. ValueError, TypeError: it is none."""
        shape = found.get("shape")
        return cls(**{**found, "shape": None if shape is None else tuple(shape)})


@lru_cache(maxsize=1)
def prober() -> "Prober":
    """This process's prober."""
    return Prober()


class Prober:
    """Asks for verdicts and hands them out. Thread-safe.

    folder: Where the service's workers share verdicts; None: the runtime folder, if there is one.
    """

    def __init__(self, folder: Path | None = None):
        shared = folder or runtime_folder.shared()
        self._folder = None if shared is None else shared / "verdicts"
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._asked: dict[str, tuple[dict[str, Any], IO[bytes] | None]] = {}  # requests, and the lock on each
        self._falls: dict[str, int] = {}  # times that the process ended with a request
        self._found: OrderedDict[str, Verdict] = OrderedDict()
        self._slow: set[str] = set()

    def ask(self, path: Path, found: Signature, limits: Limits) -> None:
        """Have a file tried, unless it was, or is being tried by another worker."""
        key = _key(path, found, limits)
        with self._changed:
            self._ask(key, path, found, limits)

    def verdict(self, path: Path, found: Signature, limits: Limits, stop: threading.Event) -> Verdict | None:
        """Return the verdict on a file, or None where its trial is slow, or `stop` is set.

        Ask again later then: the trial continues.
        """
        key = _key(path, found, limits)
        end = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                verdict = self._ask(key, path, found, limits)
                if verdict is not None or self._is_slow(key) or stop.is_set() or time.monotonic() > end:
                    return verdict
                # another worker's verdict arrives as a file, which nobody announces
                self._changed.wait(0.2 if key in self._asked else 0.03)

    def loading(self, path: Path, found: Signature, limits: Limits) -> bool:
        """Note that this worker begins to load a file. False: too many ended while they did."""
        if self._folder is None:
            return True
        mark = self._folder / f"loading-{_key(path, found, limits)}"
        try:
            falls = len(mark.read_bytes()) if mark.exists() else 0
            if falls >= MAX_FALLS:
                return False
            with mark.open("ab") as file:
                file.write(b".")
        except OSError:
            pass
        return True

    def loaded(self, path: Path, found: Signature, limits: Limits) -> None:
        """Note that it has been loaded, or refused."""
        if self._folder is not None:
            with suppress(OSError):
                (self._folder / f"loading-{_key(path, found, limits)}").unlink(missing_ok=True)

    def close(self) -> None:
        """End the process, and with it what it is trying."""
        with self._changed:
            process, self._process = self._process, None
            for _, lock in self._asked.values():
                _release(lock)
            self._asked.clear()
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.close()

    def _ask(self, key: str, path: Path, found: Signature, limits: Limits) -> Verdict | None:
        if (verdict := self._known(key)) is not None or key in self._asked:
            return verdict
        claimed, lock = self._claim(key)
        if not claimed:
            return None
        if (verdict := self._known(key)) is not None:  # it came just before
            _release(lock)
            return verdict
        request = {"id": key, "path": os.fsencode(path.absolute()).hex(), "signature": list(found), **vars(limits)}
        self._asked[key] = request, lock
        try:
            self._send(request)
        except OSError as error:
            _release(self._asked.pop(key)[1])
            return Verdict(False, f"the process that tries it does not start: {error.strerror}", unreadable=True)
        return None

    def _known(self, key: str) -> Verdict | None:
        if key in self._found:
            verdict = self._found[key]
            if verdict.unreadable or verdict.changed:
                del self._found[key]  # handed out once
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
        """Whether this worker is the one that tries a file; and its lock, which the kernel releases if it dies."""
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
            pass  # another tries it, or has just done so
        except OSError:  # a full disk: then each worker tries for itself
            if lock is not None:
                lock.close()
            return True, None
        if lock is not None:
            lock.close()
        return False, None

    def _send(self, request: dict[str, Any]) -> None:
        """OSError: the process cannot be started."""
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
        kept = {name: value for name, value in os.environ.items() if name in INHERITED}
        # one thread: a process that has others cannot be forked safely
        environment = {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
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
        """On a thread: take verdicts until the process ends, or has had nothing to do for a while."""
        assert process.stdout is not None
        assert process.stdin is not None
        descriptor, unread, idle_since = process.stdout.fileno(), b"", time.monotonic()
        while True:
            if not select.select([descriptor], [], [], 1.0)[0]:
                with self._changed:
                    if self._asked or self._process is not process:
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
                self._take(json.loads(line))
            idle_since = time.monotonic()
        process.wait()
        with suppress(OSError):
            process.stdin.close()
        process.stdout.close()
        with self._changed:
            if self._process is process:
                self._process = None
            if self._process is None:
                self._fallen()
            self._changed.notify_all()

    def _take(self, message: dict[str, Any]) -> None:
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

    def _fallen(self) -> None:
        """The process itself has ended: what it was asked is asked once more."""
        for key, (request, _) in list(self._asked.items()):
            self._falls[key] = self._falls.get(key, 0) + 1
            if self._falls[key] > 1:
                self._conclude(key, Verdict(False, "the process that tries it ends"))
                continue
            try:
                self._send(request)
            except OSError as error:
                self._conclude(key, Verdict(False, f"the process that tries it does not start: {error.strerror}"))

    def _conclude(self, key: str, verdict: Verdict) -> None:
        _, lock = self._asked.pop(key, ({}, None))
        self._falls.pop(key, None)
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


def _key(path: Path, found: Signature, limits: Limits) -> str:
    told = repr((os.fsencode(path.absolute()), found, limits))
    return hashlib.sha256(told.encode()).hexdigest()
