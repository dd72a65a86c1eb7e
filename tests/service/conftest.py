from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.support.polling import wait_until
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture
def serve() -> Iterator[Callable[..., TestClient]]:
    """serve(folder, **settings): the app on these models, its models loaded."""
    with ExitStack() as stack:

        def start(folder: Path | None, **settings: object) -> TestClient:
            app = create_app(Settings(model_dir=folder, **settings))  # type: ignore[arg-type]
            client = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            loading = "models are still being loaded"
            wait_until(lambda: app.state.worker.engine.repository.not_ready != loading)
            return client

        yield start


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """tiny (normal, unconditional), coloured (3 classes, RGB, older), boxed (uniform, older)."""
    write_tiny_generator(tmp_path / "a.onnx", name="tiny", created="2025-01-01T00:00:00+00:00")
    write_tiny_generator(tmp_path / "b.onnx", name="coloured", channels=3, num_classes=3, seed=1)
    write_tiny_generator(tmp_path / "c.onnx", name="boxed", z_distribution="uniform", seed=2)
    return tmp_path
