"""BentoML's own adaptive batching on the generator file GENERATOR, as its documentation shows it.

GENERATOR=models/mnist-dcgan.onnx bentoml serve benchmarks.peers.bentoml_batchable:Batchable
"""

import os

import bentoml
import numpy as np

from artifacts.latents import seeds_to_latents


@bentoml.service(name="batchable", metrics={"enabled": False}, logging={"access": {"enabled": False}})
class Batchable:
    def __init__(self) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(os.environ["GENERATOR"], options, providers=["CPUExecutionProvider"])
        self.z_dim = self.session.get_inputs()[0].shape[1]

    @bentoml.api(route="/v1/generate", batchable=True, max_batch_size=64, max_latency_ms=30_000)
    def generate(self, seeds: list[int]) -> np.ndarray:
        """uint8 [N, H, W, C], as JSON: numbers in lists."""
        return self.session.run(None, {"latents": seeds_to_latents(seeds, self.z_dim)[0]})[0]
