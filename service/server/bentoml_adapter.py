"""Adapters around BentoML's service object: who answers a request, and the native endpoint.

Every request goes to our app, also those of BentoML's clients. The dispatcher is in front of BentoML's middlewares:
these take as much time as all the rest of a request, and the one for timeouts keeps memory of each request for a
minute. The app's deadlines end what takes too long.
"""

from typing import Any

import bentoml
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ApiError, error_response
from service.middleware.request import admit
from service.routes import request_parsing
from service.routes.images import NATIVE_ROUTE, respond_native
from service.routes.schemas import ImageSpec
from service.server.private_symbols import is_supported

SYMBOLS = (
    "_bentoml_sdk.service.factory:Service.to_asgi",
    "_bentoml_sdk.service.factory:Service.apis",
    "_bentoml_sdk.service.factory:Service.schema",
    "_bentoml_sdk.method:APIMethod.input_spec",
)


def install(service: Any, app: FastAPI) -> None:
    """Have a BentoML service serve by the dispatcher.

    Where BentoML lacks what that needs, the app is served as BentoML mounts it, with errors of two shapes.
    """
    if not is_supported("one shape for the errors of BentoML's own routes", SYMBOLS):
        return
    kind = type(service)

    class DispatchedService(kind):  # type: ignore[misc, valid-type]
        __slots__ = ()

        def to_asgi(self, is_main: bool = True) -> ASGIApp:
            return RootDispatcher(super().to_asgi(is_main), app)

    service.__class__ = DispatchedService
    spec = service.apis["generate"].input_spec
    spec.model_config["extra"] = "forbid"
    spec.model_rebuild(force=True)

    @app.get("/schema.json", include_in_schema=False)
    @app.head("/schema.json", include_in_schema=False)
    async def schema() -> JSONResponse:
        document = service.schema()
        document["paths"][NATIVE_ROUTE] = {"mounted": False}  # for BentoML's clients it is one of the service's own
        return JSONResponse(document)


async def generate(app: FastAPI, context: bentoml.Context, fields: dict[str, Any]) -> Any:
    """Answer the native endpoint where BentoML serves it, because there is no dispatcher.

    Args:
        app: The app.
        context: BentoML's context of the request.
        fields: The fields of the request.

    Returns:
        A response, which BentoML passes through; BentoML itself would make JSON on the event loop.
    """
    worker, scope = app.state.worker, context.request.scope
    try:
        admit(worker, scope, dict(scope["headers"]))
        return await respond_native(worker.engine, request_parsing.validate(ImageSpec, fields))
    except ApiError as error:
        context.response.status_code = error.status  # BentoML passes a response through, but for its status
        return error_response(error)


def is_ready(app: FastAPI) -> bool:
    """Return whether the app can answer requests for images."""
    try:
        app.state.worker.require_ready()
    except ApiError:
        return False
    return True


def remove_client_folders(instance: Any) -> None:
    """Remove the temporary folders of the clients that BentoML makes for each worker to call itself.

    They would be removed when Python exits, which a process that a signal ends does not reach.
    """
    proxy = getattr(instance, "__self_proxy__", None)
    for client in (getattr(proxy, "to_sync", None), getattr(proxy, "to_async", None)):
        folder = getattr(client, "_temp_dir", None)
        if folder is not None:
            folder.cleanup()


class RootDispatcher:
    """Hands every request to the app, and the lifespan to BentoML, which passes it on."""

    def __init__(self, bentoml_app: ASGIApp, app: FastAPI):
        self._bentoml_app, self._app = bentoml_app, app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, or the lifespan."""
        await (self._app if scope["type"] == "http" else self._bentoml_app)(scope, receive, send)
