"""Claims about the trainer's image, and the whole line of containers: trained, served, scored."""

import json
import re
import signal
from pathlib import Path

import httpx
import onnx
import pytest

from tests.support.containers import SCORE, Given, Image, Served, Volume, refused, writable
from tests.support.service.service_process import free_port

# small networks on one thread: what is trained is not the claim here
SMALL = """
    model.g_widths=[16,16,16] model.d_widths=[16,16,16] optim.batch_size=32 run.threads=1 run.tick_kimg=0.5
"""
TRAIN = ("train", "--preset", "digits-dcgan", *(word for field in SMALL.split() for word in ("--set", field)))
SHORT = (*TRAIN, "--set", "run.total_kimg=1")
LONG = (*TRAIN, "--set", "run.total_kimg=10000")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def trainer_image(built) -> Image:
    return built("trainer")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    for name in ("runs", "models", "reports", "cache"):
        writable(folder / name)
    return folder


def volumes(workspace: Path, *but: str) -> tuple[Volume, ...]:
    return tuple(Volume(workspace / n, f"/{n}", writable=True) for n in ("runs", "models", "cache") if n not in but)


def test_trainer_image_has_an_unprivileged_user(trainer_image: Image) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(trainer_image.config["User"]))
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in trainer_image.config["Env"]


def test_trainer_image_generator_is_served_and_scored(
    trainer_image: Image,
    service_image: Image,
    evaluation_image: Image,
    workspace: Path,
    given: Given,
) -> None:
    done = trainer_image.run(*SHORT, "--export", "/models", volumes=volumes(workspace), environment=ONE_THREAD)
    assert done.returncode == 0, done.stdout
    (path,) = (workspace / "models").glob("*.onnx")
    assert path.stat().st_uid == 10001
    properties = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert properties["dataset"] == "digits"

    port = free_port()
    models = Volume(workspace / "models", "/models")
    with service_image.start(volumes=(models,), environment={"PORT": str(port)}) as container:
        assert Served(container, port).why_not_ready() == ""
        url = f"http://127.0.0.1:{port}"
        (model,) = httpx.get(f"{url}/v1/models").json()["data"]
        assert model["digest"] == properties["digest"]
        words = ("score", url, *SCORE, "--num-images", "200", "--output", "/reports/trained")
        done = evaluation_image.run(*words, volumes=given.volumes(workspace / "reports"))
        assert done.returncode == 0, done.stdout
        code, _ = container.stopped()
        assert code == 0
    assert properties["digest"] in json.dumps(
        json.loads((workspace / "reports" / "trained" / "report.json").read_text(encoding="utf-8"))
    )


def test_trainer_image_stopped_saves_a_checkpoint(trainer_image: Image, workspace: Path, tmp_path: Path) -> None:
    runs = Volume(writable(tmp_path / "runs"), "/runs", writable=True)
    with trainer_image.start(*LONG, volumes=(runs, *volumes(workspace, "runs")), environment=ONE_THREAD) as job:
        job.wait_until(lambda: list(runs.here.glob("*/metrics.jsonl")), seconds=300)
        code, seconds = job.stopped(signal.SIGTERM)
        assert "resume" in job.log
    assert code in (0, 130), job.log
    assert seconds < 30
    assert list(runs.here.glob("*/checkpoint-*.pt"))


@pytest.mark.parametrize("name", ["runs", "models", "cache"])
def test_trainer_image_without_a_volume_is_one_line(trainer_image: Image, workspace: Path, name: str) -> None:
    """What lies at its place in the image is part of the read-only file system."""
    line = refused(trainer_image, *SHORT, "--export", "/models", volumes=volumes(workspace, name))
    assert name in line


def test_trainer_image_without_its_data_is_one_line(trainer_image: Image, workspace: Path) -> None:
    words = ("-c", "ATELIER_OFFLINE=1 exec trainer train --preset mnist-dcgan")
    done = trainer_image.run(*words, entrypoint=("sh",), volumes=volumes(workspace))
    assert done.returncode == 2, done.stdout
    assert "$ATELIER_OFFLINE forbids downloading" in done.stdout
