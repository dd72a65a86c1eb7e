"""BentoML's own routes, made to speak of errors as all the others do."""

import json

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import INTERNAL_ERROR, ApiError, error_response
from service.routes import negotiation
from service.routes.schemas import ImageSpec

GENERATE = "/v1/native/generate"
NATIVE_ROUTES = (GENERATE, "/schema.json")


class Checked:
    """Around BentoML's router: a body that /v1/generate would refuse is refused here, in the same words.

    BentoML would refuse it in others, with a traceback in the log; and it would read other forms of body than JSON.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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


class Enveloped:
    """Around BentoML's router: an answer of 400 or more that is not the error envelope is replaced by it."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: Message | None = None
        body = b""

        async def rewriting_send(message: Message) -> None:
            nonlocal refused, body
            if message["type"] == "http.response.start" and message["status"] >= 400:
                refused = message
            elif refused is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if message.get("more_body", False):
                    return
                if error := _reworded(refused, body):
                    await error_response(error)(scope, receive, send)
                else:
                    await send(refused)
                    await send({"type": "http.response.body", "body": body})

        await self.app(scope, receive, rewriting_send)


def _reworded(start: Message, body: bytes) -> ApiError | None:
    """BentoML's answer as an ApiError: its message for 4xx, nothing but the fact for 5xx. None: it is ours."""
    status = start["status"]
    try:
        told = json.loads(body)
    except ValueError:
        told = {"error": body.decode(errors="replace")}
    told = told[0] if isinstance(told, list) and told else told
    told = told if isinstance(told, dict) else {}
    if isinstance(told.get("error"), dict):
        return None
    if status >= 500 and status != 503:
        return INTERNAL_ERROR
    message, param = str(told.get("error", "")), None
    details = told.get("detail")
    if isinstance(details, list) and details and isinstance(details[0], dict):
        param = ".".join(map(str, details[0].get("loc", ()))) or None
        message = f"{param or 'body'}: {details[0].get('msg', message)}"
    allow = {k.decode(): v.decode() for k, v in start["headers"] if k.lower() == b"allow"}
    code = {404: "route_not_found", 405: "method_not_allowed", 503: "not_ready"}.get(status, "invalid_field")
    return ApiError(status, code, message[:500] or "refused", param, headers=allow)
