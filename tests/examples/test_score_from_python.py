"""examples/score_from_python.py, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.paths import ROOT

EXAMPLE = ROOT / "examples/score_from_python.py"


def test_score_from_python_prints_scores_of_three_kinds_of_images(tmp_path: Path) -> None:
    extractor = write_tiny_extractor(tmp_path / "e.onnx", dim=8)
    command = [sys.executable, "-W", "ignore", str(EXAMPLE), str(extractor)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("fd_tiny1500 = ", "recall_tiny1500 = ", "mean_shift_tiny1500 = "):
        assert name in done.stdout
    assert "mean_shift_tiny1500: " in done.stdout
    assert float(done.stdout.splitlines()[-1].removeprefix("noise: ")) > 0


def test_score_from_python_has_at_most_sixty_lines() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 60
