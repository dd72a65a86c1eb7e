"""ASGI around the routes: counts requests, refuses large bodies, and lets no traceback out."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import INTERNAL, ApiError, ClientGone, error_response
from service.metrics import Metrics

log = logging.getLogger("bentoml.atelier")

LINGER_S = 2.0
CLIENT_GONE = 499  # nginx's word for it, in the metrics alone


class Gate:
    """Around an ASGI app. `metrics` and `max_body_bytes` are asked for at each request."""

    def __init__(self, app: ASGIApp, metrics: Callable[[], Metrics], max_body_bytes: int):
        self.app, self._metrics, self._max_body_bytes = app, metrics, max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = received = 0
        whole = refused = False
        message = f"the body is larger than {self._max_body_bytes} bytes; split the request"
        too_large = ApiError(413, "body_too_large", message, headers={"Connection": "close"})

        async def limited_receive() -> Message:
            nonlocal received, whole, refused
            message = await receive()
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self._max_body_bytes:
                refused = True
                raise too_large
            return message

        async def watched_send(message: Message) -> None:
            nonlocal status
            if refused and not status:
                return  # whatever the app makes of the refusal, the answer is the one below
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _content_length(scope) > self._max_body_bytes:
                refused = True
            else:
                await self.app(scope, limited_receive, watched_send)
        except ApiError as error:
            if not status and not refused:
                await error_response(error)(scope, receive, watched_send)
        except (ClientGone, ClientDisconnect):
            if not status and not refused:
                # nobody reads it, but BentoML's timeout holds a request, and a shutdown, until an answer begins
                await Response(status_code=CLIENT_GONE)(scope, receive, watched_send)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"][:200])
            if not status and not refused:
                await error_response(INTERNAL)(scope, receive, watched_send)
        finally:
            if refused and not status:
                status = too_large.status
                await error_response(too_large)(scope, receive, _lingering(send, receive, whole))
            route = getattr(scope.get("route"), "path", "unmatched")
            # methods are the client's words too
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._metrics().answered(method, route, status or CLIENT_GONE, time.perf_counter() - started)


def _content_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else 0
    return 0


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
