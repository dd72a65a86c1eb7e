"""Claims about the evaluation job's image: without torch, it scores a service container over HTTP."""

import json
import re
import signal
from pathlib import Path

import pytest

from tests.support.containers import BUNDLED, SCORE, Given, Image, Served, Volume, refused, writable
from tests.support.service.service_process import free_port


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return writable(tmp_path / "reports")


def test_evaluation_image_has_no_torch_and_an_unprivileged_user(evaluation_image: Image) -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(evaluation_image.config["User"]))
    look = "import importlib.util as u; print([m for m in ('torch', 'bentoml', 'pip', 'trainer') if u.find_spec(m)])"
    assert evaluation_image.run("-c", look, entrypoint=("python",)).stdout.strip() == "[]"


def test_evaluation_image_scores_a_service_over_http(
    evaluation_image: Image, service_image: Image, given: Given, reports: Path, tmp_path: Path
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    models.joinpath("digits.onnx").write_bytes(BUNDLED.read_bytes())
    port = free_port()
    with service_image.start(volumes=(Volume(models, "/models"),), environment={"PORT": str(port)}) as container:
        assert Served(container, port).why_not_ready() == ""
        url = f"http://127.0.0.1:{port}"
        words = ("score", url, *SCORE, "--metrics", "fid,precision", "--num-images", "300", "--output", "/reports/one")
        done = evaluation_image.run(*words, volumes=given.volumes(reports))
        assert done.returncode == 0, done.stdout
        document = json.loads((reports / "one" / "report.json").read_text(encoding="utf-8"))
        assert (reports / "one").stat().st_uid == 10001
        assert given.digest in json.dumps(document)
        assert url in json.dumps(document)
        # a threshold that no generator meets is a failed check, not a mistake
        failed = evaluation_image.run(*words, "--fail-above", "0.001", volumes=given.volumes(reports))
        assert failed.returncode == 1, failed.stdout
        assert "failed: " in failed.stdout


def test_evaluation_image_stopped_says_how_to_resume(evaluation_image: Image, given: Given, reports: Path) -> None:
    assert evaluation_image.config["StopSignal"] == "SIGINT"
    generator = Volume(BUNDLED, "/models/digits.onnx")
    words = ("score", "/models/digits.onnx", *SCORE, "--num-images", "2000000", "--output", "/reports/long")
    with evaluation_image.start(*words, volumes=(generator, *given.volumes(reports))) as job:
        job.wait_until(lambda: any((reports / "long").rglob("*")))
        code, seconds = job.stopped(signal.SIGINT)
    assert code == 130
    assert seconds < 10


def test_evaluation_image_without_volumes_is_one_line(evaluation_image: Image, given: Given, reports: Path) -> None:
    score = ("score", "/models/digits.onnx", *SCORE, "--num-images", "300")
    generator = Volume(BUNDLED, "/models/digits.onnx")
    reports.chmod(0o755)  # root's
    line = refused(evaluation_image, *score, "--output", "/reports/x", volumes=(generator, *given.volumes(reports)))
    assert "/reports" in line
    nothing = (Volume(given.reference, "/reference"), generator)
    line = refused(evaluation_image, *score, volumes=nothing)
    assert "/extractors/digits.onnx" in line
    line = refused(evaluation_image, "score", "digits@train", *SCORE, volumes=given.volumes(reports)[:2])
    assert "/cache" in line


def test_evaluation_image_without_a_service_is_one_line(evaluation_image: Image, given: Given, reports: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    line = refused(evaluation_image, "score", url, *SCORE, "--patience", "1", volumes=given.volumes(reports))
    assert url in line
