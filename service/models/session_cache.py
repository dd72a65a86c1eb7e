"""Which sessions are in memory: as many as there is room for, the least recently used make way."""

import itertools
import logging
import shutil
import threading
import weakref
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from service import runtime_folder
from service.models.loader import prepare, read
from service.observability.metrics import Metrics

if TYPE_CHECKING:
    from service.models.served_model import Generator

log = logging.getLogger("bentoml.atelier")


class Shelf:
    """Holds sessions of up to `max_bytes` of generator files, and always the one that came last. Thread-safe.

    A session that makes way leaves a copy of its content in a folder of this process, so that it comes back the
    same even when its file has been overwritten or removed meanwhile. One that cannot be copied stays.
    """

    def __init__(self, max_bytes: int, metrics: Metrics, max_model_bytes: int = 2**30):
        self._max_bytes, self._metrics, self._max_model_bytes = max_bytes, metrics, max_model_bytes
        self._lock = threading.Lock()  # over `_held`; never kept while a file is read
        self._making_way = threading.Lock()
        self._held: OrderedDict[Generator, None] = OrderedDict()  # the least recently used first
        self._copies: weakref.WeakKeyDictionary[Generator, Path] = weakref.WeakKeyDictionary()
        self._folder: Path | None = None
        self._numbers = itertools.count()

    def touch(self, generator: "Generator") -> None:
        """It was used just now."""
        with self._lock:
            if generator in self._held:
                self._held.move_to_end(generator)

    def hold(self, generator: "Generator", why: str) -> None:
        """Count in a session that was just made (`why`, for the metrics), and let others make way."""
        self._metrics.model_loads.labels(generator.metadata.name, why).inc()
        with self._making_way:
            with self._lock:
                if not generator.retired:
                    self._held[generator] = None
                    self._held.move_to_end(generator)
                others = [other for other in self._held if other is not generator]
                excess = sum(g.size for g in self._held) - self._max_bytes
            for other in others:
                if excess <= 0:
                    break
                if self._copied(other):
                    self.remove(other)
                    other.forget()
                    excess -= other.size
            self._count()

    def remove(self, generator: "Generator") -> None:
        """Out of the count. A retired generator's session lives while a request still needs it."""
        with self._lock:
            self._held.pop(generator, None)
        self._count()

    def content(self, generator: "Generator") -> bytes:
        """What the session that made way is made of. OSError: our copy is gone."""
        return self._copies[generator].read_bytes()

    def close(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _count(self) -> None:
        self._metrics.models_loaded.set(len(self._held))

    def _copied(self, generator: "Generator") -> bool:
        """Whether its content lies in our folder, where it is put now if it does not yet."""
        if generator in self._copies:
            return True
        try:
            content = read(generator.path, self._max_model_bytes)
            if sha256(content).digest() != generator.sha256:
                return False  # overwritten meanwhile
            if self._folder is None:
                self._folder = runtime_folder.make("models")
            height, width, channels = generator.metadata.image_shape
            prepared = prepare(generator.path, content, (channels, height, width)).content
            path = self._folder / f"{next(self._numbers)}.onnx"
            try:
                runtime_folder.allocate(path, len(prepared))
                with path.open("r+b") as copy:
                    copy.write(prepared)
            except BaseException:
                path.unlink(missing_ok=True)  # a part of it is of no use, and takes room
                raise
        except Exception as error:
            log.warning("%s stays in memory: its file could not be copied (%s)", generator.metadata.name, error)
            return False
        self._copies[generator] = path
        weakref.finalize(generator, path.unlink, missing_ok=True)
        return True
