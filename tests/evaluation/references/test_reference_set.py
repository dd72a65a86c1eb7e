"""Reference statistics are made once for what decides them, and change hands with the field's other tools."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from pytorch_fid.fid_score import calculate_frechet_distance, compute_statistics_of_path

from evaluation.extractors import load_extractor
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_file import load_reference, sidecar_path
from evaluation.references.reference_set import cached_reference
from imagesets import ImageSetError
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor


@pytest.mark.slow
def test_cached_reference_is_made_once_per_protocol(workspace: Path) -> None:
    extractor, paths = load_extractor("e.onnx"), DataPaths()
    first = cached_reference("folder:pictures@test", extractor, paths)
    assert first.path is not None
    made = first.path.stat().st_mtime_ns
    assert first.features is None, "kept only when a metric needs them"
    again = cached_reference("folder:pictures@test", extractor, paths)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == made
    full = cached_reference("folder:pictures@test", extractor, paths, keep=frozenset({"features"}))
    assert full.path == first.path
    assert full.features is not None
    assert np.allclose(full.features.mean(0), full.mu, rtol=1e-5)
    others = [
        cached_reference("folder:pictures@train", extractor, paths),
        cached_reference("folder:pictures@test", extractor, paths, resolution=16),
        cached_reference("folder:pictures@test", extractor, paths, num_images=30),
        cached_reference(
            "folder:pictures@test", load_extractor(write_tiny_extractor(workspace / "o.onnx", seed=2)), paths
        ),
    ]
    assert len({reference.path for reference in (first, *others)}) == 5
    (workspace / "pictures/test/new.png").write_bytes((workspace / "pictures/train/000.png").read_bytes())
    assert cached_reference("folder:pictures@test", extractor, paths).n == 41, "another content, another entry"
    first.path.write_bytes(b"damaged")
    (workspace / "pictures/test/new.png").unlink()
    assert cached_reference("folder:pictures@test", extractor, paths).n == 40, "made again"


def test_cached_reference_of_changed_images_is_made_again(workspace: Path) -> None:
    extractor, paths = load_extractor("e.onnx"), DataPaths()
    first = cached_reference("folder:pictures@test", extractor, paths)
    file = sorted((workspace / "pictures/test").rglob("*.png"))[0]
    data, found = bytearray(file.read_bytes()), file.stat()
    other = sorted((workspace / "pictures/train").rglob("*.png"))[0].read_bytes()
    padding = max(0, len(data) - len(other))
    file.write_bytes((other + bytes(padding))[: max(len(data), len(other))])
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert cached_reference("folder:pictures@test", extractor, paths).path != first.path


def test_cached_reference_has_the_class_names_of_now(workspace: Path) -> None:
    extractor, paths = load_extractor("e.onnx"), DataPaths()
    for name in "ab":
        (workspace / "set" / name).mkdir(parents=True)
        for file in sorted((workspace / "pictures/test").rglob("*.png"))[:20]:
            (workspace / "set" / name / file.name).write_bytes(file.read_bytes())
    first = cached_reference("folder:set", extractor, paths)
    (workspace / "set/b").rename(workspace / "set/c")
    second = cached_reference("folder:set", extractor, paths)
    assert second.path == first.path
    assert second.image_set["class_names"] == ["a", "c"]


def test_data_paths_without_a_home_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("ATELIER_CACHE", "somewhere")
    assert DataPaths().references == Path("somewhere/references")
    monkeypatch.delenv("ATELIER_CACHE")
    with pytest.raises(ImageSetError, match="ATELIER_CACHE"):
        _ = DataPaths().references


def test_score_from_a_file_equals_score_from_the_cache(workspace: Path) -> None:
    words = ("--extractor", "e.onnx", "--num-images", 50, "--metrics", "fid,kid,precision", "--kid-subset-size", 20)
    assert run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "r.npz").exit_code == 0
    scores = []
    for reference in ("r.npz", "folder:pictures@test", "folder:pictures@test"):
        done = run("score", "g.onnx", "--reference", reference, *words, "--output", "report")
        assert done.exit_code == 0, done.output
        report = json.loads((workspace / "report" / "report.json").read_text(encoding="utf-8"))
        scores.append((report["scores"], report["baseline"]))
    assert scores[0] == scores[1] == scores[2]
    assert list((workspace / "cache" / "references").glob("baseline-*.json")), "for the next time"


def test_reference_files_are_exchanged_with_pytorch_fid(workspace: Path) -> None:
    assert run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "r.npz").exit_code == 0
    ours = load_reference("r.npz")
    mu, sigma = compute_statistics_of_path(str(workspace / "r.npz"), None, 1, 4, "cpu")
    assert (mu == ours.mu).all()
    assert (sigma == ours.sigma).all()
    np.savez("theirs.npz", mu=ours.mu, sigma=ours.sigma)  # as its --save-stats does
    line = one_line(run("score", "g.onnx", "--reference", "theirs.npz", "--extractor", "e.onnx"))
    assert "which extractor made it is not known" in line
    words = ("reference", "theirs.npz", "--extractor", "e.onnx", "--import-as", "pictures@test", "--resolution", 8)
    assert "--num-images" in one_line(run(*words))
    done = run(*words, "--num-images", 40, "--output", "imported.npz")
    assert done.exit_code == 0, done.output
    assert "is not verified" in done.stderr
    scores = []
    for reference in ("r.npz", "imported.npz"):
        done = run("score", "g.onnx", "--reference", reference, "--num-images", 60, "--no-baseline", "-o", "s.json")
        assert done.exit_code == 0, done.output
        scores.append(next(iter(json.loads((workspace / "s.json").read_text(encoding="utf-8"))["scores"].values())))
    assert "was not verified" in done.stderr
    assert scores[0] == pytest.approx(scores[1], rel=1e-9)
    images = load_extractor("e.onnx")
    from evaluation.sources import SeedRange, open_source

    features = np.concatenate(
        [images(batch.images).features for batch in open_source("g.onnx").batches(SeedRange(0, 60), 0, 60, 64)]
    )
    theirs = calculate_frechet_distance(features.mean(0), np.cov(features, rowvar=False), mu, sigma)
    assert scores[0] == pytest.approx(theirs, rel=1e-4)
    line = one_line(run("score", "g.onnx", "--reference", "imported.npz", "--metrics", "kid"))
    assert "needs the features of the real images" in line


def test_reference_import_of_features_runs_no_code(workspace: Path) -> None:
    features = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.savez("clean_kid.npz", feats=features)  # clean-fid's for KID
    np.save("features.npy", features)
    words = ("--extractor", "e.onnx", "--resolution", 8, "--import-as", "noise")
    for name in ("clean_kid.npz", "features.npy"):
        done = run("reference", name, *words, "--output", "out.npz")
        assert done.exit_code == 0, done.output
        made = load_reference("out.npz")
        assert made.n == 50
        assert (np.asarray(made.features) == features).all()
        np.testing.assert_allclose(made.sigma, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9)

    class Trap:
        def __reduce__(self) -> tuple:
            return (Path.touch, (workspace / "sprung",))

    (workspace / "stylegan.pkl").write_bytes(pickle.dumps({"raw_mean": Trap()}))
    (workspace / "torch.pt").write_bytes(pickle.dumps({"raw_mean": Trap()}))
    np.save("object.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    assert "is not read" in one_line(run("reference", "stylegan.pkl", *words))
    assert "is a pickle, which runs code" in one_line(run("reference", "torch.pt", *words))
    assert "object.npy" in one_line(run("reference", "object.npy", *words))
    assert not (workspace / "sprung").exists()
    np.savez("wide.npz", mu=np.zeros(7), sigma=np.eye(7))
    assert "tiny has 4 features" in one_line(run("reference", "wide.npz", *words, "--num-images", 9))
    np.savez("bent.npz", mu=np.zeros(4), sigma=np.arange(16.0).reshape(4, 4))
    assert "not symmetric" in one_line(run("reference", "bent.npz", *words, "--num-images", 9))


def test_reference_file_that_names_a_function_runs_no_code(workspace: Path) -> None:
    done = run("reference", "folder:pictures@test", "--extractor", "e.onnx", "--output", "r.npz")
    assert done.exit_code == 0, done.output
    (workspace / "evil_images.py").write_text("open('sprung', 'w')\n", encoding="utf-8")
    arrays = dict(np.load("r.npz"))
    for source in ("evil_images:f", "evil_images:f@x", "os:mkdir"):
        provenance = json.loads(str(arrays["provenance"]))
        provenance["image_set"]["source"] = source
        np.savez("evil.npz", **arrays | {"provenance": np.array(json.dumps(provenance))})
        done = run("score", "g.onnx", "--reference", "evil.npz", "--extractor", "e.onnx", "--num-images", 20)
        assert done.exit_code == 0, done.output
        assert "no code that a file names is run" in done.stderr
    assert not (workspace / "sprung").exists()
    assert not (workspace / "test").exists()
    assert not (workspace / "train").exists()


def test_score_with_features_of_another_reference_fails(workspace: Path) -> None:
    for split in ("test", "train"):
        assert (
            run(
                "reference",
                f"folder:pictures@{split}",
                "--extractor",
                "e.onnx",
                "--num-images",
                40,
                "-o",
                f"{split}.npz",
            ).exit_code
            == 0
        )
    sidecar_path(Path("train.npz"), "features").replace(sidecar_path(Path("test.npz"), "features"))
    assert "are not the features of test.npz" in one_line(run("score", "g.onnx", "--reference", "test.npz"))
