"""The files of the first release in tests/fixtures/first_release are read. Its own commands made them:

    trainer train --preset digits-dcgan --name small --set data.resolution=8 --set model.z_dim=4
        --set model.g_widths=[8] --set model.d_widths=[8] --set optim.batch_size=8 --set run.total_kimg=0.08
        --set run.tick_kimg=0.04 --set run.threads=1 --set run.quality_images=20 --export models
    evaluation score models/small.onnx --reference digits@test --extractor e.onnx --num-images 60
        --metrics fid,precision,recall --output report

The run folder has the first of its two checkpoints; the generator file is the export of the second.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluation
import trainer
from artifacts.latents import seeds_to_labels, seeds_to_latents
from evaluation.report import reader, render
from evaluation.sources import SeedRange, open_source
from service.models.session import Runtime
from tests.support.paths import ROOT
from tests.support.service.served_models import load_model

FILES = ROOT / "tests" / "fixtures" / "first_release"
SEEDS = range(60)


def images_of(generator: Path) -> np.ndarray:
    """Return the images of SEEDS, uint8 [60, 8, 8, 1]."""
    seeds = SeedRange(0, len(SEEDS))
    batches = open_source(str(generator)).batches(seeds, 0, len(SEEDS), len(SEEDS))
    return np.concatenate([batch.images for batch in batches])


@pytest.mark.slow
def test_earlier_checkpoint_resumes_to_the_same_generator(tmp_path: Path) -> None:
    run_dir = shutil.copytree(FILES / "0001-small", tmp_path / "0001-small")
    run = trainer.train(resume=run_dir, quiet=True)
    exported = trainer.export(run, tmp_path / "small.onnx")
    difference = images_of(exported).astype(int) - images_of(FILES / "small.onnx")
    assert np.abs(difference).max() <= 1  # of 255; other processors round otherwise


def test_earlier_generator_is_served_and_scored_alike() -> None:
    model = load_model(FILES / "small.onnx", 2**20, Runtime(1, 64))
    latents, labels = seeds_to_latents(SEEDS, 4)[0], seeds_to_labels(SEEDS, 4, 10)
    assert (model.run(latents, labels) == images_of(FILES / "small.onnx")).all()


def test_earlier_report_is_read_rendered_and_reproduced(tmp_path: Path) -> None:
    report = reader.read_report(FILES / "report.json")
    shutil.copy(FILES / "report.json", tmp_path)
    assert "fd_tiny60" in render.write_views(tmp_path / "report.json")[0].read_text(encoding="utf-8")
    recorded = json.loads((FILES / "report.json").read_text(encoding="utf-8"))["scores"]
    scores = evaluation.score(
        FILES / "small.onnx",
        "digits@test",
        metrics="fid,precision,recall",
        extractor=FILES / "e.onnx",
        num_images=len(SEEDS),
        cache_root=tmp_path,
    )
    assert dict(scores) == pytest.approx(recorded, rel=1e-4)
    assert {result.name for result in report.results} == set(recorded)
