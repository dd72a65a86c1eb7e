"""BentoML's own routes, made to speak of errors as all the others do."""

import json
from http import HTTPStatus

from bentoml.exceptions import BentoMLException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import INTERNAL, ApiError, error_response

ENVELOPED = ("/v1/native/generate", "/schema.json")
_CARRIED = "atelier.error"


class _Carried(BentoMLException):
    """Takes an ApiError through BentoML, which would reword it."""

    def __init__(self, error: ApiError):
        super().__init__(error.message, error_code=HTTPStatus(error.status))
        self.error = error


class Enveloped:
    """Around BentoML's router: an answer of 400 or more is replaced by the error envelope."""

    def __init__(self, app: ASGIApp):
        self.app = app

    @staticmethod
    def carry(error: ApiError) -> BentoMLException:
        """The exception to raise in a native endpoint for this error."""
        return _Carried(error)

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
                if not message.get("more_body", False):
                    await error_response(_reworded(refused, body))(scope, receive, send)

        await self.app(scope, receive, rewriting_send)


def _reworded(start: Message, body: bytes) -> ApiError:
    """BentoML's answer as an ApiError: its message for 4xx, nothing but the fact for 5xx."""
    status = start["status"]
    if status >= 500 and status != 503:
        return INTERNAL
    allow = {k.decode(): v.decode() for k, v in start["headers"] if k.lower() == b"allow"}
    try:
        told = json.loads(body)
    except ValueError:
        told = {"error": body.decode(errors="replace")}
    told = told[0] if isinstance(told, list) and told else told
    message = str(told.get("error", "")) if isinstance(told, dict) else ""
    details = told.get("detail") if isinstance(told, dict) else None
    param = None
    if isinstance(details, list) and details and isinstance(details[0], dict):
        param = ".".join(map(str, details[0].get("loc", ()))) or None
        message = f"{param or 'body'}: {details[0].get('msg', message)}"
    code = {404: "not_found", 405: "method_not_allowed", 503: "unavailable"}.get(status, "invalid_request")
    return ApiError(status, code, message[:500] or "refused", param, headers=allow)
