"""The BentoML service: `bentoml serve service.service:GanAtelier`."""

import sys
from typing import Annotated, Any, cast

import bentoml
import numpy as np
from bentoml.validators import DType
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service import runtime_folder, startup
from service.app import create_app
from service.errors import ApiError, error_response
from service.middleware.auth import ApiKeys
from service.middleware.request import RequestMiddleware
from service.observability import logs, metrics
from service.server import connections, supervision
from service.server.bentoml_entry import GENERATE, NATIVE_ROUTES, Checked, Enveloped
from service.server.posix import UNSUPPORTED, is_supported
from service.settings import SettingsError, settings

if not is_supported():
    print(f"error: {UNSUPPORTED}", file=sys.stderr)
    raise SystemExit(2)
try:
    _settings = settings()
    ApiKeys(_settings)
    metrics.configure_multiprocess_dir(_settings.workers, supervising=bentoml.server_context.worker_index is None)
except SettingsError as error:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2) from None
except OSError as error:
    print(f"error: {startup.no_room(error)}", file=sys.stderr)
    raise SystemExit(2) from None
logs.configure(_settings)
supervision.watch_workers()
supervision.end_with_supervisor()
if bentoml.server_context.worker_index is not None:
    runtime_folder.keep_temporary_files()
    metrics.reserve_files()
connections.install(_settings)
app = create_app(_settings)


class Door:
    """Hands every request to the app, but those of BentoML's own routes: then each error has one shape.

    It stands before BentoML's middlewares, which cost as much as all the rest of a request, and of which the one for
    timeouts keeps something of each request in memory for a minute; the app's own deadlines end what takes too long.
    """

    def __init__(self, bentoml_app: ASGIApp):
        # these paths are few, and ours: each is its own template
        self._native = RequestMiddleware(
            Checked(Enveloped(bentoml_app)), lambda: app.state.worker, route=lambda scope: str(scope["path"])
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        native = scope["type"] != "http" or scope["path"] in NATIVE_ROUTES
        await (self._native if native else app)(scope, receive, send)


@bentoml.service(
    name="GanAtelier",
    workers=_settings.workers,
    # the batcher's deadline answers first, in the service's own words
    traffic={"timeout": _settings.deadline_s + 30},
    metrics={"enabled": False},
    http={"host": "127.0.0.1"},  # whoever opens it to other machines says so: --host or BENTOML_HOST
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class GanAtelier:
    """GAN Atelier: images from trained generators; one seed is one image."""

    @bentoml.api(route=GENERATE)
    async def generate(
        self,
        ctx: bentoml.Context,
        n: int | None = None,
        seed: int | None = None,
        seeds: list[int] | None = None,
        latents: list[list[float]] | None = None,
        labels: list[int] | None = None,
        truncation: float | None = None,
        model: str | None = None,
    ) -> Annotated[np.ndarray, DType("uint8")]:
        """uint8 [N, H, W, C] for BentoML's own client; fields and headers are those of /v1/generate."""
        from service import encoding
        from service.inference.inputs import resolve_generate
        from service.routes import negotiation, response_headers
        from service.routes.rendering import array_pixels
        from service.routes.schemas import ImageSpec

        fields: dict[str, Any] = {
            "n": n, "seed": seed, "seeds": seeds, "latents": latents, "labels": labels, "truncation": truncation,
            "model": model,
        }  # fmt: skip
        engine = app.state.worker.engine
        try:
            inputs = resolve_generate(negotiation.validate(ImageSpec, fields), engine.repository, engine.settings)
            pixels = array_pixels(inputs, engine.settings, encoding.JSON_BYTES_PER_VALUE)
            content = await engine.answer(inputs, pixels, encoding.encode_json_arrays)
        except ApiError as error:
            ctx.response.status_code = error.status  # BentoML passes a response through, but for its status
            return cast(Any, error_response(error))
        # BentoML would put the numbers into JSON on the event loop
        return cast(Any, Response(content, media_type=negotiation.JSON, headers=response_headers(inputs)))

    @bentoml.on_shutdown
    def remove_temporary_folders(self) -> None:
        """Remove the folders of the clients of itself that BentoML makes for each worker.

        They are removed at the exit of Python otherwise, which a process that a signal ends does not reach.
        """
        proxy = getattr(self, "__self_proxy__", None)
        for client in (getattr(proxy, "to_sync", None), getattr(proxy, "to_async", None)):
            folder = getattr(client, "_temp_dir", None)
            if folder is not None:
                folder.cleanup()


class _Fronted(type(cast(Any, GanAtelier))):  # type: ignore[misc]
    """BentoML's Service, its application behind the Door."""

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        return Door(super().to_asgi(is_main))


_service = cast(Any, GanAtelier)
_service.__class__ = _Fronted
_service.apis["generate"].input_spec.model_config["extra"] = "forbid"
_service.apis["generate"].input_spec.model_rebuild(force=True)
