"""Files that are damaged, hostile or no statistics are refused in one line, with exit code 2, and give no number."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifacts.arrays import read_npz
from evaluation.errors import EvaluationError
from evaluation.features.store import count_images
from evaluation.metrics.frechet import FeatureStatistics, invalid_statistics_reason
from evaluation.references.reference_file import load_reference
from evaluation.scoring.shards import find_shards, merge_features
from evaluation.sources.arrays import array_source
from tests.support.evaluation.commands import one_line, run
from tests.support.evaluation.tiny_extractor import write_tiny_extractor

PROVENANCE = {"format_version": 1, "extractor": {"name": "tiny"}, "image_set": {"name": "y", "resolution": 8}}


def npy(array: Any) -> bytes:
    packed = io.BytesIO()
    np.save(packed, array, allow_pickle=False)
    return packed.getvalue()


def header(shape: str, content: bytes = b"", descr: str = "'<f8'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


def npz(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def reference(path: Path, provenance: Any = None, **members: bytes) -> None:
    text = provenance if isinstance(provenance, str) else json.dumps(PROVENANCE if provenance is None else provenance)
    sound = {"mu": npy(np.zeros(4)), "sigma": npy(np.eye(4)), "n": npy(40), "provenance": npy(np.array(text))}
    npz(path, **sound | members)


DAMAGED: dict[str, bytes] = {
    "a header of brackets": header("(" * 9000),
    "a shape of 10^30": header(f"({10**30},)"),
    "a shape of -5": header("(-5,)"),
    "8 TiB that are not there": header(f"({2**40},)"),
    "16 GiB that are not there": header(f"({2**31},)"),
    "text": npy(np.array(["a", "b", "c", "d"])),
    "complex numbers": npy(np.eye(4) + 1j),
    "objects": header("(4,)", b"x" * 32, "'|O'"),
    "no npy": b"nothing",
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_read_of_an_array_that_is_damaged_names_its_file(tmp_path: Path, content: bytes) -> None:
    """In every member of a reference, in rows beside it, in images, their labels and a pass's state."""
    for name in ("mu", "sigma", "n"):
        reference(tmp_path / "r.npz", **{name: content})
        line = one_line(run("score", "g.onnx", "--reference", tmp_path / "r.npz"))
        assert "is not a reference file" in line
    reference(tmp_path / "r.npz")
    (tmp_path / "r.features.npy").write_bytes(content)
    assert "r.features.npy is damaged" in one_line(run("score", "g.onnx", "--reference", tmp_path / "r.npz"))
    (tmp_path / "i.npy").write_bytes(content)
    npz(tmp_path / "i.npz", images=content)
    npz(tmp_path / "l.npz", images=npy(np.zeros((4, 8, 8), np.uint8)), labels=content)
    for name in ("i.npy", "i.npz", "l.npz"):
        with pytest.raises(EvaluationError, match="not a npy file of numbers"):
            array_source(tmp_path / name)
    npz(tmp_path / "state.npz", n=content, mean=npy(np.zeros(4)), scatter=npy(np.eye(4)), digest=npy("a"))
    assert count_images(tmp_path) == 0


def _corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:90] = b"\xff" * 30
    path.write_bytes(data)


