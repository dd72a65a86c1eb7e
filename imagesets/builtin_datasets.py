"""The datasets that are known by name, from digits to CelebA, with their downloads."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.images.resolution import Resolution
from imagesets.types import DatasetSpec, ImageSetError, OpenedDataset

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_IDENTITY = "CIFAR-10 python version, md5 c58f30108f718f92721af3b95e74349a"
DIGITS_TEST_SEED = 0
DIGITS_TEST_SIZE = 297
STACKED_SEED = 0
STACKED_SIZES = {"train": 60_000, "test": 26_000}
CELEBA_SPLITS = {"train": {"0"}, "valid": {"1"}, "test": {"2"}, "all": {"0", "1", "2"}}


def digits(source: str, split: str, resolution: Resolution, channels: int, data_root: Path) -> DatasetSpec:  # noqa: ARG001 (one signature for all)
    """load_digits (8x8, values 0 to 16), scaled to 0..255 and enlarged by PIL's bicubic.

    The split is stratified and fixed: of each class, the share nearest 297/1797 in the order of a
    Philox permutation, so it depends on no library's shuffling.
    """

    def open_dataset() -> OpenedDataset:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImageSetError("digits needs scikit-learn: pip install scikit-learn") from error
        loaded = load_digits()
        pixels = np.round(loaded.images * (255 / 16)).astype(np.uint8)
        labels = loaded.target.astype(np.int64)
        chosen = np.flatnonzero(digits_test_mask(labels) == (split == "test"))
        return open_array(pixels[chosen], labels[chosen], DIGITS, resolution, channels, "pil-bicubic")

    content_hash = f"sklearn load_digits, stratified split {DIGITS_TEST_SEED} of {DIGITS_TEST_SIZE}"
    return DatasetSpec(source, split, "none", "pil-bicubic", resolution, channels, content_hash, open_dataset)


def digits_test_mask(labels: np.ndarray) -> np.ndarray:
    """Return bool [N], True for the test images: stratified by largest remainder, then by Philox draws."""
    counts = np.bincount(labels)
    shares = counts * (DIGITS_TEST_SIZE / len(labels))
    sizes = np.floor(shares).astype(int)
    for label in np.argsort(sizes - shares, kind="stable")[: DIGITS_TEST_SIZE - sizes.sum()]:
        sizes[label] += 1
    draws = np.random.Philox(key=DIGITS_TEST_SEED).random_raw(len(labels))
    mask = np.zeros(len(labels), dtype=bool)
    for label, size in enumerate(sizes):
        members = np.flatnonzero(labels == label)
        mask[members[np.argsort(draws[members], kind="stable")[:size]]] = True
    return mask


def mnist(source: str, split: str, resolution: Resolution, channels: int, data_root: Path) -> DatasetSpec:
    """The idx files, found or downloaded. Larger than 28 px by resizing (no padding)."""
    from imagesets.idx import find_idx, read_idx

    dataset = "MNIST" if source == "mnist" else "FashionMNIST"
    folders = [data_root / dataset / "raw", data_root / source]
    prefix = "train" if split == "train" else "t10k"
    stems = (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte")
    absent = (
        f"{source} is not here: looked for {stems[0]}[.gz] and {stems[1]}[.gz] in {folders[0]} and {folders[1]}; "
        "put its four idx files in either"
    )
    if any(find_idx(stem, folders) is None for stem in stems):
        _download(dataset, absent, data_root, train=True)
    images_path, labels_path = (find_idx(stem, folders) for stem in stems)
    if images_path is None or labels_path is None:
        raise ImageSetError(absent)
    try:
        parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (images_path, labels_path)]
    except OSError as error:
        raise ImageSetError(f"cannot read {error.filename}: {error.strerror}") from error

    def open_dataset() -> OpenedDataset:
        images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
        if images.shape[1:] != (28, 28):
            raise ImageSetError(f"{images_path} holds {images.shape[1]}x{images.shape[2]} images, not 28x28")
        if len(images) != len(labels):
            raise ImageSetError(
                f"{images_path} has {len(images)} images but {labels_path.name} {len(labels)} labels; "
                "they are not of one set"
            )
        if labels.size and labels.max() > 9:
            raise ImageSetError(f"{labels_path} has a label {labels.max()}; {source} has 0 to 9")
        names = DIGITS if source == "mnist" else FASHION
        return open_array(images, labels, names, resolution, channels, "pil-bilinear")

    return DatasetSpec(source, split, "none", "pil-bilinear", resolution, channels, " ".join(parts), open_dataset)


def stacked_mnist(source: str, split: str, resolution: Resolution, channels: int, data_root: Path) -> DatasetSpec:
    """Three random MNIST images as red, green and blue: 1,000 classes 100·r + 10·g + b (Metz et al. 2017).

    The draws are Philox's, with replacement. 60,000 training images take 141 MB, where Lin et al. 2018 draw 128,000;
    the test split has their 26,000, of MNIST's test images.
    """
    gray, size = mnist("mnist", split, 28, 1, data_root), STACKED_SIZES[split]

    def open_dataset() -> OpenedDataset:
        digits = gray.open()
        if not digits.count:
            return digits
        pixels = np.stack([digits.decode(i)[..., 0] for i in range(digits.count)])
        drawn = (np.random.Philox(key=STACKED_SEED).random_raw(3 * size) % digits.count).reshape(size, 3)
        images = pixels[drawn].transpose(0, 2, 3, 1)
        assert digits.labels is not None
        labels = digits.labels[drawn] @ np.array([100, 10, 1])
        names = tuple(f"{label:03}" for label in range(1000))
        return open_array(images, labels, names, resolution, channels, "pil-bilinear")

    content_hash = f"{gray.content_hash} stacked to {size} by seed {STACKED_SEED}"
    return DatasetSpec(source, split, "none", "pil-bilinear", resolution, channels, content_hash, open_dataset)


def cifar10(source: str, split: str, resolution: Resolution, channels: int, data_root: Path) -> DatasetSpec:
    """Describe torchvision's CIFAR-10, whose pickled batches it checks against its md5 sums before reading them."""

    def open_dataset() -> OpenedDataset:
        absent = (
            f"cifar10 is not here: looked for cifar-10-batches-py in {data_root}; "
            "put cifar-10-python.tar.gz there, or use folder:PATH for images you have"
        )
        loaded = _download("CIFAR10", absent, data_root, train=split == "train")
        labels = np.asarray(loaded.targets)
        return open_array(np.asarray(loaded.data), labels, CIFAR10, resolution, channels, "pil-bilinear")

    return DatasetSpec(source, split, "none", "pil-bilinear", resolution, channels, CIFAR10_IDENTITY, open_dataset)


