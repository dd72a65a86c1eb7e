"""The sources by name, in a table at the end, and the one entry point `load_image_set`."""

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

from imagesets.array_file import array_items
from imagesets.cache import MAX_RESOLUTION, default_cache_root, load_or_build, with_native_format
from imagesets.types import ImageSet, ImageSetError, Items, Recipe

log = logging.getLogger("imagesets")

DIGITS = tuple("0123456789")
FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_IDENTITY = "CIFAR-10 python version, md5 c58f30108f718f92721af3b95e74349a"
DIGITS_TEST_SEED = 0
DIGITS_TEST_SIZE = 297
CELEBA_SPLITS = {"train": {"0"}, "valid": {"1"}, "test": {"2"}, "all": {"0", "1", "2"}}


@dataclass(frozen=True)
class SourceInfo:
    """A source as people see it. `resolution` and `channels` are what it has when none are asked for.

    `recipe(source, split, resolution, channels, data_root)` finds its files and says what decides the pixels; it
    raises ImageSetError, in one line, for files that are not there.
    """

    name: str
    splits: tuple[str, ...]
    resolution: int | None
    channels: int | None
    description: str
    recipe: Callable[[str, str, int, int, Path], Recipe] | None = field(default=None, repr=False)


def load_image_set(
    name: str,
    *,
    resolution: int | None = None,
    channels: int | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
    progress: bool = True,
) -> ImageSet:
    """The images of `SOURCE` or `SOURCE@SPLIT` as a memory-mapped uint8 array [N, H, W, C], H = W.

    `resolution` is the side in pixels and `channels` 1 (gray) or 3 (RGB); None is the source's own. A
    named source without a split is its train split; `folder:PATH` without one is everything. What a folder or zip holds
    is printed on stderr in one line, with what was left out; without `progress` it is logged. Decoding
    and resizing happen once, into `cache_root` ($ATELIER_CACHE, else ~/.cache/gan-atelier/image-sets).
    Raises ImageSetError, in one line, for anything the user can put right.
    """
    if resolution is not None and not 1 <= resolution <= MAX_RESOLUTION:
        raise ImageSetError(f"resolution {resolution} is not between 1 and {MAX_RESOLUTION}")
    if channels not in (None, 1, 3):
        raise ImageSetError(f"channels {channels} is neither 1 (gray) nor 3 (RGB)")
    data_root, root = _places(data_root, cache_root)
    recipe = _recipe(name, resolution, channels, data_root)
    found = load_or_build(recipe, f"{recipe.source}@{recipe.split}", root, progress)
    if recipe.summary is None:
        return found
    line, lost = recipe.summary(found.info)
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
    data_root, root = _places(data_root, cache_root)
    if not name.startswith("folder:"):
        return _named(name)[0].channels or 3
    recipe = _recipe(name, resolution, None, data_root)
    return with_native_format(recipe, f"{recipe.source}@{recipe.split}", root).channels or 3


def _places(data_root: Path | str, cache_root: Path | str | None) -> tuple[Path, Path]:
    try:
        root = Path(cache_root).expanduser() if cache_root is not None else default_cache_root()
        return Path(data_root).expanduser(), root
    except RuntimeError as error:
        raise ImageSetError(f"there is no home folder for ~ ({error}): set HOME, or write the path out") from error


@lru_cache(maxsize=256)
def _show(line: str) -> None:
    """Print a line on stderr once: one command may load a set several times."""
    print(line, file=sys.stderr)


def _recipe(name: str, resolution: int | None, channels: int | None, data_root: Path) -> Recipe:
    if name.startswith("folder:"):
        from imagesets.folder import folder_recipe

        return folder_recipe(name.removeprefix("folder:"), resolution, channels)
    info, split = _named(name)
    resolution, channels = resolution or info.resolution, channels or info.channels
    assert info.recipe
    assert resolution is not None  # a folder's alone is not known before
    assert channels is not None
    return info.recipe(info.name, split, resolution, channels, data_root)


def _named(name: str) -> tuple[SourceInfo, str]:
    """Return a named source and the split, or raise ImageSetError for one that does not exist."""
    source, _, split = name.partition("@")
    split = split or "train"
    known = {info.name: info for info in _SOURCES if info.recipe}
    if source not in known:
        close = difflib.get_close_matches(source, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)} and folder:PATH"
        raise ImageSetError(f"there is no image source {source!r}; {hint}")
    if split not in known[source].splits:
        raise ImageSetError(f"{source} has no split {split!r}; it has {', '.join(known[source].splits)}")
    return known[source], split


