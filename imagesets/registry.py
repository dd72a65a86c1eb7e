"""Datasets by name, in a table at the end of the module, and the entry point `load`."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.plugins import PluginError, import_object, is_plugin
from imagesets.cache import MAX_RESOLUTION, content_fingerprint, default_cache_root, load_or_build, with_native_format
from imagesets.types import DatasetSpec, ImageSet, ImageSetError, OpenedDataset

log = logging.getLogger("imagesets")

DIGITS = tuple("0123456789")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_IDENTITY = "CIFAR-10 python version, md5 c58f30108f718f92721af3b95e74349a"
DIGITS_TEST_SEED = 0
DIGITS_TEST_SIZE = 297
CELEBA_SPLITS = {"train": {"0"}, "valid": {"1"}, "test": {"2"}, "all": {"0", "1", "2"}}


@dataclass(frozen=True)
class SourceInfo:
    """A named dataset.

    Attributes:
        name: What `data.source` and the command lines call it.
        splits: Names of the splits.
        resolution: Default side in pixels.
        channels: Default channels, 1 or 3.
        description: One line for help texts and tables.
        make_spec: Find the files of (source, split, resolution, channels, data_root); raises ImageSetError, in one
            line, if they are missing.
    """

    name: str
    splits: tuple[str, ...]
    resolution: int | None
    channels: int | None
    description: str
    make_spec: Callable[[str, str, int, int, Path], DatasetSpec] | None = field(default=None, repr=False)


def load(
    name: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
    progress: bool = True,
) -> ImageSet:
    """Load the images of a dataset. They are decoded and resized once, into the cache.

    Args:
        name: `SOURCE` or `SOURCE@SPLIT`: a named dataset (without a split, its train split), `folder:PATH` for a folder
            or zip of images (without a split, all of them), or `package.module:FUNCTION`, a function of your own that
            returns images uint8 [N, H, W] or [N, H, W, C], or a tuple of images, labels [N] and class names.
        resolution: Side in pixels; None is the source's own.
        channels: 1 (gray) or 3 (RGB); None is the source's own.
        data_root: Folder of the datasets that are downloaded.
        cache_root: Folder of the cache; by default $ATELIER_CACHE, else ~/.cache/gan-atelier/image-sets.
        progress: Show a progress bar, and print on stderr in one line what a folder or zip contains and what was left
            out; otherwise that line is logged.

    Returns:
        The image set, memory-mapped.

    Raises:
        ImageSetError: In one line, for anything that the user can correct.
    """
    if resolution is not None and not 1 <= resolution <= MAX_RESOLUTION:
        raise ImageSetError(f"resolution {resolution} is not between 1 and {MAX_RESOLUTION}")
    if channels not in (None, 1, 3):
        raise ImageSetError(f"channels {channels} is neither 1 (gray) nor 3 (RGB)")
    data_root, root = _data_paths(data_root, cache_root)
    spec = _dataset_spec(name, resolution, channels, data_root)
    found = load_or_build(spec, f"{spec.source}@{spec.split}", root, progress)
    if spec.summary is None:
        return found
    line, lost = spec.summary(found.info)
    if progress:
        _show(line)
    else:
        log.log(logging.WARNING if lost else logging.INFO, "%s", line)
    return replace(found, info={**found.info, "contents": line})


def native_channels(
    name: str,
    *,
    resolution: int | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
) -> int:
    """Return 1 if the images of a source are gray, else 3; for image files by their headers.

    With the `resolution` that the images will be loaded in, the answer is looked up in the cache from then on.

    Raises:
        ImageSetError: If there is no such source.
    """
    data_root, root = _data_paths(data_root, cache_root)
    if not name.startswith("folder:") and not is_plugin(name.partition("@")[0]):
        return _find_source(name)[0].channels or 3
    spec = _dataset_spec(name, resolution, None, data_root)
    return with_native_format(spec, f"{spec.source}@{spec.split}", root).channels or 3


def _data_paths(data_root: Path | str, cache_root: Path | str | None) -> tuple[Path, Path]:
    try:
        root = Path(cache_root).expanduser() if cache_root is not None else default_cache_root()
        return Path(data_root).expanduser(), root
    except RuntimeError as error:
        raise ImageSetError(f"there is no home folder for ~ ({error}): set HOME, or write the path out") from error


@lru_cache(maxsize=256)
def _show(line: str) -> None:
    """Print a line on stderr once: one command may load a set several times."""
    print(line, file=sys.stderr)


def _dataset_spec(name: str, resolution: int | None, channels: int | None, data_root: Path) -> DatasetSpec:
    if name.startswith("folder:"):
        from imagesets.folder import folder_spec

        return folder_spec(name.removeprefix("folder:"), resolution, channels)
    if is_plugin(name.partition("@")[0]):
        return _plugin_spec(name, resolution, channels)
    info, split = _find_source(name)
    resolution, channels = resolution or info.resolution, channels or info.channels
    assert info.make_spec
    assert resolution is not None  # a folder's alone is not known before
    assert channels is not None
    return info.make_spec(info.name, split, resolution, channels, data_root)


def _plugin_spec(name: str, resolution: int | None, channels: int | None) -> DatasetSpec:
    """Call a user's own function `package.module:FUNCTION` with the split, and describe the images it returns."""
    source, _, split = name.partition("@")
    split = split or "train"
    try:
        returned = import_object(source)(split)
    except PluginError as error:
        raise ImageSetError(str(error)) from error
    except Exception as error:  # whatever the user's function raises
        raise ImageSetError(f"{source}({split!r}) failed: {type(error).__name__}: {error}") from error
    images, labels, class_names = returned if isinstance(returned, tuple) else (returned, None, ())
    images, labels = np.asarray(images), None if labels is None else np.asarray(labels)
    if images.dtype != np.uint8 or not (images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))):
        raise ImageSetError(
            f"{source}({split!r}) returned {images.dtype} {list(images.shape)}; return uint8 [N, H, W] or [N, H, W, C]"
        )
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    class_names = tuple(map(str, class_names))
    if labels is not None and (labels.shape != images.shape[:1] or len(class_names) <= labels.max(initial=-1)):
        raise ImageSetError(f"{source}({split!r}): return one label per image and a name for every label")
    resolution, channels = resolution or min(images.shape[1:3]), channels or (1 if images.ndim == 3 else 3)
    content = content_fingerprint(images, labels) + "".join(f" {name}" for name in class_names)

    def open_dataset() -> OpenedDataset:
        return open_array(images, labels, class_names, resolution, channels, "pil-bilinear")

    return DatasetSpec(source, split, "center-square", "pil-bilinear", resolution, channels, content, open_dataset)


