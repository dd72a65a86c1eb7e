"""Which web pages may call the service: CORS headers for named origins, and 403 for cross-site requests."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.default_address import unquote
from service.errors import ApiError, error_response

ANY = "*"
METHODS = ("GET", "HEAD", "POST")
READABLE = (
    *("Atelier-Model", "Atelier-Digest", "Atelier-Images", "Atelier-Seeds", "Atelier-Labels"),
    *("ETag", "Retry-After", "X-Request-Id"),
)
MAX_AGE_S = 600  # for which a browser may keep the answer to a preflight
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}


def normalize(origin: str) -> str:
    """Return an origin as browsers send it: lower case, no trailing slash, no default port, names in Punycode.

    Args:
        origin: What an operator wrote, such as `https://Page.example/`; also `*` and `null`.

    Raises:
        ValueError: If it is not an origin.
    """
    text = origin.strip()
    if text in (ANY, "null"):
        return text
    parts = urlsplit(text)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not parts.scheme or not host or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{text[:100]!r} is not an origin such as https://page.example")
    try:
        host = f"[{host}]" if ":" in host else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError(f"{text[:100]!r} has a host name that is not valid") from None
    scheme = parts.scheme.lower()
    return f"{scheme}://{host}" + (f":{port}" if port is not None and port != _PORTS.get(scheme) else "")


def allowed_origins(setting: str | None) -> frozenset[str]:
    """Return the origins that `ATELIER_CORS_ORIGINS` names.

    Raises:
        ValueError: If one of them is not an origin.
    """
    return frozenset(normalize(unquote(origin)) for origin in (setting or "").split(",") if origin.strip())


def is_cross_site(headers: Mapping[bytes, bytes], allowed: frozenset[str]) -> bool:
    """Return whether a request was sent by a web page that may not call the service.

    Browsers send `Sec-Fetch-Site` with every request to HTTPS and to this machine, and `Origin` with every POST;
    a page cannot change either. Other programs send neither.

    Args:
        headers: The request's headers, names in lower case.
        allowed: The origins that may call, as `allowed_origins` returns them.
    """
    origin = headers.get(b"origin", b"").decode("latin-1")
    site = headers.get(b"sec-fetch-site")
    if b"origin" not in headers and site is None:
        return False
    if ANY in allowed or origin in allowed:
        return False
    if site is not None:
        return site.strip().lower() not in (b"same-origin", b"none")
    # A proxy may replace Host. A page cannot send X-Forwarded-Host without a preflight, so it is just as reliable here.
    hosts = b",".join(headers.get(name, b"") for name in (b"host", b"x-forwarded-host")).decode("latin-1")
    return not any(_is_host_of(origin, host.strip().lower()) for host in hosts.split(","))


def _is_host_of(origin: str, host: str) -> bool:
    """Return whether a Host header is an origin's host; a proxy may have removed the port."""
    try:
        page, requested = urlsplit(origin), urlsplit(f"//{host}")
        default = _PORTS.get(page.scheme)
        same_port = requested.port is None or (page.port or default) == requested.port
        return bool(host) and page.hostname == requested.hostname and same_port
    except ValueError:
        return False


def cross_site_error(headers: Mapping[bytes, bytes]) -> ApiError:
    """Return the 403 of a cross-site request, which names the setting that would allow it."""
    origin = headers.get(b"origin", b"another site").decode("latin-1")[:100]
    message = f"a page of {origin} may not call this service; to allow it, add the origin to ATELIER_CORS_ORIGINS"
    return ApiError(403, "cross_site", message, "Origin")


class CrossOriginMiddleware:
    """Allows pages of the named origins to call the service, with any header and without cookies.

    Every answer has the CORS headers or `Vary: Origin`, so that no cache gives one page the answer for another.
    """

    def __init__(self, app: ASGIApp, allowed: frozenset[str]):
        self.app, self._allowed = app, allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or add the headers to the app's answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"").decode("latin-1")
        if scope["method"] == "OPTIONS" and origin and b"access-control-request-method" in headers:
            await self._preflight(origin, headers)(scope, receive, send)
            return

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in self._headers(origin).items()]
                vary = [value for name, value in message.get("headers", ()) if name == b"vary"]
                if ANY not in self._allowed:
                    added.append((b"vary", b", ".join([*vary, b"Origin"])))
                    message["headers"] = [pair for pair in message["headers"] if pair[0] != b"vary"]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self.app(scope, receive, marked_send)

    def _headers(self, origin: str) -> dict[str, str]:
        if ANY in self._allowed:
            granted = ANY
        elif origin in self._allowed:
            granted = origin
        else:
            return {}
        return {"Access-Control-Allow-Origin": granted, "Access-Control-Expose-Headers": ", ".join(READABLE)}

    def _preflight(self, origin: str, headers: Mapping[bytes, bytes]) -> Response:
        vary = {"Vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
        granted = self._headers(origin)
        method = headers[b"access-control-request-method"].decode("latin-1")
        if not granted:
            error = cross_site_error(headers)
            error.headers |= vary
            return error_response(error)
        if method not in METHODS:
            message = f"{method[:20]} is not allowed here; the Allow header lists the allowed methods"
            allow = {"Allow": ", ".join(METHODS)}
            return error_response(ApiError(405, "method_not_allowed", message, headers=granted | vary | allow))
        granted |= vary
        granted["Access-Control-Allow-Methods"] = ", ".join(METHODS)
        granted["Access-Control-Max-Age"] = str(MAX_AGE_S)
        if requested := headers.get(b"access-control-request-headers", b"").decode("latin-1").strip():
            granted["Access-Control-Allow-Headers"] = requested
        return Response(status_code=200, headers=granted)
