"""The one shape of every error: {"error": {"type", "code", "message", "param"}}."""

from typing import Any

from starlette.responses import JSONResponse

RETRY_AFTER_S = 1


class UserError(Exception):
    """An error that the user of the command line can fix: one line that says what is wrong, and what to do."""


class ApiError(Exception):
    """An answer other than the one asked for.

    status: HTTP status; code: a stable snake_case word; message: one line that names the fix;
    param: the request field at fault, if one is.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ):
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.headers = dict(headers or {})
        if status in (429, 503):
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))


class ClientGone(Exception):
    """The client hung up before its answer was ready."""


def invalid(code: str, message: str, param: str | None = None) -> ApiError:
    """A request that was understood and cannot be met as it stands (422)."""
    return ApiError(422, code, message, param)


def envelope(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status in (429, 503):
        kind = "unavailable_error"
    return {"error": {"type": kind, "code": code, "message": message, "param": param}}


def error_response(error: ApiError) -> JSONResponse:
    return JSONResponse(
        envelope(error.status, error.code, error.message, error.param),
        status_code=error.status,
        headers={"Cache-Control": "no-store", **error.headers},
    )


INTERNAL = ApiError(500, "internal_error", "the service failed on this request; its log holds the reason")
