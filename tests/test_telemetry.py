"""Nothing that we start tells anybody of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SESSION = """
import importlib, sys
importlib.import_module(sys.argv[1])
import onnxruntime
onnxruntime.InferenceSession(sys.argv[2], providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("room", ["service", "evaluation", "trainer"])
def test_onnx_runtime_sends_no_telemetry(room: str, tmp_path: Path) -> None:
    """Its telemetry keeps a device's number and a database in the home folder, but not where it sees a CI at work."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")}
    done = subprocess.run(
        [sys.executable, "-c", SESSION, room, str(ROOT / "service/bundled/digits.onnx")],
        env={**kept, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
