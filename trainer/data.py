"""Batches of real images, drawn straight from the image set's array: no workers, no per-image Python."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# An image set above this size stays on disk, memory-mapped, and travels batch by batch.
DEVICE_BYTES = 4 * 2**30
FLIPS = 2**64 - 1  # the Philox key beside the seed that mirrors images; an epoch's number, which orders them, never is


class Batches:
    """An endless stream of batches; which images come at which position depends on the seed alone.

    Epoch e shows every image once, in the order of Philox(key=[seed, e])'s raw draws. Batches are always full: one
    may hold the end of an epoch and the beginning of the next. Resuming needs only the position.
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
        """images: uint8 [N, H, W, C]; labels: int64 [N]; flip: mirror half of what is shown.

        share: which rows of each batch `at` gives (world.py); all of them, for a process alone.
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

    def at(self, position: int) -> tuple[Tensor, Tensor | None]:
        """This process's share of the batch that starts `position` images into the stream, and its labels if any.

        Images float32 [B, C, H, W] in [-1, 1], channels last; labels int64 [B].
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
        """Which are mirrored, bool [batch_size]: the lowest bit of Philox's raw draw at that place in the stream."""
        stream = np.random.Philox(key=np.array([self.seed, FLIPS], dtype=np.uint64))
        stream.advance(position // 4)  # a Philox4x64 block is four draws
        skip = position % 4
        return (stream.random_raw(skip + self.batch_size)[skip:] & np.uint64(1)).astype(bool)

    def indices(self, position: int) -> np.ndarray:
        """Which images those are, int64 [batch_size]."""
        wanted = []
        needed = self.batch_size
        while needed:
            epoch, offset = divmod(position, self.count)
            part = self._order_of(epoch)[offset : offset + needed]
            wanted.append(part)
            position, needed = position + len(part), needed - len(part)
        return np.concatenate(wanted)

    def _order_of(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            draws = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)).random_raw(self.count)
            self._epoch, self._order = epoch, np.argsort(draws, kind="stable")
        return self._order
