"""What Prometheus is told. Paths are labelled by their route's template, so strangers cannot add series."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from service.status import Recent, living

FOLDER = "ATELIER_METRICS_FOLDER"  # not a setting: the supervisor's word to its workers

IMAGE_ROUTES = frozenset(
    {
        "/v1/generate",
        "/v1/interpolate",
        "/v1/mix",
        "/v1/models/{name}/images/{seed}.{form}",
        "/v1/native/generate",
    }
)


def place(workers: int) -> None:
    """Choose where prometheus_client keeps its numbers; call before it is first imported.

    `bentoml serve` points every service of a machine at one folder, which the next one empties. One worker
    needs none; several share a folder of their own, which the process that supervises them makes, tells them
    by the environment and removes when it ends.
    """
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    if workers > 1:
        if not Path(os.environ.get(FOLDER, "/dev/null")).is_dir():
            os.environ[FOLDER] = tempfile.mkdtemp(prefix="atelier-metrics-")
            atexit.register(shutil.rmtree, os.environ[FOLDER], ignore_errors=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = os.environ[FOLDER]


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
