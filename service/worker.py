"""The state of one worker process, and how it starts and stops next to the other workers."""

import asyncio
import logging

from service.errors import ApiError
from service.inference.engine import InferenceEngine
from service.middleware.auth import ApiKeys
from service.middleware.client_address import TrustedProxies
from service.middleware.cross_origin import allowed_origins
from service.middleware.rate_limit import RateLimiter
from service.observability import tracing
from service.observability.access_log import AccessLog
from service.observability.metrics import Metrics, shared_dir
from service.server.exposure_warning import service_url
from service.settings import Settings

log = logging.getLogger("bentoml.atelier")

LOADING_POLL_S, POLL_S = 0.05, 0.25  # between two looks at the other workers: while models load, and after that
MAX_WAIT_S = 5.0  # that a ready worker waits for one that accepts connections and still loads


class Worker:
    """What routes and middleware share; made before the event loop runs, started and stopped on it."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.metrics = Metrics()
        self.keys = ApiKeys(settings)
        self.allowed_origins = allowed_origins(settings.cors_origins)
        self.proxies = TrustedProxies(settings.trusted_proxies)
        self.rate_limiter = (
            RateLimiter(settings.rate_limit, settings.rate_burst, shared_dir()) if settings.rate_limit else None
        )
        self.access_log = AccessLog(settings)
        self.draining = False
        self.body_bytes = 0  # of large request bodies; `RequestMiddleware` counts them
        self.engine = InferenceEngine(settings, self.metrics)

    def load(self) -> None:
        """Load and warm up the models, which takes seconds, and log where the studio is."""
        repository = self.engine.repository
        try:
            repository.load_all()
        except Exception as error:
            log.exception("loading the models failed")
            repository.give_up(error)
        repository.watch()
        if reason := repository.not_ready:
            log.error("not ready: %s", reason)
            return
        names = ", ".join(g.metadata.name for g in repository.all())
        url = service_url()
        log.info("ready with %s%s", names, f": open {url}/ in a browser" if url else "")

    async def join(self, loading: "asyncio.Future[None]") -> None:
        """Wait until this worker should accept connections.

        The first worker does at once: while its models load, /livez answers and /readyz says what is missing. A worker
        that starts next to others, or replaces one that crashed, leaves the requests to them until its models are
        loaded.
        """
        recent, now = self.metrics.recent, asyncio.get_running_loop().time
        ready_at: float | None = None
        while True:
            if self.engine.repository.not_ready:
                ready_at, wait = None, recent.others_accept()
            else:
                # Next to a worker that still loads, some requests would get its 503. Waiting costs nothing, but that
                # worker may hang.
                ready_at = now() if ready_at is None else ready_at
                wait = now() - ready_at < MAX_WAIT_S and recent.others_load()
            if not wait:
                break
            await asyncio.sleep(POLL_S if loading.done() else LOADING_POLL_S)
        recent.accept_connections(loading=not loading.done())
        loading.add_done_callback(lambda _: recent.accept_connections(loading=False))

    def require_ready(self) -> None:
        """Raise ApiError 503 unless the models are loaded and the worker is not stopping."""
        if self.draining:
            raise ApiError(503, "draining", "this worker is stopping; send the request again, to another worker")
        if reason := self.engine.repository.not_ready:
            raise ApiError(503, "not_ready", reason)

    def drain(self) -> None:
        """Announce that this worker stops: /readyz is 503, and answers close their connections."""
        self.draining = True
        self.metrics.recent.drain()

    def stop(self) -> None:
        """Write the last log lines and spans, and drop what waits."""
        self.engine.close()
        self.access_log.flush()
        tracing.shutdown()