def _find_source(name: str) -> tuple[SourceInfo, str]:
    """Return a named source and the split, or raise ImageSetError for one that does not exist."""
    source, _, split = name.partition("@")
    split = split or "train"
    known = {info.name: info for info in _SOURCES if info.make_spec}
    if source not in known:
        close = difflib.get_close_matches(source, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)} and folder:PATH"
        raise ImageSetError(f"there is no image source {source!r}; {hint}")
    if split not in known[source].splits:
        raise ImageSetError(f"{source} has no split {split!r}; it has {', '.join(known[source].splits)}")
    return known[source], split


def _digits(source: str, split: str, resolution: int, channels: int, data_root: Path) -> DatasetSpec:  # noqa: ARG001 (one signature for all)
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


def _mnist(source: str, split: str, resolution: int, channels: int, data_root: Path) -> DatasetSpec:
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


def _cifar10(source: str, split: str, resolution: int, channels: int, data_root: Path) -> DatasetSpec:
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


def _celeba(source: str, split: str, resolution: int, channels: int, data_root: Path) -> DatasetSpec:
    """CelebA's aligned 178x218 images, the centre 178x178, then resized (as the DCGAN tutorials do)."""
    from imagesets.folder import RESIZE, open_image_files
    from imagesets.image_files import files_signature
    from imagesets.listing import members_of

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
    resolution: int,
    channels: int,
    resize: str,
) -> OpenedDataset:
    """Open an array in memory as a dataset.

    Args:
        images: uint8 [N, h, w] or [N, h, w, 3].
        labels: [N], or None.
        class_names: Names of the classes.
        resolution: Side in pixels to resize to.
        channels: 1 or 3.
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


_BOTH = ("train", "test")
_SOURCES = (
    SourceInfo("digits", _BOTH, 32, 1, "scikit-learn's 8x8 digits enlarged; no download; 1,500/297", _digits),
    SourceInfo("mnist", _BOTH, 28, 1, "handwritten digits; 60,000/10,000", _mnist),
    SourceInfo("fashion-mnist", _BOTH, 28, 1, "articles of clothing; 60,000/10,000", _mnist),
    SourceInfo("cifar10", _BOTH, 32, 3, "photographs of ten classes; 50,000/10,000", _cifar10),
    SourceInfo("celeba", tuple(CELEBA_SPLITS), 178, 3, "aligned faces; 162,770/19,867/19,962", _celeba),
    SourceInfo("folder:PATH", _BOTH, None, None, "your own folder or zip of images"),
    SourceInfo("package.module:FUNCTION", _BOTH, None, None, "a function of your own that returns arrays"),
)


def list_sources() -> tuple[SourceInfo, ...]:
    """Return every named dataset, for help texts and tables."""
    return _SOURCES
