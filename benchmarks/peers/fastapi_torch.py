"""What one writes first: a FastAPI handler that runs the torch generator of PRESET, untrained, for each request.

PRESET=mnist-dcgan uvicorn benchmarks.peers.fastapi_torch:app
"""

import io
import os

import numpy as np
import torch
from fastapi import FastAPI, Response
from pydantic import BaseModel

from trainer.config.loading import resolve
from trainer.networks import build

torch.set_num_threads(len(os.sched_getaffinity(0)))
G = build(resolve(os.environ["PRESET"]))[0].eval()
app = FastAPI()


class Body(BaseModel):
    seed: int
    n: int


@app.post("/v1/generate")
def generate(body: Body) -> Response:
    """FastAPI runs it on a thread of its pool; uint8 [N, H, W, C] as .npy."""
    z = torch.randn(body.n, G.z_dim, generator=torch.Generator().manual_seed(body.seed))
    with torch.inference_mode():
        images = ((G(z) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    out = io.BytesIO()
    np.save(out, images.contiguous().numpy())
    return Response(out.getvalue(), media_type="application/x-npy")
