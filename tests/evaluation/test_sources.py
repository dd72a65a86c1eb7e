"""Sources give exactly the images asked for, and a batch's size changes none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.metrics.certainty import certainty
from evaluation.sources import Draw, choice, open_source
from tests.evaluation.helpers import fake_service, write_pictures
from tests.tiny_generator import write_tiny_generator


def images_of(source, first: int, n: int, batch: int) -> np.ndarray:
    return np.concatenate([got.images for got in source.batches(Draw(first, n), 0, n, batch)])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_generator_files_image_depends_on_its_seed_alone(tmp_path: Path, num_classes: int) -> None:
    source = open_source(str(write_tiny_generator(tmp_path / "g.onnx", num_classes=num_classes)))
    together = images_of(source, 10, 13, 5)
    assert together.shape == (13, 8, 8, 1)
    assert (together == np.concatenate([images_of(source, seed, 1, 64) for seed in range(10, 23)])).all()


def test_a_services_images_come_in_seed_order() -> None:
    with fake_service(lambda seed: np.full((8, 8, 1), seed % 256, np.uint8)) as url:
        source = open_source(url)
        assert images_of(source, 3, 500, 64)[:, 0, 0, 0].tolist() == [i % 256 for i in range(3, 503)]
        with pytest.raises(EvaluationError, match="'absent'"):
            open_source(url, model="absent")


def test_a_choice_of_real_images_is_fixed_and_without_repetition(tmp_path: Path) -> None:
    source = open_source(f"folder:{write_pictures(tmp_path / 'p')}@train", cache_root=tmp_path / "c")
    some = images_of(source, 0, 30, 7)
    assert (some == images_of(source, 0, 30, 64)).all()
    assert choice(10, 10, 0).tolist() == list(range(10))
    assert len(set(choice(1000, 100, 0).tolist())) == 100
    assert choice(1000, 4, 0).tolist() == [162, 664, 670, 998]


def test_certainty_is_softmax_and_shares() -> None:
    logits = np.log(np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8], [0.91, 0.09]], np.float32)) + 1000
    share, classes = certainty(logits, 0.9)
    assert share == 0.5
    assert classes.tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="N of 1 or more"):
        certainty(np.zeros((0, 2)), 0.9)
