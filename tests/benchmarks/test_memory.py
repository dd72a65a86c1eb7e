"""The memory of a training: the arithmetic by hand, and a measurement."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from benchmarks.memory.training_memory import estimate, saved_bytes
from trainer import networks
from trainer.config import loading

MLP = ["data.resolution=4x6", "model.z_dim=5", "model.g_widths=[7]", "model.d_widths=[9]", "optim.batch_size=8"]


def test_saved_bytes_are_what_backward_needs() -> None:
    layer, inputs = nn.Linear(3, 2), torch.randn(4, 3)
    with saved_bytes(layer) as found:
        torch.tanh(layer(inputs))
    assert sum(found.values()) == 4 * (4 * 3 + 4 * 2)  # the layer's input and tanh's output, without the weight


def test_estimate_of_networks_is_five_times_g_and_four_times_d() -> None:
    config = loading.resolve("mnist-gan", MLP)
    g, d = (networks.parameter_count(network) for network in networks.build(config))
    assert estimate(config)["networks"] == 4 * (5 * g + 4 * d)


def test_estimate_of_activations_grows_with_the_batch_and_the_pixels() -> None:
    small, batch, pixels = (
        estimate(loading.resolve("mnist-gan", [*MLP, *more]))["activations"]
        for more in ([], ["optim.batch_size=16"], ["data.resolution=8x12"])
    )
    assert batch == 2 * small
    assert pixels > small


CHILD = """
import json
from benchmarks.memory.training_memory import measure
from trainer.config import loading
sizes = ["data.resolution=64", "model.g_widths=[32,16,8,8]", "model.d_widths=[8,8]", "optim.batch_size=64"]
config = loading.resolve("celeba-dcgan", [*sizes, "run.device=cpu", "run.threads=1", "run.precision=fp32"])
print(json.dumps(measure(config, 1)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_measure_returns_a_peak_and_a_rate() -> None:
    # In a new process: this one may have freed memory that the training would use without growing.
    child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    found = json.loads(child.stdout.splitlines()[-1])
    assert found["peak"] > 2**20
    assert found["images_per_second"] > 0