def _flagged(offset: int, value: int) -> Callable[[Path], None]:
    """Set a field of every member, in its local header (at `offset`) and in the directory (2 bytes further on)."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        for mark, at in ((b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)):
            start = data.find(mark)
            while start >= 0:
                data[start + at] = value
                start = data.find(mark, start + 4)
        path.write_bytes(data)

    return change


DAMAGES: dict[str, Callable[[Path], None]] = {
    "corrupted": _corrupt,
    "encrypted": _flagged(6, 1),
    "an unknown compression": _flagged(8, 77),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-60]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_read_npz_damaged_fails(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "r.npz"
    npz(path, zipfile.ZIP_DEFLATED, mu=npy(np.arange(400.0)), sigma=npy(np.eye(4)), images=npy(np.arange(400.0)))
    damage(path)
    with pytest.raises(ValueError, match=r"."):
        read_npz(path, ("mu",))
    assert "is not a reference file" in one_line(run("score", "g.onnx", "--reference", path))
    write_tiny_extractor(tmp_path / "e.onnx")
    words = ("--extractor", tmp_path / "e.onnx", "--import-as", "x", "--resolution", 8, "-o", tmp_path / "out.npz")
    assert "is not a file of statistics" in one_line(run("reference", path, *words))
    _corrupt(path)
    with pytest.raises(EvaluationError):
        array_source(path)


NO_COVARIANCE = {
    "indefinite": np.eye(4) - np.diag([0.0, 0, 0, 1.5]),
    "negative definite": -np.eye(4),
    "not symmetric": np.eye(4) + np.eye(4, k=1) / 2,
    "not finite": np.full((4, 4), np.inf),
    "a negative eigenvalue between positive variances": np.eye(4) + np.ones((4, 4)) - 2 * np.eye(4) * 0.9,
}


@pytest.mark.parametrize("sigma", NO_COVARIANCE.values(), ids=NO_COVARIANCE)
def test_load_reference_without_a_covariance_fails(tmp_path: Path, sigma: np.ndarray) -> None:
    reference(tmp_path / "r.npz", sigma=npy(sigma))
    assert "not a valid reference file: its" in one_line(run("score", "g.onnx", "--reference", tmp_path / "r.npz"))
    assert invalid_statistics_reason(np.zeros(4), sigma * 1e-12) is not None, "whatever the features' scale"
    write_tiny_extractor(tmp_path / "e.onnx")
    words = ("--extractor", tmp_path / "e.onnx", "--import-as", "x", "--resolution", 8, "-o", tmp_path / "out.npz")
    assert "r.npz: its" in one_line(run("reference", tmp_path / "r.npz", *words, "--num-images", 9))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_load_reference_of_any_rank_is_accepted(dtype: type) -> None:
    for n in (2, 30, 500):
        rows = np.random.default_rng(0).normal(3, 1, (n, 64)) * np.geomspace(1e-6, 1e3, 64)
        sigma = FeatureStatistics.from_features(rows).sigma.astype(dtype).astype(np.float64)
        assert invalid_statistics_reason(rows.mean(axis=0), sigma) is None
        assert invalid_statistics_reason(rows.mean(axis=0), sigma * 1e290) is None


@pytest.mark.parametrize(
    "provenance",
    [
        PROVENANCE | {"image_set": 5},
        PROVENANCE | {"extractor": 5},
        PROVENANCE | {"warnings": "x"},
        *({**PROVENANCE, "image_set": {"resolution": 8} | one} for one in ({"modes": 5}, {"split": 5}, {"source": []})),
        *({**PROVENANCE, "image_set": {"resolution": side}} for side in (None, 10**9, 0, "8", 8.5)),
        [],
        "[" * 100_000,
        "{",
    ],
    ids=lambda value: str(value)[:80],
)
def test_reference_with_provenance_of_other_types_is_one_line(tmp_path: Path, provenance: Any) -> None:
    reference(tmp_path / "r.npz", provenance)
    assert "r.npz" in one_line(run("score", "g.onnx", "--reference", tmp_path / "r.npz", "--resolution", "reference"))
    reference(tmp_path / "sound.npz")
    assert load_reference(tmp_path / "sound.npz").n == 40


@pytest.mark.parametrize("labels", [[0, 2**40], [-1, 0], [0, 1_000_000], []])
def test_array_source_with_invalid_labels_fails(tmp_path: Path, labels: list[int]) -> None:
    images = np.zeros((len(labels), 8, 8), np.uint8)
    np.savez(tmp_path / "i.npz", images=images, labels=np.array(labels, np.int64))
    if labels:
        with pytest.raises(EvaluationError, match=r"its labels are .* classes count from 0"):
            array_source(tmp_path / "i.npz")
    else:
        assert array_source(tmp_path / "i.npz").num_images == 0, "which the job refuses, as of any source"


def shard(root: Path, index: int, *, digest: str = "a", dim: int = 4, **result: Any) -> Path:
    folder = root / f"shard-{index}-of-2"
    (folder / "part-0").mkdir(parents=True)
    rows = np.random.default_rng(index).normal(size=(100, dim)).astype(np.float32)
    state: Any = FeatureStatistics.from_features(rows).state()
    np.savez(folder / "part-0/state.npz", digest=np.array(digest), **state)
    np.save(folder / "part-0/features.npy", rows)
    np.save(folder / "part-0/samples.npy", np.zeros((64, 8, 8, 1), np.uint8))
    arguments = {"num_images": 200, "first_seed": 0, "parts": 1, "keep": [], "extractor": "e", "source": {}}
    document = {
        "format_version": 1,
        "kind": "shard",
        "arguments": arguments | {"shard": [index, 2]},
        "metrics": ["fid"],
        "reference": {"name": "r.npz"},
        "extractor": {"path": "e.onnx", "digest": "e"},
        "source": {},
        "shape": [8, 8, 1],
        "seeded": True,
        "class_names": [],
        "warnings": [],
        "timing": {},
    }
    (folder / "shard.json").write_text(
        json.dumps({k: v for k, v in (document | result).items() if v is not None}), encoding="utf-8"
    )
    return folder


def test_merge_of_sound_shards_works(tmp_path: Path) -> None:
    shard(tmp_path, 0), shard(tmp_path, 1)
    (part,) = merge_features(find_shards([tmp_path]), tmp_path / "merged")
    assert part.statistics.n == len(part.rows("features")) == 200  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "rows"),
    [
        ("features", np.zeros((10, 4), np.float32)),
        ("features", np.zeros((1000, 4), np.float32)),
        ("features", np.zeros((100, 5), np.float32)),
        ("features", np.zeros((100, 4), np.float64)),
        ("features", np.full((100, 4), "x")),
        ("samples", np.zeros((64, 9, 9, 1), np.uint8)),
        ("samples", np.zeros((3, 8, 8, 1), np.uint8)),
        ("state", None),
        ("cut", None),
    ],
    ids=str,
)
def test_merge_with_rows_of_other_images_fails(tmp_path: Path, what: str, rows: np.ndarray | None) -> None:
    shard(tmp_path, 0)
    part = shard(tmp_path, 1) / "part-0"
    if rows is not None:
        np.save(part / f"{what}.npy", rows)
    else:
        file = part / ("state.npz" if what == "state" else "features.npy")
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(EvaluationError, match="is damaged"):
        merge_features(find_shards([tmp_path]), tmp_path / "merged")


@pytest.mark.parametrize("other", [{"digest": "b"}, {"dim": 5}], ids=str)
def test_merge_of_shards_of_other_models_fails(tmp_path: Path, other: dict[str, Any]) -> None:
    shard(tmp_path, 0), shard(tmp_path, 1, **other)
    with pytest.raises(EvaluationError, match="a score is of one model"):
        merge_features(find_shards([tmp_path]), tmp_path / "merged")


@pytest.mark.parametrize(
    "result",
    [{"metrics": None}, {"shape": None}, {"metrics": ["fid", 5]}, {"shape": [8, 8]}, {"timing": 5}]
    + [{"arguments": {"shard": one}} for one in (["a", 3], [1, 0], [0, 10**12], 5)]
    + [{"arguments": 5}, {"reference": "x"}, {"warnings": 5}],
    ids=str,
)
def test_merge_with_json_of_other_types_fails(tmp_path: Path, result: dict[str, Any]) -> None:
    folder = shard(tmp_path, 0, **result)
    one_line(run("merge", tmp_path, "-o", tmp_path / "out"))
    (folder / "shard.json").write_text("[" * 100_000, encoding="utf-8")
    assert "is not a complete shard" in one_line(run("merge", tmp_path, "-o", tmp_path / "out"))
