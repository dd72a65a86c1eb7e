"""What orchestrators and Prometheus ask."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from service import openapi
from service.negotiation import JSON
from service.routes.told import atelier_of

router = APIRouter()


@router.get("/livez", **openapi.answers({JSON: None}))
async def livez() -> JSONResponse:
    """The process answers."""
    return JSONResponse({"status": "alive"}, headers={"Cache-Control": "no-store"})


@router.get("/readyz", **openapi.answers({JSON: None}, 503))
async def readyz(request: Request) -> JSONResponse:
    """Models are loaded and warm; until then 503 and the reason."""
    atelier_of(request).require_ready()
    return JSONResponse({"status": "ready"}, headers={"Cache-Control": "no-store"})


@router.get("/metrics", **openapi.answers({"text/plain": None}))
async def metrics(request: Request) -> Response:
    """Prometheus."""
    text, content_type = await asyncio.to_thread(atelier_of(request).metrics.exposition)
    return Response(text, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
