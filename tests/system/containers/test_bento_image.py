"""The image of `bentoml containerize`: its own Dockerfile, built by the engine there is, serves the same."""

import subprocess
import sys

import pytest

from tests.support.containers import Image, Served, same
from tests.support.service.service_process import free_port

# BentoML starts from python:3.11-slim and installs by uv, which has to believe this machine's certificates too
GROUND = """\
ARG BASE
FROM ${BASE}
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install uv && ln -s /opt/uv/bin/uv /usr/local/bin/uv
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
"""
DOCKERFILE = """\
import shutil, sys, bentoml
from bentoml._internal.container import construct_containerfile
with construct_containerfile(bentoml.bentos.get(sys.argv[1]), enable_buildkit=False) as (context, dockerfile):
    shutil.copytree(context, sys.argv[2])
"""


@pytest.fixture(scope="module")
def bento_image(engine, ground: str, bento, tmp_path_factory: pytest.TempPathFactory) -> Image:
    tag, environment = bento
    folder = tmp_path_factory.mktemp("ground")
    (folder / "Dockerfile").write_text(GROUND, encoding="utf-8")
    engine.build(folder / "Dockerfile", "localhost/gan-atelier/bento-base", {"BASE": ground}, folder)
    context = folder / "bento"
    subprocess.run([sys.executable, "-c", DOCKERFILE, tag, str(context)], env=environment, check=True)
    dockerfile = context / "env" / "docker" / "Dockerfile"
    text = dockerfile.read_text(encoding="utf-8")
    assert "FROM python:3.11-slim AS" in text
    dockerfile.write_text(
        text.replace("FROM python:3.11-slim AS", "FROM localhost/gan-atelier/bento-base AS"), encoding="utf-8"
    )
    engine.build(dockerfile, "localhost/gan-atelier/bento", {}, context)
    return Image(engine, "localhost/gan-atelier/bento")


def test_containerize_serves_what_the_image_does(bento_image: Image, image_served: Served) -> None:
    port = free_port()
    environment = {"PORT": str(port), "HOME": "/tmp", "BENTOML_HOME": "/tmp/bentoml", "BENTOML_DO_NOT_TRACK": "true"}
    with bento_image.start("serve", environment=environment, user="1034:1034") as container:
        served = Served(container, port)
        assert served.why_not_ready() == "", container.log
        same(served.url, image_served.url)
        assert container.stopped()[0] == 0
