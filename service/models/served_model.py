"""One generator that is served: what its file says, and the session that runs it while it is in memory."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.generator_file import ContractError, Metadata
from artifacts.onnx_files import onnx_reason
from service.models.file_signature import shown_name
from service.models.loader import Prepared, prepare, read
from service.models.session_cache import Shelf
from service.models.sessions import Runtime, Session


class Generator:
    """A sound generator file. `run` works at any time: a session that made room for others is brought back.

    `retired`: another has taken its place; what was asked of it before is still answered.
    """

    def __init__(self, path: Path, file: bytes, prepared: Prepared, runtime: Runtime, shelf: Shelf | None = None):
        self.path, self.metadata = path, prepared.metadata
        self.size, self.sha256 = len(file), hashlib.sha256(file).digest()
        self.retired = False
        self._runtime, self._shelf, self._batch = runtime, shelf, prepared.batch
        self._lock = threading.Lock()
        self._session: Session | None = self._warm(prepared.content)
        self.provider = self._session.provider
        m = self.metadata
        self.batch_rows = self._session.best_batch(m.z_dim, m.num_classes, runtime.max_batch)

    @property
    def loaded(self) -> bool:
        return self._session is not None

    def run(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None, alone: bool = True
    ) -> NDArray[np.uint8]:
        """latents float32 [N, z_dim] (and labels int64 [N] if conditional) → images uint8 [N, H, W, C].

        alone: on all the worker's threads; else on a lane's share of them.
        """
        session = self._session or self.recall()
        if self._shelf is not None:
            self._shelf.touch(self)
        return session.run(latents, labels, alone, limited=True)

    def recall(self) -> Session:
        """The session, made again from the shelf's copy if it is not in memory; once, however many ask."""
        with self._lock:
            session = self._session
            if session is None:
                assert self._shelf is not None
                self._session = session = self._warm(self._shelf.content(self))
                self._shelf.hold(self, "recalled")
        return session

    def became(self, path: Path, file: bytes, metadata: Metadata) -> None:
        """The same generator in another file: renamed, touched, or stamped with a score."""
        self.path, self.metadata = path, metadata
        self.size, self.sha256 = len(file), hashlib.sha256(file).digest()

    def forget(self) -> None:
        """Let go of the session; batches that run on it end first."""
        self._session = None

    def _warm(self, content: bytes) -> Session:
        """A session that has run once in each size. ContractError: not the images promised, or it does not run."""
        try:
            session = Session(content, self._runtime, self._batch)
            self._try(session)
        except ContractError:
            raise
        except Exception as error:
            raise ContractError(f"ONNX Runtime does not run it: {onnx_reason(error)}") from None
        return session

    def _try(self, session: Session) -> None:
        """Run the smallest and the largest batch (on a GPU each size), and the last class."""
        m, largest = self.metadata, self._runtime.max_batch
        sizes = (1, *(size for size in session.sizes or () if size <= largest), largest)
        for n, label in dict.fromkeys([(1, 0), (1, max(0, m.num_classes - 1)), *((size, 0) for size in sizes)]):
            check_run(session, m, n, label)

    def describe(self) -> dict[str, Any]:
        """The model as /v1/models tells it; `bytes` of its file, `batch` if its graph takes no other."""
        return {
            **vars(self.metadata),
            "file": shown_name(self.path),
            "bytes": self.size,
            "batch": self._batch,
            "provider": self.provider,
            "loaded": self.loaded,
        }


def check_run(session: Session, metadata: Metadata, rows: int, label: int) -> None:
    """Run a batch of zeros. ContractError: not the images that the metadata promise, or it does not run this label."""
    latents = np.zeros((rows, metadata.z_dim), np.float32)
    try:
        images = session.run(latents, np.full(rows, label, np.int64) if metadata.num_classes else None)
    except Exception as error:
        if not label:
            raise
        message = f"class_names has {metadata.num_classes} classes, but the graph does not run label {label}: "
        raise ContractError(message + onnx_reason(error)) from None
    if images.shape != (rows, *metadata.image_shape) or images.dtype != np.uint8:
        raise ContractError(
            f"{rows} latents gave {images.dtype} {list(images.shape)}, not uint8 {[rows, *metadata.image_shape]}"
        )


def load(path: Path, max_bytes: int, runtime: Runtime, shelf: Shelf | None = None) -> Generator:
    """Read, check and warm up one generator file. ContractError: it is refused, and why."""
    content = read(path, max_bytes)
    return Generator(path, content, prepare(path, content), runtime, shelf)
