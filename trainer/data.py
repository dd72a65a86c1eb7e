"""The images of a run: loading them, recording which they were, and drawing batches of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from artifacts.plugins import is_plugin
from imagesets import ImageSet, load_image_set, native_channels, union_parts
from imagesets.cache import content_fingerprint
from trainer.config.schema import Config
from trainer.distributed import environment
from trainer.errors import TrainerError
from trainer.plugins import announce_import
from trainer.run_names import FOLDER

SUBSET_KEY = 2**64 - 2  # second half of the Philox key that chooses data.max_images
# An image set above this size stays on disk, memory-mapped, and is copied to the device batch by batch.
DEVICE_BYTES = 4 * 2**30
FLIP_KEY = 2**64 - 1  # second half of the Philox key for mirroring; for the order of an epoch it is the epoch's number
# What a person can compare of two image sets, and its name in a message
COMPARED = {
    "n": "images",
    "labels": "labels",
    "class_names": "classes",
    "resolution": "resolution",
    "channels": "channels",
    "crop": "crop",
    "resize": "resize",
}


def with_channels(config: Config, data_root: Path) -> Config:
    """Return the config with the images' channels where neither a preset nor a setting gives `data.channels`."""
    data = config.data
    if is_plugin(data.source.partition("@")[0]):
        announce_import("data.source", data.source)
    if "channels" in data.model_fields_set:
        return config
    channels = native_channels(data.source, resolution=data.resolution, data_root=data_root)
    return config.model_copy(update={"data": data.model_copy(update={"channels": channels})})


def load_images(config: Config, data_root: Path) -> tuple[ImageSet, Config]:
    """Return the config's image set, and the config with its class names and channels.

    Raises:
        TrainerError: If it is smaller than a batch, or a conditional model finds no labels.
        ImageSetError: If it cannot be loaded.
    """
    config = with_channels(config, data_root)
    data = config.data
    images = load_image_set(
        data.source,
        resolution=data.resolution,
        channels=data.channels,
        scale_jpegs=data.scale_jpegs,
        data_root=data_root,
        progress=environment.rank() == 0,
    )
    if data.max_images is not None and data.max_images < len(images):
        images = choose_images(images, data.max_images)
    if len(images.images) < config.optim.batch_size:
        what = f"data.max_images={data.max_images}" if data.max_images else data.source
        raise TrainerError(
            f"{what} has {len(images.images)} images, fewer than optim.batch_size={config.optim.batch_size}"
        )
    if config.model.conditional:
        if images.labels is None or len(images.class_names) < 2:
            raise TrainerError(f"{data.source} has no labels to condition on; add --set model.conditional=false")
        config = config.model_copy(update={"data": data.model_copy(update={"class_names": images.class_names})})
    return images, config


def choose_images(images: ImageSet, count: int) -> ImageSet:
    """Return a random choice of so many images, as equally many of each class as there are, in their order.

    The choice depends only on the labels (without labels, on the number of images), so every run trains on the same
    images, and a smaller choice is part of a larger one.
    """
    key = np.array([len(images), SUBSET_KEY], dtype=np.uint64)
    order = np.argsort(np.random.Philox(key=key).random_raw(len(images)), kind="stable")
    turn = np.arange(len(images))  # when an image is chosen: the first of each class, then the second of each, …
    if images.labels is not None:
        labels = images.labels[order]
        for label in np.unique(labels):
            turn[labels == label] = np.arange(np.count_nonzero(labels == label))
    chosen = np.sort(order[np.argsort(turn, kind="stable")[:count]])
    pixels = images.images[chosen]
    chosen_labels = None if images.labels is None else images.labels[chosen]
    fingerprint = content_fingerprint(pixels, chosen_labels)
    info = {**images.info, "n": count, "chosen_of": len(images), "fingerprint": fingerprint}
    return ImageSet(images.name, pixels, chosen_labels, images.class_names, info)


