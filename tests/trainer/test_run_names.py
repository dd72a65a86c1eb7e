"""A run on a user's images has the user's name in its folder, its file, its report and its URL."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from PIL import Image
from typer.testing import CliRunner

from trainer import run_names
from trainer.cli import app
from trainer.config import loading
from trainer.errors import TrainerError

SMALL = (
    *("--set", "data.resolution=8", "--set", "model.conditional=false", "--set", "model.g_widths=[4]"),
    *("--set", "model.d_widths=[4]", "--set", "optim.batch_size=4", "--set", "run.total_kimg=0.016"),
    *("--set", "run.quality_ticks=0", "--set", "run.threads=1"),
)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder `Holiday Photos` in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "Holiday Photos"
    folder.mkdir()
    for index in range(8):
        Image.new("L", (8, 8), index * 20).save(folder / f"{index}.png")
    return folder


def run(*words: str) -> str:
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, done.output
    return done.output


def name_in(path: Path) -> str:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}["name"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits", None),
        ("mnist@test", None),
        ("folder:photos", "photos"),
        ("folder:/a/My Photos@train", "my-photos"),
        ("folder:Größe & Ärzte.ZIP", "grosse-arzte"),
        ("folder:cats/", "cats"),
        ("folder:v1.2", "v1.2"),
        ("folder:/a/cats.tar@train", "cats"),
        ("folder:cats.parquet", "cats"),
        ("folder:x/cats+folder:dogs.npz@train", "cats-dogs"),
        ("digits+folder:cats", "digits-cats"),
        ("folder:cats/train", "cats-train"),
        ("folder:写真", "images"),
        ("folder:/", "images"),
        ("folder:" + "x" * 100, "x" * 64),
    ],
)
def test_name_of_source_is_that_of_the_users_folder(source: str, name: str | None) -> None:
    assert run_names.name_of_source(source) == name


def test_name_of_source_here_is_that_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Cats").mkdir()
    monkeypatch.chdir(tmp_path / "Cats")
    assert run_names.name_of_source("folder:.") == "cats"


def test_name_of_source_keeps_an_at_sign_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "me@home").mkdir()
    assert run_names.name_of_source(f"folder:{tmp_path}/me@home") == "me-home"


@pytest.mark.parametrize("name", ["", "My Cats", "../x", "x" * 65, "-a"])
def test_checked_name_invalid_in_a_url_fails(name: str) -> None:
    with pytest.raises(TrainerError, match="a model's name has the characters"):
        run_names.checked_name(name)


def test_resolve_takes_the_most_explicit_name(tmp_path: Path) -> None:
    preset = tmp_path / "Mine.yaml"
    preset.write_text("model: {z_dim: 12}\n", encoding="utf-8")
    own = ["data.source=folder:photos"]

    def name(*arguments: object) -> str:
        return loading.resolve(*arguments).name  # type: ignore[arg-type]

    assert name("digits-dcgan") == "digits-dcgan"
    assert name(str(preset)) == "mine"
    assert name("digits-dcgan", own) == name(str(preset), own) == "photos"
    assert name("digits-dcgan", own, None, "file") == "file"
    assert name("digits-dcgan", [*own, "name=set"], None, "file") == "set"
    assert name("digits-dcgan", [*own, "name=set"], "given", "file") == "given"
    preset.write_text("name: written\nmodel: {z_dim: 12}\n", encoding="utf-8")
    assert name(str(preset), own, None, "file") == "written"


@pytest.mark.slow
def test_train_on_a_folder_names_run_file_report_and_url(photos: Path) -> None:
    result = run("train", *SMALL, "--set", "data.source=folder:Holiday Photos", "--export", "models")
    assert name_in(Path("models/holiday-photos.onnx")) == "holiday-photos"
    page = Path("runs/0001-holiday-photos/report.html").read_text(encoding="utf-8")
    assert "<h1>holiday-photos</h1>" in page
    assert "/v1/models/holiday-photos/images/7.png" in result


@pytest.mark.slow
def test_export_to_a_file_names_the_model_after_it(photos: Path) -> None:
    source = ("--set", "data.source=folder:Holiday Photos")
    run("train", *SMALL, *source, "--export", "models/Beach.onnx")
    assert name_in(Path("models/Beach.onnx")) == "beach"
    assert json.loads(Path("runs/0001-beach/config.json").read_text(encoding="utf-8"))["name"] == "beach"
    run("train", *SMALL, *source, "--name", "sea", "--export", "models/other.onnx")
    assert name_in(Path("models/other.onnx")) == "sea"
    run("resume", "runs/0002-sea", "--export", "models/again.onnx")
    assert name_in(Path("models/again.onnx")) == "sea"
    run("export", "runs/0002-sea", "--output", "models/third.onnx")
    assert name_in(Path("models/third.onnx")) == "third"
    run("export", "runs/0002-sea", "--output", "models/third.onnx", "--name", "fourth")
    assert name_in(Path("models/third.onnx")) == "fourth"


@pytest.mark.slow
def test_resume_of_an_unnamed_run_takes_the_files_name(photos: Path) -> None:
    run("train", *SMALL, "--set", "data.source=folder:Holiday Photos", "--run-dir", "r")
    run("resume", "r", "--export", "models/beach.onnx")
    assert name_in(Path("models/beach.onnx")) == "beach"


def test_train_with_an_invalid_name_offers_a_valid_one(photos: Path) -> None:
    done = CliRunner().invoke(app, ["train", "--name", "My Cats"])
    assert done.exit_code == 2
    assert done.output.endswith("unlike 'My Cats'; try my-cats\n")


def test_redact_path_keeps_the_last_part_of_every_part() -> None:
    source = "folder:/home/somebody/cats@train+digits+folder:/home/somebody/b.tar"
    assert run_names.redact_path(source) == "folder:cats@train+digits+folder:b.tar"
