"""Datasets by name, in a table at the end of the module, and the entry point `load`."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from artifacts.images.resolution import Resolution, height_and_width, parse_resolution, resolution_of
from artifacts.plugins import PluginError, import_object, is_plugin
from imagesets import builtin_datasets
from imagesets.builtin_datasets import CELEBA_SPLITS, open_array
from imagesets.cache import MAX_RESOLUTION, content_fingerprint, default_cache_root, load_or_build, with_native_format
from imagesets.types import DatasetSpec, ImageSet, ImageSetError, OpenedDataset

log = logging.getLogger("imagesets")

ResolutionLike = Resolution | tuple[int, int] | list[int]  # what `load` takes

# Extensions of files that are image sets under their bare path. An array file may also hold something else.
ARCHIVES = (".zip", ".tar", ".parquet")


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
    resolution: Resolution | None
    channels: int | None
    description: str
    make_spec: Callable[[str, str, Resolution, int, Path], DatasetSpec] | None = field(default=None, repr=False)


def load(
    name: str | os.PathLike[str],
    *,
    resolution: ResolutionLike | None = None,
    channels: int | None = None,
    scale_jpegs: bool = False,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
    progress: bool = True,
) -> ImageSet:
    """Load the images of a dataset. They are decoded and resized once, into the cache.

    Args:
        name: `SOURCE` or `SOURCE@SPLIT`: a named dataset (without a split, its train split), `folder:PATH` for a folder
            of images or an archive of them (.zip, .tar, .parquet, .npz, .npy; without a split, all of them), or
            `package.module:FUNCTION`, a function of your own that returns images uint8 [N, H, W] or [N, H, W, C], or a
            tuple of images, labels [N] and class names. The path of a folder or archive may also be given without
            `folder:`, if no dataset has that name. `folder:A+folder:B` is both as one set.
        resolution: Side in pixels, or (height, width) or "64x96" of rectangles; None is the source's own. Images are
            cropped to its aspect ratio at their center, then resized.
        channels: 1 (gray), 3 (RGB) or 4 (RGBA); None is the source's own, where transparent images are drawn over white
            as RGB. With 4, images without transparency are opaque.
        scale_jpegs: Decode the JPEGs of folders and archives at 1/2, 1/4 or 1/8 of their size where that is at least
            four times the resolution. Photos of 12 megapixels load four times as fast, and pixels differ by about one
            level of 255, so it is another image set with its own fingerprint.
        data_root: Folder of the datasets that are downloaded.
        cache_root: Folder of the cache; by default $ATELIER_CACHE, else ~/.cache/gan-atelier/image-sets.
        progress: Show a progress bar, and print on stderr in one line what a folder or archive contains and what was
            left out; otherwise that line is logged.

    Returns:
        The image set, memory-mapped.

    Raises:
        ImageSetError: In one line, for anything that the user can correct.
    """
    name, size, channels = full_name(name), _checked_resolution(resolution), _checked_channels(channels)
    data_root, root = _data_paths(data_root, cache_root)
    spec = dataset_spec(name, size, channels, data_root, scale_jpegs=scale_jpegs)
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
    name: str | os.PathLike[str],
    *,
    resolution: ResolutionLike | None = None,
    data_root: Path | str = "data",
    cache_root: Path | str | None = None,
) -> int:
    """Return 1 if the images of a source are gray, else 3; for image files by their headers.

    With the `resolution` that the images will be loaded in, the answer is looked up in the cache from then on.

    Raises:
        ImageSetError: If there is no such source.
    """
    name, size = full_name(name), _checked_resolution(resolution)
    data_root, root = _data_paths(data_root, cache_root)
    is_named = not name.startswith("folder:") and not is_plugin(name.partition("@")[0])
    if is_named and len(union_parts(name)) == 1:
        return _find_source(name)[0].channels or 3
    spec = dataset_spec(name, size, None, data_root)
    return with_native_format(spec, f"{spec.source}@{spec.split}", root).channels or 3


def full_name(name: str | os.PathLike[str]) -> str:
    """Return the name of an image set, with `folder:` before the path of an existing file or folder.

    Each part of a union gets it. The name of a dataset is that dataset even if a folder has the same name.

    Raises:
        ImageSetError: If it is neither a text nor a path.
    """
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        shown = repr(text)[:80] if text is None or isinstance(text, (bool, int, float, bytes)) else type(text).__name__
        raise ImageSetError(
            f"an image set is named by a text or a path, such as 'digits' or 'folder:photos', not {shown}"
        )
    if len(parts := union_parts(text)) > 1:
        return "+".join(map(full_name, parts))
    source = text.partition("@")[0]
    if text.startswith("folder:") or is_plugin(source) or source in _named_sources():
        return text
    return f"folder:{text}" if _exists(text) or _exists(text.rpartition("@")[0]) else text


def union_parts(name: str) -> tuple[str, ...]:
    """Return the parts of a union such as `folder:A+folder:B`, or the name alone.

    A part begins after each `+` that `folder:` or the name of a dataset follows. An existing path is not a union.
    """
    path = name.removeprefix("folder:")
    before, _, split = path.rpartition("@")
    if "+" not in name or _exists(path) or ("+" not in split and _exists(before)):
        return (name,)
    from imagesets.formats.union import split_union

    return split_union(name, _named_sources().__contains__)


def split_of_union(name: str) -> tuple[str, str | None]:
    """Return the name of a union without its split, and the split; None where its parts have no common one.

    Raises:
        ImageSetError: If a part does not exist.
    """
    from imagesets.formats.union import union_and_split

    return union_and_split(union_parts(name))


def _exists(path: str) -> bool:
    try:
        return bool(path) and Path(path).expanduser().exists()
    except (OSError, RuntimeError, ValueError):  # a name too long, ~ without a home, a null character
        return False


def _checked_resolution(resolution: Any) -> Resolution | None:
    if resolution is None:
        return None
    try:
        found = parse_resolution(resolution)
    except ValueError as error:
        raise ImageSetError(str(error)) from None
    if not all(1 <= side <= MAX_RESOLUTION for side in height_and_width(found)):
        raise ImageSetError(f"resolution {found} is not between 1 and {MAX_RESOLUTION}")
    return found


def _checked_channels(channels: Any) -> int | None:
    if channels is None:
        return None
    if not isinstance(channels, (int, np.integer)) or isinstance(channels, bool) or channels not in (1, 3, 4):
        raise ImageSetError(f"channels {str(channels)[:80]} is neither 1 (gray), 3 (RGB) nor 4 (RGBA)")
    return int(channels)


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


def dataset_spec(
    name: str, resolution: Resolution | None, channels: int | None, data_root: Path, *, scale_jpegs: bool = False
) -> DatasetSpec:
    """Return the specification of an image set; the arguments are those of `load`, the name a full one.

    Raises:
        ImageSetError: If there is no such source.
    """
    if len(parts := union_parts(name)) > 1:
        from imagesets.formats.union import union_spec, with_common_split

        # A reference file may name a union, and whoever loads it runs no code that a file names.
        if function := next((part for part in parts if is_plugin(part.partition("@")[0])), None):
            raise ImageSetError(f"{function} cannot be a part of a union; let a function return all of the images")

        def make_spec(part: str, resolution: Resolution | None, channels: int | None) -> DatasetSpec:
            return dataset_spec(part, resolution, channels, data_root, scale_jpegs=scale_jpegs)

        return union_spec(with_common_split(parts), resolution, channels, make_spec)
    if name.startswith("folder:"):
        from imagesets.folder import RESIZE, SCALED_RESIZE, folder_spec

        resize = SCALED_RESIZE if scale_jpegs else RESIZE
        return folder_spec(name.removeprefix("folder:"), resolution, channels, resize)
    if is_plugin(name.partition("@")[0]):
        return _plugin_spec(name, resolution, channels)
    info, split = _find_source(name)
    resolution, channels = resolution or info.resolution, channels or info.channels
    assert info.make_spec
    assert resolution is not None  # a folder's alone is not known before
    assert channels is not None
    return info.make_spec(info.name, split, resolution, channels, data_root)


def _plugin_spec(name: str, resolution: Resolution | None, channels: int | None) -> DatasetSpec:
    """Call a user's function `package.module:FUNCTION` with the split, and describe the images it returns."""
    source, _, split = name.partition("@")
    split = split or "train"
    try:
        returned = import_object(source)(split)
    except PluginError as error:
        raise ImageSetError(str(error)) from error
    except Exception as error:  # whatever the user's function raises
        raise ImageSetError(f"{source}({split!r}) failed: {type(error).__name__}: {error}") from error
    images, labels, class_names = _check_returned(f"{source}({split!r})", returned)
    resolution = resolution or resolution_of(*images.shape[1:3])
    channels = channels or (1 if images.ndim == 3 else 3)
    content = content_fingerprint(images, labels) + "".join(f" {name}" for name in class_names)

    def open_dataset() -> OpenedDataset:
        return open_array(images, labels, class_names, resolution, channels, "pil-bilinear")

    return DatasetSpec(source, split, "center-square", "pil-bilinear", resolution, channels, content, open_dataset)


