"""Load and run an extractor file, which turns uint8 images into features (and logits)."""

from __future__ import annotations

import json
import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from artifacts.images.alpha import RGBA, over_white
from artifacts.onnx_metadata import digest_of, metadata_of
from evaluation.errors import EvaluationError
from evaluation.onnx_runtime import create_session, read_model, run_session

FORMAT_VERSION = "1"
# The weights whose distance is FID: pt_inception-2015-12-05-6726825d.pth, as pytorch-fid and torch-fidelity publish it.
FID_WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
FID_WEIGHTS_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FID_NETWORK = "fid-inception-v3-2015-12-05"
# Each metric of those weights, and the start of the `resize` of the files that compute it.
FID_RESIZES = {"fid": ("tf1", "torch"), "clean_fid": ("clean",)}
REQUIRED = ("format_version", "name", "network", "metric", "weights_sha256", "resize", "digest")


class Extracted(NamedTuple):
    """Features float32 [N, d]; logits float32 [N, classes], or None."""

    features: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Extractor:
    """A loaded extractor file.

    Attributes:
        path: The file.
        metadata: Its metadata.
        numbers: Those of `accuracy`, `chance` (0 to 1) and `seed` that a classifier's metadata record.
        dim: Number of features, d.
        class_names: Names of the classes of its logits; empty if it records none.
        has_logits: Whether it computes logits.
        session: The ONNX Runtime session.
    """

    path: Path
    metadata: dict[str, str]
    numbers: dict[str, float]
    dim: int
    class_names: tuple[str, ...]
    has_logits: bool
    session: Any = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        """Name of the extractor."""
        return self.metadata["name"]

    @property
    def digest(self) -> str:
        """sha256 of graph and metadata."""
        return self.metadata["digest"]

    @property
    def metric(self) -> str:
        """`fid` or `clean_fid` (by the resize) for Inception's published weights, `fd_…` for other features."""
        return self.metadata["metric"]

    @property
    def batch_size(self) -> int:
        """Images per run: a large network's activations for 64 images would take most of a gigabyte."""
        on_gpu = "CUDAExecutionProvider" in self.session.get_providers()
        return 64 if on_gpu or self.dim < 1024 else 16

    def __call__(self, images: np.ndarray) -> Extracted:
        """Compute the features of images.

        Args:
            images: uint8 [N, H, W, C], C 1, 3 or 4, pixels 0 … 255. RGBA images are drawn over white first.

        Returns:
            Features float32 [N, d], and logits float32 [N, classes] if the extractor has them.

        Raises:
            TypeError: If the images are not uint8 of that shape; floats in [0, 1] cast to uint8 would be black.
            EvaluationError: If the extractor cannot run on them, or does not return one row of finite features per
                image.
        """
        if images.dtype != np.uint8:
            raise TypeError(f"an extractor takes uint8 images, not {images.dtype}")
        if images.ndim != 4 or images.shape[3] not in (1, 3, RGBA):
            raise TypeError(f"an extractor takes [N, H, W, 1, 3 or 4], not {list(images.shape)}")
        outputs = ["features", "logits"] if self.has_logits else ["features"]
        arrays = run_session(
            self.session, outputs, {"images": np.ascontiguousarray(over_white(images))}, f"the extractor {self.name}"
        )
        if arrays[0].shape != (len(images), self.dim) or any(len(rows) != len(images) for rows in arrays):
            shapes = " and ".join(f"{name} {list(rows.shape)}" for name, rows in zip(outputs, arrays, strict=True))
            raise EvaluationError(
                f"the extractor {self.name} returned {shapes} for {len(images)} images; its contract is features "
                f"[N, {self.dim}], one row per image"
            )
        if not np.isfinite(arrays[0]).all():
            raise EvaluationError(f"the extractor {self.name} returned features that are not finite; is it damaged?")
        return Extracted(arrays[0], arrays[1] if self.has_logits else None)

    def provenance(self) -> dict[str, Any]:
        """Return what a reference file or a report records about the extractor."""
        keys = ("name", "network", "metric", "weights_sha256", "resize", "digest", "dataset")
        known = {key: self.metadata[key] for key in keys if key in self.metadata}
        return {**known, **self.numbers, "dim": self.dim}


def extractor_digest(model: Any) -> str:
    """Return the sha256 over graph and metadata except the time: the same weights have the same digest."""
    return digest_of(model, lambda key: key in ("digest", "created"))


def weights_path() -> Path:
    """Return where Inception's published weights are cached: in $ATELIER_WEIGHTS, else in ~/.cache."""
    root = Path(os.environ.get("ATELIER_WEIGHTS") or Path.home() / ".cache/gan-atelier/weights")
    return root.expanduser() / FID_WEIGHTS_FILE


