"""Adapters around BentoML's service object: one shape of errors, and the native endpoint.

Every request goes to our app, except those to BentoML's own routes. The dispatcher is in front of BentoML's
middlewares: these take as much time as all the rest of a request, and the one for timeouts keeps memory of each
request for a minute. The app's deadlines end what takes too long.
"""

import json
from typing import Any

import bentoml
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import INTERNAL_ERROR, ApiError, error_response
from service.middleware.request import RequestMiddleware
from service.routes import negotiation, response_headers
from service.routes.rendering import array_pixels
from service.routes.schemas import ImageSpec
from service.server.compatibility import is_supported

GENERATE = "/v1/native/generate"
NATIVE_ROUTES = (GENERATE, "/schema.json")
SYMBOLS = (
    "_bentoml_sdk.service.factory:Service.to_asgi",
    "_bentoml_sdk.service.factory:Service.apis",
    "_bentoml_sdk.method:APIMethod.input_spec",
)


def install(service: Any, app: FastAPI) -> None:
    """Have a BentoML service serve by the dispatcher.

    Where BentoML lacks what that needs, the app is served as BentoML mounts it, with errors of two shapes.
    """
    if not is_supported("one shape for the errors of BentoML's own routes", SYMBOLS):
        return
    kind = type(service)

    class DispatchedService(kind):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def to_asgi(self, is_main: bool = True) -> ASGIApp:
            return RootDispatcher(super().to_asgi(is_main), app)

    service.__class__ = DispatchedService
    spec = service.apis["generate"].input_spec
    spec.model_config["extra"] = "forbid"
    spec.model_rebuild(force=True)


async def generate(app: FastAPI, context: bentoml.Context, fields: dict[str, Any]) -> Any:
    """Answer the native endpoint: the images as JSON numbers, with the headers of /v1/generate.

    Args:
        app: The app.
        context: BentoML's context of the request.
        fields: The fields of the request.

    Returns:
        A response, which BentoML passes through; BentoML itself would make JSON on the event loop.
    """
    from service import encoding  # numpy and Pillow, which the supervisor does not need
    from service.inference.inputs import resolve_generate

    engine = app.state.worker.engine
    try:
        inputs = resolve_generate(negotiation.validate(ImageSpec, fields), engine.repository, engine.settings)
        pixels = array_pixels(inputs, engine.settings, encoding.JSON_BYTES_PER_VALUE)
        content = await engine.answer(inputs, pixels, encoding.encode_json_arrays)
    except ApiError as error:
        context.response.status_code = error.status  # BentoML passes a response through, but for its status
        return error_response(error)
    return Response(content, media_type=negotiation.JSON, headers=response_headers(inputs))


def is_ready(app: FastAPI) -> bool:
    """Return whether the app can answer requests for images."""
    try:
        app.state.worker.require_ready()
    except ApiError:
        return False
    return True


def remove_client_folders(instance: Any) -> None:
    """Remove the temporary folders of the clients that BentoML makes for each worker to call itself.

    They would be removed when Python exits, which a process that a signal ends does not reach.
    """
    proxy = getattr(instance, "__self_proxy__", None)
    for client in (getattr(proxy, "to_sync", None), getattr(proxy, "to_async", None)):
        folder = getattr(client, "_temp_dir", None)
        if folder is not None:
            folder.cleanup()


class RootDispatcher:
    """Hands every request to the app, except those to BentoML's own routes."""

    def __init__(self, bentoml_app: ASGIApp, app: FastAPI):
        self._app = app
        # these paths are few and ours, so each is its own template
        self._native = RequestMiddleware(
            ValidateBody(ErrorEnvelopeMiddleware(bentoml_app)),
            lambda: app.state.worker,
            route=lambda scope: str(scope["path"]),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan, which BentoML passes on to the app."""
        native = scope["type"] != "http" or scope["path"] in NATIVE_ROUTES
        await (self._native if native else self._app)(scope, receive, send)


class ValidateBody:
    """Rejects a body that /v1/generate would reject, with the same error.

    BentoML would reject it with another one and a traceback in the log, and would accept other types than JSON.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["path"] != GENERATE or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive)
        await negotiation.read_body(request, ImageSpec)
        body = negotiation.strip_bom(await request.body())
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replayed() -> Message:
            return next(messages, None) or await receive()

        await self.app(scope, replayed, send)


class ErrorEnvelopeMiddleware:
    """Replaces a response of 400 or more that is not the error envelope by the envelope."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        failed: Message | None = None
        body = b""

        async def rewriting_send(message: Message) -> None:
            nonlocal failed, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                failed = message
            elif failed is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if message.get("more_body", False):
                    return
                if error := _translate(failed, body):
                    await error_response(error)(scope, receive, send)
                else:
                    await send(failed)
                    await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, rewriting_send)


def _translate(start: Message, body: bytes) -> ApiError | None:
    """Return BentoML's response as an ApiError, its message for 4xx only; None if it is an envelope already."""
    status = start["status"]
    try:
        found = json.loads(body)
    except ValueError:
        found = {"error": body.decode(errors="replace")}
    found = found[0] if isinstance(found, list) and found else found
    found = found if isinstance(found, dict) else {}
    if isinstance(found.get("error"), dict):
        return None
    if status >= 500 and status != 503:
        return INTERNAL_ERROR
    message, param = str(found.get("error", "")), None
    details = found.get("detail")
    if isinstance(details, list) and details and isinstance(details[0], dict):
        param = ".".join(map(str, details[0].get("loc", ()))) or None
        message = f"{param or 'body'}: {details[0].get('msg', message)}"
    allow = {k.decode(): v.decode() for k, v in start["headers"] if k.lower() == b"allow"}
    code = {404: "route_not_found", 405: "method_not_allowed", 503: "not_ready"}.get(status, "invalid_field")
    return ApiError(status, code, message[:500] or "rejected", param, headers=allow)
