"""The app around the routes: its start and end, and what a refusal looks like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from artifacts.version import version
from service.errors import ApiError, error_response
from service.middleware.origins import CrossOrigin, allowed_origins
from service.middleware.request import Gate
from service.observability import tracing
from service.routes import health, image_resource, images, models, openapi, studio
from service.server import listening, shutdown
from service.settings import Settings, settings

ROUTERS = [part.router for part in (images, models, image_resource, health, studio)]


def create_app(config: Settings | None = None) -> FastAPI:
    """The whole HTTP service as an ASGI app; its lifespan loads the models while /livez answers already."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        from service.inference.engine import Atelier  # numpy, scipy, Pillow: here, so that a supervisor stays small

        app.state.atelier = atelier = await asyncio.to_thread(Atelier, app.state.settings)
        tracing.install(version())
        shutdown.install(atelier)
        if not atelier.keys:
            listening.warn_if_public()
        loading = asyncio.create_task(asyncio.to_thread(atelier.load))
        await atelier.join(loading)
        yield
        loading.cancel()
        atelier.stop()

    app = FastAPI(
        title="GAN Atelier",
        version=version(),
        description="Images from trained generators: one seed is one image.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # it would send the client to the Host that the client named
        lifespan=lifespan,
    )
    app.state.settings = config or settings()
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(ApiError, _api_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Gate, atelier=lambda: app.state.atelier, route=template)
    if app.state.settings.cors_origins:
        app.add_middleware(CrossOrigin, allowed=allowed_origins(app.state.settings.cors_origins))
    openapi.install(app)
    return app


def template(scope: Any) -> str:
    """The template of the route that a request would have reached, had it not been turned away before."""
    for part in ROUTERS:
        for route in part.routes:
            if route.matches(scope)[0] != Match.NONE:
                return str(route.path)
    return "unmatched"


async def _api_error(request: Request, error: Any) -> Response:
    return error_response(error)


async def _http_error(request: Request, error: Any) -> Response:
    """The router's own refusals: no such route, method not allowed."""
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = {
        404: "there is no such route; /openapi.json lists them",
        405: f"{request.method[:20]} is not allowed here; the Allow header tells what is",
    }.get(error.status_code, str(error.detail)[:200])
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the router names the methods of the first route with this path alone
        every = [route for router in ROUTERS for route in router.routes]
        here = [route for route in every if route.matches(request.scope)[0] != Match.NONE]
        headers["Allow"] = ", ".join(sorted({method for route in here for method in getattr(route, "methods", ())}))
    return error_response(ApiError(error.status_code, code, message, headers=headers))
