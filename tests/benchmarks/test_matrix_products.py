"""The yardstick has the FLOPs that PyTorch counts, and each way to compute a product computes that product."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import matrix_products
from benchmarks.matrix_products import Product, ProductRecorder, StepProducts
from trainer.config import loading
from trainer.data import Batches
from trainer.training.loop import train_iteration
from trainer.training.state import TrainState

F32 = torch.float32
CONV = ("model.g_widths=[8,8,8]", "model.d_widths=[4,8,8]", "optim.batch_size=4", "run.device=cpu")
LARGE = ("model.g_widths=[8,8,8,8]", "model.d_widths=[4,4,8,8]", "optim.batch_size=4", "run.device=cpu")
MLP = ("optim.batch_size=4", "run.device=cpu")


def recorded(module: nn.Module, inputs: torch.Tensor) -> list[Product]:
    with ProductRecorder() as recorder:
        module(inputs).sum().backward()
    return recorder.products


def test_products_of_a_linear_layer_are_its_output_and_two_gradients() -> None:
    products = recorded(nn.Linear(3, 5), torch.randn(2, 3, requires_grad=True))
    assert sorted(products, key=str) == [Product(2, 3, 5, F32), Product(2, 5, 3, F32), Product(5, 3, 2, F32)]


def test_products_of_a_convolution_are_those_of_its_unfolded_input() -> None:
    products = recorded(nn.Conv2d(3, 5, 4, stride=2, padding=1), torch.randn(2, 3, 8, 8, requires_grad=True))
    assert products == [Product(2 * 4 * 4, 5, 48, F32), Product(2 * 4 * 4, 48, 5, F32), Product(5, 48, 2 * 4 * 4, F32)]


def test_products_of_a_transposed_convolution_exchange_its_sides() -> None:
    products = recorded(nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1), torch.randn(2, 3, 4, 4, requires_grad=True))
    assert products == [Product(2 * 4 * 4, 80, 3, F32), Product(2 * 4 * 4, 3, 80, F32), Product(3, 80, 2 * 4 * 4, F32)]


def test_products_of_a_first_grouped_convolution_have_no_input_gradient() -> None:
    products = recorded(nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.randn(2, 4, 5, 5))
    assert products == [Product(50, 3, 18, F32)] * 2 + [Product(3, 18, 50, F32)] * 2


@pytest.mark.parametrize(
    ("preset", "sets"),
    [("mnist-gan", MLP), ("mnist-dcgan", CONV), ("celeba-dcgan", LARGE), ("cifar10-wgan", LARGE)],
)
def test_step_products_have_the_flops_that_torch_counts(preset: str, sets: tuple[str, ...]) -> None:
    config = loading.resolve(preset, (*sets, "run.precision=fp32"))
    data, images = config.data, config.optim.batch_size * config.optim.n_critic
    shape = (images, data.resolution, data.resolution, data.channels)
    state = TrainState.create(config)
    batches = Batches(np.zeros(shape, np.uint8), config.optim.batch_size, seed=0, device=state.device)
    with FlopCounterMode(display=False) as counter:
        train_iteration(state, batches)
    products = matrix_products.record_step(config)
    assert sum(product.flops for product in products) == counter.get_total_flops() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ways_compute_the_same_product(dtype: torch.dtype) -> None:
    first, *others = [way() for way in matrix_products.ways(Product(8, 16, 32, dtype))]
    assert first.shape == (8, 16)
    assert others
    for other in others:
        torch.testing.assert_close(other.to_dense() if other.is_mkldnn else other, first)


def test_step_products_in_bfloat16_are_measured_in_bfloat16() -> None:
    products = StepProducts(loading.resolve("mnist-dcgan", (*CONV, "run.precision=bf16")))
    assert {product.dtype for product in products.counts} == {torch.bfloat16}
    assert products.measure(0.0) > 0
