"""BentoML's own road and the Dockerfile's lead to the same API and the same images."""

import subprocess
import sys
from pathlib import Path

from tests.support.containers import Running, Served, same
from tests.support.process_cleanup import end_with_parent
from tests.support.service.service_process import free_port


def test_bento_serves_what_the_image_does(
    bento: tuple[str, dict[str, str]], image_served: Served, tmp_path: Path
) -> None:
    tag, environment = bento
    port = free_port()
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--host", "127.0.0.1", "--port", str(port)]
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=out, stderr=out, preexec_fn=end_with_parent
        )
    try:
        served = Served(Running(process, log), port)
        assert served.why_not_ready() == ""
        same(served.url, image_served.url)
    finally:
        process.terminate()
        process.wait(60)
