"""Out of memory, for real: a container whose limit is less than a worker needs says so, and what to do."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.containers import Image
from tests.support.service.service_process import free_port

LIMIT = 220 * 2**20  # enough for the supervisor, too little for a worker beside it
V1 = Path("/sys/fs/cgroup/memory")


@pytest.fixture
def limited() -> Iterator[tuple[str, ...]]:
    """A command that runs another within LIMIT bytes of memory (control groups of version 1)."""
    group = V1 / f"atelier-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(LIMIT), encoding="utf-8")
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    yield "sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "-"
    group.rmdir()


def test_worker_killed_by_the_memory_limit_is_logged(service_image: Image, limited: tuple[str, ...]) -> None:
    if service_image.engine.name != "buildah":
        pytest.skip("docker's and podman's containers are not children of the test")
    with service_image.start(environment={"PORT": str(free_port())}, before=limited) as container:
        container.wait_until(lambda: "was ended by SIGKILL and is replaced" in container.log, seconds=120)
        assert "if the memory limit did that, raise it or lower ATELIER_MAX_LOADED_BYTES" in container.log
