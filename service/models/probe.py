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
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from artifacts.files import LockTakenError, lock_handle
from service.models.model_files import FileSignature
from service.server import runtime_folder

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
class TrialRequest:
    """A file to try, what that may use, and how a worker will run the model."""

    path: Path
    signature: FileSignature
    max_bytes: int
    memory_bytes: int
    timeout_s: float
    threads: int
    max_batch: int
    batch_bytes: int

    @cached_property
    def key(self) -> str:
        """A name of the file and the limits."""
        return hashlib.sha256(json.dumps(self._fields()).encode()).hexdigest()

    def line(self) -> bytes:
        """Return the request as the process reads it."""
        return json.dumps({"id": self.key, **self._fields()}).encode() + b"\n"

    def _fields(self) -> dict[str, Any]:
        return {**asdict(self), "path": os.fsencode(self.path.absolute()).hex()}


class Verdict(BaseModel):
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

    model_config = ConfigDict(frozen=True)

    ok: bool
    reason: str = ""
    unreadable: bool = False
    changed: bool = False
    shape: tuple[int, int, int] | None = None
    rows: int = 1
    heavy: bool = False


@lru_cache(maxsize=1)
def prober() -> "Prober":
    """Return this process's prober."""
    return Prober()


class Prober:
    """Requests verdicts from the probe process and returns them. Thread-safe."""

    def __init__(self, folder: Path | None = None):
        """Make a prober; its process is started with the first request.

        Args:
            folder: Where the workers share verdicts. Default: the runtime folder.
        """
        self._folder = (folder or runtime_folder.shared() or runtime_folder.make("probe")) / "verdicts"
        self._changed = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: dict[str, tuple[TrialRequest, IO[bytes] | None]] = {}  # requests, and the lock on each
        self._crashes: dict[str, int] = {}  # how often the process ended with a request
        self._found: OrderedDict[str, Verdict] = OrderedDict()
        self._slow: set[str] = set()

    def request(self, trial: TrialRequest) -> None:
        """Have a file tried, unless it was tried or another worker is trying it."""
        with self._changed:
            self._request(trial)

    def verdict(self, trial: TrialRequest, stop: threading.Event) -> Verdict | None:
        """Wait for the verdict on a file.

        Args:
            trial: The file and its limits.
            stop: Ends the wait.

        Returns:
            The verdict; None if the trial is slow or `stop` is set. The trial continues: call this again later.
        """
        end = time.monotonic() + PATIENCE_S
        with self._changed:
            while True:
                verdict = self._request(trial)
                slow = trial.key in self._slow or self._file("slow", trial.key).exists()
                if verdict is not None or slow or stop.is_set() or time.monotonic() > end:
                    return verdict
                # another worker's verdict arrives as a file, without notice
                self._changed.wait(0.2 if trial.key in self._pending else 0.03)

    def begin_loading(self, trial: TrialRequest) -> bool:
        """Note that this worker begins to load a file; return False if too many workers ended while they did."""
        mark = self._file("loading", trial.key)
        with suppress(OSError):
            if mark.exists() and mark.stat().st_size >= MAX_CRASHES:
                return False
            with mark.open("ab") as file:
                file.write(b".")
        return True

    def end_loading(self, trial: TrialRequest) -> None:
        """Note that the file has been loaded or rejected."""
        with suppress(OSError):
            self._file("loading", trial.key).unlink(missing_ok=True)

    def close(self) -> None:
        """End the process, and with it the trials."""
        with self._changed:
            process, self._process = self._process, None
            for _, lock in self._pending.values():
                _release(lock)
            self._pending.clear()
        if process is not None:
            _close_input(process)

    def _file(self, kind: str, key: str) -> Path:
        return self._folder / f"{kind}-{key}"

    def _request(self, trial: TrialRequest) -> Verdict | None:
        key = trial.key
        if (verdict := self._known(key)) is not None or key in self._pending:
            return verdict
        try:
            lock = self._claim(key)
        except LockTakenError:
            return None
        if (verdict := self._known(key)) is not None:  # it came just before
            _release(lock)
            return verdict
        self._pending[key] = trial, lock
        try:
            self._send(trial)
        except OSError as error:
            _release(self._pending.pop(key)[1])
            return _not_started(error, unreadable=True)
        return None

    def _known(self, key: str) -> Verdict | None:
        if key in self._found:
            verdict = self._found[key]
            if verdict.unreadable or verdict.changed:
                del self._found[key]  # returned once
            return verdict
        try:
            verdict = Verdict.model_validate_json(self._file("verdict", key).read_bytes())
        except (OSError, ValueError):
            return None
        self._keep(key, verdict)
        return verdict

    def _claim(self, key: str) -> IO[bytes] | None:
        """Return the lock on a file to try, which the kernel releases if the worker dies.

        Returns:
            The lock; None on a full disk, where each worker tries for itself.

        Raises:
            LockTakenError: If another worker tries the file, or has just done so.
        """
        path, lock = self._file("lock", key), None
        try:
            self._folder.mkdir(exist_ok=True)
            lock = path.open("ab")
            lock_handle(lock.fileno(), path, blocking=False)
            if path.stat().st_ino == os.fstat(lock.fileno()).st_ino:
                return lock
            raise LockTakenError
        except OSError as error:
            if lock is not None:
                lock.close()
            if isinstance(error, (LockTakenError, FileNotFoundError)):
                raise LockTakenError from None
            return None

    def _send(self, trial: TrialRequest) -> None:
        """Write a request to the process, which is started if it does not run; OSError if it cannot be."""
        for again in (True, False):
            process = self._process = self._process or self._start()
            try:
                assert process.stdin is not None
                process.stdin.write(trial.line())
                process.stdin.flush()
                return
            except OSError:
                self._process = None
                if not again:
                    raise

    def _start(self) -> "subprocess.Popen[bytes]":
        inherited = {name: value for name, value in os.environ.items() if name in INHERITED}
        # one thread: a process that has others cannot be forked safely
        environment = {**inherited, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
        process = subprocess.Popen(
            [sys.executable, "-P", str(CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(process,), name="verdicts", daemon=True).start()
        return process

    def _listen(self, process: "subprocess.Popen[bytes]") -> None:
        """Receive verdicts, on a thread, until the process ends or has had nothing to do for a while."""
        assert process.stdout is not None
        descriptor, unread, idle_since = process.stdout.fileno(), b"", time.monotonic()
        while True:
            if not select.select([descriptor], [], [], 1.0)[0]:
                with self._changed:
                    if self._pending or self._process is not process:
                        idle_since = time.monotonic()
                    elif time.monotonic() > idle_since + IDLE_S:
                        self._process = None
                        _close_input(process)
                continue
            part = os.read(descriptor, 65536)
            if not part:
                break
            *lines, unread = (unread + part).split(b"\n")
            for line in lines:
                self._receive(json.loads(line))
            idle_since = time.monotonic()
        process.wait()
        _close_input(process)
        process.stdout.close()
        with self._changed:
            if self._process is process:
                self._process = None
            if self._process is None:
                self._handle_crash()
            self._changed.notify_all()

    def _receive(self, message: dict[str, Any]) -> None:
        key = message["id"]
        with self._changed:
            if "slow" in message:
                self._slow.add(key)
                with suppress(OSError):
                    self._file("slow", key).touch()
            else:
                try:
                    verdict = Verdict.model_validate(message["verdict"])
                except ValueError:
                    verdict = Verdict(ok=False, reason="the process that tries it gave no verdict")
                self._conclude(key, verdict)
            self._changed.notify_all()

    def _handle_crash(self) -> None:
        """Send the pending requests once more, because the process itself has ended."""
        for key, (trial, _) in list(self._pending.items()):
            self._crashes[key] = self._crashes.get(key, 0) + 1
            if self._crashes[key] > 1:
                self._conclude(key, Verdict(ok=False, reason="the process that tries it ends"))
                continue
            try:
                self._send(trial)
            except OSError as error:
                self._conclude(key, _not_started(error))

    def _conclude(self, key: str, verdict: Verdict) -> None:
        _, lock = self._pending.pop(key, (None, None))
        self._crashes.pop(key, None)
        self._slow.discard(key)
        self._keep(key, verdict)
        with suppress(OSError):
            self._file("slow", key).unlink(missing_ok=True)
            if not verdict.unreadable and not verdict.changed:
                self._folder.mkdir(exist_ok=True)
                partial = self._file("partial", str(os.getpid()))
                partial.write_text(verdict.model_dump_json(), encoding="utf-8")
                partial.replace(self._file("verdict", key))
                old = sorted(self._folder.glob("verdict-*"), key=lambda path: path.stat().st_mtime)
                for path in old[:-KEPT]:
                    path.unlink(missing_ok=True)
        _release(lock)

    def _keep(self, key: str, verdict: Verdict) -> None:
        self._found[key] = verdict
        while len(self._found) > KEPT:
            self._found.popitem(last=False)


def _not_started(error: OSError, unreadable: bool = False) -> Verdict:
    reason = f"the process that tries it does not start: {error.strerror}"
    return Verdict(ok=False, reason=reason, unreadable=unreadable)


def _close_input(process: "subprocess.Popen[bytes]") -> None:
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _release(lock: IO[bytes] | None) -> None:
    if lock is not None:
        with suppress(OSError):
            Path(lock.name).unlink()
        lock.close()
