"""API errors and their one JSON form: {"error": {"type", "code", "message", "param"}}."""

from typing import Any

from starlette.responses import JSONResponse

RETRY_AFTER_S = 1


class UserError(Exception):
    """An error that the user of the command line can fix: one line that says what is wrong, and what to do."""


class ApiError(Exception):
    """An error response.

    Args:
        status: HTTP status. 429 and 503 get a Retry-After header.
        code: Stable snake_case word for programs.
        message: One line: what is wrong and what to do.
        param: The request field that is wrong, if there is one.
        headers: Further response headers.
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


class ClientDisconnectedError(Exception):
    """The client closed its connection before its answer was ready."""


def unprocessable(code: str, message: str, param: str | None = None) -> ApiError:
    """Return a 422 error: the request is well-formed, but cannot be met."""
    return ApiError(422, code, message, param)


def envelope(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    """Return the JSON document of an error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status in (429, 503):
        kind = "unavailable_error"
    return {"error": {"type": kind, "code": code, "message": message, "param": param}}


def error_response(error: ApiError) -> JSONResponse:
    """Return an error as a response that no cache keeps."""
    headers = {"Cache-Control": "no-store", **error.headers}
    body = envelope(error.status, error.code, error.message, error.param)
    return JSONResponse(body, status_code=error.status, headers=headers)


INTERNAL_ERROR = ApiError(500, "internal_error", "the service failed on this request; see its log for the reason")
