"""The images of a generator file, made in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from artifacts.generator_file import ContractError, check
from artifacts.latents import seeds_to_latents
from evaluation.errors import EvaluationError
from evaluation.onnx_runtime import create_session, read_model, run_session
from evaluation.sources.base import ImageBatch, SamplingOptions, SeedRange


class GeneratorSource:
    """A generator file that follows the contract and whose digest matches its content."""

    seeded = True
    num_images: int | None = None

    def __init__(self, path: Path, sampling: SamplingOptions = SamplingOptions()) -> None:
        model = read_model(path, "generator file")
        try:
            self._metadata = check(model)
        except ContractError as error:
            raise EvaluationError(f"{path}: {error}") from error
        self._session = create_session(model, path)
        self.shape, self.class_names = self._metadata.image_shape, self._metadata.class_names
        sampling.check(self._metadata.z_distribution, self.class_names, str(path))
        self._sampling = sampling
        self.description = {
            "kind": "generator file",
            "path": str(path),
            "model": self._metadata.name,
            "digest": self._metadata.digest,
            "shape": list(self.shape),
            "dataset": self._metadata.dataset,
            "images_seen": self._metadata.images_seen,
            **vars(sampling),
        }

    def batches(self, seeds: SeedRange, start: int, stop: int, batch_size: int) -> Iterator[ImageBatch]:
        """Yield the images of the seeds, each from its own latent and label."""
        seeds.check()
        for first in range(start, stop, batch_size):
            seed, n = seeds.seed(first), min(batch_size, stop - first)
            z, labels = seeds_to_latents(
                range(seed, seed + n),
                self._metadata.z_dim,
                self._metadata.z_distribution,
                self._sampling.truncation,
                len(self.class_names),
            )
            chosen = self._sampling.labels_for(seed, n, self.class_names)
            labels = labels if chosen is None else chosen
            feed: dict[str, np.ndarray] = {"latents": z} if labels is None else {"latents": z, "labels": labels}
            images = run_session(self._session, ["images"], feed, f"the generator {self._metadata.name}")[0]
            if images.shape != (n, *self.shape):
                raise EvaluationError(
                    f"the generator returned images {list(images.shape)}; its metadata states {[n, *self.shape]}"
                )
            yield ImageBatch(images, self._metadata.digest, labels)
