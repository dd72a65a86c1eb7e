"""Transparent rectangles through the whole line: a folder, a training, an export, the service, a score."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from evaluation.cli import app as evaluation
from service.app import create_app
from service.settings import Settings
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.polling import wait_until
from trainer.cli import app as trainer

SETTINGS = """
    data.source=folder:stickers data.resolution=16x24 data.channels=4 model.conditional=false model.z_dim=4
    model.g_widths=[8,8] model.d_widths=[8,8] optim.batch_size=8 run.total_kimg=0.08 run.tick_kimg=0.04
    run.quality_ticks=0 run.device=cpu run.precision=fp32 run.threads=1
"""


@pytest.fixture
def stickers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with stickers/ (RGBA, 30 x 40, and one opaque photo), and an extractor."""
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for split, n in (("train", 40), ("test", 24)):
        folder = tmp_path / "stickers" / split
        folder.mkdir(parents=True)
        for index, image in enumerate(np.random.default_rng(n).integers(0, 256, (n, 30, 40, 4), dtype=np.uint8)):
            Image.fromarray(image[..., :3] if index == 0 else image).save(folder / f"{index}.png")
    write_tiny_extractor(tmp_path / "e.onnx")
    return tmp_path


def test_rgba_rectangles_are_trained_exported_served_and_scored(stickers: Path) -> None:
    sets = [word for setting in SETTINGS.split() for word in ("--set", setting)]
    done = CliRunner().invoke(trainer, ["train", "--preset", "digits-dcgan", *sets, "--export", "models"])
    assert done.exit_code == 0, done.output
    (file,) = Path("models").glob("*.onnx")

    with TestClient(create_app(Settings(model_dir=Path("models")))) as client:
        wait_until(lambda: client.get("/readyz").status_code == 200)
        picture = Image.open(io.BytesIO(client.get(f"/v1/models/{file.stem}/images/7.png").content))
    assert (picture.mode, picture.size) == ("RGBA", (24, 16))

    words = ["score", str(file), "--reference", "folder:stickers@test", "--extractor", "e.onnx", "--num-images", "24"]
    done = CliRunner().invoke(evaluation, [*words, "-o", "report.json"])
    assert done.exit_code == 0, done.output
    document = json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert document["source"]["shape"] == [16, 24, 4]
    assert (document["reference"]["image_set"]["resolution"], document["n"]) == ("16x24", 24)
    assert "RGBA images were drawn over white for the features, generated and real ones alike" in document["warnings"]
    assert "1 of 24 reference images were RGB and were converted to RGBA" in document["warnings"]
