"""StyleGAN's statistics files are imported, and no pickle runs what is in it."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.errors import EvaluationError
from evaluation.references.reference_file import load_reference
from evaluation.references.stylegan_statistics import read_stylegan_statistics
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor


class FeatureStats:
    """What StyleGAN3's class of this name keeps, and how: `pickle.dump(self.__dict__, f)`."""

    def __init__(self, features: np.ndarray, capture_all: bool = False) -> None:
        self.capture_all = capture_all
        self.capture_mean_cov = not capture_all
        self.max_items = None
        self.num_items = len(features)
        self.num_features = features.shape[1]
        wide = features.astype(np.float64)
        self.all_features = [features[:30], features[30:]] if capture_all else None
        self.raw_mean = None if capture_all else wide.sum(axis=0)
        self.raw_cov = None if capture_all else wide.T @ wide

    def save(self, path: Path, protocol: int = 4) -> Path:
        path.write_bytes(pickle.dumps(self.__dict__, protocol))
        return path


@pytest.fixture
def features() -> np.ndarray:
    return (np.random.default_rng(0).normal(size=(50, 4)) + np.arange(4)).astype(np.float32)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_read_stylegan_statistics_converts_the_covariance(
    tmp_path: Path, features: np.ndarray, protocol: int, core: bytes
) -> None:
    path = FeatureStats(features).save(tmp_path / "sg.pkl", protocol)
    if protocol == 3:  # later ones count the bytes of names and frames, so that a name cannot just be exchanged
        content = path.read_bytes()
        assert b"core.multiarray" in content
        path.write_bytes(content.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", core))
    found = read_stylegan_statistics(path)
    assert found["n"] == 50
    wide = features.astype(np.float64)
    np.testing.assert_allclose(found["mu"], wide.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["sigma"], np.cov(wide, rowvar=False), rtol=1e-9)


def test_reference_import_of_a_stylegan_file_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: np.ndarray
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_extractor(tmp_path / "e.onnx")
    FeatureStats(features).save(tmp_path / "sg.pkl")
    words = ("reference", "sg.pkl", "--extractor", "e.onnx", "--import-as", "mnist@test", "--resolution", 28)
    done = run(*words, "--output", "r.npz")
    assert done.exit_code == 0, done.output
    assert "is not verified" in done.stderr
    made = load_reference("r.npz")
    assert (made.n, made.features) == (50, None)
    assert made.image_set["split"] == "test"
    np.testing.assert_allclose(made.sigma, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9)
    assert "is of 50 images, not of --num-images 60" in one_line(run(*words, "--num-images", 60))
    FeatureStats(features, capture_all=True).save(tmp_path / "sg.pkl")
    assert run(*words, "--output", "all.npz").exit_code == 0
    kept = load_reference("all.npz").features
    assert kept is not None
    assert (np.asarray(kept) == features).all()


class Runs:
    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call[0], self.call[1:]


def test_read_stylegan_statistics_runs_no_code_of_a_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: np.ndarray
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_extractor(tmp_path / "e.onnx")
    good = FeatureStats(features).__dict__
    traps: tuple[tuple[Any, str], ...] = (
        (good | {"max_items": Runs(os.system, "touch sprung")}, "names posix.system"),
        (good | {"max_items": Runs(eval, "open('sprung', 'w')")}, "names builtins.eval"),
        (good | {"max_items": np.array([Runs(os.system, "touch sprung")], dtype=object)}, "array of 'O8'"),
        (good | {"raw_mean": np.zeros(3, dtype=[("a", "O")])}, "array of 'V8'"),
        (good | {"max_items": Runs(getattr, "text", "upper")}, "names builtins.getattr"),
        (good | {"num_items": 0}, "num_items 0"),
        (good | {"raw_cov": np.zeros((4, 4))}, "variances are negative"),
        (good | {"raw_mean": good["raw_mean"] * np.nan}, "not numbers"),
        ({"state": 1}, "KeyError: 'num_items'"),
        ([1, 2], "holds no dictionary"),
    )
    for trap, result in traps:
        Path("bad.pkl").write_bytes(pickle.dumps(trap, 4))
        words = ("--extractor", "e.onnx", "--import-as", "mnist@test", "--resolution", 28)
        line = one_line(run("reference", "bad.pkl", *words, "--output", "out.npz"))
        assert "bad.pkl is not read" in line
        assert result in line
        assert not Path("sprung").exists()
        assert not Path("out.npz").exists()


def test_read_stylegan_statistics_memory_is_bound_by_file_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.pkl"
    for content in (
        b"\x80\x04}r\xff\xff\xff\x7f.",  # LONG_BINPUT: a memo of 2^31 places
        b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b".",  # BINBYTES8 of 2^60 bytes
        b"",
        pickle.dumps({"num_items": 5}, 4)[:-3],
    ):
        path.write_bytes(content)
        with pytest.raises(EvaluationError, match="is not read"):
            read_stylegan_statistics(path)
    monkeypatch.setattr("evaluation.references.stylegan_statistics.MAX_BYTES", 2)
    with pytest.raises(EvaluationError, match="is larger than"):
        read_stylegan_statistics(path)
