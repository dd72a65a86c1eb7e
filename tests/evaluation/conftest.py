"""The folder that most tests of the evaluation work in."""

from pathlib import Path

import pytest

from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: pictures/ with train and test, e.onnx (an extractor), g.onnx (a generator), a cache."""
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    write_tiny_extractor(tmp_path / "e.onnx")
    write_tiny_generator(tmp_path / "g.onnx")
    return tmp_path