@dataclass(frozen=True)
class ImageRecord:
    """Which images a run or sweep was started on and where they were, as its `made_by.json` records it.

    Attributes:
        content: The file's content. `image_set` is the document of the image set (ImageSet.info), with its absolute
            path and a fingerprint of its pixels and labels; `data_root` is the folder of the datasets.
    """

    content: Mapping[str, Any]

    FILE = "made_by.json"

    @classmethod
    def read(cls, folder: Path) -> ImageRecord:
        """Return the record in a folder, empty where it is missing or damaged."""
        try:
            found = json.loads((folder / cls.FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return cls({})
        return cls(found if isinstance(found, dict) and isinstance(found.get("image_set"), dict) else {})

    @property
    def image_set(self) -> Mapping[str, Any]:
        """The document of the image set."""
        found: Mapping[str, Any] = self.content.get("image_set", {})
        return found

    @property
    def source(self) -> str | None:
        """The `data.source` of a folder or zip under its absolute path; None if it no longer exists."""
        source, split = str(self.image_set.get("source", "")), self.image_set.get("split")
        if FOLDER not in source or not all(map(_is_present, union_parts(source))):
            return None
        return source if split in (None, "all") else f"{source}@{split}"

    @property
    def data_root(self) -> Path | None:
        """The folder of the datasets; None if it no longer exists."""
        text = self.content.get("data_root")
        return Path(text) if isinstance(text, str) and Path(text).is_dir() else None

    @property
    def has_fingerprint(self) -> bool:
        """Whether the record identifies the images."""
        return isinstance(self.image_set.get("fingerprint"), str)

    def describe_change(self, images: ImageSet) -> str:
        """Return how images differ from the recorded ones; "" if they are equal or the record has no fingerprint."""
        if not self.has_fingerprint or self.image_set["fingerprint"] == images.info.get("fingerprint"):
            return ""
        return describe_difference(self.image_set, images.info)


def record_images(images: ImageSet, data_root: Path) -> dict[str, Any]:
    """Return what a run records of its images."""
    return {"image_set": images.info, "data_root": str(data_root.expanduser().absolute())}


def _is_present(source: str) -> bool:
    """Return whether a part of a recorded source is a dataset, or an existing absolute path."""
    text = source.removeprefix(FOLDER)
    paths = [Path(path) for path in (text, text.rpartition("@")[0]) if path]
    return not source.startswith(FOLDER) or any(path.is_absolute() and path.exists() for path in paths)


def describe_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return how two image sets differ, given their documents."""
    found = [
        f"{words} {_shorten(before.get(key))} → {_shorten(now.get(key))}"
        for key, words in COMPARED.items()
        if key in before and before.get(key) != now.get(key)
    ]
    if not found:
        fingerprints = (str(info.get("fingerprint"))[:12] for info in (before, now))
        found = [f"as many images, with other pixels or labels (fingerprint {' → '.join(fingerprints)})"]
    old, new = (info.get("versions", {}).get("pillow") for info in (before, now))
    if old and new and old != new:
        found.append(f"Pillow {old} → {new}, which may decode files differently")
    return ", ".join(found)


def _shorten(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value[:5]))}{', …' if len(value) > 5 else ''}]"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


class Batches:
    """An endless stream of full batches, drawn from the image set's array; the seed alone decides their order.

    Epoch e shows every image once, in the order of Philox(key=[seed, e])'s raw draws. A batch may hold the end of an
    epoch and the beginning of the next. Resuming needs only the position.
    """

    def __init__(
        self,
        images: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        labels: np.ndarray | None = None,
        flip: bool = False,
        share: slice = slice(None),
    ) -> None:
        """Prepare the images, on the device where they fit.

        Args:
            images: uint8 [N, H, W, C].
            batch_size: Images per batch, over all processes.
            seed: Decides the order and the mirroring.
            device: Where batches are made.
            labels: int64 [N].
            flip: Whether to mirror half of the images shown.
            share: The rows of each batch that `at` returns.
        """
        self.count = len(images)
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.flip = flip
        self.share = share
        self._on_disk = images
        self._on_device: Tensor | None = None
        self._labels = None if labels is None else torch.from_numpy(np.array(labels)).to(device)
        if images.nbytes <= DEVICE_BYTES:
            self._on_device = torch.from_numpy(np.array(images)).to(device)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    @classmethod
    def of_run(cls, config: Config, images: ImageSet, device: torch.device, share: slice = slice(None)) -> Batches:
        """Return the stream that a run of a config trains on.

        Args:
            config: The config.
            images: The images, as `load_images` returns them.
            device: Where batches are made.
            share: The rows of each batch that this process trains on.
        """
        return cls(
            images.images,
            config.optim.batch_size,
            seed=config.run.seed,
            device=device,
            labels=images.labels if config.model.conditional else None,
            flip=config.data.flip,
            share=share,
        )

    def at(self, position: int) -> tuple[Tensor, Tensor | None]:
        """Return this process's share of the batch that starts `position` images into the stream, with its labels.

        Images are float32 [B, C, H, W] in [-1, 1], channels last; labels int64 [B].
        """
        indices = self.indices(position)[self.share]
        chosen = torch.from_numpy(indices).to(self.device, non_blocking=True)
        if self._on_device is not None:
            batch = self._on_device[chosen]
        else:
            batch = torch.from_numpy(self._on_disk[indices]).to(self.device, non_blocking=True)
        labels = None if self._labels is None else self._labels[chosen]
        if self.flip:
            mirrored = torch.from_numpy(self.mirrored(position)[self.share]).to(self.device, non_blocking=True)
            batch = torch.where(mirrored[:, None, None, None], batch.flip(2), batch)
        return batch.permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0), labels

    def mirrored(self, position: int) -> np.ndarray:
        """Return which images are mirrored, bool [batch_size]: the lowest bit of Philox's raw draw at that position."""
        stream = np.random.Philox(key=np.array([self.seed, FLIP_KEY], dtype=np.uint64))
        stream.advance(position // 4)  # a Philox4x64 block is four draws
        skip = position % 4
        return (stream.random_raw(skip + self.batch_size)[skip:] & np.uint64(1)).astype(bool)

    def indices(self, position: int) -> np.ndarray:
        """Return the indices of a batch's images, int64 [batch_size]."""
        parts = []
        needed = self.batch_size
        while needed:
            epoch, offset = divmod(position, self.count)
            part = self._epoch_order(epoch)[offset : offset + needed]
            parts.append(part)
            position, needed = position + len(part), needed - len(part)
        return np.concatenate(parts)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            draws = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)).random_raw(self.count)
            self._epoch, self._order = epoch, np.argsort(draws, kind="stable")
        return self._order
