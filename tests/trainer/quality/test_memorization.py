from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import binom

from imagesets import load_image_set
from imagesets.types import ImageSet
from tests.support.image_files import write_noise
from tests.support.trainer.generators import Replays
from trainer.quality.memorization import MAX_IMAGES, MIN_REAL, Memorization, binomial_interval, load_held_out
from trainer.training.proxy_metrics import ProxyMetrics

RNG = np.random.default_rng(0)
TRAIN = RNG.normal(size=(600, 8))
HELD_OUT = RNG.normal(size=(400, 8))
OTHERS = RNG.normal(size=(2000, 8))


def create(held_out: np.ndarray | None = HELD_OUT) -> Memorization:
    found = Memorization.create(TRAIN, TRAIN, held_out)
    assert found is not None
    return found


@pytest.mark.parametrize("held_out", [HELD_OUT, None], ids=["held-out", "leave-one-out"])
def test_memorization_of_training_images_is_one(held_out: np.ndarray | None) -> None:
    found = create(held_out).measure(TRAIN)
    assert found["quality/memorization"] == 1
    assert found["quality/memorization_real"] < 0.05
    assert found["quality/memorization_excess"] > 0.9


@pytest.mark.parametrize("held_out", [HELD_OUT, None], ids=["held-out", "leave-one-out"])
def test_memorization_of_new_real_images_is_that_of_the_reals(held_out: np.ndarray | None) -> None:
    found = create(held_out).measure(OTHERS)
    assert found["quality/memorization"] == pytest.approx(found["quality/memorization_real"], abs=0.02)
    assert found["quality/memorization_excess"] == 0


def test_memorization_of_a_tenth_of_copies_is_significant() -> None:
    found = create().measure(np.concatenate([TRAIN[:200], OTHERS[:1800]]))
    assert found["quality/memorization"] == pytest.approx(0.11, abs=0.02)
    assert found["quality/memorization_excess"] > 0


def test_memorization_ignores_real_images_that_are_trained_on_too() -> None:
    mixed = np.concatenate([HELD_OUT, TRAIN[:200]])
    assert create(mixed).measure(OTHERS) == create().measure(OTHERS)
    twice = np.concatenate([TRAIN, TRAIN[:300]])
    found = Memorization.create(twice, twice)
    assert found is not None
    assert found.measure(TRAIN)["quality/memorization"] == 1


def test_memorization_with_too_few_held_out_images_compares_the_others() -> None:
    few = HELD_OUT[: MIN_REAL - 1]
    assert create(few).measure(OTHERS) == create(None).measure(OTHERS)


@pytest.mark.parametrize("n", [1, 2, MIN_REAL - 1])
def test_memorization_of_too_few_images_is_not_measured(n: int) -> None:
    assert Memorization.create(TRAIN[:n], TRAIN[:n]) is None


@pytest.mark.parametrize(("k", "n"), [(0, 50), (3, 150), (50, 50), (700, 2000)])
def test_binomial_interval_has_the_tails_of_the_binomial(k: int, n: int) -> None:
    low, high = binomial_interval(k / n, n, level=0.99)
    assert low == 0 if k == 0 else binom.sf(k - 1, n, low) == pytest.approx(0.005)
    assert high == 1 if k == n else binom.cdf(k, n, high) == pytest.approx(0.005)


def noise(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 1), dtype=np.uint8)


def measure(train: np.ndarray, shown: np.ndarray, **options: np.ndarray) -> dict[str, float]:
    metrics = ProxyMetrics(train, 100, seed=0, z_distribution="normal", device=torch.device("cpu"), **options)
    return metrics.measure(Replays(shown))


def test_measure_of_a_generator_that_shows_training_images_is_one() -> None:
    train = noise(150, 0)
    found = measure(train, train[50:], held_out=noise(200, 1))  # more than are in the chosen 100
    assert found["quality/memorization"] == 1
    assert found["quality/memorization_excess"] > 0.5


def test_measure_of_a_generator_that_shows_held_out_images_is_low() -> None:
    found = measure(noise(150, 0), noise(100, 2), held_out=noise(200, 1))
    assert found["quality/memorization"] < 0.1
    assert found["quality/memorization_excess"] == 0


def test_measure_of_memorization_leaves_the_others_unchanged() -> None:
    large, small = noise(MAX_IMAGES + 1, 0), noise(MAX_IMAGES, 0)
    assert "quality/memorization" not in measure(large, noise(100, 2))
    found = measure(small, noise(100, 2))
    assert found["quality/memorization"] < 0.1
    without = measure(small, noise(100, 2), held_out=noise(40, 3))
    assert found["quality/frechet"] == without["quality/frechet"]


def folder_of(path: Path, names: dict[str, int]) -> Path:
    for name, seed in names.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(1, seed)[0, :, :, 0]).save(path / name)
    return path


def load(name: str) -> ImageSet:
    return load_image_set(name, resolution=8, channels=1, progress=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))


def test_load_held_out_is_the_other_split(tmp_path: Path) -> None:
    names = {f"{split}/{number}.png": number for number in range(6) for split in ["test" if number < 2 else "train"]}
    photos = folder_of(tmp_path / "photos", names)
    for split, other in (("train", 2), ("test", 4)):
        found = load_held_out(load(f"folder:{photos}@{split}"), tmp_path)
        assert found is not None
        assert len(found) == other
    assert load_held_out(load(f"folder:{photos}"), tmp_path) is None  # trained on all of them
    digits = load_held_out(load("digits"), tmp_path)
    assert digits is not None
    assert len(digits) == 297


def test_load_held_out_of_rectangles_has_their_shape(tmp_path: Path) -> None:
    images = load_image_set("digits", resolution="12x16", progress=False)
    found = load_held_out(images, tmp_path)
    assert found is not None
    assert found.images.shape[1:] == images.images.shape[1:] == (12, 16, 1)


def test_load_held_out_of_the_same_images_is_none(tmp_path: Path) -> None:
    photos = folder_of(tmp_path / "photos", {f"{split}/{n}.png": n for n in range(3) for split in ("train", "test")})
    assert load_held_out(load(f"folder:{photos}@train"), tmp_path) is None


def test_load_held_out_of_a_function_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["import numpy", "splits = []", "def images(split):"]
    lines += ["    splits.append(split)", "    return numpy.zeros((3, 8, 8), 'u1')"]
    (tmp_path / "held_out_functions.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    images = load("held_out_functions:images")
    import held_out_functions  # type: ignore[import-not-found]

    held_out_functions.splits.clear()
    assert load_held_out(images, tmp_path) is None
    assert held_out_functions.splits == []


def test_load_held_out_is_decoded_as_the_training_images(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("test", 2)):
        write_noise(tmp_path / "photos" / split, count, (256, 256), form="jpg", seed=count)
    source = f"folder:{tmp_path / 'photos'}"
    options = {"resolution": 8, "scale_jpegs": True, "progress": False}
    found = load_held_out(load_image_set(f"{source}@train", **options), tmp_path)
    assert found is not None
    assert np.array_equal(found.images, load_image_set(f"{source}@test", **options).images)
    assert not np.array_equal(found.images, load_image_set(f"{source}@test", resolution=8, progress=False).images)
