"""The FastAPI app: routes, middleware, lifespan, and the router's errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from artifacts import version
from service.errors import ApiError, error_response
from service.middleware.cross_origin import CrossOriginMiddleware, allowed_origins
from service.middleware.request import RequestMiddleware
from service.routes import images, models, monitoring, openapi, studio
from service.server import exposure_warning, shutdown
from service.server.connection_limits import ConnectionLimits
from service.settings import Settings, settings
from service.worker import Worker

ROUTERS = [module.router for module in (images, models, monitoring, studio)]


def create_app(config: Settings | None = None, connection_limits: ConnectionLimits | None = None) -> FastAPI:
    """Return the whole HTTP service as an ASGI app; its lifespan loads the models while /livez already answers."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.worker = worker = await asyncio.to_thread(Worker, app.state.settings)
        if connection_limits is not None:
            connection_limits.on_count = worker.metrics.connections.set
            connection_limits.on_rejected = lambda reason: worker.metrics.rejected.labels(reason).inc()
        shutdown.install(worker, worker.metrics.recent.all_drain)
        if not worker.keys:
            exposure_warning.warn_if_public()
        loading = asyncio.create_task(asyncio.to_thread(worker.load))
        await worker.join(loading)
        yield
        loading.cancel()
        worker.stop()

    app = FastAPI(
        title="GAN Atelier",
        version=version(),
        description="Images from trained generators: one seed is one image.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would send the client to the Host that the client named
        lifespan=lifespan,
    )
    app.state.settings = config or settings()
    for router in ROUTERS:
        app.include_router(router)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(RequestMiddleware, worker=lambda: app.state.worker, route=route_template)
    if app.state.settings.cors_origins:
        app.add_middleware(CrossOriginMiddleware, allowed=allowed_origins(app.state.settings.cors_origins))
    openapi.install(app)
    return app


def _matching_routes(scope: Any) -> list[Any]:
    # in the app's own list an included router is one entry, which is no Route
    routes = (route for router in (*ROUTERS, scope["app"].router) for route in router.routes)
    return [route for route in routes if isinstance(route, Route) and route.matches(scope)[0] != Match.NONE]


def route_template(scope: Any) -> str:
    """Return the path template of a request that a middleware rejected before it reached its route."""
    return next((str(route.path) for route in _matching_routes(scope)), "unmatched")


async def _http_error(request: Request, error: Any) -> Response:
    """Return the router's own errors (no such route, method not allowed) in the error envelope."""
    code = {404: "route_not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    message = {
        404: "there is no such route; /openapi.json lists the routes",
        405: f"{request.method[:20]} is not allowed here; the Allow header lists the allowed methods",
    }.get(error.status_code, str(error.detail)[:200])
    headers = dict(error.headers or {})
    if error.status_code == 405:  # the router's own header has the methods of the first route with this path only
        methods = {method for route in _matching_routes(request.scope) for method in getattr(route, "methods", ())}
        headers["Allow"] = ", ".join(sorted(methods))
    return error_response(ApiError(error.status_code, code, message, headers=headers))
