"""The BentoML service: `bentoml serve service.service:GanAtelier`.

BentoML starts and supervises the worker processes, builds bentos and images that contain the service and its models,
and describes a native endpoint to its own clients. The FastAPI app, which BentoML mounts, answers every request.
"""

from typing import Annotated, Any

import bentoml
import numpy as np
from bentoml.validators import DType

from service.app import create_app
from service.routes.images import NATIVE_ROUTE
from service.server import bentoml_adapter, process_setup

_settings, _connection_limits = process_setup.set_up()
app = create_app(_settings, _connection_limits)


@bentoml.service(
    name="GanAtelier",
    workers=_settings.workers,
    # the app's own deadline comes first, with the app's own error
    traffic={"timeout": _settings.deadline_s + 30},
    metrics={"enabled": False},
    http={"host": "127.0.0.1"},  # --host or BENTOML_HOST opens it to other machines
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class GanAtelier:
    """GAN Atelier: images from trained generators; one seed is one image."""

    @bentoml.api(route=NATIVE_ROUTE)  # type: ignore[untyped-decorator]
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
        fields: dict[str, Any] = {"n": n, "seed": seed, "seeds": seeds, "latents": latents, "labels": labels}
        response: np.ndarray = await bentoml_adapter.generate(
            app, ctx, fields | {"truncation": truncation, "model": model}
        )
        return response

    async def __is_ready__(self) -> bool:
        """Answer BentoML's own /readyz, should it come before the app's."""
        return bentoml_adapter.is_ready(app)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def remove_temporary_folders(self) -> None:
        """Remove what BentoML leaves in the folder of temporary files."""
        bentoml_adapter.remove_client_folders(self)


bentoml_adapter.install(GanAtelier, app)
