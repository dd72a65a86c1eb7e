"""Sources give exactly the images asked for, and a batch's size changes none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.metrics.classifier_confidence import classifier_confidence
from evaluation.sources import ResizedSource, SeedRange, open_source, random_subset
from tests.support.evaluation.fake_service import fake_service
from tests.support.evaluation.tiny_extractor import write_tiny_extractor
from tests.support.image_files import write_pictures
from tests.support.paths import ROOT
from tests.support.tiny_generator import write_tiny_generator


def images_of(source, first: int, n: int, batch: int) -> np.ndarray:
    return np.concatenate([got.images for got in source.batches(SeedRange(first, n), 0, n, batch)])


@pytest.mark.parametrize("num_classes", [0, 3])
def test_generator_source_image_depends_on_its_seed_only(tmp_path: Path, num_classes: int) -> None:
    source = open_source(str(write_tiny_generator(tmp_path / "g.onnx", num_classes=num_classes)))
    together = images_of(source, 10, 13, 5)
    assert together.shape == (13, 8, 8, 1)
    assert (together == np.concatenate([images_of(source, seed, 1, 64) for seed in range(10, 23)])).all()


def test_service_source_images_are_in_seed_order() -> None:
    with fake_service(lambda seed: np.full((8, 8, 1), seed % 256, np.uint8)) as url:
        source = open_source(url)
        assert images_of(source, 3, 500, 64)[:, 0, 0, 0].tolist() == [i % 256 for i in range(3, 503)]
        with pytest.raises(EvaluationError, match="'absent'"):
            open_source(url, model="absent")


def test_random_subset_is_fixed_and_without_repetition(tmp_path: Path) -> None:
    source = open_source(f"folder:{write_pictures(tmp_path / 'p')}@train", cache_root=tmp_path / "c")
    some = images_of(source, 0, 30, 7)
    assert (some == images_of(source, 0, 30, 64)).all()
    assert random_subset(10, 10, 0).tolist() == list(range(10))
    assert len(set(random_subset(1000, 100, 0).tolist())) == 100
    assert random_subset(1000, 4, 0).tolist() == [162, 664, 670, 998]


def test_classifier_confidence_is_softmax_and_shares() -> None:
    logits = np.log(np.array([[0.95, 0.05], [0.6, 0.4], [0.2, 0.8], [0.91, 0.09]], np.float32)) + 1000
    share, classes = classifier_confidence(logits, 0.9)
    assert share == 0.5
    assert classes.tolist() == [0.75, 0.25]
    with pytest.raises(ValueError, match="N of 1 or more"):
        classifier_confidence(np.zeros((0, 2)), 0.9)


def test_array_source_accepts_only_uint8_images(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(20) % 4
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "b.npz", arr_0=images, arr_1=labels)
    np.savez_compressed(tmp_path / "c.npz", images=images[..., 0])
    for name in ("a.npy", "b.npz"):
        assert (images_of(open_source(str(tmp_path / name)), 0, 20, 7) == images).all()
    (batch,) = open_source(str(tmp_path / "b.npz")).batches(SeedRange(0, 20), 0, 20, 64)
    assert batch.labels.tolist() == labels.tolist()
    assert open_source(str(tmp_path / "c.npz")).shape == (8, 8, 1)
    for made, reason in (
        (images / 255.0, "float64, not uint8"),
        (images.transpose(0, 3, 1, 2), r"save images.transpose\(0, 2, 3, 1\)"),
        (images[0, 0], "not \\[N, H, W\\]"),
    ):
        np.save(tmp_path / "bad.npy", made)
        with pytest.raises(EvaluationError, match=reason):
            open_source(str(tmp_path / "bad.npy"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-50])
    with pytest.raises(EvaluationError, match="truncated"):
        open_source(str(tmp_path / "cut.npz"))


def test_array_source_disjoint_parts_share_no_image() -> None:
    parts = [random_subset(100, 20, 3, part) for part in range(5)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert all((np.diff(part) > 0).all() for part in parts)


def test_resized_source_uses_the_named_resize(tmp_path: Path) -> None:
    from PIL import Image

    source = open_source(str(write_tiny_generator(tmp_path / "g.onnx", size=8, channels=3)))
    small = images_of(source, 0, 5, 5)
    big = ResizedSource(source, 12)
    assert big.shape == (12, 12, 3)
    assert big.description["resized"] == {"from": [8, 8], "by": "pil-bicubic"}
    expected = [np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BICUBIC)) for image in small]
    assert (images_of(big, 0, 5, 2) == np.stack(expected)).all()
    wrong = [np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BILINEAR)) for image in small]
    assert (images_of(big, 0, 5, 2) != np.stack(wrong)).any()


@pytest.mark.slow
def test_checkpoint_source_leaves_torch_to_another_process(tmp_path: Path) -> None:
    """A real run of two checkpoints, a trainer that exports them, and a job in which torch never was imported."""
    root = ROOT
    environment = os.environ | {"PYTHONPATH": str(root), "ATELIER_CACHE": str(tmp_path / "cache")}
    sets = ["data.resolution=8", "model.z_dim=4", "model.g_widths=[8]", "model.d_widths=[8]", "optim.batch_size=8"]
    sets += [
        "run.total_kimg=0.08",
        "run.tick_kimg=0.04",
        "run.checkpoint_ticks=1",
        "run.threads=1",
        "run.quality_ticks=0",
        "model.architecture=dcgan",
    ]
    words = [word for value in sets for word in ("--set", value)]
    train = [sys.executable, "-m", "trainer", "train", "--preset", "digits-dcgan", *words, "--runs", "runs"]
    done = subprocess.run(train, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    write_tiny_extractor(tmp_path / "e.onnx")
    code = (
        "import sys\n"
        "from evaluation.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'torch', 'trainer'} & set(sys.modules), 'torch was imported'"
    )
    score = [sys.executable, "-c", code, "score", str(run), "--reference", "digits@test", "--extractor", "e.onnx"]
    score += ["--num-images", "40", "--output", "report", "--all-checkpoints", "--no-baseline"]
    done = subprocess.run(score, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert [entry["images_seen"] for entry in report["checkpoints"]] == [40, 80]
    assert len({entry["digest"] for entry in report["checkpoints"]}) == 2
    assert report["scores"] == report["checkpoints"][-1]["scores"]
    assert report["source"]["kind"] == "checkpoint"
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    with pytest.raises(EvaluationError, match=r"broken.pt could not be exported: .*not a checkpoint"):
        open_source(str(tmp_path / "broken.pt"))


@pytest.mark.slow
def test_checkpoint_source_next_to_a_trainer_py_runs_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trainer.py").write_text("print('FOREIGN')\nraise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "checkpoint-00000001.pt").write_bytes(b"not a checkpoint")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EvaluationError, match="is truncated or not a checkpoint"):
        open_source("checkpoint-00000001.pt")
