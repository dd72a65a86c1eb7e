"""The same few labeled images in every form that `imagesets` reads."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cats", "dogs", "eels")
Files = Mapping[str, bytes]


def pictures(n: int = 12, size: int = 8) -> np.ndarray:
    """Return RGB noise, uint8 [n, size, size, 3]."""
    return np.random.default_rng(5).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def labels_of(n: int = 12) -> list[int]:
    """Return sorted labels of three classes, so that the order is that of class folders."""
    return [i * len(CLASSES) // n for i in range(n)]


def png(pixels: np.ndarray) -> bytes:
    """Return pixels as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_folder(root: Path, images: np.ndarray, labels: Sequence[int] | None, extra: Files | None = None) -> Path:
    """Write `CLASS/0001.png`, or `0001.png` without labels."""
    files = {(f"{CLASSES[labels[i]]}/" if labels else "") + f"{i:04}.png": png(image) for i, image in enumerate(images)}
    for name, data in {**files, **(extra or {})}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, files: Files) -> Path:
    """Write an uncompressed zip."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_stylegan(path: Path, images: np.ndarray, labels: Sequence[Any] | None) -> Path:
    """Write what StyleGAN's dataset_tool.py does, with two images per folder instead of 1,000."""
    files = {f"{i // 2:05}/img{i:08}.png": png(image) for i, image in enumerate(images)}
    entries = None if labels is None else [list(entry) for entry in zip(files, labels, strict=True)]
    return write_zip(path, {**files, "dataset.json": json.dumps({"labels": entries}).encode()})


def write_tar(path: Path, files: Files) -> Path:
    """Write a tar of these members."""
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def webdataset_files(images: np.ndarray, labels: Sequence[Any] | None, start: int = 0) -> dict[str, bytes]:
    """Return the members of a webdataset shard."""
    files: dict[str, bytes] = {}
    for i, image in enumerate(images):
        files[f"{start + i:06}.png"] = png(image)
        if labels is not None:
            files[f"{start + i:06}.cls"] = str(labels[i]).encode()
    return files


def write_parquet(
    path: Path,
    images: Sequence[bytes | None],
    labels: Sequence[Any] | None = None,
    *,
    names: Sequence[str] | None = CLASSES,
    paths: Sequence[str | None] | None = None,
    column: str = "image",
    **options: Any,
) -> Path:
    """Write image files as Hugging Face's `datasets` does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [{"bytes": data, "path": paths[i] if paths else None} for i, data in enumerate(images)]
    columns: dict[str, Any] = {column: pa.array(rows, struct)}
    features: dict[str, Any] = {column: {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels)
        if names is not None:
            features["label"] = {"names": list(names), "_type": "ClassLabel"}
    table = pa.table(columns)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **options)
    return path


def write_npz(path: Path, **arrays: Any) -> Path:
    """Write arrays without compression."""
    np.savez(path, **arrays)
    return path
