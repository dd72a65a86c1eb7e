"""Reading and running an extractor file: uint8 images in, features (and logits) out."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.onnx_files import digest_of, metadata_of, names, need, read_model, run, session_of

FORMAT_VERSION = "1"
REQUIRED = ("format_version", "name", "network", "metric", "weights_sha256", "resize", "digest")


class Extracted(NamedTuple):
    """Features float32 [N, d]; logits float32 [N, classes], or None."""

    features: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True)
class Extractor:
    """A loaded extractor file. `metadata` are the file's own; `dim` is d, the width of its features."""

    path: Path
    metadata: dict[str, str]
    dim: int
    class_names: tuple[str, ...]
    has_logits: bool
    session: Any = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.metadata["name"]

    @property
    def digest(self) -> str:
        return self.metadata["digest"]

    @property
    def metric(self) -> str:
        """`fid`, or `clean_fid` by its resize, for Inception's published weights alone; in other features `fd_…`."""
        return self.metadata["metric"]

    def __call__(self, images: np.ndarray) -> Extracted:
        """Run uint8 [N, H, W, C] (C 1 or 3) through the network.

        Raises TypeError for anything but uint8: [0, 1] floats cast to uint8 would be black images.
        Raises EvaluationError when it cannot run on them, or gives anything but finite features, one row an image.
        """
        if images.dtype != np.uint8:
            raise TypeError(f"an extractor takes uint8 images, not {images.dtype}")
        if images.ndim != 4 or images.shape[3] not in (1, 3):
            raise TypeError(f"an extractor takes [N, H, W, 1 or 3], not {list(images.shape)}")
        outputs = ["features", "logits"] if self.has_logits else ["features"]
        got = run(self.session, outputs, {"images": np.ascontiguousarray(images)}, f"the extractor {self.name}")
        if got[0].shape != (len(images), self.dim) or any(len(rows) != len(images) for rows in got):
            gave = " and ".join(f"{name} {list(rows.shape)}" for name, rows in zip(outputs, got, strict=True))
            raise EvaluationError(
                f"the extractor {self.name} gave {gave} for {len(images)} images; its contract is features "
                f"[N, {self.dim}], a row an image"
            )
        if not np.isfinite(got[0]).all():
            raise EvaluationError(f"the extractor {self.name} gave features that are not finite; is it damaged?")
        return Extracted(got[0], got[1] if self.has_logits else None)

    def provenance(self) -> dict[str, Any]:
        """What a statistic or a report says about the extractor that made it."""
        texts = ("name", "network", "metric", "weights_sha256", "resize", "digest", "dataset")
        told: dict[str, Any] = {key: self.metadata[key] for key in texts if key in self.metadata}
        if "accuracy" in self.metadata:
            told |= {"accuracy": float(self.metadata["accuracy"]), "seed": int(self.metadata["seed"])}
        return told | {"dim": self.dim}


def extractor_digest(model: Any) -> str:
    """sha256 over graph and metadata, but for when it was made: the same weights give the same digest."""
    return digest_of(model, lambda key: key in ("digest", "created"))


def load_extractor(path: Path | str) -> Extractor:
    """Load an extractor file, holding it to its contract: `images` uint8 [N, H, W, C] → `features` [N, d].

    Raises EvaluationError, in one line, for a file that is absent, truncated, damaged or not an extractor.
    """
    path = Path(path)
    model = read_model(path, "extractor file")
    metadata = metadata_of(model)
    need(metadata, REQUIRED, path, "an extractor file")
    if metadata["format_version"] != FORMAT_VERSION:
        raise EvaluationError(
            f"{path} has extractor format {metadata['format_version']}; this version reads {FORMAT_VERSION}"
        )
    session = session_of(model, path)
    inputs = {value.name: value for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    if set(inputs) != {"images"} or inputs["images"].type != "tensor(uint8)" or len(inputs["images"].shape) != 4:
        raise EvaluationError(f"{path} is not an extractor file: its input is not `images` uint8 [N, H, W, C]")
    if isinstance(inputs["images"].shape[0], int):
        raise EvaluationError(
            f"{path} takes batches of {inputs['images'].shape[0]} alone; export it with a dynamic first axis"
        )
    if "features" not in outputs or outputs["features"].type != "tensor(float)":
        raise EvaluationError(f"{path} is not an extractor file: it has no float32 output `features`")
    shape = outputs["features"].shape
    if len(shape) != 2 or not isinstance(shape[1], int):
        raise EvaluationError(f"{path}: `features` has shape {shape}, not [N, d] of a fixed d")
    class_names = names(metadata, "class_names", path)
    if class_names and "logits" in outputs and outputs["logits"].shape[1:] != [len(class_names)]:
        raise EvaluationError(
            f"{path}: `logits` has shape {outputs['logits'].shape} for {len(class_names)} class names"
        )
    if extractor_digest(model) != metadata["digest"]:
        raise EvaluationError(f"{path} was altered after it was made: its digest does not match; build it again")
    return Extractor(path, metadata, shape[1], class_names, "logits" in outputs, session)


def metadata_strings(values: dict[str, Any]) -> dict[str, str]:
    """Metadata values as ONNX holds them; lists and dicts become JSON."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for key, value in values.items()
        if value is not None
    }
