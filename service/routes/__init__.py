"""The HTTP routes, one module per subject, and what they share.

Bodies are parsed and responses written without FastAPI's models, so that a response costs little more than its images.
"""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from service.encoding import format_ranges

if TYPE_CHECKING:
    from service.inference.engine import InferenceEngine
    from service.inference.inputs import InferenceInputs
    from service.worker import Worker

MAX_SEEDS_HEADER = 4096  # bytes; clients limit a header line to 8 KiB


class RawRoute(APIRoute):
    """A documented route whose function takes the request only; FastAPI resolves no dependencies for it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the route's function itself."""
        return self.endpoint


def get_worker(request: Request) -> "Worker":
    """Return the state of this worker process."""
    worker: Worker = request.app.state.worker
    return worker


def get_engine(request: Request) -> "InferenceEngine":
    """Return the inference engine of this worker process."""
    return get_worker(request).engine


def response_headers(inputs: "InferenceInputs") -> dict[str, str]:
    """Return the headers of an answer with images: model, digest, number of images, seeds and labels."""
    m = inputs.generator.metadata
    headers = {
        "Atelier-Model": m.name,
        "Atelier-Digest": m.digest,
        "Atelier-Images": str(len(inputs)),
        "Vary": "Accept",
    }
    if inputs.seeds is not None and len(seeds := format_ranges(inputs.seeds)) <= MAX_SEEDS_HEADER:
        headers["Atelier-Seeds"] = seeds
    if inputs.labels is not None and len(labels := ",".join(map(str, inputs.labels))) <= MAX_SEEDS_HEADER:
        headers["Atelier-Labels"] = labels
    return headers