def _check_returned(call: str, returned: Any) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return images [N, H, W] or [N, H, W, 3 or 4], labels and class names; raise ImageSetError for others."""

    def error(found: str) -> ImageSetError:
        return ImageSetError(
            f"{call} returned {found}; return uint8 [N, H, W] or [N, H, W, C], where C is 1, 3 or 4, or a tuple of "
            "such images, integer labels [N] and class names"
        )

    parts = returned if isinstance(returned, tuple) else (returned, None, ())
    if len(parts) != 3:
        raise error(f"a tuple of {len(parts)}")
    try:
        images, labels = np.asarray(parts[0]), None if parts[1] is None else np.asarray(parts[1])
    except Exception as reason:  # ragged lists, or whatever an array type of the user raises
        raise error(f"what is not an array ({type(reason).__name__}: {reason})") from reason
    is_image_shape = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
    if images.dtype != np.uint8 or not is_image_shape or 0 in images.shape:
        found = f"{images.dtype} {list(images.shape)}" if images.ndim else type(parts[0]).__name__
        raise error(found)
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    names = () if parts[2] is None else parts[2]
    if isinstance(names, (str, bytes)) or not isinstance(names, Iterable):
        raise error(f"{type(names).__name__} as class names")
    class_names = tuple(map(str, names))
    if labels is None:
        return images, None, class_names
    if labels.dtype.kind not in "iu":
        raise error(f"labels {labels.dtype} {list(labels.shape)}")
    advice = f"{call}: return one label per image and a name for every label"
    if labels.shape != images.shape[:1]:
        raise ImageSetError(f"{advice}; there are {len(images):,} images and labels {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise ImageSetError(
            f"{advice}, counted from 0; labels are {labels.min()} to {labels.max()}, "
            f"number of names: {len(class_names):,}"
        )
    return images, labels, class_names


def _named_sources() -> dict[str, SourceInfo]:
    return {info.name: info for info in _SOURCES if info.make_spec}


def _find_source(name: str) -> tuple[SourceInfo, str]:
    """Return a named source and the split, or raise ImageSetError for one that does not exist."""
    source, _, split = name.partition("@")
    split = split or "train"
    known = _named_sources()
    if source not in known:
        close = difflib.get_close_matches(source, known, 1)
        hint = f"did you mean {close[0]}?" if close else f"datasets: {', '.join(info.name for info in _SOURCES)}"
        raise ImageSetError(f"there is no file, folder or dataset {source!r}; {hint}")
    if split not in known[source].splits:
        raise ImageSetError(f"{source} has no split {split!r}; it has {', '.join(known[source].splits)}")
    return known[source], split


_BOTH = ("train", "test")
_SOURCES = (
    SourceInfo(
        "digits", _BOTH, 32, 1, "scikit-learn's 8x8 digits enlarged; no download; 1,500/297", builtin_datasets.digits
    ),
    SourceInfo("mnist", _BOTH, 28, 1, "handwritten digits; 60,000/10,000", builtin_datasets.mnist),
    SourceInfo("fashion-mnist", _BOTH, 28, 1, "articles of clothing; 60,000/10,000", builtin_datasets.mnist),
    SourceInfo(
        "stacked-mnist", _BOTH, 28, 3, "three MNIST digits as RGB; 60,000/26,000", builtin_datasets.stacked_mnist
    ),
    SourceInfo("cifar10", _BOTH, 32, 3, "photographs of ten classes; 50,000/10,000", builtin_datasets.cifar10),
    SourceInfo("celeba", tuple(CELEBA_SPLITS), 178, 3, "aligned faces; 162,770/19,867/19,962", builtin_datasets.celeba),
    SourceInfo(
        "folder:PATH", _BOTH, None, None, "your own folder, zip, tar, Parquet or npz of images; A+B joins several"
    ),
    SourceInfo("package.module:FUNCTION", _BOTH, None, None, "a function of your own that returns arrays"),
)


def list_sources() -> tuple[SourceInfo, ...]:
    """Return every named dataset, for help texts and tables."""
    return _SOURCES
