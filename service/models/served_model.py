"""The generators that are served, and their sessions, of which the least recently used are evicted from memory."""

import hashlib
import itertools
import logging
import shutil
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.generator_file import ContractError, Metadata
from artifacts.onnx_metadata import onnx_error_message
from service.models.model_files import ValidatedModel, display_name, read_model_bytes, validate_model
from service.models.session import Runtime, Session
from service.observability.metrics import Metrics
from service.server import runtime_folder

log = logging.getLogger("bentoml.atelier")


class ServedModel:
    """A valid generator file. `run` works at any time: a session that was evicted is made again.

    Attributes:
        path: Its file.
        metadata: What the file says about itself.
        size: Bytes of the file, its external weights included.
        provider: ONNX Runtime's execution provider.
        batch_rows: The smallest batch size that is about as fast per row as any.
        replaced: Whether it is no longer served; requests that chose it before are still answered.
    """

    def __init__(
        self, path: Path, file: bytes, model: ValidatedModel, runtime: Runtime, cache: "SessionCache", reason: str
    ):
        """Make the session, run it once in each size, and add it to the cache.

        Args:
            path: The file.
            file: Its bytes.
            model: Its validated content.
            runtime: How the session runs.
            cache: Where the session is kept.
            reason: Why it is loaded, for the metrics.

        Raises:
            ContractError: If it does not run, or its images are not those that the metadata promises.
        """
        self._runtime, self._cache, self._batch = runtime, cache, model.batch
        self.kept: Session | None = None  # once replaced, because the cache drops it
        self.loading = threading.Lock()  # held while an evicted session is made again
        self.copy: Path | None = None  # of the content, once its session was evicted
        self.replaced = False
        self.update_source(path, file, model.metadata)
        session = self.make_session(model.content)
        self.provider = session.provider
        self.batch_rows = session.best_batch(self.metadata.z_dim, self.metadata.num_classes, runtime.max_batch)
        cache.put(self, session, reason)

    @property
    def name(self) -> str:
        """The name by which requests choose it."""
        return self.metadata.name

    @property
    def loaded(self) -> bool:
        """Whether its session is in memory."""
        return self.kept is not None or self in self._cache

    def run(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None, exclusive: bool = True
    ) -> NDArray[np.uint8]:
        """Generate images, within the deadline of a request; see `Session.run`."""
        return self.load().run(latents, labels, exclusive, limited=True)

    def load(self) -> Session:
        """Return the session; make it again if it was evicted."""
        if self.kept is not None:
            return self.kept
        session = self._cache.get(self)
        if self.replaced:
            self.kept = session
            self._cache.pop(self)
        return session

    def mark_replaced(self) -> None:
        """Take the session out of the cache; it lives until the last request that needs it."""
        self.replaced = True
        self.kept = self._cache.touch(self) or self.kept  # before the cache drops it: a request may be looking for it
        self._cache.pop(self)

    def update_source(self, path: Path, file: bytes, metadata: Metadata) -> None:
        """Take note that the same generator is in another file: renamed, touched, or with new scores."""
        self.path, self.metadata = path, metadata
        self.size, self.sha256 = len(file), hashlib.sha256(file).digest()

    def read_content(self, max_bytes: int) -> bytes | None:
        """Return the bytes of which the session was made, or None if the file has changed.

        Raises:
            ContractError: If the file is unreadable or larger than `max_bytes`.
        """
        file = read_model_bytes(self.path, max_bytes)
        if hashlib.sha256(file).digest() != self.sha256:
            return None
        height, width, channels = self.metadata.image_shape
        return validate_model(self.path, file, (channels, height, width)).content

    def make_session(self, content: bytes) -> Session:
        """Make a session and run the smallest and the largest batch (on a GPU each size), and the last class."""
        m, largest = self.metadata, self._runtime.max_batch
        try:
            session = Session(content, self._runtime, self._batch)
            sizes = (1, *(size for size in session.sizes or () if size <= largest), largest)
            for n, label in dict.fromkeys([(1, 0), (1, max(0, m.num_classes - 1)), *((size, 0) for size in sizes)]):
                check_run(session, m, n, label)
        except ContractError:
            raise
        except Exception as error:
            raise ContractError(f"ONNX Runtime does not run it: {onnx_error_message(error)}") from None
        return session

    def describe(self) -> dict[str, Any]:
        """Return the model's entry in /v1/models; `batch` is the only batch size of its graph, if it has one."""
        return {
            **vars(self.metadata),
            "file": display_name(self.path),
            "bytes": self.size,
            "batch": self._batch,
            "provider": self.provider,
            "loaded": self.loaded,
        }


class SessionCache:
    """Sessions of up to `max_bytes` of model files, and always the newest one. Thread-safe.

    Before a session is evicted, its content is copied to a folder of this process, so that the same session can be
    made again even if the file has been overwritten or removed. A model that cannot be copied is not evicted.
    """

    def __init__(self, max_bytes: int, metrics: Metrics, max_model_bytes: int = 2**30):
        self._max_bytes, self._metrics, self._max_model_bytes = max_bytes, metrics, max_model_bytes
        self._lock = threading.Lock()  # over `_sessions`; never held while a file is read
        self._evicting = threading.Lock()
        self._sessions: OrderedDict[ServedModel, Session] = OrderedDict()  # the least recently used first
        self._folder: Path | None = None
        self._numbers = itertools.count()

    def __contains__(self, model: ServedModel) -> bool:
        return model in self._sessions

    def get(self, model: ServedModel) -> Session:
        """Return a model's session, and mark it as used; if it was evicted, make it again from the saved content."""
        session = self.touch(model)
        if session is None:
            with model.loading:
                session = self.touch(model) or model.kept
                if session is None:
                    assert model.copy is not None
                    session = model.make_session(model.copy.read_bytes())
                    self.put(model, session, "recalled")
        return session

    def put(self, model: ServedModel, session: Session, reason: str) -> None:
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

    def pop(self, model: ServedModel) -> Session | None:
        """Remove and return a model's session, or None if there is none."""
        with self._lock:
            session = self._sessions.pop(model, None)
        self._report()
        return session

    def close(self) -> None:
        """Remove the copies."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def touch(self, model: ServedModel) -> Session | None:
        """Return a model's session and mark it as used, or None if it is not in memory."""
        with self._lock:
            session = self._sessions.get(model)
            if session is not None:
                self._sessions.move_to_end(model)
            return session

    def _report(self) -> None:
        self._metrics.models_loaded.set(len(self._sessions))

    def _save_copy(self, model: ServedModel) -> bool:
        """Copy a model's content to the folder, unless it is there; return whether it is."""
        if model.copy is not None:
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
        model.copy = path
        weakref.finalize(model, path.unlink, missing_ok=True)
        return True


def check_run(session: Session, metadata: Metadata, rows: int, label: int) -> None:
    """Run a batch of zeros and check its images.

    Raises:
        ContractError: If they are not those that the metadata promises, or the graph does not run this label.
    """
    latents = np.zeros((rows, metadata.z_dim), np.float32)
    try:
        images = session.run(latents, np.full(rows, label, np.int64) if metadata.num_classes else None)
    except Exception as error:
        if not label:
            raise
        message = f"class_names has {metadata.num_classes} classes, but the graph does not run label {label}: "
        raise ContractError(message + onnx_error_message(error)) from None
    if images.shape != (rows, *metadata.image_shape) or images.dtype != np.uint8:
        raise ContractError(
            f"{rows} latents gave {images.dtype} {list(images.shape)}, not uint8 {[rows, *metadata.image_shape]}"
        )
