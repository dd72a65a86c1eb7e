"""The generator that is served before anything is trained: what it is, and that its digits can be read."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

from artifacts.generator_file import check
from evaluation.classify import classify_images
from evaluation.extractors import load_extractor
from evaluation.extractors.classifier import build_classifier
from evaluation.sources import open_source
from tests.support.paths import ROOT
from trainer.config.loading import preset_names

BUNDLED = ROOT / "service" / "bundled" / "digits.onnx"


def test_bundled_generator_is_small() -> None:
    assert BUNDLED.stat().st_size < 500_000


def test_bundled_generator_name_is_no_presets() -> None:
    name = check(onnx.load(BUNDLED)).name
    assert name == "bundled-digits"
    assert name not in preset_names()


@pytest.mark.slow
def test_bundled_generator_digits_are_classified(tmp_path: Path) -> None:
    judge = build_classifier("digits", tmp_path / "judge.onnx", seed=1)
    result = classify_images(
        open_source(str(BUNDLED)), load_extractor(judge.path), num_images=256, first_seed=0, threshold=0.9
    )
    assert result["sure_share"] >= 0.9
    assert min(result["class_shares"].values()) >= 0.03


def test_generator_file_page_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (code,) = re.findall(
        r"```python\n(.*?)```",
        (ROOT / "docs" / "reference" / "generator-file.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    names: dict[str, object] = {}
    exec(code, names)
    assert names["images"].shape == (16, 32, 32, 1)  # type: ignore[attr-defined]


def test_bundled_generator_keeps_the_contract(tmp_path: Path) -> None:
    from service.models.repository import BUNDLED
    from service.models.session import Runtime
    from tests.support.service.served_models import load_model

    for path in BUNDLED.glob("*.onnx"):
        load_model(path, 2**30, Runtime(1, 4))
