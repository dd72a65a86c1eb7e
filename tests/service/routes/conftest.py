"""A client of the app with three models."""

from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

Serve = Callable[..., TestClient]


@pytest.fixture
def client(serve: Serve, folder: Path) -> TestClient:
    return serve(folder, max_images=100, max_frames=50, max_keyframes=8, max_body_bytes=100_000)
