"""The studio, the service's web page: `/`, and its files, `/studio/…`."""

import hashlib
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.routes.negotiation import etag_matches
from service.routes.request_parsing import get_header

FOLDER = Path(__file__).parents[1] / "studio"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}  # no other file is ever opened
HEADERS = {
    "Cache-Control": "no-cache",  # the browser revalidates each time, so that two versions are never mixed
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

router = APIRouter(include_in_schema=False)


@router.head("/", response_model=None)
@router.get("/")
async def page(request: Request) -> Response:
    """Return the page."""
    return _respond(request, "index.html")


@router.head("/studio/{name}", response_model=None)
@router.get("/studio/{name}")
async def page_file(request: Request, name: str) -> Response:
    """Return the page's style sheet, a script or its icon."""
    if name not in FILES or name == "index.html":
        raise HTTPException(404)
    return _respond(request, name)


def _respond(request: Request, name: str) -> Response:
    path = FILES[name]
    content, etag = _read(path, path.stat().st_mtime_ns)
    headers = {**HEADERS, "ETag": etag, "Content-Type": f"{TYPES[path.suffix]}; charset=utf-8"}
    if etag_matches(get_header(request, "if-none-match"), etag):
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)


@lru_cache(maxsize=64)
def _read(path: Path, _modified_ns: int) -> tuple[bytes, str]:
    """Return a file's bytes and their strong ETag, read once per modification."""
    content = path.read_bytes()
    return content, f'"{hashlib.sha256(content).hexdigest()[:32]}"'
