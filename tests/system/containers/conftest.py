"""The images that the tests run: built once a session, by whichever engine works here.

TEST_IMAGES=service builds and runs the service and the evaluation job, as CI does; TEST_IMAGES=all the trainer and
the bento too (`make test-images`). Without it, and not on CI, these tests are left out: building takes minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT / ".ci"))

import images
from images import Engine, ImageError, find_engine, make_base

from evaluation.extractors import load_extractor
from evaluation.extractors.classifier import build_classifier
from evaluation.references.data_paths import DataPaths
from evaluation.references.reference_set import make_reference
from tests.support.containers import BUNDLED, Given, Image, Served, Volume
from tests.support.service.service_process import free_port

WHICH = os.environ.get("TEST_IMAGES") or ("service" if os.environ.get("CI") == "true" else "")
collect_ignore = [] if WHICH == "all" else ["test_trainer_image.py", "test_bento_image.py", "test_memory_limit.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))
            if not WHICH:
                item.add_marker(pytest.mark.skip(reason="builds images for minutes: make test-images"))


@pytest.fixture(scope="session")
def engine() -> Engine:
    try:
        return find_engine()
    except ImageError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def ground(engine: Engine) -> str:
    """The base image: $BASE, else the default's where a registry is at hand, as it is for docker and podman."""
    if named := os.environ.get("BASE"):
        return make_base(engine) if named == "debootstrap" else named
    return make_base(engine) if engine.name == "buildah" else images.BAKE["variable"]["BASE"]["default"]


@pytest.fixture(scope="session")
def built(engine: Engine, ground: str) -> Callable[[str], Image]:
    """The image of a role, built from what is in the working tree."""
    known: dict[str, Image] = {}

    def image(role: str) -> Image:
        if role not in known:
            torch = os.environ.get("TORCH") if role == "trainer" else None
            tag = images.build(engine, role, ground, torch or "")
            print("\n" + images.sizes(engine, [tag], ground))
            known[role] = Image(engine, tag)
        return known[role]

    return image


@pytest.fixture(scope="session")
def service_image(built: Callable[[str], Image]) -> Image:
    return built("service")


@pytest.fixture(scope="session")
def evaluation_image(built: Callable[[str], Image]) -> Image:
    return built("evaluation")


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


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    extractors, reference = tmp_path_factory.mktemp("extractors"), tmp_path_factory.mktemp("reference")
    extractor = load_extractor(build_classifier("digits", extractors / "digits.onnx", epochs=2).path)
    paths = DataPaths(Path("data"), tmp_path_factory.mktemp("cache"))
    make_reference(paths.load_images("digits@test"), extractor, reference / "digits.npz")
    for folder in (extractors, reference):
        folder.chmod(0o755)
        for file in folder.rglob("*"):
            file.chmod(0o644)
    return Given(extractors, reference, extractor.digest)
