"""One generator that is served: its metadata, and the session that runs it while it is in memory."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifacts.generator_file import ContractError, Metadata
from artifacts.onnx_metadata import onnx_error_message
from service.models.model_files import ValidatedModel, display_name, read_model_bytes, validate_model
from service.models.session import Runtime, Session
from service.models.session_cache import SessionCache


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
        self, path: Path, file: bytes, model: ValidatedModel, runtime: Runtime, cache: SessionCache, reason: str
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
        self._kept: Session | None = None  # once replaced, because the cache drops it
        self.replaced = False
        self.update_source(path, file, model.metadata)
        session = self._make_session(model.content)
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
        return self._kept is not None or self in self._cache

    def run(
        self, latents: NDArray[np.float32], labels: NDArray[np.int64] | None, exclusive: bool = True
    ) -> NDArray[np.uint8]:
        """Generate images.

        Args:
            latents: float32 [N, z_dim].
            labels: int64 [N] if the model is conditional.
            exclusive: Run on all the worker's threads, not on the share of one of several parallel batches.

        Returns:
            Images, uint8 [N, H, W, C].
        """
        return self.load().run(latents, labels, exclusive, limited=True)

    def load(self) -> Session:
        """Return the session; make it again if it was evicted."""
        if self._kept is not None:
            return self._kept
        session = self._cache.get(self, self._make_session)
        if self.replaced:
            self._kept = session
            self._cache.pop(self)
        return session

    def mark_replaced(self) -> None:
        """Take the session out of the cache; it lives until the last request that needs it."""
        self.replaced = True
        session = self._cache.pop(self)
        if session is not None:
            self._kept = session

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

    def _make_session(self, content: bytes) -> Session:
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
