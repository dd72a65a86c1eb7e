"""ASGI middleware around the routes: API key, rate limit, body limit, request id, metrics, access log, last resort."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from artifacts import version
from service.errors import INTERNAL_ERROR, ApiError, ClientDisconnectedError, error_response
from service.middleware import auth, cross_origin, rate_limit
from service.observability import logs, tracing

if TYPE_CHECKING:
    from service.worker import Worker

log = logging.getLogger("bentoml.atelier")

LINGER_S = 2.0
SMALL_BODY = 2**16  # bytes; larger bodies share a limit
MAX_BODIES = 2**28  # bytes of all larger bodies that are being received or processed
CUT_OFF = ApiError(
    503,
    "draining",
    "the service stopped before this request was finished; send it again, to another worker",
    headers={"Connection": "close"},
)
BODIES_FULL = ApiError(
    503,
    "queue_full",
    "too many large bodies are being received; try again in a moment",
    headers={"Connection": "close"},
)
CLIENT_GONE = 499  # nginx's status for it; only in metrics and logs
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})  # other methods are one label, since clients may invent them


class RequestMiddleware:
    """Handles what is common to all requests.

    Args:
        app: The ASGI app.
        worker: Returns the worker's state.
        route: Returns the label of a request that reached no route.
    """

    def __init__(self, app: ASGIApp, worker: "Callable[[], Worker]", route: Callable[[Scope], str]):
        tracing.configure(version())
        self.app, self._worker, self._route = app, worker, route
        self._handle = tracing.instrument(self._handle_request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] == "http":
            await self._handle(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(self._worker(), scope, receive, send, self._route)
        logs.current_request.set(exchange.id)
        try:
            exchange.client = admit(exchange.worker, scope, exchange.headers)
            if exchange.announces_too_much():
                exchange.rejection = exchange.too_large()
            else:
                await self.app(scope, exchange.receive, exchange.send)
        except ApiError as error:
            await exchange.answer(error)
        except asyncio.CancelledError:
            # The time to stop is over. The server's own answer would be a 500, with a traceback in the log.
            exchange.worker.metrics.rejected.labels("cut_off").inc()
            await exchange.answer(CUT_OFF)
        except (ClientDisconnectedError, ClientDisconnect):
            # No client reads this, but BentoML's timeout holds a request, and a shutdown, until an answer begins.
            await exchange.answer(Response(status_code=CLIENT_GONE))
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"][:200])
            await exchange.answer(INTERNAL_ERROR)
        finally:
            await exchange.finish()


class _Exchange:
    """One request and its answer: counts the body that comes in, and marks the answer that goes out."""

    def __init__(self, worker: "Worker", scope: Scope, receive: Receive, send: Send, unrouted: Callable[[Scope], str]):
        self.worker, self.scope, self._receive, self._send, self._unrouted = worker, scope, receive, send, unrouted
        self.method = scope["method"] if scope["method"] in METHODS else "other"
        self.started = time.perf_counter()
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = logs.request_id(self.headers.get(b"x-request-id"))
        self.client: str | None = None
        self.rejection: ApiError | None = None  # of the body
        self.status = self._received = self._held = 0
        self._complete = False
        self._model: str | None = None
        self._rows: int | None = None
        self._trace: str | None = None

    def announces_too_much(self) -> bool:
        """Return whether Content-Length is more than a body may have."""
        length = self.headers.get(b"content-length", b"0")
        return len(length) > 19 or (length.isdigit() and int(length) > self.worker.settings.max_body_bytes)

    def too_large(self) -> ApiError:
        message = f"the body is larger than {self.worker.settings.max_body_bytes} bytes; split the request"
        return ApiError(413, "body_too_large", message, headers={"Connection": "close"})

    async def receive(self) -> Message:
        """Receive a part of the body, unless the body is too large or too many large ones are in work."""
        message = await self._receive()
        size = len(message.get("body", b""))
        self._received += size
        self._complete = not message.get("more_body", False)
        max_body_bytes = self.worker.settings.max_body_bytes
        if self._received > max_body_bytes:
            self.rejection = self.too_large()
            raise self.rejection
        if self._received > SMALL_BODY:
            if self.worker.body_bytes + size > max(MAX_BODIES, max_body_bytes):
                self.rejection = BODIES_FULL
                raise self.rejection
            self.worker.body_bytes += size
            self._held += size
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the app's answer, unless the body was rejected: then `finish` answers."""
        if self.rejection is None or self.status:
            await self._marked_send(message)

    async def _marked_send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message["headers"] = list(message.get("headers", ()))
            cacheable = False
            for name, value in headers:
                if name == b"cache-control":
                    cacheable = True
                elif name == b"atelier-model" and self.status == 200:
                    self._model = value.decode()
                elif name == b"atelier-images" and self.status == 200:
                    self._rows = int(value)
            if not cacheable:  # a cache may keep an answer without Cache-Control, and give it to clients without a key
                headers.append((b"cache-control", b"no-store"))
            headers.append((b"x-request-id", self.id.encode()))
            if self.worker.draining:
                headers.append((b"connection", b"close"))
            if tracing.current_span() is not None:
                attributes = {
                    "http.route": self._route, "atelier.request_id": self.id,
                    "atelier.model": self._model, "atelier.rows": self._rows,
                }  # fmt: skip
                self._trace = tracing.describe_request(f"{self.method} {self._route}", attributes)
        await self._send(message)

    @property
    def _route(self) -> str:
        """The template of the route; known once the app has answered."""
        return getattr(self.scope.get("route"), "path", None) or self._unrouted(self.scope)

    async def answer(self, answer: ApiError | Response) -> None:
        """Answer, unless an answer has begun or the body was rejected."""
        if not self.status and self.rejection is None:
            response = error_response(answer) if isinstance(answer, ApiError) else answer
            await response(self.scope, self._receive, self._marked_send)

    async def finish(self) -> None:
        """Answer a rejected body, and count and log the request."""
        worker = self.worker
        worker.body_bytes -= self._held
        if self.rejection is not None and not self.status:
            worker.metrics.rejected.labels(self.rejection.code).inc()
            send = _lingering(self._marked_send, self._receive, self._complete)
            await error_response(self.rejection)(self.scope, self._receive, send)
        route, status, seconds = self._route, self.status or CLIENT_GONE, time.perf_counter() - self.started
        worker.metrics.count_request(self.method, route, status, seconds)
        if worker.access_log.is_logged(route, status):
            worker.access_log.log(
                self.method, route, status, seconds, self.id, self._model, self._rows, self.client, self._trace
            )


