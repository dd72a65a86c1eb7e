"""The examples that use the packages from Python run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def run_example(name: str, *words: str, cwd: Path) -> str:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ATELIER_CACHE": str(cwd / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_train_from_python_exports_a_generator(tmp_path: Path) -> None:
    output = run_example("train_from_python", "0.32", cwd=tmp_path)
    assert "generator file:    models/digits-from-python.onnx" in output
    assert (tmp_path / "models" / "digits-from-python.onnx").is_file()


@pytest.mark.slow
def test_custom_loss_trains(tmp_path: Path) -> None:
    assert "runs/0001-least-absolute: loss/D " in run_example("custom_loss", "0.32", cwd=tmp_path)


@pytest.mark.parametrize("name", ["train_from_python", "custom_loss"])
def test_example_is_short(name: str) -> None:
    assert len((ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60
