"""The plain path is the fast path's algorithm: same networks, same first losses, no fused optimizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import fast_path
from trainer import devices
from trainer.config import loading
from trainer.training.loop import pop_means, train_iteration

TINY = ["model.g_widths=[8,8,8]", "model.d_widths=[8,8,8]", "run.precision=fp32", "run.threads=1", "run.device=cpu"]


def test_plain_state_trains_as_the_fast_one() -> None:
    config = devices.resolve_auto(loading.resolve("digits-dcgan", TINY))
    images, names, _ = fast_path.load_images(config, Path("data"))
    config = config.model_copy(update={"data": config.data.model_copy(update={"class_names": names})})
    losses = {}
    for path, make in fast_path.PATHS.items():
        state = make(config)
        labels = torch.arange(len(images)).remainder(10).numpy()
        batches = fast_path.Batches(images, 32, seed=0, device=state.device, labels=labels)
        for _ in range(3):
            train_iteration(state, batches)
        losses[path] = pop_means(state)
    assert losses["plain"]["loss/D"] == pytest.approx(losses["fast"]["loss/D"], rel=1e-3)
    assert losses["plain"]["loss/G"] == pytest.approx(losses["fast"]["loss/G"], rel=1e-3)
    assert not state.g_optimizer.defaults["fused"]


def test_measure_returns_the_rates_of_both_paths() -> None:
    found = fast_path.measure(loading.resolve("digits-dcgan", TINY), Path("data"), rounds=1, seconds=0.1)
    rates = found["images_per_second"]
    assert min(rates.values()) > 0
    assert found["ratio"]["plain"]["median"] == pytest.approx(rates["fast"] / rates["plain"], abs=1e-3)
    assert (found["preset"], found["images"], found["batch_size"]) == ("digits-dcgan", "digits@train", 32)


def test_measure_against_settings_compares_the_fast_path_with_itself() -> None:
    settings = ["objective.r1_gamma=1 objective.r1_interval=1", "objective.gradient_penalty=dragan"]
    config = loading.resolve("digits-dcgan", TINY)
    found = fast_path.measure(config, Path("data"), rounds=1, seconds=0.1, against=settings)
    rates = found["images_per_second"]
    assert list(rates) == ["fast", *settings]
    for each in settings:
        assert found["ratio"][each]["median"] == pytest.approx(rates["fast"] / rates[each], abs=1e-3)
