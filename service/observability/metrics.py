"""Prometheus metrics. Requests are labeled by their route's template, so clients cannot add series."""

import logging
import os
import struct
from contextlib import suppress
from functools import partial
from pathlib import Path

from service.observability.status_window import StatusWindow, living_files
from service.server import runtime_folder

log = logging.getLogger("bentoml.atelier")

FILES = ("counter", "histogram", "gauge_livesum", "gauge_livemax")  # of prometheus_client, per process
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


def configure_multiprocess_dir(workers: int, supervising: bool = False) -> None:
    """Choose where prometheus_client keeps its numbers; call before it is first imported.

    `bentoml serve` points all services of a machine at one folder, which the next one empties. A single worker needs no
    folder. Several use the runtime folder that the supervisor makes.

    Args:
        workers: Number of worker processes.
        supervising: Whether this process supervises; then an inherited folder belongs to another service.

    Raises:
        OSError: If the folder for temporary files has not enough room.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    folder = None if supervising else runtime_folder.shared()
    if folder is None:
        folder = runtime_folder.make("metrics")
        os.environ[runtime_folder.SHARED] = str(folder)
        if workers > 1:
            room = folder / "room"
            runtime_folder.allocate(room, workers * WORKER_BYTES)
            room.unlink()
    if workers > 1:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def reserve_files() -> None:
    """Reserve room on the disk for this worker's numbers: without it, writing to mapped memory ends it with SIGBUS.

    Call before prometheus_client is imported. If there is no room, the worker's numbers are not shared.
    """
    folder = shared_dir()
    if folder is None:
        return
    paths = [folder / f"{kind}_{os.getpid()}.db" for kind in FILES]
    try:
        for path in paths:
            runtime_folder.allocate(path, FILE_BYTES)
    except OSError as error:
        log.warning("this worker's numbers are missing from /metrics: %s: %s", folder, error.strerror)
        for path in paths:
            path.unlink(missing_ok=True)
        del os.environ["PROMETHEUS_MULTIPROC_DIR"]


def shared_dir() -> Path | None:
    """Return the folder that the workers share; None if this process is the only one."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


class Metrics:
    """The service's series, in their own registry, and its last minute."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        times = partial(histogram, buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30))
        total = partial(Gauge, registry=self.registry, multiprocess_mode="livesum")
        self.requests = counter("atelier_requests", "Requests answered", ["method", "route", "status"])
        self.seconds = times("atelier_request_seconds", "Time to the whole answer", ["route"])
        self.images = counter("atelier_images", "Images answered", ["model"])
        self.rejected = counter("atelier_rejected", "Requests rejected, by reason", ["reason"])
        rows = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
        self.batch_rows = histogram("atelier_batch_rows", "Rows per inference", buckets=rows)
        self.queue_seconds = times("atelier_queue_seconds", "Wait until the first row is run")
        self.inference_seconds = times("atelier_inference_seconds", "Time per inference")
        self.model_loads = counter("atelier_model_loads", "Sessions made, by reason", ["model", "why"])
        self.model_load_failures = counter("atelier_model_load_failures", "Files that could not be loaded", ["file"])
        self.model_load_seconds = times("atelier_model_load_seconds", "Time until a model is warm")
        self.models_loaded = total("atelier_models_loaded", "Sessions in memory")
        self.models_failed = total("atelier_models_failed", "Files rejected at present", multiprocess_mode="livemax")
        self.queue_rows = total("atelier_queue_rows", "Rows waiting")
        self.connections = total("atelier_connections", "Open connections")
        self.recent = StatusWindow(shared_dir())

    def grow(self) -> None:
        """Double this process's files that are half full, so that they can always be written."""
        folder = shared_dir()
        for kind in FILES if folder else ():
            path = Path(folder or "") / f"{kind}_{os.getpid()}.db"
            with suppress(OSError, struct.error), path.open("r+b") as file:
                used = struct.unpack("i", file.read(4))[0]
                if used > path.stat().st_size // 2:
                    os.posix_fallocate(file.fileno(), 0, 2 * path.stat().st_size)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request, by its route's template."""
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)
        if route in IMAGE_ROUTES:
            self.recent.count_request(status, seconds)

    def count_images(self, model: str, rows: int) -> None:
        """Count a model's images."""
        self.images.labels(model).inc(rows)
        self.recent.count_images(rows)

    def count_queued(self, rows: int) -> None:
        """Count rows that begin to wait, or, if negative, that no longer wait."""
        self.queue_rows.inc(rows)
        self.recent.count_queued(rows)

    def exposition(self) -> tuple[bytes, str]:
        """Return the text of /metrics, over all workers, and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

        registry = self.registry
        if folder := shared_dir():
            from prometheus_client.multiprocess import MultiProcessCollector

            for kind in ("livesum", "livemax"):  # a dead worker's gauges count no more; its counters do
                living_files(folder, f"gauge_{kind}_", ".db")
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry), CONTENT_TYPE_LATEST
