"""BentoML's own road and the Dockerfile's lead to the same API and the same images."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.ending import end_with_parent
from tests.images.containers import Image, Running, Volume
from tests.images.test_service_image import BUNDLED, Served, free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The tag of a bento of the bundled digits, and the environment whose store it is in."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MODEL_DIR", "ATELIER_MODEL_DIR")}
    environment |= {"BENTOML_HOME": str(tmp_path_factory.mktemp("bentoml")), "BENTOML_DO_NOT_TRACK": "true"}
    words = [sys.executable, "-m", "service", "store", "build", str(BUNDLED)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[-1], environment


@pytest.fixture
def image_served(service_image: Image, tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "models"
    folder.mkdir()
    tmp_path.chmod(0o755)
    folder.joinpath("digits.onnx").write_bytes(BUNDLED.read_bytes())
    port = free_port()
    with service_image.start(volumes=(Volume(folder, "/models"),), environment={"PORT": str(port)}) as container:
        served = Served(container, port)
        assert served.why_not_ready() == ""
        yield served


def same(one: str, other: str) -> None:
    """What the services at these addresses answer is the same, byte for byte."""
    schemas = [httpx.get(f"{url}/openapi.json").json() for url in (one, other)]
    assert schemas[0] == schemas[1]
    assert schemas[0]["info"]["version"] not in ("", "0")
    requests = (
        ("/v1/generate", {"seed": 3, "n": 5}, "application/x-npy"),
        ("/v1/generate", {"seed": 3, "n": 2, "truncation": 0.7}, "image/png"),
        ("/v1/interpolate", {"keyframes": [1, 2], "steps": 4}, "application/x-npy"),
        ("/v1/mix", {"terms": [{"seed": 1, "weight": 1.0}, {"seed": 2, "weight": -0.5}]}, "application/x-npy"),
    )
    for path, body, accept in requests:
        answers = [httpx.post(url + path, json=body, headers={"Accept": accept}) for url in (one, other)]
        assert answers[0].status_code == 200, answers[0].text
        assert answers[0].content == answers[1].content
    models = [httpx.get(f"{url}/v1/models").json()["data"][0] for url in (one, other)]
    assert models[0]["digest"] == models[1]["digest"]
    tags = [httpx.get(f"{url}/v1/models/bundled-digits/images/9.png").headers["ETag"] for url in (one, other)]
    assert tags[0] == tags[1]


def test_a_bento_serves_what_the_image_does(
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
