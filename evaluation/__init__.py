"""Score any source of images against real ones. PyTorch is needed only to build an extractor or to score a checkpoint.

A checkpoint is scored through `trainer export` in a process.

>>> scores = evaluation.score(images, "cifar10@test", ["fid", "kid"], extractor="inception.onnx")  # doctest: +SKIP
>>> evaluation.fid("generated/", "photos/", extractor="inception.onnx")  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evaluation.api import Score, Scores, fid, score
    from evaluation.errors import EvaluationError

__all__ = ["EvaluationError", "Score", "Scores", "__version__", "fid", "score"]

# ONNX Runtime's wheels for Linux send telemetry unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__: str


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that `evaluation --help` needs neither numpy nor ONNX Runtime."""
    if name == "__version__":
        from artifacts import version

        return version()
    if name == "EvaluationError":
        from evaluation.errors import EvaluationError

        return EvaluationError
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from evaluation import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
