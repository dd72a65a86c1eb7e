"""The example of a user's extractor runs and prints a distance."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from evaluation.extractors import load_extractor
from tests.support.paths import ROOT

EXAMPLE = ROOT / "examples/custom_extractor.py"


@pytest.mark.slow
def test_custom_extractor_example_prints_a_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    command = [sys.executable, str(EXAMPLE), "mine.onnx"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"^fd_random-cnn\d+ = ([\d.]+), against \d+ test images$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    assert 0 < float(found[1]) < 1
    assert load_extractor(tmp_path / "mine.onnx").metric == "fd_random-cnn"
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