def _digits(source: str, split: str, resolution: int, channels: int, data_root: Path) -> Recipe:
    """load_digits (8x8, values 0 to 16), scaled to 0..255 and enlarged by PIL's bicubic.

    The split is stratified and fixed: of each class, the share nearest 297/1797 in the order of a
    Philox permutation, so it depends on no library's shuffling.
    """

    def open_items() -> Items:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImageSetError("digits needs scikit-learn: pip install scikit-learn") from error
        loaded = load_digits()
        pixels = np.round(loaded.images * (255 / 16)).astype(np.uint8)
        labels = loaded.target.astype(np.int64)
        chosen = np.flatnonzero(digits_test_mask(labels) == (split == "test"))
        return array_items(pixels[chosen], labels[chosen], DIGITS, resolution, channels, "pil-bicubic")

    identity = f"sklearn load_digits, stratified split {DIGITS_TEST_SEED} of {DIGITS_TEST_SIZE}"
    return Recipe(source, split, "none", "pil-bicubic", resolution, channels, identity, open_items)


def digits_test_mask(labels: np.ndarray) -> np.ndarray:
    """bool [N], True for the test images: stratified by largest remainder, then by Philox draws."""
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


def _mnist(source: str, split: str, resolution: int, channels: int, data_root: Path) -> Recipe:
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

    def open_items() -> Items:
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
        return array_items(images, labels, names, resolution, channels, "pil-bilinear")

    return Recipe(source, split, "none", "pil-bilinear", resolution, channels, " ".join(parts), open_items)


def _cifar10(source: str, split: str, resolution: int, channels: int, data_root: Path) -> Recipe:
    """torchvision's CIFAR-10, whose pickled batches it checks against its md5 sums before reading them."""

    def open_items() -> Items:
        absent = (
            f"cifar10 is not here: looked for cifar-10-batches-py in {data_root}; "
            "put cifar-10-python.tar.gz there, or use folder:PATH for images you have"
        )
        loaded = _download("CIFAR10", absent, data_root, train=split == "train")
        labels = np.asarray(loaded.targets)
        return array_items(np.asarray(loaded.data), labels, CIFAR10, resolution, channels, "pil-bilinear")

    return Recipe(source, split, "none", "pil-bilinear", resolution, channels, CIFAR10_IDENTITY, open_items)


def _celeba(source: str, split: str, resolution: int, channels: int, data_root: Path) -> Recipe:
    """CelebA's aligned 178x218 images, the centre 178x178, then resized (as the DCGAN tutorials do)."""
    from imagesets.files import signature_of
    from imagesets.folder import RESIZE, member_items
    from imagesets.listing import members_of

    base = data_root / "celeba"
    folder, packed, partition = (
        base / "img_align_celeba",
        base / "img_align_celeba.zip",
        base / "list_eval_partition.txt",
    )
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
    return Recipe(
        source,
        split,
        "centre-178",
        RESIZE,
        resolution,
        channels,
        signature_of(members),
        lambda: member_items(members, resolution, channels, str(base)),
    )


def _download(dataset: str, absent: str, data_root: Path, **options: Any) -> Any:
    """torchvision's own dataset, downloaded into data_root if absent. $ATELIER_OFFLINE forbids that."""
    absent = f"{absent}, or say with --data-root or $DATA_ROOT where it lies"
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


_BOTH = ("train", "test")
_SOURCES = (
    SourceInfo("digits", _BOTH, 32, 1, "scikit-learn's 8x8 digits enlarged; no download; 1,500/297", _digits),
    SourceInfo("mnist", _BOTH, 28, 1, "handwritten digits; 60,000/10,000", _mnist),
    SourceInfo("fashion-mnist", _BOTH, 28, 1, "articles of clothing; 60,000/10,000", _mnist),
    SourceInfo("cifar10", _BOTH, 32, 3, "photographs of ten classes; 50,000/10,000", _cifar10),
    SourceInfo("celeba", tuple(CELEBA_SPLITS), 178, 3, "aligned faces; 162,770/19,867/19,962", _celeba),
    SourceInfo("folder:PATH", _BOTH, None, None, "your own folder or zip of images"),
)


def list_sources() -> tuple[SourceInfo, ...]:
    """Every source there is, for help texts and tables."""
    return _SOURCES
