"""ASGI around the routes: who may pass and how much, what is counted and logged of it, and no traceback gets out."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import INTERNAL, ApiError, ClientGone, error_response
from service.middleware import auth, origins, rate_limit
from service.middleware.client_address import trusted_proxies
from service.observability import access_log, logs, tracing

if TYPE_CHECKING:
    from service.inference.engine import Atelier

log = logging.getLogger("bentoml.atelier")

LINGER_S = 2.0
SMALL_BODY = 2**16  # bytes; larger bodies share a bound
MAX_BODIES = 2**28  # bytes of all larger bodies that are received or in work
CUT_OFF = ApiError(
    503,
    "draining",
    "the service stopped before this was done; others, or the next one, take it",
    headers={"Connection": "close"},
)
BODIES_FULL = ApiError(
    503,
    "queue_full",
    "too many large bodies are being received; try again in a moment",
    headers={"Connection": "close"},
)
CLIENT_GONE = 499  # nginx's word for it, in the metrics alone
METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS"})  # methods are the client's words too


class Gate:
    """Around an ASGI app. `atelier` is asked for at each request; `route` labels requests that no template does."""

    def __init__(self, app: ASGIApp, atelier: Callable[[], "Atelier"], route: Callable[[Scope], str] | None = None):
        self.app, self._atelier, self._route = app, atelier, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        atelier = self._atelier()
        told: dict[bytes, bytes] = dict(scope["headers"])
        request = access_log.request_id(told.get(b"x-request-id"))
        logs.current_request.set(request)
        trace = tracing.start(scope, told)
        max_body_bytes = atelier.settings.max_body_bytes
        status = received = held = 0
        whole = refused = False
        model: str | None = None
        rows: int | None = None
        message = f"the body is larger than {max_body_bytes} bytes; split the request"
        too_large = refusal = ApiError(413, "body_too_large", message, headers={"Connection": "close"})

        async def limited_receive() -> Message:
            nonlocal received, held, whole, refused, refusal
            message = await receive()
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > max_body_bytes:
                refused = True
                raise too_large
            if received > SMALL_BODY:
                size = len(message.get("body", b""))
                if atelier.body_bytes + size > max(MAX_BODIES, max_body_bytes):
                    refused, refusal = True, BODIES_FULL
                    raise refusal
                atelier.body_bytes += size
                held += size
            return message

        async def marked_send(message: Message) -> None:
            nonlocal status, model, rows
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = list(message.get("headers", ()))
                unmarked = True
                for name, value in headers:
                    if name == b"cache-control":
                        unmarked = False
                    elif name == b"atelier-model" and status == 200:
                        model = value.decode()
                    elif name == b"atelier-images" and status == 200:
                        rows = int(value)
                if unmarked:  # what says nothing may be kept by a cache, and given to a client without a key
                    headers.append((b"cache-control", b"no-store"))
                headers.append((b"x-request-id", request.encode()))
                if atelier.draining:
                    headers.append((b"connection", b"close"))
            await send(message)

        async def watched_send(message: Message) -> None:
            if refused and not status:
                return  # whatever the app makes of the refusal, the answer is the one below
            await marked_send(message)

        client: str | None = None
        try:
            client = self._admit(atelier, scope, told)
            announced = told.get(b"content-length", b"0")
            if len(announced) > 19 or (announced.isdigit() and int(announced) > max_body_bytes):
                refused = True
            else:
                await self.app(scope, limited_receive, watched_send)
        except ApiError as error:
            if not status and not refused:
                await error_response(error)(scope, receive, watched_send)
        except asyncio.CancelledError:
            # the server's time to stop is over; its own word for it would be a 500 and a traceback
            atelier.metrics.rejected.labels("cut_off").inc()
            if not status and not refused:
                await error_response(CUT_OFF)(scope, receive, watched_send)
        except (ClientGone, ClientDisconnect):
            if not status and not refused:
                # nobody reads it, but BentoML's timeout holds a request, and a shutdown, until an answer begins
                await Response(status_code=CLIENT_GONE)(scope, receive, watched_send)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"][:200])
            if not status and not refused:
                await error_response(INTERNAL)(scope, receive, watched_send)
        finally:
            atelier.body_bytes -= held
            if refused and not status:
                atelier.metrics.rejected.labels(refusal.code).inc()
                await error_response(refusal)(scope, receive, _lingering(marked_send, receive, whole))
            status = status or CLIENT_GONE
            route = getattr(scope.get("route"), "path", None) or (self._route or _unmatched)(scope)
            method = scope["method"] if scope["method"] in METHODS else "other"
            seconds = time.perf_counter() - started
            atelier.metrics.answered(method, route, status, seconds)
            if atelier.access.wants(route, status):
                trace_id = trace.trace_id if trace else None
                atelier.access.line(method, route, status, seconds, request, model, rows, client, trace_id)
            if trace:
                trace.end(method, route, status, request, model, rows)

    def _admit(self, atelier: "Atelier", scope: Scope, told: dict[bytes, bytes]) -> str | None:
        """Return whose key the request has, if any. ApiError: 401, 403, 415, 429."""
        holder = None
        free = auth.is_open(scope["path"])
        if scope["method"] not in origins.SAFE_METHODS:
            # before the rate limit: what a page tries must not use up its visitor's share
            allowed = origins.allowed_origins(atelier.settings.cors_origins)
            if origins.is_cross_site(told, allowed):
                atelier.metrics.rejected.labels("cross_site").inc()
                raise origins.cross_site_refusal(told)
        if atelier.keys and not free:
            holder = atelier.keys.holder(told.get(b"authorization", b""))
        if atelier.limiter and not free:
            # one without a key is counted by its address, so that keys cannot be guessed at speed
            peer = scope["client"][0] if scope.get("client") else ""
            proxies = trusted_proxies(atelier.settings.trusted_proxies)
            client = holder or rate_limit.address(proxies.client(peer, scope["headers"]))
            if wait := atelier.limiter.take(client):
                atelier.metrics.rejected.labels("rate_limited").inc()
                raise rate_limit.too_many(wait)
        if atelier.keys and not free and holder is None:
            atelier.metrics.rejected.labels("unauthorized").inc()
            raise auth.UNAUTHORIZED
        if told.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            # a megabyte of gzip unpacks to a gigabyte
            message = "send the body as it is, without Content-Encoding"
            raise ApiError(415, "unsupported_media_type", message, "Content-Encoding")
        return holder


def _unmatched(scope: Scope) -> str:
    return "unmatched"


def _lingering(send: Send, receive: Receive, whole: bool) -> Send:
    """`send` that, once the answer is out, drops what the client is still sending for a moment: closing at
    once would reset the connection and take the answer with it. `whole`: nothing is left to drop."""

    async def lingering_send(message: Message) -> None:
        if message["type"] == "http.response.body" and not whole:
            await send({**message, "more_body": True})
            with suppress(TimeoutError):
                async with asyncio.timeout(LINGER_S):
                    while (await receive()).get("more_body", False):
                        pass
            message = {"type": "http.response.body", "body": b""}
        await send(message)

    return lingering_send
