"""Where images come from: a running service, a generator file, or an image set.

All give the same thing: a description, and batches of uint8 [N, H, W, C] whose model digest is told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from evaluation.errors import EvaluationError
from evaluation.latents import MAX_SEED, latents_of
from evaluation.onnx_files import digest_of, metadata_of, names, need, number, read_model, session_of
from imagesets import ImageSet, load_image_set


@dataclass(frozen=True)
class ImageBatch:
    """uint8 [N, H, W, C], and the digest of the model that made them ('' for real images)."""

    images: np.ndarray
    digest: str = ""


class ImageSource(Protocol):
    """`description` goes into the report; (height, width, channels) is `shape`; `seeded`: one seed, one image."""

    description: dict[str, Any]
    shape: tuple[int, int, int]
    seeded: bool

    def limit(self) -> int | None:
        """How many images there are; None when there is no end to them."""

    def batches(self, first_seed: int, n: int, batch: int) -> Iterator[ImageBatch]:
        """Exactly n images: of seeds first_seed … first_seed+n-1, where the source has seeds."""


def open_source(
    text: str,
    *,
    model: str | None = None,
    resolution: int | None = None,
    channels: int | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
) -> ImageSource:
    """The source that `text` names: `http://…`, a `.onnx` file, else an image set.

    `model` is for a service; resolution and channels for an image set. Raises EvaluationError or
    ImageSetError for a source that cannot be had.
    """
    if text.startswith(("http://", "https://")):
        return ServiceSource(text, model)
    if model is not None:
        raise EvaluationError(f"--model names a model of a service; {text} is none")
    if text.endswith(".onnx"):
        return GeneratorSource(Path(text))
    if Path(text).exists():
        raise EvaluationError(f"{text} is neither a URL, an .onnx file nor an image set; for images: folder:{text}")
    images = load_image_set(text, resolution=resolution, channels=channels, data_root=data_root, cache_root=cache_root)
    return ImageSetSource(images)


class ServiceSource:
    """Images of a running service, over `service.client`."""

    seeded = True

    def __init__(self, url: str, model: str | None) -> None:
        from service.client import Client, ServiceError

        self._error = ServiceError
        try:
            self._client = Client(url)
            told = self._client.model(model)
            self._name = str(told["name"])
            self.shape = (int(told["height"]), int(told["width"]), int(told["channels"]))
            self._digest = str(told["digest"])
        except ServiceError as error:
            raise EvaluationError(_one_line(error)) from error
        except (KeyError, TypeError, ValueError) as error:
            raise EvaluationError(f"{url} does not answer as a generation service does ({error!r})") from error
        self.description = {
            "kind": "service",
            "url": url,
            "model": self._name,
            "digest": self._digest,
            "shape": list(self.shape),
        }

    def limit(self) -> int | None:
        return None

    def batches(self, first_seed: int, n: int, batch: int) -> Iterator[ImageBatch]:
        _check_seeds(first_seed, n)
        try:
            stream = self._client.stream(model=self._name, first_seed=first_seed, num_images=n, batch=batch)
            expected = first_seed
            for got in stream:
                # The service's own word for which images these are, and whose: a score is of one model.
                if got.digest != self._digest:
                    raise EvaluationError(
                        f"the model {self._name} changed while it was scored (digest {self._digest[:12]}, then "
                        f"{got.digest[:12]}); score it again"
                    )
                seeds = [int(seed) for seed in got.seeds]
                if seeds != list(range(expected, expected + len(got.images))):
                    raise EvaluationError(f"the service answered other seeds than asked for, near {expected}")
                expected += len(seeds)
                yield ImageBatch(got.images, got.digest)
        except self._error as error:
            raise EvaluationError(_one_line(error)) from error
        if expected != first_seed + n:
            raise EvaluationError(f"the service gave {expected - first_seed} of {n} images")


class GeneratorSource:
    """Images of a generator file, made here with ONNX Runtime; seed → latent as the service has it."""

    seeded = True

    def __init__(self, path: Path) -> None:
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
        digest = digest_of(proto, lambda key: key == "digest" or key.startswith("evaluation."))
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
        self._num_classes = len(names(metadata, "class_names", path)) if "labels" in inputs else 0
        if "labels" in inputs and not self._num_classes:
            raise EvaluationError(f"{path}: it takes labels, but its metadata name no classes")
        self.description = {
            "kind": "generator file",
            "path": str(path),
            "model": metadata["name"],
            "digest": digest,
            "shape": list(self.shape),
        }

    def limit(self) -> int | None:
        return None

    def batches(self, first_seed: int, n: int, batch: int) -> Iterator[ImageBatch]:
        _check_seeds(first_seed, n)
        for start in range(first_seed, first_seed + n, batch):
            size = min(batch, first_seed + n - start)
            z, labels = latents_of(start, size, self._z_dim, self._z_distribution, self._num_classes)
            feed = {"latents": z} if labels is None else {"latents": z, "labels": labels}
            images = self._session.run(["images"], feed)[0]
            if images.shape != (size, *self.shape):
                raise EvaluationError(
                    f"the generator gave images {list(images.shape)}; its metadata say {[size, *self.shape]}"
                )
            yield ImageBatch(images, self._digest)


class ImageSetSource:
    """Real images. Fewer than all of them are a fixed random choice: sets are often sorted by class."""

    seeded = False

    def __init__(self, images: ImageSet) -> None:
        self._images = images
        height, width, channels = images.images.shape[1:]
        self.shape = (height, width, channels)
        kept = ("source", "split", "crop", "resize", "resolution", "channels", "n", "fingerprint")
        self.description = {
            "kind": "image set",
            "name": images.name,
            **{key: images.info[key] for key in kept},
        }

    def limit(self) -> int | None:
        return len(self._images)

    def batches(self, first_seed: int, n: int, batch: int) -> Iterator[ImageBatch]:
        chosen = choice(len(self._images), n, first_seed)
        for start in range(0, n, batch):
            yield ImageBatch(np.asarray(self._images.images[chosen[start : start + batch]]))


def choice(total: int, n: int, seed: int) -> np.ndarray:
    """n of `total` indices, int64, ascending, without repetition: those of the n smallest Philox draws."""
    draws = np.random.Philox(key=seed).random_raw(total)
    return np.sort(np.argsort(draws, kind="stable")[:n])


def _check_seeds(first_seed: int, n: int) -> None:
    if not 0 <= first_seed <= MAX_SEED - n:
        raise EvaluationError(f"seeds lie in 0 … 2^53 - 1, not at {first_seed} and the {n} from it")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
