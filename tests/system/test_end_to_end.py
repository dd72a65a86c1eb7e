"""The whole line, as `make demo` runs it: a real training, a real export, a real `bentoml serve`, a real score."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from artifacts.latents import seeds_to_labels, seeds_to_latents
from examples import demo as example
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that trained for 1 kimg."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "examples.demo", "--folder", str(folder), "--kimg", "1"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    return folder


def test_demo_in_an_impossible_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "README.md"
    taken.touch()
    monkeypatch.setattr(sys, "argv", ["demo", "--folder", str(taken)])
    with pytest.raises(SystemExit) as ended:
        example.main()
    assert ended.value.code == 2
    line = f"demo: error: --folder takes a writable folder, not {taken} (File exists)"
    assert capsys.readouterr().err.splitlines()[-1] == line


@pytest.mark.slow
def test_demo_exported_generator_has_its_metadata(demo: Path) -> None:
    properties = {entry.key: entry.value for entry in onnx.load(demo / "models" / "digits-dcgan.onnx").metadata_props}
    assert properties["dataset"] == "digits"
    assert int(properties["images_seen"]) >= 1000


@pytest.mark.slow
def test_demo_grid_shows_the_images_of_its_seeds(demo: Path) -> None:
    """Seed to pixel across three rooms: the trainer's latents, the exported file, the service's PNG."""
    session = onnxruntime.InferenceSession(str(demo / "models" / "digits-dcgan.onnx"))
    z_dim = session.get_inputs()[0].shape[1]
    feed = {"latents": seeds_to_latents(range(64), z_dim)[0], "labels": seeds_to_labels(range(64), z_dim, 10)}
    (images,) = session.run(["images"], feed)
    grid = np.asarray(Image.open(demo / "grid.png").convert("L"))[::2, ::2]  # the demo asks for scale 2
    np.testing.assert_array_equal(grid.reshape(8, 32, 8, 32).swapaxes(1, 2).reshape(64, 32, 32, 1), images)


@pytest.mark.slow
def test_demo_interpolation_moves(demo: Path) -> None:
    animation = Image.open(demo / "morph.gif")
    assert animation.n_frames > 40
    frames = set()
    for index in range(animation.n_frames):
        animation.seek(index)
        frames.add(animation.convert("L").tobytes())
    assert len(frames) > animation.n_frames // 2


@pytest.mark.slow
def test_demo_report_has_its_provenance(demo: Path) -> None:
    report = json.loads((demo / "report" / "report.json").read_text(encoding="utf-8"))
    text = json.dumps(report)
    generator = onnx.load(demo / "models" / "digits-dcgan.onnx")
    digest = next(entry.value for entry in generator.metadata_props if entry.key == "digest")
    assert digest in text
    assert "digits" in text
    assert "http://127.0.0.1" in text
