import socket
from collections.abc import Iterator

import pytest

from tests.support.service.service_process import Server, served
from tests.support.tiny_generator import write_tiny_generator


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real service with one tiny generator, for all that only asks it."""
    folder = tmp_path_factory.mktemp("models")
    write_tiny_generator(folder / "tiny.onnx")
    with served(folder, folder / "log", threads=1) as server:
        yield server


@pytest.fixture
def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
