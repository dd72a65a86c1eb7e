"""What Prometheus is told. Paths are labelled by their route's template, so strangers cannot add series."""

import logging
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from service import runtime_folder
from service.observability.status import Recent, living

log = logging.getLogger("bentoml.atelier")

FILES = ("counter", "histogram", "gauge_livesum", "gauge_livemax")  # of prometheus_client, for each process
FILE_BYTES = 2**18
WORKER_BYTES = len(FILES) * FILE_BYTES + 2**18  # that a worker needs in TMPDIR

IMAGE_ROUTES = frozenset(
    {
        "/v1/generate",
        "/v1/interpolate",
        "/v1/mix",
        "/v1/models/{name}/images/{seed}.{form}",
        "/v1/native/generate",
    }
)


def place(workers: int, supervising: bool = False) -> None:
    """Choose where prometheus_client keeps its numbers; call before it is first imported.

    `bentoml serve` points every service of a machine at one folder, which the next one empties. One worker
    needs none; several use the runtime folder, which the process that supervises them makes (`supervising`: this one
    does, and a folder that it inherited is another service's).

    Raises:
        OSError: If the folder for temporary files has no room for it.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    folder = None if supervising else runtime_folder.shared()
    if folder is None:
        folder = runtime_folder.make_shared()
        if workers > 1:
            room = folder / "room"
            runtime_folder.allocate(room, workers * WORKER_BYTES)
            room.unlink()
    if workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def reserve() -> None:
    """Reserve room for this worker's numbers: mapped memory without room on the disk ends the process with SIGBUS.

    Call it before prometheus_client is imported. Without room the worker keeps its numbers to itself.
    """
    folder = meeting_place()
    if folder is None:
        return
    try:
        for kind in FILES:
            runtime_folder.allocate(folder / f"{kind}_{os.getpid()}.db", FILE_BYTES)
    except OSError as error:
        log.warning("this worker's numbers are missing from /metrics: %s: %s", folder, error.strerror)
        for kind in FILES:
            (folder / f"{kind}_{os.getpid()}.db").unlink(missing_ok=True)
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def meeting_place() -> Path | None:
    """The folder that the workers share; None: this one is alone."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


class Metrics:
    """The service's series, in a registry of their own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        in_registry: dict[str, Any] = {"registry": self.registry}
        fast = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
        rows = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
        self.requests = Counter("atelier_requests", "Requests answered", ["method", "route", "status"], **in_registry)
        self.seconds = Histogram(
            "atelier_request_seconds", "Time to the whole answer", ["route"], buckets=fast, **in_registry
        )
        self.images = Counter("atelier_images", "Images answered", ["model"], **in_registry)
        self.rejected = Counter("atelier_rejected", "Requests turned away, by reason", ["reason"], **in_registry)
        self.batch_rows = Histogram("atelier_batch_rows", "Rows of an inference", buckets=rows, **in_registry)
        self.queue_seconds = Histogram(
            "atelier_queue_seconds", "Wait until the first row is run", buckets=fast, **in_registry
        )
        self.inference_seconds = Histogram(
            "atelier_inference_seconds", "Time of an inference", buckets=fast, **in_registry
        )
        self.model_loads = Counter("atelier_model_loads", "Sessions made, by what for", ["model", "why"], **in_registry)
        self.model_load_failures = Counter(
            "atelier_model_load_failures", "Files that could not be loaded", ["file"], **in_registry
        )
        self.model_load_seconds = Histogram(
            "atelier_model_load_seconds", "Time until a model is warm", buckets=fast, **in_registry
        )
        self.models_loaded = Gauge(
            "atelier_models_loaded", "Sessions in memory", multiprocess_mode="livesum", **in_registry
        )
        self.models_failed = Gauge(
            "atelier_models_failed", "Files refused as they are now", multiprocess_mode="livemax", **in_registry
        )
        self.queue_rows = Gauge("atelier_queue_rows", "Rows waiting", multiprocess_mode="livesum", **in_registry)
        self.connections = Gauge("atelier_connections", "Open connections", multiprocess_mode="livesum", **in_registry)
        self.recent = Recent(meeting_place())

    def grow(self) -> None:
        """Reserve more room for this process's files while they are half full, so that they can always be written."""
        folder = meeting_place()
        for kind in FILES if folder else ():
            path = Path(folder or "") / f"{kind}_{os.getpid()}.db"
            with suppress(OSError, struct.error), path.open("r+b") as file:
                used = struct.unpack("i", file.read(4))[0]
                if used > path.stat().st_size // 2:
                    os.posix_fallocate(file.fileno(), 0, 2 * path.stat().st_size)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request, by its route's template."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if route in IMAGE_ROUTES:
            self.recent.answered(status, seconds)

    def made(self, model: str, rows: int) -> None:
        """Count a model's images."""
        self.images.labels(model).inc(rows)
        self.recent.images(rows)

    def queued(self, rows: int) -> None:
        """Count rows that began to wait (or, below 0, that wait no more)."""
        self.queue_rows.inc(rows)
        self.recent.queued(rows)

    def exposition(self) -> tuple[bytes, str]:
        """The text that /metrics answers, over all workers, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = self.registry
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            from prometheus_client.multiprocess import MultiProcessCollector

            # what waited in a worker that died waits no more; its counts stay
            for kind in ("livesum", "livemax"):
                living(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]), f"gauge_{kind}_", ".db")
            registry = CollectorRegistry()
            MultiProcessCollector(registry)
        return generate_latest(registry), CONTENT_TYPE_LATEST
