"""A run resumes on the images it began with, wherever they are now, or says how they differ."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from tests.support.image_archives import write_parquet
from trainer.cli import app
from trainer.config.loading import parse
from trainer.config.schema import Config
from trainer.data import ImageRecord, describe_difference, load_images, record_images
from trainer.errors import TrainerError
from trainer.sweep.runner import check_same_images
from trainer.training import resume, run_folder

SMALL: dict[str, Any] = {
    "name": "tiny",
    "data": {"source": "folder:set", "resolution": 8, "channels": 1},
    "model": {"architecture": "dcgan", "z_dim": 4, "g_widths": [4], "d_widths": [4]},
    "optim": {"batch_size": 4},
    "run": {"total_kimg": 0.016, "quality_ticks": 0, "device": "cpu", "precision": "fp32", "threads": 1},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Make a folder `set` of noise in the working directory, and a config that trains on it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    (tmp_path / "set").mkdir()
    for index in range(8):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "set" / f"{index}.png")
    return parse(SMALL)


@pytest.fixture
def run_dir(config: Config, tmp_path: Path) -> Path:
    """Make a run folder that has the record of its images, but was not trained."""
    images, _ = load_images(config, Path("data"))
    folder = run_folder.create_at(tmp_path / "r", config)
    run_folder.write_text(folder / ImageRecord.FILE, json.dumps(record_images(images, Path("data"))))
    return folder


def moved(config: Config, source: str) -> Config:
    return parse(config.model_dump() | {"data": config.data.model_dump() | {"source": source}})


def test_image_record_of_equal_images_is_kept(config: Config, run_dir: Path) -> None:
    found = resume.find_images(run_dir, config, None)
    assert len(found.images) == 8
    assert (found.record, found.note, found.changed) == (None, None, False)


def test_image_record_finds_images_from_another_directory(
    config: Config, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = resume.find_images(run_dir, config, None)
    assert (found.record, found.note, found.changed) == (None, None, False)


def test_image_record_finds_the_parts_of_a_union(
    config: Config, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree("set", "more")
    Image.new("L", (8, 8), 7).save("more/8.png")
    union = moved(config, "folder:set+folder:more")
    images, _ = load_images(union, Path("data"))
    run_folder.write_text(run_dir / ImageRecord.FILE, json.dumps(record_images(images, Path("data"))))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert ImageRecord.read(run_dir).source == f"folder:{tmp_path}/set+folder:{tmp_path}/more"
    found = resume.find_images(run_dir, union, None)
    assert (len(found.images), found.changed) == (17, False)
    shutil.rmtree(tmp_path / "more")
    assert ImageRecord.read(run_dir).source is None


def test_resume_with_missing_images_names_the_count(config: Config, run_dir: Path) -> None:
    Path("set/3.png").unlink()
    with pytest.raises(TrainerError, match=r"are not those that .*r began with: images 8 → 7\. Give the path"):
        resume.find_images(run_dir, config, None)


def test_resume_with_exchanged_images_names_the_fingerprints(config: Config, run_dir: Path) -> None:
    Image.new("L", (8, 8), 7).save("set/3.png")
    with pytest.raises(
        TrainerError, match=r"as many images, with other pixels or labels \(fingerprint \w{12} → \w{12}\)"
    ):
        resume.find_images(run_dir, config, None)


def test_resume_with_changed_images_on_request_warns(config: Config, run_dir: Path) -> None:
    Path("set/3.png").unlink()
    found = resume.find_images(run_dir, config, None, accept_changes=True)
    assert (len(found.images), found.changed) == (7, True)
    assert str(found.note).startswith("warning: the images have changed since")
    assert found.record is not None
    assert found.record["image_set"]["fingerprint"] == found.images.fingerprint


def test_resume_with_moved_images_names_the_option(config: Config, run_dir: Path) -> None:
    shutil.move("set", "moved")
    with pytest.raises(
        TrainerError, match=r"if the same images are elsewhere now: trainer resume .*r --set data\.source"
    ):
        resume.find_images(run_dir, config, None)
    found = resume.find_images(run_dir, moved(config, "folder:moved"), None, moved=True)
    assert (found.note, found.changed) == (None, False)
    assert found.record is not None
    assert found.record["image_set"]["source"] == f"folder:{Path('moved').absolute()}"
    assert len(found.images) == 8


def test_resume_of_a_record_without_fingerprint_gives_a_note(config: Config, run_dir: Path) -> None:
    (run_dir / ImageRecord.FILE).write_text("{", encoding="utf-8")
    found = resume.find_images(run_dir, config, None)
    assert "has no fingerprint" in str(found.note)
    assert found.record is not None
    assert found.record["image_set"]["n"] == 8


def test_sweep_resumed_on_other_images_fails(config: Config, tmp_path: Path) -> None:
    images, _ = load_images(config, Path("data"))
    (tmp_path / "sweep").mkdir()
    for _ in range(2):
        check_same_images(tmp_path / "sweep", images)
    Path("set/3.png").unlink()
    images, _ = load_images(config, Path("data"))
    with pytest.raises(TrainerError, match=r"differ from those that the sweep in .*sweep started with: images 8 → 7"):
        check_same_images(tmp_path / "sweep", images)


def test_describe_difference_names_comparable_facts() -> None:
    before = {"n": 1500, "class_names": ["a", "b"], "channels": 1, "versions": {"pillow": "11.0"}}
    now = {"n": 1400, "class_names": ["a"], "channels": 1, "versions": {"pillow": "12.0"}}
    assert describe_difference(before, now) == (
        "images 1,500 → 1,400, classes [a, b] → [a], Pillow 11.0 → 12.0, which may decode files differently"
    )


def invoke(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow
def test_resume_follows_the_images_and_keeps_the_run_as_it_was(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("tiny.yaml").write_text(json.dumps(SMALL), encoding="utf-8")
    assert invoke("train", "--preset", "tiny.yaml", "--run-dir", "r").exit_code == 0
    shutil.move("set", "moved")
    for number, words in enumerate((("--set", "data.source=folder:moved"), ()), 2):
        done = invoke("resume", str(tmp_path / "r"), "--kimg", str(0.016 * number), *words)
        assert done.exit_code == 0, done.output
        monkeypatch.chdir(tmp_path / "cache")  # the second time the place is known, from any working directory
    refused = invoke("resume", str(tmp_path / "r"), "--kimg", "1", "--set", "model.z_dim=5")
    assert refused.exit_code == 2
    assert "these fields cannot change when resuming: model.z_dim: 4 → 5" in refused.output


def test_load_images_of_a_parquet_names_its_classes_for_a_conditional_model(config: Config, tmp_path: Path) -> None:
    pixels = [path.read_bytes() for path in sorted(Path("set").iterdir())]
    write_parquet(tmp_path / "hf" / "train-00000-of-00001.parquet", pixels, [0, 1, 2, 0, 1, 2, 0, 1])
    conditional = moved(config, "folder:hf@train")
    conditional = parse(conditional.model_dump() | {"model": conditional.model.model_dump() | {"conditional": True}})
    images, found = load_images(conditional, Path("data"))
    assert found.data.class_names == images.class_names == ("cats", "dogs", "eels")
    assert images.labels is not None
