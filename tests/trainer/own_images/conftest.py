"""Look at small folders of noise: with a cache of the test, and without building EfficientNet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer.own_images import TINY
from trainer.own_images import duplicates
from trainer.own_images.inspection import inspect
from trainer.own_images.report import Inspection


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(duplicates, "_extractor", lambda channels: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def look() -> Callable[..., Inspection]:
    """look(source, *overrides, **options) → an inspection for tiny networks on a CPU, without an estimate."""

    def made(source: object, *overrides: str, **options: Any) -> Inspection:
        return inspect(str(source), [*TINY, *overrides], **{"estimate": False} | options)

    return made


@pytest.fixture
def values(look: Callable[..., Inspection]) -> Callable[..., dict[str, Any]]:
    """values(source, *overrides, **options) → what is chosen, by field."""

    def made(source: object, *overrides: str, **options: Any) -> dict[str, Any]:
        return {choice.field: choice.value for choice in look(source, *overrides, **options).choices}

    return made
