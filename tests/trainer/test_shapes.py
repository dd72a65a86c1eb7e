"""Runs on rectangular and transparent images: training, export, optimization, pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from artifacts.generator_file import check
from artifacts.latents import seeds_to_latents
from tests.support.trainer.generators import random_generator
from tests.support.trainer.tiny_run import tensors
from trainer import api
from trainer.cli import app
from trainer.config.schema import Config
from trainer.data import Batches
from trainer.errors import TrainerError
from trainer.onnx_export import benchmark, exporter, quantize
from trainer.reports import image_grids
from trainer.training import loop
from trainer.training.proxy_metrics import ProxyMetrics
from trainer.training.state import TrainState

Tiny = Callable[..., Config]
WIDTHS = {"g_widths": [24, 16, 8], "d_widths": [8, 8]}


def images_of(config: Config, n: int = 24) -> np.ndarray:
    shape = (n, config.data.height, config.data.width, config.data.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture
def clear(tiny: Tiny) -> Config:
    """A tiny run of RGBA images, 16 x 24 pixels."""
    return tiny(data={"resolution": "16x24", "channels": 4}, model=WIDTHS)


@pytest.fixture
def stickers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a folder of RGBA images."""
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("stickers").mkdir()
    for index, image in enumerate(np.random.default_rng(0).integers(0, 256, (24, 20, 30, 4), dtype=np.uint8)):
        Image.fromarray(image).save(f"stickers/{index}.png")
    return "folder:stickers"


@pytest.mark.parametrize("architecture", ["mlp", "dcgan", "sndcgan", "resnet"])
def test_train_iteration_on_rgba_rectangles_changes_both_networks(architecture: str, tiny: Tiny) -> None:
    model = {"architecture": architecture, **WIDTHS}
    state = TrainState.create(tiny(data={"resolution": "16x24", "channels": 4}, model=model))
    before = {name: tensor.clone() for name, tensor in tensors(state).items()}
    batches = Batches(images_of(state.config), 8, seed=0, device=torch.device("cpu"), flip=True)
    loop.train_iteration(state, batches)
    after = tensors(state)
    assert {"G", "D", "G_ema"} <= {name.split(".")[0] for name in before if not torch.equal(after[name], before[name])}


def test_export_of_rgba_rectangles_is_a_generator_file(clear: Config) -> None:
    G = random_generator(clear)
    model = exporter.to_onnx(G)
    payload = {"counters": {"images_seen": 40}, "created": "2026-01-01T00:00:00+00:00"}
    exporter.set_metadata(model, exporter.build_metadata(clear, payload, "clear"))
    assert check(model).image_shape == (16, 24, 4)
    assert exporter.verify(model, G, clear)[2] == 64 * 16 * 24 * 4


@pytest.mark.parametrize("how", ["int8", "fp16"])
def test_optimized_graph_of_rgba_rectangles_has_nearly_its_images(clear: Config, how: str) -> None:
    model = exporter.to_onnx(random_generator(clear))
    feed = exporter.make_feed(range(16), 4, "normal", 0)
    made = quantize.to_int8(model, iter([feed])) if how == "int8" else quantize.to_fp16(model)
    (plain,), (optimized,) = (benchmark.make_session(each).run(["images"], feed) for each in (model, made))
    assert optimized.shape == (16, 16, 24, 4)
    assert np.abs(optimized.astype(int) - plain).mean() < (12 if how == "int8" else 1)


def test_proxy_metrics_of_rgba_rectangles_are_finite(clear: Config) -> None:
    metrics = ProxyMetrics(images_of(clear), 20, seed=0, z_distribution="normal", device=torch.device("cpu"))
    found = metrics.measure(random_generator(clear))
    assert 0 < found["quality/frechet"] < 1e6
    assert 0 <= found["quality/recall"] <= 1


def test_saturated_of_rgba_looks_at_visible_colors_only() -> None:
    images = np.zeros((1, 4, 4, 4), np.uint8)
    assert image_grids.saturated(images) == 0
    images[0, 0] = (255, 100, 100, 255)
    assert image_grids.saturated(images) == pytest.approx(1 / 3)


def test_run_on_a_folder_of_rgba_writes_its_pictures(stickers: str, tiny: Tiny) -> None:
    data = {"source": stickers, "resolution": "16x24", "channels": 4}
    run = api.train(tiny(data=data, model=WIDTHS, run={"quality_images": 20, "quality_ticks": 1}), quiet=True)
    grid = Image.open(sorted((run.path / "samples").glob("fixed-*.png"))[-1])
    assert (grid.mode, grid.size) == ("RGBA", (2 * (8 * 26 + 2), 2 * (8 * 18 + 2)))
    assert np.asarray(grid)[0, 0, 3] == 0  # the border is clear
    assert "16x24 px, 4 channels" in (run.path / "report.html").read_text(encoding="utf-8")
    sample = CliRunner().invoke(app, ["sample", str(run.path), "--output", "out.png"])
    assert sample.exit_code == 0, sample.output
    assert Image.open("out.png").mode == "RGBA"


def test_resumed_run_of_rgba_rectangles_equals_an_uninterrupted_one(stickers: str, tiny: Tiny) -> None:
    data = {"source": stickers, "resolution": "16x24", "channels": 4}
    whole = api.train(tiny(data=data, model=WIDTHS), quiet=True)
    half = api.train(tiny(data=data, model=WIDTHS, run={"total_kimg": 0.08}), quiet=True)
    api.train(resume=half, config=tiny(data=data, model=WIDTHS), quiet=True)
    weights = [torch.load(run.path / "checkpoint-00000020.pt", weights_only=True)["G_ema"] for run in (whole, half)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_train_that_no_doubling_reaches_names_the_nearest(tiny: Tiny) -> None:
    with pytest.raises(TrainerError, match=r"cannot make 17x24 px: .*; near it are 16x24 and "):
        tiny(data={"resolution": "17x24"}, model=WIDTHS)


def test_latents_of_an_export_give_the_same_alpha_as_torch(clear: Config) -> None:
    G = random_generator(clear)
    (images,) = benchmark.make_session(exporter.to_onnx(G)).run(
        ["images"], {"latents": seeds_to_latents(range(4), 4)[0]}
    )
    ours = image_grids.sample(G, range(4), "normal")
    assert np.abs(images[..., 3].astype(int) - ours[..., 3]).max() <= 1
    assert len(np.unique(images[..., 3])) > 2
