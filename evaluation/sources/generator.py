"""Images of a generator file, made here with ONNX Runtime; seed → latent as the service has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from artifacts.generator_file import is_unsealed
from artifacts.latents import ZDistribution, seeds_to_latents
from artifacts.onnx_files import digest_of, metadata_of
from evaluation.errors import EvaluationError
from evaluation.onnx_files import (
    create_session,
    int_metadata,
    read_model,
    require_metadata,
    run_session,
    string_list_metadata,
)
from evaluation.sources.base import Conditions, Draw, ImageBatch


class GeneratorSource:
    """A generator file that keeps the contract and whose digest is its own."""

    seeded = True

    def __init__(self, path: Path, conditions: Conditions = Conditions()) -> None:
        proto = read_model(path, "generator file")
        metadata = metadata_of(proto)
        keys = ("format_version", "name", "z_dim", "z_distribution", "height", "width", "channels", "digest")
        require_metadata(metadata, keys, path, "a generator file")
        height, width, channels, self._z_dim = (
            int_metadata(metadata, key, path) for key in ("height", "width", "channels", "z_dim")
        )
        self.shape = (height, width, channels)
        distribution = metadata["z_distribution"]
        if distribution not in ("normal", "uniform"):
            raise EvaluationError(f"{path}: z_distribution is {distribution!r}, not normal or uniform")
        self._z_distribution = cast(ZDistribution, distribution)
        digest = digest_of(proto, is_unsealed)
        if digest != metadata["digest"]:
            raise EvaluationError(f"{path} was altered after its export: its digest does not match")
        self._digest = digest
        self._session = create_session(proto, path)
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        if (
            "latents" not in inputs
            or inputs["latents"].shape[1:] != [self._z_dim]
            or set(inputs) - {"latents", "labels"}
        ):
            raise EvaluationError(f"{path}: its inputs are not `latents` [N, {self._z_dim}] (and `labels`)")
        if "images" not in outputs or outputs["images"].type != "tensor(uint8)":
            raise EvaluationError(f"{path}: it has no uint8 output `images`")
        self.class_names = string_list_metadata(metadata, "class_names", path) if "labels" in inputs else ()
        if "labels" in inputs and not self.class_names:
            raise EvaluationError(f"{path}: it takes labels, but its metadata name no classes")
        conditions.check(self._z_distribution, self.class_names, str(path))
        self._conditions = conditions
        self.description = {
            "kind": "generator file",
            "path": str(path),
            "model": metadata["name"],
            "digest": digest,
            "shape": list(self.shape),
            "dataset": metadata.get("dataset"),
            "images_seen": _count(metadata.get("images_seen", "")),
            **conditions.told(),
        }

    def limit(self) -> int | None:
        return None

    def batches(self, draw: Draw, start: int, stop: int, batch: int) -> Iterator[ImageBatch]:
        draw.check()
        for first in range(start, stop, batch):
            seed, size = draw.seed(first), min(batch, stop - first)
            seeds, truncation = range(seed, seed + size), self._conditions.truncation
            z, labels = seeds_to_latents(seeds, self._z_dim, self._z_distribution, truncation, len(self.class_names))
            chosen = self._conditions.labels_of(seed, size, self.class_names)
            labels = labels if chosen is None else chosen
            feed: dict[str, np.ndarray] = {"latents": z} if labels is None else {"latents": z, "labels": labels}
            images = run_session(self._session, ["images"], feed, f"the generator {self.description['model']}")[0]
            if images.shape != (size, *self.shape):
                raise EvaluationError(
                    f"the generator gave images {list(images.shape)}; its metadata say {[size, *self.shape]}"
                )
            yield ImageBatch(images, self._digest, labels)


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None
