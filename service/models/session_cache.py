"""The sessions of a worker that are in memory; the least recently used are evicted when there are too many bytes."""

import itertools
import logging
import shutil
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from service import runtime_folder
from service.models.session import Session
from service.observability.metrics import Metrics

log = logging.getLogger("bentoml.atelier")


class CachedModel(Protocol):
    """What the cache requires of the models that are its keys."""

    @property
    def name(self) -> str:
        """The model's name, for logs and metrics."""

    @property
    def size(self) -> int:
        """Bytes of its file."""

    def read_content(self, max_bytes: int) -> bytes | None:
        """Return the bytes of which its session was made, or None if its file has changed."""


class SessionCache:
    """Sessions of up to `max_bytes` of model files, and always the newest one. Thread-safe.

    Before a session is evicted, its content is copied to a folder of this process, so that the same session can be
    made again even if the file has been overwritten or removed. A model that cannot be copied is not evicted.
    """

    def __init__(self, max_bytes: int, metrics: Metrics, max_model_bytes: int = 2**30):
        self._max_bytes, self._metrics, self._max_model_bytes = max_bytes, metrics, max_model_bytes
        self._lock = threading.Lock()  # over `_sessions`; never held while a file is read
        self._evicting = threading.Lock()
        self._sessions: OrderedDict[CachedModel, Session] = OrderedDict()  # the least recently used first
        self._creating: weakref.WeakKeyDictionary[CachedModel, threading.Lock] = weakref.WeakKeyDictionary()
        self._copies: weakref.WeakKeyDictionary[CachedModel, Path] = weakref.WeakKeyDictionary()
        self._folder: Path | None = None
        self._numbers = itertools.count()

    def __contains__(self, model: CachedModel) -> bool:
        return model in self._sessions

    def get(self, model: CachedModel, make: Callable[[bytes], Session]) -> Session:
        """Return a model's session, and mark it as used.

        Args:
            model: The model.
            make: Makes the session again from the saved content if it was evicted; called once, however many wait.
        """
        session = self._touch(model)
        if session is None:
            with self._lock:
                creating = self._creating.setdefault(model, threading.Lock())
            with creating:
                session = self._touch(model)
                if session is None:
                    session = make(self._copies[model].read_bytes())
                    self.put(model, session, "recalled")
        return session

    def put(self, model: CachedModel, session: Session, reason: str) -> None:
        """Add a session that was just made (`reason` is for the metrics), and evict others if there is no room."""
        self._metrics.model_loads.labels(model.name, reason).inc()
        with self._evicting:
            with self._lock:
                self._sessions[model] = session
                self._sessions.move_to_end(model)
                others = [other for other in self._sessions if other is not model]
                excess = sum(m.size for m in self._sessions) - self._max_bytes
            for other in others:
                if excess <= 0:
                    break
                if self._save_copy(other):
                    self.pop(other)
                    excess -= other.size
            self._report()

    def pop(self, model: CachedModel) -> Session | None:
        """Remove and return a model's session, or None if there is none."""
        with self._lock:
            session = self._sessions.pop(model, None)
        self._report()
        return session

    def close(self) -> None:
        """Remove the copies."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _touch(self, model: CachedModel) -> Session | None:
        with self._lock:
            session = self._sessions.get(model)
            if session is not None:
                self._sessions.move_to_end(model)
            return session

    def _report(self) -> None:
        self._metrics.models_loaded.set(len(self._sessions))

    def _save_copy(self, model: CachedModel) -> bool:
        """Copy a model's content to the folder, unless it is there; return whether it is."""
        if model in self._copies:
            return True
        try:
            content = model.read_content(self._max_model_bytes)
            if content is None:
                return False
            if self._folder is None:
                self._folder = runtime_folder.make("models")
            path = self._folder / f"{next(self._numbers)}.onnx"
            try:
                runtime_folder.allocate(path, len(content))
                with path.open("r+b") as copy:
                    copy.write(content)
            except BaseException:
                path.unlink(missing_ok=True)  # a partial copy is of no use, and takes room
                raise
        except Exception as error:
            log.warning("%s stays in memory: its file could not be copied (%s)", model.name, error)
            return False
        self._copies[model] = path
        weakref.finalize(model, path.unlink, missing_ok=True)
        return True
