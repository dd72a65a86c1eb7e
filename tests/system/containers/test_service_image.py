"""Claims about the service's image: what is in it, and that it serves as nobody's user on a read-only file system."""

import io
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
from PIL import Image as Picture

from tests.support.containers import BUNDLED, Image, Served, Volume
from tests.support.service.service_process import free_port
from tests.support.tiny_generator import write_tiny_generator

DRAIN_S, GRACE_S = 2, 20


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    tmp_path.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def served(service_image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The image with a generator in a model folder that it may only read."""
    folder = tmp_path_factory.mktemp("models")
    folder.joinpath("digits.onnx").write_bytes(BUNDLED.read_bytes())
    folder.chmod(0o755)
    port = free_port()
    settings = {"PORT": str(port), "ATELIER_DRAIN_S": str(DRAIN_S), "ATELIER_GRACE_S": str(GRACE_S)}
    with service_image.start(volumes=(Volume(folder, "/models"),), environment=settings) as container:
        service = Served(container, port)
        assert service.why_not_ready() == "", container.log
        yield service


def test_service_image_has_labels_and_an_unprivileged_user(service_image: Image) -> None:
    config = service_image.config
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(config["User"]))
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "service.healthcheck"]
    assert "3000/tcp" in config["ExposedPorts"]
    labels = config["Labels"]
    assert labels["org.opencontainers.image.title"] == "gan-atelier/service"
    for name in ("version", "revision", "licenses", "description", "base.name"):
        assert labels[f"org.opencontainers.image.{name}"] not in ("", "0", "unknown"), name


def test_service_image_is_small(service_image: Image, ground: str) -> None:
    engine = service_image.engine
    assert engine.size(service_image.tag) - engine.size(ground) < 700e6


def test_service_image_has_no_torch_or_build_machine_files(service_image: Image) -> None:
    look = (
        "import importlib.util as u; print([m for m in ('torch', 'torchvision', 'pip', 'trainer') if u.find_spec(m)])"
    )
    assert service_image.run("-c", look, entrypoint=("python",)).stdout.strip() == "[]"
    assert not [name for name in service_image.config["Env"] if re.match("(PIP|UV|[A-Z]+_PROXY)", name.upper())]
    settings = service_image.run("-c", "cat /etc/pip.conf /root/.config/pip/pip.conf", entrypoint=("sh",)).stdout
    assert "[global]" not in settings


def test_service_image_generates_the_images_of_its_seeds(served: Served) -> None:
    answer = httpx.post(f"{served.url}/v1/generate", json={"seed": 7, "n": 3}, headers={"Accept": "application/x-npy"})
    images = np.load(io.BytesIO(answer.content))
    assert (images.shape, images.dtype) == ((3, 32, 32, 1), np.uint8)
    one = httpx.get(f"{served.url}/v1/models/bundled-digits/images/8.png")
    np.testing.assert_array_equal(np.asarray(Picture.open(io.BytesIO(one.content))), images[1, :, :, 0])


def test_service_image_interpolates(served: Served) -> None:
    body = {"keyframes": [1, 2, 3], "steps": 5}
    answer = httpx.post(f"{served.url}/v1/interpolate", json=body, headers={"Accept": "image/gif"})
    assert answer.status_code == 200, answer.text
    assert Picture.open(io.BytesIO(answer.content)).n_frames > 5


def test_service_image_health_check_follows_readiness(served: Served, service_image: Image) -> None:
    check = tuple(service_image.config["Healthcheck"]["Test"][1:])
    port = served.url.rpartition(":")[2]
    assert service_image.run(entrypoint=check, environment={"PORT": port}).returncode == 0
    away = service_image.run(entrypoint=check, environment={"PORT": str(free_port())})
    assert (away.returncode, away.stdout.count("not ready: no answer")) == (1, 1)


def test_service_image_writes_only_below_tmp(served: Served, service_image: Image) -> None:
    """The file system was read-only as it served: here is that this is so."""
    done = service_image.run("-c", "touch /here /app/here /opt/venv/here; touch /tmp/here && id -u", entrypoint=("sh",))
    assert done.stdout.count("Read-only file system") == 3
    assert done.stdout.splitlines()[-1] == "10001"
    assert served.answers("/readyz")


def test_service_image_sigterm_loses_no_request(served: Served) -> None:
    """Last of those that share the container."""
    codes: list[int] = []

    def ask() -> None:
        while True:
            try:
                codes.append(httpx.post(f"{served.url}/v1/generate", json={"n": 4}, timeout=30).status_code)
            except httpx.ConnectError:
                return

    asking = threading.Thread(target=ask)
    asking.start()
    while len(codes) < 3:
        time.sleep(0.01)
    code, seconds = served.container.stopped(signal.SIGTERM)
    asking.join(60)
    assert code == 0, served.container.log
    assert DRAIN_S <= seconds < GRACE_S
    assert set(codes) == {200}
    assert "stopping: draining for 2 s" in served.container.log


# What is wrong, and what it says and exits with


def refused(image: Image, **how: object) -> str:
    """The one line of a container that does not start; exit code 2."""
    done = image.run(**how)  # type: ignore[arg-type]
    (line,) = [line for line in done.stdout.splitlines() if not line.startswith(("subprocess exited", "Error: exit"))]
    assert done.returncode == 2, done.stdout
    assert line.startswith("error: ")
    return line


def test_service_image_port_in_use_is_one_line(service_image: Image) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} is taken" in refused(service_image, environment={"PORT": port})


def test_service_image_misspelled_setting_is_one_line(service_image: Image) -> None:
    line = refused(service_image, environment={"ATELIER_WORKER": "2"})
    assert line == "error: ATELIER_WORKER is not a setting; did you mean ATELIER_WORKERS?"


def test_service_image_without_writable_tmp_is_one_line(service_image: Image) -> None:
    line = refused(service_image, temporary=False)
    assert "/tmp is not writable; mount it (--tmpfs /tmp)" in line


def test_service_image_on_another_processor_is_one_line(service_image: Image, tmp_path: Path) -> None:
    """What its builder left there is another machine's."""
    other = tmp_path / "machine"
    other.write_text("s390x\n", encoding="utf-8")
    tmp_path.chmod(0o755)
    other.chmod(0o644)
    line = refused(service_image, volumes=(Volume(other, "/opt/venv/machine"),))
    assert "this image was built for s390x, and this machine is" in line


def test_service_image_empty_folder_is_not_ready(service_image: Image, models: Path) -> None:
    """Mounted at /models, it is named: no reason to serve the bundled digits. One container sees it all."""
    port = free_port()
    with service_image.start(volumes=(Volume(models, "/models"),), environment={"PORT": str(port)}) as container:
        served = Served(container, port)
        served.why_not_ready()

        def result(why: str) -> None:
            container.wait_until(lambda: served.why_not_ready() == why)
            logged = [line for line in container.log.splitlines() if '"level": "error"' in line and why in line]
            assert len(logged) == 1, container.log

        leave = "leave MODEL_DIR unset to serve the bundled digits"
        result(f"the model folder /models holds no generator file (*.onnx); put one there, or {leave}")

        models.joinpath("text.onnx").write_text("hello", encoding="utf-8")
        _write_classifier(models / "classifier.onnx")
        result("no usable generator file (*.onnx) in /models; /v1/models lists the rejected files")
        container.wait_until(lambda: "text.onnx is not served: not an ONNX file" in container.log)
        container.wait_until(lambda: re.search(r"classifier\.onnx is not served: \w+", container.log))

        models.chmod(0o700)
        result("the model folder /models cannot be read by user 10001: Permission denied")

        models.chmod(0o755)
        write_tiny_generator(models / "a.onnx")
        container.wait_until(lambda: served.answers("/readyz"))
        assert container.stopped()[0] == 0


def test_service_image_missing_folder_is_reported(service_image: Image) -> None:
    port = free_port()
    settings = {"PORT": str(port), "ATELIER_MODEL_DIR": "/elsewhere"}
    with service_image.start(environment=settings) as container:
        why = Served(container, port).why_not_ready()
        assert why == "the model folder /elsewhere does not exist; set MODEL_DIR to a folder of generator files"
        assert f"not ready: {why}" in container.log


def _write_classifier(path: Path) -> None:
    """A sound ONNX file of another contract: features of images."""
    from onnx import TensorProto, helper, save

    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 1])
    features = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 8, 8, 1])
    node = helper.make_node("Cast", ["images"], ["features"], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "classifier", [images], [features])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_service_image_by_default_serves_the_bundled_digits(service_image: Image) -> None:
    port = free_port()
    with service_image.start(environment={"PORT": str(port)}) as container:
        assert Served(container, port).why_not_ready() == ""
        assert httpx.get(f"http://127.0.0.1:{port}/v1/models").json()["default"] == "bundled-digits"
        assert container.stopped()[0] == 0
