"""Probes, metrics and status."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service.routes import get_worker, openapi
from service.routes.negotiation import JSON

router = APIRouter()

_NUMBER, _COUNT = {"type": "number", "minimum": 0}, {"type": "integer", "minimum": 0}
_LATENCY = {"type": ["number", "null"], "description": "ms, exact to 5%; null if no request was answered with images"}
STATUS = {
    "type": "object",
    "required": ["status", "workers", "queue_rows", "requests", "images_per_s", "latency_ms"],
    "properties": {
        "status": {"type": "string", "enum": ["ready", "not_ready", "draining"]},
        "reason": {"type": ["string", "null"], "description": "Why it is not ready"},
        "scope": {
            "type": "string",
            "enum": ["all_workers"],
            "description": "The numbers below are totals of all worker processes",
        },
        "workers": {"type": "integer", "minimum": 1, "description": "Worker processes that accept requests"},
        "uptime_s": {**_NUMBER, "description": "Of the oldest worker"},
        "queue_rows": {**_COUNT, "description": "Images that wait for inference now"},
        "window_s": {**_COUNT, "description": "Seconds that the other numbers cover, or uptime_s if that is less"},
        "requests": {**_COUNT, "description": "Requests for images"},
        "refused": {**_COUNT, "description": "Of these, answered with 429 or 503"},
        "failed": {**_COUNT, "description": "Of these, answered with another 5xx"},
        "requests_per_s": _NUMBER,
        "images": _COUNT,
        "images_per_s": _NUMBER,
        "latency_ms": {"type": "object", "properties": dict.fromkeys(("p50", "p95", "p99"), _LATENCY)},
    },
}


@router.get("/livez", **openapi.responses({JSON: None}))
@router.head("/livez", include_in_schema=False, response_model=None)
async def livez() -> JSONResponse:
    """Report that the process answers."""
    return JSONResponse({"status": "alive"})


@router.get("/readyz", **openapi.responses({JSON: None}, 503))
@router.head("/readyz", include_in_schema=False, response_model=None)
async def readyz(request: Request) -> JSONResponse:
    """Report that the models are loaded and warm; until then 503 and the reason."""
    get_worker(request).require_ready()
    return JSONResponse({"status": "ready"})


@router.get("/v1/status", **openapi.responses({JSON: STATUS}))
@router.head("/v1/status", include_in_schema=False, response_model=None)
async def status(request: Request) -> JSONResponse:
    """Report the last minute of all worker processes."""
    worker = get_worker(request)
    reason = worker.engine.repository.not_ready
    state = "draining" if worker.draining else "not_ready" if reason else "ready"
    report = await asyncio.to_thread(worker.metrics.recent.report)
    return JSONResponse({"status": state, "reason": reason, "scope": "all_workers", **report})


@router.get("/metrics", **openapi.responses({"text/plain": None}))
@router.head("/metrics", include_in_schema=False, response_model=None)
async def metrics(request: Request) -> Response:
    """Return the metrics in Prometheus' text format."""
    text, content_type = await asyncio.to_thread(get_worker(request).metrics.exposition)
    return Response(text, headers={"Content-Type": content_type})
