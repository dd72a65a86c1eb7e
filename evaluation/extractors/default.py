"""The extractor that is used when none is named: FID's Inception, if its weights are on this machine."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from artifacts.files import file_lock
from evaluation.errors import EvaluationError
from evaluation.extractors.extractor import weights_path

RESIZE = "torch"  # as pytorch-fid


def default_extractor(cache: Path) -> Path:
    """Return Inception's extractor file, built once in the folder `cache` from the cached weights.

    Raises:
        EvaluationError: Without weights, or torch to build it; the message names the commands that make an extractor.
    """
    path = cache / f"inception-{RESIZE}.onnx"
    if path.is_file():
        return path
    weights = weights_path()
    if not weights.is_file():
        raise EvaluationError(
            f"no --extractor is given, and Inception's weights are not at {weights}; build one with `evaluation "
            f"extractor inception --resize {RESIZE} -o inception.onnx` (downloads 95 MB), or from a labeled image "
            "set with `evaluation extractor classifier --images SET -o classifier.onnx`"
        )
    require_torch()
    from evaluation.extractors.inception import build_inception

    cache.mkdir(parents=True, exist_ok=True)
    with file_lock(path.with_suffix(".lock")):
        if not path.is_file():
            build_inception(weights, RESIZE, path)
    return path


def require_torch() -> None:
    """Raise EvaluationError unless the packages that build an extractor are installed."""
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise EvaluationError(f"building an extractor needs {package}: pip install '.[train]' in the checkout")
