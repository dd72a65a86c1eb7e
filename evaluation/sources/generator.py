"""Images of a generator file, made here with ONNX Runtime; seed → latent as the service has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from evaluation.errors import EvaluationError
from evaluation.latents import latents_of
from evaluation.onnx_files import digest_of, metadata_of, names, need, number, read_model, run, session_of
from evaluation.sources.base import Conditions, Draw, ImageBatch


class GeneratorSource:
    """A generator file that keeps the contract and whose digest is its own."""

    seeded = True

    def __init__(self, path: Path, conditions: Conditions = Conditions()) -> None:
        proto = read_model(path, "generator file")
        metadata = metadata_of(proto)
        keys = ("format_version", "name", "z_dim", "z_distribution", "height", "width", "channels", "digest")
        need(metadata, keys, path, "a generator file")
        height, width, channels, self._z_dim = (
            number(metadata, key, path) for key in ("height", "width", "channels", "z_dim")
        )
        self.shape = (height, width, channels)
        self._z_distribution = metadata["z_distribution"]
        if self._z_distribution not in ("normal", "uniform"):
            raise EvaluationError(f"{path}: z_distribution is {self._z_distribution!r}, not normal or uniform")
        digest = digest_of(proto, unsealed)
        if digest != metadata["digest"]:
            raise EvaluationError(f"{path} was altered after its export: its digest does not match")
        self._digest = digest
        self._session = session_of(proto, path)
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
        self.class_names = names(metadata, "class_names", path) if "labels" in inputs else ()
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
            z, labels = latents_of(
                seed, size, self._z_dim, self._z_distribution, len(self.class_names), self._conditions.truncation
            )
            chosen = self._conditions.labels_of(seed, size, self.class_names)
            labels = labels if chosen is None else chosen
            feed = {"latents": z} if labels is None else {"latents": z, "labels": labels}
            images = run(self._session, ["images"], feed, f"the generator {self.description['model']}")[0]
            if images.shape != (size, *self.shape):
                raise EvaluationError(
                    f"the generator gave images {list(images.shape)}; its metadata say {[size, *self.shape]}"
                )
            yield ImageBatch(images, self._digest, labels)


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def unsealed(key: str) -> bool:
    """The metadata keys that a generator file's digest leaves out: stamping a score changes no digest."""
    return key == "digest" or key.startswith("evaluation.")
