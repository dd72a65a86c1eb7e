"""Load image sets into a cache of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagesets import ImageSet, load_image_set


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., ImageSet]:
    """Return `load_image_set` with a cache in the temporary folder."""

    def loaded(name: str, **options: object) -> ImageSet:
        return load_image_set(name, cache_root=tmp_path / "cache", progress=False, **options)  # type: ignore[arg-type]

    return loaded
