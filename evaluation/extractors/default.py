"""The extractor that is used when none is named: FID's Inception, if its weights are on this machine."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from artifacts.files import file_lock
from evaluation.errors import EvaluationError

WEIGHTS_FILE = "pt_inception-2015-12-05-6726825d.pth"
RESIZE = "torch"  # as pytorch-fid


def weights_path() -> Path:
    """Return where Inception's weights are cached: in $ATELIER_WEIGHTS, else in ~/.cache."""
    root = Path(os.environ.get("ATELIER_WEIGHTS") or Path.home() / ".cache/gan-atelier/weights")
    return root.expanduser() / WEIGHTS_FILE


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
            f"extractor inception --resize {RESIZE} -o inception.onnx` (downloads 95 MB), or from a labelled image "
            "set with `evaluation extractor classifier --images SET -o classifier.onnx`"
        )
    if importlib.util.find_spec("torch") is None:
        raise EvaluationError("building Inception's extractor file needs torch: pip install 'gan-atelier[train]'")
    from evaluation.extractors.inception import build_inception

    cache.mkdir(parents=True, exist_ok=True)
    with file_lock(path):
        if not path.is_file():
            build_inception(weights, RESIZE, path)
    return path
