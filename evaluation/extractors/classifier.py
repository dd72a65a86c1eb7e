"""A domain classifier as feature extractor: a small CNN, trained on the image set that it is to score.

Its features describe that domain (Inception's were learned from photographs), and with d = 64 a Fréchet distance is
meaningful from a few hundred images. Its metric is called `fd_classifier`, never FID.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from artifacts.images.resolution import Resolution, height_and_width, resolution_of
from artifacts.terminal import progress
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor_export import BuiltExtractor, weights_sha256, write_extractor
from evaluation.sources import resolve
from imagesets import ImageSet, load

FEATURES = 64
MAX_SIDE = 64
BATCH = 128
RESIZE = "linear-antialias"


class Classifier(nn.Module):
    """A CNN of [N, C, H, W] in [-1, 1] → features [N, 64], logits [N, classes]; H and W 8 or more."""

    def __init__(self, channels: int, num_classes: int, resolution: Resolution) -> None:
        """Create the network with random weights."""
        super().__init__()

        def stage(n_in: int, n_out: int, kernel: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(n_out), nn.ReLU(inplace=True))

        self.stages = nn.Sequential(
            # Nothing runs at full size: on two cores that would take minutes.
            stage(channels, 16, 5, 2),  # 16 x H/2
            stage(16, 32, 3, 2),  # 32 x H/4
            stage(32, 32, 3, 1),
            stage(32, 64, 3, 2),  # 64 x H/8
        )
        height, width = (-(-side // 8) for side in height_and_width(resolution))
        # Not ReLU, which would leave dead features, and a singular covariance with them.
        self.features = nn.Sequential(nn.Flatten(), nn.Linear(64 * height * width, FEATURES), nn.GELU())
        self.logits = nn.Linear(FEATURES, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits."""
        features = self.features(self.stages(x))
        return features, self.logits(features)


def build_classifier(
    images: str,
    output: Path,
    *,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
    resolution: Resolution | None = None,
    seed: int = 0,
    epochs: int | None = None,
    name: str | None = None,
) -> BuiltExtractor:
    """Train on SOURCE@train, measure the accuracy on SOURCE@test, and write an extractor file.

    The same seed gives the same weights on the same machine with the same number of threads.

    Args:
        images: A dataset, folder or .zip with labels.
        output: The file to write.
        data_root: Folder of downloaded datasets.
        cache_root: Folder of the image cache.
        resolution: What the classifier works at, 8 to 64 px per side; default: the set's, or else a square of 64.
        seed: Seed of weights, order and shifts.
        epochs: Passes over the training set; default: by its size, 4 to 25.
        name: Name of the extractor; default: the file's.

    Returns:
        The file with its metadata.

    Raises:
        EvaluationError: If the set has no labels, or is not an image set.
        ImageSetError: If the images cannot be loaded.
    """
    location = resolve(images)
    source = location.image_set
    if location.kind != "images":
        raise EvaluationError(f"{images} is not an image set, a folder or a .zip; a classifier needs one with labels")
    if location.split not in (None, "train"):
        raise EvaluationError(f"a classifier is trained on the train split and tested on @test: give {source}")
    roots: dict[str, Any] = {"data_root": data_root, "cache_root": cache_root}
    train = load(f"{source}@train", resolution=resolution, **roots)
    if len(train) and max(train.images.shape[1:3]) > MAX_SIDE:
        train = load(f"{source}@train", resolution=MAX_SIDE, **roots)
    size, channels = resolution_of(*train.images.shape[1:3]), train.images.shape[3]
    if min(height_and_width(size)) < 8:
        raise EvaluationError(f"{size} pixels are too few for a classifier; give --resolution 8 or more")
    if train.labels is None or len(train.class_names) < 2:
        raise EvaluationError(f"{source} has no labels to train a classifier on; use the inception extractor")
    test = load(f"{source}@test", resolution=size, channels=channels, **roots)
    epochs = epochs or min(max(round(240_000 / len(train)), 4), 25)
    network = train_classifier(train, seed=seed, epochs=epochs)
    accuracy = accuracy_of(network, test)

    metadata = {
        "name": name or output.stem,
        "network": "classifier-cnn",
        "metric": "fd_classifier",
        "weights_sha256": weights_sha256(network),
        "resize": RESIZE,
        "resolution": size,
        "channels": channels,
        "dataset": train.name,
        "dataset_fingerprint": train.fingerprint,
        "test_dataset": test.name,
        "test_fingerprint": test.fingerprint,
        "accuracy": round(accuracy, 6),
        "chance": round(chance_accuracy(test), 6),
        "class_names": list(train.class_names),
        "seed": seed,
        "epochs": epochs,
        "versions": {"torch": torch.__version__, "threads": torch.get_num_threads()},
    }
    samples = np.ascontiguousarray(test.images[:: max(1, len(test) // 64)][:64])
    with torch.no_grad():
        expected = network(_normalize(samples))
    return write_extractor(network, metadata, output, resize=RESIZE, images=samples, expected=expected)


def train_classifier(images: ImageSet, *, seed: int, epochs: int) -> Classifier:
    """Train with Adam, a one-cycle rate, cross-entropy, and shifts by up to 2 pixels; the images have labels."""
    assert images.labels is not None
    torch.manual_seed(seed)
    height, width, channels = images.images.shape[1:]
    network = Classifier(channels, len(images.class_names), resolution_of(height, width)).to(
        memory_format=torch.channels_last
    )
    steps = max(1, len(images) // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * steps)
    labels = torch.from_numpy(np.array(images.labels))
    generator = torch.Generator().manual_seed(seed)
    network.train()
    with progress(f"training on {images.name}", epochs * steps * BATCH) as advance:
        for _ in range(epochs):
            order = torch.randperm(len(images), generator=generator)
            for batch in torch.split(order[: steps * BATCH], BATCH):
                if len(batch) < 2:
                    raise EvaluationError(f"{images.name} has too few images to train a classifier on")
                top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
                x = _normalize(images.images[batch.numpy()])
                x = functional.pad(x, (2, 2, 2, 2), mode="replicate")[:, :, top : top + height, left : left + width]
                _, logits = network(x.contiguous(memory_format=torch.channels_last))
                loss = functional.cross_entropy(logits, labels[batch])
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
                advance(BATCH)
    return network.eval()


def accuracy_of(network: Classifier, images: ImageSet) -> float:
    """Return the share of images whose most likely class is their label, 0 to 1."""
    assert images.labels is not None
    correct = 0
    with torch.no_grad():
        for start in range(0, len(images), 1000):
            _, logits = network(_normalize(images.images[start : start + 1000]))
            correct += int((logits.argmax(1).numpy() == images.labels[start : start + 1000]).sum())
    return correct / max(1, len(images))


def chance_accuracy(images: ImageSet) -> float:
    """Return the accuracy of always answering the most frequent class, 0 to 1."""
    assert images.labels is not None
    return float(np.bincount(images.labels, minlength=1).max() / max(1, len(images)))


def _normalize(images: np.ndarray) -> Tensor:
    """Return uint8 [N, H, W, C] as float32 [N, C, H, W] in [-1, 1], as the file's preprocessing does."""
    return (torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() - 127.5) / 127.5
