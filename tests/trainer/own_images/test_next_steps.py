from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.image_files import write_noise
from trainer.own_images import next_steps
from trainer.own_images.report import Inspection

Look = Callable[..., Inspection]
GENERATOR, DATA = Path("models/photos.onnx"), Path("data")


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_steps, "weights_path", lambda: Path("none"))
    monkeypatch.setattr(next_steps, "missing_packages", lambda extra: [])


def _score(found: Inspection) -> list[str]:
    return [line.partition("evaluation ")[2] for line in next_steps.score_lines(found, GENERATOR, DATA)]


def test_score_of_few_photos_is_kid_against_all(look: Look) -> None:
    write_noise(Path("photos"), 40)
    assert _score(look("photos")) == [
        "score models/photos.onnx --reference folder:photos --metrics kid --num-images 2000 --kid-subset-size 20 "
        "--output photos-score"
    ]


def test_score_of_held_out_photos_has_memorization(look: Look) -> None:
    write_noise(Path("photos"), 400)
    assert "--reference folder:photos@train --metrics kid,memorization" in _score(look("photos"))[0]


def test_score_of_gray_classes_makes_a_classifier_first(look: Look) -> None:
    for seed, name in enumerate(("cats", "owls")):
        write_noise(Path("photos") / name, 60, mode="L", seed=seed)
    first, score = _score(look("photos"))
    assert first == "extractor classifier --images folder:photos --resolution 32 --output extractors/photos.onnx"
    assert "--extractor extractors/photos.onnx" in score


def test_score_of_gray_photos_makes_efficientnet_first(look: Look) -> None:
    write_noise(Path("photos"), 40, mode="L")
    assert _score(look("photos"))[0] == "extractor efficientnet-lite0 --output extractors/efficientnet-lite0.onnx"


def test_score_without_efficientnet_uses_random_features(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(next_steps, "missing_packages", lambda extra: ["efficientnet_lite_pytorch"])
    write_noise(Path("photos"), 40)
    assert _score(look("photos"))[0].startswith("extractor random-convolutions --resolution 32 --channels 3 ")


def test_score_of_a_named_set_uses_its_name(look: Look) -> None:
    found = look("digits")
    assert "--reference digits --metrics kid,memorization" in _score(found)[1]


def test_paths_with_spaces_are_quoted(look: Look) -> None:
    write_noise(Path("my photos"), 40)
    assert "--reference 'folder:my photos'" in _score(look("my photos"))[0]
