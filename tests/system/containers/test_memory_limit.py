"""Out of memory, for real: a container whose limit is less than a worker needs says so, and what to do."""

from tests.support.containers import Image
from tests.support.service.service_process import free_port

LIMIT = 220 * 2**20  # bytes; enough for the supervisor, too little for a worker as well


def test_worker_killed_by_the_memory_limit_is_logged(service_image: Image) -> None:
    with service_image.start(environment={"PORT": str(free_port())}, memory=LIMIT) as container:
        container.wait_until(lambda: "was ended by SIGKILL and is replaced" in container.log, seconds=120)
        assert "if the memory limit did that, raise it or lower ATELIER_MAX_LOADED_BYTES" in container.log
