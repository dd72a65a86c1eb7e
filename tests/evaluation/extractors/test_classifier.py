"""Training a domain classifier: reproducible, accurate on digits, and the file says what it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from evaluation.errors import EvaluationError
from evaluation.extractors import load_extractor
from evaluation.extractors.classifier import build_classifier
from imagesets import ImageSetError


def bright_and_dark(root: Path) -> str:
    rng = np.random.default_rng(0)
    for split, n in (("train", 256), ("test", 20)):
        for name, low in (("bright", 150), ("dark", 0)):
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(low, low + 100, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return f"folder:{root}"


@pytest.mark.slow
def test_build_classifier_same_seed_gives_same_file(tmp_path: Path) -> None:
    images = bright_and_dark(tmp_path / "pictures")
    built = [
        build_classifier(images, tmp_path / f"{i}/judge.onnx", cache_root=tmp_path / "cache", seed=seed, epochs=2)
        for i, seed in enumerate((0, 0, 1))
    ]
    extractors = [load_extractor(one.path) for one in built]
    assert extractors[0].digest == extractors[1].digest
    assert extractors[0].digest != extractors[2].digest
    first = extractors[0]
    assert first.dim <= 64
    assert first.metric == "fd_classifier"
    assert first.class_names == ("bright", "dark")
    assert built[0].metadata["accuracy"] == 1.0
    assert built[0].metadata["chance"] == 0.5
    assert built[0].export_error < 1e-5
    logits = first(np.full((1, 30, 30, 1), 250, np.uint8)).logits  # another size, grey
    assert logits.argmax() == 0
    text = onnx.load(built[0].path).SerializeToString()
    assert str(Path.cwd()).encode() not in text, "the file tells where it was built"


def test_build_classifier_without_labels_fails(tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for i in range(100):
        Image.new("L", (8, 8), i).save(tmp_path / "flat" / f"{i}.png")
    with pytest.raises(EvaluationError, match="no labels"):
        build_classifier(f"folder:{tmp_path / 'flat'}", tmp_path / "x.onnx", cache_root=tmp_path / "cache")
    with pytest.raises(EvaluationError, match="train split"):
        build_classifier("digits@test", tmp_path / "x.onnx", cache_root=tmp_path / "cache")
    assert not (tmp_path / "x.onnx").exists()


def test_build_classifier_of_mixed_sizes_takes_a_resolution(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "mixed" / name).mkdir(parents=True)
        for i in range(60):
            Image.new("L", (10 + i % 3, 12), i).save(tmp_path / "mixed" / name / f"{i}.png")
    images, cache = f"folder:{tmp_path / 'mixed'}", tmp_path / "cache"
    with pytest.raises(ImageSetError, match=r"different sizes.*--resolution 64"):
        build_classifier(images, tmp_path / "x.onnx", cache_root=cache)
    built = build_classifier(images, tmp_path / "x.onnx", cache_root=cache, resolution=8, epochs=1)
    assert built.metadata["resolution"] == 8


@pytest.mark.slow
def test_build_classifier_on_digits_is_accurate(tmp_path: Path) -> None:
    built = build_classifier("digits", tmp_path / "d.onnx", cache_root=tmp_path / "cache")
    assert built.metadata["accuracy"] > 0.97