def admit(worker: "Worker", scope: Scope, headers: dict[bytes, bytes]) -> str | None:
    """Return the owner of a request's key, if it has a valid one.

    Raises:
        ApiError: 401, 403, 415 or 429.
    """
    keys, rate_limiter, rejected = worker.keys, worker.rate_limiter, worker.metrics.rejected
    # Before the rate limit: what a page tries must not use up its visitor's share.
    if scope["method"] not in cross_origin.SAFE_METHODS and cross_origin.is_cross_site(headers, worker.allowed_origins):
        rejected.labels("cross_site").inc()
        raise cross_origin.cross_site_error(headers)
    owner = None
    if (keys or rate_limiter) and not auth.is_open(scope["path"]):
        owner = keys.authenticate(headers.get(b"authorization", b"")) if keys else None
        if rate_limiter:
            # A client without a key is counted by its address, so that it cannot guess keys at speed.
            peer = scope["client"][0] if scope.get("client") else ""
            client = owner or rate_limit.client_id(worker.proxies.client(peer, scope["headers"]))
            if wait_s := rate_limiter.take(client):
                rejected.labels("rate_limited").inc()
                raise rate_limit.too_many_requests(wait_s)
        if keys and owner is None:
            rejected.labels("unauthorized").inc()
            raise auth.UNAUTHORIZED
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        # A megabyte of gzip may unpack to a gigabyte.
        message = "send the body without Content-Encoding"
        raise ApiError(415, "unsupported_media_type", message, "Content-Encoding")
    return owner


def _lingering(send: Send, receive: Receive, complete: bool) -> Send:
    """Return a `send` that, after the answer, reads what the client still sends, for a moment.

    Closing at once would reset the connection, and the client would lose the answer.
    """

    async def lingering_send(message: Message) -> None:
        if message["type"] == "http.response.body" and not complete:
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return lingering_send
