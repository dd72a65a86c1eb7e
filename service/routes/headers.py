"""What every answer with images tells beside them: model, digest, seeds, labels."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import Request

if TYPE_CHECKING:
    from service.inference.engine import Atelier
    from service.inference.inputs import Plan

MAX_SEEDS_HEADER = 4096  # bytes; clients limit a header line to 8 KiB


def atelier_of(request: Request) -> "Atelier":
    return request.app.state.atelier


def headers_of(plan: "Plan") -> dict[str, str]:
    """What is told of the images beside the body, whatever its form."""
    from service.encoding import ranges

    m = plan.generator.metadata
    headers = {
        "Cache-Control": "no-store",
        "Atelier-Model": m.name,
        "Atelier-Digest": m.digest,
        "Atelier-Images": str(len(plan.latents)),
        "Vary": "Accept",
    }
    if plan.seeds is not None and len(seeds := ranges(plan.seeds)) <= MAX_SEEDS_HEADER:
        headers["Atelier-Seeds"] = seeds
    if plan.labels is not None and len(labels := ",".join(map(str, plan.labels))) <= MAX_SEEDS_HEADER:
        headers["Atelier-Labels"] = labels
    return headers


def facts_of(plan: "Plan") -> dict[str, Any]:
    m = plan.generator.metadata
    return {"created": int(datetime.now(UTC).timestamp()), "model": m.name, "digest": m.digest}