def celeba(source: str, split: str, resolution: Resolution, channels: int, data_root: Path) -> DatasetSpec:
    """CelebA's aligned 178x218 images, the centre 178x178, then resized (as the DCGAN tutorials do)."""
    from imagesets.folder import RESIZE, open_image_files
    from imagesets.folder_contents import files_signature
    from imagesets.folder_scan import members_of

    base = data_root / "celeba"
    folder, packed = base / "img_align_celeba", base / "img_align_celeba.zip"
    partition = base / "list_eval_partition.txt"
    if not partition.is_file() or not (folder.is_dir() or packed.is_file()):
        absent = (
            f"celeba is not here: looked for img_align_celeba/*.jpg (or img_align_celeba.zip) and "
            f"list_eval_partition.txt in {base}; put them there"
        )
        _download("CelebA", absent, data_root, split="all")
    splits: dict[str, str] = {}
    try:
        for number, line in enumerate(partition.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                fields = line.split()
                if len(fields) != 2 or fields[1] not in CELEBA_SPLITS["all"]:
                    raise ImageSetError(f"{partition} line {number} is not `NAME 0|1|2`: {line[:60]!r}")
                splits[fields[0]] = fields[1]
    except (OSError, UnicodeDecodeError) as error:
        raise ImageSetError(f"{partition} cannot be read ({error})") from error
    wanted = CELEBA_SPLITS[split]
    every = {Path(m.path).name: m for m in members_of(folder if folder.is_dir() else packed)}
    expected = [file for file, code in splits.items() if code in wanted]
    missing = [file for file in expected if file not in every]
    if missing:
        raise ImageSetError(
            f"{len(missing):,} of celeba's {len(expected):,} {split} images are missing in {base}, "
            f"{missing[0]} among them; unpack img_align_celeba.zip again"
        )
    members = [every[file] for file in sorted(expected)]
    content = files_signature(members)

    def open_dataset() -> OpenedDataset:
        return open_image_files(members, resolution, channels, str(base))

    return DatasetSpec(source, split, "centre-178", RESIZE, resolution, channels, content, open_dataset)


def _download(dataset: str, absent: str, data_root: Path, **options: Any) -> Any:
    """Return torchvision's dataset, downloaded into data_root if absent. $ATELIER_OFFLINE forbids that."""
    absent = f"{absent}, or name its folder with --data-root or $DATA_ROOT"
    online = not os.environ.get("ATELIER_OFFLINE")
    if not online and dataset != "CIFAR10":  # which torchvision reads as well as fetches
        raise ImageSetError(f"{absent} ($ATELIER_OFFLINE forbids downloading)")
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        needed = "torchvision gdown" if dataset == "CelebA" else "torchvision"
        raise ImageSetError(f"{absent}, or pip install {needed} to have it downloaded") from error
    if dataset == "CelebA" and importlib.util.find_spec("gdown") is None:  # torchvision's way to Google Drive
        raise ImageSetError(f"{absent}, or pip install gdown to have it downloaded")
    inside = {"CelebA": ("celeba",), "CIFAR10": ()}.get(dataset, (f"{dataset}/raw", dataset))
    places = [*(data_root / place for place in inside), data_root, *data_root.parents]
    made = [place for place in places if not place.exists()]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return getattr(datasets, dataset)(str(data_root), download=online, **options)
    except Exception as error:  # torchvision and its downloaders raise many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageSetError(f"{absent} (the download failed: {reason[:120]})") from error
    finally:
        for folder in made:  # deepest first; one with anything in it stays
            with contextlib.suppress(OSError):
                folder.rmdir()


def open_array(
    images: np.ndarray,
    labels: np.ndarray | None,
    class_names: tuple[str, ...],
    resolution: Resolution,
    channels: int,
    resize: str,
) -> OpenedDataset:
    """Open an array in memory as a dataset.

    Args:
        images: uint8 [N, h, w] or [N, h, w, 3 or 4].
        labels: [N], or None.
        class_names: Names of the classes.
        resolution: Resolution in pixels to resize to.
        channels: 1, 3 or 4.
        resize: A filter of `decode.resize_center_crop`, which belongs into the specification too.
    """
    from PIL import Image

    from imagesets.decode import resize_center_crop

    return OpenedDataset(
        count=len(images),
        resolution=resolution,
        channels=channels,
        decode=lambda i: resize_center_crop(Image.fromarray(images[i]), resolution, channels, resize),  # type: ignore[arg-type]
        describe=lambda i: f"image {i}",
        labels=None if labels is None else labels.astype(np.int64),
        class_names=class_names,
    )