def load_extractor(path: Path | str) -> Extractor:
    """Load an extractor file and check its contract: `images` uint8 [N, H, W, C] → `features` float32 [N, d].

    Args:
        path: The file.

    Returns:
        The extractor.

    Raises:
        EvaluationError: If the file is missing, truncated, damaged, altered or not an extractor.
    """
    path = Path(path)
    model = read_model(path, "extractor file")
    metadata = metadata_of(model)
    if missing := [key for key in REQUIRED if key not in metadata]:
        raise EvaluationError(f"{path} is not an extractor file: its metadata lack {', '.join(missing)}")
    if metadata["format_version"] != FORMAT_VERSION:
        raise EvaluationError(
            f"{path} has extractor format {metadata['format_version']}; this version reads {FORMAT_VERSION}"
        )
    _check_name(metadata, path)
    _check_metric(metadata, path)
    numbers = _numbers(metadata, path)
    session = create_session(model, path)
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    if set(inputs) != {"images"} or inputs["images"].type != "tensor(uint8)" or len(inputs["images"].shape) != 4:
        raise EvaluationError(f"{path} is not an extractor file: its input is not `images` uint8 [N, H, W, C]")
    if isinstance(inputs["images"].shape[0], int):
        raise EvaluationError(
            f"{path} only takes batches of {inputs['images'].shape[0]}; export it with a dynamic first axis"
        )
    if "features" not in outputs or outputs["features"].type != "tensor(float)":
        raise EvaluationError(f"{path} is not an extractor file: it has no float32 output `features`")
    shape = outputs["features"].shape
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise EvaluationError(f"{path}: `features` has shape {shape}, not [N, d] of a fixed d")
    class_names = _class_names(metadata, path)
    if class_names and "logits" in outputs and outputs["logits"].shape[1:] != [len(class_names)]:
        raise EvaluationError(
            f"{path}: `logits` has shape {outputs['logits'].shape} for {len(class_names)} class names"
        )
    if extractor_digest(model) != metadata["digest"]:
        raise EvaluationError(f"{path} was altered after it was made: its digest does not match; build it again")
    return Extractor(path, metadata, numbers, shape[1], class_names, "logits" in outputs, session)


def file_stem(name: str) -> str:
    """Return an extractor's name as a part of a file's name: ASCII letters, digits, `.`, `-` and `_`, at most 60."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "extractor"


def _check_name(metadata: dict[str, str], path: Path) -> None:
    """Raise EvaluationError for a name that a line of text cannot hold."""
    name = metadata["name"]
    if not name.strip() or not name.isprintable() or len(name) > 200:
        raise EvaluationError(f"{path}: its name {name[:40]!r} is not one line of at most 200 printable characters")


def _check_metric(metadata: dict[str, str], path: Path) -> None:
    """Raise EvaluationError for a metric that is not `fd_NAME`, or a FID in features that are not FID's."""
    metric, digest = metadata["metric"], metadata["weights_sha256"]
    if metric not in FID_RESIZES:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", metric):
            raise EvaluationError(f"{path}: its metric {metric[:40]!r} is not of letters, digits, `_`, `.` and `-`")
        return
    if digest != FID_WEIGHTS_SHA256 or metadata["network"] != FID_NETWORK:
        raise EvaluationError(
            f"{path} claims the metric {metric}, which belongs to Inception's published weights (sha256 "
            f"{FID_WEIGHTS_SHA256[:12]}…), and its weights are {digest[:12]}…; build it with `evaluation extractor "
            "inception`, or give it another metric, such as fd_mine"
        )
    if not metadata["resize"].startswith(FID_RESIZES[metric]):
        raise EvaluationError(f"{path} claims the metric {metric} with the resize {metadata['resize'][:40]!r}")


def _class_names(metadata: dict[str, str], path: Path) -> tuple[str, ...]:
    """Return the names of the classes, () if there are none; raise EvaluationError for anything else."""
    try:
        names: Any = json.loads(metadata.get("class_names") or "[]")
    except ValueError as error:
        raise EvaluationError(f"{path}: metadata class_names is not JSON") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise EvaluationError(f"{path}: metadata class_names is not a list of names")
    return tuple(names)


def _numbers(metadata: dict[str, str], path: Path) -> dict[str, float]:
    """Return the numbers of the metadata; raise EvaluationError for one that is not finite, or a share that is none."""
    kinds: dict[str, type[int] | type[float]] = {"accuracy": float, "chance": float, "seed": int}
    numbers: dict[str, float] = {}
    for key in (key for key in kinds if key in metadata):
        try:
            numbers[key] = kinds[key](metadata[key])
            if not math.isfinite(numbers[key]):
                raise ValueError(metadata[key])
        except ValueError as error:
            raise EvaluationError(f"{path}: metadata {key} is {metadata[key][:40]!r}, not a number") from error
        if key != "seed" and not 0 <= numbers[key] <= 1:
            raise EvaluationError(f"{path}: metadata {key} is {metadata[key][:40]!r}, not between 0 and 1")
    return numbers


def metadata_strings(values: dict[str, Any]) -> dict[str, str]:
    """Return metadata values as the strings that ONNX stores; lists and dicts become JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
        if value is not None
    }
